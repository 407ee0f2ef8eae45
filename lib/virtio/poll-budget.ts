/**
 * How long a worker polls before it sleeps. The budget grows while a longer poll would have
 * caught the next piece of work and falls to nothing when the work comes too rarely for that, as
 * Linux does for halt polling (virt/kvm/kvm_main.c: grow_halt_poll_ns, shrink_halt_poll_ns). So a
 * busy mount does without wake-ups and a trickle of requests costs no CPU.
 */
const START_US = 20

export class PollBudget {
  readonly #maxMs: number
  #budgetMs: number
  #startMs = 0

  /** @param maxUs longest time to poll in microseconds; 0 never polls */
  constructor(maxUs: number) {
    this.#maxMs = maxUs / 1000
    this.#budgetMs = Math.min(START_US / 1000, this.#maxMs)
  }

  get worthwhile(): boolean {
    return this.#budgetMs > 0
  }

  start(): void {
    this.#startMs = performance.now()
  }

  continues(): boolean {
    return performance.now() - this.#startMs < this.#budgetMs
  }

  /** The poll that was started found work. */
  won(): void {
    if (this.#budgetMs < this.#maxMs) this.#grow()
  }

  sleeping(): void {
    if (!this.worthwhile) this.#startMs = performance.now()
  }

  /** The sleep is over: would polling on have been the better choice? */
  woken(): void {
    if (this.#maxMs === 0) return
    if (performance.now() - this.#startMs <= this.#maxMs) this.#grow()
    else this.#budgetMs = 0
  }

  #grow(): void {
    this.#budgetMs = Math.min(this.#maxMs, Math.max(START_US / 1000, this.#budgetMs * 2))
  }
}
