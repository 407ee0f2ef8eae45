/**
 * Descriptors that wake the event loop: the call of a device, and the end of a backend.
 *
 * libuv watches sockets and pipes for us, but no eventfd. A device writes eight bytes to its call
 * descriptor and does not care what it is, so it is given one end of a socket pair. A device that
 * dies closes its end. native-notes/client.md has what the other ways cost.
 */
import { once } from 'node:events'
import { Socket, type OnReadOpts, type SocketConstructorOpts } from 'node:net'
import { socketpair } from '../sys/socket.js'
import { check } from '../sys/libc.js'
import { dup } from '../sys/file.js'

/** Far more than is ever unread: one notification for each chain in flight. */
const READ_BYTES = 65536

function watch(fd: number, read: () => void, ended: () => void): Socket {
  const buffer = Buffer.allocUnsafeSlow(READ_BYTES)
  const options: SocketConstructorOpts & { onread: OnReadOpts } = {
    fd, readable: true, writable: false,
    onread: { buffer, callback: () => { read(); return true } },
  }
  const socket = new Socket(options)
  socket.on('error', ended)
  socket.on('end', ended)
  // a socket that is given a descriptor does not read before it is told to
  socket.resume()
  return socket
}

export class CallWatch {
  /** For the device; to be closed by the owner once the device has it. */
  readonly deviceFd: number
  readonly #socket: Socket

  /**
   * @param called the device has given something back
   * @param ended nobody has the device's end any more
   */
  constructor(called: () => void, ended: () => void) {
    const [ours, theirs] = socketpair()
    this.deviceFd = theirs
    this.#socket = watch(ours, called, ended)
  }

  async close(): Promise<void> {
    await closed(this.#socket)
  }
}

/** Watches the socket of a vhost-user backend, on which it has nothing to say while its rings run. */
export class HangupWatch {
  readonly #socket: Socket

  /** @param socketFd stays its owner's, who must not read from it before `close` has ended */
  constructor(socketFd: number, ended: () => void) {
    this.#socket = watch(check(dup(socketFd), 'dup'), ended, ended)
  }

  async close(): Promise<void> {
    await closed(this.#socket)
  }
}

async function closed(socket: Socket): Promise<void> {
  if (socket.closed) return
  const close = once(socket, 'close')
  socket.destroy()
  await close
}
