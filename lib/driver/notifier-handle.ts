/** The main thread's end of the notifier: its thread, its eventfd, its messages. */
import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import { threadsEnd } from '../device/threads-stuck.js'
import { errorLine } from '../errors.js'
import { tellAtExit } from '../sys/at-exit.js'
import { close, createEventfd, signalEventfd } from '../sys/io.js'
import { threadArguments } from '../sys/thread-options.js'
import type { NotificationCounts } from './notification-queue.js'
import type { NotifierCommand, NotifierEvent, NotifierSetup } from './notifier-protocol.js'

/** How long it may take to end: it is in a system call that waits for a request at worst. */
const END_TIMEOUT_MS = 5000

export class NotifierHandle {
  readonly #wakeFd = createEventfd()
  readonly #worker: Worker
  readonly #ended: Promise<void>
  readonly #ready: Promise<void>
  /** What became of all notifications, once it is stopped or has ended. */
  readonly #counts: Promise<NotificationCounts | undefined>
  #stopping = false
  #alive = true

  /**
   * Starts the thread.
   * @param failed told, once at most, that no notification will come any more
   */
  constructor(setup: Omit<NotifierSetup, 'wakeFd'>, failed: (reason: string) => void) {
    const worker = new Worker(new URL('./notifier-thread.js', import.meta.url), { execArgv: threadArguments(), name: 'virtiofs-notify' })
    this.#worker = worker
    let stopped: (counts: NotificationCounts | undefined) => void
    this.#counts = new Promise(resolve => { stopped = resolve })
    this.#ready = new Promise<void>((resolve, reject) => {
      worker.on('message', (event: NotifierEvent) => {
        if (event.type === 'ready') resolve()
        else if (event.type === 'stopped') stopped(event.counts)
        else failed(event.reason)
      })
      worker.once('error', error => {
        reject(error)
        failed(`the notifier failed: ${errorLine(error)}`)
      })
    })
    this.#ready.catch(() => {})
    this.#ended = once(worker, 'exit').then(() => {
      this.#alive = false
      stopped(undefined)
    }, () => {})
    void this.#ended.then(tellAtExit(() => this.#send({ type: 'exit' })))
    worker.postMessage({ ...setup, wakeFd: this.#wakeFd } satisfies NotifierSetup)
  }

  /** Resolves once it listens. @throws what its set-up throws */
  ready(): Promise<void> {
    return this.#ready
  }

  #send(command: NotifierCommand): void {
    this.#worker.postMessage(command)
    signalEventfd(this.#wakeFd)
  }

  /** Nothing goes to the kernel any more once this resolves. @returns what became of all notifications, if the thread still knows */
  async stop(): Promise<NotificationCounts | undefined> {
    if (this.#alive && !this.#stopping) this.#send({ type: 'stop' })
    this.#stopping = true
    return await this.#counts
  }

  /** Ends the thread. @throws ThreadsStuckError when it hangs in the kernel */
  async end(): Promise<void> {
    if (this.#alive) this.#send({ type: 'exit' })
    await threadsEnd([this.#worker], this.#ended.then(() => close(this.#wakeFd)), END_TIMEOUT_MS)
  }
}
