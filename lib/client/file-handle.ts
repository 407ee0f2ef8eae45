/** FileHandle of node:fs/promises over an open file of a device, and what Linux has beyond it. */
import { EventEmitter } from 'node:events'
import type { BigIntStats, Stats } from 'node:fs'
import { createInterface, type Interface } from 'node:readline'
import { Readable } from 'node:stream'
import { ReadableStream } from 'node:stream/web'
import { errno } from '../errors.js'
import { S_IFREG } from '../sys/file.js'
import { bytesOf, idOf, integerOf, modeOf, optionsOf, positionOf, timeOf, type Mode, type TimeLike } from './arguments.js'
import { sizeOf, typeOf } from './attributes.js'
import { abortError, fsError, invalidType, outOfRange, unwrap } from './fs-error.js'
import { SEEK_DATA, SEEK_HOLE, type FileIo } from './file-io.js'
import { ReadStream, type ReadStreamOptions } from './read-stream.js'
import { bigIntStatsOf, statsOf } from './stats.js'
import type { Tree } from './tree.js'
import { WriteStream, type WriteStreamOptions } from './write-stream.js'

export interface ReadOptions {
  buffer?: NodeJS.ArrayBufferView
  offset?: number
  length?: number
  position?: number | bigint | null
  signal?: AbortSignal
}

export interface WriteOptions {
  offset?: number
  length?: number
  position?: number | bigint | null
  signal?: AbortSignal
}

export interface ReadFileOptions {
  encoding?: BufferEncoding | null
  signal?: AbortSignal
}

export interface WriteFileOptions {
  encoding?: BufferEncoding | null
  signal?: AbortSignal
  /** Sync the file before it is closed. */
  flush?: boolean
}

export interface StatOptions<B extends boolean = boolean> {
  bigint?: B
  signal?: AbortSignal
}

/** What may be written as a whole. */
export type FileData = string | NodeJS.ArrayBufferView | Iterable<string | NodeJS.ArrayBufferView> | AsyncIterable<string | NodeJS.ArrayBufferView>

const DEFAULT_READ_BYTES = 16384
const UNKNOWN_SIZE_BYTES = 65536
/** Node refuses to read more into one buffer (kIoMaxLength). */
const MAX_FILE_BYTES = 2 ** 31 - 1

interface Events {
  close: []
}

export class FileHandle extends EventEmitter<Events> {
  /** Of the handle's own reads and writes, in bytes. @internal */
  position = 0
  /** @internal */
  readonly io: FileIo
  readonly #tree: Tree
  readonly #dev: number
  /** The last of the operations that use `position`: they take turns. */
  #turn: Promise<unknown> = Promise.resolve()
  #running = 0
  #idle: (() => void) | undefined
  #closing: Promise<void> | undefined

  /** @internal */
  constructor(tree: Tree, io: FileIo, dev: number) {
    super()
    this.#tree = tree
    this.io = io
    this.#dev = dev
  }

