/**
 * The pool of an emulated device: threads for the requests that can take long (fsync, a cold read),
 * so that a slow one holds up nobody else. Started one by one when they are needed, on the main
 * thread, which owns them.
 */
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { Worker } from 'node:worker_threads'
import createDebug from 'debug'
import { errorLine } from '../errors.js'
import { descriptorLimit } from '../sys/limits.js'
import { threadArguments } from '../sys/thread-options.js'
import { POOL_ENDS, POOL_JOBS, POOL_MOST_THREADS, POOL_READY, POOL_THREADS, type PoolSetup } from './pool-protocol.js'
import { SharedQueue } from './shared-queue.js'
import { threadsEnd } from './threads-stuck.js'

const debug = createDebug('virtiofs:device')

/** A thread that starts has so many open for a moment, and what is served must not lack them. */
const START_DESCRIPTORS = 48

/** After a thread could not be started. */
const PAUSE_MS = 5000

/** How long a thread may take to end what it does, in milliseconds. */
const END_TIMEOUT_MS = 5000

export class Pool {
  readonly #setup: PoolSetup
  readonly #threads = new Set<Worker>()
  readonly #exits: Promise<void>[] = []
  #started = 0
  /** Until when none is started, by the clock of `performance`, because there was not enough of something. */
  #pausedUntil = 0

  /** Told when a thread has failed that took jobs: nobody answers what it had. */
  readonly #failed: (reason: string) => void

  constructor(setup: PoolSetup, failed: (reason: string) => void) {
    this.#setup = setup
    this.#failed = failed
  }

  /** Jobs may be waiting: starts threads until one is left over, for the next slow request. */
  wanted(): void {
    const state = new Int32Array(this.#setup.state)
    if (performance.now() < this.#pausedUntil) return
    if (this.#threads.size > 0 && descriptorLimit() - readdirSync('/proc/self/fd').length < START_DESCRIPTORS) {
      this.#pausedUntil = performance.now() + PAUSE_MS
      return
    }
    while (this.#threads.size < POOL_MOST_THREADS && this.#threads.size <= Atomics.load(state, POOL_JOBS)) {
      this.#start(state)
    }
  }

  #start(state: Int32Array): void {
    const thread = new Worker(new URL('./pool-thread.js', import.meta.url), { workerData: this.#setup, execArgv: threadArguments(), name: `virtiofs-pool${this.#started++}` })
    this.#threads.add(thread)
    Atomics.add(state, POOL_THREADS, 1)
    let serves = false
    thread.once('message', () => { serves = true })
    thread.on('error', error => {
      if (serves) return this.#failed(`a thread of the pool failed: ${errorLine(error)}`)
      // for want of descriptors or memory: the others go on, and a slow request tries again after a while
      debug('a thread of the pool did not start: %s', error.message)
      this.#pausedUntil = performance.now() + PAUSE_MS
    })
    this.#exits.push(new Promise(resolve => {
      thread.once('exit', () => {
        this.#threads.delete(thread)
        Atomics.sub(state, POOL_THREADS, 1)
        resolve()
      })
    }))
    debug('pool has %d threads', this.#threads.size)
  }

  /** Resolves once a thread takes jobs. */
  async ready(): Promise<void> {
    this.wanted()
    if (Atomics.load(new Int32Array(this.#setup.state), POOL_READY) === 0) await once([...this.#threads][0]!, 'message')
  }

  /** Ends the threads. @throws ThreadsStuckError when one hangs in a system call */
  async close(): Promise<void> {
    Atomics.store(new Int32Array(this.#setup.state), POOL_ENDS, 1)
    new SharedQueue(this.#setup.jobs).wake(POOL_MOST_THREADS)
    await threadsEnd(this.#threads, Promise.all(this.#exits), END_TIMEOUT_MS)
  }
}
