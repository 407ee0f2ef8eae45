/**
 * Which directories are worth a listing: those in which one name after the other is looked up. How
 * many LOOKUPs make a row starts at two for a directory, and is four times as many after each listing
 * that was of little use. A directory has its place by a hash of its number, and loses it to the next
 * one with that place: what was known of it is forgotten, and it begins anew.
 *
 * Belongs to the near end's thread.
 */
import { elapsedUs } from '../sys/clock.js'

/** LOOKUPs further apart than this are of no row. */
const ROW_US = 1_000_000
const DIRECTORIES = 64
/** LOOKUPs in a directory that make it listed; more where listings were of little use. */
const FIRST_THRESHOLD = 2
const MOST_THRESHOLD = 512

export class LookupRows {
  // by place
  readonly #low = new Uint32Array(DIRECTORIES)
  readonly #high = new Uint32Array(DIRECTORIES)
  readonly #lookups = new Uint16Array(DIRECTORIES)
  readonly #threshold = new Uint16Array(DIRECTORIES)
  readonly #lastUs = new Float64Array(DIRECTORIES)

  #place(low: number, high: number): number {
    return (low ^ low >>> 6 ^ high) & (DIRECTORIES - 1)
  }

  /** A name is looked up in a directory. @returns whether that makes a row */
  add(low: number, high: number, nowUs: number): boolean {
    const place = this.#place(low, high)
    if (this.#low[place] !== low || this.#high[place] !== high) {
      this.#low[place] = low
      this.#high[place] = high
      this.#threshold[place] = FIRST_THRESHOLD
      this.#lookups[place] = 0
    } else if (elapsedUs(this.#lastUs[place]!, nowUs) > ROW_US) {
      this.#lookups[place] = 0
    }
    this.#lastUs[place] = nowUs
    return ++this.#lookups[place]! >= this.#threshold[place]!
  }

  /** The directory of the row is listed: the next row begins. @returns how many LOOKUPs this one took, for `judge` */
  listed(low: number, high: number): number {
    const place = this.#place(low, high)
    this.#lookups[place] = 0
    return this.#threshold[place]!
  }

  /** What the listing of a directory was worth. @param threshold that made it listed */
  judge(low: number, high: number, threshold: number, useful: boolean): void {
    this.#remember(low, high, useful ? FIRST_THRESHOLD : Math.min(MOST_THRESHOLD, threshold * 4))
  }

  /** The directory cannot be opened, by this device or by this user: there is no use in trying that often. */
  refuse(low: number, high: number): void {
    this.#remember(low, high, MOST_THRESHOLD)
  }

  #remember(low: number, high: number, threshold: number): void {
    const place = this.#place(low, high)
    if (this.#low[place] === low && this.#high[place] === high) this.#threshold[place] = threshold
  }
}
