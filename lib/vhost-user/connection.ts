/**
 * One vhost-user socket, seen from the frontend: one request at a time, every field of its reply
 * checked, every wait with a deadline. It knows messages, not their order: that is frontend.ts.
 *
 * A reply that cannot be trusted, the end of the stream and a missed deadline break the
 * connection for good, because nobody knows any more which bytes belong to which request: every
 * later call fails with the same error. A negative acknowledgement breaks nothing.
 */
import { performance } from 'node:perf_hooks'
import createDebug from 'debug'
import { errno, PeerGoneError, ProtocolError, SyscallError, UsageError } from '../errors.js'
import { close, pollAsync, POLLIN, POLLOUT } from '../sys/io.js'
import { connectUnix, shutdown } from '../sys/socket.js'
import { peekByte, recvmsg, sendmsg } from '../sys/socket-message.js'
import {
  putHeader, requestName, VHOST_USER_MAX_FDS, VHOST_USER_MAX_PAYLOAD, VHOST_USER_NEED_REPLY, VHOST_USER_REPLY,
  VHOST_USER_RESERVED_FLAGS, VHOST_USER_VERSION, VHOST_USER_VERSION_MASK, VhostUserHeader, VhostUserU64,
} from './message.js'

const log = createDebug('virtiofs:vhost')

/** How long a backend may take to answer, unless told otherwise. */
export const DEFAULT_TIMEOUT_MS = 5000

const NO_BYTES = new Uint8Array(0)

export interface ConnectionOptions {
  /** Deadline for each request, from its first byte to the last byte of its reply. */
  timeoutMs?: number
}

export interface RequestOptions {
  payload?: Uint8Array
  /** Sent along; they stay the caller's. */
  fds?: readonly number[]
  /** Sizes in bytes that the payload of the reply may have. */
  replySizes: readonly number[]
  /** Most file descriptors that may come with the reply; 0 unless told otherwise. */
  replyFds?: number
  timeoutMs?: number
}

export interface Reply {
  view: DataView
  bytes: Uint8Array
  /** Close-on-exec; they belong to the caller. */
  fds: number[]
}

export class VhostUserConnection {
  /** Worker threads put it in epoll for EPOLLRDHUP; only this class reads and writes it. */
  readonly fd: number
  /** What error messages call the peer: its path. */
  readonly peer: string
  /** Set once REPLY_ACK is negotiated: from then on `change` waits for an acknowledgement. */
  replyAck = false

  /** Deadline for each request, in milliseconds. */
  readonly timeoutMs: number
  #queue: Promise<unknown> = Promise.resolve()
  #running = 0
  #broken: Error | undefined
  #closing = false
  #closed = false
  /** The last request that was sent without an acknowledgement: the likely reason when the peer hangs up. */
  #unacknowledged = ''

  /** @param fd a connected non-blocking stream socket; the connection owns it from now on */
  constructor(fd: number, peer: string, options: ConnectionOptions = {}) {
    this.fd = fd
    this.peer = peer
    this.timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS
  }

  /** @throws what `connectUnix` throws */
  static connect(path: string, options: ConnectionOptions = {}): VhostUserConnection {
    return new VhostUserConnection(connectUnix(path), path, options)
  }

  /** False once the peer is gone or broke the protocol, or after `close`. */
  get usable(): boolean {
    return !this.#broken && !this.#closing
  }

