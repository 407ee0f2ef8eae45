/** The control socket of a mount, on the main thread of the process that serves it. Only its user can open it. */
import { chmodSync, rmSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { join } from 'node:path'
import { once } from 'node:events'
import { errorLine } from '../errors.js'
import type { Mount } from '../mount/mount.js'
import { controlDir } from './control-dir.js'
import { readJsonLines, writeJsonLine } from './json-lines.js'
import type { ControlRequest } from './protocol.js'

let count = 0

export class ControlServer {
  readonly path: string
  readonly #server: Server
  readonly #mounted: Mount
  readonly #clients = new Set<Socket>()

  private constructor(mounted: Mount, path: string) {
    this.#mounted = mounted
    this.path = path
    this.#server = createServer(socket => this.#serve(socket))
  }

  /**
   * Listens from now on, until the mount has ended.
   * @throws NodeJS.ErrnoException, such as EINVAL when the runtime directory has too long a path
   */
  static async start(mounted: Mount): Promise<ControlServer> {
    const server = new ControlServer(mounted, join(controlDir(), `${process.pid}-${count++}`))
    // of a process that had our number
    rmSync(server.path, { force: true })
    server.#server.listen(server.path)
    await once(server.#server, 'listening')
    chmodSync(server.path, 0o600)
    void mounted.closed.finally(() => server.close())
    return server
  }

  #serve(socket: Socket): void {
    this.#clients.add(socket)
    socket.on('close', () => this.#clients.delete(socket))
    socket.on('error', () => socket.destroy())
    readJsonLines(socket, request => this.#answer(socket, request as ControlRequest), error => {
      writeJsonLine(socket, { error: errorLine(error) })
      socket.destroySoon()
    })
  }

  #answer(socket: Socket, request: ControlRequest): void {
    switch (request?.command) {
      case 'status': return writeJsonLine(socket, this.#mounted.status())
      default: writeJsonLine(socket, { error: 'no such command' })
    }
  }

  close(): void {
    this.#server.close()
    for (const socket of this.#clients) socket.destroySoon()
    rmSync(this.path, { force: true })
  }
}
