/**
 * A thread of libfuse that waits for the answer to one call: its arguments, and where its results go.
 *
 * The addon would pass both as JavaScript values, and cut them short on the way: times to
 * milliseconds, inode numbers and sizes of file systems to 32 bits, names to UTF-8. So they are read
 * and written where they are. The thread sleeps from the call to its answer, and everything that its
 * struct points at stays until then.
 */
import { bytesToString, stringToBytes } from '../device/byte-string.js'
import type { Attributes, FileSystemStatistics, Time } from '../client/attributes.js'
import { errno } from '../errors.js'
import { bindAddress } from '../sys/libc.js'
import { readCString, readMemory, writeMemory } from '../sys/foreign-memory.js'
import { getI64, getU64 } from '../wire/u64.js'
import { FuseFileInfo, FuseThreadLocals, Stat, Statvfs } from './structs.js'

/** fuse_fill_dir_t of libfuse 2.9. */
const fillDirectory = bindAddress('int fuse_fill_dir(uintptr_t, const uint8_t *, const uint8_t *, int64_t)')

/** PATH_MAX and more: libfuse puts paths together itself. */
const MAX_PATH_BYTES = 1 << 20
const REPLACEMENT = '\ufffd'

const statBytes = Buffer.alloc(Stat.SIZE)
const stat = new DataView(statBytes.buffer, statBytes.byteOffset, Stat.SIZE)
const statvfsBytes = Buffer.alloc(Statvfs.SIZE)
const statvfs = new DataView(statvfsBytes.buffer, statvfsBytes.byteOffset, Statvfs.SIZE)
const infoBytes = Buffer.alloc(FuseFileInfo.SIZE)
const info = new DataView(infoBytes.buffer, infoBytes.byteOffset, FuseFileInfo.SIZE)

function put(view: DataView, at: number, value: number | bigint): void {
  view.setBigUint64(at, BigInt(value), true)
}

function putTime(at: number, { sec, nsec }: Time): void {
  stat.setBigInt64(at, BigInt(sec), true)
  put(stat, at + 8, nsec)
}

export class LibfuseThread {
  readonly #view: DataView

  /** @param locals its struct */
  constructor(locals: Buffer) {
    this.#view = new DataView(locals.buffer, locals.byteOffset, FuseThreadLocals.SIZE)
  }

  #pointer(field: number): number {
    return getU64(this.#view, field)
  }

