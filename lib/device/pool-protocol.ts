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

/** In the place of a queue, among the jobs: what requests have left is to be done, and nobody answered. */
export const FINISH = -1

/** Not 0: the pool is to end. */
export const POOL_ENDS = 0
/** Of a single thread with an event loop: 1 while it may wait for a wake-up. */
export const POOL_IDLE = 1
/** Threads that take jobs at all. */
export const POOL_READY = 2
/** Chains that were handed over and are not executed yet. */
export const POOL_JOBS = 3
/** Threads that were started. */
export const POOL_THREADS = 4
/** More slow requests than this at a time wait for one another. */
export const POOL_MOST_THREADS = 8
export const POOL_STATE_BYTES = 20
