/**
 * A queue worker's thread in the test's hands: the real worker, step by step. Messages go to it at
 * once, as `receiveMessageOnPort` sees them; what it says is delivered when the test says so.
 */
import { EventEmitter } from 'node:events'
import { QueueWorker } from '../../lib/driver/queue-worker.js'
import type { QueueThread } from '../../lib/driver/queue-thread.js'
import type { WorkerCommand, WorkerEvent, WorkerSetup } from '../../lib/driver/worker-protocol.js'

type State = 'loading' | 'running' | 'drowsy' | 'asleep' | 'ended'

type Outgoing = ['message', WorkerEvent] | ['error', Error] | ['exit']

export class SteppedThread extends EventEmitter implements QueueThread {
  state: State = 'loading'
  readonly #inbox: unknown[] = []
  readonly #outbox: Outgoing[] = []
  readonly #aborts: () => void
  #worker: QueueWorker | undefined
  #trouble: 'fails' | 'vanishes' | undefined

  /** @param aborts what a worker that fails does to the connection */
  constructor(aborts: () => void) {
    super()
    this.#aborts = aborts
  }

  /** Whether there is a handle for it: only then has it to end. */
  get used(): boolean {
    return this.listenerCount('exit') > 0 || this.state !== 'loading'
  }

  postMessage(message: unknown): void {
    // nothing listens between the set-up and the first command (worker-main.ts)
    if (this.state === 'loading' && this.#inbox.length > 0) throw new Error('a command before the thread is ready is lost')
    this.#inbox.push(message)
  }

  unref(): void {}

  /** The next step throws, as an unforeseen error would; or there is none, as after process.exit() in the thread. */
  trouble(what: 'fails' | 'vanishes'): void {
    this.#trouble = what
  }

  /** Goes on until the next place where others may do something. @returns false when there is nothing to do */
  step(): boolean {
    if (this.state === 'ended' || (this.state === 'loading' && this.#inbox.length === 0)) return false
    try {
      if (!this.#trouble || !this.#worker) return this.#step()
      if (this.#trouble === 'fails') throw new Error('a step that fails')
      this.#end()
      return true
    } catch (error) {
      this.#aborts()
      this.#outbox.push(['error', error as Error])
      this.#end()
      return true
    }
  }

  #step(): boolean {
    const worker = this.#worker
    switch (this.state) {
      case 'loading': {
        const first = this.#inbox.shift() as WorkerSetup | WorkerCommand
        if ('type' in first) {
          this.#end()
          return true
        }
        this.#worker = new QueueWorker(first, {
          post: event => { this.#outbox.push(['message', event]) },
          take: () => this.#inbox.shift() as WorkerCommand | undefined,
        }, undefined)
        this.#worker.start()
        this.state = 'running'
        return true
      }
      case 'running':
        if (worker!.pass() === 0) this.state = 'drowsy'
        if (worker!.ended) this.#end()
        return true
      case 'drowsy':
        if (worker!.fallAsleep()) {
          this.state = 'asleep'
        } else {
          worker!.awake()
          this.state = 'running'
        }
        return true
      default:
        if (worker!.wait(0) === 0) return false
        worker!.awake()
        this.state = 'running'
        if (worker!.ended) this.#end()
        return true
    }
  }

  #end(): void {
    this.#worker?.close()
    this.#worker = undefined
    this.state = 'ended'
    this.#outbox.push(['exit'])
  }

  /** Delivers one message to the main thread. @returns false when there is none */
  deliver(): boolean {
    const next = this.#outbox.shift()
    if (!next) return false
    this.emit(...next as ['message', WorkerEvent])
    return true
  }
}
