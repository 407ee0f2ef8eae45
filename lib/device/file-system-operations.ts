/** The operations of a served file system, by opcode: arguments into plain values, what is returned into replies. */
import { errno } from '../errors.js'
import * as abi from '../fuse/abi.js'
import { Op, OPCODE_LIMIT } from '../fuse/opcodes.js'
import { getU64, setU64 } from '../wire/u64.js'
import { stringToBytes } from './byte-string.js'
import { readdir, readdirplus } from './directory-reply.js'
import { FuseError, fuseErrorNumber, type Changes, type Created, type Timestamp } from './file-system.js'
import { NO_REPLY, type DeviceRequest } from './handlers.js'
import { checkInteger, checkObject, refusePromise, writeAttrOut, writeNegativeEntry, writeOpenOut, writeStatfsOut } from './plain-values.js'
import { readOffset, type ServedSession } from './served-session.js'

const PERMISSIONS = 0o7777

export type Operation = (session: ServedSession, request: DeviceRequest) => number

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

/** The reply of a method that returns nothing. */
function done(nothing: unknown): number {
  refusePromise(nothing)
  return 0
}

function lookup(s: ServedSession, r: DeviceRequest): number {
  const name = s.text.name(r, 0)
  try {
    return s.reply(r, s.fs.lookup(r.nodeid, name, s.caller(r)))
  } catch (error) {
    if (s.timeouts.negative > 0 && fuseErrorNumber(error) === errno.ENOENT) return writeNegativeEntry(r.reply, r.replyAt, s.timeouts.negative)
    throw error
  }
}

function batchForget(s: ServedSession, r: DeviceRequest): number {
  const room = Math.floor((r.argsBytes - abi.FuseBatchForgetIn.SIZE) / abi.FuseForgetOne.SIZE)
  const count = Math.min(u32(r, abi.FuseBatchForgetIn.count), room)
  for (let i = 0, at = abi.FuseBatchForgetIn.SIZE; i < count; i++, at += abi.FuseForgetOne.SIZE) {
    s.forget(u64(r, at + abi.FuseForgetOne.nodeid), u64(r, at + abi.FuseForgetOne.nlookup))
  }
  return NO_REPLY
}

function forget(s: ServedSession, r: DeviceRequest): number {
  s.forget(r.nodeid, u64(r, abi.FuseForgetIn.nlookup))
  return NO_REPLY
}

function getattr(s: ServedSession, r: DeviceRequest): number {
  const open = (u32(r, abi.FuseGetattrIn.getattr_flags) & abi.FUSE_GETATTR_FH) !== 0
  return writeAttrOut(r.reply, r.replyAt, r.nodeid, s.fs.getattr(r.nodeid, open ? u64(r, abi.FuseGetattrIn.fh) : undefined, s.caller(r)), s.timeouts)
}

function readTime(r: DeviceRequest, seconds: number, nanoseconds: number): Timestamp {
  const at = r.argsAt + seconds
  return { seconds: r.args.getInt32(at + 4, true) * 0x1_0000_0000 + r.args.getUint32(at, true), nanoseconds: u32(r, nanoseconds) }
}

/** One clock for all times: where the kernel means "now", the file system's is asked. */
function setattr(s: ServedSession, r: DeviceRequest): number {
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
  return writeAttrOut(r.reply, r.replyAt, r.nodeid, s.fs.setattr(r.nodeid, changes, handle, s.caller(r)), s.timeouts)
}

function readlink(s: ServedSession, r: DeviceRequest): number {
  return replyBytes(r, stringToBytes(s.fs.readlink(r.nodeid, s.caller(r))), r.replyBytes)
}

function replyBytes(r: DeviceRequest, bytes: Uint8Array, room: number): number {
  if (bytes.length > Math.min(room, r.replyBytes)) throw new FuseError('ERANGE')
  new Uint8Array(r.reply.buffer, r.reply.byteOffset + r.replyAt, bytes.length).set(bytes)
  return bytes.length
}

function rename(s: ServedSession, r: DeviceRequest, namesAt: number, flags: number): number {
  const name = s.text.name(r, namesAt)
  const newName = s.text.name(r, s.text.end)
  // newdir comes first in both structures
  return done(s.fs.rename(r.nodeid, name, u64(r, abi.FuseRenameIn.newdir), newName, flags, s.caller(r)))
}

/** CREATE and TMPFILE: fuse_entry_out and fuse_open_out. The lookup counts once both are good. */
function replyCreated(s: ServedSession, r: DeviceRequest, created: Created): number {
  const opened = writeOpenOut(r.reply, r.replyAt + abi.FuseEntryOut.SIZE, created)
  return s.reply(r, created) + opened
}

