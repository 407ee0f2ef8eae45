/**
 * A lock in one word of shared memory for sections with system calls in them: who waits for it
 * sleeps. Source: U. Drepper, "Futexes Are Tricky", mutex 2.
 */
const FREE = 0
const TAKEN = 1
/** Taken, and somebody may wait for it. */
const CONTENDED = 2

export function acquire(words: Int32Array, at: number): void {
  if (Atomics.compareExchange(words, at, FREE, TAKEN) === FREE) return
  while (Atomics.exchange(words, at, CONTENDED) !== FREE) Atomics.wait(words, at, CONTENDED)
}

export function release(words: Int32Array, at: number): void {
  if (Atomics.exchange(words, at, FREE) === CONTENDED) Atomics.notify(words, at, 1)
}
