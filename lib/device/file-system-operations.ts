/**
 * The operations of a served file system, by opcode. Each has two halves, so that between them
 * there may be a promise: arguments into plain values for a method, and what the method returned
 * into the reply.
 */
import { errno } from '../errors.js'
import * as abi from '../fuse/abi.js'
import { Op, OPCODE_LIMIT } from '../fuse/opcodes.js'
import { getU64, setU64 } from '../wire/u64.js'
import { stringToBytes } from './byte-string.js'
import { readdir, readdirplus } from './directory-reply.js'
import type { Answer, Changes, Created, Entry, Opened, Timestamp } from './file-system-values.js'
import { FuseError } from './fuse-error.js'
import { NO_REPLY, type DeviceRequest } from './handlers.js'
import { checkInteger, checkObject, writeAttrOut, writeNegativeEntry, writeOpenOut, writeStatfsOut } from './plain-values.js'
import { readOffset, type ServedSession } from './served-session.js'

export interface Operation {
  /** Reads the arguments and calls the method. @returns what it returned @throws FuseError, and what the method throws */
  call(session: ServedSession, request: DeviceRequest): unknown
  /** Writes the reply. @returns its length in bytes, or NO_REPLY @throws TypeError for a value that makes no sense */
  reply(session: ServedSession, request: DeviceRequest, value: unknown): number
  /** What a failure is answered with instead. @returns bytes of the reply, or −errno */
  failed?(session: ServedSession, request: DeviceRequest, error: number): number
}

function operation<T>(call: (s: ServedSession, r: DeviceRequest) => Answer<T>, reply: (s: ServedSession, r: DeviceRequest, value: T) => number): Operation {
  return { call, reply: reply as Operation['reply'] }
}

/** Of a method that returns nothing. */
function command(call: Operation['call']): Operation {
  return { call, reply: () => 0 }
}

/** Of one that returns an entry. */
function making(call: (s: ServedSession, r: DeviceRequest) => Answer<Entry>): Operation {
  return operation(call, (s, r, entry) => s.reply(r, entry))
}

function silent(call: (s: ServedSession, r: DeviceRequest) => void): Operation {
  return { call, reply: () => NO_REPLY }
}

const PERMISSIONS = 0o7777

const { FuseSetattrIn: SetattrIn, FuseCopyFileRangeIn: CopyIn } = abi

function u32(request: DeviceRequest, offset: number): number {
  return request.args.getUint32(request.argsAt + offset, true)
}

function u64(request: DeviceRequest, offset: number): number {
  return getU64(request.args, request.argsAt + offset)
}

function offset64(request: DeviceRequest, offset: number, tooLarge: 'EFBIG' | 'EOVERFLOW' | 'EINVAL'): number {
  return readOffset(request.args, request.argsAt + offset, tooLarge)
}

const lookup: Operation = {
  ...making((s, r) => s.fs.lookup(r.nodeid, s.text.name(r, 0), s.caller(r))),
  failed: (s, r, error) => error === errno.ENOENT && s.timeouts.negative > 0 ? writeNegativeEntry(r.reply, r.replyAt, s.timeouts.negative) : -error,
}

function batchForget(s: ServedSession, r: DeviceRequest): void {
  const room = Math.floor((r.argsBytes - abi.FuseBatchForgetIn.SIZE) / abi.FuseForgetOne.SIZE)
  const count = Math.min(u32(r, abi.FuseBatchForgetIn.count), room)
  for (let i = 0, at = abi.FuseBatchForgetIn.SIZE; i < count; i++, at += abi.FuseForgetOne.SIZE) {
    s.forget(u64(r, at + abi.FuseForgetOne.nodeid), u64(r, at + abi.FuseForgetOne.nlookup))
  }
}

const getattr = operation((s, r) => {
  const open = (u32(r, abi.FuseGetattrIn.getattr_flags) & abi.FUSE_GETATTR_FH) !== 0
  return s.fs.getattr(r.nodeid, open ? u64(r, abi.FuseGetattrIn.fh) : undefined, s.caller(r))
}, (s, r, attributes) => writeAttrOut(r.reply, r.replyAt, r.nodeid, attributes, s.timeouts))

function readTime(r: DeviceRequest, seconds: number, nanoseconds: number): Timestamp {
  const at = r.argsAt + seconds
  return { seconds: r.args.getInt32(at + 4, true) * 0x1_0000_0000 + r.args.getUint32(at, true), nanoseconds: u32(r, nanoseconds) }
}

