/**
 * What to do with a request that a device had when it went away: it may have been carried out. Most
 * requests do the same when they are sent again. For the others, something has to be looked up: the
 * entry that a request makes, or where a file that is moved is now, or how long a file is that
 * something is appended to (native-notes/reliability.md).
 */
import { errno } from '../errors.js'
import { FuseAttr, FuseCreateIn, FuseEntryOut, FuseInHeader, FuseMknodIn, FuseRename2In, FuseSetxattrIn, FuseWriteIn, FUSE_WRITE_CACHE } from '../fuse/abi.js'
import { Op } from '../fuse/opcodes.js'
import { RENAME_WHITEOUT } from '../sys/dir.js'
import { O_APPEND, O_EXCL, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from '../sys/file.js'
import { getU64 } from '../wire/u64.js'

const XATTR_CREATE = 1
/** The clock of time stamps goes in steps, of at most 10 ms. */
const CLOCK_STEP_MS = 20

export const enum Again {
  /** Send it, or take the reply for what it is. */
  PLAIN = 0,
  /** Look up first what was done. */
  CHECK = 1,
  /** The reply says that it had been carried out. */
  DONE = 2,
  /** Nobody can tell. */
  UNKNOWN = 3,
}

/** Before a request is sent again, at `view[head]`. */
export function beforeResend(opcode: number, view: DataView, head: number): Again {
  const arg = head + FuseInHeader.SIZE
  switch (opcode) {
    case Op.WRITE: {
      // what the kernel's own cache writes has its place
      const appends = (view.getUint32(arg + FuseWriteIn.flags, true) & O_APPEND) !== 0 && (view.getUint32(arg + FuseWriteIn.write_flags, true) & FUSE_WRITE_CACHE) === 0
      return appends ? Again.CHECK : Again.PLAIN
    }
    case Op.RENAME: return Again.CHECK
    case Op.RENAME2: return (view.getUint32(arg + FuseRename2In.flags, true) & RENAME_WHITEOUT) !== 0 ? Again.UNKNOWN : Again.CHECK
    case Op.IOCTL: return Again.UNKNOWN
    default: return Again.PLAIN
  }
}

/** A request that was sent again failed with `error`. */
export function afterResend(opcode: number, error: number, view: DataView, head: number): Again {
  switch (opcode) {
    // the C virtiofsd says EIO of a name that is not there (lo_unlink, lo_rmdir)
    case Op.UNLINK: case Op.RMDIR: return error === -errno.ENOENT ? Again.DONE : error === -errno.EIO ? Again.CHECK : Again.PLAIN
    case Op.MKDIR: case Op.MKNOD: case Op.SYMLINK: case Op.LINK: case Op.CREATE: return error === -errno.EEXIST ? Again.CHECK : Again.PLAIN
    case Op.REMOVEXATTR: return error === -errno.ENODATA ? Again.DONE : Again.PLAIN
    case Op.SETXATTR: {
      const creates = (view.getUint32(head + FuseInHeader.SIZE + FuseSetxattrIn.flags, true) & XATTR_CREATE) !== 0
      return creates && error === -errno.EEXIST ? Again.UNKNOWN : Again.PLAIN
    }
    default: return Again.PLAIN
  }
}

/**
 * Whether an append was carried out, from the length that its file has now. The kernel expected the
 * end of the file at the request's offset.
 */
export function appended(view: DataView, head: number, sizeBytes: number): Again {
  const arg = head + FuseInHeader.SIZE
  const offset = getU64(view, arg + FuseWriteIn.offset)
  if (sizeBytes <= offset) return Again.PLAIN
  return sizeBytes === offset + view.getUint32(arg + FuseWriteIn.size, true) ? Again.DONE : Again.UNKNOWN
}

/**
 * Whether the entry at `view[entry]` was made by the request at `view[head]`: it is of the right
 * kind, belongs to the caller, and has not changed since before the request was read.
 *
 * @param sinceMs when that was, as Date.now() has it
 */
export function madeBy(opcode: number, view: DataView, head: number, entry: number, sinceMs: number): boolean {
  const attr = entry + FuseEntryOut.attr
  const type = view.getUint32(attr + FuseAttr.mode, true) & S_IFMT
  return type === typeMade(opcode, view, head)
    && view.getUint32(attr + FuseAttr.uid, true) === view.getUint32(head + FuseInHeader.uid, true)
    && hasChanged(view, entry, sinceMs)
}

/** Whether the file of the entry at `view[entry]` has changed since then. */
export function hasChanged(view: DataView, entry: number, sinceMs: number): boolean {
  const attr = entry + FuseEntryOut.attr
  return getU64(view, attr + FuseAttr.ctime) * 1000 + view.getUint32(attr + FuseAttr.ctimensec, true) / 1e6 >= sinceMs - CLOCK_STEP_MS
}

function typeMade(opcode: number, view: DataView, head: number): number {
  switch (opcode) {
    case Op.MKDIR: return S_IFDIR
    case Op.SYMLINK: return S_IFLNK
    case Op.MKNOD: {
      const type = view.getUint32(head + FuseInHeader.SIZE + FuseMknodIn.mode, true) & S_IFMT
      return type === 0 ? S_IFREG : type
    }
    default: return S_IFREG
  }
}

/** A CREATE whose file is there, and is its own, opens it. */
export function openMade(view: DataView, head: number): void {
  const at = head + FuseInHeader.SIZE + FuseCreateIn.flags
  view.setUint32(at, view.getUint32(at, true) & ~O_EXCL, true)
}
