/** status: mounts that are well, that are not, and whose process is gone; what it says is what README says. */
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs'
import { open, readdir } from 'node:fs/promises'
import { connect, Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { controlDir, controlSockets } from '../../lib/control/control-dir.js'
import type { FoundMount } from '../../lib/control/find-mounts.js'
import { ControlServer } from '../../lib/control/server.js'
import { mount, type Mount } from '../../lib/mount/mount.js'
import { documentedFields } from '../support/documented.js'
import { type LiveMount, withMount } from '../support/mounts.js'
import { BRIDGE, missing } from '../support/peers.js'
import { runToEnd } from '../support/program.js'

/** What status --json says of one mount. */
async function statusOf(target: string): Promise<{ status: FoundMount, code: number | null | undefined }> {
  const program = await runToEnd([...BRIDGE, 'status', target, '--json'], { timeoutMs: 30_000 })
  return { status: JSON.parse(program.stdout || '{}') as FoundMount, code: program.exit?.code }
}

/** Waits for the control socket, which is there shortly after the mount is. */
async function untilServed(live: LiveMount): Promise<void> {
  while (!controlSockets().some(path => path.includes(`/${live.pid}-`))) await sleep(10)
}

for (const peer of ['emulated', 'virtiofsd-rust'] as const) {
  t.test(`${peer}: a mount that is well`, { skip: missing(peer) }, async t => {
    await withMount(t, { peer, options: ['queues=2'] }, async live => {
      await untilServed(live)
      await readdir(live.dir)
      const { status, code } = await statusOf(live.dir)
      t.equal(code, 0)
      t.match(status, {
        mountpoints: [live.dir], backend: peer === 'emulated' ? 'emulated' : 'vhost-user', connection: live.connection, pid: live.pid,
        health: 'ok', reason: '', requestQueues: peer === 'emulated' ? 2 : 1, queueSize: 128, inFlight: 0, errors: Number, fuseVersion: /^7\.\d+$/,
        notices: [],
      })
      t.ok(status.features!.includes('VERSION_1'))
      t.ok(status.requests! > 1, 'requests are counted')
      t.ok(Math.abs(Date.parse(status.since!) / 1000 + status.uptimeSeconds! - Date.now() / 1000) < 30)
      t.strictSame(Object.keys(status).sort(), documentedFields('status --json').sort(), 'the documentation has every field')

      t.strictSame((await statusOf(status.tag!)).status.connection, live.connection, 'by its tag')
      const list = await runToEnd([...BRIDGE, 'status'], { timeoutMs: 30_000 })
      t.match(list.stdout, /^MOUNT POINT +SOURCE +TAG/)
      t.match(list.stdout.split('\n').find(line => line.startsWith(live.dir)), / ok$/)
      t.match((await runToEnd([...BRIDGE, 'status', live.dir])).stdout, new RegExp(`^mount points +${live.dir}\nsource `))
      const sockets = controlSockets().filter(path => path.includes(`/${live.pid}-`))
      t.equal(sockets.length, 1)
      t.equal(statSync(sockets[0]!).mode & 0o777, 0o600)
      t.equal(statSync(controlDir()).mode & 0o777, 0o700)
      t.equal(await live.unmount(), 0)
      t.strictSame(controlSockets().filter(path => path.includes(`/${live.pid}-`)), [], 'the socket goes with the mount')
    })
  })
}

t.test('what makes no sense on the control socket', { skip: missing('emulated') }, async t => {
  await withMount(t, { peer: 'emulated' }, async live => {
    await untilServed(live)
    const path = controlSockets().find(path => path.includes(`/${live.pid}-`))!
    const say = async (text: string): Promise<string> => {
      const socket = connect(path)
      let said = ''
      socket.setEncoding('utf8').on('data', (chunk: string) => { said += chunk })
      socket.on('error', () => {})
      socket.end(text)
      await new Promise(resolve => socket.once('close', resolve))
      return said
    }
    t.match(await say('hello\n'), /^\{"error":/)
    t.match(await say('{"command":"explode"}\n'), '{"error":"no such command"}\n')
    t.match(await say('null\n'), '{"error":"no such command"}\n')
    t.match(await say('x'.repeat(3 << 20)), /at most|^$/, 'a line without end')
    t.equal((await statusOf(live.dir)).status.health, 'ok', 'does no harm')
  })
})

t.test('a device that is gone, a process that does not answer, one that was killed', { skip: missing('virtiofsd-rust') }, async t => {
  await withMount(t, { peer: 'virtiofsd-rust', rough: true }, async live => {
    await untilServed(live)
    await live.backend!.kill()
    let found = await statusOf(live.dir)
    for (let tries = 0; found.status.health === 'ok' && tries < 50; tries++) found = await statusOf(live.dir)
    t.match(found, { code: 32, status: { health: 'gone', reason: /socket/, pid: live.pid } })
    t.match(await runToEnd([...BRIDGE, 'umount', live.dir], { timeoutMs: 30_000 }), { exit: { code: 0 } })
  })
  await withMount(t, { peer: 'emulated', rough: true }, async live => {
    await untilServed(live)
    live.bridge.child.kill('SIGSTOP')
    t.match(await statusOf(live.dir), { code: 32, status: { health: 'silent', mountpoints: [live.dir], pid: live.pid } })
    live.bridge.child.kill('SIGCONT')
    t.equal((await statusOf(live.dir)).status.health, 'ok')
    const { pid } = live
    await live.bridge.kill()
    t.match(await statusOf(live.dir), { code: 32, status: { health: 'dead', mountpoints: [live.dir], source: live.source, connection: live.connection } })
    t.notOk(readdirSync(controlDir()).some(name => name.startsWith(`${pid}-`)), 'what it left is removed')
    t.match(await runToEnd([...BRIDGE, 'umount', live.dir], { timeoutMs: 30_000 }), { exit: { code: 0 } })
    t.match(await runToEnd([...BRIDGE, 'status', live.dir]), { exit: { code: 32 }, stderr: `virtiofs-bridge: ${live.dir} is not a mount of virtiofs-bridge\n` })
  })
})

t.test('a mount of a program, and one that was detached', { skip: missing('emulated') }, async t => {
  const base = mkdtempSync(join(tmpdir(), 'status-'))
  const [source, mountpoint] = [join(base, 'source'), join(base, 'mount')]
  mkdirSync(source)
  mkdirSync(mountpoint)
  const mounted = await mount({ source, mountpoint })
  t.match(await statusOf(mountpoint), { code: 0, status: { health: 'library', pid: process.pid, tag: mounted.tag } })
  t.match(mounted.status(), { mountpoints: [mountpoint], health: 'ok', backend: 'emulated' })
  await mounted.unmount()
  t.strictSame(mounted.status().mountpoints, [], 'afterwards it is nowhere')
  rmSync(base, { recursive: true })

  await withMount(t, { peer: 'emulated', options: ['tag=detached-one'] }, async (live: LiveMount) => {
    await untilServed(live)
    const holder = await open(live.dir, 'r')
    t.match(await runToEnd(['umount', '-l', live.dir]), { exit: { code: 0 } })
    t.match(await statusOf('detached-one'), { code: 0, status: { mountpoints: [], health: 'ok', pid: live.pid } })
    await holder.close()
    t.match(await live.bridge.endsWithin(20_000), { code: 0 })
  })
})

t.test('a control socket has its name only when it listens, so that nobody takes it for left over', async t => {
  const { listen } = Server.prototype
  t.teardown(() => { Server.prototype.listen = listen })
  let seen: string[] | undefined
  Server.prototype.listen = function (this: Server, ...args: Parameters<typeof listen>) {
    listen.apply(this, args)
    seen = controlSockets().filter(path => path.includes(`/${process.pid}-`))
    return this
  } as typeof listen
  let end = (): void => {}
  const closed = new Promise<void>(resolve => { end = resolve })
  const server = await ControlServer.start({ closed } as Mount)
  t.strictSame(seen, [], 'not yet')
  t.ok(controlSockets().includes(server.path), 'now')
  end()
  await closed
  await sleep(0)
  t.notOk(controlSockets().includes(server.path), 'it goes with the mount')
})
