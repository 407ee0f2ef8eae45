/** Takes a request and its reply apart for who watches. Only when somebody does: it allocates freely. */
import {
  direntSize, FuseCopyFileRangeIn, FuseCreateIn, FuseDirent, FuseDirentplus, FuseEntryOut, FuseFallocateIn, FuseInHeader, FuseLinkIn, FuseMkdirIn, FuseMknodIn,
  FuseOpenIn, FuseOpenOut, FuseOutHeader, FuseReadIn, FuseReleaseIn, FuseRename2In, FuseRenameIn, FuseWriteIn,
} from '../fuse/abi.js'
import { uniqueAt } from '../fuse/id-fields.js'
import { getU64 } from '../wire/u64.js'
import { Op, opcodeRow } from '../fuse/opcodes.js'
import { REQUEST_HEAD_BYTES, Slot } from './memory-plan.js'
import type { RequestRecord } from './observation.js'
import { NO_BUFFER, type SlotTable } from './slot-table.js'

/** A request that is longer holds data that nobody is told of. */
const MAX_NAME_BYTES = 8192

/** The request, in one piece. */
function requestBytes(view: DataView, slots: SlotTable, slot: number): Buffer {
  const length = Math.min(slots.inBytes[slot]!, MAX_NAME_BYTES)
  const part = (at: number, bytes: number): Buffer => Buffer.from(new Uint8Array(view.buffer, view.byteOffset + at, bytes))
  const head = slots.at(slot) + Slot.IN
  if (slots.largeIn[slot] === NO_BUFFER || length <= REQUEST_HEAD_BYTES) return part(head, length)
  return Buffer.concat([part(head, REQUEST_HEAD_BYTES), part(slots.largeAt(slots.largeIn[slot]!), length - REQUEST_HEAD_BYTES)])
}

function namesOf(request: Buffer, opcode: number): string[] {
  const row = opcodeRow(opcode)
  const names: string[] = []
  for (let i = 0, at = FuseInHeader.SIZE + (row?.inBytes ?? 0); i < (row?.names ?? 0); i++) {
    const end = request.indexOf(0, at)
    if (end < 0) break
    names.push(request.toString('utf8', at, end))
    at = end + 1
  }
  return names
}

/** Offsets of fields in the argument of a request. */
interface Fields { fh?: number, flags?: number, mode?: number, offset?: number, size?: number, other?: number }
const FIELDS: Readonly<Record<number, Fields>> = {
  [Op.OPEN]: { flags: FuseOpenIn.flags }, [Op.OPENDIR]: { flags: FuseOpenIn.flags }, [Op.CREATE]: { flags: FuseCreateIn.flags, mode: FuseCreateIn.mode },
  [Op.TMPFILE]: { flags: FuseCreateIn.flags, mode: FuseCreateIn.mode }, [Op.MKDIR]: { mode: FuseMkdirIn.mode }, [Op.MKNOD]: { mode: FuseMknodIn.mode },
  [Op.READ]: { fh: FuseReadIn.fh, offset: FuseReadIn.offset, size: FuseReadIn.size }, [Op.WRITE]: { fh: FuseWriteIn.fh, offset: FuseWriteIn.offset, size: FuseWriteIn.size },
  [Op.READDIR]: { fh: FuseReadIn.fh, offset: FuseReadIn.offset, size: FuseReadIn.size }, [Op.READDIRPLUS]: { fh: FuseReadIn.fh, offset: FuseReadIn.offset, size: FuseReadIn.size },
  [Op.RELEASE]: { fh: FuseReleaseIn.fh, flags: FuseReleaseIn.flags }, [Op.RELEASEDIR]: { fh: FuseReleaseIn.fh },
  [Op.FALLOCATE]: { fh: FuseFallocateIn.fh, offset: FuseFallocateIn.offset, mode: FuseFallocateIn.mode },
  [Op.RENAME]: { other: FuseRenameIn.newdir }, [Op.RENAME2]: { other: FuseRename2In.newdir, flags: FuseRename2In.flags }, [Op.LINK]: { other: FuseLinkIn.oldnodeid },
  [Op.COPY_FILE_RANGE]: { fh: FuseCopyFileRangeIn.fh_out, offset: FuseCopyFileRangeIn.off_out },
}
const WIDE = new Set<keyof Fields>(['fh', 'offset', 'other'])

/** Opcodes whose good reply says which node a name has, or whose request changes that. */
const NAMING = new Set<number>([
  Op.LOOKUP, Op.MKNOD, Op.MKDIR, Op.SYMLINK, Op.LINK, Op.CREATE, Op.READDIRPLUS, Op.RENAME, Op.RENAME2, Op.UNLINK, Op.RMDIR, Op.FORGET, Op.BATCH_FORGET,
])

export function isNaming(opcode: number): boolean {
  return NAMING.has(opcode)
}

function childrenOf(view: DataView, from: number, bytes: number): [string, number][] {
  const children: [string, number][] = []
  const end = from + bytes
  for (let at = from; at + FuseDirentplus.SIZE <= end;) {
    const length = view.getUint32(at + FuseEntryOut.SIZE + FuseDirent.namelen, true)
    if (length === 0 || length > end - at - FuseDirentplus.SIZE) break
    const name = Buffer.from(view.buffer, view.byteOffset + at + FuseDirentplus.SIZE, length).toString('utf8')
    const node = getU64(view, at + FuseEntryOut.nodeid)
    if (node !== 0 && name !== '.' && name !== '..') children.push([name, node])
    at += direntSize(FuseDirentplus.SIZE, length)
  }
  return children
}

/**
 * @param slot of a request that has ended, and is still taken
 * @param error 0 or −errno
 * @param used bytes of the reply
 */
export function buildRecord(
  view: DataView, slots: SlotTable, slot: number, error: number, used: number, us: number, atMs: number, queue: number, watches: number[],
): RequestRecord {
  const opcode = slots.opcode[slot]!
  const request = requestBytes(view, slots, slot)
  const header = new DataView(request.buffer, request.byteOffset, request.length)
  const record: RequestRecord = {
    watches, atMs, opcode, unique: uniqueAt(header, 0), node: getU64(header, FuseInHeader.nodeid),
    pid: header.getUint32(FuseInHeader.pid, true), uid: header.getUint32(FuseInHeader.uid, true), gid: header.getUint32(FuseInHeader.gid, true),
    error, bytes: used, us, queue,
  }
  const names = namesOf(request, opcode)
  if (names.length > 0) record.names = names
  for (const [field, at] of Object.entries(FIELDS[opcode] ?? {}) as [keyof Fields, number][]) {
    record[field] = WIDE.has(field) ? getU64(header, FuseInHeader.SIZE + at) : header.getUint32(FuseInHeader.SIZE + at, true)
  }
  if (error !== 0) return record
  const out = slots.at(slot) + Slot.OUT + FuseOutHeader.SIZE
  if (opcode === Op.READDIRPLUS) record.children = childrenOf(view, slots.payloadAt[slot]!, Math.max(0, used - slots.fixedBytes[slot]!))
  else if (NAMING.has(opcode) && used >= FuseOutHeader.SIZE + FuseEntryOut.SIZE) record.child = getU64(view, out + FuseEntryOut.nodeid)
  if (opcode === Op.OPEN) record.fh = getU64(view, out + FuseOpenOut.fh)
  else if (opcode === Op.CREATE || opcode === Op.TMPFILE) record.fh = getU64(view, out + FuseEntryOut.SIZE + FuseOpenOut.fh)
  return record
}
