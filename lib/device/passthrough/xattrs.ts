/**
 * Extended attributes.
 *
 * Inodes are reached by the path of their O_PATH descriptor under /proc/self/fd: opening a file
 * for this could block (a FIFO) or do something (a device), and a symbolic link cannot be opened.
 */
import { errno } from '../../errors.js'
import { FUSE_COMPAT_SETXATTR_IN_SIZE, FUSE_SETXATTR_ACL_KILL_SGID, FuseGetxattrIn, FuseGetxattrOut, FuseSetxattrIn } from '../../fuse/abi.js'
import { fchmodat, getxattr, listxattr, removexattr, S_ISGID, setxattr } from '../../sys/file.js'
import type { DeviceRequest } from '../handlers.js'
import { Negotiated } from './layout.js'
import type { Volume } from './volume.js'
import type { XattrMap } from './xattr-map.js'

const ACL_ACCESS = 'system.posix_acl_access'
const ACL_DEFAULT = 'system.posix_acl_default'
const NAME_MAX = 255
const ENOSYS = -errno.ENOSYS

/**
 * Reads the name of an attribute into `volume.path`, as the shared tree calls it. An ACL that the
 * kernel does not enforce must not be set through it either.
 * @returns the offset behind it, or −errno
 */
function readName(volume: Volume, request: DeviceRequest, offset: number): number {
  const end = volume.path.readString(request, offset)
  if (end < 0) return end === -errno.ENOENT ? -errno.EINVAL : end
  if (volume.path.length > NAME_MAX) return -errno.ERANGE
  const acl = volume.path.equals(ACL_ACCESS) || volume.path.equals(ACL_DEFAULT)
  if (acl && !volume.negotiated(Negotiated.POSIX_ACL)) return -errno.EOPNOTSUPP
  if (volume.xattrMap === undefined) return end
  const refused = volume.xattrMap.toServer(volume.path)
  if (refused < 0) return refused
  return volume.path.length > NAME_MAX ? -errno.ERANGE : end
}

/** Pins an inode and sets `procPath` to it. @returns its index, or −errno */
export function pinPath(volume: Volume, nodeid: number): number {
  const index = volume.inodes.pin(nodeid)
  if (index < 0) return index
  const fd = volume.fd(index)
  if (fd < 0) {
    volume.inodes.unpin(index)
    return fd
  }
  volume.procPath.set(fd)
  return index
}

export function setXattr(volume: Volume, request: DeviceRequest): number {
  if (!volume.options.xattr) return ENOSYS
  const { args, argsAt } = request
  const extended = volume.negotiated(Negotiated.SETXATTR_EXT)
  const inBytes = extended ? FuseSetxattrIn.SIZE : FUSE_COMPAT_SETXATTR_IN_SIZE
  if (request.argsBytes < inBytes) return -errno.EINVAL
  const size = args.getUint32(argsAt + FuseSetxattrIn.size, true)
  const flags = args.getUint32(argsAt + FuseSetxattrIn.flags, true)
  const extra = extended ? args.getUint32(argsAt + FuseSetxattrIn.setxattr_flags, true) : 0
  const valueAt = readName(volume, request, inBytes)
  if (valueAt < 0) return valueAt
  if (size > request.argsBytes - request.extensionBytes - valueAt) return -errno.EINVAL
  const index = pinPath(volume, request.nodeid)
  if (index < 0) return index
  let failed = volume.space === undefined ? 0 : volume.space.admit(size)
  if (failed >= 0) {
    const admitted = failed
    failed = setxattr(volume.procPath.address, volume.path.address, request.argsAddress + valueAt, size, flags)
    volume.space?.settle(index, volume.fd(index), admitted)
    if (failed === 0 && (extra & FUSE_SETXATTR_ACL_KILL_SGID) !== 0 && volume.path.equals(ACL_ACCESS)) failed = clearSgid(volume, index)
  }
  volume.inodes.unpin(index)
  return failed
}

