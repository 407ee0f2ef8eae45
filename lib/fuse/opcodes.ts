/**
 * One table of facts per FUSE opcode, read by the chain builder, the reply check, the tracer, the
 * device and the table-driven tests alike. Compiled below to typed arrays for the data path.
 *
 * Source: Linux `enum fuse_opcode` and, for the sizes of replies, `fs/fuse/{dir,file,xattr,…}.c`.
 */
import * as abi from './abi.js'

/** What follows the fixed part of a reply. */
type Payload =
  /** nothing */
  | 'none'
  /** as many bytes as a `size` field of the request allows */
  | 'sized'
  /** up to one page (READLINK) */
  | 'page'

export interface OpcodeRow {
  readonly opcode: number
  readonly name: string
  /** Size of the request's argument structure in bytes, names and data not counted. */
  readonly inBytes: number
  /** How many NUL-terminated names follow the argument structure. */
  readonly names: number
  /** Size of the reply's argument structure in bytes; −1 when there is never a reply. */
  readonly outBytes: number
  readonly payload: Payload
  /** Offset of the u32 in the argument structure that limits the payload; only for 'sized'. */
  readonly sizeAt: number
  /** The fixed part is sent instead of the payload (size 0 asked), so the reply holds the larger. */
  readonly either: boolean
  /** FORGET, BATCH_FORGET and INTERRUPT travel on the hiprio queue. */
  readonly hiprio: boolean
}

interface Extra { names?: number, payload?: Payload, sizeAt?: number, either?: boolean, hiprio?: boolean }

function row(opcode: number, name: string, inBytes: number, outBytes: number, extra: Extra = {}): OpcodeRow {
  return { opcode, name, inBytes, names: 0, outBytes, payload: 'none', sizeAt: 0, either: false, hiprio: false, ...extra }
}

const readPayload = { payload: 'sized', sizeAt: abi.FuseReadIn.size } as const
const xattrPayload = { payload: 'sized', sizeAt: abi.FuseGetxattrIn.size, either: true } as const
const NO_REPLY = -1

export const Op = {
  LOOKUP: 1, FORGET: 2, GETATTR: 3, SETATTR: 4, READLINK: 5, SYMLINK: 6, MKNOD: 8, MKDIR: 9, UNLINK: 10, RMDIR: 11,
  RENAME: 12, LINK: 13, OPEN: 14, READ: 15, WRITE: 16, STATFS: 17, RELEASE: 18, FSYNC: 20, SETXATTR: 21, GETXATTR: 22,
  LISTXATTR: 23, REMOVEXATTR: 24, FLUSH: 25, INIT: 26, OPENDIR: 27, READDIR: 28, RELEASEDIR: 29, FSYNCDIR: 30,
  GETLK: 31, SETLK: 32, SETLKW: 33, ACCESS: 34, CREATE: 35, INTERRUPT: 36, BMAP: 37, DESTROY: 38, IOCTL: 39, POLL: 40,
  NOTIFY_REPLY: 41, BATCH_FORGET: 42, FALLOCATE: 43, READDIRPLUS: 44, RENAME2: 45, LSEEK: 46, COPY_FILE_RANGE: 47,
  SETUPMAPPING: 48, REMOVEMAPPING: 49, SYNCFS: 50, TMPFILE: 51, STATX: 52, COPY_FILE_RANGE_64: 53,
} as const

