/**
 * Bounds the O_PATH descriptors that inode records hold: a ring of record indices in shared
 * memory, and the clock algorithm over it. A record with a descriptor that is not kept has at
 * least one place in the ring; whoever takes a place closes the descriptor of the one before.
 */
import { Head, type Layout } from './layout.js'
import type { InodeTable } from './inode-table.js'

/** After so many descriptors in use or used lately, use no longer protects. */
const PATIENCE = 16

export class FdCache {
  readonly #words: Int32Array
  readonly #inodes: InodeTable
  readonly #at: number
  readonly #capacity: number

  constructor(words: Int32Array, layout: Layout, inodes: InodeTable) {
    this.#words = words
    this.#inodes = inodes
    this.#at = layout.cacheAt
    this.#capacity = layout.cacheCapacity
  }

  #nextPlace(): number {
    return this.#at + (Atomics.add(this.#words, Head.CACHE_HAND, 1) >>> 0) % this.#capacity
  }

  /** Enters a record that was just given a descriptor. */
  enter(index: number): void {
    let entering = index
    for (let tries = 0; tries < this.#capacity; tries++) {
      const before = Atomics.exchange(this.#words, this.#nextPlace(), entering)
      if (before === 0 || before === entering || this.#inodes.evictFd(before, tries >= PATIENCE)) return
      entering = before
    }
  }

  /**
   * Closes some descriptors, because the process has no more of them.
   * @returns whether there are any more now
   */
  shrink(): boolean {
    let closed = 0
    for (let tries = 0; tries < this.#capacity && closed < 64; tries++) {
      const place = this.#nextPlace()
      const index = Atomics.exchange(this.#words, place, 0)
      if (index === 0) continue
      const open = Atomics.load(this.#words, Head.PATH_FDS)
      if (!this.#inodes.evictFd(index, true)) this.enter(index)
      else if (Atomics.load(this.#words, Head.PATH_FDS) < open) closed++
    }
    return closed > 0
  }
}
