/**
 * Pairs of u64 in the order they came: FORGETs (nodeid, nlookup) that wait for room on the hiprio
 * queue. Grows without bound: a FORGET must neither be lost nor overtaken, and the kernel does not
 * wait for it.
 */
const INITIAL = 256

export class PairFifo {
  length = 0
  /** Four words each: the low and the high half of both. */
  #words = new Uint32Array(INITIAL * 4)
  #head = 0

  push(firstLow: number, firstHigh: number, secondLow: number, secondHigh: number): void {
    const capacity = this.#words.length >> 2
    if (this.length === capacity) this.#grow(capacity)
    const at = ((this.#head + this.length) & ((this.#words.length >> 2) - 1)) << 2
    const words = this.#words
    words[at] = firstLow
    words[at + 1] = firstHigh
    words[at + 2] = secondLow
    words[at + 3] = secondHigh
    this.length++
  }

  #grow(capacity: number): void {
    const words = new Uint32Array(capacity * 8)
    const head = this.#head << 2
    words.set(this.#words.subarray(head))
    words.set(this.#words.subarray(0, head), this.#words.length - head)
    this.#words = words
    this.#head = 0
  }

  /** Moves the oldest pair to `to[at]`, where it takes 16 bytes, such as a struct fuse_forget_one. */
  shiftTo(to: DataView, at: number): void {
    const from = this.#head << 2
    const words = this.#words
    to.setUint32(at, words[from]!, true)
    to.setUint32(at + 4, words[from + 1]!, true)
    to.setUint32(at + 8, words[from + 2]!, true)
    to.setUint32(at + 12, words[from + 3]!, true)
    this.#head = (this.#head + 1) & ((words.length >> 2) - 1)
    this.length--
  }

  clear(): void {
    this.length = 0
    this.#head = 0
  }
}
