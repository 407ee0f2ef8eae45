/** A host mount of a virtio-fs device: set-up, and the ways it ends. */
import type { FaultControl } from '../device/faults.js'
import type { ServedDevice } from '../device/serve.js'
import { errno, UsageError } from '../errors.js'
import type { InitAnswer, InitPolicy } from '../fuse/init.js'
import { Counter, type CounterName, sumCounter } from '../driver/counters.js'
import type { ReplacementTarget, Transport } from '../driver/transport.js'
import type { VirtioFsOptions } from '../driver/virtio-fs-options.js'
import { AwayTransport } from '../driver/away-transport.js'
import { VirtioFs } from '../driver/virtio-fs.js'
import { WorkerHandle } from '../driver/worker-handle.js'
import { RelaySession } from '../relay/relay-session.js'
import { absoluteOptions, absoluteSource } from './absolute.js'
import { AuditLog } from './audit.js'
import { KernelMount, unmountError, type HostMount } from './dev-fuse.js'
import { Guard } from './guard.js'
import { type GivenMount, givenFd, givenNotices, takeGivenFd } from './given-fd.js'
import { watchIdle } from './idle.js'
import { Mount, type UnmountOptions } from './live-mount.js'
import type { MountStatus } from './mount-status.js'
import { type MountStats, readStats } from './mount-stats.js'
import { keepsCpusAwake } from './low-latency.js'
import { readMounts } from './mountinfo.js'
import { prepareMountpoint, refuseInsideSource } from './mountpoint.js'
import { letsOthersIn, pollMicroseconds, mountTimeoutMs, ringEntries, type MountOptions } from './options.js'
import { readAhead, setReadAhead, type ReadAhead } from './read-ahead.js'
import { claimDevice } from './claim.js'
import { probeDevice } from './device.js'
import { LiveTag } from './live-tags.js'
import { type ObservedRequest, type RequestFilter, RequestObserver } from './request-observer.js'
import { backendName, parseSource, type Source } from './source.js'
import { checkSupervise, type Inherited, type MountFacts, type Supervision, waitsForDevice } from './supervision.js'

export { Mount, type UnmountOptions } from './live-mount.js'

export interface MountRequest {
  /** A directory, `unix:PATH`, a socket, or a tag with `options.socket`. */
  source: string
  mountpoint: string
  options?: MountOptions
  /** Faults on demand in the emulated device, for tests of what uses the mount. */
  faults?: FaultControl
}

/** The same for a file system in TypeScript. */
export interface ServedMountRequest extends Omit<MountRequest, 'source'> {
  source: ServedDevice
}

