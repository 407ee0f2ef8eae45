/** Requests on attributes: reading and setting them, and what file systems tell of themselves. */
import { errno } from '../../errors.js'
import {
  FATTR_ATIME, FATTR_ATIME_NOW, FATTR_CTIME, FATTR_FH, FATTR_GID, FATTR_KILL_SUIDGID, FATTR_LOCKOWNER, FATTR_MODE, FATTR_MTIME, FATTR_MTIME_NOW, FATTR_SIZE, FATTR_UID,
  FUSE_GETATTR_FH, FuseAccessIn, FuseGetattrIn, FuseKstatfs, FuseSetattrIn, FuseStatfsOut, FuseStatx, FuseStatxIn, FuseStatxOut,
} from '../../fuse/abi.js'
import {
  AT_EACCESS, AT_EMPTY_PATH, faccessat2, fchmod, fchmodat, fchownat, fstatfs, ftruncate, O_DIRECTORY, O_NONBLOCK, O_RDONLY, S_IFDIR, S_IFREG, syncfs,
  truncate, utimensat, wide, W_OK,
} from '../../sys/file.js'
import { close } from '../../sys/io.js'
import { copyU64, getU64, setU64 } from '../../wire/u64.js'
import { MAY_BLOCK, type DeviceRequest } from '../handlers.js'
import { writeAttrOut } from './attributes.js'
import { LARGE_BYTES } from './freeing.js'
import { FILE } from './handle-table.js'
import { NO_ID, type IdMap } from './id-map.js'
import { Negotiated } from './layout.js'
import { dropPrivileges, dropUnlessRoot } from './privileges.js'
import { Flag } from './inode-record.js'
import { BLOCK_BYTES, type Space } from './space.js'
import type { Volume } from './volume.js'

const UTIME_NOW = 0x3fff_ffff
const UTIME_OMIT = 0x3fff_fffe
/** What a SETATTR says that sets nothing; a ctime, sent with the write-back cache, cannot be set. */
const NOTHING = FATTR_FH | FATTR_LOCKOWNER | FATTR_CTIME
const ACCESS_MODES = 7

export function getattr(volume: Volume, request: DeviceRequest): number {
  const { args, argsAt, nodeid } = request
  let failed = 0
  if ((args.getUint32(argsAt + FuseGetattrIn.getattr_flags, true) & FUSE_GETATTR_FH) !== 0) {
    const handle = volume.handles.pin(args, argsAt + FuseGetattrIn.fh, FILE, nodeid)
    if (handle < 0) return handle
    failed = volume.statFd(volume.handles.fd(handle))
    volume.handles.unpin(handle)
  } else {
    const index = volume.inodes.pin(nodeid)
    if (index < 0) return index
    const fd = volume.fd(index)
    failed = fd < 0 ? fd : volume.statFd(fd)
    volume.inodes.unpin(index)
  }
  if (failed < 0) return failed
  const index = volume.inodes.indexOf(nodeid)
  volume.note(index)
  return writeAttrOut(request.reply, request.replyAt, volume.stat, volume.attrSeconds(index))
}

export function setattr(volume: Volume, request: DeviceRequest): number {
  const { args, argsAt, nodeid } = request
  const valid = args.getUint32(argsAt + FuseSetattrIn.valid, true)
  const index = volume.inodes.pin(nodeid)
  if (index < 0) return index
  let handle = 0
  if ((valid & FATTR_FH) !== 0) handle = volume.handles.pin(args, argsAt + FuseSetattrIn.fh, FILE, nodeid)
  let failed = Math.min(handle, 0)
  if (failed === 0) {
    const fd = handle > 0 ? volume.handles.fd(handle) : volume.fd(index)
    if (fd < 0) failed = fd
    else if (!request.mayBlock && (valid & FATTR_SIZE) !== 0 && cutsMuch(volume, index, fd, sizeOf(request))) failed = MAY_BLOCK
    else failed = applyAttributes(volume, request, valid, index, fd, handle > 0)
    if (failed === 0) failed = volume.statFd(fd)
    if (failed === 0) volume.note(index)
  }
  if (handle > 0) volume.handles.unpin(handle)
  volume.inodes.unpin(index)
  // the kernel takes these attributes for the newest, though it may have been told of a change meanwhile (fuse_do_setattr in fs/fuse/dir.c)
  const seconds = volume.coherent ? 0 : volume.rules.timeoutSeconds
  return failed < 0 ? failed : writeAttrOut(request.reply, request.replyAt, volume.stat, seconds)
}

