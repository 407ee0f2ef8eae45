/**
 * The pool of an emulated device: threads for the requests that can take long (fsync, a cold read),
 * so that a slow one holds up nobody else. Started one by one when they are needed, on the main
 * thread, which owns them.
 */
import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import createDebug from 'debug'
import { POOL_ENDS, POOL_JOBS, POOL_MOST_THREADS, POOL_READY, POOL_THREADS, type PoolSetup } from './pool-protocol.js'
import { SharedQueue } from './shared-queue.js'

const debug = createDebug('virtiofs:device')

/** How long a thread may take to end what it does, in milliseconds. */
const END_TIMEOUT_MS = 5000

export class ThreadsStuckError extends Error {
  constructor() {
    super(`a thread of the device hangs in a system call on the shared directory`)
    this.name = 'ThreadsStuckError'
  }
}

export class Pool {
  readonly #setup: PoolSetup
  readonly #threads: Worker[] = []
  readonly #exits: Promise<unknown>[] = []

  constructor(setup: PoolSetup) {
    this.#setup = setup
  }

  /** Jobs may be waiting: starts threads until one is left over, for the next slow request. */
  wanted(): void {
    const state = new Int32Array(this.#setup.state)
    while (this.#threads.length < POOL_MOST_THREADS && this.#threads.length <= Atomics.load(state, POOL_JOBS)) {
      Atomics.add(state, POOL_THREADS, 1)
      this.#start()
    }
  }

  #start(): void {
    const thread = new Worker(new URL('./pool-thread.js', import.meta.url), { workerData: this.#setup, name: `virtiofs-pool${this.#threads.length}` })
    thread.on('error', error => debug('a thread of the pool failed: %s', error.message))
    this.#threads.push(thread)
    this.#exits.push(once(thread, 'exit'))
    debug('pool has %d threads', this.#threads.length)
  }

  /** Resolves once a thread takes jobs. */
  async ready(): Promise<void> {
    this.wanted()
    if (Atomics.load(new Int32Array(this.#setup.state), POOL_READY) === 0) await once(this.#threads[0]!, 'message')
  }

  /** Ends the threads. @throws ThreadsStuckError when one hangs in a system call */
  async close(): Promise<void> {
    Atomics.store(new Int32Array(this.#setup.state), POOL_ENDS, 1)
    new SharedQueue(this.#setup.jobs).wake(POOL_MOST_THREADS)
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<never>((_, reject) => { timer = setTimeout(() => reject(new ThreadsStuckError()), END_TIMEOUT_MS) })
    try {
      await Promise.race([Promise.all(this.#exits), late])
    } finally {
      clearTimeout(timer)
    }
  }
}
