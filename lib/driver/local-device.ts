/**
 * A device that is farther away, whose near part runs on the queue worker's own thread: between the
 * rings and a stream. No thread has to be woken for a request, nor for its reply.
 */
import type { Region } from '../sys/memory.js'
import type { RingFeatures } from '../virtio/driver-ring.js'
import type { RingLayout } from '../virtio/split-ring.js'

export interface LocalDevice {
  /** To be listened to, and while it is `blocked` for room. They stay the transport's. */
  readonly inFd: number
  readonly outFd: number
  readonly blocked: boolean
  /** Why nothing can come any more, or ''. */
  readonly broken: string
  /** Whether the driver has made something available. */
  hasAvailable(): boolean
  /** One round: takes what the driver has, sends, receives. @returns how much there was */
  pass(): number
  close(): void
}

/** What the module of one exports. `data` is cloned from the main thread. */
export interface LocalDeviceModule {
  /** @param layouts hiprio, then the request queues */
  createLocalDevice(data: unknown, region: Region, layouts: readonly RingLayout[], features: RingFeatures): LocalDevice
}
