/** Requests on names: looking up, forgetting, removing. */
import { errno } from '../../errors.js'
import { FuseBatchForgetIn, FuseEntryOut, FuseForgetIn, FuseForgetOne } from '../../fuse/abi.js'
import { unlinkat } from '../../sys/dir.js'
import { AT_REMOVEDIR, readlinkat, S_IFDIR, S_IFLNK } from '../../sys/file.js'
import { getU64 } from '../../wire/u64.js'
import { MAY_BLOCK, NO_REPLY, type DeviceRequest } from '../handlers.js'
import { writeEntryOut, writeNegativeEntry } from './attributes.js'
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

/** fuse_entry_out for an inode whose attributes are in `stat`. */
export function replyEntry(volume: Volume, request: DeviceRequest, index: number): number {
  writeEntryOut(request.reply, request.replyAt, volume.stat, volume.entrySeconds(request.nodeid, index), volume.attrSeconds(index))
  volume.inodes.writeNodeid(request.reply, request.replyAt + FuseEntryOut.nodeid, index)
  return FuseEntryOut.SIZE
}

/** Looks `volume.name` up in the pinned directory, answers with its entry, and unpins the directory. */
export function replyLookup(volume: Volume, request: DeviceRequest, parent: number): number {
  const index = volume.lookup(request.nodeid, volume.fd(parent), volume.name.memory)
  volume.inodes.unpin(parent)
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

function remove(volume: Volume, request: DeviceRequest, flags: number): number {
  const end = volume.name.readName(request, 0)
  if (end < 0) return end
  if (volume.filter !== undefined && (flags === 0 ? volume.filter.refuses(volume.name.memory.bytes) : volume.filter.hides(volume.name.memory.bytes))) return -errno.ENOENT
  const parent = pinDirectory(volume, request.nodeid)
  if (parent < 0) return parent
  const dirFd = volume.fd(parent)
  volume.removal.begin(dirFd, volume.name.address)
  const failed = volume.removal.frees && !request.mayBlock ? MAY_BLOCK : unlinkat(dirFd, volume.name.address, flags)
  volume.removal.end(failed === 0)
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
