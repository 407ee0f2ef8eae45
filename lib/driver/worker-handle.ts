/** The main thread's end of one queue worker: its thread, its wake-up eventfd, its messages. */
import { EventEmitter } from 'node:events'
import { Worker } from 'node:worker_threads'
import { errorLine, PeerGoneError } from '../errors.js'
import { close, createEventfd, signalEventfd } from '../sys/io.js'
import type { WorkerCommand, WorkerEvent, WorkerSetup } from './worker-protocol.js'

export class WorkerHandle extends EventEmitter<{ event: [WorkerEvent] }> {
  readonly wakeFd: number
  readonly #worker: Worker
  readonly #ended: Promise<void>
  /** Rejects when the thread fails. */
  readonly #failed: Promise<never>
  #serving = false
  #crashed = false

  /** Starts the thread, which loads its modules meanwhile: that takes longer than anything else in a mount. */
  constructor(index: number) {
    super()
    this.wakeFd = createEventfd()
    const worker = new Worker(new URL('./worker-main.js', import.meta.url), { name: `virtiofs-queue${index}` })
    this.#worker = worker
    this.#ended = new Promise(resolve => worker.once('exit', () => resolve()))
    worker.on('message', (event: WorkerEvent) => this.emit('event', event))
    this.#failed = new Promise<never>((_, reject) => worker.once('error', reject))
    this.#failed.catch(error => {
      this.#crashed = true
      if (this.#serving) this.emit('event', { type: 'crashed', reason: `queue worker ${index} failed: ${errorLine(error)}` })
    })
  }

  /** Lets the thread serve its queue. @throws what its set-up throws */
  async serve(setup: WorkerSetup): Promise<void> {
    const ready = this.#next('ready')
    this.#worker.postMessage(setup)
    await Promise.race([ready, this.#failed])
    this.#serving = true
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

  /** Sends a command and wakes the thread from epoll. */
  send(command: WorkerCommand): void {
    this.#worker.postMessage(command)
    signalEventfd(this.wakeFd)
  }

  /** Sends a command and waits for the event that answers it. @throws PeerGoneError when the thread has ended */
  async request(command: WorkerCommand, answer: WorkerEvent['type']): Promise<WorkerEvent> {
    if (this.#crashed) throw new PeerGoneError('a queue worker has failed')
    const next = this.#next(answer)
    this.send(command)
    return await next
  }

  /** Ends the thread and frees its eventfd. */
  async end(): Promise<void> {
    if (this.#serving) this.send({ type: 'exit' })
    else void this.#worker.terminate()
    await this.#ended
    close(this.wakeFd)
  }
}
