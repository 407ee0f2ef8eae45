/**
 * One method per FUSE operation: writes the arguments, names nodes and handles, decodes the reply.
 * All of them resolve with a value or −errno. What a device does not know (ENOSYS) is remembered
 * where the kernel remembers it, and answered as the kernel answers.
 */
import { errno } from '../errors.js'
import * as abi from '../fuse/abi.js'
import { Op } from '../fuse/opcodes.js'
import { setU64 } from '../wire/u64.js'
import { stringToBytes } from '../device/byte-string.js'
import { STATX_BASIC_STATS, STATX_BTIME } from '../sys/file.js'
import { decodeStatfs, exactU64, type FileSystemStatistics, type Time } from './attributes.js'
import type { Decode, ReplyPlace } from './engine-request.js'
import { decodeAttrOut, decodeCreated, decodeEntry, decodeOpened, decodeStatxOut, type AttributesReply, type Created, type Opened } from './entry-reply.js'
import type { EntryReply, Node } from './node.js'
import type { OpenFile } from './open-file.js'
import type { RequestEngine, SendOptions } from './request-engine.js'
import type { Session } from './session.js'

/** What SETATTR changes; undefined stays as it is. */
export interface Changes {
  mode?: number
  uid?: number
  gid?: number
  size?: number
  atime?: Time | 'now'
  mtime?: Time | 'now'
}

const ARGS = abi.FuseInHeader.SIZE
const PLAIN_NAME = /^[^\ud800-\udfff]*$/
/** Longest value of an extended attribute (XATTR_SIZE_MAX). */
const XATTR_MAX = 65536

const done: Decode<number> = () => 0
const payload: Decode<Buffer> = ({ region, payloadAt, payloadBytes }) => Buffer.from(region.bytes.subarray(payloadAt, payloadAt + payloadBytes))

export class Operations {
  readonly session: Session
  readonly #engine: RequestEngine
  readonly #staging: Buffer
  /** Operations that the device has answered with ENOSYS. */
  readonly #unknown = new Set<number>()

  constructor(session: Session) {
    this.session = session
    this.#engine = session.engine
    const { buffer, byteOffset, byteLength } = session.engine.staging
    this.#staging = Buffer.from(buffer, byteOffset, byteLength)
  }

