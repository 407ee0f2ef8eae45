/**
 * A file as a stream that writes behind: a chunk is done when it lies in the memory that the device
 * reads. So many WRITEs are in flight as there is room for; then the stream pushes back.
 */
import { Writable } from 'node:stream'
import { errno } from '../errors.js'
import { bytesOf, integerOf } from './arguments.js'
import type { FileHandle } from './file-handle.js'
import { fsError, unwrap } from './fs-error.js'

export interface WriteStreamOptions {
  encoding?: BufferEncoding
  /** Close the file with the stream. Default true. */
  autoClose?: boolean
  emitClose?: boolean
  /** First byte; default: the handle's position. */
  start?: number
  highWaterMark?: number
  /** Sync the file before it is closed. */
  flush?: boolean
  signal?: AbortSignal
}

/** WRITEs in flight at once. */
const BEHIND = 8
const DEFAULT_BUFFERED_BYTES = 16384

type Callback = (error?: Error | null) => void

export class WriteStream extends Writable {
  bytesWritten = 0
  readonly #handle: FileHandle
  readonly #options: WriteStreamOptions
  #position: number
  readonly #behind = new Set<Promise<void>>()
  #failed: Error | undefined

  /** @internal */
  constructor(handle: FileHandle, options: WriteStreamOptions) {
    if (options.start !== undefined) integerOf(options.start, 'start', 0)
    super({
      highWaterMark: options.highWaterMark ?? DEFAULT_BUFFERED_BYTES, emitClose: options.emitClose ?? true, autoDestroy: true, decodeStrings: true,
      ...(options.encoding ? { defaultEncoding: options.encoding } : {}), ...(options.signal ? { signal: options.signal } : {}),
    })
    this.#handle = handle
    this.#options = options
    this.#position = options.start ?? handle.position
  }

  override _write(chunk: Uint8Array, _encoding: BufferEncoding, callback: Callback): void {
    this.#take(chunk).then(() => callback(), callback)
  }

  override _writev(chunks: { chunk: Uint8Array, encoding: BufferEncoding }[], callback: Callback): void {
    this.#takeAll(chunks.map(each => bytesOf(each.chunk, each.encoding))).then(() => callback(), callback)
  }

  /** Small chunks that came together travel together. */
  async #takeAll(chunks: Uint8Array[]): Promise<void> {
    const { maxWrite } = this.#handle.io
    let group: Uint8Array[] = []
    let bytes = 0
    for (const chunk of chunks) {
      if (bytes > 0 && bytes + chunk.length > maxWrite) {
        await this.#take(group.length === 1 ? group[0]! : Buffer.concat(group))
        group = []
        bytes = 0
      }
      group.push(chunk)
      bytes += chunk.length
    }
    await this.#take(group.length === 1 ? group[0]! : Buffer.concat(group))
  }

  async #take(data: Uint8Array): Promise<void> {
    if (this.#failed) throw this.#failed
    if (this.#handle.io.appends) return this.#append(data)
    const { maxWrite } = this.#handle.io
    for (let at = 0; at < data.length; at += maxWrite) {
      while (this.#behind.size >= BEHIND) await Promise.race(this.#behind)
      if (this.#failed) throw this.#failed
      await this.#writeBehind(data.length <= maxWrite ? data : data.subarray(at, at + maxWrite))
    }
  }

  async #append(data: Uint8Array): Promise<void> {
    const { bytesWritten } = await this.#handle.write(data)
    this.bytesWritten += bytesWritten
    if (bytesWritten < data.length) await this.#append(data.subarray(bytesWritten))
  }

  /** Resolves when the data was copied. */
  #writeBehind(data: Uint8Array): Promise<void> {
    const { signal } = this.#options
    const at = this.#position
    this.#position += data.length
    this.bytesWritten += data.length
    if (this.#options.start === undefined) this.#handle.position = this.#position
    const { length } = data
    return new Promise((resolve, reject) => {
      const written = this.#handle.use('write', async () => {
        const { result } = await this.#handle.io.writeBehind(data, at, signal)
        resolve()
        const bytes = unwrap<number>(await result, 'write', undefined, undefined, signal)
        // what is left was the writer's to change by now
        if (bytes < length) throw fsError(-errno.EIO, 'write')
      })
      const behind: Promise<void> = written.catch(error => {
        this.#failed ??= error as Error
        reject(error as Error)
      }).finally(() => this.#behind.delete(behind))
      this.#behind.add(behind)
    })
  }

  async #finish(): Promise<void> {
    await Promise.all(this.#behind)
    if (this.#failed) throw this.#failed
    if (this.#options.flush) await this.#handle.sync()
  }

  override _final(callback: Callback): void {
    this.#finish().then(() => callback(), callback)
  }

  override _destroy(error: Error | null, callback: Callback): void {
    const done = Promise.all(this.#behind)
    if (!(this.#options.autoClose ?? true)) return void done.then(() => callback(error))
    done.then(() => this.#handle.close()).then(() => callback(error), failed => callback(error ?? failed as Error))
  }

  /** Ends the stream when all was written. */
  close(callback?: Callback): void {
    if (callback) this.once('close', callback)
    this.end()
  }
}
