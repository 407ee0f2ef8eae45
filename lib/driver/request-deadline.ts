/**
 * How long the oldest request has been with the device. Made only when the mount has a deadline for
 * requests; only while one is in flight is there a time to wake up at.
 *
 * Requests are listed in the order in which they began, so the oldest is the first to be late. Adding
 * and removing allocate nothing.
 */
const NONE = -1
const NOT_LISTED = -2

export class RequestDeadline {
  readonly #limitMs: number
  readonly #startMs: Float64Array
  readonly #previous: Int32Array
  readonly #next: Int32Array
  #first = NONE
  #last = NONE

  /** @param slots how many there are @param limitMs that a request may take, more than 0 */
  constructor(slots: number, limitMs: number) {
    this.#limitMs = limitMs
    this.#startMs = new Float64Array(slots)
    this.#previous = new Int32Array(slots).fill(NOT_LISTED)
    this.#next = new Int32Array(slots)
  }

  /** The slot whose request began first, or −1. */
  get oldest(): number {
    return this.#first
  }

  /** A request begins. @param nowMs never before that of the one added last */
  add(slot: number, nowMs: number): void {
    this.#startMs[slot] = nowMs
    this.#previous[slot] = this.#last
    this.#next[slot] = NONE
    if (this.#last === NONE) this.#first = slot
    else this.#next[this.#last] = slot
    this.#last = slot
  }

  /** A request ends; one that was not added may too. */
  remove(slot: number): void {
    const previous = this.#previous[slot]!
    if (previous === NOT_LISTED) return
    const next = this.#next[slot]!
    if (previous === NONE) this.#first = next
    else this.#next[previous] = next
    if (next === NONE) this.#last = previous
    else this.#previous[next] = previous
    this.#previous[slot] = NOT_LISTED
  }

  /** Milliseconds until the oldest request is late, 0 when it is, −1 when there is none. */
  leftMs(nowMs: number): number {
    if (this.#first === NONE) return -1
    return Math.max(0, Math.ceil(this.#startMs[this.#first]! + this.#limitMs - nowMs))
  }
}