  /** Zeroes the arguments' structure. @returns the staging memory */
  #args(bytes: number): DataView {
    this.#staging.fill(0, ARGS, ARGS + bytes)
    return this.#engine.staging
  }

  /** Writes a name and its NUL. @returns where the next one goes */
  #name(at: number, name: string): number {
    const end = at + (PLAIN_NAME.test(name) ? this.#staging.write(name, at) : stringToBytes(name).copy(this.#staging, at))
    this.#staging[end] = 0
    return end + 1
  }

  #send<T>(opcode: number, node: Node, end: number, decode: Decode<T>, options?: SendOptions): Promise<T | number> {
    return this.#engine.send(opcode, node.nodeidLow, node.nodeidHigh, end - ARGS, decode, options ?? { first: node })
  }

  /** Names and nothing else behind a structure of `bytes` bytes that is written already. */
  #named<T>(opcode: number, node: Node, bytes: number, names: readonly string[], decode: Decode<T>, options?: SendOptions): Promise<T | number> {
    let end = ARGS + bytes
    for (const name of names) end = this.#name(end, name)
    return this.#send(opcode, node, end, decode, options)
  }

  /** Sends unless the device is known not to know it. @param instead what is answered then */
  async #known<T>(opcode: number, instead: number, send: () => Promise<T | number>): Promise<T | number> {
    if (this.#unknown.has(opcode)) return instead
    const result = await send()
    if (result !== -errno.ENOSYS) return result
    this.#unknown.add(opcode)
    return instead
  }

  lookup(directory: Node, name: string, signal?: AbortSignal): Promise<EntryReply | number> {
    return this.#named(Op.LOOKUP, directory, 0, [name], decodeEntry, { first: directory, signal })
  }

  /** Whether the device may know when files were made. */
  get hasStatx(): boolean {
    return !this.#unknown.has(Op.STATX)
  }

  async getattr(node: Node, file?: OpenFile, signal?: AbortSignal): Promise<AttributesReply | number> {
    const fuller = await this.#known(Op.STATX, -errno.ENOSYS, () => {
      const view = this.#args(abi.FuseStatxIn.SIZE)
      if (file) this.#putHandle(view, ARGS + abi.FuseStatxIn.getattr_flags, ARGS + abi.FuseStatxIn.fh, file)
      view.setUint32(ARGS + abi.FuseStatxIn.sx_mask, STATX_BASIC_STATS | STATX_BTIME, true)
      return this.#send(Op.STATX, node, ARGS + abi.FuseStatxIn.SIZE, decodeStatxOut, { first: node, second: file, signal })
    })
    if (fuller !== -errno.ENOSYS) return fuller
    const view = this.#args(abi.FuseGetattrIn.SIZE)
    if (file) this.#putHandle(view, ARGS + abi.FuseGetattrIn.getattr_flags, ARGS + abi.FuseGetattrIn.fh, file)
    return this.#send(Op.GETATTR, node, ARGS + abi.FuseGetattrIn.SIZE, decodeAttrOut, { first: node, second: file, signal })
  }

  #putHandle(view: DataView, flagsAt: number, at: number, file: OpenFile): void {
    view.setUint32(flagsAt, abi.FUSE_GETATTR_FH, true)
    this.#putFh(view, at, file)
  }

  #putFh(view: DataView, at: number, file: OpenFile): void {
    view.setUint32(at, file.fhLow, true)
    view.setUint32(at + 4, file.fhHigh, true)
  }

  /** @param killPrivileges the caller may not keep suid and sgid of what it changes */
  setattr(node: Node, changes: Changes, file: OpenFile | undefined, killPrivileges: boolean, signal?: AbortSignal): Promise<AttributesReply | number> {
    const view = this.#args(abi.FuseSetattrIn.SIZE)
    const field = abi.FuseSetattrIn
    let valid = 0
    if (changes.mode !== undefined) valid |= this.#put(view, field.mode, changes.mode, abi.FATTR_MODE)
    if (changes.uid !== undefined) valid |= this.#put(view, field.uid, changes.uid, abi.FATTR_UID)
    if (changes.gid !== undefined) valid |= this.#put(view, field.gid, changes.gid, abi.FATTR_GID)
    if (changes.size !== undefined) {
      setU64(view, ARGS + field.size, changes.size)
      valid |= abi.FATTR_SIZE
    }
    valid |= this.#putTime(view, changes.atime, field.atime, field.atimensec, abi.FATTR_ATIME, abi.FATTR_ATIME_NOW)
    valid |= this.#putTime(view, changes.mtime, field.mtime, field.mtimensec, abi.FATTR_MTIME, abi.FATTR_MTIME_NOW)
    if (killPrivileges && this.session.has('HANDLE_KILLPRIV_V2')) valid |= abi.FATTR_KILL_SUIDGID
    if (file) {
      valid |= abi.FATTR_FH
      this.#putFh(view, ARGS + field.fh, file)
    }
    view.setUint32(ARGS + field.valid, valid, true)
    return this.#send(Op.SETATTR, node, ARGS + field.SIZE, decodeAttrOut, { first: node, second: file, signal })
  }

  #put(view: DataView, at: number, value: number, flag: number): number {
    view.setUint32(ARGS + at, value, true)
    return flag
  }

  #putTime(view: DataView, time: Time | 'now' | undefined, secAt: number, nsecAt: number, flag: number, nowFlag: number): number {
    if (time === undefined) return 0
    if (time === 'now') return flag | nowFlag
    view.setBigInt64(ARGS + secAt, BigInt(time.sec), true)
    view.setUint32(ARGS + nsecAt, time.nsec, true)
    return flag
  }

  /** The target of a symbolic link, as bytes. */
  readlink(node: Node, signal?: AbortSignal): Promise<Buffer | number> {
    return this.#send(Op.READLINK, node, ARGS, payload, { first: node, signal })
  }

  symlink(directory: Node, name: string, target: string): Promise<EntryReply | number> {
    return this.#named(Op.SYMLINK, directory, 0, [name, target], decodeEntry)
  }

  mknod(directory: Node, name: string, mode: number, rdev: number, umask: number): Promise<EntryReply | number> {
    const view = this.#args(abi.FuseMknodIn.SIZE)
    view.setUint32(ARGS + abi.FuseMknodIn.mode, mode, true)
    view.setUint32(ARGS + abi.FuseMknodIn.rdev, rdev, true)
    view.setUint32(ARGS + abi.FuseMknodIn.umask, umask, true)
    return this.#named(Op.MKNOD, directory, abi.FuseMknodIn.SIZE, [name], decodeEntry)
  }

  mkdir(directory: Node, name: string, mode: number, umask: number): Promise<EntryReply | number> {
    const view = this.#args(abi.FuseMkdirIn.SIZE)
    view.setUint32(ARGS + abi.FuseMkdirIn.mode, mode, true)
    view.setUint32(ARGS + abi.FuseMkdirIn.umask, umask, true)
    return this.#named(Op.MKDIR, directory, abi.FuseMkdirIn.SIZE, [name], decodeEntry)
  }

  unlink(directory: Node, name: string): Promise<number> {
    return this.#named(Op.UNLINK, directory, 0, [name], done)
  }

  rmdir(directory: Node, name: string): Promise<number> {
    return this.#named(Op.RMDIR, directory, 0, [name], done)
  }

  rename(directory: Node, name: string, newDirectory: Node, newName: string, flags: number): Promise<number> {
    const options = { first: directory, second: newDirectory }
    const putNewDirectory = (view: DataView): void => {
      view.setUint32(ARGS + abi.FuseRename2In.newdir, newDirectory.nodeidLow, true)
      view.setUint32(ARGS + abi.FuseRename2In.newdir + 4, newDirectory.nodeidHigh, true)
    }
    if (flags === 0) {
      putNewDirectory(this.#args(abi.FuseRenameIn.SIZE))
      return this.#named(Op.RENAME, directory, abi.FuseRenameIn.SIZE, [name, newName], done, options)
    }
    return this.#known(Op.RENAME2, -errno.EINVAL, () => {
      const view = this.#args(abi.FuseRename2In.SIZE)
      putNewDirectory(view)
      view.setUint32(ARGS + abi.FuseRename2In.flags, flags, true)
      return this.#named(Op.RENAME2, directory, abi.FuseRename2In.SIZE, [name, newName], done, options)
    })
  }

  link(node: Node, newDirectory: Node, newName: string): Promise<EntryReply | number> {
    return this.#known(Op.LINK, -errno.EPERM, () => {
      const view = this.#args(abi.FuseLinkIn.SIZE)
      view.setUint32(ARGS + abi.FuseLinkIn.oldnodeid, node.nodeidLow, true)
      view.setUint32(ARGS + abi.FuseLinkIn.oldnodeid + 4, node.nodeidHigh, true)
      return this.#named(Op.LINK, newDirectory, abi.FuseLinkIn.SIZE, [newName], decodeEntry, { first: newDirectory, second: node })
    })
  }

  /** OPEN or OPENDIR. @param flags of open(2) that concern the device */
  open(node: Node, flags: number, killPrivileges: boolean, signal?: AbortSignal): Promise<Opened | number> {
    const opcode = node.isDirectory ? Op.OPENDIR : Op.OPEN
    if (this.#unknown.has(opcode)) return Promise.resolve(NO_HANDLE)
    const view = this.#args(abi.FuseOpenIn.SIZE)
    view.setUint32(ARGS + abi.FuseOpenIn.flags, flags, true)
    if (killPrivileges && this.session.has('HANDLE_KILLPRIV_V2')) view.setUint32(ARGS + abi.FuseOpenIn.open_flags, abi.FUSE_OPEN_KILL_SUIDGID, true)
    const sent = this.#send(opcode, node, ARGS + abi.FuseOpenIn.SIZE, decodeOpened, { first: node, signal })
    return sent.then(opened => {
      if (opened !== -errno.ENOSYS) return opened
      this.#unknown.add(opcode)
      return NO_HANDLE
    })
  }

  /** @returns −ENOSYS when the device has no CREATE */
  create(directory: Node, name: string, flags: number, mode: number, umask: number, killPrivileges: boolean, signal?: AbortSignal): Promise<Created | number> {
    return this.#create(Op.CREATE, directory, name, flags, mode, umask, killPrivileges, signal)
  }

  /** @returns −EOPNOTSUPP when the device has no TMPFILE */
  tmpfile(directory: Node, flags: number, mode: number, umask: number): Promise<Created | number> {
    return this.#known(Op.TMPFILE, -errno.EOPNOTSUPP, () => this.#create(Op.TMPFILE, directory, '/', flags, mode, umask, false))
  }

  #create(opcode: number, directory: Node, name: string, flags: number, mode: number, umask: number, killPrivileges: boolean, signal?: AbortSignal): Promise<Created | number> {
    if (opcode === Op.CREATE && this.#unknown.has(opcode)) return Promise.resolve(-errno.ENOSYS)
    const view = this.#args(abi.FuseCreateIn.SIZE)
    view.setUint32(ARGS + abi.FuseCreateIn.flags, flags, true)
    view.setUint32(ARGS + abi.FuseCreateIn.mode, mode, true)
    view.setUint32(ARGS + abi.FuseCreateIn.umask, umask, true)
    if (killPrivileges && this.session.has('HANDLE_KILLPRIV_V2')) view.setUint32(ARGS + abi.FuseCreateIn.open_flags, abi.FUSE_OPEN_KILL_SUIDGID, true)
    return this.#named(opcode, directory, abi.FuseCreateIn.SIZE, [name], decodeCreated, { first: directory, signal }).then(created => {
      if (created === -errno.ENOSYS) this.#unknown.add(opcode)
      return created
    })
  }

  /** Reads into `target`, at most its length and one READ. @returns bytes, fewer at the end of the file */
  read(file: OpenFile, target: Uint8Array, offset: number, signal?: AbortSignal): Promise<number> {
    const view = this.#args(abi.FuseReadIn.SIZE)
    this.#putFh(view, ARGS + abi.FuseReadIn.fh, file)
    setU64(view, ARGS + abi.FuseReadIn.offset, offset)
    view.setUint32(ARGS + abi.FuseReadIn.size, target.length, true)
    view.setUint32(ARGS + abi.FuseReadIn.flags, file.flags, true)
    return this.#send(Op.READ, file.node, ARGS + abi.FuseReadIn.SIZE, intoTarget, { first: file.node, second: file, target, signal })
  }

  /** Writes `data`, at most one WRITE. @param copied when `data` may be changed @returns bytes */
  write(file: OpenFile, data: Uint8Array, offset: number, killPrivileges: boolean, signal?: AbortSignal, copied?: () => void): Promise<number> {
    const view = this.#args(abi.FuseWriteIn.SIZE)
    this.#putFh(view, ARGS + abi.FuseWriteIn.fh, file)
    setU64(view, ARGS + abi.FuseWriteIn.offset, offset)
    view.setUint32(ARGS + abi.FuseWriteIn.size, data.length, true)
    view.setUint32(ARGS + abi.FuseWriteIn.flags, file.flags, true)
    if (killPrivileges) view.setUint32(ARGS + abi.FuseWriteIn.write_flags, abi.FUSE_WRITE_KILL_SUIDGID, true)
    return this.#send(Op.WRITE, file.node, ARGS + abi.FuseWriteIn.SIZE, writtenBytes, { first: file.node, second: file, payload: data, signal, copied })
  }

  /** FLUSH: reports errors of what was written. */
  flush(file: OpenFile): Promise<number> {
    return this.#known(Op.FLUSH, 0, () => {
      const view = this.#args(abi.FuseFlushIn.SIZE)
      this.#putFh(view, ARGS + abi.FuseFlushIn.fh, file)
      return this.#send(Op.FLUSH, file.node, ARGS + abi.FuseFlushIn.SIZE, done, { first: file.node, second: file })
    })
  }

  /** RELEASE or RELEASEDIR, which nobody waits for. */
  release(file: OpenFile): void {
    const opcode = file.node.isDirectory ? Op.RELEASEDIR : Op.RELEASE
    if (this.#unknown.has(file.node.isDirectory ? Op.OPENDIR : Op.OPEN)) return
    const view = this.#args(abi.FuseReleaseIn.SIZE)
    this.#putFh(view, ARGS + abi.FuseReleaseIn.fh, file)
    view.setUint32(ARGS + abi.FuseReleaseIn.flags, file.flags, true)
    this.#engine.sendBackground(opcode, file.node.nodeidLow, file.node.nodeidHigh, abi.FuseReleaseIn.SIZE, file.node)
  }

  fsync(file: OpenFile, dataOnly: boolean, signal?: AbortSignal): Promise<number> {
    const opcode = file.node.isDirectory ? Op.FSYNCDIR : Op.FSYNC
    return this.#known(opcode, 0, () => {
      const view = this.#args(abi.FuseFsyncIn.SIZE)
      this.#putFh(view, ARGS + abi.FuseFsyncIn.fh, file)
      view.setUint32(ARGS + abi.FuseFsyncIn.fsync_flags, dataOnly ? abi.FUSE_FSYNC_FDATASYNC : 0, true)
      return this.#send(opcode, file.node, ARGS + abi.FuseFsyncIn.SIZE, done, { first: file.node, second: file, signal })
    })
  }

  statfs(node: Node, signal?: AbortSignal): Promise<FileSystemStatistics | number> {
    return this.#send(Op.STATFS, node, ARGS, ({ region, at }) => decodeStatfs(region.view, at), { first: node, signal })
  }

  syncfs(node: Node): Promise<number> {
    return this.#known(Op.SYNCFS, 0, () => {
      this.#args(abi.FuseSyncfsIn.SIZE)
      return this.#send(Op.SYNCFS, node, ARGS + abi.FuseSyncfsIn.SIZE, done)
    })
  }

  access(node: Node, mask: number): Promise<number> {
    return this.#known(Op.ACCESS, 0, () => {
      this.#args(abi.FuseAccessIn.SIZE).setUint32(ARGS + abi.FuseAccessIn.mask, mask, true)
      return this.#send(Op.ACCESS, node, ARGS + abi.FuseAccessIn.SIZE, done)
    })
  }

  /** One READDIR or READDIRPLUS. @param offset two words, of the entry before @param decode of its payload */
  readdir<T>(file: OpenFile, plus: boolean, offsetLow: number, offsetHigh: number, bytes: number, decode: Decode<T>, signal?: AbortSignal): Promise<T | number> {
    const view = this.#args(abi.FuseReadIn.SIZE)
    this.#putFh(view, ARGS + abi.FuseReadIn.fh, file)
    view.setUint32(ARGS + abi.FuseReadIn.offset, offsetLow, true)
    view.setUint32(ARGS + abi.FuseReadIn.offset + 4, offsetHigh, true)
    view.setUint32(ARGS + abi.FuseReadIn.size, bytes, true)
    return this.#send(plus ? Op.READDIRPLUS : Op.READDIR, file.node, ARGS + abi.FuseReadIn.SIZE, decode, { first: file.node, second: file, signal })
  }

  /** The value of an extended attribute. @returns −EOPNOTSUPP when the device has none at all */
  getxattr(node: Node, name: string): Promise<Buffer | number> {
    return this.#known(Op.GETXATTR, -errno.EOPNOTSUPP, () => {
      this.#args(abi.FuseGetxattrIn.SIZE).setUint32(ARGS + abi.FuseGetxattrIn.size, XATTR_MAX, true)
      return this.#named(Op.GETXATTR, node, abi.FuseGetxattrIn.SIZE, [name], payload)
    })
  }

  /** Names, each with its NUL. */
  listxattr(node: Node): Promise<Buffer | number> {
    return this.#known(Op.LISTXATTR, -errno.EOPNOTSUPP, () => {
      this.#args(abi.FuseGetxattrIn.SIZE).setUint32(ARGS + abi.FuseGetxattrIn.size, XATTR_MAX, true)
      return this.#send(Op.LISTXATTR, node, ARGS + abi.FuseGetxattrIn.SIZE, payload)
    })
  }

  setxattr(node: Node, name: string, value: Uint8Array, flags: number): Promise<number> {
    return this.#known(Op.SETXATTR, -errno.EOPNOTSUPP, () => {
      const view = this.#args(abi.FUSE_COMPAT_SETXATTR_IN_SIZE)
      view.setUint32(ARGS + abi.FuseSetxattrIn.size, value.length, true)
      view.setUint32(ARGS + abi.FuseSetxattrIn.flags, flags, true)
      return this.#named(Op.SETXATTR, node, abi.FUSE_COMPAT_SETXATTR_IN_SIZE, [name], done, { first: node, payload: value.length === 0 ? undefined : value })
    })
  }

  removexattr(node: Node, name: string): Promise<number> {
    return this.#known(Op.REMOVEXATTR, -errno.EOPNOTSUPP, () => this.#named(Op.REMOVEXATTR, node, 0, [name], done))
  }

  fallocate(file: OpenFile, mode: number, offset: number, length: number, signal?: AbortSignal): Promise<number> {
    return this.#known(Op.FALLOCATE, -errno.EOPNOTSUPP, () => {
      const view = this.#args(abi.FuseFallocateIn.SIZE)
      this.#putFh(view, ARGS + abi.FuseFallocateIn.fh, file)
      setU64(view, ARGS + abi.FuseFallocateIn.offset, offset)
      setU64(view, ARGS + abi.FuseFallocateIn.length, length)
      view.setUint32(ARGS + abi.FuseFallocateIn.mode, mode, true)
      return this.#send(Op.FALLOCATE, file.node, ARGS + abi.FuseFallocateIn.SIZE, done, { first: file.node, second: file, signal })
    })
  }

  /** @returns the offset, or −ENOSYS */
  lseek(file: OpenFile, offset: number, whence: number): Promise<number> {
    return this.#known(Op.LSEEK, -errno.ENOSYS, () => {
      const view = this.#args(abi.FuseLseekIn.SIZE)
      this.#putFh(view, ARGS + abi.FuseLseekIn.fh, file)
      setU64(view, ARGS + abi.FuseLseekIn.offset, offset)
      view.setUint32(ARGS + abi.FuseLseekIn.whence, whence, true)
      return this.#send(Op.LSEEK, file.node, ARGS + abi.FuseLseekIn.SIZE, ({ region, at }) => Number(exactU64(region.view, at)), { first: file.node, second: file })
    })
  }

  /** @returns bytes copied, or −EOPNOTSUPP when the device has no COPY_FILE_RANGE */
  copyFileRange(from: OpenFile, fromOffset: number, to: OpenFile, toOffset: number, length: number, signal?: AbortSignal): Promise<number> {
    return this.#known(Op.COPY_FILE_RANGE, -errno.EOPNOTSUPP, () => {
      const view = this.#args(abi.FuseCopyFileRangeIn.SIZE)
      const field = abi.FuseCopyFileRangeIn
      this.#putFh(view, ARGS + field.fh_in, from)
      setU64(view, ARGS + field.off_in, fromOffset)
      view.setUint32(ARGS + field.nodeid_out, to.node.nodeidLow, true)
      view.setUint32(ARGS + field.nodeid_out + 4, to.node.nodeidHigh, true)
      this.#putFh(view, ARGS + field.fh_out, to)
      setU64(view, ARGS + field.off_out, toOffset)
      setU64(view, ARGS + field.len, length)
      return this.#send(Op.COPY_FILE_RANGE, from.node, ARGS + field.SIZE, writtenBytes, { first: from, second: to, signal })
    })
  }
}

/** Of a device that needs no OPEN. */
const NO_HANDLE: Opened = { fhLow: 0, fhHigh: 0, openFlags: abi.FOPEN_KEEP_CACHE }

function intoTarget({ region, payloadAt, payloadBytes }: ReplyPlace, { target }: { target: Uint8Array | undefined }): number {
  // whoever gave the buffer may have transferred it away meanwhile
  if (target!.length < payloadBytes) return -errno.EFAULT
  target!.set(region.bytes.subarray(payloadAt, payloadAt + payloadBytes))
  return payloadBytes
}

const writtenBytes: Decode<number> = ({ region, at }) => region.view.getUint32(at + abi.FuseWriteOut.size, true)
