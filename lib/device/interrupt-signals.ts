/**
 * FUSE_INTERRUPTs as AbortSignals, for requests that are at work on an event loop. A request has a
 * signal from when its file system first asks for it until `done`.
 */
import { Interrupts } from './interrupts.js'

const HIGH = 0x1_0000_0000

export class InterruptSignals {
  readonly #interrupts: Interrupts
  /** By unique. */
  readonly #watched = new Map<number, AbortController>()

  constructor(shared: SharedArrayBuffer) {
    this.#interrupts = new Interrupts(shared)
  }

  /** The signal of a request. Aborted when it is interrupted, or was. */
  of(uniqueLow: number, uniqueHigh: number): AbortSignal {
    const key = uniqueLow + uniqueHigh * HIGH
    let controller = this.#watched.get(key)
    if (controller === undefined) {
      this.#watched.set(key, controller = new AbortController())
      if (this.#interrupts.has(uniqueLow, uniqueHigh)) controller.abort()
    }
    return controller.signal
  }

  interrupted(uniqueLow: number, uniqueHigh: number): void {
    this.#watched.get(uniqueLow + uniqueHigh * HIGH)?.abort()
  }

  /** Whether an error is what a request was aborted with. */
  caused(uniqueLow: number, uniqueHigh: number, error: unknown): boolean {
    const signal = this.#watched.get(uniqueLow + uniqueHigh * HIGH)?.signal
    return signal !== undefined && signal.aborted && (error === signal.reason || (error instanceof Error && error.name === 'AbortError'))
  }

  /** The request is answered. */
  done(uniqueLow: number, uniqueHigh: number): void {
    this.#watched.delete(uniqueLow + uniqueHigh * HIGH)
  }
}
