/**
 * Speaks FUSE to an implementation of `Handlers` directly: no device, no queue, no kernel. What
 * the kernel would have decided, the caller of a method decides.
 */
import * as abi from '../../lib/fuse/abi.js'
import { Op } from '../../lib/fuse/opcodes.js'
import type { DeviceRequest, Handlers } from '../../lib/device/handlers.js'
import { mapAnonymous, unmap, viewRegion, type Region } from '../../lib/sys/memory.js'

const ARGS_BYTES = 80 * 1024
/** Most in one BATCH_FORGET. */
const FORGETS = 4000
const PAYLOAD_BYTES = 1 << 20
const REPLY_BYTES = 1 << 20
const IOV_AT = ARGS_BYTES
const PAYLOAD_AT = IOV_AT + 4096
const REPLY_AT = PAYLOAD_AT + PAYLOAD_BYTES
const BYTES = REPLY_AT + REPLY_BYTES

/** 7.45 with every flag on. */
const ALL_FLAGS = (1n << 42n) - 1n & ~(1n << 31n)

export interface Reply {
  /** 0 or −errno. */
  error: number
  view: DataView
  bytes: Buffer
}

export interface Attr {
  ino: bigint, size: bigint, blocks: bigint, atime: bigint, mtime: bigint, ctime: bigint, atimensec: number, mtimensec: number, ctimensec: number
  mode: number, nlink: number, uid: number, gid: number, rdev: number, blksize: number
}

export interface Entry { error: number, nodeid: bigint, attr: Attr, entryValid: bigint }
export interface Opened { error: number, fh: bigint, openFlags: number }
export interface Dirent { ino: bigint, off: bigint, name: Buffer, type: number, nodeid: bigint, attr: Attr | undefined }

export type Name = string | Buffer

function readAttr(view: DataView, at: number): Attr {
  const u64 = (k: number): bigint => view.getBigInt64(at + k, true)
  const u32 = (k: number): number => view.getUint32(at + k, true)
  const a = abi.FuseAttr
  return {
    ino: u64(a.ino), size: u64(a.size), blocks: u64(a.blocks), atime: u64(a.atime), mtime: u64(a.mtime), ctime: u64(a.ctime),
    atimensec: u32(a.atimensec), mtimensec: u32(a.mtimensec), ctimensec: u32(a.ctimensec),
    mode: u32(a.mode), nlink: u32(a.nlink), uid: u32(a.uid), gid: u32(a.gid), rdev: u32(a.rdev), blksize: u32(a.blksize),
  }
}

/** NUL-terminated names behind the arguments. */
function names(...list: Name[]): Buffer {
  return Buffer.concat(list.flatMap(name => [Buffer.from(name), Buffer.from([0])]))
}

export class FuseClient {
  readonly #handlers: Handlers
  readonly #address = mapAnonymous(BYTES)
  readonly #memory: Region
  readonly #request: DeviceRequest
  uid = 0
  gid = 0
  pid = process.pid
  mayBlock = true
  /** Sent as FUSE_EXT_GROUPS when set. */
  groups: number[] | undefined
  /** Sent behind the arguments as they are, when set. */
  extensions: Buffer | undefined
  /** Lookups this client holds, by node id. */
  readonly lookups = new Map<bigint, number>()

