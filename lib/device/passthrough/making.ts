/** Requests that make something with a name: directories, special files, symbolic and hard links. */
import { errno } from '../../errors.js'
import { FuseEntryOut, FuseLinkIn, FuseMkdirIn, FuseMknodIn } from '../../fuse/abi.js'
import { setUmask } from '../../sys/credentials.js'
import { linkat, mkdirat, mknodat, symlinkat } from '../../sys/dir.js'
import { AT_SYMLINK_FOLLOW, S_IFDIR, S_IFLNK } from '../../sys/file.js'
import { getU64 } from '../../wire/u64.js'
import type { DeviceRequest } from '../handlers.js'
import { Flag } from './inode-record.js'
import { Negotiated } from './layout.js'
import { pinDirectory, replyEntry, replyLookup } from './namespace.js'
import { UNIT_BYTES } from './space.js'
import type { Volume } from './volume.js'

/**
 * Reads into `volume.name` the name of something that is to be made, other than a directory.
 * @returns as NameBuffer.readName
 */
export function readNewName(volume: Volume, request: DeviceRequest, offset: number): number {
  const end = volume.name.readName(request, offset)
  return end >= 0 && volume.filter?.refuses(volume.name.memory.bytes) ? -errno.EPERM : end
}

/** Looks up what was just made in a pinned directory, answers with its entry, and unpins the directory. */
function replyMade(volume: Volume, request: DeviceRequest, parent: number): number {
  const { space, inodes } = volume
  if (space === undefined) return replyLookup(volume, request, parent)
  inodes.created = false
  const index = volume.lookup(request.nodeid, volume.fd(parent), volume.name.memory)
  // whoever looked a new file up first noted that it has nothing
  if (index > 0 && (inodes.created || inodes.type(index) === S_IFDIR || inodes.type(index) === S_IFLNK)) space.add(volume.stat.blocks)
  space.settle(parent, volume.fd(parent), 0)
  inodes.unpin(parent)
  return index < 0 ? index : replyEntry(volume, request, index)
}

/**
 * Becomes the caller, with its umask where the kernel left that to us (DONT_MASK: the umask does
 * not count where the directory has a default ACL).
 */
export function enterCaller(volume: Volume, request: DeviceRequest, umask: number): number {
  const failed = volume.caller.enter(request, volume.negotiated(Negotiated.SUPP_GROUP))
  if (failed === 0 && volume.negotiated(Negotiated.POSIX_ACL)) setUmask(umask & 0o777)
  return failed
}

export function leaveCaller(volume: Volume): void {
  if (volume.negotiated(Negotiated.POSIX_ACL)) setUmask(0)
  volume.caller.leave()
}

export function mkdir(volume: Volume, request: DeviceRequest): number {
  const { args, argsAt } = request
  const end = volume.name.readName(request, FuseMkdirIn.SIZE)
  if (end < 0) return end
  if (volume.filter?.hides(volume.name.memory.bytes)) return -errno.EPERM
  const mode = args.getUint32(argsAt + FuseMkdirIn.mode, true)
  const umask = args.getUint32(argsAt + FuseMkdirIn.umask, true)
  const admitted = volume.space === undefined ? 0 : volume.space.admit(UNIT_BYTES)
  if (admitted < 0) return admitted
  const done = mkdirIn(volume, request, mode, umask)
  volume.space?.cancel(admitted)
  return done
}

function mkdirIn(volume: Volume, request: DeviceRequest, mode: number, umask: number): number {
  const parent = pinDirectory(volume, request.nodeid)
  if (parent < 0) return parent
  let failed = enterCaller(volume, request, umask)
  if (failed === 0) {
    failed = mkdirat(volume.fd(parent), volume.name.address, mode & 0o7777)
    leaveCaller(volume)
  }
  if (failed === 0) return replyMade(volume, request, parent)
  volume.inodes.unpin(parent)
  return failed
}

export function mknod(volume: Volume, request: DeviceRequest): number {
  const { args, argsAt } = request
  const end = readNewName(volume, request, FuseMknodIn.SIZE)
  if (end < 0) return end
  const mode = args.getUint32(argsAt + FuseMknodIn.mode, true)
  const device = args.getUint32(argsAt + FuseMknodIn.rdev, true)
  const umask = args.getUint32(argsAt + FuseMknodIn.umask, true)
  const full = volume.space === undefined ? 0 : volume.space.full
  if (full < 0) return full
  const parent = pinDirectory(volume, request.nodeid)
  if (parent < 0) return parent
  let failed = enterCaller(volume, request, umask)
  if (failed === 0) {
    failed = mknodat(volume.fd(parent), volume.name.address, mode, device)
    leaveCaller(volume)
  }
  if (failed === 0) return replyMade(volume, request, parent)
  volume.inodes.unpin(parent)
  return failed
}

export function symlink(volume: Volume, request: DeviceRequest): number {
  const nameEnd = readNewName(volume, request, 0)
  if (nameEnd < 0) return nameEnd
  const end = volume.path.readString(request, nameEnd)
  if (end < 0) return end
  const admitted = volume.space === undefined ? 0 : volume.space.admit(UNIT_BYTES)
  if (admitted < 0) return admitted
  const done = symlinkIn(volume, request)
  volume.space?.cancel(admitted)
  return done
}

function symlinkIn(volume: Volume, request: DeviceRequest): number {
  const parent = pinDirectory(volume, request.nodeid)
  if (parent < 0) return parent
  let failed = volume.caller.enter(request, volume.negotiated(Negotiated.SUPP_GROUP))
  if (failed === 0) {
    failed = symlinkat(volume.path.address, volume.fd(parent), volume.name.address)
    volume.caller.leave()
  }
  if (failed === 0) return replyMade(volume, request, parent)
  volume.inodes.unpin(parent)
  return failed
}

/**
 * The kernel takes the attributes in an answer to LINK for the newest, though it may have been told
 * of a change meanwhile (create_new_entry in fs/fuse/dir.c): it shall ask again.
 */
function forgetAttributes({ reply, replyAt }: DeviceRequest): void {
  reply.setUint32(replyAt + FuseEntryOut.attr_valid, 0, true)
}

export function link(volume: Volume, request: DeviceRequest): number {
  const end = readNewName(volume, request, FuseLinkIn.SIZE)
  if (end < 0) return end
  const index = volume.inodes.pin(getU64(request.args, request.argsAt + FuseLinkIn.oldnodeid))
  if (index < 0) return index
  const full = volume.space === undefined ? 0 : volume.space.full
  const fd = full < 0 ? full : volume.fd(index)
  const parent = fd < 0 ? fd : pinDirectory(volume, request.nodeid)
  let done = parent
  if (parent >= 0) {
    volume.procPath.set(fd)
    done = linkat(volume.procFd, volume.procPath.digits, volume.fd(parent), volume.name.address, AT_SYMLINK_FOLLOW)
    // a file made without a name has one now
    if (done === 0) volume.inodes.clearFlags(index, Flag.GONE | Flag.NAMELESS)
    if (done === 0) volume.space?.settle(parent, volume.fd(parent), 0)
    if (done === 0) done = replyLookup(volume, request, parent)
    else volume.inodes.unpin(parent)
    if (done > 0 && volume.coherent) forgetAttributes(request)
  }
  volume.inodes.unpin(index)
  return done
}
