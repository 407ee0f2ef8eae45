/**
 * What a file system returned, checked and written as FUSE structures. A value that makes no sense
 * throws a TypeError which names it; nothing is half written then that anybody reads.
 */
import { FuseAttr, FuseAttrOut, FuseEntryOut, FuseKstatfs, FuseOpenOut, FuseStatfsOut } from '../fuse/abi.js'
import { FOPEN_CACHE_DIR, FOPEN_DIRECT_IO, FOPEN_KEEP_CACHE, FOPEN_NOFLUSH, FOPEN_NONSEEKABLE, FUSE_ROOT_ID } from '../fuse/abi.js'
import { setU64 } from '../wire/u64.js'
import type { Attributes, Entry, Opened, Statistics, Timeouts, Timestamp } from './file-system-values.js'

const U32_MAX = 0xffff_ffff
const NANOSECONDS = 1_000_000_000
/** Longer than any mount. */
const MAX_TIMEOUT_S = 0x7fff_ffff
/** File types by S_IFMT >> 12: FIFO, character device, directory, block device, file, symbolic link, socket. */
const TYPES: readonly number[] = [1, 2, 4, 6, 8, 10, 12]
const BLOCK = 512
const PAGE = 4096
const NAME_MAX = 255

/** @throws TypeError unless it is a whole number from `least` to `most` */
export function checkInteger(what: string, value: unknown, most = Number.MAX_SAFE_INTEGER, least = 0): number {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < least || value > most) throw new TypeError(`${what} is ${String(value)}`)
  return value
}

/** @throws TypeError for what is no object */
export function checkObject<T extends object>(what: string, value: T): T {
  if (typeof value !== 'object' || value === null) throw new TypeError(`${what} is ${String(value)}`)
  return value
}

export function checkMode(mode: unknown): number {
  const checked = checkInteger('mode', mode, 0xffff)
  if (!TYPES.includes(checked >> 12)) throw new TypeError(`mode is 0o${checked.toString(8)}, which has no file type`)
  return checked
}

const EPOCH: Timestamp = { seconds: 0, nanoseconds: 0 }

function writeTime(view: DataView, secondsAt: number, nanosecondsAt: number, what: string, { seconds, nanoseconds }: Timestamp): void {
  checkInteger(`${what}.seconds`, seconds, Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER)
  view.setUint32(secondsAt, seconds >>> 0, true)
  view.setInt32(secondsAt + 4, Math.floor(seconds / 0x1_0000_0000), true)
  view.setUint32(nanosecondsAt, checkInteger(`${what}.nanoseconds`, nanoseconds, NANOSECONDS - 1), true)
}

function writeAttributes(view: DataView, at: number, node: number, a: Attributes): void {
  const size = checkInteger('size', a.size ?? 0)
  setU64(view, at + FuseAttr.ino, checkInteger('ino', a.ino ?? node))
  setU64(view, at + FuseAttr.size, size)
  setU64(view, at + FuseAttr.blocks, checkInteger('blocks', a.blocks ?? Math.ceil(size / BLOCK)))
  writeTime(view, at + FuseAttr.atime, at + FuseAttr.atimensec, 'atime', a.atime ?? EPOCH)
  writeTime(view, at + FuseAttr.mtime, at + FuseAttr.mtimensec, 'mtime', a.mtime ?? EPOCH)
  writeTime(view, at + FuseAttr.ctime, at + FuseAttr.ctimensec, 'ctime', a.ctime ?? EPOCH)
  view.setUint32(at + FuseAttr.mode, checkMode(a.mode), true)
  view.setUint32(at + FuseAttr.nlink, checkInteger('nlink', a.nlink ?? 1, U32_MAX), true)
  view.setUint32(at + FuseAttr.uid, checkInteger('uid', a.uid ?? 0, U32_MAX), true)
  view.setUint32(at + FuseAttr.gid, checkInteger('gid', a.gid ?? 0, U32_MAX), true)
  view.setUint32(at + FuseAttr.rdev, checkInteger('rdev', a.rdev ?? 0, U32_MAX), true)
  view.setUint32(at + FuseAttr.blksize, checkInteger('blksize', a.blksize ?? PAGE, U32_MAX), true)
  view.setUint32(at + FuseAttr.flags, 0, true)
}

function writeTimeout(view: DataView, secondsAt: number, nanosecondsAt: number, timeout: number): void {
  if (typeof timeout !== 'number' || !(timeout >= 0)) throw new TypeError(`timeout is ${String(timeout)}`)
  const seconds = Math.min(Math.floor(timeout), MAX_TIMEOUT_S)
  setU64(view, secondsAt, seconds)
  view.setUint32(nanosecondsAt, timeout > MAX_TIMEOUT_S ? 0 : Math.floor((timeout - seconds) * NANOSECONDS), true)
}

