/**
 * File calls by descriptor and address. Paths are addresses of NUL-terminated bytes: a name of a
 * request goes to the kernel without becoming a string. Every function returns the call's result
 * or −errno.
 *
 * Offsets and lengths are numbers where they are exact and BigInt beyond 2^53 (see `wide`).
 */
import { constants } from 'node:fs'
import { bind, result, syscall } from './libc.js'

export const O_RDONLY = 0
export const O_WRONLY = 1
export const O_RDWR = 2
export const O_ACCMODE = 3
export const O_CREAT = 0o100
export const O_EXCL = 0o200
export const O_TRUNC = 0o1000
export const O_APPEND = 0o2000
export const O_NONBLOCK = 0o4000
export const O_NOATIME = 0o1000000
export const O_CLOEXEC = 0o2000000
export const O_PATH = 0o10000000
/** These four differ between architectures. */
export const O_DIRECTORY = constants.O_DIRECTORY
export const O_NOFOLLOW = constants.O_NOFOLLOW
export const O_DIRECT = constants.O_DIRECT
export const O_LARGEFILE = process.arch === 'arm64' ? 0o400000 : 0o100000
export const O_TMPFILE = 0o20000000 | O_DIRECTORY
export const O_DSYNC = 0o10000
export const O_SYNC = 0o4010000

export const AT_FDCWD = -100
export const AT_SYMLINK_NOFOLLOW = 0x100
export const AT_EACCESS = 0x200
export const AT_REMOVEDIR = 0x200
export const AT_SYMLINK_FOLLOW = 0x400
export const AT_NO_AUTOMOUNT = 0x800
export const AT_EMPTY_PATH = 0x1000
export const AT_STATX_DONT_SYNC = 0x4000

export const STATX_TYPE = 0x1
export const STATX_MODE = 0x2
export const STATX_NLINK = 0x4
export const STATX_GID = 0x10
export const STATX_SIZE = 0x200
export const STATX_BLOCKS = 0x400
export const STATX_BASIC_STATS = 0x7ff
export const STATX_BTIME = 0x800
export const STATX_MNT_ID = 0x1000
export const STATX_BYTES = 256

export const S_IFMT = 0o170000
export const S_IFSOCK = 0o140000
export const S_IFLNK = 0o120000
export const S_IFREG = 0o100000
export const S_IFBLK = 0o060000
export const S_IFDIR = 0o040000
export const S_IFCHR = 0o020000
export const S_IFIFO = 0o010000
export const S_ISUID = 0o4000
export const S_ISGID = 0o2000

/** A device number as the kernel packs it into 32 bits (new_encode_dev in kdev_t.h), and as fuse_attr.rdev has it. */
export function encodeDevice(major: number, minor: number): number {
  return (minor & 0xff | major << 8 | (minor & ~0xff) << 12) >>> 0
}

/** preadv2 fails with EAGAIN, or comes back short, rather than wait for a disk. */
export const RWF_NOWAIT = 0x8
export const RWF_APPEND = 0x10

/** Names in the directory are compared without regard to case. */
export const FS_CASEFOLD_FL = 0x4000_0000

const SYS_FACCESSAT2 = 439
const FS_IOC_GETFLAGS = 0x8008_6601

const HIGH = 0x1_0000_0000
const SAFE_HIGH = 0x20_0000

/**
 * A 64-bit value as an argument of a system call: a number where that is exact, else a BigInt.
 * Offsets of directories (ext4 hashes names to 63 bits) and of absurdly sparse files get there.
 */
export function wide(low: number, high: number): number | bigint {
  low >>>= 0
  high >>>= 0
  return high < SAFE_HIGH ? high * HIGH + low : BigInt.asIntN(64, BigInt(high) << 32n | BigInt(low))
}

const c_ioctl = bind('int ioctl(int, uint64_t, uintptr_t)')
const c_openat = bind('int openat(int, uintptr_t, int, uint32_t)')
const c_open_by_handle_at = bind('int open_by_handle_at(int, uintptr_t, int)')
const c_name_to_handle_at = bind('int name_to_handle_at(int, uintptr_t, uintptr_t, uintptr_t, int)')
const c_statx = bind('int statx(int, uintptr_t, int, uint32_t, uintptr_t)')
const c_fstatfs = bind('int fstatfs(int, uintptr_t)')
const c_readlinkat = bind('int64_t readlinkat(int, uintptr_t, uintptr_t, size_t)')
const c_preadv2 = bind('int64_t preadv2(int, uintptr_t, int, int64_t, int)')
const c_pwritev2 = bind('int64_t pwritev2(int, uintptr_t, int, int64_t, int)')
const c_truncate = bind('int truncate(uintptr_t, int64_t)')
const c_ftruncate = bind('int ftruncate(int, int64_t)')
const c_fchmod = bind('int fchmod(int, uint32_t)')
const c_fchmodat = bind('int fchmodat(int, uintptr_t, uint32_t, int)')
const c_fchownat = bind('int fchownat(int, uintptr_t, uint32_t, uint32_t, int)')
const c_utimensat = bind('int utimensat(int, uintptr_t, uintptr_t, int)')
const c_fsync = bind('int fsync(int)')
const c_fdatasync = bind('int fdatasync(int)')
const c_syncfs = bind('int syncfs(int)')
const c_fallocate = bind('int fallocate(int, int, int64_t, int64_t)')
const c_lseek = bind('int64_t lseek(int, int64_t, int)')
const c_copy_file_range = bind('int64_t copy_file_range(int, uintptr_t, int, uintptr_t, size_t, uint32_t)')
const c_fcntl = bind('int fcntl(int, int, int)')
const c_statxName = bind('int statx(int, const char *, int, uint32_t, uintptr_t)')
const c_openName = bind('int open(const char *, int, uint32_t)')