  constructor(handlers: Handlers) {
    this.#handlers = handlers
    this.#memory = viewRegion(this.#address, BYTES)
    const { view } = this.#memory
    this.#request = {
      opcode: 0, lengthBytes: 0, uniqueLow: 0, uniqueHigh: 0, nodeid: 0, uid: 0, gid: 0, mayBlock: true, pid: 0, extensionBytes: 0,
      args: view, argsAt: 0, argsAddress: this.#address, argsBytes: 0,
      payloadIov: this.#address + IOV_AT, payloadIovCount: 0, payloadBytes: 0,
      reply: view, replyAt: REPLY_AT, replyAddress: this.#address + REPLY_AT, replyBytes: 0, replyIov: this.#address + IOV_AT + 64, replyIovCount: 1,
    }
  }

  close(): void {
    this.#handlers.close()
    unmap(this.#address, BYTES)
  }

  #iov(at: number, address: number, lengthBytes: number): void {
    this.#memory.view.setBigUint64(at, BigInt(address), true)
    this.#memory.view.setBigUint64(at + 8, BigInt(lengthBytes), true)
  }

  /** Sends any request. @param args arguments and names, without extensions */
  call(opcode: number, nodeid: bigint, args: Buffer, options: { room?: number, payload?: Buffer } = {}): Reply {
    const { bytes, view } = this.#memory
    const r = this.#request
    let all = args
    if (this.extensions) {
      all = Buffer.concat([args, this.extensions])
      r.extensionBytes = this.extensions.length
    } else if (this.groups) {
      const padded = Buffer.alloc((args.length + 7 & ~7) - args.length)
      const ext = Buffer.alloc(16 + (this.groups.length * 4 + 7 & ~7))
      ext.writeUInt32LE(ext.length, 0)
      ext.writeUInt32LE(abi.FUSE_EXT_GROUPS, 4)
      ext.writeUInt32LE(this.groups.length, 8)
      this.groups.forEach((gid, i) => ext.writeUInt32LE(gid, 12 + i * 4))
      all = Buffer.concat([args, padded, ext])
      r.extensionBytes = ext.length
    } else {
      r.extensionBytes = 0
    }
    bytes.set(all, 0)
    bytes.fill(0xaa, REPLY_AT, REPLY_AT + 512)
    r.opcode = opcode
    r.nodeid = Number(nodeid)
    r.uid = this.uid
    r.gid = this.gid
    r.pid = this.pid
    r.mayBlock = this.mayBlock
    r.argsBytes = all.length
    r.lengthBytes = abi.FuseInHeader.SIZE + all.length
    r.replyBytes = options.room ?? 4096
    this.#iov(IOV_AT + 64, this.#address + REPLY_AT, r.replyBytes)
    if (options.payload) {
      bytes.set(options.payload, PAYLOAD_AT)
      this.#iov(IOV_AT, this.#address + PAYLOAD_AT, options.payload.length)
      r.payloadIovCount = 1
      r.payloadBytes = options.payload.length
    }
    const done = this.#handlers.handle(r)
    const length = Math.max(0, done)
    return { error: Math.min(0, done), view: new DataView(view.buffer, REPLY_AT, length), bytes: Buffer.from(bytes.slice(REPLY_AT, REPLY_AT + length)) }
  }

  init(flags = ALL_FLAGS, minor: number = abi.FUSE_KERNEL_MINOR_VERSION): { error: number, minor: number, flags: bigint, maxWrite: number, maxPages: number } {
    const args = Buffer.alloc(abi.FuseInitIn.SIZE)
    args.writeUInt32LE(7, abi.FuseInitIn.major)
    args.writeUInt32LE(minor, abi.FuseInitIn.minor)
    args.writeUInt32LE(131072, abi.FuseInitIn.max_readahead)
    args.writeUInt32LE(Number(flags & 0xffff_ffffn), abi.FuseInitIn.flags)
    args.writeUInt32LE(Number(flags >> 32n), abi.FuseInitIn.flags2)
    const { error, bytes } = this.call(Op.INIT, 0n, args)
    if (error !== 0) return { error, minor: 0, flags: 0n, maxWrite: 0, maxPages: 0 }
    return {
      error, minor: bytes.readUInt32LE(abi.FuseInitOut.minor),
      flags: BigInt(bytes.readUInt32LE(abi.FuseInitOut.flags)) | BigInt(bytes.readUInt32LE(abi.FuseInitOut.flags2)) << 32n,
      maxWrite: bytes.readUInt32LE(abi.FuseInitOut.max_write), maxPages: bytes.readUInt16LE(abi.FuseInitOut.max_pages),
    }
  }

  #count(nodeid: bigint): void {
    if (nodeid !== 0n) this.lookups.set(nodeid, (this.lookups.get(nodeid) ?? 0) + 1)
  }

  #entry(reply: Reply): Entry {
    if (reply.error !== 0) return { error: reply.error, nodeid: 0n, attr: undefined as never, entryValid: 0n }
    const nodeid = reply.view.getBigUint64(abi.FuseEntryOut.nodeid, true)
    this.#count(nodeid)
    return { error: 0, nodeid, attr: readAttr(reply.view, abi.FuseEntryOut.attr), entryValid: reply.view.getBigUint64(abi.FuseEntryOut.entry_valid, true) }
  }

  #opened(reply: Reply, at = 0): Opened {
    if (reply.error !== 0) return { error: reply.error, fh: 0n, openFlags: 0 }
    return { error: 0, fh: reply.view.getBigUint64(at + abi.FuseOpenOut.fh, true), openFlags: reply.view.getUint32(at + abi.FuseOpenOut.open_flags, true) }
  }

  lookup(parent: bigint, name: Name): Entry {
    return this.#entry(this.call(Op.LOOKUP, parent, names(name)))
  }

  /** Looks a path up from the root, component by component. */
  walk(path: string): Entry {
    let entry: Entry = { error: 0, nodeid: 1n, attr: undefined as never, entryValid: 0n }
    for (const name of path.split('/')) {
      entry = this.lookup(entry.nodeid, name)
      if (entry.error !== 0) break
    }
    return entry
  }

  forget(nodeid: bigint, count: number): void {
    const args = Buffer.alloc(8)
    args.writeBigUInt64LE(BigInt(count))
    this.call(Op.FORGET, nodeid, args)
    const left = (this.lookups.get(nodeid) ?? 0) - count
    if (left > 0) this.lookups.set(nodeid, left)
    else this.lookups.delete(nodeid)
  }

  batchForget(list: [nodeid: bigint, count: number][]): void {
    for (let start = 0; start < list.length; start += FORGETS) {
      const part = list.slice(start, start + FORGETS)
      const args = Buffer.alloc(8 + part.length * 16)
      args.writeUInt32LE(part.length, 0)
      part.forEach(([nodeid, count], i) => {
        args.writeBigUInt64LE(nodeid, 8 + i * 16)
        args.writeBigUInt64LE(BigInt(count), 16 + i * 16)
        this.lookups.delete(nodeid)
      })
      this.call(Op.BATCH_FORGET, 0n, args)
    }
  }

  /** Gives back every lookup this client was given. */
  forgetAll(): void {
    this.batchForget([...this.lookups])
  }

  getattr(nodeid: bigint, fh?: bigint): { error: number, attr: Attr, valid: bigint } {
    const args = Buffer.alloc(16)
    if (fh !== undefined) {
      args.writeUInt32LE(abi.FUSE_GETATTR_FH, 0)
      args.writeBigUInt64LE(fh, 8)
    }
    return this.#attr(this.call(Op.GETATTR, nodeid, args))
  }

  #attr(reply: Reply): { error: number, attr: Attr, valid: bigint } {
    if (reply.error !== 0) return { error: reply.error, attr: undefined as never, valid: 0n }
    return { error: 0, attr: readAttr(reply.view, abi.FuseAttrOut.attr), valid: reply.view.getBigUint64(0, true) }
  }

  setattr(nodeid: bigint, valid: number, fields: { fh?: bigint, size?: bigint, atime?: bigint, atimensec?: number, mtime?: bigint, mtimensec?: number, mode?: number, uid?: number, gid?: number }): { error: number, attr: Attr } {
    const s = abi.FuseSetattrIn
    const args = Buffer.alloc(s.SIZE)
    args.writeUInt32LE(fields.fh === undefined ? valid : valid | abi.FATTR_FH, s.valid)
    args.writeBigUInt64LE(fields.fh ?? 0n, s.fh)
    args.writeBigInt64LE(fields.size ?? 0n, s.size)
    args.writeBigInt64LE(fields.atime ?? 0n, s.atime)
    args.writeBigInt64LE(fields.mtime ?? 0n, s.mtime)
    args.writeUInt32LE(fields.atimensec ?? 0, s.atimensec)
    args.writeUInt32LE(fields.mtimensec ?? 0, s.mtimensec)
    args.writeUInt32LE(fields.mode ?? 0, s.mode)
    args.writeUInt32LE(fields.uid ?? 0, s.uid)
    args.writeUInt32LE(fields.gid ?? 0, s.gid)
    return this.#attr(this.call(Op.SETATTR, nodeid, args))
  }

  #u32s(...values: number[]): Buffer {
    const args = Buffer.alloc(values.length * 4)
    values.forEach((value, i) => args.writeUInt32LE(value >>> 0, i * 4))
    return args
  }

  mkdir(parent: bigint, name: Name, mode = 0o755, umask = 0): Entry {
    return this.#entry(this.call(Op.MKDIR, parent, Buffer.concat([this.#u32s(mode, umask), names(name)])))
  }

  mknod(parent: bigint, name: Name, mode: number, rdev = 0): Entry {
    return this.#entry(this.call(Op.MKNOD, parent, Buffer.concat([this.#u32s(mode, rdev, 0, 0), names(name)])))
  }

  symlink(parent: bigint, name: Name, target: Name): Entry {
    return this.#entry(this.call(Op.SYMLINK, parent, names(name, target)))
  }

  readlink(nodeid: bigint): { error: number, target: string } {
    const { error, bytes } = this.call(Op.READLINK, nodeid, Buffer.alloc(0))
    return { error, target: bytes.toString() }
  }

  link(nodeid: bigint, parent: bigint, name: Name): Entry {
    const args = Buffer.alloc(8)
    args.writeBigUInt64LE(nodeid)
    return this.#entry(this.call(Op.LINK, parent, Buffer.concat([args, names(name)])))
  }

  unlink(parent: bigint, name: Name): number {
    return this.call(Op.UNLINK, parent, names(name)).error
  }

  rmdir(parent: bigint, name: Name): number {
    return this.call(Op.RMDIR, parent, names(name)).error
  }

  rename(parent: bigint, name: Name, newParent: bigint, newName: Name): number {
    const args = Buffer.alloc(8)
    args.writeBigUInt64LE(newParent)
    return this.call(Op.RENAME, parent, Buffer.concat([args, names(name, newName)])).error
  }

  rename2(parent: bigint, name: Name, newParent: bigint, newName: Name, flags: number): number {
    const args = Buffer.alloc(16)
    args.writeBigUInt64LE(newParent)
    args.writeUInt32LE(flags, 8)
    return this.call(Op.RENAME2, parent, Buffer.concat([args, names(name, newName)])).error
  }

  create(parent: bigint, name: Name, flags: number, mode = 0o644, umask = 0): Entry & Opened {
    return this.#created(this.call(Op.CREATE, parent, Buffer.concat([this.#u32s(flags, mode, umask, 0), names(name)])))
  }

  tmpfile(parent: bigint, flags: number, mode = 0o600): Entry & Opened {
    return this.#created(this.call(Op.TMPFILE, parent, Buffer.concat([this.#u32s(flags, mode, 0, 0), names('/')])))
  }

  #created(reply: Reply): Entry & Opened {
    return { ...this.#entry(reply), ...this.#opened(reply, abi.FuseEntryOut.SIZE) }
  }

  open(nodeid: bigint, flags: number, openFlags = 0): Opened {
    return this.#opened(this.call(Op.OPEN, nodeid, this.#u32s(flags, openFlags)))
  }

  opendir(nodeid: bigint): Opened {
    return this.#opened(this.call(Op.OPENDIR, nodeid, this.#u32s(0, 0)))
  }

  #readIn(fh: bigint, offset: bigint, size: number, flags = 0): Buffer {
    const args = Buffer.alloc(abi.FuseReadIn.SIZE)
    args.writeBigUInt64LE(fh, abi.FuseReadIn.fh)
    args.writeBigInt64LE(offset, abi.FuseReadIn.offset)
    args.writeUInt32LE(size, abi.FuseReadIn.size)
    args.writeUInt32LE(flags, abi.FuseReadIn.flags)
    return args
  }

  read(nodeid: bigint, fh: bigint, offset: bigint, size: number): { error: number, data: Buffer } {
    const { error, bytes } = this.call(Op.READ, nodeid, this.#readIn(fh, offset, size), { room: size })
    return { error, data: bytes }
  }

  /** @returns bytes written, or −errno */
  write(nodeid: bigint, fh: bigint, offset: bigint, data: Buffer, flags = 0, writeFlags = 0): number {
    const args = this.#readIn(fh, offset, data.length, flags)
    args.writeUInt32LE(writeFlags, abi.FuseWriteIn.write_flags)
    const { error, bytes } = this.call(Op.WRITE, nodeid, args, { payload: data })
    return error < 0 ? error : bytes.readUInt32LE(0)
  }

  #handleArgs(sizeBytes: number, fh: bigint): Buffer {
    const args = Buffer.alloc(sizeBytes)
    args.writeBigUInt64LE(fh)
    return args
  }

  release(nodeid: bigint, fh: bigint): number {
    return this.call(Op.RELEASE, nodeid, this.#handleArgs(24, fh)).error
  }

  releasedir(nodeid: bigint, fh: bigint): number {
    return this.call(Op.RELEASEDIR, nodeid, this.#handleArgs(24, fh)).error
  }

  flush(nodeid: bigint, fh: bigint): number {
    return this.call(Op.FLUSH, nodeid, this.#handleArgs(24, fh)).error
  }

  fsync(nodeid: bigint, fh: bigint, flags = 0): number {
    const args = this.#handleArgs(16, fh)
    args.writeUInt32LE(flags, 8)
    return this.call(Op.FSYNC, nodeid, args).error
  }

  fallocate(nodeid: bigint, fh: bigint, offset: bigint, length: bigint, mode: number): number {
    const args = this.#handleArgs(32, fh)
    args.writeBigUInt64LE(offset, 8)
    args.writeBigUInt64LE(length, 16)
    args.writeUInt32LE(mode, 24)
    return this.call(Op.FALLOCATE, nodeid, args).error
  }

  lseek(nodeid: bigint, fh: bigint, offset: bigint, whence: number): { error: number, offset: bigint } {
    const args = this.#handleArgs(24, fh)
    args.writeBigUInt64LE(offset, 8)
    args.writeUInt32LE(whence, 16)
    const { error, bytes } = this.call(Op.LSEEK, nodeid, args)
    return { error, offset: error < 0 ? -1n : bytes.readBigUInt64LE(0) }
  }

  /** @returns bytes copied, or −errno */
  copyFileRange(from: [nodeid: bigint, fh: bigint, offset: bigint], to: [nodeid: bigint, fh: bigint, offset: bigint], length: bigint, opcode: number = Op.COPY_FILE_RANGE): number {
    const args = this.#handleArgs(56, from[1])
    args.writeBigUInt64LE(from[2], 8)
    args.writeBigUInt64LE(to[0], 16)
    args.writeBigUInt64LE(to[1], 24)
    args.writeBigUInt64LE(to[2], 32)
    args.writeBigUInt64LE(length, 40)
    const { error, bytes } = this.call(opcode, from[0], args)
    return error < 0 ? error : bytes.readUInt32LE(0)
  }

  /** One READDIR or READDIRPLUS. */
  readdir(nodeid: bigint, fh: bigint, offset: bigint, size: number, plus = false): { error: number, entries: Dirent[] } {
    const { error, view, bytes } = this.call(plus ? Op.READDIRPLUS : Op.READDIR, nodeid, this.#readIn(fh, offset, size), { room: size })
    const entries: Dirent[] = []
    for (let at = 0; at < bytes.length;) {
      const start = at
      let id = 0n
      let attr: Attr | undefined
      if (plus) {
        id = view.getBigUint64(at, true)
        this.#count(id)
        attr = readAttr(view, at + abi.FuseEntryOut.attr)
        at += abi.FuseEntryOut.SIZE
      }
      const nameBytes = view.getUint32(at + abi.FuseDirent.namelen, true)
      const name = Buffer.from(bytes.subarray(at + abi.FuseDirent.SIZE, at + abi.FuseDirent.SIZE + nameBytes))
      entries.push({ ino: view.getBigUint64(at, true), off: view.getBigUint64(at + abi.FuseDirent.off, true), name, type: view.getUint32(at + abi.FuseDirent.type, true), nodeid: id, attr })
      at = start + abi.direntSize(plus ? abi.FuseDirentplus.SIZE : abi.FuseDirent.SIZE, nameBytes)
    }
    return { error, entries }
  }

  /** All entries of a directory. */
  list(nodeid: bigint, plus = false, size = 4096): Dirent[] {
    const { fh, error } = this.opendir(nodeid)
    if (error !== 0) throw new Error(`opendir: ${error}`)
    const all: Dirent[] = []
    for (let offset = 0n; ;) {
      const { entries, error } = this.readdir(nodeid, fh, offset, size, plus)
      if (error !== 0) throw new Error(`readdir: ${error}`)
      if (entries.length === 0) break
      all.push(...entries)
      offset = entries.at(-1)!.off
    }
    this.releasedir(nodeid, fh)
    return all
  }

  setxattr(nodeid: bigint, name: Name, value: Buffer, flags = 0, setxattrFlags = 0): number {
    return this.call(Op.SETXATTR, nodeid, Buffer.concat([this.#u32s(value.length, flags, setxattrFlags, 0), names(name), value])).error
  }

  getxattr(nodeid: bigint, name: Name, size = 4096): { error: number, value: Buffer } {
    const { error, bytes } = this.call(Op.GETXATTR, nodeid, Buffer.concat([this.#u32s(size, 0), names(name)]), { room: Math.max(size, 8) })
    return { error, value: bytes }
  }

  listxattr(nodeid: bigint, size = 4096): { error: number, value: Buffer } {
    const { error, bytes } = this.call(Op.LISTXATTR, nodeid, this.#u32s(size, 0), { room: Math.max(size, 8) })
    return { error, value: bytes }
  }

  removexattr(nodeid: bigint, name: Name): number {
    return this.call(Op.REMOVEXATTR, nodeid, names(name)).error
  }

  access(nodeid: bigint, mask: number): number {
    return this.call(Op.ACCESS, nodeid, this.#u32s(mask, 0)).error
  }

  statfs(nodeid: bigint): Reply {
    return this.call(Op.STATFS, nodeid, Buffer.alloc(0))
  }

  destroy(): void {
    this.call(Op.DESTROY, 0n, Buffer.alloc(0))
    this.lookups.clear()
  }
}
