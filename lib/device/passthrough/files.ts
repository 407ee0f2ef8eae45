/** Requests on open files: opening and making them, data, and what is done through a descriptor. */
import { errno } from '../../errors.js'
import {
  FOPEN_DIRECT_IO, FOPEN_NOFLUSH, FOPEN_PARALLEL_DIRECT_WRITES, FOPEN_PASSTHROUGH, FUSE_FSYNC_FDATASYNC, FUSE_OPEN_KILL_SUIDGID, FUSE_WRITE_CACHE,
  FUSE_WRITE_KILL_SUIDGID, FuseCopyFileRangeIn,
  FuseCopyFileRangeOut, FuseCreateIn, FuseEntryOut, FuseFallocateIn, FuseFlushIn, FuseFsyncIn, FuseLseekIn, FuseLseekOut, FuseOpenIn,
  FuseOpenOut, FuseReadIn, FuseReleaseIn, FuseWriteIn, FuseWriteOut,
} from '../../fuse/abi.js'
import {
  copyFileRange, dup, fallocate, fdatasync, fsync, lseek, O_ACCMODE, O_APPEND, O_CREAT, O_DIRECT, O_DIRECTORY, O_DSYNC, O_EXCL, O_LARGEFILE,
  O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_RDWR, O_SYNC, O_TMPFILE, O_TRUNC, O_WRONLY, preadv2, pwritev2, RWF_APPEND, RWF_NOWAIT, S_IFDIR, S_IFLNK,
  S_IFREG, wide,
} from '../../sys/file.js'
import { close } from '../../sys/io.js'
import { getU64, setU64 } from '../../wire/u64.js'
import { MAY_BLOCK, type DeviceRequest } from '../handlers.js'
import { NO_BACKING } from './backing-files.js'
import { DIRECTORY, FILE, HandleFlag } from './handle-table.js'
import { NO_ID } from './id-map.js'
import { Negotiated } from './layout.js'
import { MountKind } from './mount-table.js'
import { enterCaller, leaveCaller, pinDirectory, readNewName, replyEntry } from './namespace.js'
import type { Volume } from './volume.js'

/** Flags of a request that are passed on; O_NOATIME, O_NOFOLLOW, O_PATH and the like are not. */
const OPEN_FLAGS = O_ACCMODE | O_TRUNC | O_SYNC | O_DSYNC | O_NONBLOCK | O_LARGEFILE

/**
 * The flags to open a file with. O_APPEND is left to each WRITE, because a writable mapping of
 * the file is written back at offsets. With the write-back cache the kernel reads pages of files
 * opened for writing only.
 */
function openFlags(volume: Volume, asked: number): number {
  let flags = asked & OPEN_FLAGS
  if (volume.options.allowDirectIo) flags |= asked & O_DIRECT
  if ((flags & O_ACCMODE) === O_WRONLY && volume.negotiated(Negotiated.WRITEBACK)) flags = flags & ~O_ACCMODE | O_RDWR
  return flags
}

/** Writes a fuse_open_out. @returns its size */
function writeOpen(volume: Volume, request: DeviceRequest, at: number, handle: number, open: number, backing: number): number {
  volume.handles.write(request.reply, at + FuseOpenOut.fh, handle)
  request.reply.setUint32(at + FuseOpenOut.open_flags, open, true)
  request.reply.setInt32(at + FuseOpenOut.backing_id, backing, true)
  return FuseOpenOut.SIZE
}

/**
 * Enters a descriptor as an open file and writes its fuse_open_out.
 * @param index of its inode, pinned
 * @returns its size, or −errno with the descriptor closed
 */
