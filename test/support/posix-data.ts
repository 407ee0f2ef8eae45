/** System calls on open files and their data. Each throws SyscallError. */
import { bind } from '../../lib/sys/libc.js'
import { viewRegion } from '../../lib/sys/memory.js'
import { errno, SyscallError } from '../../lib/errors.js'
import { argument, data, DATA_BYTES, done } from './posix-call.js'

const c_read = bind('int64_t read(int, uintptr_t, size_t)')
const c_write = bind('int64_t write(int, uintptr_t, size_t)')
const c_pread = bind('int64_t pread(int, uintptr_t, size_t, int64_t)')
const c_pwrite = bind('int64_t pwrite(int, uintptr_t, size_t, int64_t)')
const c_preadv2 = bind('int64_t preadv2(int, uintptr_t, int, int64_t, int)')
const c_pwritev2 = bind('int64_t pwritev2(int, uintptr_t, int, int64_t, int)')
const c_ftruncate = bind('int ftruncate(int, int64_t)')
const c_fallocate = bind('int fallocate(int, int, int64_t, int64_t)')
const c_posix_fallocate = bind('int posix_fallocate(int, int64_t, int64_t)')
const c_copy_file_range = bind('int64_t copy_file_range(int, uintptr_t, int, uintptr_t, size_t, uint32_t)')
const c_sendfile = bind('int64_t sendfile(int, int, uintptr_t, size_t)')
const c_splice = bind('int64_t splice(int, uintptr_t, int, uintptr_t, size_t, uint32_t)')
const c_pipe2 = bind('int pipe2(uintptr_t, int)')
const c_fsync = bind('int fsync(int)')
const c_fdatasync = bind('int fdatasync(int)')
const c_syncfs = bind('int syncfs(int)')
const c_sync_file_range = bind('int sync_file_range(int, int64_t, int64_t, uint32_t)')
const c_posix_fadvise = bind('int posix_fadvise(int, int64_t, int64_t, int)')
const c_readahead = bind('int64_t readahead(int, int64_t, size_t)')
const c_fcntl = bind('int fcntl(int, int, int)')
const c_ioctl = bind('int ioctl(int, uint64_t, uintptr_t)')
const c_mmap = bind('uintptr_t mmap(uintptr_t, size_t, int, int, int, int64_t)')
const c_munmap = bind('int munmap(uintptr_t, size_t)')
const c_msync = bind('int msync(uintptr_t, size_t, int)')
const c_poll = bind('int poll(uintptr_t, uint64_t, int)')
const c_dup = bind('int dup(int)')
const c_close = bind('int close(int)')

export const FALLOC_FL_KEEP_SIZE = 1
export const FALLOC_FL_PUNCH_HOLE = 2
export const FALLOC_FL_COLLAPSE_RANGE = 8
export const FALLOC_FL_ZERO_RANGE = 16
export const FALLOC_FL_INSERT_RANGE = 32

export function close(fd: number): void {
  done('close', c_close(fd))
}

/** Lets the callback have descriptors that are closed after it, whatever it does. */
export function withFd<T>(fd: number, use: (fd: number) => T): T {
  try {
    return use(fd)
  } finally {
    c_close(fd)
  }
}

function put(bytes: string | Uint8Array): number {
  const buffer = typeof bytes === 'string' ? Buffer.from(bytes) : bytes
  data.bytes.set(buffer)
  return buffer.length
}

function take(length: number): Buffer {
  return Buffer.from(data.bytes.subarray(0, length))
}

export function read(fd: number, lengthBytes: number): Buffer {
  return take(done('read', c_read(fd, data.address, Math.min(lengthBytes, DATA_BYTES))))
}

/** @returns the number of bytes written, as write(2) */
export function write(fd: number, bytes: string | Uint8Array): number {
  const length = put(bytes)
  return done('write', c_write(fd, data.address, length))
}

/** @param skew bytes into a page at which the buffer starts: for O_DIRECT 0 is aligned */
export function pread(fd: number, lengthBytes: number, offset: number | bigint, skew = 0): Buffer {
  const length = done('pread', c_pread(fd, data.address + skew, lengthBytes, offset))
  return Buffer.from(data.bytes.subarray(skew, skew + length))
}

export function pwrite(fd: number, bytes: string | Uint8Array, offset: number | bigint, skew = 0): number {
  const buffer = typeof bytes === 'string' ? Buffer.from(bytes) : bytes
  data.bytes.set(buffer, skew)
  return done('pwrite', c_pwrite(fd, data.address + skew, buffer.length, offset))
}

/** Buffers one behind the other in `data`, as an iovec. */
function vector(lengths: number[]): number {
  let at = 0
  lengths.forEach((length, i) => {
    argument.view.setBigUint64(i * 16, BigInt(data.address + at), true)
    argument.view.setBigUint64(i * 16 + 8, BigInt(length), true)
    at += length
  })
  return argument.address
}

export const RWF_HIPRI = 1
export const RWF_DSYNC = 2
export const RWF_SYNC = 4
export const RWF_NOWAIT = 8
export const RWF_APPEND = 16

/** preadv2(2) with buffers of these lengths; an offset of −1 is the file's. */
export function preadv2(fd: number, lengths: number[], offset: number, flags = 0): Buffer {
  return take(done('preadv2', c_preadv2(fd, vector(lengths), lengths.length, offset, flags)))
}

