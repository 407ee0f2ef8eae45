/** The device in this process: its queues are served on the threads of the queue workers. */
import { VIRTIO_FS_TAG_BYTES } from '../vhost-user/fs-config.js'
import { UsageError } from '../errors.js'
import type { DeviceInfo, DeviceMemory, Transport } from './transport.js'
import type { WorkerBackend } from './worker-protocol.js'

/** How a worker makes the handlers: a module that exports `createHandlers(data)`. */
export interface HandlersSource {
  /** URL of the module. */
  module: string
  /** Cloned to each worker. */
  data: unknown
  /** After every worker has ended. */
  close(): void
}

export class EmulatedTransport implements Transport {
  readonly info: DeviceInfo
  readonly #handlers: HandlersSource

  /** @throws UsageError for a tag that does not fit the configuration space */
  constructor(tag: string, requestQueues: number, handlers: HandlersSource) {
    const bytes = Buffer.byteLength(tag)
    if (bytes === 0) throw new UsageError('the tag is empty')
    if (bytes > VIRTIO_FS_TAG_BYTES) throw new UsageError(`tag "${tag}" has ${bytes} bytes, at most ${VIRTIO_FS_TAG_BYTES} are possible`)
    this.#handlers = handlers
    const names = ['VERSION_1', 'RING_INDIRECT_DESC', 'RING_EVENT_IDX']
    this.info = {
      tag, requestQueues, features: { indirectDesc: true, eventIdx: true },
      featureNames: names, offeredFeatureNames: names, protocolFeatureNames: [], offeredProtocolFeatureNames: [],
    }
  }

  async start({ plan }: DeviceMemory): Promise<WorkerBackend[]> {
    return plan.workers.map(() => ({ kind: 'emulated', module: this.#handlers.module, data: this.#handlers.data }))
  }

  async stop(): Promise<void> {}

  async close(): Promise<void> {
    this.#handlers.close()
  }
}
