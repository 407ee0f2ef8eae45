/** futex(2), for memory of this process: `Atomics.wait` takes nothing but SharedArrayBuffers. */
import { syscall } from './libc.js'

const SYS_futex = process.arch === 'arm64' ? 98 : 202
const FUTEX_WAIT_PRIVATE = 128
const FUTEX_WAKE_PRIVATE = 129

/** Sleeps while the word at an address is `value`, until it is woken, or a signal comes. @returns 0 or −errno */
export function futexWait(address: number, value: number): number {
  return syscall(SYS_futex, address, FUTEX_WAIT_PRIVATE, value)
}

/** Wakes threads that sleep on the word at an address. @param count how many, at most @returns how many there were */
export function futexWake(address: number, count: number): number {
  return syscall(SYS_futex, address, FUTEX_WAKE_PRIVATE, count)
}
