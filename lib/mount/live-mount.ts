/** What a live mount can do, whichever way its requests come. */
import { EventEmitter } from 'node:events'
import type { ReplacementTarget } from '../driver/transport.js'
import type { FaultControl } from '../device/faults.js'
import type { InitAnswer } from '../fuse/init.js'
import type { MountStats } from './mount-stats.js'
import type { MountStatus } from './mount-status.js'
import type { ObservedRequest, RequestFilter } from './request-observer.js'

export interface UnmountOptions {
  /** Detach now and end when the last user is gone, instead of failing with EBUSY. */
  lazy?: boolean
  /** Abort what is in use: its users get errors. */
  abort?: boolean
}

interface Events {
  /** The device is gone; the mount answers ENOTCONN until it is unmounted. */
  gone: [reason: string]
  /** The backend is away; with `onDisconnect: 'wait'` operations wait for it. */
  lost: [reason: string]
  /** It is back, and what waited goes on. */
  found: []
  /** `idleTimeout` has passed without a request, and it is being unmounted. */
  idle: []
  /** Something that was asked for cannot be done any more, such as the audit log; or a line of what carries a remote device. */
  trouble: [message: string]
}

/** A live mount. */
export abstract class Mount extends EventEmitter<Events> {
  abstract readonly source: string
  abstract readonly mountpoint: string
  /** What cannot be done here, one line each: without root, on such a kernel or file system. */
  abstract readonly notices: readonly string[]
  /** Resolves once the mount has ended, whoever unmounted it, and everything is freed. */
  abstract readonly closed: Promise<void>
  /** virtio-fs tag of the device. */
  abstract get tag(): string
  /**
   * What the device does wrong on demand.
   * @throws UsageError when it was mounted without `faults`
   */
  abstract get faults(): FaultControl
  /** The device's answer to FUSE_INIT. */
  abstract get init(): InitAnswer
  /** Why the device is gone, or ''. */
  abstract get gone(): string

  /** How it is at this moment. */
  abstract status(): MountStatus

  /**
   * Its counters at this moment.
   *
   * @param latencies of `time`
   *
   * @example
   * await withMount('/srv/shared', async (dir, mounted) => {
   *   await mkdir(`${dir}/a`)
   *   assert.equal(mounted.stats().opcodes['MKDIR'], 1)
   * })
   */
  abstract stats(latencies?: SharedArrayBuffer): MountStats

  /** Counts the latencies of requests until that is stopped: about 100 ns each. */
  abstract time(): { latencies: SharedArrayBuffer | undefined, stop: () => void }

  /**
   * Calls `told` for each request that ends, until it is stopped. While somebody watches, requests
   * take some microseconds longer.
   *
   * @returns stops it
   * @throws UsageError with `via: 'fuse-native'`
   *
   * @example
   * await withMount('/srv/shared', async (dir, mounted) => {
   *   const made: string[] = []
   *   const stop = mounted.watch({ path: '/a' }, ({ op, path }) => { made.push(`${op} ${path}`) })
   *   await mkdir(`${dir}/a`)
   *   await setTimeout(500)
   *   stop()
   *   assert.ok(made.includes('MKDIR /a'))
   * })
   */
  abstract watch(filter: RequestFilter, told: (request: ObservedRequest) => void): () => void

  /**
   * Unmounts and waits until everything is freed: drains, sends FUSE_DESTROY, stops the device.
   *
   * @throws SyscallError EBUSY while the mount is in use, unless `lazy` or `abort`
   */
  abstract unmount(options?: UnmountOptions): Promise<void>

  /**
   * Goes on with another backend, behind a socket or started here, without losing anything: open
   * files and node ids stay. The backends hand over by DEVICE_STATE (virtiofsd 1.11 and later).
   *
   * @returns how long requests had to wait, in milliseconds
   * @throws UsageError when there is no such backend or it does not fit; PeerGoneError, ProtocolError, SyscallError. The
   * old backend goes on then, unless it is gone
   */
  abstract replaceBackend(target?: ReplacementTarget): Promise<number>

  /** Aborts the connection, for a mount that was detached and whose users do not go. */
  abstract abort(): void

  /** Ends the session and leaves the mount behind, where there is no right to unmount it: it answers ENOTCONN. */
  abstract abandon(): Promise<void>

  async [Symbol.asyncDispose](): Promise<void> {
    await this.unmount({ lazy: true })
  }
}