  /** A path or a name: what the addon has made of it, or its own bytes where that has lost some. */
  #text(made: string, field: number): string {
    return made.includes(REPLACEMENT) ? bytesToString(readCString(this.#pointer(field), MAX_PATH_BYTES)) : made
  }

  path(made: string): string {
    return this.#text(made, FuseThreadLocals.path)
  }

  /** The second path. */
  destination(made: string): string {
    return this.#text(made, FuseThreadLocals.dest)
  }

  /** Name of an extended attribute. */
  attributeName(made: string): string {
    return this.#text(made, FuseThreadLocals.name)
  }

  /** Access and modification time of utimens, which libfuse has cut to milliseconds; the addon passes the first twice. */
  get times(): { atime: Time, mtime: Time } {
    return { atime: timeOf(getI64(this.#view, FuseThreadLocals.atime)), mtime: timeOf(getI64(this.#view, FuseThreadLocals.mtime)) }
  }

  /** flags of setxattr(2). */
  get xattrFlags(): number {
    return this.#view.getUint32(FuseThreadLocals.flags, true)
  }

  /** Value that setxattr is to set. */
  get xattrValue(): Buffer {
    const value = Buffer.allocUnsafe(this.#pointer(FuseThreadLocals.size))
    if (value.length > 0) readMemory(this.#pointer(FuseThreadLocals.value), value)
    return value
  }

  /** flags of open(2), also for create and opendir. */
  get openFlags(): number {
    this.#readInfo()
    return info.getUint32(FuseFileInfo.flags, true)
  }

  /** The number that `putHandle` has given; 0 for none. */
  get handle(): number {
    this.#readInfo()
    return getU64(info, FuseFileInfo.fh)
  }

  #readInfo(): void {
    infoBytes.fill(0)
    const address = this.#pointer(FuseThreadLocals.info)
    if (address !== 0) readMemory(address, infoBytes)
  }

  /** Gives an open file its number. @param handle from 1 */
  putHandle(handle: number): void {
    this.#readInfo()
    put(info, FuseFileInfo.fh, handle)
    writeMemory(this.#pointer(FuseThreadLocals.info), infoBytes)
  }

  putStat(attributes: Attributes): void {
    statBytes.fill(0)
    put(stat, Stat.st_ino, attributes.ino)
    put(stat, Stat.st_nlink, attributes.nlink)
    stat.setUint32(Stat.st_mode, attributes.mode, true)
    stat.setUint32(Stat.st_uid, attributes.uid, true)
    stat.setUint32(Stat.st_gid, attributes.gid, true)
    put(stat, Stat.st_rdev, attributes.rdev)
    put(stat, Stat.st_size, attributes.size)
    put(stat, Stat.st_blksize, attributes.blksize)
    put(stat, Stat.st_blocks, attributes.blocks)
    putTime(Stat.st_atime, attributes.atime)
    putTime(Stat.st_mtime, attributes.mtime)
    putTime(Stat.st_ctime, attributes.ctime)
    writeMemory(this.#pointer(FuseThreadLocals.stat), statBytes)
  }

  putStatvfs({ bsize, frsize, blocks, bfree, bavail, files, ffree, namelen }: FileSystemStatistics): void {
    statvfsBytes.fill(0)
    for (const [at, value] of [
      [Statvfs.f_bsize, bsize], [Statvfs.f_frsize, frsize], [Statvfs.f_blocks, blocks], [Statvfs.f_bfree, bfree], [Statvfs.f_bavail, bavail],
      [Statvfs.f_files, files], [Statvfs.f_ffree, ffree], [Statvfs.f_favail, ffree], [Statvfs.f_namemax, namelen],
    ] as const) put(statvfs, at, value)
    writeMemory(this.#pointer(FuseThreadLocals.statvfs), statvfsBytes)
  }

  /** The target of a link, cut to the room that there is. */
  putLink(target: Buffer): void {
    const most = this.#pointer(FuseThreadLocals.len) - 1
    writeMemory(this.#pointer(FuseThreadLocals.linkname), Buffer.concat([target.subarray(0, most), Buffer.alloc(1)]))
  }

  /** An entry of the directory that is being read. @param type as in st_mode */
  putEntry(name: string, ino: number | bigint, type: number): void {
    statBytes.fill(0)
    put(stat, Stat.st_ino, ino)
    stat.setUint32(Stat.st_mode, type, true)
    const text = Buffer.concat([stringToBytes(name), Buffer.alloc(1)])
    fillDirectory(this.#pointer(FuseThreadLocals.readdir_filler), this.#pointer(FuseThreadLocals.buf), text, statBytes, 0)
  }

  /** The value of an extended attribute. @returns what getxattr(2) returns, or −ERANGE */
  putXattr(value: Buffer): number {
    return this.#putIfRoom(FuseThreadLocals.value, value)
  }

  /** The names of extended attributes, each with its NUL. @returns what listxattr(2) returns, or −ERANGE */
  putXattrNames(names: Buffer): number {
    return this.#putIfRoom(FuseThreadLocals.list, names)
  }

  #putIfRoom(field: number, value: Buffer): number {
    const room = this.#pointer(FuseThreadLocals.size)
    if (room === 0) return value.length
    if (value.length > room) return -errno.ERANGE
    if (value.length > 0) writeMemory(this.#pointer(field), value)
    return value.length
  }
}

function timeOf(ms: number): Time {
  const sec = Math.floor(ms / 1000)
  return { sec, nsec: (ms - sec * 1000) * 1_000_000 }
}