function sizeOf({ args, argsAt }: DeviceRequest): number | bigint {
  return wide(args.getUint32(argsAt + FuseSetattrIn.size, true), args.getUint32(argsAt + FuseSetattrIn.size + 4, true))
}

/** Whether giving a file a size takes so many blocks off it that it takes long. With `direct` nobody knows how large it is by now. */
function cutsMuch(volume: Volume, index: number, fd: number, size: number | bigint): boolean {
  if ((volume.inodes.flags(index) & Flag.LARGE) === 0 && volume.backing === undefined || volume.statFd(fd) < 0) return false
  const { blocks, sizeBytes } = volume.stat
  // it may have blocks behind its end
  return size <= sizeBytes && blocks * BLOCK_BYTES >= LARGE_BYTES && Math.max(sizeBytes, blocks * BLOCK_BYTES) - Number(size) >= LARGE_BYTES
}

/**
 * @param fd an open file (`opened`) or an O_PATH descriptor of the inode
 * @returns 0 or −errno
 */
function applyAttributes(volume: Volume, request: DeviceRequest, valid: number, index: number, fd: number, opened: boolean): number {
  const { args, argsAt } = request
  const { ids } = volume
  // an id that may not be given must not leave half of the rest done
  const uid = (valid & FATTR_UID) !== 0 ? owner(ids?.uid, args.getUint32(argsAt + FuseSetattrIn.uid, true)) : NO_ID
  const gid = (valid & FATTR_GID) !== 0 ? owner(ids?.gid, args.getUint32(argsAt + FuseSetattrIn.gid, true)) : NO_ID
  if (uid < 0 || gid < 0) return -errno.EPERM
  // what is most likely to fail comes first; and a change of owner clears suid and sgid bits, which a mode may set
  if ((valid & FATTR_SIZE) !== 0) {
    const failed = applySize(volume, request, valid, index, fd, opened)
    if (failed < 0) return failed
  }
  // nothing to set is chown(2) with no ids, or the kernel taking privileges away: both clear suid and sgid bits
  if ((valid & (FATTR_UID | FATTR_GID)) !== 0 || (valid & ~NOTHING) === 0) {
    const kill = dropUnlessRoot(volume, request, fd)
    const failed = fchownat(fd, volume.empty, uid, gid, AT_EMPTY_PATH)
    if (kill) volume.caller.restoreFsetid()
    if (failed < 0) return failed
  }
  if ((valid & FATTR_MODE) !== 0) {
    const mode = args.getUint32(argsAt + FuseSetattrIn.mode, true) & 0o7777
    if (!opened) volume.procPath.set(fd)
    const failed = opened ? fchmod(fd, mode) : fchmodat(volume.procFd, volume.procPath.digits, mode)
    if (failed < 0) return failed
  }
  const times = valid | (emptiedByOpen(volume, request, valid) ? FATTR_MTIME | FATTR_MTIME_NOW : 0)
  return (times & (FATTR_ATIME | FATTR_MTIME)) !== 0 ? applyTimes(volume, request, times, fd) : 0
}

function owner(map: IdMap | undefined, id: number): number {
  return map === undefined ? id : map.assign(id)
}

function applySize(volume: Volume, request: DeviceRequest, valid: number, index: number, fd: number, opened: boolean): number {
  const type = volume.inodes.type(index)
  if (type !== S_IFREG) return type === S_IFDIR ? -errno.EISDIR : -errno.EINVAL
  const size = sizeOf(request)
  if (!opened) volume.procPath.set(fd)
  const kill = (valid & FATTR_KILL_SUIDGID) !== 0 && dropPrivileges(volume, request, fd)
  // only ftruncate marks times when the size stays
  const failed = opened ? ftruncate(fd, size) : truncate(volume.procPath.address, size)
  if (kill) volume.caller.restoreFsetid()
  volume.space?.settle(index, fd, 0)
  return failed
}