function read(s: ServedSession, r: DeviceRequest): number {
  const size = Math.min(u32(r, abi.FuseReadIn.size), r.replyBytes)
  const buffer = s.buffers.room(r.replyIov, r.replyIovCount, size)
  const got = s.fs.read(r.nodeid, u64(r, abi.FuseReadIn.fh), offset64(r, abi.FuseReadIn.offset, 'EOVERFLOW'), size, buffer)
  const data = got instanceof Uint8Array ? got : buffer.subarray(0, checkInteger('what was returned', got, size))
  checkInteger('length of what was returned', data.length, size)
  s.buffers.write(r.replyIov, r.replyIovCount, data)
  return data.length
}

function write(s: ServedSession, r: DeviceRequest): number {
  if (u32(r, abi.FuseWriteIn.size) !== r.payloadBytes) throw new FuseError('EINVAL')
  const data = s.buffers.read(r.payloadIov, r.payloadIovCount)
  const written = s.fs.write(r.nodeid, u64(r, abi.FuseWriteIn.fh), offset64(r, abi.FuseWriteIn.offset, 'EFBIG'), data)
  return replyCount(r, checkInteger('what was returned', written, data.length))
}

/** fuse_write_out */
function replyCount(r: DeviceRequest, count: number): number {
  setU64(r.reply, r.replyAt, count)
  return abi.FuseWriteOut.SIZE
}

/** The size alone when none was asked for. */
function replySized(r: DeviceRequest, bytes: Uint8Array): number {
  const asked = u32(r, abi.FuseGetxattrIn.size)
  if (asked !== 0) return replyBytes(r, bytes, asked)
  setU64(r.reply, r.replyAt, bytes.length)
  return abi.FuseGetxattrOut.SIZE
}

function getxattr(s: ServedSession, r: DeviceRequest): number {
  const value = s.fs.getxattr(r.nodeid, s.text.string(r, abi.FuseGetxattrIn.SIZE), s.caller(r))
  if (!(value instanceof Uint8Array)) throw new TypeError(`what was returned is ${String(value)}`)
  return replySized(r, value)
}

function listxattr(s: ServedSession, r: DeviceRequest): number {
  const names = checkObject('what was returned', s.fs.listxattr(r.nodeid, s.caller(r)) as Iterable<string> & object)
  return replySized(r, stringToBytes([...names].map(name => `${name}\0`).join('')))
}

function setxattr(s: ServedSession, r: DeviceRequest): number {
  const size = u32(r, abi.FuseSetxattrIn.size)
  const name = s.text.string(r, abi.FUSE_COMPAT_SETXATTR_IN_SIZE)
  if (s.text.end + size > r.argsBytes - r.extensionBytes) throw new FuseError('EINVAL')
  const value = Buffer.from(new Uint8Array(r.args.buffer, r.args.byteOffset + r.argsAt + s.text.end, size))
  return done(s.fs.setxattr(r.nodeid, name, value, u32(r, abi.FuseSetxattrIn.flags), s.caller(r)))
}

function copyRange(s: ServedSession, r: DeviceRequest): number {
  const length = Math.min(u64(r, CopyIn.len), 0xffff_f000)
  return replyCount(r, checkInteger('what was returned', s.fs.copyFileRange(
    r.nodeid, u64(r, CopyIn.fh_in), offset64(r, CopyIn.off_in, 'EOVERFLOW'), u64(r, CopyIn.nodeid_out), u64(r, CopyIn.fh_out), offset64(r, CopyIn.off_out, 'EFBIG'), length,
  ), length))
}

function lseek(s: ServedSession, r: DeviceRequest): number {
  const found = s.fs.lseek(r.nodeid, u64(r, abi.FuseLseekIn.fh), offset64(r, abi.FuseLseekIn.offset, 'EINVAL'), u32(r, abi.FuseLseekIn.whence))
  setU64(r.reply, r.replyAt, checkInteger('what was returned', found))
  return abi.FuseLseekOut.SIZE
}

function fallocate(s: ServedSession, r: DeviceRequest): number {
  const { FuseFallocateIn: In } = abi
  return done(s.fs.fallocate(r.nodeid, u64(r, In.fh), offset64(r, In.offset, 'EFBIG'), offset64(r, In.length, 'EFBIG'), u32(r, In.mode)))
}

function dataOnly(r: DeviceRequest): boolean {
  return (u32(r, abi.FuseFsyncIn.fsync_flags) & abi.FUSE_FSYNC_FDATASYNC) !== 0
}