function replyOpen(volume: Volume, request: DeviceRequest, at: number, fd: number, index: number, flags: number): number {
  const mount = volume.mountKind(index)
  let about = (mount & MountKind.MEMORY) !== 0 ? HandleFlag.MEMORY : 0
  if (volume.options.allowDirectIo && (flags & O_DIRECT) !== 0) about |= HandleFlag.DIRECT
  if ((flags & O_SYNC) !== 0) about |= HandleFlag.SYNC
  const backing = volume.negotiated(Negotiated.PASSTHROUGH) && volume.backing !== undefined ? volume.backing.enter(index, fd) : NO_BACKING
  if (backing > NO_BACKING) about |= HandleFlag.BACKED
  const handle = backing < 0 ? backing : volume.handles.add(fd, FILE, volume.inodes.nodeid(index), about)
  if (handle < 0) {
    if (backing > NO_BACKING) volume.backing!.leave(index)
    close(fd)
    return handle
  }
  // a FLUSH would find nothing to do: nothing written through this one, or no ->flush below
  let open = (flags & O_ACCMODE) === O_RDONLY || (mount & MountKind.LOCAL) !== 0 ? FOPEN_NOFLUSH : 0
  // nothing else goes with FOPEN_PASSTHROUGH (FOPEN_PASSTHROUGH_MASK in fs/fuse/iomode.c)
  if (backing > NO_BACKING) return writeOpen(volume, request, at, handle, open | FOPEN_PASSTHROUGH, backing)
  if (!volume.coherent || (mount & MountKind.WATCHED) !== 0) open |= volume.rules.fileOpenFlags
  // cached pages of what was written would be dropped by the next open: do without them and their copy
  if ((flags & O_ACCMODE) === O_WRONLY && volume.negotiated(Negotiated.DIRECT_WRITES)) open |= FOPEN_DIRECT_IO
  if ((flags & O_DIRECT) !== 0) open |= FOPEN_PARALLEL_DIRECT_WRITES
  return writeOpen(volume, request, at, handle, open, NO_BACKING)
}

/** Opens a pinned inode as a file; what is not a regular file has no business here. */
function openFile(volume: Volume, index: number, asked: number, killPrivileges: boolean): number {
  const type = volume.inodes.type(index)
  if (type === S_IFDIR) return -errno.EISDIR
  if (type === S_IFLNK) return -errno.ELOOP
  if (type !== S_IFREG) return -errno.ENXIO
  if (volume.options.readonly && ((asked & O_ACCMODE) !== O_RDONLY || (asked & O_TRUNC) !== 0)) return -errno.EROFS
  const kill = killPrivileges && (asked & O_TRUNC) !== 0
  if (kill) volume.caller.dropFsetid()
  const fd = volume.open(index, openFlags(volume, asked))
  if (kill) volume.caller.restoreFsetid()
  return fd
}

export function open(volume: Volume, request: DeviceRequest): number {
  const { args, argsAt, nodeid } = request
  const flags = args.getUint32(argsAt + FuseOpenIn.flags, true)
  const kill = (args.getUint32(argsAt + FuseOpenIn.open_flags, true) & FUSE_OPEN_KILL_SUIDGID) !== 0
  const index = volume.inodes.pin(nodeid)
  if (index < 0) return index
  const fd = openFile(volume, index, flags, kill)
  const done = fd < 0 ? fd : replyOpen(volume, request, request.replyAt, fd, index, flags)
  volume.inodes.unpin(index)
  return done
}

export function opendir(volume: Volume, request: DeviceRequest): number {
  const { nodeid } = request
  const index = volume.inodes.pin(nodeid)
  if (index < 0) return index
  const fd = volume.inodes.type(index) === S_IFDIR ? volume.open(index, O_RDONLY | O_DIRECTORY | O_NONBLOCK) : -errno.ENOTDIR
  const open = volume.coherent && (volume.mountKind(index) & MountKind.WATCHED) === 0 ? 0 : volume.rules.dirOpenFlags
  volume.inodes.unpin(index)
  if (fd < 0) return fd
  const handle = volume.handles.add(fd, DIRECTORY, nodeid, 0)
  if (handle >= 0) return writeOpen(volume, request, request.replyAt, handle, open, NO_BACKING)
  close(fd)
  return handle
}

/** Answers CREATE and TMPFILE: an entry whose lookup is counted, and an open file. */
function replyCreated(volume: Volume, request: DeviceRequest, index: number, fd: number, flags: number): number {
  const opened = replyOpen(volume, request, request.replyAt + FuseEntryOut.SIZE, fd, index, flags)
  if (opened < 0) {
    volume.inodes.forgetIndex(index, 1)
    return opened
  }
  return replyEntry(volume, request, index) + opened
}

export function create(volume: Volume, request: DeviceRequest): number {
  const { args, argsAt } = request
  const end = readNewName(volume, request, FuseCreateIn.SIZE)
  if (end < 0) return end
  const flags = args.getUint32(argsAt + FuseCreateIn.flags, true)
  const mode = args.getUint32(argsAt + FuseCreateIn.mode, true)
  const umask = args.getUint32(argsAt + FuseCreateIn.umask, true)
  const kill = (args.getUint32(argsAt + FuseCreateIn.open_flags, true) & FUSE_OPEN_KILL_SUIDGID) !== 0
  const parent = pinDirectory(volume, request.nodeid)
  if (parent < 0) return parent
  const done = createIn(volume, request, volume.fd(parent), flags, mode, umask, kill)
  volume.inodes.unpin(parent)
  return done
}

