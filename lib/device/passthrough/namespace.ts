/** Requests on names: looking up, making, removing, renaming, linking. */
import { errno } from '../../errors.js'
import {
  FuseBatchForgetIn, FuseEntryOut, FuseForgetIn, FuseForgetOne, FuseLinkIn, FuseMkdirIn, FuseMknodIn, FuseRename2In, FuseRenameIn,
} from '../../fuse/abi.js'
import { setUmask } from '../../sys/credentials.js'
import { linkat, mkdirat, mknodat, RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT, renameat2, symlinkat, unlinkat } from '../../sys/dir.js'
import { AT_REMOVEDIR, AT_SYMLINK_FOLLOW, readlinkat, S_IFDIR, S_IFLNK } from '../../sys/file.js'
import { getU64 } from '../../wire/u64.js'
import { NO_REPLY, type DeviceRequest } from '../handlers.js'
import { writeEntryOut, writeNegativeEntry } from './attributes.js'
import { NO_ID } from './id-map.js'
import { Flag } from './inode-record.js'
import { Negotiated } from './layout.js'
import type { NameFilter } from './name-filter.js'
import { UNIT_BYTES } from './space.js'
import type { Volume } from './volume.js'

const EINVAL = -errno.EINVAL

/**
 * Pins a directory and opens its descriptor.
 * @returns the index, or −errno; the descriptor is `volume.fd(index)`, which cannot fail then
 */
export function pinDirectory(volume: Volume, nodeid: number): number {
  const index = volume.inodes.pin(nodeid)
  if (index < 0) return index
  let failed = 0
  if (volume.inodes.type(index) !== S_IFDIR) failed = -errno.ENOTDIR
  else failed = Math.min(0, volume.fd(index))
  if (failed === 0 && volume.filter !== undefined && !volume.hasPlainNames(index)) failed = -errno.EACCES
  if (failed === 0) return index
  volume.inodes.unpin(index)
  return failed
}

/**
 * Reads into `volume.name` the name of something that is to be made, other than a directory.
 * @returns as NameBuffer.readName
 */
export function readNewName(volume: Volume, request: DeviceRequest, offset: number): number {
  const end = volume.name.readName(request, offset)
  return end >= 0 && volume.filter?.refuses(volume.name.memory.bytes) ? -errno.EPERM : end
}

/** fuse_entry_out for an inode whose attributes are in `stat`. */
export function replyEntry(volume: Volume, request: DeviceRequest, index: number): number {
  writeEntryOut(request.reply, request.replyAt, volume.stat, volume.entrySeconds(request.nodeid, index), volume.attrSeconds(index))
  volume.inodes.writeNodeid(request.reply, request.replyAt + FuseEntryOut.nodeid, index)
  return FuseEntryOut.SIZE
}

/** Looks `volume.name` up in the pinned directory, answers with its entry, and unpins the directory. */
function replyLookup(volume: Volume, request: DeviceRequest, parent: number): number {
  const index = volume.lookup(request.nodeid, volume.fd(parent), volume.name.memory)
  volume.inodes.unpin(parent)
  return index < 0 ? index : replyEntry(volume, request, index)
}

/** The same for what was just made there. */
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

export function lookup(volume: Volume, request: DeviceRequest): number {
  const end = volume.name.readName(request, 0)
  if (end < 0) return end
  const parent = pinDirectory(volume, request.nodeid)
  if (parent < 0) return parent
  const done = replyLookup(volume, request, parent)
  if (done !== -errno.ENOENT || !volume.coherent) return done
  // the driver of a directory that is watched is told when the name appears
  const seconds = volume.attrSeconds(parent)
  return seconds === 0 ? done : writeNegativeEntry(request.reply, request.replyAt, seconds)
}

export function forget(volume: Volume, request: DeviceRequest): number {
  volume.inodes.forget(request.nodeid, getU64(request.args, request.argsAt + FuseForgetIn.nlookup))
  return NO_REPLY
}

export function batchForget(volume: Volume, request: DeviceRequest): number {
  const { args, argsAt } = request
  const room = Math.floor((request.argsBytes - FuseBatchForgetIn.SIZE) / FuseForgetOne.SIZE)
  const count = Math.min(args.getUint32(argsAt + FuseBatchForgetIn.count, true), room)
  for (let i = 0, at = argsAt + FuseBatchForgetIn.SIZE; i < count; i++, at += FuseForgetOne.SIZE) {
    volume.inodes.forget(getU64(args, at + FuseForgetOne.nodeid), getU64(args, at + FuseForgetOne.nlookup))
  }
  return NO_REPLY
}

