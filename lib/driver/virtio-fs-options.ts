/** What a virtio-fs device instance is given. */
import type { InitAnswer } from '../fuse/init.js'
import type { Reach } from './transport.js'

export interface VirtioFsOptions {
  /** Request queues to use; the device and this number cap each other. */
  queues: number
  /** Ring entries, a power of two from 4 to 1024. */
  queueSize: number
  /** Longest poll before sleeping, in microseconds; 0 never polls. */
  pollUs: number
  /** Whether no CPU may sleep while polling pays. */
  lowLatency?: boolean
  /** Deadline of each step of an unmount, in milliseconds. */
  timeoutMs: number
  /** Deadline of INIT, when whoever sends it may take longer; default: the same. */
  initTimeoutMs?: number
  /** Longest time that the device may have a request, in milliseconds, before it counts as gone. Default: no limit. */
  requestLimitMs?: number | undefined
  traceJson: string | undefined
  /** Large buffers per worker: how many requests with more than a page of payload it has in flight. Default 32. */
  largeBuffers?: number
  /** How to reach a device that goes away, which is waited for then. Without it what was in flight fails. One queue only. */
  reach?: Reach | undefined
  /** Of a mount with a supervisor. One queue only. */
  survival?: Survival | undefined
}

/** How a mount outlives the process that serves it. */
export interface Survival {
  /** The supervisor's memory, for what the next process needs. */
  readonly stateFd: number
  /** What the kernel was answered to INIT, when another process had the mount before. */
  readonly init?: InitAnswer
  /** This process cannot serve any more: another has to. */
  failed(reason: string): void
}

/** A mounted FUSE connection. */
export interface FuseConnection {
  fuseFds: readonly number[]
  connection: number
  mountpoint: string
}
