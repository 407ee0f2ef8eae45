/** flock(2) and fcntl(2) locks, without waiting. Each throws SyscallError. */
import { bind } from '../../lib/sys/libc.js'
import { argument, done } from './posix-call.js'

const c_flock = bind('int flock(int, int)')
const c_fcntl = bind('int fcntl(int, int, uintptr_t)')

export const LOCK_SH = 1
export const LOCK_EX = 2
export const LOCK_UN = 8
const LOCK_NB = 4

export function flock(fd: number, operation: number): void {
  done('flock', c_flock(fd, operation | LOCK_NB))
}

export const F_RDLCK = 0
export const F_WRLCK = 1
export const F_UNLCK = 2
const F_GETLK = 5
const F_SETLK = 6
const F_OFD_GETLK = 36
const F_OFD_SETLK = 37

export interface Lock { type: number, start: number, length: number, pid: number }

/** struct flock of 64-bit Linux: s16 type, s16 whence, pad, s64 start, s64 len, s32 pid */
function putLock(type: number, start: number, length: number): number {
  const v = argument.view
  v.setInt16(0, type, true)
  v.setInt16(2, 0, true)
  v.setInt32(4, 0, true)
  v.setBigInt64(8, BigInt(start), true)
  v.setBigInt64(16, BigInt(length), true)
  v.setBigInt64(24, 0n, true)
  return argument.address
}

function getLock(): Lock {
  const v = argument.view
  return { type: v.getInt16(0, true), start: Number(v.getBigInt64(8, true)), length: Number(v.getBigInt64(16, true)), pid: v.getInt32(24, true) }
}

/** A record lock of the process. A length of 0 reaches to the end, wherever that gets to. */
export function setLock(fd: number, type: number, start = 0, length = 0): void {
  done('fcntl', c_fcntl(fd, F_SETLK, putLock(type, start, length)))
}

/** The first lock of another process that is in the way; its type is F_UNLCK when none is. */
export function testLock(fd: number, type: number, start = 0, length = 0): Lock {
  done('fcntl', c_fcntl(fd, F_GETLK, putLock(type, start, length)))
  return getLock()
}

/** A lock of the open file description. */
export function setOfdLock(fd: number, type: number, start = 0, length = 0): void {
  done('fcntl', c_fcntl(fd, F_OFD_SETLK, putLock(type, start, length)))
}

export function testOfdLock(fd: number, type: number, start = 0, length = 0): Lock {
  done('fcntl', c_fcntl(fd, F_OFD_GETLK, putLock(type, start, length)))
  return getLock()
}
