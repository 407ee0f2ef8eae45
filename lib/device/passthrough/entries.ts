/**
 * READDIR and READDIRPLUS: getdents64 into scratch memory, entry by entry into the reply.
 *
 * An offset on the wire is d_off as the file system gave it, opaque and up to 63 bits wide. The
 * descriptor's position is remembered, so that reading on needs no lseek.
 */
import { errno } from '../../errors.js'
import { direntSize, FuseDirent, FuseDirentplus, FuseEntryOut, FuseReadIn } from '../../fuse/abi.js'
import { getdents64, LinuxDirent64 } from '../../sys/dir.js'
import { lseek, S_IFDIR, wide } from '../../sys/file.js'
import type { DeviceRequest } from '../handlers.js'
import { writeEmptyEntry, writeEntryOut } from './attributes.js'
import { DIRECTORY } from './handle-table.js'
import type { NameFilter } from './name-filter.js'
import type { Volume } from './volume.js'

const SEEK_SET = 0
/** The longest struct linux_dirent64: 19 bytes, a name of 255 and its NUL, padded. */
const LONGEST_DIRENT = 280
const DOT = 0x2e
const DT_UNKNOWN = 0
const DT_DIR = 4

export function readdir(volume: Volume, request: DeviceRequest): number {
  return readEntries(volume, request, FuseDirent.SIZE)
}

export function readdirplus(volume: Volume, request: DeviceRequest): number {
  return readEntries(volume, request, FuseDirentplus.SIZE)
}

function readEntries(volume: Volume, request: DeviceRequest, headerBytes: number): number {
  const { args, argsAt } = request
  const handle = volume.handles.pin(args, argsAt + FuseReadIn.fh, DIRECTORY, request.nodeid)
  if (handle < 0) return handle
  const room = Math.min(args.getUint32(argsAt + FuseReadIn.size, true), request.replyBytes)
  volume.handles.lockPosition(handle)
  const done = fill(volume, request, handle, headerBytes, room)
  volume.handles.unlockPosition(handle)
  volume.handles.unpin(handle)
  return done
}

/** @returns bytes written, or −errno when that was the first thing that happened */
function fill(volume: Volume, request: DeviceRequest, handle: number, headerBytes: number, room: number): number {
  const { args, argsAt } = request
  const fd = volume.handles.fd(handle)
  const low = args.getUint32(argsAt + FuseReadIn.offset, true)
  const high = args.getUint32(argsAt + FuseReadIn.offset + 4, true)
  if (!volume.handles.standsAt(handle, low, high)) {
    const moved = lseek(fd, wide(low, high), SEEK_SET)
    if (moved < 0) return Number(moved)
    volume.handles.setPosition(handle, low, high)
  }
  const { view, address, lengthBytes } = volume.dirents
  let used = 0
  for (;;) {
    // about as much as will fit: what does not must be read again
    const want = Math.max(LONGEST_DIRENT, Math.min(lengthBytes, Math.floor((room - used) * FuseDirent.SIZE / headerBytes)))
    const got = getdents64(fd, address, want)
    if (got <= 0) return used > 0 ? used : got
    volume.handles.losePosition(handle)
    let last = 0
    for (let at = 0; at < got;) {
      if (volume.filter !== undefined && !isShown(volume, volume.filter, fd, at)) {
        last = at
        at += view.getUint16(at + LinuxDirent64.d_reclen, true)
        continue
      }
      const bytes = writeEntry(volume, request, fd, at, used, headerBytes, room)
      if (bytes === 0) return used > 0 ? used : -errno.EINVAL
      used += bytes
      last = at
      at += view.getUint16(at + LinuxDirent64.d_reclen, true)
    }
    // all that was read is answered: the descriptor stands behind the last entry
    volume.handles.setPosition(handle, view.getInt32(last + LinuxDirent64.d_off, true), view.getInt32(last + LinuxDirent64.d_off + 4, true))
    if (room - used < headerBytes + 8) return used
  }
}

/** Whether the entry at `at` of the dirents exists for the mount. */
function isShown(volume: Volume, filter: NameFilter, fd: number, at: number): boolean {
  const { view, bytes, address } = volume.dirents
  const nameAt = at + LinuxDirent64.d_name
  if (isDots(bytes, nameAt)) return true
  if (filter.hides(bytes, nameAt)) return false
  if (!filter.refuses(bytes, nameAt)) return true
  const type = view.getUint8(at + LinuxDirent64.d_type)
  if (type !== DT_UNKNOWN) return type === DT_DIR
  return volume.statName(fd, address + nameAt) === 0 && volume.stat.type === S_IFDIR
}

/** Whether the name is `.` or `..`. */
function isDots(bytes: Uint8Array, nameAt: number): boolean {
  return bytes[nameAt] === DOT && (bytes[nameAt + 1] === 0 || bytes[nameAt + 1] === DOT && bytes[nameAt + 2] === 0)
}

/**
 * Writes the entry at `at` of the dirents behind `used` bytes of the reply.
 * @returns its size, or 0 when it does not fit
 */
function writeEntry(volume: Volume, request: DeviceRequest, fd: number, at: number, used: number, headerBytes: number, room: number): number {
  const { view, bytes } = volume.dirents
  const nameAt = at + LinuxDirent64.d_name
  let nameBytes = 0
  while (bytes[nameAt + nameBytes] !== 0) nameBytes++
  const size = direntSize(headerBytes, nameBytes)
  if (size > room - used) return 0
  const { reply } = request
  let to = request.replyAt + used
  if (headerBytes === FuseDirentplus.SIZE) {
    // an inode that cannot be looked up now is still an entry: the kernel asks when it needs it
    const index = isDots(bytes, nameAt) ? 0 : volume.lookup(request.nodeid, fd, volume.dirents, nameAt)
    if (index > 0) {
      writeEntryOut(reply, to, volume.stat, volume.entrySeconds(request.nodeid, index), volume.attrSeconds(index))
      volume.inodes.writeNodeid(reply, to + FuseEntryOut.nodeid, index)
    } else {
      writeEmptyEntry(reply, to, view.getUint32(at, true), view.getUint32(at + 4, true), view.getUint8(at + LinuxDirent64.d_type))
    }
    to += FuseEntryOut.SIZE
  }
  reply.setUint32(to + FuseDirent.ino, view.getUint32(at + LinuxDirent64.d_ino, true), true)
  reply.setUint32(to + FuseDirent.ino + 4, view.getUint32(at + LinuxDirent64.d_ino + 4, true), true)
  reply.setUint32(to + FuseDirent.off, view.getUint32(at + LinuxDirent64.d_off, true), true)
  reply.setUint32(to + FuseDirent.off + 4, view.getUint32(at + LinuxDirent64.d_off + 4, true), true)
  reply.setUint32(to + FuseDirent.namelen, nameBytes, true)
  reply.setUint32(to + FuseDirent.type, view.getUint8(at + LinuxDirent64.d_type), true)
  to += FuseDirent.SIZE
  const end = request.replyAt + used + size
  for (let i = 0; i < nameBytes; i++) reply.setUint8(to + i, bytes[nameAt + i]!)
  for (let i = to + nameBytes; i < end; i++) reply.setUint8(i, 0)
  return size
}
