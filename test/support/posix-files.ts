/** System calls on names and inodes that Node lacks or does not give in full. Each throws SyscallError. */
import { bind } from '../../lib/sys/libc.js'
import { AT_FDCWD, AT_SYMLINK_NOFOLLOW } from '../../lib/sys/file.js'
import { argument, c, data, DATA_BYTES, done, type Path } from './posix-call.js'

const c_openat = bind('int openat(int, uintptr_t, int, uint32_t)')
const c_creat = bind('int creat(uintptr_t, uint32_t)')
const c_mknodat = bind('int mknodat(int, uintptr_t, uint32_t, uint64_t)')
const c_mkdirat = bind('int mkdirat(int, uintptr_t, uint32_t)')
const c_linkat = bind('int linkat(int, uintptr_t, int, uintptr_t, int)')
const c_symlinkat = bind('int symlinkat(uintptr_t, int, uintptr_t)')
const c_unlinkat = bind('int unlinkat(int, uintptr_t, int)')
const c_rmdir = bind('int rmdir(uintptr_t)')
const c_renameat2 = bind('int renameat2(int, uintptr_t, int, uintptr_t, uint32_t)')
const c_readlinkat = bind('int64_t readlinkat(int, uintptr_t, uintptr_t, size_t)')
const c_fchmodat = bind('int fchmodat(int, uintptr_t, uint32_t, int)')
const c_fchownat = bind('int fchownat(int, uintptr_t, uint32_t, uint32_t, int)')
const c_utimensat = bind('int utimensat(int, uintptr_t, uintptr_t, int)')
const c_futimens = bind('int futimens(int, uintptr_t)')
const c_faccessat = bind('int faccessat(int, uintptr_t, int, int)')
const c_truncate = bind('int truncate(uintptr_t, int64_t)')
const c_statx = bind('int statx(int, uintptr_t, int, uint32_t, uintptr_t)')
const c_statfs = bind('int statfs(uintptr_t, uintptr_t)')
const c_fpathconf = bind('int64_t pathconf(uintptr_t, int)')
const c_getdents64 = bind('int64_t getdents64(int, uintptr_t, size_t)')
const c_lseek = bind('int64_t lseek(int, int64_t, int)')
const c_umask = bind('uint32_t umask(uint32_t)')

export const S_IFIFO = 0o010000
export const S_IFCHR = 0o020000
export const S_IFBLK = 0o060000
export const S_IFSOCK = 0o140000
export const S_IFREG = 0o100000
export const UTIME_NOW = 0x3fff_ffff
export const UTIME_OMIT = 0x3fff_fffe
export const RENAME_NOREPLACE = 1
export const RENAME_EXCHANGE = 2
export const RENAME_WHITEOUT = 4

/** @param dirFd AT_FDCWD for the working directory, as below */
export function openat(dirFd: number, path: Path, flags: number, mode = 0): number {
  return done('openat', c_openat(dirFd, c(path), flags | 0o2000000, mode))
}

export function open(path: Path, flags: number, mode = 0o644): number {
  return openat(AT_FDCWD, path, flags, mode)
}

export function creat(path: Path, mode: number): number {
  return done('creat', c_creat(c(path), mode))
}

export function mknod(path: Path, mode: number, device = 0): void {
  done('mknod', c_mknodat(AT_FDCWD, c(path), mode, device))
}

export function mkdirat(dirFd: number, path: Path, mode: number): void {
  done('mkdirat', c_mkdirat(dirFd, c(path), mode))
}

export function linkat(oldDirFd: number, oldPath: Path, newDirFd: number, newPath: Path, flags = 0): void {
  done('linkat', c_linkat(oldDirFd, c(oldPath), newDirFd, c(newPath), flags))
}

export function symlinkat(target: Path, dirFd: number, path: Path): void {
  done('symlinkat', c_symlinkat(c(target), dirFd, c(path)))
}

export function unlinkat(dirFd: number, path: Path, flags = 0): void {
  done('unlinkat', c_unlinkat(dirFd, c(path), flags))
}

/** rmdir(2) itself: Node's fs.rmdirSync has options of its own. */
export function rmdir(path: Path): void {
  done('rmdir', c_rmdir(c(path)))
}

export function renameat(oldDirFd: number, oldPath: Path, newDirFd: number, newPath: Path, flags = 0): void {
  done('renameat2', c_renameat2(oldDirFd, c(oldPath), newDirFd, c(newPath), flags))
}

export function rename2(from: Path, to: Path, flags: number): void {
  renameat(AT_FDCWD, from, AT_FDCWD, to, flags)
}

/** The first `room` bytes of a symbolic link's target, as readlink(2) truncates it. */
export function readlink(path: Path, room: number): Buffer {
  const length = done('readlinkat', c_readlinkat(AT_FDCWD, c(path), data.address, room))
  return Buffer.from(data.bytes.subarray(0, length))
}

export function chmodat(path: Path, mode: number, flags = 0): void {
  done('fchmodat', c_fchmodat(AT_FDCWD, c(path), mode, flags))
}

