/** The life of a connection: how it starts and ends, interruption, faults, and a device that goes. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { constants } from 'node:os'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { connect, FaultControl, serveDevice } from '../../lib/index.js'
import { withConnected } from '../support/differential.js'
import { CLIENT_PEERS, missingPeer } from '../support/client-peers.js'
import { startBackend } from '../support/peers.js'
import { openFds } from '../support/vhost-user-session.js'

interface TraceRecord { op?: string, event?: string, error?: number, node?: number }

function readTrace(path: string): TraceRecord[] {
  return readFileSync(path, 'utf8').split('\n').filter(line => line !== '').map(line => JSON.parse(line) as TraceRecord)
}

for (const peer of CLIENT_PEERS) {
  t.test(peer, { skip: missingPeer(peer) }, async t => {
    await t.test('ends in the order of kill_sb, with nothing behind DESTROY', async t => {
      const base = mkdtempSync(join(tmpdir(), 'vfc-trace-'))
      const traceJson = join(base, 'trace.json')
      try {
        await withConnected(t, peer, { traceJson }, async (fs, shared) => {
          mkdirSync(join(shared, 'd'))
          writeFileSync(join(shared, 'd/f'), 'x')
          await fs.readFile('/d/f')
          await fs.open('/d/f')
        })
        const trace = readTrace(traceJson)
        const events = trace.filter(record => record.event?.startsWith('kill_sb')).map(record => record.event)
        t.strictSame(events, ['kill_sb.stop_hiprio', 'kill_sb.drained', 'kill_sb.destroy', 'kill_sb.stop_rings'])
        const ops = trace.filter(record => record.op !== undefined).map(record => record.op)
        t.equal(ops[0], 'INIT')
        t.equal(ops.at(-1), 'DESTROY')
        t.equal(ops.filter(op => op === 'DESTROY').length, 1)
      } finally {
        rmSync(base, { recursive: true })
      }
    })

    await t.test('names that are known are not asked for again', async t => {
      const base = mkdtempSync(join(tmpdir(), 'vfc-trace-'))
      const traceJson = join(base, 'trace.json')
      try {
        await withConnected(t, peer, { traceJson, cache: 'always' }, async (fs, shared) => {
          mkdirSync(join(shared, 'd'))
          writeFileSync(join(shared, 'd/f'), 'x')
          for (let i = 0; i < 5; i++) await fs.stat('/d/f')
        })
        t.equal(readTrace(traceJson).filter(record => record.op === 'LOOKUP').length, 2)
      } finally {
        rmSync(base, { recursive: true })
      }
    })

    await t.test('nothing is left', async t => {
      await withConnected(t, peer, {}, async () => {})
      const before = openFds()
      for (let i = 0; i < 3; i++) await withConnected(t, peer, {}, async fs => { await fs.writeFile('/f', 'x') })
      await sleep(50)
      t.equal(openFds(), before, 'as many descriptors as before')
    })
  })
}

t.test('interruption', async t => {
  const faults = new FaultControl()
  await withConnected(t, 'emulated', { faults }, async fs => {
    await fs.writeFile('/f', 'content')
    faults.delay('READ', 60_000)
    const abort = new AbortController()
    const started = performance.now()
    const reading = fs.readFile('/f', { signal: abort.signal })
    setTimeout(() => abort.abort(new Error('enough')), 50)
    await t.rejects(reading, { name: 'AbortError', code: 'ABORT_ERR', cause: { message: 'enough' } })
    t.ok(performance.now() - started < 30_000, 'at once')
    faults.delay('READ', 0)
    // the device has heard of it: its thread is free, and the file can be closed and read
    t.equal(await fs.readFile('/f', 'utf8'), 'content')

    faults.delay('WRITE', 60_000)
    const stop = new AbortController()
    const writing = fs.writeFile('/g', Buffer.alloc(3_000_000), { signal: stop.signal })
    setTimeout(() => stop.abort(), 50)
    await t.rejects(writing, { name: 'AbortError' })
    faults.delay('WRITE', 0)
    faults.delay('LOOKUP', 60_000)
    await t.rejects(fs.stat('/somewhere', { signal: AbortSignal.timeout(50) }), { name: 'AbortError', cause: { name: 'TimeoutError' } })
    faults.delay('LOOKUP', 0)

    const handle = await fs.open('/f')
    faults.delay('READ', 60_000)
    await t.rejects(handle.read({ signal: AbortSignal.timeout(50) }), { name: 'AbortError' })
    const streaming = new AbortController()
    const stream = handle.createReadStream({ signal: streaming.signal, autoClose: false })
    setTimeout(() => streaming.abort(), 50)
    await t.rejects(stream.toArray(), { name: 'AbortError' })
    faults.delay('READ', 0)
    t.equal((await handle.read({ position: 0 })).bytesRead, 7, 'the handle is as good as before')
    await handle.close()
  })
})

// node:fs/promises then keeps the file open until it is collected, so this is not compared with it
t.test('options that a stream refuses leave the file to who opened it', async t => {
  await withConnected(t, 'emulated', {}, async fs => {
    await fs.writeFile('/f', '0123456789')
    const handle = await fs.open('/f')
    t.throws(() => handle.createReadStream({ start: 10, end: 5 }), { code: 'ERR_OUT_OF_RANGE' })
    t.throws(() => handle.createReadStream({ start: '1' as never }), { code: 'ERR_INVALID_ARG_TYPE' })
    t.equal((await handle.read({ position: 0 })).bytesRead, 10)
    await handle.close()
  })
})

t.test('errors of the device come as they are', async t => {
  const faults = new FaultControl()
  const { errno } = constants
  await withConnected(t, 'emulated', { faults }, async fs => {
    await fs.writeFile('/f', Buffer.alloc(5_000_000))
    faults.failNext('OPEN', errno.EIO)
    await t.rejects(fs.readFile('/f'), { code: 'EIO', errno: -errno.EIO, syscall: 'open', path: '/f' })
    faults.failNext('FLUSH', errno.ENOSPC)
    await t.rejects(fs.writeFile('/g', 'x'), { code: 'ENOSPC', syscall: 'close' })
    faults.failNext('LOOKUP', errno.ESTALE)
    t.ok(await fs.stat('/f').then(stats => stats.isFile()), 'ESTALE: looked up again')

    const handle = await fs.open('/f', 'r+')
    const stream = handle.createWriteStream()
    faults.failNext('WRITE', errno.EDQUOT)
    const failed = new Promise<NodeJS.ErrnoException>(resolve => stream.once('error', resolve))
    for (let i = 0; i < 20; i++) stream.write(Buffer.alloc(100_000))
    stream.end()
    t.equal((await failed).code, 'EDQUOT', 'what was written behind fails the stream')
    faults.failNext('READ', errno.EIO)
    await t.rejects(fs.readFile('/f'), { code: 'EIO', syscall: 'read' })
    faults.failNext('STATX', errno.ENOSYS)
    t.equal((await fs.stat('/f')).birthtimeMs >= 0, true, 'a device without STATX is asked by GETATTR')
    faults.failNext('CREATE', errno.ENOSYS)
    await fs.writeFile('/made', 'without CREATE')
    t.equal(await fs.readFile('/made', 'utf8'), 'without CREATE')
    faults.failNext('COPY_FILE_RANGE', errno.ENOSYS)
    await fs.copyFile('/made', '/copied')
    t.equal(await fs.readFile('/copied', 'utf8'), 'without CREATE', 'without COPY_FILE_RANGE')
  })
})

t.test('a backend that dies', { skip: missingPeer('virtiofsd-rust') }, async t => {
  const base = mkdtempSync(join(tmpdir(), 'vfc-dies-'))
  const socket = join(base, 'vhost.sock')
  writeFileSync(join(base, 'f'), 'x')
  const backend = startBackend('virtiofsd-rust', base, socket, ['--sandbox=none'])
  try {
    const fs = await connect(`unix:${socket}`)
    let reason = ''
    const gone = new Promise<void>(resolve => fs.once('gone', why => { reason = why; resolve() }))
    const handle = await fs.open('/f')
    process.kill(backend.pid, 'SIGSTOP')
    while (!/^State:\s+T/m.test(readFileSync(`/proc/${backend.pid}/status`, 'utf8'))) await sleep(5)
    const inFlight = [handle.read(), fs.stat('/none'), fs.readdir('/')].map(each => each.then(() => 'done', (error: NodeJS.ErrnoException) => error.code))
    await sleep(50)
    process.kill(backend.pid, 'SIGKILL')
    await gone
    t.not(reason, '')
    for (const outcome of await Promise.all(inFlight)) t.equal(outcome, 'ECONNABORTED', 'what was in flight')
    await t.rejects(fs.stat('/f'), { code: 'ENOTCONN', syscall: 'stat', path: '/f' })
    await handle.close()
    t.equal(fs.gone, reason)
    await fs.close()
    await fs.close()
  } finally {
    await backend.kill()
    rmSync(base, { recursive: true })
  }
})

t.test('sources that cannot be connected', async t => {
  await t.rejects(connect('/none/at/all'), { code: 'ENOENT' })
  await t.rejects(connect('unix:/none/at/all'), { code: 'ENOENT' })
  await t.rejects(connect(tmpdir(), { queueSize: 100 }), { code: 'EINVAL' })
  await t.rejects(connect(tmpdir(), { queueSize: 4.5 }), { code: 'EINVAL' }, 'half an entry')
  await t.rejects(connect(tmpdir(), { backend: 'virtiofsd', virtiofsd: '/none' }), { code: 'ENOENT' })
  const before = openFds()
  await t.rejects(connect(tmpdir(), { posixAcl: true }), { code: 'ECONNREFUSED' }, 'a device that refuses INIT')
  await sleep(20)
  t.equal(openFds(), before)
})

t.test('two connections cannot have one tag', async t => {
  await withConnected(t, 'emulated', { tag: 'client-test' }, async (_fs, shared) => {
    await t.rejects(connect(shared, { tag: 'client-test' }), { code: 'EEXIST' })
  })
  await withConnected(t, 'emulated', { tag: 'client-test' }, async fs => { t.equal(fs.tag, 'client-test') })
})

t.test('a file system of a program, which has no OPEN', async t => {
  const device = serveDevice(new URL('../../examples/memfs.js', import.meta.url))
  await using fs = await connect(device)
  await fs.mkdir('/d')
  await fs.writeFile('/d/f', 'hello')
  t.equal(await fs.readFile('/d/f', 'utf8'), 'hello')
  await fs.appendFile('/d/f', ' again')
  const handle = await fs.open('/d/f', 'r+')
  t.equal((await handle.read(Buffer.alloc(20), 0, 20, 0)).bytesRead, 11)
  await handle.truncate(5)
  await handle.close()
  t.strictSame(await fs.readdir('/d'), ['f'])
  t.equal((await fs.stat('/d/f')).size, 5)
  await fs.rm('/d', { recursive: true })
  t.strictSame(await fs.readdir('/'), [])
})

t.test('of several that make one path, each says what it made itself', async t => {
  await withConnected(t, 'emulated', {}, async fs => {
    const said = await Promise.all(Array.from({ length: 12 }, () => fs.mkdir('/a/b/c', { recursive: true })))
    const made = said.filter(path => path !== undefined)
    t.equal(new Set(made).size, made.length, `nobody says what somebody else made: ${made.join(' ')}`)
    t.ok(made.includes('/a'), 'somebody made the first')
    t.ok((await fs.stat('/a/b/c')).isDirectory())
  })
})

t.test('stat of what is not there, without an error', async t => {
  await withConnected(t, 'emulated', {}, async fs => {
    await fs.writeFile('/f', 'x')
    t.equal(await fs.stat('/none', { throwIfNoEntry: false }), undefined)
    t.equal(await fs.lstat('/f/below', { throwIfNoEntry: false, bigint: true }), undefined)
    t.equal((await fs.stat('/f', { throwIfNoEntry: false }))!.size, 1)
    await t.rejects(fs.stat('/none', { throwIfNoEntry: true }), { code: 'ENOENT' })
    await t.rejects(fs.stat(`/${'n'.repeat(256)}`, { throwIfNoEntry: false }), { code: 'ENAMETOOLONG' })
  })
})

t.test('another user: permissions are checked here, as by a kernel', { skip: process.getuid!() === 0 ? false : 'not root' }, async t => {
  await withConnected(t, 'emulated', { uid: 1000, gid: 1000, groups: [], umask: 0o022 }, async (fs, shared) => {
    mkdirSync(join(shared, 'closed'), { mode: 0o700 })
    writeFileSync(join(shared, 'closed/f'), 'x')
    writeFileSync(join(shared, 'secret'), 'x', { mode: 0o600 })
    writeFileSync(join(shared, 'readable'), 'x', { mode: 0o644 })
    await t.rejects(fs.readFile('/closed/f'), { code: 'EACCES', syscall: 'open' })
    await t.rejects(fs.stat('/closed/f'), { code: 'EACCES', syscall: 'stat' })
    await t.rejects(fs.readFile('/secret'), { code: 'EACCES' })
    t.equal(await fs.readFile('/readable', 'utf8'), 'x')
    await t.rejects(fs.writeFile('/readable', 'y'), { code: 'EACCES' })
    await t.rejects(fs.writeFile('/new', 'y'), { code: 'EACCES' })
    await t.rejects(fs.unlink('/readable'), { code: 'EACCES' })
    await t.rejects(fs.chmod('/readable', 0o777), { code: 'EPERM' })
    await t.rejects(fs.utimes('/readable', 1, 2), { code: 'EPERM' })
    await t.rejects(fs.access('/secret', fs.constants.R_OK), { code: 'EACCES' })
    mkdirSync(join(shared, 'open'), { mode: 0o777 })
    await import('node:fs/promises').then(({ chmod }) => chmod(join(shared, 'open'), 0o777))
    await fs.writeFile('/open/mine', 'z')
    const stats = await fs.stat('/open/mine')
    t.strictSame([stats.uid, stats.gid, stats.mode & 0o777], [1000, 1000, 0o644])
  })
})

