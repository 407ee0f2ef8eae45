/** withMount: a mount for the length of a function, which goes whatever happens; and programs that end with a mount. */
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { withMount } from '../../lib/index.js'
import { liveMounts } from '../../lib/mount/live-tags.js'
import { findMount } from '../../lib/mount/mountinfo.js'
import { runLibraryScript } from '../support/library-script.js'
import { missing, peerPath } from '../support/peers.js'
import { Program, runToEnd } from '../support/program.js'
import { eventually } from '../support/scene.js'
import { clearMount } from '../support/stuck.js'

const skip = missing('emulated')

async function withSource(body: (source: string, mountpoint: string) => Promise<void>): Promise<void> {
  const base = mkdtempSync(join(tmpdir(), 'with-'))
  const [source, mountpoint] = [join(base, 'source'), join(base, 'mount')]
  for (const path of [source, mountpoint]) mkdirSync(path)
  writeFileSync(join(source, 'hello'), 'hello\n')
  try {
    await body(source, mountpoint)
  } finally {
    await clearMount(mountpoint)
    // a process that ends without having unmounted leaves its tag, which whoever looks next removes
    liveMounts()
    rmSync(base, { recursive: true })
  }
}

t.test('a session', { skip }, async t => {
  const printed = await runLibraryScript(t, { script: 'with-mount-session', peer: 'emulated', timeoutMs: 60_000 })
  t.strictSame(printed.trim().split('\n'), [
    'what the function returns, and nothing is left', 'options, and synchronous calls', 'faults from a script', 'a request that is never answered',
    'a function that throws', 'a file left open', 'both: its own error counts', 'what cannot be mounted leaves nothing',
  ])
})

t.test('a virtiofsd', { skip: missing('virtiofsd-rust') }, async t => {
  await withSource(async source => {
    await withMount(source, { backend: 'virtiofsd', virtiofsd: peerPath('virtiofsd-rust') }, (dir, mounted) => {
      t.ok(existsSync(join(dir, 'hello')))
      t.throws(() => mounted.faults, { name: 'UsageError', message: /no faults on demand/ })
    })
  })
})

for (const way of ['SIGKILL', 'SIGTERM', 'exit'] as const) {
  t.test(`withMount, and the process ends by ${way}`, { skip }, async t => {
    await withSource(async source => {
      const child = new Program([process.execPath, fileURLToPath(new URL('../support/with-mount-child.js', import.meta.url)), source, way])
      t.ok(await eventually(() => child.stdout.endsWith('\n')), child.stderr)
      const dir = child.stdout.trim()
      if (way !== 'exit') {
        t.ok(findMount(dir))
        process.kill(child.pid, way)
      }
      t.match(await child.endsWithin(10_000), way === 'exit' ? { code: 3 } : { signal: way })
      t.ok(await eventually(() => findMount(dir) === undefined && !existsSync(dir), 10_000), 'nothing is left')
    })
  })
}

for (const options of ['{}', '{ queues: 3 }', '{ cache: "coherent" }']) {
  for (const [last, code] of [['process.exit(3)', 3], ['throw new Error("mine")', 1]] as const) {
    t.test(`${last} with a mount, ${options}`, { skip }, async t => {
      await withSource(async (source, mountpoint) => {
        const script = `
          import { readFileSync } from 'node:fs'
          import { mount } from ${JSON.stringify(new URL('../../lib/index.js', import.meta.url).href)}
          await mount({ source: ${JSON.stringify(source)}, mountpoint: ${JSON.stringify(mountpoint)}, options: ${options} })
          console.log(readFileSync(${JSON.stringify(join(mountpoint, 'hello'))}, 'utf8').trim())
          ${last}`
        t.match(await runToEnd([process.execPath, '--input-type=module', '-e', script], { timeoutMs: 20_000 }), { exit: { code }, stdout: 'hello\n' }, 'it ends')
      })
    })
  }
}
