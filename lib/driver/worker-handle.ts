/** The main thread's end of one queue worker: its thread, its wake-up eventfd, its messages. */
import { EventEmitter } from 'node:events'
import { threadsEnd } from '../device/threads-stuck.js'
import { errorLine, PeerGoneError } from '../errors.js'
import { tellAtExit } from '../sys/at-exit.js'
import { close, createEventfd, signalEventfd } from '../sys/io.js'
import { type QueueThread, takeQueueThread } from './queue-thread.js'
import type { WorkerCommand, WorkerEvent, WorkerSetup } from './worker-protocol.js'

/** How long a thread may take to end what it does, in milliseconds. */
const END_TIMEOUT_MS = 5000

export class WorkerHandle extends EventEmitter<{ event: [WorkerEvent] }> {
  readonly wakeFd: number
  /** Counts the commands sent, for a worker that is too busy to be woken. */
  readonly attention = new SharedArrayBuffer(4)
  readonly #thread: QueueThread
  readonly #ended: Promise<void>
  /** Rejects when the thread fails. */
  readonly #failed: Promise<never>
  #serving = false
  #ending = false

  /** Starts the thread, which loads its modules meanwhile: that takes longer than anything else in a mount. */
  constructor(index: number, newThread: (index: number) => QueueThread = takeQueueThread) {
    super()
    // before the thread, which nobody would end
    this.wakeFd = createEventfd()
    const thread = this.#thread = newThread(index)
    this.#ended = new Promise(resolve => thread.once('exit', () => resolve()))
    void this.#ended.then(tellAtExit(() => this.send({ type: 'exit' })))
    thread.on('message', (event: WorkerEvent) => this.emit('event', event))
    this.#failed = new Promise<never>((_, reject) => {
      thread.once('error', reject)
      thread.once('exit', () => { if (!this.#ending) reject(new Error('it has ended')) })
    })
    this.#failed.catch(error => {
      if (this.#serving) this.emit('event', { type: 'crashed', reason: `queue worker ${index} failed: ${errorLine(error)}` })
    })
  }

  /** Lets the thread serve its queue. @throws what its set-up throws */
  async serve(setup: WorkerSetup): Promise<void> {
    const ready = this.#next('ready')
    this.#thread.postMessage(setup)
    await Promise.race([ready, this.#failed])
    this.#serving = true
  }

  /** Whether the thread takes commands. */
  get serving(): boolean {
    return this.#serving
  }

  #next(type: WorkerEvent['type']): Promise<WorkerEvent> {
    return new Promise(resolve => {
      const listener = (event: WorkerEvent): void => {
        if (event.type !== type) return
        this.off('event', listener)
        resolve(event)
      }
      this.on('event', listener)
    })
  }

  /** Sends a command and wakes the thread from epoll. It must be serving, but for `exit`. */
  send(command: WorkerCommand): void {
    this.#thread.postMessage(command)
    Atomics.add(new Int32Array(this.attention), 0, 1)
    signalEventfd(this.wakeFd)
  }

  /** Sends a command and waits for the event that answers it. @throws PeerGoneError when the thread fails */
  async request(command: WorkerCommand, answer: WorkerEvent['type']): Promise<WorkerEvent> {
    const next = this.#next(answer)
    this.send(command)
    return await Promise.race([next, this.#failed.catch(() => { throw new PeerGoneError('a queue worker has failed') })])
  }

  /** Ends the thread and frees its eventfd. @throws ThreadsStuckError when it hangs in a system call of the device */
  async end(): Promise<void> {
    this.#ending = true
    // not terminate(): a thread that is loading its modules would leave their descriptors open
    this.send({ type: 'exit' })
    await threadsEnd([this.#thread], this.#ended.then(() => close(this.wakeFd)), END_TIMEOUT_MS)
  }
}
