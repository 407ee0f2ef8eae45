/** The event loop of an emulated device: one thread whose handlers may take their time without holding up each other. */
import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import { errorLine } from '../errors.js'
import { close, createPipe, signalEventfd } from '../sys/io.js'
import { threadArguments } from '../sys/thread-options.js'
import { POOL_ENDS, type PoolSetup } from './pool-protocol.js'
import { threadsEnd } from './threads-stuck.js'

/** How long the handlers may take to end, in milliseconds. */
const END_TIMEOUT_MS = 2000
/** How long a thread may take that is told to end without them. */
const TERMINATE_TIMEOUT_MS = 3000

/** What its thread starts with. */
export interface LoopSetup extends PoolSetup {
  /** A byte comes when there is something to do. The main thread owns the descriptor. */
  loopFd: number
}

export class Loop {
  /** Wakes the thread. */
  readonly wakeFd: number
  readonly #loopFd: number
  readonly #setup: PoolSetup
  readonly #thread: Worker
  readonly #ended: Promise<unknown>
  readonly #crashed: Promise<Error>
  #closing = false

  constructor(setup: PoolSetup) {
    this.#setup = setup
    ;[this.#loopFd, this.wakeFd] = createPipe()
    const workerData: LoopSetup = { ...setup, loopFd: this.#loopFd }
    this.#thread = new Worker(new URL('./loop-thread.js', import.meta.url), { workerData, execArgv: threadArguments(), name: 'virtiofs-loop' })
    this.#ended = new Promise(resolve => this.#thread.once('exit', resolve))
    this.#crashed = new Promise(resolve => this.#thread.once('error', resolve))
  }

  /** Resolves when the thread has ended by itself, with why: the device answers nothing any more. */
  get failed(): Promise<string> {
    const reasons = [this.#crashed.then(error => `the file system failed: ${errorLine(error)}`), this.#ended.then(() => 'the file system ended its thread')]
    return Promise.race(reasons).then(reason => this.#closing ? new Promise<never>(() => {}) : reason)
  }

  /** Resolves once requests are taken. @throws what the module or its constructor throws */
  async ready(): Promise<void> {
    await Promise.race([once(this.#thread, 'message'), this.#crashed.then(error => { throw error }), this.#ended.then(() => { throw new Error('the file system ended its thread') })])
  }

  /** Ends the thread, whatever is at work. @throws ThreadsStuckError when it hangs in a system call */
  async close(): Promise<void> {
    this.#closing = true
    Atomics.store(new Int32Array(this.#setup.state), POOL_ENDS, 1)
    signalEventfd(this.wakeFd)
    const freed = this.#ended.then(() => {
      close(this.wakeFd)
      close(this.#loopFd)
    })
    await threadsEnd([this.#thread], freed, END_TIMEOUT_MS).catch(async () => {
      void this.#thread.terminate()
      await threadsEnd([this.#thread], freed, TERMINATE_TIMEOUT_MS)
    })
  }
}
