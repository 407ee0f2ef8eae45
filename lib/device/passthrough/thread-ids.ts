/**
 * Ids of the threads that serve a shared directory, in the memory that they share. What one of them
 * changes it changes for the kernel, which knows already.
 */
import { threadId } from '../../sys/thread.js'
import { Head } from './layout.js'

export class ThreadIds {
  readonly #words: Int32Array
  /** Copy of the ids, for `has`. */
  readonly #known = new Int32Array(Head.THREADS_END - Head.THREADS)
  #slot = 0

  constructor(words: Int32Array) {
    this.#words = words
  }

  /** Enters the calling thread. Without room its changes are told to the kernel, too. */
  enter(): void {
    const id = threadId()
    for (let at: number = Head.THREADS; at < Head.THREADS_END; at++) {
      if (Atomics.compareExchange(this.#words, at, 0, id) !== 0) continue
      this.#slot = at
      return
    }
  }

  /** The calling thread ends: its id may become somebody else's. */
  leave(): void {
    if (this.#slot !== 0) Atomics.store(this.#words, this.#slot, 0)
    this.#slot = 0
  }

  /** Takes the ids for the next calls of `has`. */
  load(): void {
    for (let i = 0; i < this.#known.length; i++) this.#known[i] = Atomics.load(this.#words, Head.THREADS + i)
  }

  has(id: number): boolean {
    return id !== 0 && this.#known.includes(id)
  }
}