function createIn(volume: Volume, request: DeviceRequest, dirFd: number, flags: number, mode: number, umask: number, kill: boolean): number {
  const name = volume.name.address
  // O_EXCL always: what exists already is opened as OPEN would, after the kernel's permission check
  let fd = -errno.EEXIST
  if (volume.options.readonly) {
    fd = (flags & O_EXCL) !== 0 ? -errno.EROFS : fd
  } else {
    const failed = enterCaller(volume, request, umask)
    if (failed < 0) return failed
    fd = volume.openat(dirFd, name, openFlags(volume, flags) & ~O_TRUNC | O_CREAT | O_EXCL | O_NOFOLLOW, mode & 0o7777)
    leaveCaller(volume)
  }
  if (fd >= 0) {
    const index = volume.adopt(fd, request.nodeid, volume.name.memory)
    if (index >= 0) return replyCreated(volume, request, index, fd, flags)
    close(fd)
    return index
  }
  if (fd !== -errno.EEXIST || (flags & O_EXCL) !== 0) return fd
  const index = volume.lookup(request.nodeid, dirFd, volume.name.memory)
  if (index < 0) return index === -errno.ENOENT && volume.options.readonly ? -errno.EROFS : index
  volume.inodes.pinIndex(index)
  fd = openFile(volume, index, flags, kill)
  // opening may have used `stat`, and O_TRUNC has changed the file
  const failed = fd < 0 ? fd : volume.statFd(fd)
  const done = failed < 0 ? failed : replyCreated(volume, request, index, fd, flags)
  if (failed < 0) {
    volume.inodes.forgetIndex(index, 1)
    if (fd >= 0) close(fd)
  }
  volume.inodes.unpin(index)
  return done
}

export function tmpfile(volume: Volume, request: DeviceRequest): number {
  const { args, argsAt } = request
  const flags = args.getUint32(argsAt + FuseCreateIn.flags, true)
  const mode = args.getUint32(argsAt + FuseCreateIn.mode, true)
  const parent = pinDirectory(volume, request.nodeid)
  if (parent < 0) return parent
  let done = enterCaller(volume, request, args.getUint32(argsAt + FuseCreateIn.umask, true))
  if (done === 0) {
    const fd = volume.openat(volume.fd(parent), volume.dot, openFlags(volume, flags) & ~O_TRUNC | O_TMPFILE | flags & O_EXCL, mode & 0o7777)
    leaveCaller(volume)
    done = fd
    if (fd >= 0) {
      const index = volume.adopt(fd, request.nodeid, undefined)
      done = index
      if (index >= 0) done = replyCreated(volume, request, index, fd, flags)
      else close(fd)
    }
  }
  volume.inodes.unpin(parent)
  return done
}

function releaseHandle(volume: Volume, request: DeviceRequest, kind: number): number {
  const handle = volume.handles.pin(request.args, request.argsAt + FuseReleaseIn.fh, kind, request.nodeid)
  if (handle < 0) return handle
  const released = volume.handles.release(handle)
  if (released && (volume.handles.flags(handle) & HandleFlag.BACKED) !== 0) {
    const index = volume.inodes.pin(request.nodeid)
    if (index >= 0) {
      volume.backing!.leave(index)
      volume.inodes.unpin(index)
    }
  }
  volume.handles.unpin(handle)
  return 0
}

export function release(volume: Volume, request: DeviceRequest): number {
  return releaseHandle(volume, request, FILE)
}

export function releasedir(volume: Volume, request: DeviceRequest): number {
  return releaseHandle(volume, request, DIRECTORY)
}

export function read(volume: Volume, request: DeviceRequest): number {
  const { args, argsAt } = request
  const handle = volume.handles.pin(args, argsAt + FuseReadIn.fh, FILE, request.nodeid)
  if (handle < 0) return handle
  const offset = wide(args.getUint32(argsAt + FuseReadIn.offset, true), args.getUint32(argsAt + FuseReadIn.offset + 4, true))
  const fd = volume.handles.fd(handle)
  const flags = volume.handles.flags(handle)
  let done = MAY_BLOCK
  if (request.mayBlock || (flags & HandleFlag.MEMORY) !== 0) done = preadv2(fd, request.replyIov, request.replyIovCount, offset, 0)
  else if ((flags & (HandleFlag.DIRECT | HandleFlag.UNKNOWN)) === 0) done = readCached(volume, request, handle, fd, offset)
  volume.handles.unpin(handle)
  return done
}