  /**
   * Sends a request that has no reply.
   * @throws PeerGoneError, ProtocolError, SyscallError
   */
  send(request: number, payload: Uint8Array = NO_BYTES, fds: readonly number[] = []): Promise<void> {
    return this.#serial(async () => {
      await this.#transmit(request, 0, payload, fds, performance.now() + this.timeoutMs)
      this.#unacknowledged = requestName(request)
    })
  }

  /**
   * Sends a request and waits for its reply.
   * @throws ProtocolError, PeerGoneError, SyscallError
   */
  request(request: number, options: RequestOptions): Promise<Reply> {
    return this.#serial(() => this.#exchange(request, 0, options))
  }

  /**
   * Sends a request that changes the backend's state and waits for the acknowledgement, when
   * REPLY_ACK is negotiated; without it an error shows only as a closed connection later on.
   * @throws ProtocolError when the backend refuses; PeerGoneError, SyscallError
   */
  async change(request: number, payload: Uint8Array = NO_BYTES, fds: readonly number[] = []): Promise<void> {
    if (!this.replyAck) return this.send(request, payload, fds)
    const reply = await this.#serial(() =>
      this.#exchange(request, VHOST_USER_NEED_REPLY, { payload, fds, replySizes: [VhostUserU64.SIZE] }))
    const code = reply.view.getBigUint64(VhostUserU64.value, true)
    if (code !== 0n) throw this.violation(request, 'acknowledgement', code, 0)
  }

  /** The error for a field of a reply that this class does not know. */
  violation(request: number, field: string, got: unknown, expected: unknown): ProtocolError {
    return new ProtocolError(`${this.peer}: ${requestName(request)}`, field, got, expected)
  }

  /**
   * Ends the connection. A request in flight fails; the descriptor is closed when nothing waits on
   * it any more.
   */
  close(): void {
    if (this.#closing) return
    this.#closing = true
    shutdown(this.fd)
    if (this.#running === 0) this.#release()
  }

  #release(): void {
    if (this.#closed) return
    this.#closed = true
    close(this.fd)
  }

  #serial<T>(work: () => Promise<T>): Promise<T> {
    this.#running++
    const run = this.#queue.then(async () => {
      try {
        if (this.#closing) throw new PeerGoneError(`${this.peer}: the connection was closed`)
        if (this.#broken) throw this.#broken
        return await work()
      } finally {
        this.#running--
        if (this.#closing && this.#running === 0) this.#release()
      }
    })
    this.#queue = run.catch(() => undefined)
    return run
  }

  #break(error: Error): Error {
    if (this.#closing) return new PeerGoneError(`${this.peer}: the connection was closed`)
    this.#broken ??= error
    shutdown(this.fd)
    return this.#broken
  }

  async #exchange(request: number, flags: number, options: RequestOptions): Promise<Reply> {
    const timeoutMs = options.timeoutMs ?? this.timeoutMs
    const deadline = performance.now() + timeoutMs
    await this.#transmit(request, flags, options.payload ?? NO_BYTES, options.fds ?? [], deadline)
    const fds: number[] = []
    try {
      return await this.#receive(request, options, fds, deadline, timeoutMs)
    } catch (error) {
      fds.forEach(close)
      throw this.#break(error as Error)
    }
  }

  async #transmit(
    request: number, flags: number, payload: Uint8Array, fds: readonly number[], deadline: number,
  ): Promise<void> {
    if (payload.length > VHOST_USER_MAX_PAYLOAD) throw new UsageError(`${requestName(request)}: ${payload.length} bytes of payload`)
    if (fds.length > VHOST_USER_MAX_FDS) throw new UsageError(`${requestName(request)}: ${fds.length} file descriptors`)
    const message = new Uint8Array(VhostUserHeader.SIZE + payload.length)
    putHeader(new DataView(message.buffer), 0, request, flags, payload.length)
    message.set(payload, VhostUserHeader.SIZE)

    // a backend never speaks first: what is already there is the tail of an oversized reply, or no vhost-user at all
    const early = peekByte(this.fd)
    if (early > 0) throw this.#break(this.violation(request, 'data before the request', 'there', 'none'))
    if (early === 0) throw this.#break(this.#gone(request, 0, 0))

    if (log.enabled) log('tx %s %db%s%s', requestName(request), payload.length, fdCount(fds), flags ? ' NEED_REPLY' : '')
    for (let sent = 0; sent < message.length;) {
      // the descriptors travel with the first byte
      const n = sendmsg(this.fd, sent === 0 ? message : message.subarray(sent), sent === 0 ? fds : [])
      if (n > 0) sent += n
      else if (n === -errno.EAGAIN) await this.#wait(POLLOUT, deadline, () => this.#deaf(request))
      else if (n === -errno.EPIPE || n === -errno.ECONNRESET) throw this.#break(this.#gone(request, 0, 0))
      else if (n !== -errno.EINTR) {
        const error = new SyscallError('sendmsg', -n, requestName(request))
        // a bad descriptor of the caller's is found before the first byte goes
        throw sent === 0 && !this.#closing ? error : this.#break(error)
      }
    }
  }

  async #receive(
    request: number, options: RequestOptions, fds: number[], deadline: number, timeoutMs: number,
  ): Promise<Reply> {
    const header = await this.#fill(new Uint8Array(VhostUserHeader.SIZE), request, fds, deadline, timeoutMs)
    const view = new DataView(header.buffer)
    const flags = view.getUint32(VhostUserHeader.flags, true)
    const sizeBytes = view.getUint32(VhostUserHeader.size, true)
    const answered = view.getUint32(VhostUserHeader.request, true)

    const version = flags & VHOST_USER_VERSION_MASK
    if (version !== VHOST_USER_VERSION) throw this.violation(request, 'version', version, VHOST_USER_VERSION)
    if (!(flags & VHOST_USER_REPLY)) throw this.violation(request, 'REPLY flag', 'clear', 'set')
    // QEMU is as strict about the flags, so backends have got used to it
    if (flags & VHOST_USER_NEED_REPLY) throw this.violation(request, 'NEED_REPLY flag', 'set', 'clear')
    if (flags & VHOST_USER_RESERVED_FLAGS) throw this.violation(request, 'reserved flags', `0x${flags.toString(16)}`, 'zero')
    if (answered !== request) throw this.violation(request, 'request', requestName(answered), requestName(request))
    if (!options.replySizes.includes(sizeBytes)) throw this.violation(request, 'size', sizeBytes, options.replySizes.join(' or '))

    const bytes = await this.#fill(new Uint8Array(sizeBytes), request, fds, deadline, timeoutMs)
    const most = options.replyFds ?? 0
    if (fds.length > most) throw this.violation(request, 'number of file descriptors', fds.length, most === 0 ? 0 : `at most ${most}`)
    if (log.enabled) log('rx %s %db%s %s', requestName(request), sizeBytes, fdCount(fds), Buffer.from(bytes.subarray(0, 8)).toString('hex'))
    this.#unacknowledged = ''
    return { view: new DataView(bytes.buffer), bytes, fds }
  }

  /** Reads until `into` is full: a stream may cut a message anywhere. */
  async #fill(into: Uint8Array, request: number, fds: number[], deadline: number, timeoutMs: number): Promise<Uint8Array> {
    for (let got = 0; got < into.length;) {
      const n = recvmsg(this.fd, got === 0 ? into : into.subarray(got), fds)
      if (n > 0) got += n
      else if (n === 0 || n === -errno.ECONNRESET) throw this.#gone(request, got, into.length)
      else if (n === -errno.EAGAIN) await this.#wait(POLLIN, deadline, () => this.#silent(request, got, into.length, timeoutMs))
      else if (n === -errno.EMSGSIZE) throw this.#flooded(request)
      else if (n !== -errno.EINTR) throw new SyscallError('recvmsg', -n, requestName(request))
    }
    return into
  }

  async #wait(events: number, deadline: number, late: () => Error): Promise<void> {
    const leftMs = Math.ceil(deadline - performance.now())
    const ready = leftMs > 0 ? await pollAsync(this.fd, events, leftMs) : 0
    if (ready === 0) throw this.#break(late())
    if (ready < 0) throw this.#break(new SyscallError('poll', -ready))
  }

  #flooded(request: number): ProtocolError {
    return this.violation(request, 'number of file descriptors', 'more than there is room for', `at most ${VHOST_USER_MAX_FDS}`)
  }

  #deaf(request: number): PeerGoneError {
    return new PeerGoneError(`${this.peer}: the backend does not read ${requestName(request)}`, 'ETIMEDOUT')
  }

  #silent(request: number, got: number, of: number, timeoutMs: number): PeerGoneError {
    const what = got === 0 ? 'no answer' : `only ${got} of ${of} bytes of the answer`
    return new PeerGoneError(`${this.peer}: ${what} to ${requestName(request)} within ${timeoutMs / 1000} s`, 'ETIMEDOUT')
  }

  #gone(request: number, got: number, of: number): PeerGoneError {
    const name = requestName(request)
    const when = got === 0 ? `instead of answering ${name}` : `after ${got} of ${of} bytes of its answer to ${name}`
    const why = this.#unacknowledged ? ` (the message before it, ${this.#unacknowledged}, was not acknowledged)` : ''
    return new PeerGoneError(`${this.peer}: the backend closed the connection ${when}${why}`)
  }
}

function fdCount(fds: readonly number[]): string {
  return fds.length > 0 ? ` fds=${fds.length}` : ''
}