export const opcodeRows: readonly OpcodeRow[] = [
  row(Op.LOOKUP, 'LOOKUP', 0, abi.FuseEntryOut.SIZE, { names: 1 }),
  row(Op.FORGET, 'FORGET', abi.FuseForgetIn.SIZE, NO_REPLY, { hiprio: true }),
  row(Op.GETATTR, 'GETATTR', abi.FuseGetattrIn.SIZE, abi.FuseAttrOut.SIZE),
  row(Op.SETATTR, 'SETATTR', abi.FuseSetattrIn.SIZE, abi.FuseAttrOut.SIZE),
  row(Op.READLINK, 'READLINK', 0, 0, { payload: 'page' }),
  row(Op.SYMLINK, 'SYMLINK', 0, abi.FuseEntryOut.SIZE, { names: 2 }),
  row(Op.MKNOD, 'MKNOD', abi.FuseMknodIn.SIZE, abi.FuseEntryOut.SIZE, { names: 1 }),
  row(Op.MKDIR, 'MKDIR', abi.FuseMkdirIn.SIZE, abi.FuseEntryOut.SIZE, { names: 1 }),
  row(Op.UNLINK, 'UNLINK', 0, 0, { names: 1 }),
  row(Op.RMDIR, 'RMDIR', 0, 0, { names: 1 }),
  row(Op.RENAME, 'RENAME', abi.FuseRenameIn.SIZE, 0, { names: 2 }),
  row(Op.LINK, 'LINK', abi.FuseLinkIn.SIZE, abi.FuseEntryOut.SIZE, { names: 1 }),
  row(Op.OPEN, 'OPEN', abi.FuseOpenIn.SIZE, abi.FuseOpenOut.SIZE),
  row(Op.READ, 'READ', abi.FuseReadIn.SIZE, 0, readPayload),
  row(Op.WRITE, 'WRITE', abi.FuseWriteIn.SIZE, abi.FuseWriteOut.SIZE),
  row(Op.STATFS, 'STATFS', 0, abi.FuseStatfsOut.SIZE),
  row(Op.RELEASE, 'RELEASE', abi.FuseReleaseIn.SIZE, 0),
  row(Op.FSYNC, 'FSYNC', abi.FuseFsyncIn.SIZE, 0),
  row(Op.SETXATTR, 'SETXATTR', abi.FuseSetxattrIn.SIZE, 0, { names: 1 }),
  row(Op.GETXATTR, 'GETXATTR', abi.FuseGetxattrIn.SIZE, abi.FuseGetxattrOut.SIZE, { names: 1, ...xattrPayload }),
  row(Op.LISTXATTR, 'LISTXATTR', abi.FuseGetxattrIn.SIZE, abi.FuseGetxattrOut.SIZE, xattrPayload),
  row(Op.REMOVEXATTR, 'REMOVEXATTR', 0, 0, { names: 1 }),
  row(Op.FLUSH, 'FLUSH', abi.FuseFlushIn.SIZE, 0),
  row(Op.INIT, 'INIT', abi.FuseInitIn.SIZE, abi.FuseInitOut.SIZE),
  row(Op.OPENDIR, 'OPENDIR', abi.FuseOpenIn.SIZE, abi.FuseOpenOut.SIZE),
  row(Op.READDIR, 'READDIR', abi.FuseReadIn.SIZE, 0, readPayload),
  row(Op.RELEASEDIR, 'RELEASEDIR', abi.FuseReleaseIn.SIZE, 0),
  row(Op.FSYNCDIR, 'FSYNCDIR', abi.FuseFsyncIn.SIZE, 0),
  row(Op.GETLK, 'GETLK', abi.FuseLkIn.SIZE, abi.FuseLkOut.SIZE),
  row(Op.SETLK, 'SETLK', abi.FuseLkIn.SIZE, 0),
  row(Op.SETLKW, 'SETLKW', abi.FuseLkIn.SIZE, 0),
  row(Op.ACCESS, 'ACCESS', abi.FuseAccessIn.SIZE, 0),
  row(Op.CREATE, 'CREATE', abi.FuseCreateIn.SIZE, abi.FuseEntryOut.SIZE + abi.FuseOpenOut.SIZE, { names: 1 }),
  row(Op.INTERRUPT, 'INTERRUPT', abi.FuseInterruptIn.SIZE, NO_REPLY, { hiprio: true }),
  row(Op.BMAP, 'BMAP', abi.FuseBmapIn.SIZE, abi.FuseBmapOut.SIZE),
  row(Op.DESTROY, 'DESTROY', 0, 0),
  row(Op.IOCTL, 'IOCTL', abi.FuseIoctlIn.SIZE, abi.FuseIoctlOut.SIZE, { payload: 'sized', sizeAt: abi.FuseIoctlIn.out_size }),
  row(Op.POLL, 'POLL', abi.FusePollIn.SIZE, abi.FusePollOut.SIZE),
  row(Op.NOTIFY_REPLY, 'NOTIFY_REPLY', 0, NO_REPLY),
  row(Op.BATCH_FORGET, 'BATCH_FORGET', abi.FuseBatchForgetIn.SIZE, NO_REPLY, { hiprio: true }),
  row(Op.FALLOCATE, 'FALLOCATE', abi.FuseFallocateIn.SIZE, 0),
  row(Op.READDIRPLUS, 'READDIRPLUS', abi.FuseReadIn.SIZE, 0, readPayload),
  row(Op.RENAME2, 'RENAME2', abi.FuseRename2In.SIZE, 0, { names: 2 }),
  row(Op.LSEEK, 'LSEEK', abi.FuseLseekIn.SIZE, abi.FuseLseekOut.SIZE),
  row(Op.COPY_FILE_RANGE, 'COPY_FILE_RANGE', abi.FuseCopyFileRangeIn.SIZE, abi.FuseWriteOut.SIZE),
  row(Op.SETUPMAPPING, 'SETUPMAPPING', 40, 0),
  row(Op.REMOVEMAPPING, 'REMOVEMAPPING', 4, 0),
  row(Op.SYNCFS, 'SYNCFS', abi.FuseSyncfsIn.SIZE, 0),
  row(Op.TMPFILE, 'TMPFILE', abi.FuseCreateIn.SIZE, abi.FuseEntryOut.SIZE + abi.FuseOpenOut.SIZE, { names: 1 }),
  row(Op.STATX, 'STATX', abi.FuseStatxIn.SIZE, abi.FuseStatxOut.SIZE),
  row(Op.COPY_FILE_RANGE_64, 'COPY_FILE_RANGE_64', abi.FuseCopyFileRangeIn.SIZE, abi.FuseCopyFileRangeOut.SIZE),
]

