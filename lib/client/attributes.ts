/** Attributes of a file as a device gives them: fuse_attr and fuse_statx, decoded once per reply. */
import { FuseAttr, FuseStatfsOut, FuseKstatfs, FuseStatx, FuseSxTime } from '../fuse/abi.js'
import { encodeDevice, S_IFMT, STATX_BTIME } from '../sys/file.js'
import { getI64, getU64 } from '../wire/u64.js'

/** Seconds since 1970, and nanoseconds from 0 to 999,999,999 on top of them. */
export interface Time {
  readonly sec: number
  readonly nsec: number
}

export interface Attributes {
  /** Exact: a BigInt beyond 2^53. */
  readonly ino: number | bigint
  readonly size: number | bigint
  readonly blocks: number | bigint
  readonly mode: number
  readonly nlink: number
  readonly uid: number
  readonly gid: number
  readonly rdev: number
  readonly blksize: number
  readonly atime: Time
  readonly mtime: Time
  readonly ctime: Time
  /** Only STATX knows it. */
  birthtime: Time | undefined
}

export interface FileSystemStatistics {
  readonly blocks: number | bigint
  readonly bfree: number | bigint
  readonly bavail: number | bigint
  readonly files: number | bigint
  readonly ffree: number | bigint
  readonly bsize: number
  readonly namelen: number
  readonly frsize: number
}

/** A u64, exact. */
export function exactU64(view: DataView, at: number): number | bigint {
  const number = getU64(view, at)
  return Number.isSafeInteger(number) ? number : view.getBigUint64(at, true)
}

/** Bytes of a file as a number, for comparisons and loops; sizes that no number holds lose their last bits. */
export function sizeOf(attributes: Attributes): number {
  return Number(attributes.size)
}

export function typeOf(attributes: Attributes): number {
  return attributes.mode & S_IFMT
}

/** Decodes a struct fuse_attr. */
export function decodeAttributes(view: DataView, at: number): Attributes {
  return {
    ino: exactU64(view, at + FuseAttr.ino),
    size: exactU64(view, at + FuseAttr.size),
    blocks: exactU64(view, at + FuseAttr.blocks),
    mode: view.getUint32(at + FuseAttr.mode, true),
    nlink: view.getUint32(at + FuseAttr.nlink, true),
    uid: view.getUint32(at + FuseAttr.uid, true),
    gid: view.getUint32(at + FuseAttr.gid, true),
    rdev: view.getUint32(at + FuseAttr.rdev, true),
    blksize: view.getUint32(at + FuseAttr.blksize, true),
    atime: { sec: getI64(view, at + FuseAttr.atime), nsec: view.getUint32(at + FuseAttr.atimensec, true) },
    mtime: { sec: getI64(view, at + FuseAttr.mtime), nsec: view.getUint32(at + FuseAttr.mtimensec, true) },
    ctime: { sec: getI64(view, at + FuseAttr.ctime), nsec: view.getUint32(at + FuseAttr.ctimensec, true) },
    birthtime: undefined,
  }
}

function statxTime(view: DataView, at: number): Time {
  return { sec: getI64(view, at + FuseSxTime.tv_sec), nsec: view.getUint32(at + FuseSxTime.tv_nsec, true) }
}

/** Decodes a struct fuse_statx. */
export function decodeStatx(view: DataView, at: number): Attributes {
  return {
    ino: exactU64(view, at + FuseStatx.ino),
    size: exactU64(view, at + FuseStatx.size),
    blocks: exactU64(view, at + FuseStatx.blocks),
    mode: view.getUint16(at + FuseStatx.mode, true),
    nlink: view.getUint32(at + FuseStatx.nlink, true),
    uid: view.getUint32(at + FuseStatx.uid, true),
    gid: view.getUint32(at + FuseStatx.gid, true),
    rdev: encodeDevice(view.getUint32(at + FuseStatx.rdev_major, true), view.getUint32(at + FuseStatx.rdev_minor, true)),
    blksize: view.getUint32(at + FuseStatx.blksize, true),
    atime: statxTime(view, at + FuseStatx.atime),
    mtime: statxTime(view, at + FuseStatx.mtime),
    ctime: statxTime(view, at + FuseStatx.ctime),
    birthtime: (view.getUint32(at + FuseStatx.mask, true) & STATX_BTIME) === 0 ? undefined : statxTime(view, at + FuseStatx.btime),
  }
}

/** Decodes a struct fuse_statfs_out. */
export function decodeStatfs(view: DataView, at: number): FileSystemStatistics {
  const st = at + FuseStatfsOut.st
  return {
    blocks: exactU64(view, st + FuseKstatfs.blocks),
    bfree: exactU64(view, st + FuseKstatfs.bfree),
    bavail: exactU64(view, st + FuseKstatfs.bavail),
    files: exactU64(view, st + FuseKstatfs.files),
    ffree: exactU64(view, st + FuseKstatfs.ffree),
    bsize: view.getUint32(st + FuseKstatfs.bsize, true),
    namelen: view.getUint32(st + FuseKstatfs.namelen, true),
    frsize: view.getUint32(st + FuseKstatfs.frsize, true),
  }
}
