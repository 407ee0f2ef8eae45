/** The device in this process: its queues are served on the threads of the queue workers, notifications come from a thread of their own. */
import { VIRTIO_FS_TAG_BYTES } from '../vhost-user/fs-config.js'
import { UsageError } from '../errors.js'
import { allocateInterrupts } from '../device/interrupts.js'
import { Loop } from '../device/loop.js'
import { POOL_STATE_BYTES, type PoolSetup } from '../device/pool-protocol.js'
import { Notifications, type NotificationSource } from '../device/notifications.js'
import { Pool } from '../device/pool.js'
import { allocateSharedQueue } from '../device/shared-queue.js'
import { ThreadsStuckError } from '../device/threads-stuck.js'
import type { RingFeatures } from '../virtio/driver-ring.js'
import type { NotificationFds } from './notifier-protocol.js'
import type { DeviceInfo, DeviceMemory, Transport } from './transport.js'
import type { WorkerBackend } from './worker-protocol.js'

/** How a worker makes the handlers: a module that exports `createHandlers(data)`. */
export interface HandlersSource {
  /** URL of the module. */
  module: string
  /** Cloned to each worker. */
  data: unknown
  notices?: readonly string[]
  /** FUSE_INTERRUPTs, when the handlers look at them too. */
  interrupts?: SharedArrayBuffer | undefined
  /**
   * Where requests are executed. `pool`, the default: on the queues' threads, and what can take long
   * on a pool's. `queues`: on the queues' threads alone. `loop`: one instance, of LoopHandlers, on a
   * thread of its own with an event loop.
   */
  threads?: 'pool' | 'queues' | 'loop'
  /** What tells of changes, when the device offers VIRTIO_FS_F_NOTIFICATION. */
  notifications?: NotificationSource | undefined
  /** It is mounted, on this FUSE connection. */
  mountedAs?: ((connection: number) => void) | undefined
  /** After every worker has ended. */
  close(): void
}

/** Handlers of a queue's thread that leave everything to others. */
const ELSEWHERE = new URL('../device/elsewhere.js', import.meta.url).href

function powerOfTwo(least: number): number {
  return 2 ** Math.ceil(Math.log2(least))
}

export class EmulatedTransport implements Transport {
  readonly info: DeviceInfo
  readonly notices: readonly string[]
  readonly #handlers: HandlersSource
  onFailure: ((reason: string) => void) | undefined
  #pool: Pool | undefined
  #loop: Loop | undefined
  #notifications: Notifications | undefined
  /** Resolves when threads that hang in a system call, and may use what the handlers have, have ended. */
  #inUse: Promise<unknown> | undefined

  /**
   * @param features that the device offers: both, but in tests
   * @throws UsageError for a tag that does not fit the configuration space
   */
  constructor(tag: string, requestQueues: number, handlers: HandlersSource, features: RingFeatures = { indirectDesc: true, eventIdx: true }) {
    const bytes = Buffer.byteLength(tag)
    if (bytes === 0) throw new UsageError('the tag is empty')
    if (bytes > VIRTIO_FS_TAG_BYTES) throw new UsageError(`tag "${tag}" has ${bytes} bytes, at most ${VIRTIO_FS_TAG_BYTES} are possible`)
    this.#handlers = handlers
    this.notices = handlers.notices ?? []
    const { notifications } = handlers
    const names = [
      'VERSION_1', ...features.indirectDesc ? ['RING_INDIRECT_DESC'] : [], ...features.eventIdx ? ['RING_EVENT_IDX'] : [],
      ...notifications ? ['FS_NOTIFICATION'] : [],
    ]
    this.info = {
      tag, ownTag: false, requestQueues, features,
      featureNames: names, offeredFeatureNames: names, protocolFeatureNames: [], offeredProtocolFeatureNames: [],
      ...notifications && { notifyBufBytes: notifications.bufferBytes },
    }
  }

  get notificationFds(): NotificationFds | undefined {
    return this.#notifications
  }

  async start({ address, plan, wakeFds, sleepFlags, windowFd }: DeviceMemory): Promise<WorkerBackend[]> {
    const { module, data, threads = 'pool' } = this.#handlers
    const elsewhere = threads === 'loop'
    // FORGETs go to the event loop too; worker 0 owns their queue
    const layouts = [...plan.workers.map(worker => worker.ring), ...elsewhere ? [plan.hiprio] : []]
    // a cell for every chain that can be in flight, so that neither queue can be full, and one for what was left
    const jobs = allocateSharedQueue(powerOfTwo(layouts.reduce((sum, ring) => sum + ring.size, 1)))
    const done = layouts.map(ring => allocateSharedQueue(powerOfTwo(ring.size)))
    const interrupts = this.#handlers.interrupts ?? allocateInterrupts()
    const state = new SharedArrayBuffer(POOL_STATE_BYTES)
    const setup: PoolSetup = {
      module, data, windowFd, memoryAddress: address, memoryBytes: plan.lengthBytes, layouts, features: this.info.features,
      jobs, done, interrupts, wakeFds: elsewhere ? [...wakeFds, wakeFds[0]!] : wakeFds, sleepFlags, state,
    }
    if (threads === 'pool') this.#pool = new Pool(setup, reason => this.onFailure?.(reason))
    if (plan.notification) {
      this.#notifications = new Notifications(this.#handlers.notifications!, address, plan.lengthBytes, plan.notification.ring, this.info.features, reason => this.onFailure?.(reason))
      await this.#notifications.ready()
    }
    if (elsewhere) return await this.#startLoop(setup)
    return done.map(queue => ({ kind: 'emulated', module, data, windowFd, pool: { jobs, done: queue, state }, interrupts }))
  }

  async #startLoop(setup: PoolSetup): Promise<WorkerBackend[]> {
    const loop = this.#loop = new Loop(setup)
    void loop.failed.then(reason => this.onFailure?.(reason))
    await loop.ready()
    const { jobs, state, windowFd } = setup
    const pools = setup.done.map(done => ({ jobs, done, state, wakeFd: loop.wakeFd }))
    const hiprioPool = pools.pop()!
    return pools.map(pool => ({ kind: 'emulated', module: ELSEWHERE, data: undefined, windowFd, pool, hiprioPool, interrupts: undefined }))
  }

  mountedAs(connection: number): void {
    this.#handlers.mountedAs?.(connection)
  }

  poolWanted(): void {
    this.#pool?.wanted()
  }

  async poolReady(): Promise<void> {
    await this.#pool?.ready()
  }

  async stop(): Promise<void> {
    const notifications = this.#notifications
    this.#notifications = undefined
    try {
      await notifications?.stop()
      await this.#pool?.close()
      this.#pool = undefined
      await this.#loop?.close()
      this.#loop = undefined
    } catch (error) {
      if (error instanceof ThreadsStuckError) this.#inUse = error.ended
      throw error
    }
  }

  async close(): Promise<void> {
    // after a start that failed
    await this.#notifications?.stop()
    await this.#loop?.close()
    if (this.#inUse) void this.#inUse.then(() => this.#handlers.close())
    else this.#handlers.close()
  }
}