/**
 * Whether a SETATTR may be an open(2) with O_TRUNC, which marks the times also of a file that was
 * empty. It comes so where ATOMIC_O_TRUNC was not negotiated, and looks like truncate(2).
 */
function emptiedByOpen(volume: Volume, request: DeviceRequest, valid: number): boolean {
  return (valid & (FATTR_SIZE | FATTR_FH | FATTR_MTIME)) === FATTR_SIZE && volume.negotiated(Negotiated.PASSTHROUGH) && sizeOf(request) === 0
}

/** One struct timespec of utimensat. */
function writeTime(volume: Volume, at: number, args: DataView, secondsAt: number, nanosecondsAt: number, set: boolean, now: boolean): void {
  const { view } = volume.small
  copyU64(view, at, args, secondsAt)
  view.setUint32(at + 8, now ? UTIME_NOW : set ? args.getUint32(nanosecondsAt, true) : UTIME_OMIT, true)
  view.setUint32(at + 12, 0, true)
}

function applyTimes(volume: Volume, request: DeviceRequest, valid: number, fd: number): number {
  const { args, argsAt } = request
  // with the write-back cache the kernel sends its own mtime even for "now": its atime goes with it
  const atimeNow = (valid & FATTR_ATIME_NOW) !== 0 && !volume.negotiated(Negotiated.WRITEBACK)
  writeTime(volume, 0, args, argsAt + FuseSetattrIn.atime, argsAt + FuseSetattrIn.atimensec, (valid & FATTR_ATIME) !== 0, atimeNow)
  writeTime(volume, 16, args, argsAt + FuseSetattrIn.mtime, argsAt + FuseSetattrIn.mtimensec, (valid & FATTR_MTIME) !== 0, (valid & FATTR_MTIME_NOW) !== 0)
  return utimensat(fd, volume.empty, volume.small.address, AT_EMPTY_PATH)
}

/** Everything in struct statx from `mask` to `dev_minor` is where fuse_statx has it. */
const SHARED_STATX_BYTES = FuseStatx.__spare2
/** Bits of sx_flags that are statx's: how far to go to be up to date. */
const AT_STATX_SYNC_TYPE = 0x6000
/** STATX_BASIC_STATS | STATX_BTIME: all that the structure has room for. */
const STATX_ROOM = 0xfff

export function statxInode(volume: Volume, request: DeviceRequest): number {
  const { args, argsAt, reply, replyAt, nodeid } = request
  const mask = args.getUint32(argsAt + FuseStatxIn.sx_mask, true) & STATX_ROOM
  const flags = args.getUint32(argsAt + FuseStatxIn.sx_flags, true) & AT_STATX_SYNC_TYPE | AT_EMPTY_PATH
  let failed = 0
  if ((args.getUint32(argsAt + FuseStatxIn.getattr_flags, true) & FUSE_GETATTR_FH) !== 0) {
    const handle = volume.handles.pin(args, argsAt + FuseStatxIn.fh, FILE, nodeid)
    if (handle < 0) return handle
    failed = volume.statFdFor(volume.handles.fd(handle), flags, mask)
    volume.handles.unpin(handle)
  } else {
    const index = volume.inodes.pin(nodeid)
    if (index < 0) return index
    const fd = volume.fd(index)
    failed = fd < 0 ? fd : volume.statFdFor(fd, flags, mask)
    volume.inodes.unpin(index)
  }
  if (failed < 0) return failed
  for (let i = 0; i < FuseStatxOut.SIZE; i += 4) reply.setUint32(replyAt + i, 0, true)
  reply.setUint32(replyAt + FuseStatxOut.attr_valid, volume.attrSeconds(volume.inodes.indexOf(nodeid)), true)
  const st = volume.stat.words
  for (let i = 0; i < SHARED_STATX_BYTES / 4; i++) reply.setInt32(replyAt + FuseStatxOut.stat + i * 4, st[i]!, true)
  // mount ids and the like are this host's
  reply.setUint32(replyAt + FuseStatxOut.stat + FuseStatx.mask, st[0]! & STATX_ROOM, true)
  return FuseStatxOut.SIZE
}

/** Offsets in struct statfs of 64-bit Linux. */
const Statfs = { f_bsize: 8, f_blocks: 16, f_bfree: 24, f_bavail: 32, f_files: 40, f_ffree: 48, f_namelen: 64, f_frsize: 72 } as const

