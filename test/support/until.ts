/** Waiting for what others bring about, without keeping a processor from them. */
import { setTimeout as sleep } from 'node:timers/promises'

const word = new Int32Array(new SharedArrayBuffer(4))

/**
 * Asks again and again, 20 times a millisecond at most.
 * @throws Error when it has not come true in time
 */
export async function until(condition: () => boolean, ms: number): Promise<void> {
  const endMs = performance.now() + ms
  while (!condition()) {
    if (performance.now() > endMs) throw new Error(`not after ${ms} ms: ${condition.toString()}`)
    Atomics.wait(word, 0, 0, 0.05)
    if (performance.now() > endMs - ms / 2) await sleep(1)
  }
}