/** What is not here gets ENOSYS; the kernel then keeps locks itself. */
export const operations: readonly (Operation | undefined)[] = Object.assign(new Array<Operation | undefined>(OPCODE_LIMIT).fill(undefined), {
  [Op.INIT]: (s, r) => s.begin(r),
  [Op.DESTROY]: s => done(s.end()),
  [Op.LOOKUP]: lookup,
  [Op.FORGET]: forget,
  [Op.BATCH_FORGET]: batchForget,
  [Op.INTERRUPT]: () => NO_REPLY,
  [Op.GETATTR]: getattr,
  [Op.SETATTR]: setattr,
  [Op.READLINK]: readlink,
  [Op.SYMLINK]: (s, r) => {
    const name = s.text.name(r, 0)
    return s.reply(r, s.fs.symlink(r.nodeid, name, s.text.string(r, s.text.end), s.caller(r)))
  },
  [Op.MKNOD]: (s, r) => s.reply(r, s.fs.mknod(r.nodeid, s.text.name(r, abi.FuseMknodIn.SIZE), u32(r, abi.FuseMknodIn.mode), u32(r, abi.FuseMknodIn.rdev), s.caller(r))),
  [Op.MKDIR]: (s, r) => s.reply(r, s.fs.mkdir(r.nodeid, s.text.name(r, abi.FuseMkdirIn.SIZE), u32(r, abi.FuseMkdirIn.mode) & PERMISSIONS, s.caller(r))),
  [Op.UNLINK]: (s, r) => done(s.fs.unlink(r.nodeid, s.text.name(r, 0), s.caller(r))),
  [Op.RMDIR]: (s, r) => done(s.fs.rmdir(r.nodeid, s.text.name(r, 0), s.caller(r))),
  [Op.RENAME]: (s, r) => rename(s, r, abi.FuseRenameIn.SIZE, 0),
  [Op.RENAME2]: (s, r) => rename(s, r, abi.FuseRename2In.SIZE, u32(r, abi.FuseRename2In.flags)),
  [Op.LINK]: (s, r) => s.reply(r, s.fs.link(u64(r, abi.FuseLinkIn.oldnodeid), r.nodeid, s.text.name(r, abi.FuseLinkIn.SIZE), s.caller(r))),
  [Op.OPEN]: (s, r) => writeOpenOut(r.reply, r.replyAt, s.fs.open(r.nodeid, u32(r, abi.FuseOpenIn.flags), s.caller(r))),
  [Op.CREATE]: (s, r) => replyCreated(s, r, s.fs.create(r.nodeid, s.text.name(r, abi.FuseCreateIn.SIZE), u32(r, abi.FuseCreateIn.flags), u32(r, abi.FuseCreateIn.mode) & PERMISSIONS, s.caller(r))),
  [Op.TMPFILE]: (s, r) => replyCreated(s, r, s.fs.tmpfile(r.nodeid, u32(r, abi.FuseCreateIn.flags), u32(r, abi.FuseCreateIn.mode) & PERMISSIONS, s.caller(r))),
  [Op.READ]: read,
  [Op.WRITE]: write,
  [Op.FLUSH]: (s, r) => done(s.fs.flush(r.nodeid, u64(r, abi.FuseFlushIn.fh))),
  [Op.RELEASE]: (s, r) => done(s.fs.release(r.nodeid, u64(r, abi.FuseReleaseIn.fh))),
  [Op.FSYNC]: (s, r) => done(s.fs.fsync(r.nodeid, u64(r, abi.FuseFsyncIn.fh), dataOnly(r))),
  [Op.OPENDIR]: (s, r) => writeOpenOut(r.reply, r.replyAt, s.fs.opendir(r.nodeid, s.caller(r))),
  [Op.READDIR]: readdir,
  [Op.READDIRPLUS]: readdirplus,
  [Op.RELEASEDIR]: (s, r) => done(s.fs.releasedir(r.nodeid, u64(r, abi.FuseReleaseIn.fh))),
  [Op.FSYNCDIR]: (s, r) => done(s.fs.fsyncdir(r.nodeid, u64(r, abi.FuseFsyncIn.fh), dataOnly(r))),
  [Op.STATFS]: (s, r) => writeStatfsOut(r.reply, r.replyAt, s.fs.statfs(r.nodeid, s.caller(r))),
  [Op.GETXATTR]: getxattr,
  [Op.SETXATTR]: setxattr,
  [Op.LISTXATTR]: listxattr,
  [Op.REMOVEXATTR]: (s, r) => done(s.fs.removexattr(r.nodeid, s.text.string(r, 0), s.caller(r))),
  [Op.ACCESS]: (s, r) => done(s.fs.access(r.nodeid, u32(r, abi.FuseAccessIn.mask), s.caller(r))),
  [Op.FALLOCATE]: fallocate,
  [Op.LSEEK]: lseek,
  [Op.COPY_FILE_RANGE]: copyRange,
  [Op.COPY_FILE_RANGE_64]: copyRange,
} satisfies Partial<Record<number, Operation>>)
