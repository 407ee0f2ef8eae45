/** Going on with another vhost-user backend in the place of one that works. */
import { errorLine, UsageError } from '../errors.js'
import type { Replacement, ReplacementTarget, Transport } from './transport.js'
import type { WorkerHandle } from './worker-handle.js'

/** What it has to know of the device instance. */
export interface Replaceable {
  readonly transport: Transport
  readonly serving: readonly WorkerHandle[]
  /** @throws PeerGoneError when there is nothing to be replaced */
  checkPresent: () => void
  /** With the deadline of an unmount's steps. */
  within: <T>(what: string, promise: Promise<T>) => Promise<T>
  event: (name: string, detail: object) => void
}

export class BackendReplacement {
  readonly #device: Replaceable
  /** What took over last, and keeps its place when it is reached again. */
  target: ReplacementTarget = {}
  /** Settles when the backend was replaced, or could not be. */
  pending: Promise<void> | undefined

  constructor(device: Replaceable) {
    this.#device = device
  }

  /** As `VirtioFs.replaceBackend`. */
  async run(target: ReplacementTarget): Promise<number> {
    const { transport } = this.#device
    if (!transport.prepareReplacement) throw new UsageError('only a backend behind a vhost-user socket can be replaced')
    if (this.pending) throw new UsageError('the backend is being replaced already', 'EBUSY')
    this.#device.checkPresent()
    const replacement = await transport.prepareReplacement(target)
    try {
      this.#device.checkPresent()
    } catch (error) {
      await replacement.discard()
      throw error
    }
    const work = this.#move(replacement, target)
    this.pending = work.then(() => {}, () => {}).finally(() => { this.pending = undefined })
    return await work
  }

  async #move(replacement: Replacement, target: ReplacementTarget): Promise<number> {
    const start = performance.now()
    const { transport, serving } = this.#device
    const goOn = (): void => { for (const worker of serving) worker.send({ type: 'unpause', socketFd: transport.socketFd!() }) }
    try {
      await this.#device.within('what is in flight', Promise.all(serving.map(worker => worker.request({ type: 'pause' }, 'paused'))))
      await replacement.move()
    } catch (error) {
      this.#device.event('replace', { error: errorLine(error) })
      await replacement.discard()
      // it goes on, or its end is seen at once
      goOn()
      throw error
    }
    goOn()
    const ms = performance.now() - start
    this.#device.event('replace', { ms: Math.round(ms) })
    this.target = { ...this.target, ...target }
    return ms
  }
}