/** −1 leaves an id as it is. */
export function chown(path: Path, uid: number, gid: number, flags = 0): void {
  done('fchownat', c_fchownat(AT_FDCWD, c(path), uid >>> 0, gid >>> 0, flags))
}

export interface Time { sec: number | bigint, nsec: number }

function setTimes(atime: Time, mtime: Time): number {
  argument.view.setBigInt64(0, BigInt(atime.sec), true)
  argument.view.setBigInt64(8, BigInt(atime.nsec), true)
  argument.view.setBigInt64(16, BigInt(mtime.sec), true)
  argument.view.setBigInt64(24, BigInt(mtime.nsec), true)
  return argument.address
}

export function utimens(path: Path, atime: Time, mtime: Time, flags = 0): void {
  done('utimensat', c_utimensat(AT_FDCWD, c(path), setTimes(atime, mtime), flags))
}

/** utimensat with no times: both become now. */
export function utimensNow(path: Path): void {
  done('utimensat', c_utimensat(AT_FDCWD, c(path), 0, 0))
}

export function futimens(fd: number, atime: Time, mtime: Time): void {
  done('futimens', c_futimens(fd, setTimes(atime, mtime)))
}

/** With the effective ids when `flags` is AT_EACCESS. */
export function access(path: Path, mode: number, flags = 0): void {
  done('faccessat', c_faccessat(AT_FDCWD, c(path), mode, flags))
}

export function truncate(path: Path, size: number | bigint): void {
  done('truncate', c_truncate(c(path), size))
}

export interface Statx {
  mask: number, blksize: number, nlink: number, uid: number, gid: number, mode: number, attributes: bigint
  ino: bigint, size: bigint, blocks: bigint, btimeNs: bigint, ctimeNs: bigint, mtimeNs: bigint, atimeNs: bigint, mountId: bigint
}

export function statx(path: Path, mask: number, flags = AT_SYMLINK_NOFOLLOW, dirFd = AT_FDCWD): Statx {
  done('statx', c_statx(dirFd, c(path), flags, mask, argument.address))
  const v = argument.view
  const time = (at: number): bigint => v.getBigInt64(at, true) * 1_000_000_000n + BigInt(v.getUint32(at + 8, true))
  return {
    mask: v.getUint32(0, true), blksize: v.getUint32(4, true), attributes: v.getBigUint64(8, true), nlink: v.getUint32(16, true),
    uid: v.getUint32(20, true), gid: v.getUint32(24, true), mode: v.getUint16(28, true), ino: v.getBigUint64(32, true),
    size: v.getBigUint64(40, true), blocks: v.getBigUint64(48, true), atimeNs: time(64), btimeNs: time(80), ctimeNs: time(96), mtimeNs: time(112),
    mountId: v.getBigUint64(144, true),
  }
}

export interface Statfs { type: bigint, bsize: bigint, blocks: bigint, bfree: bigint, bavail: bigint, files: bigint, ffree: bigint, namelen: bigint, frsize: bigint }

export function statfs(path: Path): Statfs {
  done('statfs', c_statfs(c(path), argument.address))
  const word = (i: number): bigint => argument.view.getBigUint64(i * 8, true)
  return { type: word(0), bsize: word(1), blocks: word(2), bfree: word(3), bavail: word(4), files: word(5), ffree: word(6), namelen: word(8), frsize: word(9) }
}

const PC_NAME_MAX = 3

/** pathconf(path, _PC_NAME_MAX). */
export function nameMax(path: Path): number {
  return done('pathconf', c_fpathconf(c(path), PC_NAME_MAX))
}

export interface Dirent { ino: bigint, offset: bigint, type: number, name: string }

export const DT_FIFO = 1
export const DT_DIR = 4
export const DT_REG = 8
export const DT_LNK = 10
export const DT_SOCK = 12

/** One getdents64(2) into a buffer of so many bytes; empty at the end. Names as latin1, a byte per character. */
export function getdents(fd: number, room = 32768): Dirent[] {
  const length = done('getdents64', c_getdents64(fd, data.address, Math.min(room, DATA_BYTES)))
  const entries: Dirent[] = []
  for (let at = 0; at < length;) {
    const recordBytes = data.view.getUint16(at + 16, true)
    let end = at + 19
    while (data.bytes[end] !== 0) end++
    entries.push({
      ino: data.view.getBigUint64(at, true), offset: data.view.getBigInt64(at + 8, true), type: data.bytes[at + 18]!,
      name: Buffer.from(data.bytes.subarray(at + 19, end)).toString('latin1'),
    })
    at += recordBytes
  }
  return entries
}

export const SEEK_SET = 0
export const SEEK_CUR = 1
export const SEEK_END = 2
export const SEEK_DATA = 3
export const SEEK_HOLE = 4

export function lseek(fd: number, offset: number | bigint, whence: number): bigint {
  return BigInt(done('lseek', c_lseek(fd, offset, whence)))
}

/** @returns the mask before */
export function umask(mask: number): number {
  return c_umask(mask)
}
