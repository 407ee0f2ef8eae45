/**
 * What a request can change of that which the near end knows, by its opcode: of what a LOOKUP tells
 * (look-ahead.ts), of a directory's attributes (attribute-notes.ts), of access times. An opcode that
 * is not known here changes everything.
 */
import { FuseInHeader, FuseOpenIn } from '../fuse/abi.js'
import { Op, OPCODE_LIMIT } from '../fuse/opcodes.js'
import { O_TRUNC } from '../sys/file.js'

/** Requests that change nothing that a LOOKUP tells, but for access times. */
const harmless = new Uint8Array(OPCODE_LIMIT)
for (const opcode of [
  Op.INIT, Op.LOOKUP, Op.GETATTR, Op.READLINK, Op.OPEN, Op.READ, Op.STATFS, Op.RELEASE, Op.GETXATTR, Op.LISTXATTR, Op.OPENDIR, Op.READDIR, Op.READDIRPLUS,
  Op.RELEASEDIR, Op.GETLK, Op.SETLK, Op.SETLKW, Op.ACCESS, Op.POLL, Op.LSEEK, Op.STATX,
]) harmless[opcode] = 1

/** Whether the request at `view[at]` can change what a LOOKUP tells. */
export function isChange(opcode: number, view: DataView, at: number): boolean {
  if (opcode === Op.OPEN) return (view.getUint32(at + FuseInHeader.SIZE + FuseOpenIn.flags, true) & O_TRUNC) !== 0
  return opcode >= OPCODE_LIMIT || harmless[opcode] === 0
}

/** Whether it can change an access time. */
export function isRead(opcode: number): boolean {
  return opcode === Op.READ || opcode === Op.READLINK || opcode === Op.READDIR || opcode === Op.READDIRPLUS
}

/** Whether it changes the directory that it is sent to. */
export function changesDirectory(opcode: number): boolean {
  switch (opcode) {
    case Op.CREATE: case Op.MKNOD: case Op.MKDIR: case Op.SYMLINK: case Op.LINK: case Op.UNLINK: case Op.RMDIR: case Op.RENAME: case Op.RENAME2: return true
    default: return false
  }
}

/** Whether a change is of what is in a file: no directory's attributes come of it. */
export function concernsData(opcode: number): boolean {
  switch (opcode) {
    case Op.WRITE: case Op.FALLOCATE: case Op.COPY_FILE_RANGE: case Op.COPY_FILE_RANGE_64: case Op.FSYNC: case Op.FLUSH: case Op.SYNCFS: case Op.OPEN: return true
    default: return false
  }
}
