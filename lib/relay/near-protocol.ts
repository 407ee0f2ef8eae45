/** What the main thread and the thread of a relay's near end say to each other. */
import type { RingFeatures } from '../virtio/driver-ring.js'
import type { RingLayout } from '../virtio/split-ring.js'
import type { NearStream } from './near-device.js'

/** Word of `state`: not 0 when the thread is to end. */
export const NEAR_ENDS = 0

/** Descriptors stay the main thread's. */
export interface NearSetup extends NearStream {
  memoryAddress: number
  memoryBytes: number
  /** hiprio, then the request queues. */
  layouts: RingLayout[]
  features: RingFeatures
  /** To be written to when there is something new on a ring. */
  kickFd: number
  /** By ring: written to when something was given back. */
  callFds: number[]
  /** Wakes the thread, to end. */
  wakeFd: number
  state: SharedArrayBuffer
  /** Longest time to poll before sleeping, in microseconds. */
  pollUs: number
}

export type NearMessage =
  | { type: 'ready' }
  /** Nothing comes any more, and why. */
  | { type: 'gone', reason: string }