/** Reads what is in memory. @returns MAY_BLOCK when that is not all there is */
function readCached(volume: Volume, request: DeviceRequest, handle: number, fd: number, offset: number | bigint): number {
  const done = preadv2(fd, request.replyIov, request.replyIovCount, offset, RWF_NOWAIT)
  if (done === request.replyBytes) return done
  if (done === -errno.EAGAIN) return MAY_BLOCK
  if (done === -errno.EOPNOTSUPP) {
    volume.handles.setFlags(handle, HandleFlag.UNKNOWN)
    return MAY_BLOCK
  }
  if (done < 0 || typeof offset === 'bigint') return done < 0 ? done : MAY_BLOCK
  // a short read means the end of the file to the kernel
  const end = lseek(fd, 0, SEEK_END)
  return end >= 0 && offset + done >= end ? done : MAY_BLOCK
}

const SEEK_END = 2

export function write(volume: Volume, request: DeviceRequest): number {
  const { args, argsAt } = request
  const handle = volume.handles.pin(args, argsAt + FuseWriteIn.fh, FILE, request.nodeid)
  if (handle < 0) return handle
  if (!request.mayBlock && (volume.handles.flags(handle) & (HandleFlag.DIRECT | HandleFlag.SYNC)) !== 0) {
    volume.handles.unpin(handle)
    return MAY_BLOCK
  }
  const writeFlags = args.getUint32(argsAt + FuseWriteIn.write_flags, true)
  // a page of the cache has its place; only a write as such goes to the end, wherever that is by now
  const append = (writeFlags & FUSE_WRITE_CACHE) === 0 && (args.getUint32(argsAt + FuseWriteIn.flags, true) & O_APPEND) !== 0
  const kill = (writeFlags & FUSE_WRITE_KILL_SUIDGID) !== 0
  if (kill) volume.caller.dropFsetid()
  const offset = wide(args.getUint32(argsAt + FuseWriteIn.offset, true), args.getUint32(argsAt + FuseWriteIn.offset + 4, true))
  const done = pwritev2(volume.handles.fd(handle), request.payloadIov, request.payloadIovCount, offset, append ? RWF_APPEND : 0)
  if (kill) volume.caller.restoreFsetid()
  volume.handles.unpin(handle)
  if (done < 0) return done
  request.reply.setUint32(request.replyAt + FuseWriteOut.size, done, true)
  request.reply.setUint32(request.replyAt + FuseWriteOut.padding, 0, true)
  return FuseWriteOut.SIZE
}

/** A close of one of the caller's descriptors: what the file system has to say then comes from closing a copy of ours. */
export function flush(volume: Volume, request: DeviceRequest): number {
  const handle = volume.handles.pin(request.args, request.argsAt + FuseFlushIn.fh, FILE, request.nodeid)
  if (handle < 0) return handle
  const copy = dup(volume.handles.fd(handle))
  volume.handles.unpin(handle)
  return copy < 0 ? copy : close(copy)
}

function sync(volume: Volume, request: DeviceRequest, kind: number): number {
  const { args, argsAt } = request
  const handle = volume.handles.pin(args, argsAt + FuseFsyncIn.fh, kind, request.nodeid)
  if (handle < 0) return handle
  const fd = volume.handles.fd(handle)
  const done = (args.getUint32(argsAt + FuseFsyncIn.fsync_flags, true) & FUSE_FSYNC_FDATASYNC) !== 0 ? fdatasync(fd) : fsync(fd)
  volume.handles.unpin(handle)
  return done
}

export function fsyncFile(volume: Volume, request: DeviceRequest): number {
  return sync(volume, request, FILE)
}

export function fsyncDirectory(volume: Volume, request: DeviceRequest): number {
  return sync(volume, request, DIRECTORY)
}

/**
 * Whether suid and sgid bits must go for a change of data that comes without a flag for it. The
 * kernel left that to us (HANDLE_KILLPRIV_V2), and only root may keep them. A kernel that maps ids
 * does not say who it is (NO_ID), and sends a SETATTR for it.
 */