/** After an ACL was set, which has changed the mode as well; `procPath` leads to the inode. @returns 0 or −errno */
function clearSgid(volume: Volume, index: number): number {
  const failed = volume.statFd(volume.fd(index))
  if (failed < 0 || (volume.stat.mode & S_ISGID) === 0) return failed
  return fchmodat(volume.procFd, volume.procPath.digits, volume.stat.mode & 0o7777 & ~S_ISGID)
}

/** The reply of GETXATTR and LISTXATTR: the size alone when none was asked for, or the bytes that are there already. */
function replySized(request: DeviceRequest, asked: number, done: number): number {
  if (done < 0 || asked !== 0) return done
  request.reply.setUint32(request.replyAt + FuseGetxattrOut.size, done, true)
  request.reply.setUint32(request.replyAt + FuseGetxattrOut.padding, 0, true)
  return FuseGetxattrOut.SIZE
}

export function getXattr(volume: Volume, request: DeviceRequest): number {
  if (!volume.options.xattr) return ENOSYS
  const size = request.args.getUint32(request.argsAt + FuseGetxattrIn.size, true)
  const end = readName(volume, request, FuseGetxattrIn.SIZE)
  // to a reader a name that a map forbids is one that is not there
  if (end < 0) return end === -errno.EPERM ? -errno.ENODATA : end
  const index = pinPath(volume, request.nodeid)
  if (index < 0) return index
  const done = getxattr(volume.procPath.address, volume.path.address, request.replyAddress, Math.min(size, request.replyBytes))
  volume.inodes.unpin(index)
  return replySized(request, size, done)
}

export function listXattr(volume: Volume, request: DeviceRequest): number {
  if (!volume.options.xattr) return ENOSYS
  const size = request.args.getUint32(request.argsAt + FuseGetxattrIn.size, true)
  const index = pinPath(volume, request.nodeid)
  if (index < 0) return index
  let done = listxattr(volume.procPath.address, request.replyAddress, Math.min(size, request.replyBytes))
  volume.inodes.unpin(index)
  if (done > 0 && size !== 0 && volume.xattrMap !== undefined) done = toClient(volume.xattrMap, request, done)
  if (done > 0 && size !== 0 && !volume.negotiated(Negotiated.POSIX_ACL)) done = withoutAcls(request, done)
  return replySized(request, size, done)
}

function toClient(map: XattrMap, request: DeviceRequest, lengthBytes: number): number {
  const { reply } = request
  return map.toClient(new Uint8Array(reply.buffer, reply.byteOffset + request.replyAt, lengthBytes), 0, lengthBytes)
}

/** Removes the names that `readName` refuses from a list in the reply. @returns its length */
function withoutAcls(request: DeviceRequest, lengthBytes: number): number {
  const { reply, replyAt } = request
  let kept = 0
  for (let start = 0; start < lengthBytes;) {
    let end = start
    while (end < lengthBytes && reply.getUint8(replyAt + end) !== 0) end++
    end = Math.min(end + 1, lengthBytes)
    if (!isName(request, start, end - 1, ACL_ACCESS) && !isName(request, start, end - 1, ACL_DEFAULT)) {
      for (let i = start; i < end; i++) reply.setUint8(replyAt + kept++, reply.getUint8(replyAt + i))
    }
    start = end
  }
  return kept
}

function isName(request: DeviceRequest, start: number, end: number, name: string): boolean {
  if (end - start !== name.length) return false
  for (let i = 0; i < name.length; i++) if (request.reply.getUint8(request.replyAt + start + i) !== name.charCodeAt(i)) return false
  return true
}

export function removeXattr(volume: Volume, request: DeviceRequest): number {
  if (!volume.options.xattr) return ENOSYS
  const end = readName(volume, request, 0)
  if (end < 0) return end
  const index = pinPath(volume, request.nodeid)
  if (index < 0) return index
  const failed = removexattr(volume.procPath.address, volume.path.address)
  volume.space?.settle(index, volume.fd(index), 0)
  volume.inodes.unpin(index)
  return failed
}
