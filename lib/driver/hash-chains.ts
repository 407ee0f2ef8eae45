/** Entries of a table that have the same hash, in chains: each entry is in one at most. Nothing is allocated but by `grow`. */
import { grown } from './grown.js'

const NONE = -1

export class HashChains {
  /** Of each entry, the next one in its chain, or −1; of one that is in none, whatever the table puts there. */
  next: Int32Array
  #first: Int32Array

  /** @param capacity entries, a power of two: hashes are taken modulo this */
  constructor(capacity: number) {
    this.next = new Int32Array(capacity)
    this.#first = new Int32Array(capacity).fill(NONE)
  }

  /** The first entry with a hash, or −1. */
  first(hash: number): number {
    return this.#first[hash & (this.#first.length - 1)]!
  }

  enter(hash: number, entry: number): void {
    const bucket = hash & (this.#first.length - 1)
    this.next[entry] = this.#first[bucket]!
    this.#first[bucket] = entry
  }

  /** @param hash with which it was entered */
  leave(hash: number, entry: number): void {
    const bucket = hash & (this.#first.length - 1)
    if (this.#first[bucket] === entry) {
      this.#first[bucket] = this.next[entry]!
      return
    }
    let before = this.#first[bucket]!
    while (this.next[before] !== entry) before = this.next[before]!
    this.next[before] = this.next[entry]!
  }

  /** Empties all chains. */
  clear(): void {
    this.#first.fill(NONE)
  }

  /** Makes room for more entries. All chains are empty then: who is to be in one has to be entered again. */
  grow(capacity: number): void {
    this.next = grown(capacity, this.next)
    this.#first = new Int32Array(capacity).fill(NONE)
  }
}
