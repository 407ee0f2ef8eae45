/** Requests that begin and end the use of a file or directory: opening, making, releasing. */
import { errno } from '../../errors.js'
import {
  FOPEN_DIRECT_IO, FOPEN_NOFLUSH, FOPEN_PARALLEL_DIRECT_WRITES, FOPEN_PASSTHROUGH, FUSE_OPEN_KILL_SUIDGID, FuseCreateIn, FuseEntryOut, FuseOpenIn,
  FuseOpenOut, FuseReleaseIn,
} from '../../fuse/abi.js'
import {
  AT_EACCESS, AT_EMPTY_PATH, faccessat2, O_ACCMODE, O_CREAT, O_DIRECT, O_DIRECTORY, O_DSYNC, O_EXCL, O_LARGEFILE, O_NOATIME, O_NOFOLLOW, O_NONBLOCK,
  O_RDONLY, O_RDWR, O_SYNC, O_TMPFILE, O_TRUNC, O_WRONLY, R_OK, S_IFDIR, S_IFLNK, S_IFREG, W_OK,
} from '../../sys/file.js'
import { close } from '../../sys/io.js'
import { MAY_BLOCK, type DeviceRequest } from '../handlers.js'
import { NO_BACKING } from './backing-files.js'
import { settleSpace } from './file-ranges.js'
import { DIRECTORY, FILE, HandleFlag } from './handle-table.js'
import { Flag } from './inode-record.js'
import { Negotiated } from './layout.js'
import { MountKind } from './mount-table.js'
import { enterCaller, leaveCaller, readNewName } from './making.js'
import { pinDirectory, replyEntry } from './namespace.js'
import { dropPrivileges, restorePrivileges } from './privileges.js'
import type { Volume } from './volume.js'

/** Flags of a request that are passed on; O_NOFOLLOW, O_PATH and the like are not. */
const OPEN_FLAGS = O_ACCMODE | O_TRUNC | O_SYNC | O_DSYNC | O_NONBLOCK | O_LARGEFILE | O_NOATIME

/**
 * The flags to open a file with. O_APPEND is left to each WRITE, because a writable mapping of
 * the file is written back at offsets. With the write-back cache the kernel reads pages of files
 * opened for writing only.
 */
function openFlags(volume: Volume, asked: number): number {
  let flags = asked & OPEN_FLAGS
  if (volume.options.allowDirectIo) flags |= asked & O_DIRECT
  if (volume.options.noatime) flags |= O_NOATIME
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
  // else a FLUSH would find nothing to do: nothing written through this one, or no ->flush below
  const flushes = (flags & O_ACCMODE) !== O_RDONLY && (mount & MountKind.LOCAL) === 0
  if (flushes) about |= HandleFlag.FLUSHES
  const backing = volume.negotiated(Negotiated.PASSTHROUGH) && volume.backing !== undefined ? volume.backing.enter(index, fd) : NO_BACKING
  if (backing > NO_BACKING) about |= HandleFlag.BACKED
  const handle = backing < 0 ? backing : volume.handles.add(fd, FILE, volume.inodes.nodeid(index), about)
  if (handle < 0) {
    if (backing > NO_BACKING) volume.backing!.leave(index)
    close(fd)
    return handle
  }
  let open = flushes ? 0 : FOPEN_NOFLUSH
  // nothing else goes with FOPEN_PASSTHROUGH (FOPEN_PASSTHROUGH_MASK in fs/fuse/iomode.c)
  if (backing > NO_BACKING) return writeOpen(volume, request, at, handle, open | FOPEN_PASSTHROUGH, backing)
  if (!volume.coherent || (mount & MountKind.WATCHED) !== 0) open |= volume.rules.fileOpenFlags
  // cached pages of what was written would be dropped by the next open: do without them and their copy
  if ((flags & O_ACCMODE) === O_WRONLY && volume.negotiated(Negotiated.DIRECT_WRITES)) open |= FOPEN_DIRECT_IO
  if ((flags & O_DIRECT) !== 0) open |= FOPEN_PARALLEL_DIRECT_WRITES
  return writeOpen(volume, request, at, handle, open, NO_BACKING)
}

