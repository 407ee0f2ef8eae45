/** Requests on the data of open files: reading, writing, and getting it to the disk. */
import { errno } from '../../errors.js'
import {
  FUSE_FSYNC_FDATASYNC, FUSE_WRITE_CACHE, FUSE_WRITE_KILL_SUIDGID, FuseFlushIn, FuseFsyncIn, FuseReadIn, FuseWriteIn, FuseWriteOut,
} from '../../fuse/abi.js'
import { dup, fdatasync, fsync, lseek, O_APPEND, preadv2, pwritev2, RWF_APPEND, RWF_NOWAIT, wide } from '../../sys/file.js'
import { close } from '../../sys/io.js'
import { MAY_BLOCK, type DeviceRequest } from '../handlers.js'
import { settleSpace } from './file-ranges.js'
import { DIRECTORY, FILE, HandleFlag } from './handle-table.js'
import { Negotiated } from './layout.js'
import { dropPrivileges, restorePrivileges } from './privileges.js'
import type { Volume } from './volume.js'

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
  // a driver may give more room than it asks to be filled
  return Math.min(done, args.getUint32(argsAt + FuseReadIn.size, true))
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
  if (args.getUint32(argsAt + FuseWriteIn.size, true) !== request.payloadBytes) return -errno.EINVAL
  const handle = volume.handles.pin(args, argsAt + FuseWriteIn.fh, FILE, request.nodeid)
  if (handle < 0) return handle
  if (!request.mayBlock && (volume.handles.flags(handle) & (HandleFlag.DIRECT | HandleFlag.SYNC)) !== 0) {
    volume.handles.unpin(handle)
    return MAY_BLOCK
  }
  const writeFlags = args.getUint32(argsAt + FuseWriteIn.write_flags, true)
  // a page of the cache has its place; only a write as such goes to the end, wherever that is by now. With the write-back
  // cache that is where the kernel says: it may have pages before it that it has not written yet
  const append = (writeFlags & FUSE_WRITE_CACHE) === 0 && (args.getUint32(argsAt + FuseWriteIn.flags, true) & O_APPEND) !== 0 && !volume.negotiated(Negotiated.WRITEBACK)
  const kill = (writeFlags & FUSE_WRITE_KILL_SUIDGID) !== 0
  const offset = wide(args.getUint32(argsAt + FuseWriteIn.offset, true), args.getUint32(argsAt + FuseWriteIn.offset + 4, true))
  const fd = volume.handles.fd(handle)
  const admitted = volume.space === undefined ? 0 : append ? volume.space.admit(request.payloadBytes) : volume.space.admitRange(fd, offset, request.payloadBytes)
  let done = admitted
  if (admitted >= 0) {
    if (kill) dropPrivileges(volume, request, fd)
    done = pwritev2(fd, request.payloadIov, request.payloadIovCount, offset, append ? RWF_APPEND : 0)
    if (kill) restorePrivileges(volume, request.nodeid)
    settleSpace(volume, request.nodeid, fd, admitted)
  }
  volume.handles.unpin(handle)
  if (done < 0) return done
  if (typeof offset === 'number') volume.noteEnd(request.nodeid, offset + done)
  request.reply.setUint32(request.replyAt + FuseWriteOut.size, done, true)
  request.reply.setUint32(request.replyAt + FuseWriteOut.padding, 0, true)
  return FuseWriteOut.SIZE
}

/** A close of one of the caller's descriptors: what the file system has to say then comes from closing a copy of ours. */
export function flush(volume: Volume, request: DeviceRequest): number {
  const handle = volume.handles.pin(request.args, request.argsAt + FuseFlushIn.fh, FILE, request.nodeid)
  if (handle < 0) return handle
  if (!request.mayBlock && (volume.handles.flags(handle) & HandleFlag.FLUSHES) !== 0 && volume.isLarge(request.nodeid)) {
    volume.handles.unpin(handle)
    return MAY_BLOCK
  }
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
