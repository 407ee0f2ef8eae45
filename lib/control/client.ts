/** The other end of a control socket. */
import { connect, type Socket } from 'node:net'
import { errorLine, PeerGoneError, UsageError } from '../errors.js'
import { readJsonLines, writeJsonLine } from './json-lines.js'
import type { ControlAnswers, ControlRequest } from './protocol.js'

/** How long a process may take for an answer, in milliseconds: its main thread does nothing that lasts. */
const ANSWER_TIMEOUT_MS = 3000

/** Who waits for the next line, or for the reason why none will come. */
interface Waiting {
  taken: (value: unknown) => void
  failed: (error: Error) => void
}

export class ControlClient {
  readonly #socket: Socket
  #next: Waiting | undefined
  #lines: unknown[] = []
  #ended: Error | undefined

  private constructor(socket: Socket) {
    this.#socket = socket
    readJsonLines(socket, value => {
      if (this.#next) this.#take().taken(value)
      else this.#lines.push(value)
    }, error => this.#end(error))
    socket.on('close', () => this.#end(new PeerGoneError('the mount has ended')))
    socket.on('error', error => this.#end(new PeerGoneError(errorLine(error))))
  }

  /** @throws PeerGoneError when nobody listens (ECONNREFUSED: the process has died) or it does not answer */
  static async connect(path: string): Promise<ControlClient> {
    const socket = connect(path)
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => reject(new PeerGoneError(`${path}: no answer`, 'ETIMEDOUT')), ANSWER_TIMEOUT_MS)
      socket.once('connect', resolve).once('error', (error: NodeJS.ErrnoException) => {
        reject(new PeerGoneError(`${path}: ${errorLine(error)}`, error.code === 'ECONNREFUSED' || error.code === 'ENOENT' ? error.code : 'ENOTCONN'))
      }).once('close', () => clearTimeout(timer)).once('connect', () => clearTimeout(timer))
    }).catch(error => {
      socket.destroy()
      throw error
    })
    return new ControlClient(socket)
  }

  #take(): Waiting {
    const next = this.#next!
    this.#next = undefined
    return next
  }

  #end(error: Error): void {
    this.#ended ??= error
    this.#socket.destroy()
    if (this.#next) this.#take().failed(this.#ended)
  }

  /** The next line that comes. @throws PeerGoneError when the other side has closed */
  async line(timeoutMs?: number): Promise<unknown> {
    if (this.#lines.length > 0) return this.#lines.shift()
    if (this.#ended) throw this.#ended
    let timer: NodeJS.Timeout | undefined
    const line = new Promise<unknown>((taken, failed) => { this.#next = { taken, failed } })
    if (timeoutMs !== undefined) timer = setTimeout(() => this.#end(new PeerGoneError('the process does not answer', 'ETIMEDOUT')), timeoutMs)
    try {
      return await line
    } finally {
      clearTimeout(timer)
    }
  }

  /** Asks for what is streamed; the lines come by `line`. */
  say(request: ControlRequest): void {
    writeJsonLine(this.#socket, request)
  }

  /** Asks, and waits for the answer, `timeoutMs` milliseconds at most. @throws PeerGoneError; UsageError when the process does not know the command, or cannot do it */
  async ask<Command extends keyof ControlAnswers>(request: ControlRequest & { command: Command }, timeoutMs = ANSWER_TIMEOUT_MS): Promise<ControlAnswers[Command]> {
    writeJsonLine(this.#socket, request)
    const answer = await this.line(timeoutMs) as ControlAnswers[Command] | { error: string, code?: string }
    if ('error' in answer) throw answer.code === undefined ? new UsageError(`the process that serves the mount: ${answer.error}`) : new UsageError(answer.error, answer.code)
    return answer
  }

  close(): void {
    this.#socket.destroy()
  }
}
