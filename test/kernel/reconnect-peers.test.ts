/** on_disconnect=wait with backends that do not simply come back: another tree, never, half-way, stopped, changed. */
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { open, readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { errno } from '../../lib/errors.js'
import { VhostUserRequest as R } from '../../lib/vhost-user/message.js'
import { BRIDGE, missing, noKernel, peerPath, startBackend } from '../support/peers.js'
import { withMount, type LiveMount } from '../support/mounts.js'
import { processTree, Program, run, runToEnd, signal, within } from '../support/program.js'
import { ownBackend } from '../support/reconnect-load.js'
import { eventually } from '../support/scene.js'
import { VhostUserListener } from '../support/vhost-user-listener.js'

const PEER = 'virtiofsd-rust'
const WAIT = ['on_disconnect=wait']
const files = (source: string): void => { writeFileSync(join(source, 'file'), 'x'.repeat(100_000)) }

function killBackend(live: LiveMount): void {
  for (const pid of processTree(live.backend!.pid)) signal(pid, 'SIGKILL')
  rmSync(join(live.base, 'vhost.sock'))
}

/** Another one takes the place of the backend; it ends with the mount. */
function startAnother(live: LiveMount, directory = live.source, args: readonly string[] = []): void {
  live.backend = startBackend(PEER, directory, join(live.base, 'vhost.sock'), args)
}

/** A process that nobody waits for stays as a zombie where there is no init. */
function lives(pid: number): boolean {
  return existsSync(`/proc/${pid}`) && !/^State:\tZ/m.test(readFileSync(`/proc/${pid}/status`, 'latin1'))
}

async function code(call: Promise<unknown>): Promise<string> {
  // libuv has no name for ESTALE
  return await within(10_000, call.then(() => 'ok', (error: NodeJS.ErrnoException) => error.errno === -errno.ESTALE ? 'ESTALE' : error.code ?? String(error))) ?? 'nothing within 10 s'
}

t.test('a backend that somebody starts again on its socket', { skip: missing(PEER) }, async t => {
  await withMount(t, { peer: PEER, options: WAIT, files, rough: true }, async live => {
    const held = await open(join(live.dir, 'file'), 'r+')
    killBackend(live)
    const waiting = held.write('hello', 50_000)
    t.equal(await within(300, waiting), undefined, 'it waits')
    startAnother(live)
    t.ok(await within(10_000, waiting), 'and goes on')
    await held.sync()
    t.equal(readFileSync(join(live.source, 'file'), 'utf8').slice(49_999, 50_006), 'xhellox')
    await held.close()
    t.equal(await live.unmount(), 0)
    t.match(live.bridge.stderr, /^[^\n]*the backend closed its socket; operations wait until it is back\n[^\n]*the backend is back\n$/)
  })
})

t.test('another tree on the same socket: what was open is ESTALE, never the data of another file', { skip: missing(PEER) }, async t => {
  await withMount(t, { peer: PEER, options: WAIT, files: source => {
    mkdirSync(join(source, 'd'))
    writeFileSync(join(source, 'd', 'file'), 'old'.repeat(100_000))
  }, rough: true }, async live => {
    const other = join(live.base, 'other')
    mkdirSync(join(other, 'd'), { recursive: true })
    writeFileSync(join(other, 'd', 'file'), 'new'.repeat(100_000))
    const direct = 0o40000
    const held = await open(join(live.dir, 'd', 'file'), direct)
    const chunk = Buffer.alloc(4096)
    await held.read(chunk, 0, 4096, 0)
    killBackend(live)
    startAnother(live, other)
    t.equal(await code(held.read(chunk, 0, 4096, 8192)), 'ESTALE')
    t.equal(await code(held.stat()), 'ESTALE')
    t.match(await readFile(join(live.dir, 'd', 'file'), 'utf8'), /^(new)*$/, 'by its path it is the file that is there now')
    t.equal(await code(held.read(chunk, 0, 4096, 8192)), 'ESTALE', 'for good')
    await held.close()
    t.equal(await live.unmount(), 0)
  })
})

t.test('it never comes back: callers can be killed, the mount can be unmounted', { skip: missing(PEER) }, async t => {
  await withMount(t, { peer: PEER, options: WAIT, files, rough: true }, async live => {
    const reads = new Program(['tail', '-c', '+1', '-f', join(live.dir, 'file')])
    t.ok(await eventually(() => reads.stdout.length === 100_000))
    killBackend(live)
    t.ok(await eventually(() => live.bridge.stderr.includes('operations wait')))
    const callers = [['cat', join(live.dir, 'file')], ['touch', join(live.dir, 'new')], ['ls', live.dir]].map(argv => new Program(argv))
    t.equal(await within(500, Promise.race(callers.map(one => one.exited))), undefined, 'they wait')
    const status = await runToEnd([...BRIDGE, 'status', live.dir, '--json'])
    t.match(JSON.parse(status.stdout), { health: 'waiting', reason: 'the backend closed its socket' })
    for (const one of [reads, ...callers]) {
      signal(one.pid, 'SIGKILL')
      t.match(await one.endsWithin(5000), { signal: 'SIGKILL' }, `${one.argv.join(' ')} is killed`)
    }
    t.equal(await live.unmount(), 0)
    t.notOk(live.trace().some(({ op }) => op === 'DESTROY'))
  })
})

/** Opens files, says so, and then writes a megabyte to each of them at once, past the page cache. */
const WRITERS = `
  const fs = require('node:fs')
  const files = Array.from({ length: 48 }, (_, i) => fs.openSync(process.argv[1] + '/written' + i, 0o40101, 0o644))
  console.log('open')
  setTimeout(() => { for (const fd of files) fs.write(fd, Buffer.alloc(1 << 20), () => {}) }, 1000)
  setTimeout(() => console.log('writing'), 2000)`

t.test('more writers than there are buffers can be killed, too', { skip: missing(PEER) }, async t => {
  await withMount(t, { peer: PEER, options: WAIT, rough: true }, async live => {
    const writers = new Program([process.execPath, '-e', WRITERS, live.dir], { env: { ...process.env, UV_THREADPOOL_SIZE: '64' } })
    t.ok(await eventually(() => writers.stdout.includes('open')))
    killBackend(live)
    t.ok(await eventually(() => writers.stdout.includes('writing')))
    const { inFlight } = JSON.parse((await runToEnd([...BRIDGE, 'status', live.dir, '--json'])).stdout) as { inFlight: number }
    t.ok(inFlight >= 48, `${inFlight} requests wait`)
    signal(writers.pid, 'SIGKILL')
    t.match(await writers.endsWithin(10_000), { signal: 'SIGKILL' })
    t.equal(await live.unmount(), 0)
  })
})

t.test('unmounted by a signal while it is away and somebody waits', { skip: missing(PEER) }, async t => {
  await withMount(t, { peer: PEER, options: WAIT, files, rough: true }, async live => {
    killBackend(live)
    const waiting = code(readdir(live.dir))
    t.equal(await within(300, waiting), undefined)
    live.bridge.child.kill('SIGTERM')
    await sleep(200)
    live.bridge.child.kill('SIGTERM')
    t.match(await waiting, /^(EIO|ENOTCONN|ECONNABORTED)$/)
    t.match(await live.bridge.endsWithin(15_000), { code: 0 })
    t.notOk(live.mounted)
  })
})

/** What goes wrong with the first who answer on the socket. */
const HALF_WAY: [string, number, 'close' | 'silence'][] = [
  ['hangs up at once', R.GET_FEATURES, 'close'], ['hangs up when it is given memory', R.SET_MEM_TABLE, 'close'],
  ['hangs up when its rings start', R.SET_VRING_ENABLE, 'close'], ['says nothing', R.GET_FEATURES, 'silence'],
]

async function halfWay(t: Test, live: LiveMount, request: number, how: 'close' | 'silence'): Promise<void> {
  killBackend(live)
  const socket = join(live.base, 'vhost.sock')
  const listener = new VhostUserListener(socket, { faults: { [request]: () => how }, queueNum: 2n })
  const waiting = readFile(join(live.dir, 'file'), 'utf8')
  t.ok(await eventually(() => listener.backends.length >= 2), 'tried again')
  t.ok(live.mounted)
  rmSync(socket)
  await listener.close()
  startAnother(live)
  t.equal((await within(15_000, waiting))?.length, 100_000)
}

t.test('it goes again while it is coming back', { skip: missing(PEER) }, async t => {
  await withMount(t, { peer: PEER, options: [...WAIT, 'mount_timeout=1'], files, rough: true, backendArgs: ['--tag=testfs'], timeoutMs: 90_000 }, async live => {
    for (const [what, request, how] of HALF_WAY) {
      t.comment(what)
      await halfWay(t, live, request, how)
    }
    t.equal(await live.unmount(), 0)
  })
})

t.test('it comes back and answers otherwise: the mount is given up, with the reason', { skip: missing(PEER) }, async t => {
  await withMount(t, { peer: PEER, options: WAIT, files, rough: true }, async live => {
    killBackend(live)
    const waiting = code(stat(join(live.dir, 'file')))
    startAnother(live, live.source, ['--writeback'])
    t.match(await waiting, /^(EIO|ENOTCONN)$/)
    t.equal(await code(stat(join(live.dir, 'file'))), 'ENOTCONN')
    t.ok(await eventually(() => live.bridge.stderr.endsWith('unmounted\n')))
    t.match(live.bridge.stderr, /the device that came back answers FUSE_INIT otherwise: with WRITEBACK_CACHE; operations fail until it is unmounted\n$/)
    t.equal(await live.unmount(), 0)
  })
})

t.test('our own virtiofsd stops: with timeout it is ended, and another goes on', { skip: missing(PEER) }, async t => {
  const options = ['backend=virtiofsd', `virtiofsd=${peerPath(PEER)}`, ...WAIT, 'timeout=1']
  await withMount(t, { peer: 'emulated', options, files, rough: true }, async live => {
    const stopped = ownBackend(live)
    for (const pid of stopped) signal(pid, 'SIGSTOP')
    t.equal((await within(20_000, readFile(join(live.dir, 'file'), 'utf8')))?.length, 100_000)
    t.notOk(stopped.some(lives), 'the one that stopped is dead')
    t.equal(await live.unmount(), 0)
    t.match(live.bridge.stderr, /the device did not answer [A-Z]+ within 1 s; operations wait until it is back\n/)
  })
})

t.test('one that took over dies, too: it is found again where it was', { skip: missing(PEER) }, async t => {
  const handles = ['--migration-on-error=guest-error', '--modcaps=+dac_read_search']
  await withMount(t, { peer: PEER, options: WAIT, files, backendArgs: ['--migration-mode=file-handles', '--modcaps=+dac_read_search'], rough: true }, async live => {
    const held = await open(join(live.dir, 'file'), 'r+')
    const socket = join(live.base, 'second.sock')
    live.backend = startBackend(PEER, live.source, socket, handles)
    await run([...BRIDGE, 'replace', live.dir, '--socket', socket])
    for (const pid of processTree(live.backend.pid)) signal(pid, 'SIGKILL')
    rmSync(socket)
    const waiting = held.write('hello', 50_000)
    t.equal(await within(300, waiting), undefined, 'it waits')
    live.backend = startBackend(PEER, live.source, socket)
    t.ok(await within(10_000, waiting), 'and goes on')
    t.equal(readFileSync(join(live.source, 'file'), 'utf8').slice(49_999, 50_006), 'xhellox')
    await held.close()
    t.equal(await live.unmount(), 0)
  })
})

t.test('what cannot wait says so', { skip: noKernel() }, async t => {
  const cases: [source: string, options: string[], message: RegExp][] = [
    [t.testdir({}), WAIT, /needs a backend in another process/],
    [t.testdir({}), [...WAIT, 'backend=virtiofsd', 'queues=2'], /goes with one request queue/],
  ]
  for (const [source, options, message] of cases) {
    const { exit, stderr } = await runToEnd([...BRIDGE, source, t.testdir({}), '-o', options.join(',')])
    t.not(exit?.code, 0)
    t.match(stderr, message)
  }
})