/** One clock for all times: where the kernel means "now", the file system's is asked. */
const setattr = operation((s, r) => {
  const valid = u32(r, SetattrIn.valid)
  const changes: { -readonly [K in keyof Changes]: Changes[K] } = {}
  if ((valid & abi.FATTR_MODE) !== 0) changes.mode = u32(r, SetattrIn.mode) & PERMISSIONS
  if ((valid & abi.FATTR_UID) !== 0) changes.uid = u32(r, SetattrIn.uid)
  if ((valid & abi.FATTR_GID) !== 0) changes.gid = u32(r, SetattrIn.gid)
  if ((valid & abi.FATTR_SIZE) !== 0) changes.size = offset64(r, SetattrIn.size, 'EFBIG')
  if ((valid & abi.FATTR_ATIME) !== 0) changes.atime = (valid & abi.FATTR_ATIME_NOW) !== 0 ? s.fs.now() : readTime(r, SetattrIn.atime, SetattrIn.atimensec)
  if ((valid & abi.FATTR_MTIME) !== 0) changes.mtime = (valid & abi.FATTR_MTIME_NOW) !== 0 ? s.fs.now() : readTime(r, SetattrIn.mtime, SetattrIn.mtimensec)
  if ((valid & abi.FATTR_CTIME) !== 0) changes.ctime = readTime(r, SetattrIn.ctime, SetattrIn.ctimensec)
  const handle = (valid & abi.FATTR_FH) !== 0 ? u64(r, SetattrIn.fh) : undefined
  return s.fs.setattr(r.nodeid, changes, handle, s.caller(r))
}, (s, r, attributes) => writeAttrOut(r.reply, r.replyAt, r.nodeid, attributes, s.timeouts))

function replyBytes(r: DeviceRequest, bytes: Uint8Array, room: number): number {
  if (bytes.length > Math.min(room, r.replyBytes)) throw new FuseError('ERANGE')
  new Uint8Array(r.reply.buffer, r.reply.byteOffset + r.replyAt, bytes.length).set(bytes)
  return bytes.length
}

function rename(namesAt: number, flagsOf: (r: DeviceRequest) => number): Operation {
  return command((s, r) => {
    const name = s.text.name(r, namesAt)
    const newName = s.text.name(r, s.text.end)
    // newdir comes first in both structures
    return s.fs.rename(r.nodeid, name, u64(r, abi.FuseRenameIn.newdir), newName, flagsOf(r), s.caller(r))
  })
}

/** CREATE and TMPFILE: fuse_entry_out and fuse_open_out. The lookup counts once both are good. */
function replyCreated(s: ServedSession, r: DeviceRequest, created: Created): number {
  const opened = writeOpenOut(r.reply, r.replyAt + abi.FuseEntryOut.SIZE, created)
  return s.reply(r, created) + opened
}

function replyOpened(_: ServedSession, r: DeviceRequest, opened: Opened): number {
  return writeOpenOut(r.reply, r.replyAt, opened)
}

/** What was read, where it was put. */
function dataOf(got: Uint8Array | number, buffer: Buffer): Uint8Array {
  const data = got instanceof Uint8Array ? got : buffer.subarray(0, checkInteger('what was returned', got, buffer.length))
  checkInteger('length of what was returned', data.length, buffer.length)
  return data
}

const read = operation<Uint8Array>((s, r) => {
  const size = Math.min(u32(r, abi.FuseReadIn.size), r.replyBytes)
  const buffer = s.buffers.room(r.replyIov, r.replyIovCount, size)
  const got = s.fs.read(r.nodeid, u64(r, abi.FuseReadIn.fh), offset64(r, abi.FuseReadIn.offset, 'EOVERFLOW'), size, buffer, s.caller(r))
  return got instanceof Promise ? got.then(value => dataOf(value, buffer)) : dataOf(got, buffer)
}, (s, r, data) => {
  s.buffers.write(r.replyIov, r.replyIovCount, data)
  return data.length
})

const write = operation((s, r) => {
  if (u32(r, abi.FuseWriteIn.size) !== r.payloadBytes) throw new FuseError('EINVAL')
  const data = s.buffers.read(r.payloadIov, r.payloadIovCount)
  return s.fs.write(r.nodeid, u64(r, abi.FuseWriteIn.fh), offset64(r, abi.FuseWriteIn.offset, 'EFBIG'), data, s.caller(r))
}, (_, r, written) => replyCount(r, written, r.payloadBytes))

