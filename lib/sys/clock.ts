/** A clock for the data path: `performance.now()` leaves 32 bytes of garbage at each call. */
import { bind } from './libc.js'
import { scratch, type Region } from './memory.js'

const c_clock_gettime = bind('int clock_gettime(int, uintptr_t)')
const CLOCK_MONOTONIC = 1
/** It starts again after a thousand seconds, so that it stays a small integer. */
const WRAP_US = 1_000_000_000
const WRAP_SECONDS = 1000

let time: Region | undefined

/** Microseconds, for `elapsedUs`. */
export function microseconds(): number {
  time ??= scratch(16)
  c_clock_gettime(CLOCK_MONOTONIC, time.address)
  // the low half of the seconds is enough for 68 years
  return time.view.getInt32(0, true) % WRAP_SECONDS * 1_000_000 + (time.view.getInt32(8, true) / 1000 | 0)
}

/** Seconds at the last reading of `microseconds`, from a beginning that stays: for times that may be further apart. */
export function secondsRead(): number {
  return time!.view.getInt32(0, true)
}

/** Microseconds from one reading of the clock to a later one, which is less than a thousand seconds after it. */
export function elapsedUs(from: number, to: number): number {
  return to < from ? to - from + WRAP_US : to - from
}
