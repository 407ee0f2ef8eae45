/**
 * How many lookups of each record the kernel holds, in two words: most are counted without a lock in
 * one, which spills into the other.
 */
import { Rec, type InodeRecords } from './inode-record.js'
import { Head } from './layout.js'
import { lock, unlock } from './spin-lock.js'

/** Lookups are counted in COUNT up to here, and then moved to COUNT_HIGH half of this at a time. */
const COUNT_SPILL = 2 ** 30
const COUNT_UNIT = 2 ** 29

export class InodeLookups {
  readonly #words: Int32Array
  readonly #records: InodeRecords

  constructor(records: InodeRecords) {
    this.#words = records.words
    this.#records = records
  }

  /** Counts one more lookup unless the record has none. @param locked the caller has the lock */
  add(index: number, locked: boolean): boolean {
    const at = this.#records.at(index) + Rec.COUNT
    for (;;) {
      const count = Atomics.load(this.#words, at)
      if (count === 0) return false
      if (Atomics.compareExchange(this.#words, at, count, count + 1) !== count) continue
      if (count + 1 >= COUNT_SPILL) this.#spill(at, locked)
      return true
    }
  }

  #spill(at: number, locked: boolean): void {
    if (!locked) lock(this.#words, Head.INODE_LOCK)
    if (Atomics.load(this.#words, at) >= COUNT_SPILL) {
      Atomics.sub(this.#words, at, COUNT_UNIT)
      this.#words[at + 1]!++
    }
    if (!locked) unlock(this.#words, Head.INODE_LOCK)
  }

  /**
   * Under the lock: takes lookups off a record.
   * @returns whether there are none left
   */
  take(index: number, count: number): boolean {
    const w = this.#words
    const at = this.#records.at(index)
    let left = count
    for (;;) {
      const low = Atomics.load(w, at + Rec.COUNT)
      if (low === 0) return false
      if (left < low) {
        if (Atomics.compareExchange(w, at + Rec.COUNT, low, low - left) === low) return false
        continue
      }
      if (w[at + Rec.COUNT_HIGH]! > 0) {
        // leaves at least one in COUNT all the time: it is never seen as 0 while lookups exist
        const units = Math.min(w[at + Rec.COUNT_HIGH]!, Math.floor(left / COUNT_UNIT))
        w[at + Rec.COUNT_HIGH]! -= units
        left -= units * COUNT_UNIT
        if (left >= low && w[at + Rec.COUNT_HIGH]! > 0) {
          w[at + Rec.COUNT_HIGH]!--
          Atomics.add(w, at + Rec.COUNT, COUNT_UNIT)
        }
        continue
      }
      if (Atomics.compareExchange(w, at + Rec.COUNT, low, 0) === low) return true
    }
  }

  /** Lookups of a pinned record. */
  of(index: number): number {
    const at = this.#records.at(index)
    return this.#words[at + Rec.COUNT]! + this.#words[at + Rec.COUNT_HIGH]! * COUNT_UNIT
  }
}
