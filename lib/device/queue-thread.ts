/**
 * An emulated device on a thread of its own, for a driver that runs where nothing may block: the
 * queues are served as a backend in another process would, with notifications in both directions.
 * The thread that makes it owns it.
 */
import { EventEmitter } from 'node:events'
import { Worker } from 'node:worker_threads'
import { errorLine } from '../errors.js'
import { tellAtExit } from '../sys/at-exit.js'
import { close, createEventfd, signalEventfd } from '../sys/io.js'
import { threadArguments } from '../sys/thread-options.js'
import type { RingFeatures } from '../virtio/driver-ring.js'
import type { RingLayout } from '../virtio/split-ring.js'
import type { PoolQueues } from './emulated-queue.js'
import { threadsEnd } from './threads-stuck.js'

export interface QueueThreadOptions {
  memoryAddress: number
  memoryBytes: number
  hiprio: RingLayout
  ring: RingLayout
  features: RingFeatures
  /** Exports `createHandlers(data)`. */
  module: string
  data: unknown
  pool: PoolQueues
  /** Of hiprio, when FORGETs are executed elsewhere too. */
  hiprioPool: PoolQueues | undefined
  interrupts: SharedArrayBuffer | undefined
  /** Wakes the thread; the pool does it, and whoever ends it. */
  wakeFd: number
  /** 1 while the thread may be asleep. */
  sleepFlags: SharedArrayBuffer
  /** Written to when something was given back on either ring. */
  callFd: number
  /** Longest time to poll before sleeping, in microseconds. */
  pollUs: number
}

export interface QueueThreadSetup extends QueueThreadOptions {
  kickFd: number
  /** Word 0: not 0 when the thread is to end. */
  state: SharedArrayBuffer
}

export type QueueThreadMessage = { type: 'ready' } | { type: 'pool-wanted' } | { type: 'broken', reason: string }

/** How long the thread may take to end what it does, in milliseconds. */
const END_TIMEOUT_MS = 5000

interface Events {
  poolWanted: []
  /** It serves no more: the driver broke a ring, or the handlers failed. */
  gone: [reason: string]
}

export class QueueThread extends EventEmitter<Events> {
  /** To be written to when there is something new on either ring. */
  readonly kickFd = createEventfd()
  readonly #wakeFd: number
  readonly #state = new SharedArrayBuffer(4)
  readonly #worker: Worker
  readonly #exit: Promise<void>
  #ends = false

  private constructor(options: QueueThreadOptions) {
    super()
    this.#wakeFd = options.wakeFd
    const workerData: QueueThreadSetup = { ...options, kickFd: this.kickFd, state: this.#state }
    this.#worker = new Worker(new URL('./queue-thread-main.js', import.meta.url), { workerData, execArgv: threadArguments(), name: 'virtiofs-device' })
    this.#exit = new Promise(resolve => this.#worker.once('exit', () => resolve()))
    void this.#exit.then(tellAtExit(() => this.#tellToEnd()))
    this.#worker.on('message', (message: QueueThreadMessage) => {
      if (message.type === 'pool-wanted') this.emit('poolWanted')
      else if (message.type === 'broken') this.emit('gone', message.reason)
    })
  }

  /** Starts the thread and waits until it serves. @throws what making the handlers throws */
  static async start(options: QueueThreadOptions): Promise<QueueThread> {
    const thread = new QueueThread(options)
    try {
      await new Promise<void>((resolve, reject) => {
        thread.#worker.once('message', () => resolve())
        thread.#worker.once('error', reject)
      })
    } catch (error) {
      await thread.#exit
      close(thread.kickFd)
      throw error
    }
    thread.#worker.on('error', error => thread.emit('gone', `the device's thread failed: ${errorLine(error)}`))
    thread.#worker.once('exit', () => { if (!thread.#ends) thread.emit('gone', 'the device\'s thread has ended') })
    return thread
  }

  #tellToEnd(): void {
    Atomics.store(new Int32Array(this.#state), 0, 1)
    signalEventfd(this.#wakeFd)
  }

  /** Ends the thread and waits for it. @throws ThreadsStuckError when it hangs in a system call */
  async end(): Promise<void> {
    this.#ends = true
    this.#tellToEnd()
    await threadsEnd([this.#worker], this.#exit.then(() => close(this.kickFd)), END_TIMEOUT_MS)
  }
}
