/** Bytes of many short names in one array. A name that is given back is garbage until the next compaction. */
export class NameArena {
  bytes: Uint8Array
  #used = 0
  #garbage = 0

  constructor(capacity = 1 << 14) {
    this.bytes = new Uint8Array(capacity)
  }

  /** Copies a name in; there must be room (`fits`). @returns where it is */
  put(from: Uint8Array, at: number, length: number): number {
    const to = this.#used
    for (let i = 0; i < length; i++) this.bytes[to + i] = from[at + i]!
    this.#used += length
    return to
  }

  drop(length: number): void {
    this.#garbage += length
  }

  fits(length: number): boolean {
    return this.#used + length <= this.bytes.length
  }

  /**
   * Makes room for a name of `length` bytes: what is in use moves to the start of an array that is
   * at most half full.
   *
   * @param each called with a function that moves one name and tells its new place
   */
  compact(length: number, each: (move: (at: number, bytes: number) => number) => void): void {
    const old = this.bytes
    const needed = this.#used - this.#garbage + length
    let capacity = old.length
    while (capacity < 2 * needed) capacity *= 2
    this.bytes = new Uint8Array(capacity)
    this.#used = 0
    this.#garbage = 0
    each((at, bytes) => this.put(old, at, bytes))
  }
}
