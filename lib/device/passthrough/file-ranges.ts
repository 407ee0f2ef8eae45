/** Requests on ranges of open files: allocating, finding holes, copying. */
import { FuseCopyFileRangeIn, FuseCopyFileRangeOut, FuseFallocateIn, FuseLseekIn, FuseLseekOut, FuseWriteOut } from '../../fuse/abi.js'
import { copyFileRange, fallocate, lseek, wide } from '../../sys/file.js'
import { getU64, setU64 } from '../../wire/u64.js'
import { MAY_BLOCK, type DeviceRequest } from '../handlers.js'
import { FILE, HandleFlag } from './handle-table.js'
import { dropUnlessRoot, restorePrivileges } from './privileges.js'
import type { Volume } from './volume.js'

/** With `max_size`, after a change of a file: counts it. @param admitted see Space.settle */
export function settleSpace(volume: Volume, nodeid: number, fd: number, admitted: number): void {
  const { space, inodes } = volume
  if (space === undefined) return
  const index = inodes.pin(nodeid)
  if (index < 0) {
    space.cancel(admitted)
    return
  }
  space.settle(index, fd, admitted)
  inodes.unpin(index)
}

export function fallocateFile(volume: Volume, request: DeviceRequest): number {
  const { args, argsAt } = request
  const handle = volume.handles.pin(args, argsAt + FuseFallocateIn.fh, FILE, request.nodeid)
  if (handle < 0) return handle
  const offset = wide(args.getUint32(argsAt + FuseFallocateIn.offset, true), args.getUint32(argsAt + FuseFallocateIn.offset + 4, true))
  const length = wide(args.getUint32(argsAt + FuseFallocateIn.length, true), args.getUint32(argsAt + FuseFallocateIn.length + 4, true))
  const mode = args.getUint32(argsAt + FuseFallocateIn.mode, true)
  const fd = volume.handles.fd(handle)
  const admitted = volume.space === undefined || (mode & FALLOC_FL_PUNCH_HOLE) !== 0 ? 0 : volume.space.admitRange(fd, offset, length)
  let done = admitted
  if (admitted >= 0) {
    const kill = dropUnlessRoot(volume, request, fd)
    done = fallocate(fd, mode, offset, length)
    if (kill) restorePrivileges(volume, request.nodeid)
    settleSpace(volume, request.nodeid, fd, admitted)
  }
  volume.handles.unpin(handle)
  if (done === 0) volume.noteEnd(request.nodeid, Number(offset) + Number(length))
  return done
}

const FALLOC_FL_PUNCH_HOLE = 2
const SEEK_HOLE = 4

export function lseekFile(volume: Volume, request: DeviceRequest): number {
  const { args, argsAt, reply, replyAt } = request
  const handle = volume.handles.pin(args, argsAt + FuseLseekIn.fh, FILE, request.nodeid)
  if (handle < 0) return handle
  const offset = wide(args.getUint32(argsAt + FuseLseekIn.offset, true), args.getUint32(argsAt + FuseLseekIn.offset + 4, true))
  const whence = args.getUint32(argsAt + FuseLseekIn.whence, true)
  if (!request.mayBlock && whence === SEEK_HOLE && (volume.handles.flags(handle) & HandleFlag.MEMORY) !== 0 && volume.isLarge(request.nodeid)) {
    // a tmpfs looks at page after page
    volume.handles.unpin(handle)
    return MAY_BLOCK
  }
  const found = lseek(volume.handles.fd(handle), offset, whence)
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
  let length = Math.min(getU64(args, argsAt + FuseCopyFileRangeIn.len), mostBytes)
  const toFd = volume.handles.fd(to)
  let done = 0
  if (volume.space !== undefined) {
    // fewer bytes are no error, and what is beyond the source takes no room
    length = Math.min(length, COUNTED_COPY)
    done = volume.space.admitRange(toFd, getU64(args, argsAt + FuseCopyFileRangeIn.off_out), length)
  }
  if (done >= 0) {
    const admitted = done
    const kill = dropUnlessRoot(volume, request, toFd)
    done = copyFileRange(volume.handles.fd(from), small.address, toFd, small.address + 8, length, args.getUint32(argsAt + FuseCopyFileRangeIn.flags, true))
    if (kill) restorePrivileges(volume, getU64(args, argsAt + FuseCopyFileRangeIn.nodeid_out))
    settleSpace(volume, getU64(args, argsAt + FuseCopyFileRangeIn.nodeid_out), toFd, admitted)
    if (done > 0) volume.noteEnd(getU64(args, argsAt + FuseCopyFileRangeIn.nodeid_out), getU64(args, argsAt + FuseCopyFileRangeIn.off_out) + done)
  }
  volume.handles.unpin(to)
  volume.handles.unpin(from)
  return done
}

/** The most that one copy takes with `max_size`. */
const COUNTED_COPY = 1 << 20

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
