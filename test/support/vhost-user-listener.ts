/** The vhost-user backend of the tests behind a socket path: it serves whoever connects. */
import { close, pollAsync, POLLIN } from '../../lib/sys/io.js'
import { bind, result } from '../../lib/sys/libc.js'
import { listenUnix } from '../../lib/sys/socket.js'
import { VhostUserBackend, type BackendOptions } from './vhost-user-backend.js'

const c_accept4 = bind('int accept4(int, uintptr_t, uintptr_t, int)')
const SOCK_NONBLOCK_CLOEXEC = 0x800 | 0x80000
const POLL_MS = 50

export class VhostUserListener {
  readonly backends: VhostUserBackend[] = []
  readonly #fd: number
  readonly #serving: Promise<void>
  #closed = false

  constructor(path: string, options: BackendOptions = {}) {
    this.#fd = listenUnix(path)
    this.#serving = this.#serve(options)
  }

  async #serve(options: BackendOptions): Promise<void> {
    while (!this.#closed) {
      if (await pollAsync(this.#fd, POLLIN, POLL_MS) <= 0) continue
      const client = result(c_accept4(this.#fd, 0, 0, SOCK_NONBLOCK_CLOEXEC))
      if (client >= 0) this.backends.push(new VhostUserBackend(client, options))
    }
    close(this.#fd)
  }

  async close(): Promise<void> {
    this.#closed = true
    await this.#serving
    for (const backend of this.backends) await backend.done
  }
}