function mustKill(volume: Volume, { uid }: DeviceRequest): boolean {
  return uid !== 0 && uid !== NO_ID && volume.negotiated(Negotiated.KILLPRIV_V2)
}

export function fallocateFile(volume: Volume, request: DeviceRequest): number {
  const { args, argsAt } = request
  const handle = volume.handles.pin(args, argsAt + FuseFallocateIn.fh, FILE, request.nodeid)
  if (handle < 0) return handle
  const offset = wide(args.getUint32(argsAt + FuseFallocateIn.offset, true), args.getUint32(argsAt + FuseFallocateIn.offset + 4, true))
  const length = wide(args.getUint32(argsAt + FuseFallocateIn.length, true), args.getUint32(argsAt + FuseFallocateIn.length + 4, true))
  const kill = mustKill(volume, request)
  if (kill) volume.caller.dropFsetid()
  const done = fallocate(volume.handles.fd(handle), args.getUint32(argsAt + FuseFallocateIn.mode, true), offset, length)
  if (kill) volume.caller.restoreFsetid()
  volume.handles.unpin(handle)
  return done
}

export function lseekFile(volume: Volume, request: DeviceRequest): number {
  const { args, argsAt, reply, replyAt } = request
  const handle = volume.handles.pin(args, argsAt + FuseLseekIn.fh, FILE, request.nodeid)
  if (handle < 0) return handle
  const offset = wide(args.getUint32(argsAt + FuseLseekIn.offset, true), args.getUint32(argsAt + FuseLseekIn.offset + 4, true))
  const found = lseek(volume.handles.fd(handle), offset, args.getUint32(argsAt + FuseLseekIn.whence, true))
  volume.handles.unpin(handle)
  if (found < 0) return Number(found)
  if (typeof found === 'bigint') reply.setBigUint64(replyAt + FuseLseekOut.offset, found, true)
  else setU64(reply, replyAt + FuseLseekOut.offset, found)
  return FuseLseekOut.SIZE
}

/** @returns bytes copied, or −errno */
function copy(volume: Volume, request: DeviceRequest, mostBytes: number): number {
  const { args, argsAt } = request
  const from = volume.handles.pin(args, argsAt + FuseCopyFileRangeIn.fh_in, FILE, request.nodeid)
  if (from < 0) return from
  const to = volume.handles.pin(args, argsAt + FuseCopyFileRangeIn.fh_out, FILE, getU64(args, argsAt + FuseCopyFileRangeIn.nodeid_out))
  if (to < 0) {
    volume.handles.unpin(from)
    return to
  }
  const { small } = volume
  for (let i = 0; i < 8; i += 4) {
    small.view.setUint32(i, args.getUint32(argsAt + FuseCopyFileRangeIn.off_in + i, true), true)
    small.view.setUint32(8 + i, args.getUint32(argsAt + FuseCopyFileRangeIn.off_out + i, true), true)
  }
  const length = Math.min(getU64(args, argsAt + FuseCopyFileRangeIn.len), mostBytes)
  const kill = mustKill(volume, request)
  if (kill) volume.caller.dropFsetid()
  const done = copyFileRange(volume.handles.fd(from), small.address, volume.handles.fd(to), small.address + 8, length, args.getUint32(argsAt + FuseCopyFileRangeIn.flags, true))
  if (kill) volume.caller.restoreFsetid()
  volume.handles.unpin(to)
  volume.handles.unpin(from)
  return done
}

/** The most that a 32-bit count can say, in whole pages. */
const COPY_MOST = 0xffff_f000
/** The most that one call copies anyway (MAX_RW_COUNT). */
const COPY_MOST_64 = Number.MAX_SAFE_INTEGER

export function copyRange(volume: Volume, request: DeviceRequest): number {
  const done = copy(volume, request, COPY_MOST)
  if (done < 0) return done
  request.reply.setUint32(request.replyAt + FuseWriteOut.size, done, true)
  request.reply.setUint32(request.replyAt + FuseWriteOut.padding, 0, true)
  return FuseWriteOut.SIZE
}

export function copyRange64(volume: Volume, request: DeviceRequest): number {
  const done = copy(volume, request, COPY_MOST_64)
  if (done < 0) return done
  setU64(request.reply, request.replyAt + FuseCopyFileRangeOut.bytes_copied, done)
  return FuseCopyFileRangeOut.SIZE
}
