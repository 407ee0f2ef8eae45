/** A lock in one word of shared memory, for sections of a few hundred nanoseconds. */
import { schedYield } from '../../sys/io.js'

const SPINS = 50

export function lock(words: Int32Array, at: number): void {
  let spins = 0
  while (Atomics.compareExchange(words, at, 0, 1) !== 0) {
    // its owner may have lost the processor: give it one
    if (++spins > SPINS) schedYield()
  }
}

export function unlock(words: Int32Array, at: number): void {
  Atomics.store(words, at, 0)
}