/** Of a device behind a long line, which is full only with many large requests in flight. */
const REMOTE_LARGE_BUFFERS = 64

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
    closeAfter(this.#fs, this.#kernel)
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

/** Closes the descriptors of a mount once no thread uses them. */
function closeAfter(fs: VirtioFs, kernel: HostMount): void {
  if (fs.stuck) void fs.stuck.then(() => kernel.close())
  else kernel.close()
}

function checkRights(options: MountOptions, given: GivenMount | undefined): { allowOther: boolean, defaultPermissions: boolean } {
  if (given?.entry) {
    const { allowOther, defaultPermissions, entry } = given
    if (allowOther && !defaultPermissions && options.defaultPermissions !== false) {
      throw new UsageError(`${entry.mountpoint} was mounted with allow_other and without default_permissions: nobody would check permissions (no_default_permissions if that is meant)`)
    }
    return { allowOther, defaultPermissions }
  }
  return { allowOther: letsOthersIn(options), defaultPermissions: options.defaultPermissions ?? true }
}

function checkOnDisconnect({ kind }: Source, { onDisconnect, backend, queues }: MountOptions): void {
  if (onDisconnect !== 'wait') return
  if (kind !== 'socket' && kind !== 'remote' && backend === undefined) throw new UsageError('on_disconnect=wait needs a backend in another process: the emulated device goes only with the mount')
  if (queues !== undefined && queues > 1) throw new UsageError('on_disconnect=wait goes with one request queue')
}

/** Where a backend is to be found again. */
function lastSource(source: Source, tag: string, { socket }: ReplacementTarget): Source {
  return source.kind === 'socket' && socket !== undefined ? { ...source, path: socket, tag } : { ...source, tag }
}

/**
 * Mounts a virtio-fs device on the host. The mount is usable when this resolves, also by
 * synchronous calls of this process: requests are served by threads of their own.
 *
 * @throws UsageError, SyscallError, ProtocolError, PeerGoneError; nothing is left behind then
 *
 * @example
 * const mounted = await mount({ source: '/srv/shared', mountpoint: '/mnt/shared', options: { xattr: true } })
 * mounted.on('gone', reason => console.error(`the device is gone: ${reason}`))
 * await writeFile('/mnt/shared/hello.txt', 'hello')
 * await mounted.unmount()
 */
export async function mount(request: MountRequest | ServedMountRequest): Promise<Mount> {
  if (request.options?.supervise) throw new UsageError('option supervise is for the command: a program that is killed has no other to go on')
  return await mountUnder(request, undefined)
}

/** @param supervision of the process that goes on when this one is killed; with a mount to go on with itself, perhaps */
export async function mountUnder(request: MountRequest | ServedMountRequest, supervision: Supervision | undefined): Promise<Mount> {
  if (request.options?.via === 'fuse-native') return await (await import('../fuse-native/fuse-native-mount.js')).mountByFuseNative(request)
  const { source: from, mountpoint, faults } = request
  const asked = absoluteOptions(request.options ?? {})
  const source = typeof from === 'string' ? absoluteSource(from, asked) : from.name
  const options = typeof from === 'string' || from.tag === undefined ? asked : { tag: from.tag, ...asked }
  const named = parseSource(from, options)
  const parsed = named.kind === 'remote' && options.onDisconnect === 'wait' ? { ...named, session: new RelaySession() } : named
  const fd = givenFd(mountpoint)
  const given = fd === undefined ? undefined : takeGivenFd(fd)
  const inherited = supervision?.inherited
  const target = inherited ? { path: inherited.live.mountpoint, mode: 0 } : given ? { path: given.entry?.mountpoint ?? mountpoint, mode: 0 } : await prepareMountpoint(mountpoint)
  if (!inherited) refuseInsideSource(target.path, parsed, options)
  const rights = checkRights(options, given)
  const queueSize = ringEntries(options.queueSize)
  if (options.audit !== undefined && options.direct) throw new UsageError('options audit and direct exclude each other: with direct, nobody here sees what is read and written')
  if (options.autoUnmount && given) throw new UsageError('option auto_unmount does not go with a mount point /dev/fd/N: whoever mounted it unmounts it')
  checkOnDisconnect(parsed, options)
  if (supervision) checkSupervise(parsed, mountpoint, options)
  const waits = waitsForDevice(parsed, options)
  // as it is, also on a mount that somebody else has made
  const deviceOptions = { ...options, defaultPermissions: rights.defaultPermissions }
  const worker = new WorkerHandle(0)
  const claimed = inherited ? inheritDevice(parsed, deviceOptions, inherited, waits) : claimDevice(parsed, deviceOptions, faults)
  const { transport, live } = await claimed.catch(async error => {
    await worker.end().catch(() => {})
    throw error
  })
  let { replaced = {} } = inherited ?? {}
  const mounted = await mountDevice({
    source, backend: backendName(parsed, options), transport, live, worker, init: { defaultPermissions: rights.defaultPermissions, passthrough: options.direct ?? false },
    queues: options.queues ?? 1,
    queueSize,
    ...parsed.kind === 'remote' && { largeBuffers: REMOTE_LARGE_BUFFERS },
    readAhead: readAhead(options.readahead, parsed.kind === 'remote'),
    // what another host answers takes longer than any poll, and ssh needs the processor meanwhile
    pollUs: pollMicroseconds(options.poll ?? (parsed.kind === 'remote' ? 'off' : 'auto')),
    lowLatency: options.lowLatency ?? (parsed.kind !== 'remote' && keepsCpusAwake()),
    timeoutMs: mountTimeoutMs(options.mountTimeout),
    requestLimitMs: options.timeout === undefined ? undefined : options.timeout * 1000,
    reach: waits ? async ({ socket = replaced.socket, virtiofsd = replaced.virtiofsd }, signal) => await probeDevice(lastSource(parsed, live.tag, { socket }), { ...deviceOptions, ...virtiofsd !== undefined && { virtiofsd } }, undefined, signal) : undefined,
    traceJson: options.traceJson,
    waitForPool: faults !== undefined,
    idleTimeout: options.idleTimeout,
    audit: options.audit,
    faults,
    notices: given ? givenNotices(given) : [],
    ...supervision && {
      supervision, survival: { stateFd: supervision.stateFd, failed: reason => supervision.failed(reason), ...inherited && { init: inherited.init } },
      handOver: (facts, kernel) => supervision.handOver({ ...facts, live: live.described }, kernel.fuseFds[0]!, live.fd),
    },
    hostMount: async queues => inherited ? KernelMount.inherit(inherited.live.mountpoint, inherited.fuseFd, inherited.live.connection) : await KernelMount.mount({
      source: options.fsname ?? source, mountpoint: target.path, mode: target.mode, flags: options.mountFlags ?? 0, given, ...rights,
    }, queues),
  })
  if (options.autoUnmount) {
    const guard = Guard.ofConnection(mounted.status().connection)
    void mounted.closed.then(() => guard.dismiss())
  }
  return mounted
}

/** The device and the tag of a process before this one. A device that is to be waited for is reached later. */
async function inheritDevice(source: Source, options: MountOptions, { live, tagFd, device }: Inherited, waits: boolean): Promise<{ transport: Transport, live: LiveTag }> {
  return { transport: waits ? new AwayTransport(device) : await probeDevice({ ...source, tag: live.tag }, options), live: LiveTag.inherit(live, tagFd) }
}

/** A device that was reached and claimed, and where it is to be mounted. All of it is owned by the mount from now on. */
export interface DeviceMount extends VirtioFsOptions {
  source: string
  /** What the device is, for people. */
  backend?: string
  transport: Transport
  live: Pick<LiveTag, 'describe' | 'unmounted' | 'release'>
  /** The first queue's thread, and how to start the others. */
  worker: WorkerHandle
  newWorker?: (index: number) => WorkerHandle
  /** Mounts on the host. @param queues how many descriptors it needs */
  hostMount: (queues: number) => Promise<HostMount>
  init: Omit<InitPolicy, 'maxWrite' | 'maxBackground'>
  /** Not before the threads of the emulated device are there: a delay must not hold up the queue's own. */
  waitForPool?: boolean
  /** What is known already that cannot be done. */
  notices?: readonly string[]
  /** Seconds. */
  idleTimeout?: number | undefined
  /** File of the audit log. */
  audit?: string | undefined
  /** What the device does wrong on demand. */
  faults?: FaultControl | undefined
  /** None: as the kernel has it. */
  readAhead?: ReadAhead
  supervision?: Supervision
  /** Lets the supervisor have what the next process needs. */
  handOver?: (facts: Omit<MountFacts, 'live'>, kernel: HostMount) => Promise<void>
}

function startAudit(path: string, fs: VirtioFs, observer: RequestObserver, trouble: (message: string) => void): void {
  const log = new AuditLog(path, trouble)
  log.start(observer)
  fs.once('ended', () => log.close())
}

/**
 * Brings a device online and mounts it.
 *
 * @throws as `mount`; nothing is left behind then
 */
export async function mountDevice({ source, backend, transport, live, worker, newWorker, hostMount, init, waitForPool, notices: given = [], idleTimeout, audit, readAhead, faults, supervision, handOver, ...options }: DeviceMount): Promise<Mount> {
  const fs = await VirtioFs.create(transport, options, worker, newWorker).catch(error => {
    live.release()
    throw error
  })
  fs.once('gone', () => live.release())
  fs.once('unmounted', () => live.unmounted())
  fs.once('ended', () => live.release())
  const observer = new RequestObserver(fs)
  let mounted: KernelSideMount | undefined
  let kernel: HostMount
  try {
    if (audit !== undefined) startAudit(audit, fs, observer, message => mounted?.emit('trouble', message))
    kernel = await hostMount(fs.queues)
  } catch (error) {
    await fs.killSb()
    throw error
  }
  try {
    transport.mountedAs?.(kernel.connection)
    await fs.start(kernel, init)
    if (waitForPool) await fs.transport.poolReady?.()
    live.describe({ source, mountpoint: kernel.mountpoint, connection: kernel.connection, ...supervision && { supervisor: supervision.pid } })
    const notices = [...transport.notices ?? [], ...given]
    if (init.passthrough && !fs.init!.flags.includes('PASSTHROUGH')) notices.push('this kernel has no FUSE passthrough: option direct has no effect')
    const trouble = readAhead === undefined ? '' : setReadAhead(kernel.connection, readAhead)
    if (trouble !== '') notices.push(trouble)
    await handOver?.({ device: fs.transport.info, init: fs.init!, notices, sinceMs: Date.now() }, kernel)
    mounted = new KernelSideMount(source, fs, kernel, notices, backend, observer, faults, supervision)
    const listen = (): void => { fs.transport.onSaid = line => mounted!.emit('trouble', line) }
    listen()
    fs.on('found', listen)
    if (idleTimeout !== undefined) mounted.endWhenIdle(idleTimeout * 1000)
    return mounted
  } catch (error) {
    // it ends as a whole, and leaves the mount to another
    if (supervision?.inherited) throw error
    await kernel.unmount(true)
    await fs.killSb()
    closeAfter(fs, kernel)
    throw error
  }
}
