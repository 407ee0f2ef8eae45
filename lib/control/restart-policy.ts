/** When the process that serves a mount is replaced after it has died, and when no more. */

/** A life that is so long, or in which so much was answered, was no failure of its beginning. */
const LONG_MS = 10_000
const MUCH = 64
/** Failures one after the other. */
const MOST = 8
/** Waits before another try, in milliseconds: none, and then doubled from the first on. */
const FIRST_MS = 50

export class RestartPolicy {
  /** Short lives one after the other. */
  #short = 0

  get deaths(): number {
    return this.#short
  }

  /**
   * @param lifeMs how long the process was there
   * @param answered requests that it has answered
   * @returns how long to wait for the next one, in milliseconds; undefined when that makes no sense any more
   */
  next(lifeMs: number, answered: number): number | undefined {
    this.#short = lifeMs >= LONG_MS || answered >= MUCH ? 0 : this.#short + 1
    if (this.#short > MOST) return undefined
    return this.#short <= 1 ? 0 : FIRST_MS * 2 ** (this.#short - 2)
  }
}
