/**
 * How long a worker polls before it sleeps. The budget grows while a longer poll would have
 * caught the next piece of work and falls to nothing when the work comes too rarely for that, as
 * Linux does for halt polling (virt/kvm/kvm_main.c: grow_halt_poll_ns, shrink_halt_poll_ns). So a
 * busy mount does without wake-ups and a trickle of requests costs no CPU.
 */
import { elapsedUs, microseconds } from '../sys/clock.js'

const START_US = 20

export class PollBudget {
  readonly #maxUs: number
  readonly #clock: () => number
  #budgetUs: number
  #startUs = 0

  /**
   * @param maxUs longest time to poll in microseconds; 0 never polls
   * @param clock microseconds, as `elapsedUs` takes them
   */
  constructor(maxUs: number, clock: () => number = microseconds) {
    this.#maxUs = maxUs
    this.#clock = clock
    this.#budgetUs = Math.min(START_US, this.#maxUs)
  }

  get worthwhile(): boolean {
    return this.#budgetUs > 0
  }

  start(): void {
    this.#startUs = this.#clock()
  }

  continues(): boolean {
    return elapsedUs(this.#startUs, this.#clock()) < this.#budgetUs
  }

  /** The poll that was started found work. */
  won(): void {
    if (this.#budgetUs < this.#maxUs) this.#grow()
  }

  sleeping(): void {
    if (!this.worthwhile) this.#startUs = this.#clock()
  }

  /** The sleep is over: would polling on have been the better choice? */
  woken(): void {
    if (this.#maxUs === 0) return
    if (elapsedUs(this.#startUs, this.#clock()) <= this.#maxUs) this.#grow()
    else this.#budgetUs = 0
  }

  #grow(): void {
    this.#budgetUs = Math.min(this.#maxUs, Math.max(START_US, this.#budgetUs * 2))
  }
}
