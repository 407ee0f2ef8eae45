/** Queues for which one thread is being killed, by its number: only a thread that cannot run yet stays so. */
import { RequestQueue } from '../../lib/driver/request-queue.js'
import { SessionQueue } from '../../lib/driver/session-queue.js'

/** Who is being killed. */
export const DYING = 7777
/** Who lives on, and is killed once `kill` is called. */
export const MORTAL = 7778

let mortalDies = false

/** @returns what undoes it */
export function killMortal(): Disposable {
  mortalDies = true
  return { [Symbol.dispose]: () => { mortalDies = false } }
}

function dies(pid: number): boolean {
  return pid === DYING || (pid === MORTAL && mortalDies)
}

export class DyingRequestQueue extends RequestQueue {
  protected override isBeingKilled(pid: number): boolean {
    return dies(pid)
  }
}

export class DyingSessionQueue extends SessionQueue {
  protected override isBeingKilled(pid: number): boolean {
    return dies(pid)
  }
}