export function readlink(volume: Volume, request: DeviceRequest): number {
  const index = volume.inodes.pin(request.nodeid)
  if (index < 0) return index
  let done = EINVAL
  if (volume.inodes.type(index) === S_IFLNK) {
    const fd = volume.fd(index)
    done = fd < 0 ? fd : readlinkat(fd, volume.empty, request.replyAddress, request.replyBytes)
  }
  volume.inodes.unpin(index)
  return done
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

function remove(volume: Volume, request: DeviceRequest, flags: number): number {
  const end = volume.name.readName(request, 0)
  if (end < 0) return end
  if (volume.filter !== undefined && (flags === 0 ? volume.filter.refuses(volume.name.memory.bytes) : volume.filter.hides(volume.name.memory.bytes))) return -errno.ENOENT
  const parent = pinDirectory(volume, request.nodeid)
  if (parent < 0) return parent
  const dirFd = volume.fd(parent)
  const counted = volume.beforeRemoval(volume.space, dirFd, volume.name.address)
  const kept = volume.keep(dirFd, volume.name.address)
  const failed = unlinkat(dirFd, volume.name.address, flags)
  volume.removed(volume.space, counted, failed === 0)
  volume.kept(kept, failed === 0)
  volume.space?.settle(parent, dirFd, 0)
  volume.inodes.unpin(parent)
  return failed
}

export function unlink(volume: Volume, request: DeviceRequest): number {
  return remove(volume, request, 0)
}

export function rmdir(volume: Volume, request: DeviceRequest): number {
  return remove(volume, request, AT_REMOVEDIR)
}

/**
 * Whether `volume.name` may become `volume.newName`. With `only` it depends on what they are.
 * @returns 0 or −errno
 */
function mayMove(volume: Volume, filter: NameFilter, dirFd: number, newDirFd: number, flags: number): number {
  const { name, newName } = volume
  const exchanges = (flags & RENAME_EXCHANGE) !== 0
  if (filter.hides(name.memory.bytes)) return -errno.ENOENT
  if (filter.hides(newName.memory.bytes)) return exchanges ? -errno.ENOENT : -errno.EPERM
  const refusesOld = filter.refuses(name.memory.bytes)
  const refusesNew = filter.refuses(newName.memory.bytes)
  if (!refusesOld && !refusesNew) return 0
  // a whiteout is no directory
  if (refusesOld && (flags & RENAME_WHITEOUT) !== 0) return -errno.EPERM
  const failed = volume.statName(dirFd, name.address)
  if (failed < 0) return failed
  if (volume.stat.type !== S_IFDIR) return refusesOld ? -errno.ENOENT : -errno.EPERM
  if (!exchanges) return 0
  const missing = volume.statName(newDirFd, newName.address)
  if (missing < 0) return missing
  if (volume.stat.type !== S_IFDIR) return refusesNew ? -errno.ENOENT : -errno.EPERM
  return 0
}

function move(volume: Volume, request: DeviceRequest, newNodeid: number, flags: number, namesAt: number): number {
  const oldEnd = volume.name.readName(request, namesAt)
  if (oldEnd < 0) return oldEnd
  const end = volume.newName.readName(request, oldEnd)
  if (end < 0) return end
  const parent = pinDirectory(volume, request.nodeid)
  if (parent < 0) return parent
  const newParent = pinDirectory(volume, newNodeid)
  if (newParent < 0) {
    volume.inodes.unpin(parent)
    return newParent
  }
  const newDirFd = volume.fd(newParent)
  const refused = volume.filter === undefined ? 0 : mayMove(volume, volume.filter, volume.fd(parent), newDirFd, flags)
  if (refused < 0) {
    volume.inodes.unpin(newParent)
    volume.inodes.unpin(parent)
    return refused
  }
  const replaces = (flags & (RENAME_NOREPLACE | RENAME_EXCHANGE)) === 0
  const counted = replaces ? volume.beforeRemoval(volume.space, newDirFd, volume.newName.address) : 0
  const kept = replaces ? volume.keep(newDirFd, volume.newName.address) : 0
  // a whiteout is a new inode; its owner's groups are not sent, and the kernel has checked what they permit
  const makes = (flags & RENAME_WHITEOUT) !== 0 && request.uid !== NO_ID
  let failed = makes ? volume.caller.enter(request, false) : 0
  if (failed === 0) failed = renameat2(volume.fd(parent), volume.name.address, newDirFd, volume.newName.address, flags)
  if (makes) volume.caller.leave()
  if (replaces) volume.removed(volume.space, counted, failed === 0)
  volume.kept(kept, failed === 0)
  volume.space?.settle(parent, volume.fd(parent), 0)
  volume.space?.settle(newParent, newDirFd, 0)
  if (failed === 0) {
    volume.moved(newNodeid, newDirFd, volume.newName.memory)
    if ((flags & RENAME_EXCHANGE) !== 0) volume.moved(request.nodeid, volume.fd(parent), volume.name.memory)
  }
  volume.inodes.unpin(newParent)
  volume.inodes.unpin(parent)
  return failed
}

export function rename(volume: Volume, request: DeviceRequest): number {
  return move(volume, request, getU64(request.args, request.argsAt + FuseRenameIn.newdir), 0, FuseRenameIn.SIZE)
}

export function rename2(volume: Volume, request: DeviceRequest): number {
  const flags = request.args.getUint32(request.argsAt + FuseRename2In.flags, true)
  if ((flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT)) !== 0) return EINVAL
  return move(volume, request, getU64(request.args, request.argsAt + FuseRename2In.newdir), flags, FuseRename2In.SIZE)
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
    if (done === 0 && volume.space !== undefined) {
      volume.inodes.clearFlags(index, Flag.GONE)
      volume.space.settle(parent, volume.fd(parent), 0)
    }
    if (done === 0) done = replyLookup(volume, request, parent)
    else volume.inodes.unpin(parent)
    if (done > 0 && volume.coherent) forgetAttributes(request)
  }
  volume.inodes.unpin(index)
  return done
}