export function pwritev2(fd: number, parts: string[], offset: number, flags = 0): number {
  put(parts.join(''))
  return done('pwritev2', c_pwritev2(fd, vector(parts.map(part => Buffer.byteLength(part))), parts.length, offset, flags))
}

export function ftruncate(fd: number, size: number | bigint): void {
  done('ftruncate', c_ftruncate(fd, size))
}

export function fallocate(fd: number, mode: number, offset: number | bigint, length: number | bigint): void {
  done('fallocate', c_fallocate(fd, mode, offset, length))
}

/** Returns its error instead of setting errno. */
export function posixFallocate(fd: number, offset: number, length: number): void {
  const error = c_posix_fallocate(fd, offset, length)
  if (error !== 0) throw new SyscallError('posix_fallocate', error)
}

/** Offsets of undefined are the files' own. @returns how many bytes, and the offsets after it */
export function copyFileRange(from: number, fromOffset: number | undefined, to: number, toOffset: number | undefined, length: number, flags = 0): { copied: number, fromOffset: number, toOffset: number } {
  argument.view.setBigInt64(0, BigInt(fromOffset ?? 0), true)
  argument.view.setBigInt64(8, BigInt(toOffset ?? 0), true)
  const copied = done('copy_file_range', c_copy_file_range(from, fromOffset === undefined ? 0 : argument.address, to, toOffset === undefined ? 0 : argument.address + 8, length, flags))
  return { copied, fromOffset: Number(argument.view.getBigInt64(0, true)), toOffset: Number(argument.view.getBigInt64(8, true)) }
}

export function sendfile(to: number, from: number, offset: number | undefined, count: number): { sent: number, offset: number } {
  argument.view.setBigInt64(0, BigInt(offset ?? 0), true)
  const sent = done('sendfile', c_sendfile(to, from, offset === undefined ? 0 : argument.address, count))
  return { sent, offset: Number(argument.view.getBigInt64(0, true)) }
}

/** An offset belongs to the side that is no pipe; undefined for the file's own. */
export function splice(from: number, fromOffset: number | undefined, to: number, toOffset: number | undefined, length: number): number {
  argument.view.setBigInt64(0, BigInt(fromOffset ?? 0), true)
  argument.view.setBigInt64(8, BigInt(toOffset ?? 0), true)
  return done('splice', c_splice(from, fromOffset === undefined ? 0 : argument.address, to, toOffset === undefined ? 0 : argument.address + 8, length, 0))
}

export function pipe(): [reader: number, writer: number] {
  done('pipe2', c_pipe2(argument.address, 0o2000000))
  return [argument.view.getInt32(0, true), argument.view.getInt32(4, true)]
}

export function fsync(fd: number): void {
  done('fsync', c_fsync(fd))
}

export function fdatasync(fd: number): void {
  done('fdatasync', c_fdatasync(fd))
}

export function syncfs(fd: number): void {
  done('syncfs', c_syncfs(fd))
}

export function syncFileRange(fd: number, offset: number, length: number): void {
  done('sync_file_range', c_sync_file_range(fd, offset, length, 7))
}

export const FADV_WILLNEED = 3
export const FADV_DONTNEED = 4

/** Returns its error instead of setting errno. */
export function fadvise(fd: number, offset: number, length: number, advice: number): void {
  const error = c_posix_fadvise(fd, offset, length, advice)
  if (error !== 0) throw new SyscallError('posix_fadvise', error)
}

export function readahead(fd: number, offset: number, count: number): void {
  done('readahead', c_readahead(fd, offset, count))
}

export const F_GETFD = 1
export const F_GETFL = 3
export const F_SETFL = 4

export function fcntl(fd: number, command: number, value = 0): number {
  return done('fcntl', c_fcntl(fd, command, value))
}

export function dup(fd: number): number {
  return done('dup', c_dup(fd))
}

/** ioctl(2) whose argument is an int: written before, read after. */
export function ioctlInt(fd: number, request: number, value = 0): number {
  argument.view.setInt32(0, value, true)
  done('ioctl', c_ioctl(fd, request, argument.address))
  return argument.view.getInt32(0, true)
}

/** What poll(2) says at once. */
export function pollNow(fd: number, events: number): number {
  argument.view.setInt32(0, fd, true)
  argument.view.setInt16(4, events, true)
  argument.view.setInt16(6, 0, true)
  done('poll', c_poll(argument.address, 1, 0))
  return argument.view.getInt16(6, true)
}

export const PROT_READ = 1
export const PROT_WRITE = 2
export const PROT_EXEC = 4
export const MAP_SHARED = 1
export const MAP_PRIVATE = 2
export const MS_SYNC = 4

/** A mapping of a file for the length of a callback. Touching pages behind the end of the file would kill the process. */
export function withMapping<T>(fd: number, lengthBytes: number, protection: number, flags: number, use: (bytes: Uint8Array, sync: () => void) => T, offset = 0): T {
  const address = c_mmap(0, lengthBytes, protection, flags, fd, offset)
  // MAP_FAILED does not fit a number
  if (typeof address !== 'number') return done('mmap', -1) as never
  try {
    return use(viewRegion(address, lengthBytes).bytes, () => { done('msync', c_msync(address, lengthBytes, MS_SYNC)) })
  } finally {
    c_munmap(address, lengthBytes)
  }
}

export { errno }
