/** struct statx → fuse_attr and the replies that carry one. */
import { FuseAttr, FuseAttrOut, FuseEntryOut } from '../../fuse/abi.js'
import { encodeDevice } from '../../sys/file.js'
import { St, type StatBuffer } from './stat-buffer.js'

export function writeAttr(view: DataView, at: number, stat: StatBuffer): void {
  const st = stat.words
  view.setInt32(at + FuseAttr.ino, st[St.ino]!, true)
  view.setInt32(at + FuseAttr.ino + 4, st[St.ino + 1]!, true)
  view.setInt32(at + FuseAttr.size, st[St.size]!, true)
  view.setInt32(at + FuseAttr.size + 4, st[St.size + 1]!, true)
  view.setInt32(at + FuseAttr.blocks, st[St.blocks]!, true)
  view.setInt32(at + FuseAttr.blocks + 4, st[St.blocks + 1]!, true)
  view.setInt32(at + FuseAttr.atime, st[St.atime]!, true)
  view.setInt32(at + FuseAttr.atime + 4, st[St.atime + 1]!, true)
  view.setInt32(at + FuseAttr.mtime, st[St.mtime]!, true)
  view.setInt32(at + FuseAttr.mtime + 4, st[St.mtime + 1]!, true)
  view.setInt32(at + FuseAttr.ctime, st[St.ctime]!, true)
  view.setInt32(at + FuseAttr.ctime + 4, st[St.ctime + 1]!, true)
  view.setInt32(at + FuseAttr.atimensec, st[St.atimeNsec]!, true)
  view.setInt32(at + FuseAttr.mtimensec, st[St.mtimeNsec]!, true)
  view.setInt32(at + FuseAttr.ctimensec, st[St.ctimeNsec]!, true)
  view.setUint32(at + FuseAttr.mode, stat.mode, true)
  view.setInt32(at + FuseAttr.nlink, st[St.nlink]!, true)
  view.setInt32(at + FuseAttr.uid, st[St.uid]!, true)
  view.setInt32(at + FuseAttr.gid, st[St.gid]!, true)
  view.setUint32(at + FuseAttr.rdev, encodeDevice(st[St.rdevMajor]!, st[St.rdevMinor]!), true)
  view.setInt32(at + FuseAttr.blksize, st[St.blksize]!, true)
  view.setUint32(at + FuseAttr.flags, 0, true)
}

/** fuse_attr_out. @returns its size */
export function writeAttrOut(view: DataView, at: number, stat: StatBuffer, timeoutSeconds: number): number {
  view.setUint32(at + FuseAttrOut.attr_valid, timeoutSeconds, true)
  view.setUint32(at + FuseAttrOut.attr_valid + 4, 0, true)
  view.setUint32(at + FuseAttrOut.attr_valid_nsec, 0, true)
  view.setUint32(at + FuseAttrOut.dummy, 0, true)
  writeAttr(view, at + FuseAttrOut.attr, stat)
  return FuseAttrOut.SIZE
}

/**
 * fuse_entry_out but for its node id. A node id is of one inode only, so the kernel needs no
 * generation. Who knows an inode by its number needs one that outlives this device: its birth, which
 * a later file with the number does not share.
 */
export function writeEntryOut(view: DataView, at: number, stat: StatBuffer, entrySeconds: number, attrSeconds: number): number {
  const st = stat.words
  // the kernel keeps only the low half
  view.setInt32(at + FuseEntryOut.generation, st[St.btime]! ^ st[St.btimeNsec]!, true)
  view.setInt32(at + FuseEntryOut.generation + 4, st[St.btimeNsec]!, true)
  view.setUint32(at + FuseEntryOut.entry_valid, entrySeconds, true)
  view.setUint32(at + FuseEntryOut.entry_valid + 4, 0, true)
  view.setUint32(at + FuseEntryOut.attr_valid, attrSeconds, true)
  view.setUint32(at + FuseEntryOut.attr_valid + 4, 0, true)
  view.setUint32(at + FuseEntryOut.entry_valid_nsec, 0, true)
  view.setUint32(at + FuseEntryOut.attr_valid_nsec, 0, true)
  writeAttr(view, at + FuseEntryOut.attr, stat)
  return FuseEntryOut.SIZE
}

/** The reply to a LOOKUP of a name that is not there: node id 0, to be remembered. */
export function writeNegativeEntry(view: DataView, at: number, entrySeconds: number): number {
  for (let i = 0; i < FuseEntryOut.SIZE; i += 4) view.setUint32(at + i, 0, true)
  view.setUint32(at + FuseEntryOut.entry_valid, entrySeconds, true)
  return FuseEntryOut.SIZE
}

/** The entry of a READDIRPLUS that tells the kernel nothing but the name: node id 0. */
export function writeEmptyEntry(view: DataView, at: number, inoLow: number, inoHigh: number, type: number): void {
  for (let i = 0; i < FuseEntryOut.SIZE; i += 4) view.setUint32(at + i, 0, true)
  view.setUint32(at + FuseEntryOut.attr + FuseAttr.ino, inoLow, true)
  view.setUint32(at + FuseEntryOut.attr + FuseAttr.ino + 4, inoHigh, true)
  view.setUint32(at + FuseEntryOut.attr + FuseAttr.mode, type << 12, true)
}