/** fuse_attr_out. @returns its size */
export function writeAttrOut(view: DataView, at: number, node: number, attributes: Attributes, timeouts: Timeouts): number {
  checkObject('what was returned', attributes)
  writeTimeout(view, at + FuseAttrOut.attr_valid, at + FuseAttrOut.attr_valid_nsec, attributes.timeout ?? timeouts.attributes)
  view.setUint32(at + FuseAttrOut.dummy, 0, true)
  writeAttributes(view, at + FuseAttrOut.attr, node, attributes)
  return FuseAttrOut.SIZE
}

/** fuse_entry_out. The caller counts the lookup, once the reply is complete. @returns its size */
export function writeEntryOut(view: DataView, at: number, entry: Entry, timeouts: Timeouts): number {
  checkObject('what was returned', entry)
  const node = checkInteger('node', entry.node, Number.MAX_SAFE_INTEGER, FUSE_ROOT_ID + 1)
  const attributes = checkObject('attributes', entry.attributes)
  setU64(view, at + FuseEntryOut.nodeid, node)
  setU64(view, at + FuseEntryOut.generation, checkInteger('generation', entry.generation ?? 0))
  writeTimeout(view, at + FuseEntryOut.entry_valid, at + FuseEntryOut.entry_valid_nsec, entry.timeout ?? timeouts.entry)
  writeTimeout(view, at + FuseEntryOut.attr_valid, at + FuseEntryOut.attr_valid_nsec, attributes.timeout ?? timeouts.attributes)
  writeAttributes(view, at + FuseEntryOut.attr, node, attributes)
  return FuseEntryOut.SIZE
}

function clear(view: DataView, at: number, bytes: number): void {
  for (let i = 0; i < bytes; i += 4) view.setUint32(at + i, 0, true)
}

/** The fuse_entry_out of a name that does not exist, which the kernel may keep. @returns its size */
export function writeNegativeEntry(view: DataView, at: number, timeout: number): number {
  clear(view, at, FuseEntryOut.SIZE)
  writeTimeout(view, at + FuseEntryOut.entry_valid, at + FuseEntryOut.entry_valid_nsec, timeout)
  return FuseEntryOut.SIZE
}

/** The fuse_entry_out in a READDIRPLUS that tells the kernel nothing but the name: node id 0. @param type S_IFMT >> 12 */
export function writeNameOnly(view: DataView, at: number, ino: number, type: number): void {
  clear(view, at, FuseEntryOut.SIZE)
  setU64(view, at + FuseEntryOut.attr + FuseAttr.ino, ino)
  view.setUint32(at + FuseEntryOut.attr + FuseAttr.mode, type << 12, true)
}

/** fuse_open_out. @returns its size */
export function writeOpenOut(view: DataView, at: number, opened: Opened): number {
  checkObject('what was returned', opened)
  setU64(view, at + FuseOpenOut.fh, checkInteger('handle', opened.handle ?? 0))
  const flags = (opened.directIo ? FOPEN_DIRECT_IO : 0) | (opened.keepCache ? FOPEN_KEEP_CACHE : 0) | (opened.nonSeekable ? FOPEN_NONSEEKABLE : 0)
    | (opened.cacheDirectory ? FOPEN_CACHE_DIR : 0) | (opened.noFlush ? FOPEN_NOFLUSH : 0)
  view.setUint32(at + FuseOpenOut.open_flags, flags, true)
  view.setInt32(at + FuseOpenOut.backing_id, 0, true)
  return FuseOpenOut.SIZE
}

/** fuse_statfs_out. @returns its size */
export function writeStatfsOut(view: DataView, at: number, s: Statistics): number {
  checkObject('what was returned', s)
  clear(view, at, FuseStatfsOut.SIZE)
  for (const field of ['blocks', 'bfree', 'bavail', 'files', 'ffree'] as const) setU64(view, at + FuseKstatfs[field], checkInteger(field, s[field] ?? 0))
  const bsize = checkInteger('bsize', s.bsize ?? PAGE, U32_MAX, 1)
  view.setUint32(at + FuseKstatfs.bsize, bsize, true)
  view.setUint32(at + FuseKstatfs.frsize, checkInteger('frsize', s.frsize ?? bsize, U32_MAX, 1), true)
  view.setUint32(at + FuseKstatfs.namelen, NAME_MAX, true)
  return FuseStatfsOut.SIZE
}
