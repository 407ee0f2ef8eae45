/** A live mount whose requests the kernel sends: what can be asked of it, and the ways it ends. */
import type { FaultControl } from '../device/faults.js'
import { Counter, type CounterName, sumCounter } from '../driver/counters.js'
import type { ReplacementTarget } from '../driver/transport.js'
import type { VirtioFs } from '../driver/virtio-fs.js'
import { errno, UsageError } from '../errors.js'
import type { InitAnswer } from '../fuse/init.js'
import { unmountError, type HostMount } from './dev-fuse.js'
import { watchIdle } from './idle.js'
import { Mount, type UnmountOptions } from './live-mount.js'
import { type MountStats, readStats } from './mount-stats.js'
import type { MountStatus } from './mount-status.js'
import { readMounts } from './mountinfo.js'
import { type ObservedRequest, type RequestFilter, RequestObserver } from './request-observer.js'
import type { Supervision } from './supervision.js'

/** A mount whose requests come from /dev/fuse, of this process. */
export class KernelSideMount extends Mount {
  readonly notices: readonly string[]
  readonly source: string
  readonly mountpoint: string
  readonly closed: Promise<void>
  readonly #fs: VirtioFs
  readonly #kernel: HostMount
  readonly #backend: string
  readonly #supervision: Supervision | undefined
  readonly #sinceMs: number

  readonly #observer: RequestObserver
  readonly #faults: FaultControl | undefined
  /** Why the device went away last. */
  #away = ''

  /** @internal */
  constructor(source: string, fs: VirtioFs, kernel: HostMount, notices: readonly string[], backend = 'emulated', observer = new RequestObserver(fs), faults?: FaultControl, supervision?: Supervision) {
    super()
    this.source = source
    this.#backend = backend
    this.notices = notices
    this.mountpoint = kernel.mountpoint
    this.#fs = fs
    this.#kernel = kernel
    this.#observer = observer
    this.#faults = faults
    this.#supervision = supervision
    if (supervision?.inherited) this.#away = 'the process that served the mount has ended, and the backend is reached again'
    this.#sinceMs = supervision?.inherited?.sinceMs ?? Date.now()
    fs.on('gone', reason => this.emit('gone', reason))
    fs.on('lost', reason => {
      this.#away = reason
      this.emit('lost', reason)
    })
    fs.on('found', () => this.emit('found'))
    fs.on('crashed', () => kernel.abort())
    this.closed = this.#end()
  }

  /** @internal Unmounts it when it is idle, and not in use. */
  endWhenIdle(timeoutMs: number): void {
    const stop = watchIdle(timeoutMs, () => sumCounter(this.#fs.counters, Counter.REQUESTS), async () => {
      if (this.#kernel.mounted && await this.#kernel.unmount() === 0) this.emit('idle')
    })
    void this.closed.finally(stop)
  }

  get tag(): string {
    return this.#fs.tag
  }

  status(): MountStatus {
    const { info } = this.#fs.transport
    const { connection } = this.#kernel
    const sum = (counter: CounterName): number => sumCounter(this.#fs.counters, Counter[counter])
    return {
      mountpoints: this.#fs.unmounted ? [] : readMounts().filter(entry => entry.minor === connection && entry.type.startsWith('fuse')).map(entry => entry.mountpoint).reverse(),
      source: this.source, tag: this.tag, backend: this.#backend, connection, pid: process.pid,
      supervisor: this.#supervision?.pid ?? 0, restarts: this.#supervision?.inherited?.restarts ?? 0,
      since: new Date(this.#sinceMs).toISOString(), uptimeSeconds: Math.round((Date.now() - this.#sinceMs) / 1000),
      health: this.gone !== '' ? 'gone' : this.#fs.away ? 'waiting' : 'ok', reason: this.gone !== '' ? this.gone : this.#fs.away ? this.#away : '',
      requestQueues: this.#fs.queues, queueSize: this.#fs.queueSize,
      inFlight: sum('IN_FLIGHT'), requests: sum('REQUESTS'), errors: sum('ERRORS'), bytesRead: sum('BYTES_READ'), bytesWritten: sum('BYTES_WRITTEN'),
      features: info.featureNames, protocolFeatures: info.protocolFeatureNames,
      fuseVersion: `${this.init.major}.${this.init.minor}`, fuseFlags: this.init.flags, notices: [...this.notices],
    }
  }

  stats(latencies?: SharedArrayBuffer): MountStats {
    return readStats(this.#fs.counters, this.#fs.queues, latencies)
  }

  time(): { latencies: SharedArrayBuffer, stop: () => void } {
    return this.#observer.time()
  }

  watch(filter: RequestFilter, told: (request: ObservedRequest) => void): () => void {
    return this.#observer.watch(filter, told)
  }

  get faults(): FaultControl {
    if (!this.#faults) throw new UsageError(`${this.mountpoint} has no faults on demand: it was mounted without them, or is not an emulated device`)
    return this.#faults
  }

  get init(): InitAnswer {
    return this.#fs.init!
  }

  get gone(): string {
    return this.#fs.gone
  }

  async #end(): Promise<void> {
    await this.#fs.untilUnmounted()
    await this.#fs.killSb()
    // an aborted mount is still there, and would answer ENOTCONN for ever
    if (this.#kernel.mounted) await this.#kernel.unmount(true)
    if (this.#fs.stuck) this.emit('trouble', 'a thread of the device hangs in a system call on the shared directory')
    this.#fs.afterThreads(() => this.#kernel.close())
  }

  async unmount(options: UnmountOptions = {}): Promise<void> {
    if (this.#kernel.mounted) {
      if (options.abort) this.abort()
      let error = await this.#kernel.unmount()
      if (error === -errno.EBUSY && (options.lazy || options.abort)) error = await this.#kernel.unmount(true)
      if (error < 0) throw unmountError(this.mountpoint, error)
    }
    if (!this.#kernel.alive) this.#fs.expectUnmounted()
    await this.closed
  }

  async replaceBackend(target: ReplacementTarget = {}): Promise<number> {
    const pausedMs = await this.#fs.replaceBackend(target)
    this.#supervision?.replaced(target)
    return pausedMs
  }

  abort(): void {
    this.#kernel.abort()
    this.#fs.expectUnmounted()
  }

  async abandon(): Promise<void> {
    this.#fs.abandon()
    await this.closed
  }
}
