/** TESTING.md and CONTRIBUTING.md speak of files that exist. */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { packageRoot } from '../support/vhost-user-session.js'

const ROOT = packageRoot()

for (const guide of ['README.md', 'TESTING.md', 'CONTRIBUTING.md', ...readdirSync(join(ROOT, 'native-notes')).map(name => `native-notes/${name}`)]) {
  t.test(guide, async t => {
    const text = readFileSync(join(ROOT, guide), 'utf8')
    const links = [...text.matchAll(/\]\(([^)#:]+)(?:#[^)]*)?\)/g)].map(([, path]) => join(guide, '..', path!))
    for (const path of links) t.ok(existsSync(join(ROOT, path)), `link to ${path}`)
    if (guide.includes('/')) return
    const named = [...text.matchAll(/`((?:lib|bin|test|examples|bench|docs|native-notes)\/[\w./-]+)`/g)].map(([, path]) => path!)
    for (const path of named) t.ok(existsSync(join(ROOT, path)), path)
  })
}

t.test('TESTING.md has every suite', async t => {
  const text = readFileSync(join(ROOT, 'TESTING.md'), 'utf8')
  for (const entry of readdirSync(join(ROOT, 'test'), { withFileTypes: true })) if (entry.isDirectory()) t.ok(text.includes(`| \`test/${entry.name}\` |`), entry.name)
})
