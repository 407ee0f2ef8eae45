/** Handlers whose `finish` says in word 0 of its data that it is at work, and ends when word 1 is not 0. */
import type { Handlers } from '../../lib/device/handlers.js'

export function createHandlers(data: unknown): Handlers {
  const words = new Int32Array(data as SharedArrayBuffer)
  return {
    handle: () => 0,
    finish(): void {
      Atomics.store(words, 0, 1)
      Atomics.wait(words, 1, 0)
    },
    close: () => {},
  }
}
