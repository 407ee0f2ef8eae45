/** Stats and BigIntStats of node:fs, made of a device's attributes: instances of Node's own classes. */
import { Stats, statSync, type BigIntStats } from 'node:fs'
import type { Attributes, FileSystemStatistics, Time } from './attributes.js'

export interface StatFs<T extends number | bigint = number> {
  /** Magic number of the file system: FUSE's. */
  type: T
  bsize: T
  blocks: T
  bfree: T
  bavail: T
  files: T
  ffree: T
}

const FUSE_SUPER_MAGIC = 0x65735546
/** st_blksize where a device does not say. */
const DEFAULT_BLOCK_BYTES = 4096

const bigIntPrototype = Object.getPrototypeOf(statSync('/', { bigint: true })) as object

const EPOCH: Time = { sec: 0, nsec: 0 }

function milliseconds({ sec, nsec }: Time): number {
  return sec * 1000 + nsec / 1e6
}

function nanoseconds({ sec, nsec }: Time): bigint {
  return BigInt(sec) * 1_000_000_000n + BigInt(nsec)
}

function date(ms: number): Date {
  return new Date(Math.round(ms))
}

/** @param dev st_dev: a number of this session's own */
export function statsOf(attributes: Attributes, dev: number): Stats {
  const { atime, mtime, ctime, birthtime = EPOCH } = attributes
  const atimeMs = milliseconds(atime)
  const mtimeMs = milliseconds(mtime)
  const ctimeMs = milliseconds(ctime)
  const birthtimeMs = milliseconds(birthtime)
  return make(Stats.prototype, {
    dev, mode: attributes.mode, nlink: attributes.nlink, uid: attributes.uid, gid: attributes.gid, rdev: attributes.rdev,
    blksize: attributes.blksize || DEFAULT_BLOCK_BYTES, ino: Number(attributes.ino), size: Number(attributes.size), blocks: Number(attributes.blocks),
    atimeMs, mtimeMs, ctimeMs, birthtimeMs,
    atime: date(atimeMs), mtime: date(mtimeMs), ctime: date(ctimeMs), birthtime: date(birthtimeMs),
  }) as Stats
}

export function bigIntStatsOf(attributes: Attributes, dev: number): BigIntStats {
  const { atime, mtime, ctime, birthtime = EPOCH } = attributes
  const times = { atimeNs: nanoseconds(atime), mtimeNs: nanoseconds(mtime), ctimeNs: nanoseconds(ctime), birthtimeNs: nanoseconds(birthtime) }
  const ms = (ns: bigint): bigint => ns / 1_000_000n
  return make(bigIntPrototype, {
    dev: BigInt(dev), mode: BigInt(attributes.mode), nlink: BigInt(attributes.nlink), uid: BigInt(attributes.uid), gid: BigInt(attributes.gid),
    rdev: BigInt(attributes.rdev), blksize: BigInt(attributes.blksize || DEFAULT_BLOCK_BYTES), ino: BigInt(attributes.ino), size: BigInt(attributes.size),
    blocks: BigInt(attributes.blocks),
    atimeMs: ms(times.atimeNs), mtimeMs: ms(times.mtimeNs), ctimeMs: ms(times.ctimeNs), birthtimeMs: ms(times.birthtimeNs), ...times,
    atime: date(milliseconds(atime)), mtime: date(milliseconds(mtime)), ctime: date(milliseconds(ctime)), birthtime: date(milliseconds(birthtime)),
  }) as BigIntStats
}

/** Own properties, also where the prototype has an accessor of that name, as later versions of Node have. */
function make(prototype: object, fields: Record<string, unknown>): object {
  const descriptors: PropertyDescriptorMap = {}
  for (const [name, value] of Object.entries(fields)) descriptors[name] = { value, enumerable: true, writable: true, configurable: true }
  return Object.create(prototype, descriptors) as object
}

export function statFsOf(statistics: FileSystemStatistics): StatFs {
  const { bsize, blocks, bfree, bavail, files, ffree } = statistics
  return { type: FUSE_SUPER_MAGIC, bsize, blocks: Number(blocks), bfree: Number(bfree), bavail: Number(bavail), files: Number(files), ffree: Number(ffree) }
}

export function bigIntStatFsOf(statistics: FileSystemStatistics): StatFs<bigint> {
  const { bsize, blocks, bfree, bavail, files, ffree } = statistics
  return { type: BigInt(FUSE_SUPER_MAGIC), bsize: BigInt(bsize), blocks: BigInt(blocks), bfree: BigInt(bfree), bavail: BigInt(bavail), files: BigInt(files), ffree: BigInt(ffree) }
}