/** O_NOATIME is for the owner of a file and for root. The kernel has looked at who asked for it; we may be neither. */
function openNoatime(volume: Volume, index: number, flags: number): number {
  const fd = volume.open(index, flags)
  return fd === -errno.EPERM && (flags & O_NOATIME) !== 0 ? volume.open(index, flags & ~O_NOATIME) : fd
}

/**
 * With `direct`: whether a file that is to be written has to wait until there is room. The kernel writes
 * it itself, and nobody here could wait then.
 * @param index of the file, or of its directory, pinned
 */
function waitsForRoom(volume: Volume, request: DeviceRequest, index: number, flags: number): boolean {
  if (volume.backing === undefined || !volume.freeing.pending || (flags & O_ACCMODE) === O_RDONLY) return false
  if (!volume.freeing.isScarce(volume.fd(index))) return false
  if (!request.mayBlock) return true
  volume.freeing.settle()
  return false
}

/** Opens a pinned inode as a file; what is not a regular file has no business here. */
function openFile(volume: Volume, request: DeviceRequest, index: number, asked: number, killPrivileges: boolean): number {
  const type = volume.inodes.type(index)
  if (type === S_IFDIR) return -errno.EISDIR
  if (type === S_IFLNK) return -errno.ELOOP
  if (type !== S_IFREG) return -errno.ENXIO
  if (volume.options.readonly && ((asked & O_ACCMODE) !== O_RDONLY || (asked & O_TRUNC) !== 0)) return -errno.EROFS
  const cutsMuch = (asked & O_TRUNC) !== 0 && (volume.inodes.flags(index) & Flag.LARGE) !== 0
  if (cutsMuch && !request.mayBlock || waitsForRoom(volume, request, index, asked)) return MAY_BLOCK
  const kill = killPrivileges && (asked & O_TRUNC) !== 0 && dropPrivileges(volume, request, volume.fd(index))
  const fd = openNoatime(volume, index, openFlags(volume, asked))
  if (volume.space !== undefined && fd >= 0 && (asked & O_TRUNC) !== 0) volume.space.settle(index, fd, 0)
  if (cutsMuch && fd >= 0) volume.inodes.clearFlags(index, Flag.LARGE)
  if (kill) restorePrivileges(volume, volume.inodes.nodeid(index))
  return fd
}

export function open(volume: Volume, request: DeviceRequest): number {
  const { args, argsAt, nodeid } = request
  const flags = args.getUint32(argsAt + FuseOpenIn.flags, true)
  const kill = (args.getUint32(argsAt + FuseOpenIn.open_flags, true) & FUSE_OPEN_KILL_SUIDGID) !== 0
  const index = volume.inodes.pin(nodeid)
  if (index < 0) return index
  const fd = openFile(volume, request, index, flags, kill)
  const done = fd < 0 ? fd : replyOpen(volume, request, request.replyAt, fd, index, flags)
  volume.inodes.unpin(index)
  return done
}

export function opendir(volume: Volume, request: DeviceRequest): number {
  const { args, argsAt, nodeid } = request
  const index = volume.inodes.pin(nodeid)
  if (index < 0) return index
  const noatime = volume.options.noatime || volume.options.nodiratime ? O_NOATIME : args.getUint32(argsAt + FuseOpenIn.flags, true) & O_NOATIME
  const fd = volume.inodes.type(index) === S_IFDIR ? openNoatime(volume, index, O_RDONLY | O_DIRECTORY | O_NONBLOCK | noatime) : -errno.ENOTDIR
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
  const done = waitsForRoom(volume, request, parent, flags) ? MAY_BLOCK : createIn(volume, request, volume.fd(parent), flags, mode, umask, kill)
  volume.space?.settle(parent, volume.fd(parent), 0)
  volume.inodes.unpin(parent)
  return done
}

/**
 * A CREATE found a file that the kernel did not know of, and so has not checked: whether the caller
 * may open it. Only one of its groups is known here; the kernel knows all, and after ESTALE it looks
 * the name up and asks for an OPEN (do_filp_open in fs/namei.c).
 * @param index of the file, pinned
 * @returns 0, or −errno
 */
