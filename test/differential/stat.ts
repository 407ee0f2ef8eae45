/** Notes what an inode says of itself. */
import * as f from '../../lib/sys/file.js'
import { result } from '../../lib/sys/libc.js'
import { calls } from './calls.js'
import { cString, region, type Side } from './side.js'

const buffer = region(f.STATX_BYTES)
const { view } = buffer
const S_IFIFO = 0o010000
const XATTR_ROOM = 65536
const lists = region(XATTR_ROOM)
const chars = Buffer.from(lists.bytes.buffer)

function time(at: number): bigint {
  return view.getBigInt64(at, true) * 1_000_000_000n + BigInt(view.getUint32(at + 8, true))
}

export interface Stat {
  type: number
  ino: bigint
  size: number
}

/**
 * statx, with every field that two file systems can be asked for noted.
 * @param atime note it under a name that is compared: it was just set
 * @returns what the caller goes on with, or −errno
 */
export function noteStat(side: Side, dirFd: number, path: number, flags: number, mask: number, atime = false): Stat | number {
  const failed = side.ret(calls.statx(dirFd, path, flags, mask, buffer.address), 'stat')
  if (failed < 0) return failed
  const mode = view.getUint16(28, true)
  side.note('mask', view.getUint32(0, true) & mask)
  side.note('mode', mode)
  side.note('nlink', view.getUint32(16, true))
  side.note('uid', view.getUint32(20, true))
  side.note('gid', view.getUint32(24, true))
  const size = Number(view.getBigUint64(40, true))
  side.note((mode & f.S_IFMT) === f.S_IFDIR ? 'dirsize' : 'size', size)
  side.note('rdev', `${view.getUint32(128, true)}:${view.getUint32(132, true)}`)
  side.note('blksize', view.getUint32(4, true))
  side.note('blocks', Number(view.getBigUint64(48, true)))
  // see rules.ts
  const times = (mode & f.S_IFMT) === S_IFIFO ? 'pipe ' : ''
  side.note(`${times}mtime`, time(112))
  side.note(`${times}ctime`, time(96))
  side.note(atime ? 'atime just set' : 'atime', time(64))
  if ((mask & f.STATX_BTIME) !== 0) side.note('btime', time(80))
  return { type: mode & f.S_IFMT, ino: view.getBigUint64(32, true), size }
}

/** The names of extended attributes, and their values. A symbolic link at the end is not followed. */
export function noteXattrs(side: Side, path: string): void {
  const length = result(calls.llistxattr(cString(path), lists.address, XATTR_ROOM))
  if (length < 0) {
    side.note('xattrs', length)
    return
  }
  const names = chars.toString('latin1', 0, length).split('\0').slice(0, -1).sort()
  side.note('xattrs', names.join(' '))
  for (const name of names) {
    const bytes = result(calls.lgetxattr(cString(path), cString(name), lists.address, XATTR_ROOM))
    side.note(`xattr ${name}`, bytes < 0 ? bytes : chars.toString('latin1', 0, bytes))
  }
}
