/**
 * File capabilities under another name. The kernel below removes `security.capability` when data
 * or owner of a file change; where an xattrmap stores it under another name this is done here.
 */
import { errno } from '../../errors.js'
import { FATTR_GID, FATTR_SIZE, FATTR_UID, FuseCopyFileRangeIn, FuseOpenIn, FuseSetattrIn } from '../../fuse/abi.js'
import { Op } from '../../fuse/opcodes.js'
import { O_TRUNC, removexattr } from '../../sys/file.js'
import { getU64 } from '../../wire/u64.js'
import type { DeviceRequest } from '../handlers.js'
import type { Operation } from './operation.js'
import type { Volume } from './volume.js'
import { pinPath } from './xattrs.js'

/** What changes data or owner. */
export const CHANGES_FILES: readonly number[] = [Op.SETATTR, Op.OPEN, Op.WRITE, Op.FALLOCATE, Op.COPY_FILE_RANGE, Op.COPY_FILE_RANGE_64]

/** Node id of the inode that a request of `CHANGES_FILES` changes, or 0. */
function changedNode({ opcode, args, argsAt, nodeid }: DeviceRequest): number {
  switch (opcode) {
    case Op.SETATTR: return (args.getUint32(argsAt + FuseSetattrIn.valid, true) & (FATTR_SIZE | FATTR_UID | FATTR_GID)) !== 0 ? nodeid : 0
    case Op.OPEN: return (args.getUint32(argsAt + FuseOpenIn.flags, true) & O_TRUNC) !== 0 ? nodeid : 0
    case Op.COPY_FILE_RANGE: case Op.COPY_FILE_RANGE_64: return getU64(args, argsAt + FuseCopyFileRangeIn.nodeid_out)
    default: return nodeid
  }
}

function drop(volume: Volume, nodeid: number, nameAddress: number): number {
  const index = pinPath(volume, nodeid)
  if (index < 0) return index
  const failed = removexattr(volume.procPath.address, nameAddress)
  volume.inodes.unpin(index)
  return failed === -errno.ENODATA || failed === -errno.EOPNOTSUPP ? 0 : failed
}

/** @param nameAddress of the attribute, NUL-terminated */
export function droppingCapabilities(operation: Operation, nameAddress: number): Operation {
  return (volume, request) => {
    const nodeid = changedNode(request)
    const failed = nodeid === 0 ? 0 : drop(volume, nodeid, nameAddress)
    return failed < 0 ? failed : operation(volume, request)
  }
}
