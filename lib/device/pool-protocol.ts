/** What a thread of the pool starts with. */
import type { RingFeatures } from '../virtio/driver-ring.js'
import type { RingLayout } from '../virtio/split-ring.js'

export interface PoolSetup {
  module: string
  data: unknown
  memoryAddress: number
  memoryBytes: number
  /** The request queues. */
  layouts: RingLayout[]
  features: RingFeatures
  jobs: SharedArrayBuffer
  /** By request queue, as are the next. */
  done: SharedArrayBuffer[]
  /** Wakes the worker that owns the queue. */
  wakeFds: number[]
  interrupts: SharedArrayBuffer
  /** 1 while that worker may be asleep. */
  sleepFlags: SharedArrayBuffer
  /** Word 0: the pool is to end. Word 1: threads that wait for a job. */
  state: SharedArrayBuffer
}

export const POOL_ENDS = 0
export const POOL_IDLE = 1
