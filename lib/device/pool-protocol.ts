/** What a thread of the pool starts with. */
import type { RingFeatures } from '../virtio/driver-ring.js'
import type { RingLayout } from '../virtio/split-ring.js'

export interface PoolSetup {
  module: string
  data: unknown
  /** See `DeviceHost`. */
  windowFd: number
  memoryAddress: number
  memoryBytes: number
  /** The queues whose chains are executed. */
  layouts: RingLayout[]
  features: RingFeatures
  jobs: SharedArrayBuffer
  /** By queue, as are the next. */
  done: SharedArrayBuffer[]
  /** Wakes the worker that owns the queue. */
  wakeFds: number[]
  interrupts: SharedArrayBuffer
  /** 1 while that worker may be asleep. */
  sleepFlags: SharedArrayBuffer
  /** Words: see below. */
  state: SharedArrayBuffer
}

/** Not 0: the pool is to end. */
export const POOL_ENDS = 0
/** Threads that wait for a job. */
export const POOL_IDLE = 1
/** Threads that take jobs at all. */
export const POOL_READY = 2
export const POOL_STATE_BYTES = 12