const F_DUPFD_CLOEXEC = 1030

/** Opens a path given as a string; for set-up. */
export function openPath(path: string, flags: number): number {
  return result(c_openName(path, flags | O_CLOEXEC, 0))
}

/** statx of a path given as a string; for set-up. */
export function statxPath(dirFd: number, path: string, flags: number, mask: number, address: number): number {
  return result(c_statxName(dirFd, path, flags, mask, address))
}

/** Always close-on-exec. */
export function openat(dirFd: number, path: number, flags: number, mode = 0): number {
  return result(c_openat(dirFd, path, flags | O_CLOEXEC, mode))
}

/** @param handle address of a struct file_handle */
export function openByHandleAt(mountFd: number, handle: number, flags: number): number {
  return result(c_open_by_handle_at(mountFd, handle, flags | O_CLOEXEC))
}

/**
 * @param handle address of a struct file_handle whose handle_bytes is the room behind it
 * @param mountId address of an int, written
 */
export function nameToHandleAt(dirFd: number, path: number, handle: number, mountId: number, flags: number): number {
  return result(c_name_to_handle_at(dirFd, path, handle, mountId, flags))
}

/** @param address of a struct statx */
export function statx(dirFd: number, path: number, flags: number, mask: number, address: number): number {
  return result(c_statx(dirFd, path, flags, mask, address))
}

/** @param address of a struct statfs */
export function fstatfs(fd: number, address: number): number {
  return result(c_fstatfs(fd, address))
}

export function readlinkat(dirFd: number, path: number, address: number, lengthBytes: number): number {
  return result(c_readlinkat(dirFd, path, address, lengthBytes))
}

export function preadv2(fd: number, iov: number, count: number, offset: number | bigint, flags: number): number {
  return result(c_preadv2(fd, iov, count, offset, flags))
}

export function pwritev2(fd: number, iov: number, count: number, offset: number | bigint, flags: number): number {
  return result(c_pwritev2(fd, iov, count, offset, flags))
}

/** A path call: with a path of /proc/self/fd it works on what an O_PATH descriptor refers to. */
export function truncate(path: number, size: number | bigint): number {
  return result(c_truncate(path, size))
}

export function ftruncate(fd: number, size: number | bigint): number {
  return result(c_ftruncate(fd, size))
}

export function fchmod(fd: number, mode: number): number {
  return result(c_fchmod(fd, mode))
}

/** Follows symbolic links, so the path must be one of /proc/self/fd. */
export function fchmodat(dirFd: number, path: number, mode: number): number {
  return result(c_fchmodat(dirFd, path, mode, 0))
}

/** A uid or gid of 2^32 − 1 is left as it is. */
export function fchownat(dirFd: number, path: number, uid: number, gid: number, flags: number): number {
  return result(c_fchownat(dirFd, path, uid, gid, flags))
}

/** @param times address of two struct timespec */
export function utimensat(dirFd: number, path: number, times: number, flags: number): number {
  return result(c_utimensat(dirFd, path, times, flags))
}

export function fsync(fd: number): number {
  return result(c_fsync(fd))
}

export function fdatasync(fd: number): number {
  return result(c_fdatasync(fd))
}

export function syncfs(fd: number): number {
  return result(c_syncfs(fd))
}

export function fallocate(fd: number, mode: number, offset: number | bigint, lengthBytes: number | bigint): number {
  return result(c_fallocate(fd, mode, offset, lengthBytes))
}

/** The new offset: a BigInt beyond 2^53. */
export function lseek(fd: number, offset: number | bigint, whence: number): number | bigint {
  return result(c_lseek(fd, offset, whence))
}

/** Both offsets are addresses of an int64, read and advanced. */
export function copyFileRange(fdIn: number, offsetIn: number, fdOut: number, offsetOut: number, lengthBytes: number | bigint, flags: number): number {
  return result(c_copy_file_range(fdIn, offsetIn, fdOut, offsetOut, lengthBytes, flags))
}

/** FS_IOC_GETFLAGS: writes the flags of an inode to 4 bytes at an address. @returns 0, or −errno where there are none */
export function inodeFlags(fd: number, to: number): number {
  return result(c_ioctl(fd, FS_IOC_GETFLAGS, to))
}

export function dup(fd: number): number {
  return result(c_fcntl(fd, F_DUPFD_CLOEXEC, 0))
}

export const R_OK = 4
export const W_OK = 2

/** The access check of the kernel itself, with the fsuid and fsgid of this thread. */
export function faccessat2(dirFd: number, path: number, mode: number, flags: number): number {
  return syscall(SYS_FACCESSAT2, dirFd, path, mode, flags)
}

const c_getxattr = bind('int64_t getxattr(uintptr_t, uintptr_t, uintptr_t, size_t)')
const c_setxattr = bind('int setxattr(uintptr_t, uintptr_t, uintptr_t, size_t, int)')
const c_listxattr = bind('int64_t listxattr(uintptr_t, uintptr_t, size_t)')
const c_removexattr = bind('int removexattr(uintptr_t, uintptr_t)')

/** Path calls: with a path of /proc/self/fd they work on what an O_PATH descriptor refers to. */
export function getxattr(path: number, name: number, address: number, lengthBytes: number): number {
  return result(c_getxattr(path, name, address, lengthBytes))
}

export function setxattr(path: number, name: number, address: number, lengthBytes: number, flags: number): number {
  return result(c_setxattr(path, name, address, lengthBytes, flags))
}

export function listxattr(path: number, address: number, lengthBytes: number): number {
  return result(c_listxattr(path, address, lengthBytes))
}

export function removexattr(path: number, name: number): number {
  return result(c_removexattr(path, name))
}
