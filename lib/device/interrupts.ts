/**
 * FUSE_INTERRUPTs that the device has received, in memory that all its threads see. A request that
 * waits, for its turn on the pool or in a handler, looks here whether anybody still wants it.
 *
 * A unique is never used twice in a session, so an entry that came too late does no harm; the
 * oldest is overwritten.
 */
const ENTRIES = 256
const EPOCH = 0
const NEXT = 1
const HEAD_WORDS = 2

export function allocateInterrupts(): SharedArrayBuffer {
  return new SharedArrayBuffer((HEAD_WORDS + ENTRIES * 2) * 4)
}

export class Interrupts {
  readonly #words: Int32Array

  constructor(shared: SharedArrayBuffer) {
    this.#words = new Int32Array(shared)
  }

  /** The request with this unique has been interrupted; wakes whoever waits. */
  post(uniqueLow: number, uniqueHigh: number): void {
    const at = HEAD_WORDS + (Atomics.add(this.#words, NEXT, 1) & (ENTRIES - 1)) * 2
    Atomics.store(this.#words, at, uniqueLow | 0)
    Atomics.store(this.#words, at + 1, uniqueHigh | 0)
    Atomics.add(this.#words, EPOCH, 1)
    Atomics.notify(this.#words, EPOCH)
  }

  has(uniqueLow: number, uniqueHigh: number): boolean {
    if (this.#words[EPOCH] === 0) return false
    for (let at = HEAD_WORDS; at < this.#words.length; at += 2) {
      if (Atomics.load(this.#words, at) === (uniqueLow | 0) && Atomics.load(this.#words, at + 1) === (uniqueHigh | 0)) return true
    }
    return false
  }

  /**
   * Waits, on a thread that may.
   * @param ms at most so many milliseconds
   * @returns whether the request was interrupted meanwhile
   */
  wait(uniqueLow: number, uniqueHigh: number, ms: number): boolean {
    const end = performance.now() + ms
    for (;;) {
      const epoch = Atomics.load(this.#words, EPOCH)
      if (this.has(uniqueLow, uniqueHigh)) return true
      const left = end - performance.now()
      if (left <= 0) return false
      Atomics.wait(this.#words, EPOCH, epoch, left)
    }
  }
}
