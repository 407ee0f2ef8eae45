/**
 * Counters of a mount, in memory that every thread sees: the workers count, the main thread reads.
 * One block of doubles per worker; a worker only ever adds to its own.
 */
import { OPCODE_LIMIT } from '../fuse/opcodes.js'

/** Index of each counter in a worker's block. */
export const Counter = {
  REQUESTS: 0, ERRORS: 1, BYTES_READ: 2, BYTES_WRITTEN: 3, KICKS: 4, SLEEPS: 5, POLLS_WON: 6, POLLS_LOST: 7,
  FORGETS: 8, INTERRUPTS: 9, DROPPED_REPLIES: 10, BAD_REPLIES: 11, IN_FLIGHT: 12, STALLS: 13, IN_FLIGHT_MAX: 14, PARKED: 15,
  /** From here on: requests by opcode. */
  OPCODES: 16,
  SIZE: 16 + OPCODE_LIMIT,
} as const

export type CounterName = Exclude<keyof typeof Counter, 'OPCODES' | 'SIZE'>

export function allocateCounters(workers: number): SharedArrayBuffer {
  return new SharedArrayBuffer(workers * Counter.SIZE * 8)
}

export function workerCounters(shared: ArrayBufferLike, worker: number): Float64Array {
  return new Float64Array(shared, worker * Counter.SIZE * 8, Counter.SIZE)
}

/** Sum of one counter over the workers. */
export function sumCounter(shared: ArrayBufferLike, counter: number): number {
  const all = new Float64Array(shared)
  let sum = 0
  for (let at = counter; at < all.length; at += Counter.SIZE) sum += all[at]!
  return sum
}
