/**
 * Records by their file handle: fanotify names inodes by nothing else. Only there when somebody
 * watches the shared directory.
 *
 * A hash with linear probing and levels, as the one in InodeTable. Entering and removing happen
 * under Head.INODE_LOCK; finding takes no lock: BY_HANDLE_MOVES is odd while entries are moved, and
 * whoever saw it change looks again.
 */
import { schedYield } from '../../sys/io.js'
import { hashLevelAt, hashLevels, HASH_FIRST_BITS, Head, RECORD_WORDS, type Layout } from './layout.js'

/** Word of a record where its struct file_handle starts. */
export const HANDLE_AT = 14

/** Words of the struct file_handle at a word of an array. */
function handleWords(words: Int32Array, at: number): number {
  return 2 + ((words[at]! + 3) >> 2)
}

export class HandleIndex {
  readonly #words: Int32Array
  readonly #layout: Layout
  readonly #levels: number

  constructor(words: Int32Array, layout: Layout) {
    this.#words = words
    this.#layout = layout
    this.#levels = hashLevels(layout.inodeCapacity)
  }

  /** Word where the handle of a record starts. */
  #handleAt(index: number): number {
    return this.#layout.recordsAt + index * RECORD_WORDS + HANDLE_AT
  }

  #hash(words: Int32Array, at: number): number {
    let h = 0
    for (let i = at, end = at + handleWords(words, at); i < end; i++) {
      h = Math.imul(h ^ words[i]!, 0x85ebca6b)
      h ^= h >>> 15
    }
    h = Math.imul(h, 0x2c1b3c6d)
    return h ^ h >>> 13
  }

  #same(handleAt: number, handle: Int32Array, at: number): boolean {
    for (let i = 0, n = handleWords(handle, at); i < n; i++) if (this.#words[handleAt + i] !== handle[at + i]) return false
    return true
  }

  #base(level: number): number {
    return this.#layout.byHandleAt + hashLevelAt(level)
  }

  /** Under the lock, for a record that has its handle. */
  add(index: number): void {
    const w = this.#words
    let level = w[Head.BY_HANDLE_LEVEL]!
    if (w[Head.BY_HANDLE_USED]! * 2 >= 2 ** (HASH_FIRST_BITS + level) && level + 1 < this.#levels) {
      for (let at = this.#base(level), end = at + 2 ** (HASH_FIRST_BITS + level); at < end; at++) if (w[at] !== 0) this.#put(level + 1, w[at]!)
      Atomics.store(w, Head.BY_HANDLE_LEVEL, ++level)
    }
    this.#put(level, index)
    w[Head.BY_HANDLE_USED]!++
  }

  #put(level: number, index: number): void {
    const base = this.#base(level)
    const mask = 2 ** (HASH_FIRST_BITS + level) - 1
    let bucket = this.#hash(this.#words, this.#handleAt(index)) & mask
    while (this.#words[base + bucket] !== 0) bucket = (bucket + 1) & mask
    Atomics.store(this.#words, base + bucket, index)
  }

  /** Under the lock, for a record that was added. Entries behind the hole move up, so that no probe stops early. */
  remove(index: number): void {
    const w = this.#words
    const level = w[Head.BY_HANDLE_LEVEL]!
    const base = this.#base(level)
    const mask = 2 ** (HASH_FIRST_BITS + level) - 1
    let hole = this.#hash(w, this.#handleAt(index)) & mask
    while (w[base + hole] !== index) {
      if (w[base + hole] === 0) return
      hole = (hole + 1) & mask
    }
    Atomics.add(w, Head.BY_HANDLE_MOVES, 1)
    for (let next = (hole + 1) & mask; w[base + next] !== 0; next = (next + 1) & mask) {
      const home = this.#hash(w, this.#handleAt(w[base + next]!)) & mask
      // it may move into the hole unless its home lies behind the hole
      if (((next - home) & mask) < ((next - hole) & mask)) continue
      Atomics.store(w, base + hole, w[base + next]!)
      hole = next
    }
    Atomics.store(w, base + hole, 0)
    Atomics.add(w, Head.BY_HANDLE_MOVES, 1)
    w[Head.BY_HANDLE_USED]!--
  }

  /**
   * The records that have a file handle: one for each mount through which the inode is known.
   * Equal handles of other file systems are among them. What was added before the call is found.
   * @param handle array with the struct file_handle at word `at`; unused bytes of its last word are 0
   */
  find(handle: Int32Array, at: number): number[] {
    const w = this.#words
    for (;;) {
      const moves = Atomics.load(w, Head.BY_HANDLE_MOVES)
      const found = (moves & 1) === 0 ? this.#collect(handle, at) : []
      if ((moves & 1) === 0 && Atomics.load(w, Head.BY_HANDLE_MOVES) === moves) return found
      schedYield()
    }
  }

  #collect(handle: Int32Array, at: number): number[] {
    const found: number[] = []
    const level = Atomics.load(this.#words, Head.BY_HANDLE_LEVEL)
    const base = this.#base(level)
    const mask = 2 ** (HASH_FIRST_BITS + level) - 1
    for (let bucket = this.#hash(handle, at) & mask, n = 0; n <= mask; bucket = (bucket + 1) & mask, n++) {
      const index = Atomics.load(this.#words, base + bucket)
      if (index === 0) break
      if (this.#same(this.#handleAt(index), handle, at)) found.push(index)
    }
    return found
  }
}
