/** RENAME and RENAME2. */
import { errno } from '../../errors.js'
import { FuseRename2In, FuseRenameIn } from '../../fuse/abi.js'
import { RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT, renameat2 } from '../../sys/dir.js'
import { S_IFDIR } from '../../sys/file.js'
import { getU64 } from '../../wire/u64.js'
import { MAY_BLOCK, type DeviceRequest } from '../handlers.js'
import { NO_ID } from './id-map.js'
import type { NameFilter } from './name-filter.js'
import { pinDirectory } from './namespace.js'
import type { Volume } from './volume.js'

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
  if (replaces) volume.removal.begin(newDirFd, volume.newName.address)
  // a whiteout is a new inode; its owner's groups are not sent, and the kernel has checked what they permit
  const makes = (flags & RENAME_WHITEOUT) !== 0 && request.uid !== NO_ID
  let failed = replaces && volume.removal.frees && !request.mayBlock ? MAY_BLOCK : 0
  if (failed === 0 && makes) failed = volume.caller.enter(request, false)
  if (failed === 0) failed = renameat2(volume.fd(parent), volume.name.address, newDirFd, volume.newName.address, flags)
  if (makes) volume.caller.leave()
  if (replaces) volume.removal.end(failed === 0)
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
  if ((flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT)) !== 0) return -errno.EINVAL
  return move(volume, request, getU64(request.args, request.argsAt + FuseRename2In.newdir), flags, FuseRename2In.SIZE)
}