/** fuse_write_out, and what has a u64 alone. @param most that makes sense */
function replyCount(r: DeviceRequest, count: number, most?: number): number {
  setU64(r.reply, r.replyAt, checkInteger('what was returned', count, most))
  return abi.FuseWriteOut.SIZE
}

/** The size alone when none was asked for. */
function replySized(r: DeviceRequest, bytes: Uint8Array): number {
  const asked = u32(r, abi.FuseGetxattrIn.size)
  if (asked !== 0) return replyBytes(r, bytes, asked)
  setU64(r.reply, r.replyAt, bytes.length)
  return abi.FuseGetxattrOut.SIZE
}

const getxattr = operation((s, r) => s.fs.getxattr(r.nodeid, s.text.string(r, abi.FuseGetxattrIn.SIZE), s.caller(r)), (_, r, value) => {
  if (!(value instanceof Uint8Array)) throw new TypeError(`what was returned is ${String(value)}`)
  return replySized(r, value)
})

const listxattr = operation((s, r) => s.fs.listxattr(r.nodeid, s.caller(r)), (_, r, names) =>
  replySized(r, stringToBytes([...checkObject('what was returned', names as Iterable<string> & object)].map(name => `${name}\0`).join(''))))

function setxattr(s: ServedSession, r: DeviceRequest): unknown {
  const size = u32(r, abi.FuseSetxattrIn.size)
  const name = s.text.string(r, abi.FUSE_COMPAT_SETXATTR_IN_SIZE)
  if (s.text.end + size > r.argsBytes - r.extensionBytes) throw new FuseError('EINVAL')
  const value = Buffer.from(new Uint8Array(r.args.buffer, r.args.byteOffset + r.argsAt + s.text.end, size))
  return s.fs.setxattr(r.nodeid, name, value, u32(r, abi.FuseSetxattrIn.flags), s.caller(r))
}

function copyLength(r: DeviceRequest): number {
  return Math.min(u64(r, CopyIn.len), 0xffff_f000)
}

const copyRange = operation((s, r) => s.fs.copyFileRange(
  r.nodeid, u64(r, CopyIn.fh_in), offset64(r, CopyIn.off_in, 'EOVERFLOW'), u64(r, CopyIn.nodeid_out), u64(r, CopyIn.fh_out),
  offset64(r, CopyIn.off_out, 'EFBIG'), copyLength(r), s.caller(r),
), (_, r, copied) => replyCount(r, copied, copyLength(r)))

const lseek = operation((s, r) => {
  const { FuseLseekIn: In } = abi
  return s.fs.lseek(r.nodeid, u64(r, In.fh), offset64(r, In.offset, 'EINVAL'), u32(r, In.whence), s.caller(r))
}, (_, r, found) => replyCount(r, found))

const fallocate = command((s, r) => {
  const { FuseFallocateIn: In } = abi
  return s.fs.fallocate(r.nodeid, u64(r, In.fh), offset64(r, In.offset, 'EFBIG'), offset64(r, In.length, 'EFBIG'), u32(r, In.mode), s.caller(r))
})

function dataOnly(r: DeviceRequest): boolean {
  return (u32(r, abi.FuseFsyncIn.fsync_flags) & abi.FUSE_FSYNC_FDATASYNC) !== 0
}

