/**
 * A lock in one word of shared memory for sections with system calls in them: who waits for it
 * sleeps. Source: U. Drepper, "Futexes Are Tricky", mutex 2.
 */
import { futexWait, futexWake } from '../../sys/futex.js'

const FREE = 0
const TAKEN = 1
/** Taken, and somebody may wait for it. */
const CONTENDED = 2

/** @param address of the first of `words` */
export function acquire(words: Int32Array, address: number, at: number): void {
  if (Atomics.compareExchange(words, at, FREE, TAKEN) === FREE) return
  while (Atomics.exchange(words, at, CONTENDED) !== FREE) futexWait(address + at * 4, CONTENDED)
}

export function release(words: Int32Array, address: number, at: number): void {
  if (Atomics.exchange(words, at, FREE) === CONTENDED) futexWake(address + at * 4, 1)
}
