/** Unix sockets with file descriptors, and the backend's own channel. */
import { once } from 'node:events'
import { fstatSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { Socket } from 'node:net'
import { join } from 'node:path'
import { tmpdir } from 'node:os'
import t, { type Test } from 'tap'
import { errno } from '../../lib/errors.js'
import { close, pollAsync, POLLIN, POLLOUT } from '../../lib/sys/io.js'
import { acceptUnix, connectUnix, listenUnix, shutdown, socketpair } from '../../lib/sys/socket.js'
import { peekByte, recvmsg, sendmsg, SOCKET_BUFFER_BYTES } from '../../lib/sys/socket-message.js'
import { BackendRequests } from '../../lib/vhost-user/backend-requests.js'
import { VhostUserConnection } from '../../lib/vhost-user/connection.js'
import { loadDeviceState, saveDeviceState } from '../../lib/vhost-user/device-state.js'
import { VhostUserFrontend } from '../../lib/vhost-user/frontend.js'
import { VhostUserRequest as R } from '../../lib/vhost-user/message.js'
import { VhostUserBackend } from '../support/vhost-user-backend.js'
import { openFds } from '../support/vhost-user-session.js'

const O_CLOEXEC = 0o2000000
const O_NONBLOCK = 0o4000

function fdFlags(fd: number): number {
  return parseInt(/flags:\s+(\d+)/.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1'))?.[1] ?? '', 8)
}

const directory = mkdtempSync(join(tmpdir(), 'vhost-user-socket-'))
t.teardown(() => { rmSync(directory, { recursive: true }) })

{
  // the first stream makes libuv keep a spare descriptor, once
  const [a, b] = socketpair()
  const stream = new Socket({ fd: a })
  stream.destroy()
  await once(stream, 'close')
  close(b)
}

function check(name: string, body: (t: Test) => Promise<void>): void {
  t.test(name, async t => {
    const before = openFds()
    await body(t)
    t.equal(openFds(), before, 'no descriptor is left')
  })
}

check('descriptors travel, close-on-exec, with the first byte', async t => {
  const [a, b] = socketpair()
  const file = openSync(join(directory, 'file'), 'w')
  for (const fd of [a, b]) t.equal(fdFlags(fd) & (O_CLOEXEC | O_NONBLOCK), O_CLOEXEC | O_NONBLOCK)
  const [ours, theirs] = socketpair('theirs blocking')
  t.same([ours, theirs].map(fd => fdFlags(fd) & (O_CLOEXEC | O_NONBLOCK)), [O_CLOEXEC | O_NONBLOCK, O_CLOEXEC])
  close(ours)
  close(theirs)
  for (const count of [1, 2, 3, 32]) {
    t.equal(sendmsg(a, Buffer.from('hello'), Array<number>(count).fill(file)), 5)
    const fds: number[] = []
    const into = Buffer.alloc(2)
    t.equal(recvmsg(b, into, fds), 2)
    t.equal(fds.length, count)
    t.equal(into.toString(), 'he')
    const rest = Buffer.alloc(10)
    t.equal(recvmsg(b, rest, fds), 3)
    t.equal(rest.toString('latin1', 0, 3), 'llo')
    t.equal(fds.length, count, 'nothing more with the rest')
    for (const fd of fds) {
      t.equal(fstatSync(fd).ino, fstatSync(file).ino)
      t.equal(fdFlags(fd) & O_CLOEXEC, O_CLOEXEC)
      close(fd)
    }
  }
  for (const fd of [a, b, file]) close(fd)
})

check('more descriptors than there is room for: none is kept', async t => {
  const [a, b] = socketpair()
  t.equal(sendmsg(a, Buffer.from('x'), Array<number>(33).fill(0)), 1)
  const fds: number[] = []
  t.equal(recvmsg(b, Buffer.alloc(8), fds), -errno.EMSGSIZE)
  t.same(fds, [])
  t.equal(sendmsg(a, Buffer.from('x'), Array<number>(254).fill(0)), -errno.EINVAL)
  t.equal(recvmsg(b, Buffer.alloc(8), fds), -errno.EAGAIN)
  close(a)
  close(b)
})

check('a full socket, an empty one, one whose peer is gone', async t => {
  const [a, b] = socketpair()
  t.equal(recvmsg(b, Buffer.alloc(8), []), -errno.EAGAIN)
  t.equal(peekByte(b), -errno.EAGAIN)
  const block = Buffer.alloc(SOCKET_BUFFER_BYTES + 100, 7)
  t.equal(sendmsg(a, block), SOCKET_BUFFER_BYTES, 'longer messages go in parts')
  t.equal(peekByte(b), 1)
  let n: number
  do { n = sendmsg(a, block) } while (n > 0)
  t.equal(n, -errno.EAGAIN)
  t.equal(sendmsg(a, Buffer.from('x'), [9999]), -errno.EBADF)
  close(b)
  t.equal(sendmsg(a, block), -errno.EPIPE, 'and no SIGPIPE')
  close(a)
  const [c, d] = socketpair()
  shutdown(c)
  t.equal(peekByte(d), 0)
  t.equal(recvmsg(d, Buffer.alloc(8), []), 0)
  close(c)
  close(d)
})

check('connecting, listening', async t => {
  const path = join(directory, 'socket')
  const old = process.umask(0)
  const listener = listenUnix(path)
  process.umask(old)
  t.equal(statSync(path).mode & 0o777, 0o600, 'for the owner alone, whatever the umask')
  t.equal(fdFlags(listener) & (O_CLOEXEC | O_NONBLOCK), O_CLOEXEC, 'blocking, as the accept of a backend expects')
  t.throws(() => listenUnix(path), { name: 'SyscallError', code: 'EADDRINUSE', message: new RegExp(path) })
  t.equal(await acceptUnix(listener, 5), -errno.ETIMEDOUT)

  const client = connectUnix(path)
  const server = await acceptUnix(listener, 1000)
  t.ok(server > 0)
  for (const fd of [client, server]) t.equal(fdFlags(fd) & (O_CLOEXEC | O_NONBLOCK), O_CLOEXEC | O_NONBLOCK)
  sendmsg(client, Buffer.from('ping'))
  t.equal(await pollAsync(server, POLLIN, 1000), POLLIN)
  t.equal(recvmsg(server, Buffer.alloc(8), []), 4)
  close(client)
  close(server)

  symlinkSync(path, join(directory, 'link'))
  close(connectUnix(join(directory, 'link')))
  const waiting: number[] = []
  t.throws(() => { for (;;) waiting.push(connectUnix(path)) }, { name: 'PeerGoneError', code: 'ECONNREFUSED', message: /queue of connections is full/ })
  waiting.forEach(close)
  close(listener)
})

check('errors of connect, each its own', async t => {
  const at = (name: string): string => join(directory, name)
  t.throws(() => connectUnix(at('none')), { name: 'PeerGoneError', code: 'ENOENT', message: `${at('none')}: no such socket` })
  close(listenUnix(at('stale')))
  t.throws(() => connectUnix(at('stale')), { name: 'PeerGoneError', code: 'ECONNREFUSED', message: `${at('stale')}: nobody is listening on this socket` })
  writeFileSync(at('regular'), '')
  t.throws(() => connectUnix(at('regular')), { name: 'UsageError', message: `${at('regular')} is not a socket` })
  t.throws(() => connectUnix(directory), { name: 'UsageError', message: /is not a socket/ })
  t.throws(() => connectUnix(at('regular/below')), { name: 'SyscallError', code: 'ENOTDIR' })
  t.throws(() => connectUnix(''), { name: 'UsageError' })
  t.throws(() => connectUnix('/tmp/a\0b'), { name: 'UsageError' })
})

check('paths longer than sun_path', async t => {
  const deep = join(directory, 'd'.repeat(100), 'e'.repeat(100))
  mkdirSync(deep, { recursive: true })
  for (const [name, length] of [['s', 107], ['t', 108]] as const) {
    const path = join(directory, name.padEnd(length - directory.length - 1, 'x'))
    t.equal(path.length, length)
    const listener = listenUnix(path)
    close(connectUnix(path))
    close(listener)
  }
  const path = join(deep, 'socket')
  const listener = listenUnix(path)
  t.ok(statSync(path).isSocket())
  const client = connectUnix(path)
  close(await acceptUnix(listener, 1000))
  close(client)
  close(listener)
  t.throws(() => connectUnix(path), { code: 'ECONNREFUSED' })
  t.throws(() => connectUnix(join(deep, 'none')), { name: 'PeerGoneError', code: 'ENOENT' })
  const longName = join(deep, 'n'.repeat(200))
  t.throws(() => listenUnix(longName), { name: 'UsageError', message: /too long for the name of a socket/ })
  writeFileSync(longName, '')
  t.throws(() => connectUnix(longName), { name: 'UsageError', message: /is not a socket/ })
})

function header(request: number, flags: number, size: number): Buffer {
  const out = Buffer.alloc(12)
  out.writeUInt32LE(request, 0)
  out.writeUInt32LE(flags, 4)
  out.writeUInt32LE(size, 8)
  return out
}

check('the state of a device', async t => {
  const state = Buffer.from(Array.from({ length: 300_000 }, (_, i) => i * 7))
  /** A backend that takes its end of the stream, or gives one of its own, and leaves the rest to `serve`. */
  const withState = async (own: boolean, serve: (fd: number) => Promise<void>, body: (frontend: VhostUserFrontend) => Promise<void>, result = 0): Promise<void> => {
    let serving = Promise.resolve()
    const { backend, fd } = VhostUserBackend.pair({
      takeStateFd: stream => {
        if (!own) { serving = serve(stream); return undefined }
        close(stream)
        const [ours, theirs] = socketpair()
        serving = serve(ours)
        return theirs
      },
      faults: { [R.CHECK_DEVICE_STATE]: a => a && { ...a, payload: Buffer.from([result, 0, 0, 0, 0, 0, 0, 0]) } },
    })
    const frontend = new VhostUserFrontend(new VhostUserConnection(fd, 'test'))
    await frontend.negotiate()
    await frontend.setOwner()
    await body(frontend)
    await serving
    frontend.close()
    await backend.done
    t.same(backend.complaints, [])
  }
  const put = async (fd: number): Promise<void> => {
    for (let at = 0; at < state.length;) {
      const n = sendmsg(fd, state.subarray(at))
      if (n > 0) at += n
      else await pollAsync(fd, POLLOUT, 2000)
    }
    close(fd)
  }
  for (const own of [false, true]) {
    await withState(own, put, async frontend => {
      t.ok(state.equals(await saveDeviceState(frontend)), 'saved whole')
    })
    const parts: Buffer[] = []
    const take = async (fd: number): Promise<void> => {
      for (;;) {
        const into = Buffer.alloc(1000)
        const n = recvmsg(fd, into, [])
        if (n === 0) break
        if (n > 0) parts.push(into.subarray(0, n))
        else await pollAsync(fd, POLLIN, 2000)
      }
      close(fd)
    }
    await withState(own, take, async frontend => { await loadDeviceState(frontend, state) })
    t.ok(state.equals(Buffer.concat(parts)), 'loaded whole')
  }
  const hangUp = async (fd: number): Promise<void> => { close(fd) }
  await withState(false, hangUp, async frontend => {
    await t.rejects(loadDeviceState(frontend, state), { name: 'ProtocolError', field: 'result', message: /result is 1/ }, 'a backend that stops reading')
  }, 1)
  await withState(false, async fd => {
    await new Promise(resolve => { setTimeout(resolve, 100) })
    close(fd)
  }, async frontend => {
    await t.rejects(saveDeviceState(frontend, { timeoutMs: 30 }), { name: 'PeerGoneError', code: 'ETIMEDOUT', message: /did not end in time/ })
  })
})

check('requests of the backend', async t => {
  interface Channel { fd: number; changes: number[]; ended: Promise<Error> }
  const channel = async (body: (channel: Channel) => Promise<void>): Promise<void> => {
    const { backend, fd } = VhostUserBackend.pair()
    const frontend = new VhostUserFrontend(new VhostUserConnection(fd, 'test'))
    await frontend.negotiate()
    const changes: number[] = []
    let end: (error: Error) => void
    const ended = new Promise<Error>(resolve => { end = resolve })
    const requests = await BackendRequests.open(frontend, { configChanged: () => { changes.push(1) }, ended: error => { end(error) } })
    await body({ fd: backend.backendRequestFd, changes, ended })
    await requests.close()
    await requests.close()
    frontend.close()
    await backend.done
    t.same(backend.complaints, [])
  }
  const answer = async (fd: number): Promise<string> => {
    t.equal(await pollAsync(fd, POLLIN, 2000), POLLIN)
    const into = Buffer.alloc(64)
    return into.subarray(0, recvmsg(fd, into, [])).toString('hex')
  }
  const reply = (request: number, code: number): string => Buffer.concat([header(request, 5, 8), Buffer.from([code, 0, 0, 0, 0, 0, 0, 0])]).toString('hex')

  await channel(async ({ fd, changes }) => {
    sendmsg(fd, Buffer.concat([header(2, 1, 0), header(2, 1, 0), header(2, 9, 0)]))
    t.equal(await answer(fd), reply(2, 0), 'one acknowledgement, for the one that wanted it')
    t.equal(changes.length, 3)
    // SHMEM_MAP with a descriptor: never negotiated
    sendmsg(fd, Buffer.concat([header(9, 9, 40), Buffer.alloc(40)]), [fd])
    t.equal(await answer(fd), reply(9, errno.EOPNOTSUPP))
    for (const byte of header(2, 9, 0)) {
      sendmsg(fd, Buffer.of(byte))
      await new Promise(resolve => { setImmediate(resolve) })
    }
    t.equal(await answer(fd), reply(2, 0), 'cut into bytes')
  })
  const wrong: [string, Buffer, RegExp][] = [
    ['version', header(2, 2, 0), /CONFIG_CHANGE_MSG: version is 2, expected 1/],
    ['a reply', header(2, 5, 0), /REPLY flag is set, expected clear/],
    ['reserved flags', header(2, 0x101, 0), /reserved flags is 0x101/],
    ['size', header(9, 1, 4097), /SHMEM_MAP: size is 4097, expected at most 4096/],
    ['a payload where none belongs', header(2, 1, 8), /CONFIG_CHANGE_MSG: size is 8, expected 0/],
  ]
  for (const [what, bytes, message] of wrong) {
    await channel(async ({ fd, ended }) => {
      sendmsg(fd, bytes)
      t.match(await ended, { name: 'ProtocolError', message }, what)
    })
  }
  await channel(async ({ fd, ended }) => {
    shutdown(fd)
    t.match(await ended, { name: 'PeerGoneError', message: /closed the channel/ })
  })

  await t.test('a refusal leaves nothing behind', async t => {
    const { backend, fd } = VhostUserBackend.pair({ faults: { [R.SET_BACKEND_REQ_FD]: a => a && { ...a, payload: Buffer.from([1, 0, 0, 0, 0, 0, 0, 0]) } } })
    const frontend = new VhostUserFrontend(new VhostUserConnection(fd, 'test'))
    await frontend.negotiate()
    await t.rejects(BackendRequests.open(frontend), { name: 'ProtocolError', field: 'acknowledgement' })
    frontend.close()
    await backend.done
  })
})
