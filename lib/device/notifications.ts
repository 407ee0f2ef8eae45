/**
 * What an emulated device tells of its own accord: a thread that watches what the handlers serve
 * and fills the notification queue. The main thread owns it, its descriptors included.
 */
import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import { errorLine } from '../errors.js'
import { tellAtExit } from '../sys/at-exit.js'
import { close, createEventfd, signalEventfd } from '../sys/io.js'
import { threadArguments } from '../sys/thread-options.js'
import type { RingFeatures } from '../virtio/driver-ring.js'
import type { RingLayout } from '../virtio/split-ring.js'
import { threadsEnd } from './threads-stuck.js'

/** Where notifications come from. */
export interface NotificationSource {
  /** URL of the thread's module; its workerData is a `NotificationThreadSetup`. */
  thread: string
  /** Cloned to it. */
  data: unknown
  /** notify_buf_size. */
  bufferBytes: number
}

export interface NotificationThreadSetup {
  data: unknown
  memoryAddress: number
  memoryBytes: number
  layout: RingLayout
  features: RingFeatures
  /** The driver has given buffers. */
  kickFd: number
  /** To be signalled when there is something for the driver. */
  callFd: number
  /** Readable once the thread is to end. */
  stopFd: number
}

/** How long the thread may take to end, in milliseconds. */
const END_TIMEOUT_MS = 5000

export class Notifications {
  readonly kickFd = createEventfd()
  readonly callFd = createEventfd()
  readonly #stopFd = createEventfd()
  readonly #worker: Worker
  readonly #ended: Promise<unknown>
  readonly #ready: Promise<void>

  /**
   * Starts the thread, which says `ready` when it watches.
   * @param failed told when the thread has failed: nobody hears of changes any more
   */
  constructor(source: NotificationSource, memoryAddress: number, memoryBytes: number, layout: RingLayout, features: RingFeatures, failed: (reason: string) => void) {
    const workerData: NotificationThreadSetup = {
      data: source.data, memoryAddress, memoryBytes, layout, features, kickFd: this.kickFd, callFd: this.callFd, stopFd: this.#stopFd,
    }
    const worker = this.#worker = new Worker(new URL(source.thread), { workerData, execArgv: threadArguments(), name: 'virtiofs-watch' })
    this.#ended = once(worker, 'exit').catch(() => {})
    void this.#ended.then(tellAtExit(() => signalEventfd(this.#stopFd)))
    this.#ready = new Promise<void>((resolve, reject) => {
      worker.once('message', () => resolve())
      worker.once('error', error => {
        reject(error)
        failed(`nobody watches for changes any more: ${errorLine(error)}`)
      })
    })
    this.#ready.catch(() => {})
  }

  ready(): Promise<void> {
    return this.#ready
  }

  /** Ends the thread. @throws ThreadsStuckError when it hangs in a system call */
  async stop(): Promise<void> {
    signalEventfd(this.#stopFd)
    await threadsEnd([this.#worker], this.#ended.then(() => {
      for (const fd of [this.kickFd, this.callFd, this.#stopFd]) close(fd)
    }), END_TIMEOUT_MS)
  }
}
