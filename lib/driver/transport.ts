/**
 * What stands between the driver and a device: how it is found, how its rings are set up and
 * stopped. The data path does not pass here; it is in the rings themselves.
 */
import type { RingFeatures } from '../virtio/driver-ring.js'
import type { MemoryPlan } from './memory-plan.js'
import type { NotificationFds } from './notifier-protocol.js'
import type { WorkerBackend } from './worker-protocol.js'

/** What a probe of the device found. */
export interface DeviceInfo {
  tag: string
  /** The tag comes from the device and not from its user. */
  ownTag: boolean
  /** Request queues that the device offers, at least 1. */
  requestQueues: number
  features: RingFeatures
  /** notify_buf_size, when VIRTIO_FS_F_NOTIFICATION was negotiated. */
  notifyBufBytes?: number
  /** For people: names of the negotiated virtio features and protocol features. */
  featureNames: string[]
  protocolFeatureNames: string[]
  offeredFeatureNames: string[]
  offeredProtocolFeatureNames: string[]
}

/** The shared memory of a device. */
export interface DeviceMemory {
  memfd: number
  address: number
  plan: MemoryPlan
  /** By worker: an eventfd that wakes it, and a word that is 1 while that is needed. */
  wakeFds: number[]
  sleepFlags: SharedArrayBuffer
  /** /dev/fuse of the mount, for a device in this process, or −1. */
  windowFd: number
  /** Its queues are served by workers, on whose threads a device may run. */
  workers?: boolean
  /**
   * What the device writes to when it has given something back, on any ring, for a driver that waits
   * otherwise than in epoll. It stays the caller's. Default: an eventfd for each ring.
   */
  callFd?: number
}

/** A backend to go on with, instead of the one there is. */
export interface ReplacementTarget {
  /** Where another backend listens; default: where the first one did. */
  socket?: string | undefined
  /** The binary to start, for a backend of our own; default: the same again. */
  virtiofsd?: string | undefined
}

/** Another backend that was reached and fits. One of both is to be called, once. */
export interface Replacement {
  /**
   * Moves the device's state there, and the rings. Nothing may be in flight.
   * @throws when it cannot be done: the old backend goes on then, unless it is gone
   */
  move(): Promise<void>
  discard(): Promise<void>
}

export interface Transport {
  readonly info: DeviceInfo
  /** Reaches another backend. @throws UsageError when it does not fit; PeerGoneError, ProtocolError, SyscallError */
  prepareReplacement?(target: ReplacementTarget): Promise<Replacement>
  /** How far the clock is ahead of ours from which the device takes the times of files, in milliseconds. Default 0. */
  readonly clockAheadMs?: number
  /** What the device cannot do here, one line each. */
  readonly notices?: readonly string[]
  /** Of the backend that there is now; with `prepareReplacement`. */
  socketFd?(): number
  /** Hands memory and rings to the device and starts it. @returns one entry per worker */
  start(memory: DeviceMemory): Promise<WorkerBackend[]>
  /** Of the notification queue, once it is started. */
  readonly notificationFds?: NotificationFds | undefined
  /** Told when something on our side of the device has failed that it cannot do without. */
  onFailure?: ((reason: string) => void) | undefined
  /** Why a local device broke, with what is known beside what it says itself. */
  explain?(reason: string): Promise<string>
  /** Told of the FUSE connection on which it is mounted, before any request but INIT. */
  mountedAs?(connection: number): void
  /** Told of each line that a process behind the device says. */
  onSaid?: ((line: string) => void) | undefined
  /** A worker has handed a request to the device's pool. */
  poolWanted?(): void
  /** Resolves once the pool takes requests. */
  poolReady?(): Promise<void>
  /**
   * Stops the rings. The device must have nothing in flight.
   * @param gone the device does not answer any more: only what is on our side is stopped
   * @throws when threads of ours still use the memory, which must then stay
   */
  stop(gone: boolean): Promise<void>
  /** Frees everything, whatever state it is in. */
  close(): Promise<void>
}

/** The device that came back cannot take the place of the one that went: there is no way back. */
export class OtherDeviceError extends Error {}

/**
 * Reaches a device that went away: a new transport to it, probed and not started, which the caller
 * owns. Any way to a device in another process, or on another machine, can be had again like this.
 * Rejects while the device is not there; it is called again then.
 *
 * @param last the backend that took over last, if one did
 * @param signal nobody waits for it any more
 * @throws OtherDeviceError to give up
 */
export type Reach = (last: ReplacementTarget, signal: AbortSignal) => Promise<Transport>
