/**
 * The queue workers of a device: a thread for each request queue, and what they share with each
 * other and with the device. The main thread owns them all; the first is started early.
 */
import { allocateRelay } from './hiprio-relay.js'
import { NO_OBSERVATION, type Observation } from './observation.js'
import { allocateRingRoom } from './ring-room.js'
import type { WorkerHandle } from './worker-handle.js'
import type { WorkerCommand, WorkerSetup } from './worker-protocol.js'

/** What every worker is given alike. */
type SharedSetup = Pick<WorkerSetup, 'wakeFds' | 'sleepFlags' | 'relays' | 'ringRoom'>
/** What it is given of its own by the workers. */
type OwnSetup = Pick<WorkerSetup, 'index' | 'wakeFd' | 'attention' | 'observation'>

export class QueueWorkers {
  readonly #newWorker: (index: number) => WorkerHandle
  #all: WorkerHandle[]
  #observation = NO_OBSERVATION
  #shared: SharedSetup | undefined

  /** @param newWorker starts the thread of another one */
  constructor(first: WorkerHandle, newWorker: (index: number) => WorkerHandle) {
    this.#all = [first]
    this.#newWorker = newWorker
  }

  /** Starts the threads of the others, and makes what they share. */
  start(count: number): void {
    while (this.#all.length < count) this.#all.push(this.#newWorker(this.#all.length))
    this.#shared = {
      wakeFds: this.#all.map(worker => worker.wakeFd), sleepFlags: new SharedArrayBuffer(4 * count),
      relays: this.#all.slice(1).map(() => allocateRelay()), ringRoom: allocateRingRoom(count),
    }
  }

  /** By index; none any more once they were told to end. */
  get all(): readonly WorkerHandle[] {
    return this.#all
  }

  /** Those that take commands. */
  get serving(): WorkerHandle[] {
    return this.#all.filter(worker => worker.serving)
  }

  /** What wakes them, for the device too. Once they are started. */
  get wakeUp(): Pick<SharedSetup, 'wakeFds' | 'sleepFlags'> {
    const { wakeFds, sleepFlags } = this.#shared!
    return { wakeFds, sleepFlags }
  }

  /** Lets one serve its queue. @throws what its set-up throws */
  async serve(index: number, setup: Omit<WorkerSetup, keyof SharedSetup | keyof OwnSetup>): Promise<void> {
    const worker = this.#all[index]!
    const observation = this.#observation
    await worker.serve({ ...setup, ...this.#shared!, index, wakeFd: worker.wakeFd, attention: worker.attention, observation })
    if (observation !== this.#observation) worker.send({ type: 'observe', observation: this.#observation })
  }

  /** Changes what is watched, of those too that will serve. */
  observe(observation: Observation): void {
    this.#observation = observation
    this.send({ type: 'observe', observation })
  }

  /** To all that serve. */
  send(command: WorkerCommand): void {
    for (const worker of this.serving) worker.send(command)
  }

  /** Resolves once nothing is in flight on any queue. */
  async drained(): Promise<void> {
    await Promise.all(this.serving.map(worker => worker.request({ type: 'drain' }, 'drained')))
  }

  /** Ends the threads, at the same time. @param failed told of each that does not end */
  async end(failed: (error: unknown) => void): Promise<void> {
    await Promise.all(this.#all.splice(0).map(worker => worker.end().catch(failed)))
  }
}
