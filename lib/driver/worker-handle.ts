/** The main thread's end of one queue worker: its thread, its wake-up eventfd, its messages. */
import { EventEmitter } from 'node:events'
import { Worker } from 'node:worker_threads'
import { errorLine, PeerGoneError } from '../errors.js'
import { close, createEventfd, signalEventfd } from '../sys/io.js'
import type { WorkerCommand, WorkerEvent, WorkerSetup } from './worker-protocol.js'

export class WorkerHandle extends EventEmitter<{ event: [WorkerEvent] }> {
  readonly wakeFd = createEventfd()
  #worker: Worker | undefined
  #ended: Promise<void> | undefined
  #crashed = false

  /** Starts the thread. @throws what its set-up throws */
  async start(setup: WorkerSetup): Promise<void> {
    const worker = new Worker(new URL('./worker-main.js', import.meta.url), { workerData: setup, name: `virtiofs-queue${setup.index}` })
    this.#worker = worker
    this.#ended = new Promise(resolve => worker.once('exit', () => resolve()))
    const ready = this.#next('ready')
    worker.on('message', (event: WorkerEvent) => this.emit('event', event))
    const failed = new Promise<never>((_, reject) => worker.once('error', reject))
    let started = false
    failed.catch(error => {
      this.#crashed = true
      if (started) this.emit('event', { type: 'crashed', reason: `queue worker ${setup.index} failed: ${errorLine(error)}` })
    })
    await Promise.race([ready, failed])
    started = true
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
    this.#worker?.postMessage(command)
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
    if (this.#worker) {
      this.send({ type: 'exit' })
      await this.#ended
    }
    close(this.wakeFd)
  }
}
