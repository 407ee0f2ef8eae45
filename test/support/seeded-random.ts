/** A small seeded generator (mulberry32): a failing random test is repeated by its seed. */
export class SeededRandom {
  #state: number

  constructor(readonly seed: number) {
    this.#state = seed >>> 0
  }

  /** A whole number from 0 to `limit` − 1. */
  below(limit: number): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0
    let x = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1)
    x = (x + Math.imul(x ^ (x >>> 7), x | 61)) ^ x
    return Math.floor(((x ^ (x >>> 14)) >>> 0) / 0x1_0000_0000 * limit)
  }

  /** A whole number from `low` to `high`, both possible. */
  between(low: number, high: number): number {
    return low + this.below(high - low + 1)
  }

  /** Takes a random element out of an array; the order of the others is not kept. */
  take<T>(from: T[]): T {
    const i = this.below(from.length)
    const value = from[i]!
    from[i] = from.at(-1)!
    from.pop()
    return value
  }
}
