/**
 * Reading and writing an open file: any length, several requests in flight, and what POSIX says of
 * the places where they meet: a read ends at the first short answer, a write reports the bytes
 * before its first error.
 */
import { errno } from '../errors.js'
import { O_ACCMODE, O_APPEND, O_RDONLY, O_WRONLY, S_IFREG, S_ISGID, S_ISUID } from '../sys/file.js'
import { sizeOf, typeOf } from './attributes.js'
import type { OpenFile } from './open-file.js'
import type { Tree } from './tree.js'

/** Requests of one transfer that are in flight at once. */
const WINDOW = 4
export const SEEK_DATA = 3
export const SEEK_HOLE = 4
const S_IXGRP = 0o010

export class FileIo {
  readonly file: OpenFile
  readonly #tree: Tree

  constructor(tree: Tree, file: OpenFile) {
    this.#tree = tree
    this.file = file
  }

  /** What may be read or written, before anything is sent. @returns 0 or −errno */
  #mayTransfer(forbidden: number): number {
    if ((this.file.flags & O_ACCMODE) === forbidden) return -errno.EBADF
    return this.file.node.isDirectory ? -errno.EISDIR : 0
  }

  /** @returns bytes read into `target`, fewer at the end of the file; or −errno */
  async read(target: Uint8Array, offset: number, signal?: AbortSignal): Promise<number> {
    const error = this.#mayTransfer(O_WRONLY)
    if (error < 0 || target.length === 0) return error
    const { operations } = this.#tree
    const { maxRead } = operations.session
    this.file.node.atimeOld = true
    if (target.length <= maxRead) return operations.read(this.file, target, offset, signal)
    return transfer(target.length, maxRead, (at, bytes) => operations.read(this.file, target.subarray(at, at + bytes), offset + at, signal))
  }

  /** @returns bytes written, or −errno */
  async write(data: Uint8Array, offset: number, signal?: AbortSignal): Promise<number> {
    const error = await this.#prepareWrite(data.length)
    if (error < 0 || data.length === 0) return error
    const { maxWrite } = this.#tree.operations.session
    const send = (at: number, bytes: number): Promise<number> => this.#write(data.subarray(at, at + bytes), offset + at, signal)
    const written = await (data.length <= maxWrite ? send(0, data.length) : transfer(data.length, maxWrite, send))
    this.file.node.changed()
    return written
  }

  /**
   * Writes at the end, wherever it is. A device that knows O_APPEND does that itself; any other is
   * told the end that it gives.
   *
   * @returns bytes written, and the offset behind them, or −errno
   */
  async append(data: Uint8Array, signal?: AbortSignal): Promise<{ bytes: number, end: number } | number> {
    const { maxWrite } = this.#tree.operations.session
    let bytes = 0
    let end = 0
    do {
      const attributes = await this.#tree.access.attributes(this.file.node, this.file, signal, true)
      if (typeof attributes === 'number') return bytes > 0 ? { bytes, end } : attributes
      const part = data.subarray(bytes, bytes + maxWrite)
      const written = await this.write(part, sizeOf(attributes), signal)
      if (written < 0) return bytes > 0 ? { bytes, end } : written
      bytes += written
      end = sizeOf(attributes) + written
      if (written < part.length) break
    } while (bytes < data.length)
    return { bytes, end }
  }

  /** Bytes of one WRITE at most. */
  get maxWrite(): number {
    return this.#tree.operations.session.maxWrite
  }

  get appends(): boolean {
    return (this.file.flags & O_APPEND) !== 0
  }

  /** One WRITE. */
  async #write(data: Uint8Array, offset: number, signal: AbortSignal | undefined, copied?: () => void): Promise<number> {
    const written = await this.#tree.operations.write(this.file, data, offset, !this.#tree.permission.privileged && this.#killsPrivileges, signal, copied)
    return written > data.length ? -errno.EIO : written
  }

  /**
   * A WRITE whose data may be changed once it was copied into the memory that the device reads: for
   * a stream that writes behind.
   *
   * @param data at most one WRITE
   * @returns when it was copied, a promise of the result
   */
  async writeBehind(data: Uint8Array, offset: number, signal?: AbortSignal): Promise<{ result: Promise<number> }> {
    const error = await this.#prepareWrite(data.length)
    if (error < 0) return { result: Promise.resolve(error) }
    return new Promise(resolve => {
      const result: Promise<number> = this.#write(data, offset, signal, () => queueMicrotask(() => resolve({ result }))).then(written => {
        this.file.node.changed()
        return written
      })
    })
  }

  get #killsPrivileges(): boolean {
    return this.#tree.operations.session.has('HANDLE_KILLPRIV_V2')
  }

  /** What comes before data is written: who may not keep suid and sgid takes them off (file_remove_privs). */
  async #prepareWrite(bytes: number): Promise<number> {
    const error = this.#mayTransfer(O_RDONLY)
    if (error < 0 || bytes === 0 || this.#tree.permission.privileged || this.#killsPrivileges) return error
    const { node } = this.file
    const { mode } = node.attributes
    const special = (mode & S_ISUID) | ((mode & S_IXGRP) !== 0 ? mode & S_ISGID : 0)
    if (special === 0 || typeOf(node.attributes) !== S_IFREG) return 0
    const changed = this.#tree.access.setAttributes(node, await this.#tree.operations.setattr(node, { mode: mode & ~special }, this.file, false))
    return typeof changed === 'number' ? changed : 0
  }

  /** ftruncate(2). @returns 0 or −errno */
  async truncate(size: number): Promise<number> {
    if (this.file.node.isDirectory || (this.file.flags & O_ACCMODE) === O_RDONLY) return -errno.EINVAL
    return this.#tree.changes.size(this.file.node, size, this.file)
  }

  fsync(dataOnly: boolean, signal?: AbortSignal): Promise<number> {
    return this.#tree.operations.fsync(this.file, dataOnly, signal)
  }

  /** close(2): FLUSH, whose error is the last word on what was written; then RELEASE. @returns 0 or −errno */
  async close(): Promise<number> {
    const { file } = this
    const writes = (file.flags & O_ACCMODE) !== O_RDONLY && !file.node.isDirectory
    const error = writes ? await this.#tree.operations.flush(file) : 0
    file.drop()
    return error
  }

  async fallocate(mode: number, offset: number, length: number, signal?: AbortSignal): Promise<number> {
    if ((this.file.flags & O_ACCMODE) === O_RDONLY) return -errno.EBADF
    if (offset < 0 || length <= 0) return -errno.EINVAL
    if (typeOf(this.file.node.attributes) !== S_IFREG) return this.file.node.isDirectory ? -errno.EISDIR : -errno.ENODEV
    const error = await this.#tree.operations.fallocate(this.file, mode, offset, length, signal)
    this.file.node.changed()
    return error
  }

  /** lseek(2) with SEEK_DATA or SEEK_HOLE. @returns the offset, or −errno: −ENXIO behind the end */
  async seek(offset: number, whence: number): Promise<number> {
    if (offset < 0) return -errno.ENXIO
    const found = await this.#tree.operations.lseek(this.file, offset, whence)
    if (found !== -errno.ENOSYS) return found
    // a device that cannot tell has no holes (generic_file_llseek)
    const attributes = await this.#tree.access.attributes(this.file.node, this.file)
    if (typeof attributes === 'number') return attributes
    const size = sizeOf(attributes)
    return offset >= size ? -errno.ENXIO : whence === SEEK_DATA ? offset : size
  }

  /** copy_file_range(2). @returns bytes, fewer at the end of the file; or −errno */
  async copyTo(to: FileIo, fromOffset: number, toOffset: number, length: number, signal?: AbortSignal): Promise<number> {
    const error = this.#mayTransfer(O_WRONLY) || to.#mayTransfer(O_RDONLY)
    if (error < 0) return error
    if (to.appends) return -errno.EBADF
    if (this.file.node === to.file.node && fromOffset < toOffset + length && toOffset < fromOffset + length) return -errno.EINVAL
    let copied = await this.#tree.operations.copyFileRange(this.file, fromOffset, to.file, toOffset, length, signal)
    if (copied === -errno.EOPNOTSUPP || copied === -errno.EXDEV) copied = await this.#copyByHand(to, fromOffset, toOffset, length, signal)
    to.file.node.changed()
    return copied
  }

  /** For a device that cannot: one request's worth. */
  async #copyByHand(to: FileIo, fromOffset: number, toOffset: number, length: number, signal?: AbortSignal): Promise<number> {
    const { maxRead, maxWrite } = this.#tree.operations.session
    const buffer = Buffer.allocUnsafe(Math.min(length, maxRead, maxWrite))
    const bytes = await this.read(buffer, fromOffset, signal)
    return bytes <= 0 ? bytes : to.write(buffer.subarray(0, bytes), toOffset, signal)
  }
}

/**
 * Splits a transfer into parts, several of them in flight.
 * @param send one part; resolves with its bytes or −errno
 * @returns bytes up to the first part that was short, or −errno when that is none
 */
async function transfer(length: number, most: number, send: (at: number, bytes: number) => Promise<number>): Promise<number> {
  const window: { bytes: number, result: Promise<number> }[] = []
  let sent = 0
  let done = 0
  for (;;) {
    while (sent < length && window.length < WINDOW) {
      const bytes = Math.min(most, length - sent)
      window.push({ bytes, result: send(sent, bytes) })
      sent += bytes
    }
    const part = window.shift()
    if (part === undefined) return done
    const result = await part.result
    if (result === part.bytes) {
      done += result
      continue
    }
    // what was sent for behind it lies past the end, or is nobody's: but it may still be written to the buffer
    await Promise.all(window.map(each => each.result))
    return result >= 0 ? done + result : done > 0 ? done : result
  }
}
