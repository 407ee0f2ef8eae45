/**
 * Where requests carry node ids and file handles beyond the node id of the header, by opcode, and
 * which replies give out new ones. Offsets are from the start of the request, 0 for none.
 */
import * as abi from './abi.js'
import { Op, OPCODE_LIMIT } from './opcodes.js'

const ARGUMENTS = abi.FuseInHeader.SIZE

/** The handle, and the one of the file that COPY_FILE_RANGE writes to. */
export const handleAt = new Uint8Array(OPCODE_LIMIT)
export const secondHandleAt = new Uint8Array(OPCODE_LIMIT)
/** The new directory, the file to link, the file that is written to. */
export const secondNodeAt = new Uint8Array(OPCODE_LIMIT)

function handles(offset: number, ...opcodes: number[]): void {
  for (const opcode of opcodes) handleAt[opcode] = ARGUMENTS + offset
}
handles(abi.FuseReadIn.fh, Op.READ, Op.READDIR, Op.READDIRPLUS)
handles(abi.FuseWriteIn.fh, Op.WRITE)
handles(abi.FuseReleaseIn.fh, Op.RELEASE, Op.RELEASEDIR)
handles(abi.FuseFlushIn.fh, Op.FLUSH)
handles(abi.FuseFsyncIn.fh, Op.FSYNC, Op.FSYNCDIR)
handles(abi.FuseLkIn.fh, Op.GETLK, Op.SETLK, Op.SETLKW)
handles(abi.FuseIoctlIn.fh, Op.IOCTL)
handles(abi.FusePollIn.fh, Op.POLL)
handles(abi.FuseFallocateIn.fh, Op.FALLOCATE)
handles(abi.FuseLseekIn.fh, Op.LSEEK)
handles(abi.FuseGetattrIn.fh, Op.GETATTR)
handles(abi.FuseSetattrIn.fh, Op.SETATTR)
handles(abi.FuseStatxIn.fh, Op.STATX)
handles(abi.FuseCopyFileRangeIn.fh_in, Op.COPY_FILE_RANGE, Op.COPY_FILE_RANGE_64)

secondHandleAt[Op.COPY_FILE_RANGE] = secondHandleAt[Op.COPY_FILE_RANGE_64] = ARGUMENTS + abi.FuseCopyFileRangeIn.fh_out
secondNodeAt[Op.COPY_FILE_RANGE] = secondNodeAt[Op.COPY_FILE_RANGE_64] = ARGUMENTS + abi.FuseCopyFileRangeIn.nodeid_out
secondNodeAt[Op.RENAME] = ARGUMENTS + abi.FuseRenameIn.newdir
secondNodeAt[Op.RENAME2] = ARGUMENTS + abi.FuseRename2In.newdir
secondNodeAt[Op.LINK] = ARGUMENTS + abi.FuseLinkIn.oldnodeid

/** Whether the handle of a request is meant at all: some have a flag for it. */
export function handleIsValid(opcode: number, view: DataView, head: number): boolean {
  const arg = head + ARGUMENTS
  switch (opcode) {
    case Op.GETATTR: return (view.getUint32(arg + abi.FuseGetattrIn.getattr_flags, true) & abi.FUSE_GETATTR_FH) !== 0
    case Op.SETATTR: return (view.getUint32(arg + abi.FuseSetattrIn.valid, true) & abi.FATTR_FH) !== 0
    case Op.STATX: return (view.getUint32(arg + abi.FuseStatxIn.getattr_flags, true) & abi.FUSE_GETATTR_FH) !== 0
    default: return true
  }
}

/** Whether a good reply starts with fuse_entry_out. */
export function givesEntry(opcode: number): boolean {
  switch (opcode) {
    case Op.LOOKUP: case Op.MKNOD: case Op.MKDIR: case Op.SYMLINK: case Op.LINK: case Op.CREATE: case Op.TMPFILE: return true
    default: return false
  }
}

/** Where in a good reply's arguments fuse_open_out stands, −1 for none. */
export function openOutAt(opcode: number): number {
  switch (opcode) {
    case Op.OPEN: case Op.OPENDIR: return 0
    case Op.CREATE: case Op.TMPFILE: return abi.FuseEntryOut.SIZE
    default: return -1
  }
}

/** The number of the request at `view[head]`, for people: the same when it is sent again. */
export function uniqueAt(view: DataView, head: number): number {
  const at = head + abi.FuseInHeader.unique
  return (view.getUint32(at + 4, true) & ~abi.UNIQUE_RESEND_HIGH) * 2 ** 32 + view.getUint32(at, true)
}
