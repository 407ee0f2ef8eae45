/**
 * The second socket of vhost-user, on which the backend asks the frontend (BACKEND_REQ). A
 * virtio-fs device has one thing to say there, that its configuration changed. Everything else
 * belongs to features that were never negotiated: it is refused when an answer is wanted, and
 * dropped otherwise.
 *
 * The socket is read with read(2), so the kernel drops any file descriptor sent along: nothing can
 * be planted in this process.
 */
import { Socket } from 'node:net'
import { once } from 'node:events'
import { errno, PeerGoneError, ProtocolError } from '../errors.js'
import { close } from '../sys/io.js'
import { socketpair } from '../sys/socket.js'
import type { VhostUserFrontend } from './frontend.js'
import {
  backendRequestName, putHeader, VHOST_USER_MAX_PAYLOAD, VHOST_USER_NEED_REPLY, VHOST_USER_REPLY, VHOST_USER_RESERVED_FLAGS,
  VHOST_USER_VERSION, VHOST_USER_VERSION_MASK, VhostUserBackendRequest, VhostUserHeader, VhostUserU64,
} from './message.js'

/** Bytes of acknowledgements that a backend may leave unread beyond what the socket holds. */
const MOST_UNREAD = 65536

export interface BackendRequestHandlers {
  /** The configuration space changed: read it again. */
  configChanged?: () => void
  /** Called once, when the channel ends other than by `close`. */
  ended?: (error: ProtocolError | PeerGoneError) => void
}

export class BackendRequests {
  readonly #socket: Socket
  readonly #handlers: BackendRequestHandlers
  #pending: Buffer = Buffer.alloc(0)
  #over = false

  private constructor(fd: number, handlers: BackendRequestHandlers) {
    this.#handlers = handlers
    this.#socket = new Socket({ fd, readable: true, writable: true })
    // it must not keep a process alive whose work is done
    this.#socket.unref()
    this.#socket.on('data', data => this.#take(data))
    this.#socket.on('end', () => this.#end(new PeerGoneError('the backend closed the channel for its requests')))
    this.#socket.on('error', error => this.#end(new PeerGoneError(`channel for requests of the backend: ${error.message}`)))
  }

  /**
   * Makes the channel and hands its other end to the backend.
   * @throws what `setBackendRequestFd` throws
   */
  static async open(frontend: VhostUserFrontend, handlers: BackendRequestHandlers = {}): Promise<BackendRequests> {
    const [ours, theirs] = socketpair()
    try {
      await frontend.setBackendRequestFd(theirs)
    } catch (error) {
      close(ours)
      throw error
    } finally {
      close(theirs)
    }
    return new BackendRequests(ours, handlers)
  }

  /** Ends the channel; resolves when its descriptor is closed. */
  async close(): Promise<void> {
    this.#over = true
    if (this.#socket.closed) return
    this.#socket.destroy()
    await once(this.#socket, 'close')
  }

  #end(error: ProtocolError | PeerGoneError): void {
    if (this.#over) return
    this.#over = true
    this.#socket.destroy()
    this.#handlers.ended?.(error)
  }

  #take(data: Buffer): void {
    this.#pending = this.#pending.length > 0 ? Buffer.concat([this.#pending, data]) : data
    while (!this.#over && this.#pending.length >= VhostUserHeader.SIZE) {
      const request = this.#pending.readUInt32LE(VhostUserHeader.request)
      const flags = this.#pending.readUInt32LE(VhostUserHeader.flags)
      const sizeBytes = this.#pending.readUInt32LE(VhostUserHeader.size)
      const wrong = headerError(request, flags, sizeBytes)
      if (wrong) return this.#end(wrong)
      if (this.#pending.length < VhostUserHeader.SIZE + sizeBytes) return
      this.#pending = this.#pending.subarray(VhostUserHeader.SIZE + sizeBytes)
      const known = request === VhostUserBackendRequest.CONFIG_CHANGE_MSG
      if (flags & VHOST_USER_NEED_REPLY) this.#acknowledge(request, known ? 0 : errno.EOPNOTSUPP)
      if (known) this.#handlers.configChanged?.()
    }
  }

  #acknowledge(request: number, code: number): void {
    const message = Buffer.alloc(VhostUserHeader.SIZE + VhostUserU64.SIZE)
    putHeader(new DataView(message.buffer, message.byteOffset), 0, request, VHOST_USER_REPLY, VhostUserU64.SIZE)
    message.writeBigUInt64LE(BigInt(code), VhostUserHeader.SIZE)
    this.#socket.write(message)
    if (this.#socket.writableLength > MOST_UNREAD) this.#end(new ProtocolError(backendRequestName(request), 'unread acknowledgements', this.#socket.writableLength, `at most ${MOST_UNREAD} bytes`))
  }
}

function headerError(request: number, flags: number, sizeBytes: number): ProtocolError | undefined {
  const name = backendRequestName(request)
  const version = flags & VHOST_USER_VERSION_MASK
  if (version !== VHOST_USER_VERSION) return new ProtocolError(name, 'version', version, VHOST_USER_VERSION)
  if (flags & VHOST_USER_REPLY) return new ProtocolError(name, 'REPLY flag', 'set', 'clear')
  if (flags & VHOST_USER_RESERVED_FLAGS) return new ProtocolError(name, 'reserved flags', `0x${flags.toString(16)}`, 'zero')
  if (sizeBytes > VHOST_USER_MAX_PAYLOAD) return new ProtocolError(name, 'size', sizeBytes, `at most ${VHOST_USER_MAX_PAYLOAD}`)
  if (request === VhostUserBackendRequest.CONFIG_CHANGE_MSG && sizeBytes !== 0) return new ProtocolError(name, 'size', sizeBytes, 0)
  return undefined
}
