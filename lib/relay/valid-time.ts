/** Times for which an answer is good: entry_valid and attr_valid with their nanoseconds. */

/** Longer is not told apart, in microseconds. */
export const MOST_VALID_US = 5_000_000

/** @returns microseconds, at most MOST_VALID_US */
export function validUs(view: DataView, seconds: number, nanoseconds: number): number {
  return Math.min(MOST_VALID_US, (view.getUint32(seconds, true) + view.getUint32(seconds + 4, true) * 2 ** 32) * 1e6 + view.getUint32(nanoseconds, true) / 1000)
}

/** Takes an age off a time. */
export function shorten(view: DataView, seconds: number, nanoseconds: number, ageUs: number): void {
  const left = Math.max(0, validUs(view, seconds, nanoseconds) - ageUs)
  view.setUint32(seconds, Math.floor(left / 1e6), true)
  view.setUint32(seconds + 4, 0, true)
  view.setUint32(nanoseconds, Math.floor(left % 1e6) * 1000, true)
}
