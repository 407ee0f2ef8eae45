/** The command's bundle: every program and thread that a file of it starts is there, and it starts without what only others need. */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { packageRoot } from '../support/vhost-user-session.js'

const BUNDLE = join(packageRoot(), 'dist/command')
/** Of served file systems, which only the library has. */
const OF_THE_LIBRARY = new Set(['loop-thread.js', 'elsewhere.js', 'faults.js', 'file-system-handlers.js'])
const files = readdirSync(BUNDLE)

t.ok(files.includes('virtiofs-bridge.js') && files.includes('worker-main.js'))
for (const file of files) {
  const text = readFileSync(join(BUNDLE, file), 'utf8')
  t.test(file, async t => {
    for (const [, path] of text.matchAll(/new URL\("([^"]+)", import\.meta\.url\)/g)) {
      const name = path!.slice(path!.lastIndexOf('/') + 1)
      if (OF_THE_LIBRARY.has(name) || name === '') continue
      // what a thread loads by its URL is in the thread's own file
      if (path!.startsWith('../device/') || name === 'near-device.js') t.match(readFileSync(join(BUNDLE, 'worker-main.js'), 'utf8'), `"${name}", () => `, `worker-main.js has ${name}`)
      else t.ok(existsSync(join(BUNDLE, path!)), `${path} is there`)
    }
    for (const [, path] of text.matchAll(/import\("(\.\/[^"]+)"\)/g)) t.ok(existsSync(join(BUNDLE, path!)), `${path} is there`)
    for (const [, name] of text.matchAll(/^import .* from "([^"]+)";$/gm)) t.match(name, /^node:/, `${name} is loaded at once`)
  })
}
for (const file of ['virtiofs-bridge.js', 'daemon-child.js', 'served-child.js']) t.ok(readFileSync(join(BUNDLE, file)).length < 40_000, `${file} is small: it starts another one first`)
