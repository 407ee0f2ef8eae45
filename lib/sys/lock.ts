/** flock(2): a lock that the kernel drops with the last descriptor of the open file. */
import { bind, result } from './libc.js'

const c_flock = bind('int flock(int, int)')

export const LOCK_SH = 1
export const LOCK_EX = 2
export const LOCK_NB = 4

/** @returns 0 or −errno; −EAGAIN when somebody else has it and LOCK_NB was given */
export function flock(fd: number, operation: number): number {
  return result(c_flock(fd, operation))
}