/** Opcodes from here on (CUSE_INIT is 4096) have no row and are treated as unknown. */
export const OPCODE_LIMIT = 64
const PAGE = 4096

const rowOf: (OpcodeRow | undefined)[] = new Array(OPCODE_LIMIT).fill(undefined)
for (const r of opcodeRows) rowOf[r.opcode] = r

/** The row of an opcode, or undefined for one that this table does not know. */
export function opcodeRow(opcode: number): OpcodeRow | undefined {
  return opcode < OPCODE_LIMIT ? rowOf[opcode] : undefined
}

/** Name of an opcode for people; unknown ones by number. */
export function opcodeName(opcode: number): string {
  return opcodeRow(opcode)?.name ?? `OPCODE_${opcode}`
}

const FLAG_REPLY = 1
const FLAG_HIPRIO = 2
const flags = new Uint8Array(OPCODE_LIMIT).fill(FLAG_REPLY)
/** Fixed part of the reply behind fuse_out_header. */
const fixed = new Uint32Array(OPCODE_LIMIT)
/** Payload that is always allowed for; unknown opcodes get a page, to be safe with any device. */
const floor = new Uint32Array(OPCODE_LIMIT).fill(PAGE)
/** Offset of the size field from the start of the request, 0 for none. */
const sizeAt = new Uint8Array(OPCODE_LIMIT)

for (const r of opcodeRows) {
  flags[r.opcode] = (r.outBytes === NO_REPLY ? 0 : FLAG_REPLY) | (r.hiprio ? FLAG_HIPRIO : 0)
  fixed[r.opcode] = r.either ? 0 : Math.max(0, r.outBytes)
  floor[r.opcode] = r.payload === 'page' ? PAGE : r.either ? r.outBytes : 0
  sizeAt[r.opcode] = r.payload === 'sized' ? abi.FuseInHeader.SIZE + r.sizeAt : 0
}

export function hasReply(opcode: number): boolean {
  return opcode >= OPCODE_LIMIT || (flags[opcode]! & FLAG_REPLY) !== 0
}

export function isHiprio(opcode: number): boolean {
  return opcode < OPCODE_LIMIT && (flags[opcode]! & FLAG_HIPRIO) !== 0
}

/** Bytes of the fixed part of the reply, fuse_out_header included. */
export function replyFixedBytes(opcode: number): number {
  return abi.FuseOutHeader.SIZE + (opcode < OPCODE_LIMIT ? fixed[opcode]! : 0)
}

/**
 * Most bytes of payload that may follow the fixed part of the reply.
 * @param view the request's memory
 * @param at where its fuse_in_header starts
 */
export function replyPayloadBytes(opcode: number, view: DataView, at: number): number {
  if (opcode >= OPCODE_LIMIT) return PAGE
  const offset = sizeAt[opcode]!
  const least = floor[opcode]!
  if (offset === 0) return least
  const asked = view.getUint32(at + offset, true)
  return asked > least ? asked : least
}
