/** Makes a failing script short: delta debugging (Zeller's ddmin) over its steps. */
import type { Op } from './operation.js'

/**
 * @param fails plays a script on fresh directories; whether it still fails
 * @param untilMs by performance.now: what is found by then is the answer
 * @returns a script that fails, of which no single step can be left out if there was time
 */
export async function shrink(script: readonly Op[], fails: (script: readonly Op[]) => Promise<boolean>, untilMs: number): Promise<readonly Op[]> {
  let best = script
  let parts = 2
  while (best.length >= 2 && performance.now() < untilMs) {
    const size = Math.ceil(best.length / parts)
    let smaller: readonly Op[] | undefined
    for (let at = 0; at < best.length && performance.now() < untilMs; at += size) {
      const rest = [...best.slice(0, at), ...best.slice(at + size)]
      if (await fails(rest)) {
        smaller = rest
        break
      }
    }
    if (smaller) {
      best = smaller
      parts = Math.max(parts - 1, 2)
    } else if (size === 1) {
      break
    } else {
      parts = Math.min(parts * 2, best.length)
    }
  }
  return best
}
