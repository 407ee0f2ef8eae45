/**
 * The way back to a device that went away (on_disconnect=wait): tries to reach it, longer apart each
 * time, starts its rings on fresh memory, lets the worker greet it with the INIT of the first session,
 * and tells it to go on when the answer is one that the kernel can live with.
 *
 * States: idle; away (trying); greeting. A device that goes again, at any moment, is tried again.
 * What ends it for good: a device that is another one, `end`.
 */
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import createDebug from 'debug'
import { errorLine } from '../errors.js'
import { explainInitRefusal, type InitAnswer } from '../fuse/init.js'
import type { SessionMemory } from './session-memory.js'
import { OtherDeviceError, type DeviceInfo, type Transport } from './transport.js'
import type { WorkerHandle } from './worker-handle.js'
import type { WorkerBackend, WorkerEvent } from './worker-protocol.js'

const debug = createDebug('virtiofs:driver')

/** Waits between two tries, in milliseconds: doubled from the first to the last. */
const FIRST_MS = 20
const LAST_MS = 1000

/** The driver whose device it is. */
export interface Reconnecting {
  /** A new transport, probed and not started. Rejects while the device is not there. */
  reach(signal: AbortSignal): Promise<Transport>
  readonly worker: WorkerHandle
  readonly transport: Transport
  readonly queues: number
  /** The answer that the kernel has. */
  readonly init: InitAnswer
  /** How long the device may take for FUSE_INIT, in milliseconds. */
  readonly timeoutMs: number
  /** Memory for a session, of the same layout always. @throws SyscallError */
  newMemory(): SessionMemory
  /** Starts a device's rings. @throws PeerGoneError, ProtocolError */
  startRings(transport: Transport, memory: SessionMemory): Promise<WorkerBackend[]>
  /** Owns both from now on, and frees the memory before, which the worker uses no more. */
  take(transport: Transport, memory: SessionMemory): void
  /** Something has happened, for logs. */
  event(name: 'lost' | 'found', detail: { reason?: string, ms?: number, tries?: number }): void
  /** There is no way back. */
  remove(reason: string): void
}

type Greeting = Extract<WorkerEvent, { type: 'greeted' | 'lost' }>

export class Reconnection {
  readonly #driver: Reconnecting
  readonly #ending = new AbortController()
  #running: Promise<void> | undefined
  /** It went while it was being brought back. */
  #again = false
  /** What the device that is greeted does: answers, or goes. */
  #answer = new Promise<Greeting>(() => {})
  #answered: (greeting: Greeting) => void = () => {}
  /** Stopped and closed already. */
  #left: Transport | undefined

  constructor(driver: Reconnecting) {
    this.#driver = driver
  }

  /** Whether the device is away. */
  get active(): boolean {
    return this.#running !== undefined
  }

  /** The worker says that the device has answered INIT, or that it is gone and waited for. */
  told(event: Greeting): void {
    if (this.#ending.signal.aborted) return
    if (this.#running) {
      if (event.type === 'lost') {
        debug('it went again: %s', event.reason)
        this.#again = true
      }
      this.#answered(event)
      return
    }
    if (event.type !== 'lost') return
    this.#driver.event('lost', { reason: event.reason })
    this.#running = this.#run().catch(error => {
      if (!this.#ending.signal.aborted) this.#driver.remove(errorLine(error))
    }).finally(() => { this.#running = undefined })
  }

  /** Gives up. Resolves when nothing is under way any more. */
  async end(): Promise<void> {
    this.#ending.abort()
    await this.#running
  }

  async #run(): Promise<void> {
    const { signal } = this.#ending
    const startMs = performance.now()
    let tries = 0
    for (let waitMs = FIRST_MS; !signal.aborted; waitMs = Math.min(LAST_MS, 2 * waitMs)) {
      tries++
      this.#again = false
      try {
        // a process of ours has to be dead before another serves the same files
        await this.#leave(this.#driver.transport)
        if (await this.#try()) {
          this.#driver.event('found', { ms: Math.round(performance.now() - startMs), tries })
          return
        }
      } catch (error) {
        if (error instanceof OtherDeviceError) throw error
        debug('not back yet: %s', errorLine(error))
      }
      await sleep(waitMs, undefined, { signal }).catch(() => {})
    }
  }

  async #leave(transport: Transport): Promise<void> {
    if (this.#left === transport) return
    this.#left = transport
    await transport.stop(true).catch(() => {})
    await transport.close()
  }

  /** @returns whether the device is back */
  async #try(): Promise<boolean> {
    const driver = this.#driver
    const { signal } = this.#ending
    const transport = await driver.reach(signal)
    let memory: SessionMemory | undefined
    let taken = false
    try {
      const other = difference(driver.transport.info, transport.info, driver.queues)
      if (other !== '') throw new OtherDeviceError(`the device that came back is another one: ${other}`)
      if (signal.aborted) return false
      memory = driver.newMemory()
      this.#answer = new Promise(resolve => { this.#answered = resolve })
      const [backend] = await driver.startRings(transport, memory)
      if (backend === undefined || backend.kind === 'emulated') throw new OtherDeviceError('the device that came back is in this process')
      const resumed = await driver.worker.request({ type: 'resume', memoryAddress: memory.address, backend, clockAheadMs: transport.clockAheadMs ?? 0 }, 'resumed')
      taken = resumed.type === 'resumed' && resumed.taken
      if (!taken) return false
      driver.take(transport, memory)
      return await this.#greeted()
    } finally {
      if (!taken) {
        await this.#leave(transport)
        memory?.free()
      }
    }
  }

