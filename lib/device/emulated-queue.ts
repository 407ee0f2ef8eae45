/**
 * One virtqueue of the emulated device: takes chains off the ring, has them executed on this
 * thread or, when that may take long, on the pool's, and gives them back used.
 */
import { signalEventfd } from '../sys/io.js'
import type { Region } from '../sys/memory.js'
import type { RingFeatures } from '../virtio/driver-ring.js'
import type { RingLayout } from '../virtio/split-ring.js'
import { ChainExecutor } from './chain-executor.js'
import { DROPPED, MAY_BLOCK, type Handlers } from './handlers.js'
import { Interrupts } from './interrupts.js'
import { FINISH, POOL_IDLE, POOL_JOBS, POOL_MOST_THREADS, POOL_READY, POOL_THREADS } from './pool-protocol.js'
import { SharedQueue } from './shared-queue.js'

/** The queues between one virtqueue and the pool. */
export interface PoolQueues {
  /** (request queue, head of a chain): what is to be executed. Shared by all queues. */
  jobs: SharedArrayBuffer
  /** (head, bytes written): what was executed. This queue's own. */
  done: SharedArrayBuffer
  state: SharedArrayBuffer
  /** It is one thread, there from the beginning, that listens to this pipe while state says that it is idle. */
  wakeFd?: number
}

export class EmulatedQueue {
  readonly #executor: ChainExecutor
  readonly #handlers: Handlers
  readonly #index: number
  readonly #jobs: SharedQueue | undefined
  readonly #done: SharedQueue | undefined
  readonly #state: Int32Array | undefined
  readonly #poolWanted: () => void
  readonly #wakeFd: number | undefined
  /** Chains that the pool has. */
  #away = 0

  /**
   * @param interrupts of the device; none when they go the way of all requests
   * @param index of the request queue
   * @param pool none: everything is executed on this thread
   * @param poolWanted told when the pool has no thread left for the next one
   */
  constructor(
    region: Region, layout: RingLayout, features: RingFeatures, handlers: Handlers, interrupts: SharedArrayBuffer | undefined,
    index = 0, pool?: PoolQueues, poolWanted: () => void = () => {},
  ) {
    this.#executor = new ChainExecutor(region, layout, features, handlers, pool === undefined, interrupts && new Interrupts(interrupts))
    this.#handlers = handlers
    this.#index = index
    this.#jobs = pool && new SharedQueue(pool.jobs)
    this.#done = pool && new SharedQueue(pool.done)
    this.#state = pool && new Int32Array(pool.state)
    this.#poolWanted = poolWanted
    this.#wakeFd = pool?.wakeFd
    if (pool !== undefined && pool.wakeFd === undefined) handlers.mayLeave?.()
  }

  /** What the driver did to the ring, or '' while it is sound. */
  get broken(): string {
    return this.#executor.ring.broken
  }

  /** Whether the driver has made something available that was not taken. */
  hasAvailable(): boolean {
    return this.#executor.ring.hasAvailable()
  }

  /** Whether the driver wants notice of what was given back since this was last asked. */
  callNeeded(): boolean {
    return this.#executor.ring.callNeeded()
  }

  /** Asks the driver for no kicks; it may still give them. */
  disableKicks(): void {
    this.#executor.ring.disableKicks()
  }

  /** Asks for a kick at the next chain. @returns false when there is one already */
  enableKicks(): boolean {
    return this.#executor.ring.enableKicks()
  }

  /** Executes everything that is available. @returns how many chains were taken */
  process(): number {
    const { ring } = this.#executor
    let count = 0
    do {
      for (let head = ring.pop(); head >= 0; head = ring.pop()) {
        const written = this.#executor.execute()
        if (written === MAY_BLOCK) this.#handOver(head)
        else if (written !== DROPPED) ring.push(head, written)
        count++
      }
    } while (!ring.enableKicks() && ring.broken === '')
    this.passOn()
    return count
  }

  /** With a pool: has it do what requests have left, those of other queues of this thread too. */
  passOn(): void {
    if (this.#jobs === undefined || this.#handlers.claimLeft?.() !== true) return
    if (!this.#isTaken()) return this.#handlers.finish!()
    // it has a cell for this one, too
    this.#jobs.push(FINISH, 0)
    this.#jobs.wake(1)
  }

  /** There is one job more for the pool. @returns false, and there is not, when no thread is ready to take it */
  #isTaken(): boolean {
    const state = this.#state!
    const threads = Atomics.load(state, POOL_THREADS)
    if (Atomics.add(state, POOL_JOBS, 1) + 1 >= threads && threads < POOL_MOST_THREADS) this.#poolWanted()
    if (Atomics.load(state, POOL_READY) > 0) return true
    Atomics.sub(state, POOL_JOBS, 1)
    return false
  }

  /**
   * Has a chain executed where it may take long. The main thread, which starts the pool's threads,
   * may itself wait for this very request: without a thread that is ready it is executed here.
   */
  #handOver(head: number): void {
    if (this.#wakeFd !== undefined) {
      this.#away++
      this.#jobs!.push(this.#index, head)
      if (Atomics.exchange(this.#state!, POOL_IDLE, 0) === 1) signalEventfd(this.#wakeFd)
      return
    }
    if (!this.#isTaken()) {
      const written = this.#executor.executeBlocking()
      if (written !== DROPPED) this.#executor.ring.push(head, written)
      return
    }
    this.#away++
    // it has a cell for every chain of every ring
    this.#jobs!.push(this.#index, head)
    this.#jobs!.wake(1)
  }

  /** Whether the pool has given something back. */
  hasDone(): boolean {
    return this.#away > 0 && !this.#done!.isEmpty()
  }

  /** Gives back what the pool has executed. @returns how many chains */
  collect(): number {
    if (this.#away === 0) return 0
    let count = 0
    for (; this.#done!.pop(); count++) this.#executor.ring.push(this.#done!.first, this.#done!.second)
    this.#away -= count
    return count
  }

  close(): void {
    this.#executor.close()
  }
}