function checkAppeared(volume: Volume, request: DeviceRequest, index: number, flags: number): number {
  const fd = volume.fd(index)
  if (fd < 0) return fd
  let failed = volume.caller.enter(request, true)
  if (failed < 0) return failed
  const reads = (flags & O_ACCMODE) !== O_WRONLY
  const writes = (flags & O_ACCMODE) !== O_RDONLY || (flags & O_TRUNC) !== 0
  failed = faccessat2(fd, volume.empty, (reads ? R_OK : 0) | (writes ? W_OK : 0), AT_EACCESS | AT_EMPTY_PATH)
  volume.caller.leave()
  return failed === -errno.EACCES ? -errno.ESTALE : failed
}

function createIn(volume: Volume, request: DeviceRequest, dirFd: number, flags: number, mode: number, umask: number, kill: boolean): number {
  const name = volume.name.address
  // O_EXCL always: what exists already is opened as OPEN would, after the kernel's permission check
  let fd = -errno.EEXIST
  const full = volume.space === undefined ? 0 : volume.space.full
  if (volume.options.readonly) {
    fd = (flags & O_EXCL) !== 0 ? -errno.EROFS : fd
  } else if (full < 0) {
    // what exists can be opened all the same
    fd = volume.statName(dirFd, name) === 0 ? fd : full
  } else {
    const failed = enterCaller(volume, request, umask)
    if (failed < 0) return failed
    fd = volume.openat(dirFd, name, openFlags(volume, flags) & ~O_TRUNC | O_CREAT | O_EXCL | O_NOFOLLOW, mode & 0o7777)
    leaveCaller(volume)
  }
  if (fd >= 0) {
    const index = volume.adopt(fd, request.nodeid, volume.name.memory)
    if (index >= 0 && volume.space !== undefined && volume.inodes.created) volume.space.add(volume.stat.blocks)
    if (index >= 0) return replyCreated(volume, request, index, fd, flags)
    close(fd)
    return index
  }
  if (fd !== -errno.EEXIST || (flags & O_EXCL) !== 0) return fd
  const index = volume.lookup(request.nodeid, dirFd, volume.name.memory)
  if (index < 0) return index === -errno.ENOENT && volume.options.readonly ? -errno.EROFS : index
  volume.inodes.pinIndex(index)
  fd = checkAppeared(volume, request, index, flags)
  if (fd === 0) fd = openFile(volume, request, index, flags, kill)
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
  let done = volume.space === undefined ? 0 : volume.space.full
  if (waitsForRoom(volume, request, parent, flags)) done = MAY_BLOCK
  if (done === 0) done = enterCaller(volume, request, args.getUint32(argsAt + FuseCreateIn.umask, true))
  if (done === 0) {
    const fd = volume.openat(volume.fd(parent), volume.dot, openFlags(volume, flags) & ~O_TRUNC | O_TMPFILE | flags & O_EXCL, mode & 0o7777)
    leaveCaller(volume)
    done = fd
    if (fd >= 0) {
      const index = volume.adopt(fd, request.nodeid, undefined)
      done = index
      if (index >= 0 && volume.space !== undefined) {
        volume.space.add(volume.stat.blocks)
        volume.inodes.setFlags(index, Flag.GONE)
      }
      if (index >= 0) done = replyCreated(volume, request, index, fd, flags)
      else close(fd)
    }
  }
  volume.inodes.unpin(parent)
  return done
}

/** If closing a released file takes long the last one to use it is told so. */
function noteRelease(volume: Volume, nodeid: number, handle: number): void {
  const { inodes, handles } = volume
  if ((inodes.flags(inodes.indexOf(nodeid)) & Flag.NAMELESS) === 0) return
  const index = inodes.pin(nodeid)
  if (index < 0) return
  // what the kernel has written itself was not seen
  if ((handles.flags(handle) & HandleFlag.BACKED) !== 0 && volume.statFd(handles.fd(handle)) === 0) volume.note(index)
  // with another descriptor it is that one's end which takes long
  if ((inodes.flags(index) & Flag.LARGE) !== 0 && inodes.fd(index) < 0) handles.setFlags(handle, HandleFlag.FREES)
  inodes.unpin(index)
}

function releaseHandle(volume: Volume, request: DeviceRequest, kind: number): number {
  const handle = volume.handles.pin(request.args, request.argsAt + FuseReleaseIn.fh, kind, request.nodeid)
  if (handle < 0) return handle
  const released = volume.handles.release(handle)
  if (kind === FILE && released) noteRelease(volume, request.nodeid, handle)
  if (kind === FILE) settleSpace(volume, request.nodeid, volume.handles.fd(handle), 0)
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