  /** The device has its INIT. @returns whether it has answered, and stayed */
  async #greeted(): Promise<boolean> {
    const { worker, timeoutMs } = this.#driver
    const { signal } = this.#ending
    const waiting = new AbortController()
    const answer = await Promise.race([this.#answer, sleep(timeoutMs, undefined, { signal: AbortSignal.any([signal, waiting.signal]) }).catch(() => undefined)])
    waiting.abort()
    if (answer?.type === 'greeted') {
      this.#check(answer.error, answer.answer)
      worker.send({ type: 'go-on' })
      return !this.#again
    }
    // its descriptors must not be closed before the worker has left them
    if (answer === undefined && !signal.aborted) {
      worker.send({ type: 'lose', reason: 'it did not answer FUSE_INIT' })
      await Promise.race([this.#answer, once(signal, 'abort')])
    }
    return false
  }

  /** @throws OtherDeviceError when the kernel, which knows the first answer, could not go on with this one */
  #check(error: number, answer: InitAnswer | undefined): void {
    if (!answer) throw new OtherDeviceError(`the device came back, and ${explainInitRefusal(error, [0, 0]).split(';')[0]!}`)
    const wrong = initDifference(this.#driver.init, answer)
    if (wrong !== '') throw new OtherDeviceError(`the device that came back answers FUSE_INIT otherwise: ${wrong}`)
  }
}

/** Why the kernel, which knows the first answer to FUSE_INIT, could not go on with another one, or ''. */
export function initDifference(before: InitAnswer, answer: InitAnswer): string {
  const gone = before.flags.filter(flag => !answer.flags.includes(flag))
  const fresh = answer.flags.filter(flag => !before.flags.includes(flag))
  return gone.length > 0 ? `without ${gone.join(', ')}`
    : fresh.length > 0 ? `with ${fresh.join(', ')}`
    : answer.major !== before.major || answer.minor !== before.minor ? `with version ${answer.major}.${answer.minor} instead of ${before.major}.${before.minor}`
    : answer.maxWrite < before.maxWrite ? `with max_write ${answer.maxWrite} instead of ${before.maxWrite}`
    : answer.maxPages < before.maxPages ? `with max_pages ${answer.maxPages} instead of ${before.maxPages}`
    : answer.timeGran !== before.timeGran ? `with time_gran ${answer.timeGran} instead of ${before.timeGran}` : ''
}

/** Why a device that was found is not the one that was lost, or ''. */
function difference(before: DeviceInfo, now: DeviceInfo, queues: number): string {
  if (now.ownTag && now.tag !== before.tag) return `its tag is "${now.tag}", and was "${before.tag}"`
  if (now.requestQueues < queues) return `it has ${now.requestQueues} request queues, and had ${queues}`
  const changed = before.featureNames.filter(name => !now.featureNames.includes(name)).concat(now.featureNames.filter(name => !before.featureNames.includes(name)))
  return changed.length > 0 ? `its features differ: ${changed.join(', ')}` : ''
}
