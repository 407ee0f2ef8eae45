/**
 * What a reply leaves behind that nobody waits for any more: its caller was killed and has been
 * answered EINTR, so the kernel knows nothing of the lookups and handles that the device gave out.
 * They are given back.
 */
import { direntSize, FuseDirent, FuseDirentplus, FuseEntryOut, FuseInHeader, FuseOpenOut, FuseReleaseIn } from '../fuse/abi.js'
import { Op } from '../fuse/opcodes.js'
import { copyU64 } from '../wire/u64.js'
import type { HiprioSink } from './hiprio-queue.js'

/** The opcode that gives a handle back, or 0 when the reply to `opcode` carries none. */
export function releaseOpcode(opcode: number): number {
  switch (opcode) {
    case Op.OPEN: case Op.CREATE: case Op.TMPFILE: return Op.RELEASE
    case Op.OPENDIR: return Op.RELEASEDIR
    default: return 0
  }
}

/** Where in the reply's arguments fuse_open_out stands. */
function openOutAt(opcode: number): number {
  return opcode === Op.CREATE || opcode === Op.TMPFILE ? FuseEntryOut.SIZE : 0
}

/**
 * Builds the RELEASE or RELEASEDIR of a handle that a good reply carries.
 *
 * @param out byte of the region where the reply's arguments start
 * @param head byte where the request goes, whose header holds the node id already; all of it but that is overwritten
 * @returns the length of the request
 */
export function buildRelease(view: DataView, opcode: number, nodeidAt: number, out: number, head: number): number {
  const length = FuseInHeader.SIZE + FuseReleaseIn.SIZE
  const arg = head + FuseInHeader.SIZE
  const nodeidLow = view.getUint32(nodeidAt, true)
  const nodeidHigh = view.getUint32(nodeidAt + 4, true)
  for (let i = 0; i < length; i += 4) view.setUint32(head + i, 0, true)
  view.setUint32(head + FuseInHeader.len, length, true)
  view.setUint32(head + FuseInHeader.opcode, releaseOpcode(opcode), true)
  view.setUint32(head + FuseInHeader.nodeid, nodeidLow, true)
  view.setUint32(head + FuseInHeader.nodeid + 4, nodeidHigh, true)
  copyU64(view, arg + FuseReleaseIn.fh, view, out + openOutAt(opcode) + FuseOpenOut.fh)
  return length
}

function forgetOne(view: DataView, nodeidAt: number, sink: HiprioSink): void {
  const low = view.getUint32(nodeidAt, true)
  const high = view.getUint32(nodeidAt + 4, true)
  // 0 is a negative entry
  if (low !== 0 || high !== 0) sink.forget(low, high, 1, 0)
}

/**
 * Forgets the lookups that a good reply carries.
 *
 * @param out byte of the region where the fixed part's arguments start
 * @param payload byte where the payload starts, and its length
 */
export function forgetReply(view: DataView, opcode: number, out: number, payload: number, payloadBytes: number, sink: HiprioSink): void {
  switch (opcode) {
    case Op.LOOKUP: case Op.MKNOD: case Op.MKDIR: case Op.SYMLINK: case Op.LINK: case Op.CREATE: case Op.TMPFILE:
      forgetOne(view, out + FuseEntryOut.nodeid, sink)
      break
    case Op.READDIRPLUS: {
      const end = payload + payloadBytes
      for (let at = payload; at + FuseDirentplus.SIZE <= end;) {
        const nameBytes = view.getUint32(at + FuseEntryOut.SIZE + FuseDirent.namelen, true)
        // the list ends with an entry that is cut off, as for parse_dirplusfile; only then is the size one of 31 bits
        if (nameBytes === 0 || nameBytes > end - at || at + direntSize(FuseDirentplus.SIZE, nameBytes) > end) return
        // . and .. are not looked up (fuse_direntplus_link)
        if (!isDot(view, at + FuseDirentplus.SIZE, nameBytes)) forgetOne(view, at + FuseEntryOut.nodeid, sink)
        at += direntSize(FuseDirentplus.SIZE, nameBytes)
      }
    }
  }
}

function isDot(view: DataView, name: number, bytes: number): boolean {
  return (bytes === 1 || (bytes === 2 && view.getUint8(name + 1) === 46)) && view.getUint8(name) === 46
}