  /** Runs an operation; `close` waits for it. @throws FsError EBADF when the handle is closed @internal */
  async use<T>(syscall: string, operation: () => Promise<T>): Promise<T> {
    if (this.#closing) throw Object.assign(new Error('file closed'), { code: 'EBADF', syscall })
    this.#running++
    try {
      return await operation()
    } finally {
      if (--this.#running === 0) this.#idle?.()
    }
  }

  /** The same, one after the other. @internal */
  inTurn<T>(syscall: string, operation: () => Promise<T>): Promise<T> {
    return this.use(syscall, () => {
      const turn = this.#turn.then(operation)
      this.#turn = turn.catch(() => {})
      return turn
    })
  }

  /**
   * Reads into a buffer.
   *
   * @param position in bytes; null reads at the handle's own position and advances it
   * @throws FsError
   */
  async read<T extends NodeJS.ArrayBufferView>(buffer: T, offset?: number | null, length?: number | null, position?: number | bigint | null): Promise<{ bytesRead: number, buffer: T }>
  async read<T extends NodeJS.ArrayBufferView = Buffer>(buffer: T, options?: Omit<ReadOptions, 'buffer'>): Promise<{ bytesRead: number, buffer: T }>
  async read<T extends NodeJS.ArrayBufferView = Buffer>(options?: ReadOptions & { buffer?: T }): Promise<{ bytesRead: number, buffer: T }>
  async read(first?: NodeJS.ArrayBufferView | ReadOptions, second?: number | ReadOptions | null, length?: number | null, position?: number | bigint | null): Promise<{ bytesRead: number, buffer: NodeJS.ArrayBufferView }> {
    let options: ReadOptions
    if (ArrayBuffer.isView(first)) {
      options = second !== null && typeof second === 'object' ? { ...second, buffer: first } : { buffer: first, ...given({ offset: second, length, position }) }
    } else {
      if (first !== undefined && (first === null || typeof first !== 'object')) throw invalidType('options', 'of type object', first)
      options = first ?? {}
    }
    const buffer = options.buffer ?? Buffer.alloc(DEFAULT_READ_BYTES)
    if (!ArrayBuffer.isView(buffer)) throw invalidType('buffer', 'an instance of Buffer, TypedArray, or DataView', buffer)
    const target = slice(buffer, options)
    const at = positionOf(options.position)
    const bytesRead = await this.#transfer('read', at, options.signal, offset => this.io.read(target, offset, options.signal))
    return { bytesRead, buffer }
  }

  #transfer(syscall: string, position: number | null, signal: AbortSignal | undefined, move: (offset: number) => Promise<number>): Promise<number> {
    if (position !== null) return this.use(syscall, async () => unwrap<number>(await move(position), syscall, undefined, undefined, signal))
    return this.inTurn(syscall, async () => {
      const bytes = unwrap<number>(await move(this.position), syscall, undefined, undefined, signal)
      this.position += bytes
      return bytes
    })
  }

  /** Reads into several buffers, one after the other. */
  async readv<T extends readonly NodeJS.ArrayBufferView[]>(buffers: T, position?: number | null): Promise<{ bytesRead: number, buffers: T }> {
    const views = viewsOf(buffers)
    // as libuv says
    if (views.length === 0) throw fsError(-errno.EINVAL, 'read')
    const length = views.reduce((sum, view) => sum + view.length, 0)
    const bytesRead = await this.#transfer('read', positionOf(position), undefined, async offset => {
      const whole = Buffer.allocUnsafe(length)
      const bytes = await this.io.read(whole, offset)
      for (let i = 0, at = 0; i < views.length && at < bytes; at += views[i++]!.length) views[i]!.set(whole.subarray(at, Math.min(bytes, at + views[i]!.length)))
      return bytes
    })
    return { bytesRead, buffers }
  }

  /**
   * Writes a buffer or a string. May write less than all, as write(2).
   *
   * @param position in bytes; null writes at the handle's own position and advances it
   * @throws FsError
   */
  async write<T extends NodeJS.ArrayBufferView>(buffer: T, offset?: number | null | WriteOptions, length?: number | null, position?: number | bigint | null): Promise<{ bytesWritten: number, buffer: T }>
  async write(text: string, position?: number | bigint | null, encoding?: BufferEncoding | null): Promise<{ bytesWritten: number, buffer: string }>
  async write(data: string | NodeJS.ArrayBufferView, second?: number | bigint | null | WriteOptions, third?: number | string | null, fourth?: number | bigint | null): Promise<{ bytesWritten: number, buffer: string | NodeJS.ArrayBufferView }> {
    let bytes: Uint8Array
    let options: WriteOptions = {}
    if (ArrayBuffer.isView(data)) {
      options = second !== null && typeof second === 'object' ? second : given({ offset: second as number, length: third as number, position: fourth })
      bytes = slice(data, options)
    } else {
      bytes = bytesOf(data, third as BufferEncoding, 'buffer')
      options = given({ position: second as number | bigint | null })
    }
    const bytesWritten = await this.#write(bytes, positionOf(options.position), options.signal)
    return { bytesWritten, buffer: data }
  }

  #write(bytes: Uint8Array, position: number | null, signal?: AbortSignal): Promise<number> {
    if (!this.io.appends) return this.#transfer('write', position, signal, offset => this.io.write(bytes, offset, signal))
    return this.inTurn('write', async () => {
      const appended = unwrap<{ bytes: number, end: number }>(await this.io.append(bytes, signal), 'write', undefined, undefined, signal)
      this.position = appended.end
      return appended.bytes
    })
  }

  /** Writes several buffers, one behind the other. */
  async writev<T extends readonly NodeJS.ArrayBufferView[]>(buffers: T, position?: number | null): Promise<{ bytesWritten: number, buffers: T }> {
    const whole = Buffer.concat(viewsOf(buffers))
    if (whole.length === 0) return { bytesWritten: 0, buffers }
    return { bytesWritten: await this.#write(whole, positionOf(position)), buffers }
  }

  /**
   * Reads from the handle's position to the end.
   *
   * @throws FsError; AbortError when `signal` is aborted
   */
  async readFile(options: (ReadFileOptions & { encoding: BufferEncoding }) | BufferEncoding): Promise<string>
  async readFile(options?: (ReadFileOptions & { encoding?: null }) | null): Promise<Buffer>
  async readFile(options?: ReadFileOptions | BufferEncoding | null): Promise<string | Buffer>
  async readFile(options?: ReadFileOptions | BufferEncoding | null): Promise<string | Buffer> {
    const { encoding, signal } = optionsOf<ReadFileOptions>(options as ReadFileOptions | string | null, {})
    return this.inTurn('readFile', async () => {
      if (signal?.aborted) throw abortError(signal)
      const { node } = this.io.file
      const attributes = unwrap(await this.#tree.access.attributes(node, this.io.file, signal), 'fstat', undefined, undefined, signal)
      const size = typeOf(attributes) === S_IFREG ? sizeOf(attributes) : 0
      if (size > MAX_FILE_BYTES) throw Object.assign(new RangeError(`File size (${size}) is greater than 2 GiB`), { code: 'ERR_FS_FILE_TOO_LARGE' })
      const bytes = size > 0 ? await this.#readKnown(size, signal) : await this.#readUnknown(signal)
      return encoding ? bytes.toString(encoding) : bytes
    })
  }

  async #readKnown(size: number, signal: AbortSignal | undefined): Promise<Buffer> {
    const buffer = Buffer.allocUnsafeSlow(Math.max(0, size - this.position))
    const bytes = unwrap<number>(await this.io.read(buffer, this.position, signal), 'read', undefined, undefined, signal)
    this.position += bytes
    return bytes < buffer.length ? buffer.subarray(0, bytes) : buffer
  }

  /** Of a file that says it is empty, and may be generated. */
  async #readUnknown(signal: AbortSignal | undefined): Promise<Buffer> {
    const parts: Buffer[] = []
    for (;;) {
      const buffer = Buffer.allocUnsafeSlow(UNKNOWN_SIZE_BYTES)
      const bytes = unwrap<number>(await this.io.read(buffer, this.position, signal), 'read', undefined, undefined, signal)
      this.position += bytes
      if (bytes === 0) return Buffer.concat(parts)
      parts.push(buffer.subarray(0, bytes))
    }
  }

  /**
   * Writes everything from the handle's position on.
   *
   * @throws FsError; AbortError when `signal` is aborted
   */
  async writeFile(data: FileData, options?: WriteFileOptions | BufferEncoding | null): Promise<void> {
    const { encoding, signal } = optionsOf<WriteFileOptions>(options as WriteFileOptions | string | null, {})
    if (signal?.aborted) throw abortError(signal)
    if (typeof data !== 'string' && !ArrayBuffer.isView(data) && isIterable(data)) {
      for await (const chunk of data) await this.#writeAll(bytesOf(chunk, encoding), signal)
    } else {
      await this.#writeAll(bytesOf(data, encoding), signal)
    }
  }

  async #writeAll(bytes: Uint8Array, signal: AbortSignal | undefined): Promise<void> {
    for (let done = 0; done < bytes.length;) {
      if (signal?.aborted) throw abortError(signal)
      const written = await this.#write(done === 0 ? bytes : bytes.subarray(done), null, signal)
      if (written === 0) throw fsError(-errno.EIO, 'write')
      done += written
    }
  }

  /** `writeFile` by another name, as in node:fs: where it goes was decided when the file was opened. */
  appendFile(data: FileData, options?: WriteFileOptions | BufferEncoding | null): Promise<void> {
    return this.writeFile(data, options)
  }

  stat(options?: StatOptions<false>): Promise<Stats>
  stat(options: StatOptions<true>): Promise<BigIntStats>
  stat(options?: StatOptions): Promise<Stats | BigIntStats>
  stat(options: StatOptions = {}): Promise<Stats | BigIntStats> {
    return this.use('fstat', async () => {
      const attributes = unwrap(await this.#tree.access.stat(this.io.file.node, this.io.file, options.signal), 'fstat', undefined, undefined, options.signal)
      return options.bigint ? bigIntStatsOf(attributes, this.#dev) : statsOf(attributes, this.#dev)
    })
  }

  async chmod(mode: Mode): Promise<void> {
    const bits = modeOf(mode, 'mode')
    await this.use('fchmod', async () => unwrap(await this.#tree.changes.mode(this.io.file.node, bits), 'fchmod'))
  }

  async chown(uid: number, gid: number): Promise<void> {
    const [user, group] = [idOf(uid, 'uid'), idOf(gid, 'gid')]
    await this.use('fchown', async () => unwrap(await this.#tree.changes.owner(this.io.file.node, user, group), 'fchown'))
  }

  /** @param length bytes that the file has afterwards */
  async truncate(length = 0): Promise<void> {
    const size = Math.max(0, integerOf(length, 'len'))
    await this.use('ftruncate', async () => unwrap(await this.io.truncate(size), 'ftruncate'))
  }

  /** @param atime seconds, a date, or a BigInt of nanoseconds @param mtime the same */
  async utimes(atime: TimeLike, mtime: TimeLike): Promise<void> {
    const times = { atime: timeOf(atime), mtime: timeOf(mtime) }
    await this.use('futimes', async () => unwrap(await this.#tree.changes.times(this.io.file.node, times), 'futime'))
  }

  /** fsync(2): data and metadata. */
  async sync(options: { signal?: AbortSignal } = {}): Promise<void> {
    await this.use('fsync', async () => unwrap(await this.io.fsync(false, options.signal), 'fsync', undefined, undefined, options.signal))
  }

  /** fdatasync(2). */
  async datasync(options: { signal?: AbortSignal } = {}): Promise<void> {
    await this.use('fdatasync', async () => unwrap(await this.io.fsync(true, options.signal), 'fdatasync', undefined, undefined, options.signal))
  }

  /**
   * A stream that reads ahead, as far as its consumer keeps up.
   *
   * @example
   * const fs = await connect('/srv/shared')
   * await fs.writeFile('/big', Buffer.alloc(1_000_000))
   * const file = await fs.open('/big')
   * let bytes = 0
   * for await (const chunk of file.createReadStream()) bytes += chunk.length
   * assert.equal(bytes, 1_000_000)
   * await fs.close()
   */
  createReadStream(options: ReadStreamOptions = {}): ReadStream {
    return new ReadStream(this, options)
  }

  /** A stream that writes behind: a chunk is done when it was copied, an error comes with a later one or at the end. */
  createWriteStream(options: WriteStreamOptions = {}): WriteStream {
    return new WriteStream(this, options)
  }

  readableWebStream(): ReadableStream<Uint8Array> {
    return Readable.toWeb(this.createReadStream({ autoClose: false })) as ReadableStream<Uint8Array>
  }

  /** Lines of the file, as of readline. */
  readLines(options: ReadStreamOptions = {}): Interface {
    return createInterface({ input: this.createReadStream(options), crlfDelay: Infinity })
  }

  /**
   * fallocate(2).
   *
   * @param mode FALLOC_FL_* bits, 0 to allocate
   * @param offset in bytes
   * @param length in bytes
   */
  async fallocate(mode: number, offset: number, length: number): Promise<void> {
    await this.use('fallocate', async () => unwrap(await this.io.fallocate(mode, offset, length), 'fallocate'))
  }

  /** First byte from `offset` on that is data. @throws FsError ENXIO when there is none */
  seekData(offset: number): Promise<number> {
    return this.use('lseek', async () => unwrap<number>(await this.io.seek(offset, SEEK_DATA), 'lseek'))
  }

  /** First byte from `offset` on that is in a hole, or the end of the file. @throws FsError ENXIO behind the end */
  seekHole(offset: number): Promise<number> {
    return this.use('lseek', async () => unwrap<number>(await this.io.seek(offset, SEEK_HOLE), 'lseek'))
  }

  /**
   * copy_file_range(2): copies within the device, without the data coming here where the device can.
   *
   * @returns bytes copied, fewer at the end of the file
   */
  copyFileRange(to: FileHandle, offset: number, toOffset: number, length: number): Promise<number> {
    if (!(to instanceof FileHandle)) throw invalidType('to', 'an instance of FileHandle', to)
    return this.use('copy_file_range', () => to.use('copy_file_range', async () =>
      unwrap<number>(await this.io.copyTo(to.io, offset, toOffset, length), 'copy_file_range')))
  }

  /**
   * Closes the file once all its operations have ended.
   *
   * @throws FsError for what went wrong with data that was written before
   */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    if (this.#running > 0) await new Promise<void>(resolve => { this.#idle = resolve })
    const error = await this.io.close()
    this.emit('close')
    unwrap(error, 'close')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }
}

/** An object without what was left out or is null, which means the same in these calls. */
function given<T extends object>(options: T): { [K in keyof T]?: Exclude<T[K], null | undefined> } {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined && value !== null)) as never
}

/** The part of a buffer that offset and length say. @throws RangeError */
function slice(buffer: NodeJS.ArrayBufferView, { offset = 0, length }: { offset?: number | null, length?: number | null }): Uint8Array {
  const from = integerOf(offset ?? 0, 'offset', 0)
  if (from > buffer.byteLength) throw outOfRange('offset', `<= ${buffer.byteLength}`, from)
  const bytes = integerOf(length ?? buffer.byteLength - from, 'length')
  if (bytes < 0) throw outOfRange('length', '>= 0', bytes)
  if (bytes > buffer.byteLength - from) throw outOfRange('length', `<= ${buffer.byteLength - from}`, bytes)
  return new Uint8Array(buffer.buffer, buffer.byteOffset + from, bytes)
}

function viewsOf(buffers: readonly NodeJS.ArrayBufferView[]): Uint8Array[] {
  if (!Array.isArray(buffers) || !buffers.every(ArrayBuffer.isView)) throw invalidType('buffers', 'an ArrayBufferView[]', buffers)
  return buffers.map(view => new Uint8Array(view.buffer, view.byteOffset, view.byteLength))
}

function isIterable(value: unknown): value is Iterable<string> | AsyncIterable<string> {
  return typeof value === 'object' && value !== null && (Symbol.asyncIterator in value || Symbol.iterator in value)
}