export function statfs(volume: Volume, request: DeviceRequest): number {
  // what was removed is to be counted
  if (volume.freeing.pending && !request.mayBlock) return MAY_BLOCK
  volume.freeing.settle()
  const index = volume.inodes.pin(request.nodeid)
  if (index < 0) return index
  const fd = volume.fd(index)
  const failed = fd < 0 ? fd : fstatfs(fd, volume.small.address)
  volume.inodes.unpin(index)
  if (failed < 0) return failed
  const { reply, replyAt } = request
  const from = volume.small.view
  copyU64(reply, replyAt + FuseKstatfs.blocks, from, Statfs.f_blocks)
  copyU64(reply, replyAt + FuseKstatfs.bfree, from, Statfs.f_bfree)
  copyU64(reply, replyAt + FuseKstatfs.bavail, from, Statfs.f_bavail)
  copyU64(reply, replyAt + FuseKstatfs.files, from, Statfs.f_files)
  copyU64(reply, replyAt + FuseKstatfs.ffree, from, Statfs.f_ffree)
  reply.setUint32(replyAt + FuseKstatfs.bsize, from.getUint32(Statfs.f_bsize, true), true)
  reply.setUint32(replyAt + FuseKstatfs.namelen, from.getUint32(Statfs.f_namelen, true), true)
  reply.setUint32(replyAt + FuseKstatfs.frsize, from.getUint32(Statfs.f_frsize, true), true)
  if (volume.space !== undefined) limitStatfs(volume.space, reply, replyAt, from)
  for (let i = FuseKstatfs.padding; i < FuseStatfsOut.SIZE; i += 4) reply.setUint32(replyAt + i, 0, true)
  return FuseStatfsOut.SIZE
}

/** With `max_size`: what is left of it, unless the file system has less. */
function limitStatfs(space: Space, reply: DataView, replyAt: number, from: DataView): void {
  const blocksPerUnit = Math.max(1, getU64(from, Statfs.f_frsize) / BLOCK_BYTES)
  const left = Math.max(0, Math.floor((space.limit - space.used) / blocksPerUnit))
  const used = Math.ceil(space.used / blocksPerUnit)
  const free = Math.min(left, getU64(from, Statfs.f_bfree))
  setU64(reply, replyAt + FuseKstatfs.bfree, free)
  setU64(reply, replyAt + FuseKstatfs.bavail, Math.min(free, getU64(from, Statfs.f_bavail)))
  setU64(reply, replyAt + FuseKstatfs.blocks, used + free)
}

/** Only sent by kernels without default_permissions: the kernel below decides, as the caller. */
export function access(volume: Volume, request: DeviceRequest): number {
  const mask = request.args.getUint32(request.argsAt + FuseAccessIn.mask, true) & ACCESS_MODES
  if ((mask & W_OK) !== 0 && volume.options.readonly) return -errno.EROFS
  const index = volume.inodes.pin(request.nodeid)
  if (index < 0) return index
  const fd = volume.fd(index)
  let failed = fd < 0 ? fd : volume.caller.enter(request, volume.negotiated(Negotiated.SUPP_GROUP))
  if (failed === 0) {
    failed = faccessat2(fd, volume.empty, mask, AT_EACCESS | AT_EMPTY_PATH)
    volume.caller.leave()
  }
  volume.inodes.unpin(index)
  return failed
}

/** Every file system that the tree was seen to reach. */
export function syncFileSystem(volume: Volume, request: DeviceRequest): number {
  const index = volume.inodes.pin(request.nodeid)
  if (index < 0) return index
  let failed = 0
  for (let i = 0; i < volume.mounts.count; i++) {
    const fd = volume.mounts.fdAt(i)
    if (fd >= 0) failed = Math.min(failed, syncfs(fd))
  }
  if (volume.mounts.fd(volume.inodes.mountId(index)) < 0) {
    const fd = volume.open(index, O_RDONLY | O_NONBLOCK | (volume.inodes.type(index) === S_IFDIR ? O_DIRECTORY : 0))
    failed = Math.min(failed, fd < 0 ? fd : syncfs(fd))
    if (fd >= 0) close(fd)
  }
  volume.inodes.unpin(index)
  return failed
}
