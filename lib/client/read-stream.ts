/**
 * A file as a stream that reads ahead: several READs are in flight, larger and larger ones, as long
 * as the consumer takes what comes. One that stops taking has at most that much read for it.
 */
import { Readable } from 'node:stream'
import { outOfRange, unwrap } from './fs-error.js'
import type { FileHandle } from './file-handle.js'
import { integerOf } from './arguments.js'

export interface ReadStreamOptions {
  encoding?: BufferEncoding
  /** Close the file with the stream. Default true. */
  autoClose?: boolean
  emitClose?: boolean
  /** First byte; default: the handle's position. */
  start?: number
  /** Last byte, included. */
  end?: number
  /** Bytes of a chunk at most. Default 64 KiB. */
  highWaterMark?: number
  signal?: AbortSignal
}

const DEFAULT_CHUNK_BYTES = 65536
/** Requests in flight at once, and the largest of them. */
const AHEAD = 4
const MAX_REQUEST_BYTES = 1 << 20

interface Ahead {
  at: number
  buffer: Buffer
  result: Promise<number>
}

export class ReadStream extends Readable {
  bytesRead = 0
  readonly #handle: FileHandle
  readonly #chunkBytes: number
  readonly #autoClose: boolean
  readonly #ownPosition: boolean
  readonly #signal: AbortSignal | undefined
  /** Byte behind the last one. */
  readonly #end: number
  /** Where the next chunk starts, and the next request. */
  #position: number
  #next: number
  #requestBytes: number
  #ahead: Ahead[] = []
  #ready: Buffer | undefined

  /** @internal */
  constructor(handle: FileHandle, options: ReadStreamOptions) {
    const { highWaterMark = DEFAULT_CHUNK_BYTES, start, end = Infinity } = options
    if (start !== undefined) integerOf(start, 'start', 0)
    if (end !== Infinity) integerOf(end, 'end', 0)
    if (start !== undefined && start > end) throw outOfRange('start', `<= "end" (here: ${end})`, start)
    super({
      highWaterMark, emitClose: options.emitClose ?? true, autoDestroy: true,
      ...(options.encoding ? { encoding: options.encoding } : {}), ...(options.signal ? { signal: options.signal } : {}),
    })
    this.#handle = handle
    this.#chunkBytes = highWaterMark
    this.#autoClose = options.autoClose ?? true
    this.#ownPosition = start === undefined
    this.#signal = options.signal
    this.#position = this.#next = start ?? handle.position
    this.#end = end + 1
    this.#requestBytes = Math.max(1, highWaterMark)
  }

  override _read(): void {
    this.#deliver().catch(error => this.destroy(error as Error))
  }

  async #deliver(): Promise<void> {
    if (this.#ready === undefined && !await this.#receive()) {
      this.push(null)
      return
    }
    const ready = this.#ready!
    const chunk = ready.length <= this.#chunkBytes ? ready : ready.subarray(0, this.#chunkBytes)
    this.#ready = chunk === ready ? undefined : ready.subarray(chunk.length)
    this.bytesRead += chunk.length
    this.#position += chunk.length
    if (this.#ownPosition) this.#handle.position = this.#position
    this.push(chunk)
  }

  /** Waits for what is next. @returns false at the end */
  async #receive(): Promise<boolean> {
    this.#fill()
    const next = this.#ahead.shift()
    if (next === undefined) return false
    const bytes = unwrap<number>(await next.result, 'read', undefined, undefined, this.#signal)
    if (bytes === 0) return false
    if (bytes < next.buffer.length) {
      // the end, or a device that gives what it has: what was read behind the gap is of no use
      const stale = this.#ahead
      this.#ahead = []
      this.#next = next.at + bytes
      await Promise.all(stale.map(each => each.result))
    } else {
      this.#fill()
    }
    this.#ready = bytes < next.buffer.length ? next.buffer.subarray(0, bytes) : next.buffer
    return true
  }

  /** Sends requests until as many as allowed are in flight; each time they are larger. */
  #fill(): void {
    const most = this.bytesRead === 0 && this.#ready === undefined ? 1 : AHEAD
    while (this.#ahead.length < most && this.#next < this.#end && !this.destroyed) {
      const at = this.#next
      const buffer = Buffer.allocUnsafeSlow(Math.min(this.#requestBytes, this.#end - at))
      const result = this.#handle.use('read', () => this.#handle.io.read(buffer, at, this.#signal))
      // whoever waits for it hears of it; nobody may
      result.catch(() => {})
      this.#ahead.push({ at, buffer, result })
      this.#next += buffer.length
      this.#requestBytes = Math.max(this.#requestBytes, Math.min(MAX_REQUEST_BYTES, this.#requestBytes * 2))
    }
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    const ahead = Promise.allSettled(this.#ahead.splice(0).map(each => each.result))
    if (!this.#autoClose) return void ahead.then(() => callback(error))
    ahead.then(() => this.#handle.close()).then(() => callback(error), failed => callback(error ?? failed as Error))
  }

  /** Ends the stream. */
  close(callback?: (error?: Error | null) => void): void {
    if (callback) this.once('close', callback)
    this.destroy()
  }
}
