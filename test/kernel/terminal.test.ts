/** What is only for a terminal: progress of what takes more than a second, and colours. */
import { createServer } from 'node:net'
import { once } from 'node:events'
import t from 'tap'
import { BRIDGE, missing, noProgram } from '../support/peers.js'
import { runToEnd, type Program } from '../support/program.js'
import { inScene, type Scene } from '../support/scene.js'

const skip = missing('emulated') || noProgram('script')

/** Runs the command on a terminal of its own. */
async function onTerminal(scene: Scene, args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Program> {
  const line = [...BRIDGE, ...args].map(word => `'${word}'`).join(' ')
  const nothing = { NO_COLOR: undefined, FORCE_COLOR: undefined, NODE_DISABLE_COLORS: undefined, CI: undefined }
  return await runToEnd(['script', '-qec', line, '/dev/null'], { env: { ...scene.env, ...nothing, TERM: 'xterm-256color', ...env }, timeoutMs: 30_000 })
}

t.test('progress', { skip }, async t => {
  await inScene(async scene => {
    const server = createServer(() => {})
    server.listen(scene.socket)
    await once(server, 'listening')
    const args = [`unix:${scene.socket}`, scene.dir, '-o', 'mount_timeout=2']
    try {
      const seen = await onTerminal(scene, args)
      t.match(seen.stdout, `\rmounting unix:${scene.socket} … 1 s\x1b[K`)
      t.match(seen.stdout, /\r\x1b\[K[^\r]*no answer to GET_FEATURES within 2 s/, 'it is taken away before the message')
      t.match(seen.exit, { code: 32 })
      const file = await runToEnd([...BRIDGE, ...args], { env: scene.env })
      t.match([file.stdout, file.stderr], ['', /^virtiofs-bridge: .*no answer.*\n$/], 'nothing of it elsewhere')
    } finally {
      server.close()
    }
  })
})

t.test('colours', { skip }, async t => {
  await inScene(async scene => {
    t.match(await scene.run(scene.source, scene.dir), { exit: { code: 0 } })
    t.match((await onTerminal(scene, ['doctor'])).stdout, /\x1b\[32mok/)
    t.notMatch((await onTerminal(scene, ['doctor'], { NO_COLOR: '1' })).stdout, /\x1b\[\d+m/, 'NO_COLOR')
    t.notMatch((await scene.run('doctor')).stdout, '\x1b', 'not a terminal')
    t.match(await scene.run('umount', scene.dir), { exit: { code: 0 } })
  })
})
