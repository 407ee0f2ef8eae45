/** The main thread's end of the notifier: its thread, its eventfd, its messages. */
import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
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
  /** Resolves when the thread is no more. */
  readonly ended: Promise<boolean>
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
    this.ended = once(worker, 'exit').then(() => {
      this.#alive = false
      stopped(undefined)
      return true
    }, () => true)
    void this.ended.then(tellAtExit(() => this.#send({ type: 'exit' })))
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

  /** Ends the thread. @returns false when it hangs in the kernel: it may still use the memory */
  async end(): Promise<boolean> {
    if (this.#alive) this.#send({ type: 'exit' })
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<boolean>(resolve => { timer = setTimeout(() => resolve(false), END_TIMEOUT_MS) })
    const ended = await Promise.race([this.ended, late])
    clearTimeout(timer)
    if (ended) close(this.#wakeFd)
    return ended
  }
}
