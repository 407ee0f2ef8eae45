/** The control socket of a mount, on the main thread of the process that serves it. Only its user can open it. */
import { chmodSync, renameSync, rmSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { join } from 'node:path'
import { once } from 'node:events'
import { errorLine, UsageError } from '../errors.js'
import type { Mount } from '../mount/mount.js'
import type { ObservedRequest, RequestFilter } from '../mount/request-observer.js'
import { controlDir } from './control-dir.js'
import { readJsonLines, writeJsonLine } from './json-lines.js'
import type { ControlRequest, TraceLine } from './protocol.js'

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
    const name = `${process.pid}-${count++}`
    const server = new ControlServer(mounted, join(controlDir(), name))
    // under its name it is only when it listens: one that refuses would be taken for left over, and removed
    const making = join(controlDir(), `.${name}`)
    // of a process that had our number
    rmSync(making, { force: true })
    server.#server.listen(making)
    await once(server.#server, 'listening')
    chmodSync(making, 0o600)
    renameSync(making, server.path)
    void mounted.closed.finally(() => server.close())
    return server
  }

  #serve(socket: Socket): void {
    const client = new Client(socket, this.#mounted)
    this.#clients.add(socket)
    socket.on('close', () => {
      client.end()
      this.#clients.delete(socket)
    })
    socket.on('error', () => socket.destroy())
    readJsonLines(socket, request => client.answer(request as ControlRequest), error => {
      writeJsonLine(socket, { error: errorLine(error) })
      socket.destroySoon()
    })
  }

  close(): void {
    this.#server.close()
    for (const socket of this.#clients) socket.destroySoon()
    rmSync(this.path, { force: true })
  }
}

/** A wrong one must not get as far as the queue workers. @throws UsageError */
function checkFilter(filter: Partial<Record<keyof RequestFilter, unknown>> | undefined): RequestFilter {
  const { opcodes, errors, slowerThanUs, path } = filter ?? {}
  const numbers = (value: unknown): value is number[] => Array.isArray(value) && value.every(Number.isInteger)
  if (opcodes !== undefined && !numbers(opcodes)) throw new UsageError('opcodes is not a list of numbers')
  if (errors !== undefined && !numbers(errors)) throw new UsageError('errors is not a list of numbers')
  if (slowerThanUs !== undefined && typeof slowerThanUs !== 'number') throw new UsageError('slowerThanUs is not a number')
  if (path !== undefined && typeof path !== 'string') throw new UsageError('path is not a string')
  return { ...opcodes && { opcodes }, ...errors && { errors }, ...slowerThanUs !== undefined && { slowerThanUs }, ...path !== undefined && { path } }
}

/** What a reader may lag behind in a trace, in bytes, before lines are left out. */
const MAX_BEHIND = 4 << 20

/** One connection, and what goes on for it. */
class Client {
  readonly #socket: Socket
  readonly #mounted: Mount
  #timing: ReturnType<Mount['time']> | undefined
  #stopWatching = (): void => {}
  #dropped = 0

  constructor(socket: Socket, mounted: Mount) {
    this.#socket = socket
    this.#mounted = mounted
  }

  answer(request: ControlRequest): void {
    switch (request?.command) {
      case 'status': return writeJsonLine(this.#socket, this.#mounted.status())
      case 'stats':
        this.#timing ??= this.#mounted.time()
        return writeJsonLine(this.#socket, this.#mounted.stats(this.#timing.latencies))
      case 'trace':
        this.#stopWatching()
        this.#stopWatching = this.#mounted.watch(checkFilter(request.filter), told => this.#trace(told))
        return
      case 'replace': return void this.#replace(request)
      default: writeJsonLine(this.#socket, { error: 'no such command' })
    }
  }

  async #replace({ socket, virtiofsd }: { socket?: unknown, virtiofsd?: unknown }): Promise<void> {
    try {
      for (const path of [socket, virtiofsd]) if (path !== undefined && typeof path !== 'string') throw new UsageError('replace: a path is no string')
      const pausedMs = await this.#mounted.replaceBackend({ socket: socket as string | undefined, virtiofsd: virtiofsd as string | undefined })
      writeJsonLine(this.#socket, { pausedMs: Math.round(pausedMs) })
    } catch (error) {
      writeJsonLine(this.#socket, { error: errorLine(error), code: (error as { code?: string }).code ?? 'EIO' })
    }
  }

  #trace(told: ObservedRequest): void {
    if (this.#socket.writableLength > MAX_BEHIND) {
      this.#dropped++
      return
    }
    if (this.#dropped > 0) writeJsonLine(this.#socket, { dropped: this.#dropped } satisfies TraceLine)
    this.#dropped = 0
    writeJsonLine(this.#socket, told)
  }

  end(): void {
    this.#timing?.stop()
    this.#stopWatching()
  }
}
