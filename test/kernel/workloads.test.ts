/** What people do all day, by the programs they do it with: git, a C compiler, npm, editors. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { open, readFile, rename, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { withMount, type LiveMount } from '../support/mounts.js'
import { missing, noProgram, PEERS, type Peer } from '../support/peers.js'
import { run } from '../support/program.js'

const TIMEOUT_MS = 120_000

async function gitClone(t: Test, { base, dir }: LiveMount): Promise<void> {
  const env = {
    ...process.env, HOME: base, GIT_CONFIG_NOSYSTEM: '1', GIT_TERMINAL_PROMPT: '0', GIT_AUTHOR_NAME: 'a', GIT_AUTHOR_EMAIL: 'a@example.org',
    GIT_COMMITTER_NAME: 'a', GIT_COMMITTER_EMAIL: 'a@example.org',
  }
  const git = async (cwd: string, ...args: string[]): Promise<string> => await run(['git', ...args], { cwd, env })
  const origin = join(base, 'origin')
  mkdirSync(origin)
  await git(origin, 'init', '-q', '-b', 'main')
  for (let i = 0; i < 300; i++) {
    mkdirSync(join(origin, `d${i % 20}`), { recursive: true })
    writeFileSync(join(origin, `d${i % 20}`, `file ${i}.txt`), `${i}\n`.repeat(i * 7 % 900))
  }
  await git(origin, 'add', '.')
  await git(origin, 'commit', '-q', '-m', 'first')
  const clone = join(dir, 'clone')
  await git(dir, 'clone', '-q', '--no-local', origin, clone)
  t.equal(await git(clone, 'status', '--porcelain'), '', 'a clone into the mount is clean')
  await git(clone, 'fsck', '--strict')
  t.equal(await git(clone, 'rev-parse', 'HEAD'), await git(origin, 'rev-parse', 'HEAD'))
  await writeFile(join(clone, 'd0', 'file 0.txt'), 'changed\n')
  t.equal(await git(clone, 'status', '--porcelain'), ' M "d0/file 0.txt"\n', 'git sees the change')
  await git(clone, 'commit', '-q', '-a', '-m', 'second')
  await git(clone, 'checkout', '-q', 'HEAD~1')
  await git(clone, 'checkout', '-q', 'main')
  await git(clone, 'gc', '-q')
  await git(base, 'clone', '-q', '--no-local', clone, join(base, 'back'))
  t.equal(await git(join(base, 'back'), 'rev-parse', 'HEAD'), await git(clone, 'rev-parse', 'HEAD'), 'a clone from the mount has what was committed there')
}

async function compile(t: Test, { dir }: LiveMount): Promise<void> {
  await writeFile(join(dir, 'greet.h'), 'const char *greet(void);\n')
  await writeFile(join(dir, 'greet.c'), '#include "greet.h"\nconst char *greet(void) { return "built on the mount"; }\n')
  await writeFile(join(dir, 'main.c'), '#include <stdio.h>\n#include "greet.h"\nint main(void) { puts(greet()); return 0; }\n')
  for (const name of ['greet', 'main']) await run(['gcc', '-O1', '-g', '-c', '-o', `${name}.o`, `${name}.c`], { cwd: dir })
  await run(['gcc', '-o', 'program', 'main.o', 'greet.o'], { cwd: dir })
  t.equal(await run([join(dir, 'program')]), 'built on the mount\n', 'it runs from the mount')
}

async function npmInstall(t: Test, { dir }: LiveMount): Promise<void> {
  const pack = async (name: string, more: object): Promise<string> => {
    const at = join(dir, name)
    await run(['mkdir', '-p', at])
    await writeFile(join(at, 'package.json'), JSON.stringify({ name, version: '1.0.0', ...more }))
    return at
  }
  const dependency = await pack('dependency', { main: 'index.js', bin: { 'say-it': 'cli.js' } })
  await writeFile(join(dependency, 'index.js'), 'module.exports = "installed on the mount"\n')
  await writeFile(join(dependency, 'cli.js'), '#!/usr/bin/env node\nconsole.log(require("./index.js"))\n')
  await pack('linked', { main: 'index.js' })
  await writeFile(join(dir, 'linked', 'index.js'), 'module.exports = require("dependency")\n')
  const app = await pack('app', { dependencies: { dependency: 'file:../dependency' }, scripts: { say: 'say-it' } })
  const npm = async (...args: string[]): Promise<string> =>
    await run(['npm', ...args, '--offline', '--no-audit', '--no-fund', '--cache', join(dir, '.npm'), '--loglevel=error'], { cwd: app, timeoutMs: TIMEOUT_MS })
  await npm('install', '--install-links')
  t.ok((await stat(join(app, 'node_modules', 'dependency', 'index.js'))).isFile(), 'the dependency was copied')
  t.match(await npm('run', '--silent', 'say'), 'installed on the mount', 'its program runs')
  await npm('install', '../linked')
  t.equal(await run(['node', '-p', 'require("dependency")'], { cwd: app }), 'installed on the mount\n')
  await npm('ci', '--install-links')
  await npm('uninstall', 'dependency')
  await t.rejects(stat(join(app, 'node_modules', 'dependency')), { code: 'ENOENT' }, 'and it is removed')
}

async function edit(t: Test, { dir, source }: LiveMount): Promise<void> {
  const path = join(dir, 'text')
  await writeFile(path, 'version 0\n')
  const before = await open(path, 'r')
  for (let version = 1; version <= 50; version++) {
    const temporary = join(dir, `.text.${version}.swp`)
    const file = await open(temporary, 'wx')
    await file.writeFile(`version ${version}\n`)
    await file.sync()
    await file.close()
    await rename(temporary, path)
    const now = await readFile(path, 'utf8')
    if (now !== `version ${version}\n`) t.equal(now, `version ${version}\n`)
  }
  t.equal((await before.readFile('utf8')), 'version 0\n', 'who had it open still has the old one')
  await before.close()
  t.equal(await readFile(join(source, 'text'), 'utf8'), 'version 50\n', 'the last one is in the shared directory')
  await run(['sed', '-i', 's/version 50/edited/', path])
  t.equal(await readFile(path, 'utf8'), 'edited\n', 'sed -i')
  for (const word of ['one', 'two', 'three']) await run(['sh', '-c', `echo ${word} >>text`], { cwd: dir })
  t.equal(await readFile(join(source, 'text'), 'utf8'), 'edited\none\ntwo\nthree\n', 'appending by other processes')
}

const workloads: [name: string, program: string | undefined, body: (t: Test, live: LiveMount) => Promise<void>][] = [
  ['git clone, commit, checkout', 'git', gitClone],
  ['a C program is built', 'gcc', compile],
  ['npm install', 'npm', npmInstall],
  ['a file is edited by renaming over it', undefined, edit],
]

function skipped(peer: Peer, program: string | undefined): string | false {
  return missing(peer) || (program !== undefined && noProgram(program))
}

for (const peer of PEERS) {
  for (const [name, program, body] of workloads) {
    t.test(`${peer}: ${name}`, { skip: skipped(peer, program) }, async t => {
      await withMount(t, { peer, timeoutMs: TIMEOUT_MS }, async live => await body(t, live))
    })
  }
}