/** What is not here gets ENOSYS; the kernel then keeps locks itself. */
export const operations: readonly (Operation | undefined)[] = Object.assign(new Array<Operation | undefined>(OPCODE_LIMIT).fill(undefined), {
  [Op.INIT]: operation((s, r) => s.begin(r), (s, r) => s.begun(r)),
  [Op.DESTROY]: command(s => s.end()),
  [Op.LOOKUP]: lookup,
  [Op.FORGET]: silent((s, r) => s.forget(r.nodeid, u64(r, abi.FuseForgetIn.nlookup))),
  [Op.BATCH_FORGET]: silent(batchForget),
  [Op.INTERRUPT]: silent(() => {}),
  [Op.GETATTR]: getattr,
  [Op.SETATTR]: setattr,
  [Op.READLINK]: operation((s, r) => s.fs.readlink(r.nodeid, s.caller(r)), (_, r, target) => replyBytes(r, stringToBytes(target), r.replyBytes)),
  [Op.SYMLINK]: making((s, r) => {
    const name = s.text.name(r, 0)
    return s.fs.symlink(r.nodeid, name, s.text.string(r, s.text.end), s.caller(r))
  }),
  [Op.MKNOD]: making((s, r) => s.fs.mknod(r.nodeid, s.text.name(r, abi.FuseMknodIn.SIZE), u32(r, abi.FuseMknodIn.mode), u32(r, abi.FuseMknodIn.rdev), s.caller(r))),
  [Op.MKDIR]: making((s, r) => s.fs.mkdir(r.nodeid, s.text.name(r, abi.FuseMkdirIn.SIZE), u32(r, abi.FuseMkdirIn.mode) & PERMISSIONS, s.caller(r))),
  [Op.UNLINK]: command((s, r) => s.fs.unlink(r.nodeid, s.text.name(r, 0), s.caller(r))),
  [Op.RMDIR]: command((s, r) => s.fs.rmdir(r.nodeid, s.text.name(r, 0), s.caller(r))),
  [Op.RENAME]: rename(abi.FuseRenameIn.SIZE, () => 0),
  [Op.RENAME2]: rename(abi.FuseRename2In.SIZE, r => u32(r, abi.FuseRename2In.flags)),
  [Op.LINK]: making((s, r) => s.fs.link(u64(r, abi.FuseLinkIn.oldnodeid), r.nodeid, s.text.name(r, abi.FuseLinkIn.SIZE), s.caller(r))),
  [Op.OPEN]: operation((s, r) => s.fs.open(r.nodeid, u32(r, abi.FuseOpenIn.flags), s.caller(r)), replyOpened),
  [Op.CREATE]: operation((s, r) => s.fs.create(r.nodeid, s.text.name(r, abi.FuseCreateIn.SIZE), u32(r, abi.FuseCreateIn.flags), u32(r, abi.FuseCreateIn.mode) & PERMISSIONS, s.caller(r)), replyCreated),
  [Op.TMPFILE]: operation((s, r) => s.fs.tmpfile(r.nodeid, u32(r, abi.FuseCreateIn.flags), u32(r, abi.FuseCreateIn.mode) & PERMISSIONS, s.caller(r)), replyCreated),
  [Op.READ]: read,
  [Op.WRITE]: write,
  [Op.FLUSH]: command((s, r) => s.fs.flush(r.nodeid, u64(r, abi.FuseFlushIn.fh))),
  [Op.RELEASE]: command((s, r) => s.fs.release(r.nodeid, u64(r, abi.FuseReleaseIn.fh))),
  [Op.FSYNC]: command((s, r) => s.fs.fsync(r.nodeid, u64(r, abi.FuseFsyncIn.fh), dataOnly(r), s.caller(r))),
  [Op.OPENDIR]: operation((s, r) => s.fs.opendir(r.nodeid, s.caller(r)), replyOpened),
  [Op.READDIR]: readdir,
  [Op.READDIRPLUS]: readdirplus,
  [Op.RELEASEDIR]: command((s, r) => s.fs.releasedir(r.nodeid, u64(r, abi.FuseReleaseIn.fh))),
  [Op.FSYNCDIR]: command((s, r) => s.fs.fsyncdir(r.nodeid, u64(r, abi.FuseFsyncIn.fh), dataOnly(r), s.caller(r))),
  [Op.STATFS]: operation((s, r) => s.fs.statfs(r.nodeid, s.caller(r)), (_, r, statistics) => writeStatfsOut(r.reply, r.replyAt, statistics)),
  [Op.GETXATTR]: getxattr,
  [Op.SETXATTR]: command(setxattr),
  [Op.LISTXATTR]: listxattr,
  [Op.REMOVEXATTR]: command((s, r) => s.fs.removexattr(r.nodeid, s.text.string(r, 0), s.caller(r))),
  [Op.ACCESS]: command((s, r) => s.fs.access(r.nodeid, u32(r, abi.FuseAccessIn.mask), s.caller(r))),
  [Op.FALLOCATE]: fallocate,
  [Op.LSEEK]: lseek,
  [Op.COPY_FILE_RANGE]: copyRange,
  [Op.COPY_FILE_RANGE_64]: copyRange,
} satisfies Partial<Record<number, Operation>>)
