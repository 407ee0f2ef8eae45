/**
 * A virtio-fs device instance and its life: probe, mount, kill_sb, remove. Port of struct
 * virtio_fs and of virtio_fs_probe, virtio_fs_setup_vqs, virtio_fs_fill_super, virtio_kill_sb and
 * virtio_fs_remove (fs/fuse/virtio_fs.c).
 *
 * The main thread owns it and does control only; requests are the workers' business. Every wait
 * has a deadline, so that a dead device never hangs an unmount.
 */
import { EventEmitter, once } from 'node:events'
import createDebug from 'debug'
import { StuckThreads } from '../device/threads-stuck.js'
import { errno, errorLine, PeerGoneError } from '../errors.js'
import { explainInitRefusal, type InitAnswer, type InitPolicy } from '../fuse/init.js'
import { openCpuLatency } from '../sys/cpu-latency.js'
import { close } from '../sys/io.js'
import { cloneFuse } from '../sys/mount.js'
import { BackendReplacement, type Replaceable } from './backend-replacement.js'
import { allocateCounters } from './counters.js'
import { within } from './deadline.js'
import { Disposer } from './disposer.js'
import { planMemory, MAX_WRITE, type MemoryPlan } from './memory-plan.js'
import { NotifierHandle } from './notifier-handle.js'
import type { Observation, Observed } from './observation.js'
import { QueueWorkers } from './queue-workers.js'
import { initDifference, Reconnection, type Reconnecting } from './reconnection.js'
import { TraceFile } from './request-trace.js'
import { SessionMemory } from './session-memory.js'
import { TagRegistry } from './tag-registry.js'
import type { DeviceMemory, Reach, ReplacementTarget, Transport } from './transport.js'
import type { FuseConnection, VirtioFsOptions } from './virtio-fs-options.js'
import { WorkerHandle } from './worker-handle.js'
import type { WorkerEvent } from './worker-protocol.js'

const debug = createDebug('virtiofs:driver')

/** Devices of this process (virtio_fs_instances). */
export const instances = new TagRegistry<VirtioFs>()

const LARGE_BUFFERS = 32

/** Requests a worker may hold while every request ring is full: as many callers can still be interrupted. */
const PARKED = 64
/** The same where callers wait for a device that is away. */
const PARKED_AWAY = 1024

const FAIL = { type: 'fail', error: -errno.EIO } as const

interface Events {
  /** INIT was answered; '' or why the device refused it. */
  init: [refusal: string]
  /** The last user is gone: read() on /dev/fuse says ENODEV. */
  unmounted: []
  /** The device is gone while mounted. */
  gone: [reason: string]
  /** It is away, and waited for. */
  lost: [reason: string]
  /** It is back. */
  found: []
  /** A queue worker failed: nobody answers the requests that it held, so the connection must be aborted. */
  crashed: []
  /** What is watched has come. */
  observed: [observed: Observed]
  /** Everything is freed, but for what threads that hang may use. */
  ended: []
}

type Greeted = Extract<WorkerEvent, { type: 'greeted' }>

export class VirtioFs extends EventEmitter<Events> {
  /** To the device of the present session. */
  transport: Transport
  readonly counters: SharedArrayBuffer
  readonly queues: number
  /** The device's answer to INIT, once it came. */
  init: InitAnswer | undefined
  gone = ''
  /** Where threads hang in a system call at the end: resolves when they have ended after all. */
  #stuck: Promise<void> | undefined

  readonly #options: VirtioFsOptions
  readonly #plan: MemoryPlan
  readonly #largeBuffers: number
  readonly #resources = new Disposer()
  /** By worker. */
  readonly #cpuLatencyFds: number[] = []
  readonly #trace: TraceFile | undefined
  readonly #workers: QueueWorkers
  #notifier: NotifierHandle | undefined
  #memory: SessionMemory | undefined
  readonly #reconnection: Reconnection | undefined
  #started = false
  #unmounted = false
  /** The device has answered DESTROY. */
  #destroyed = false
  readonly #replacement: BackendReplacement

  private constructor(transport: Transport, options: VirtioFsOptions, workers: QueueWorkers) {
    super()
    this.transport = transport
    this.#workers = workers
    this.#options = options
    this.#largeBuffers = options.largeBuffers ?? LARGE_BUFFERS
    this.queues = Math.min(transport.info.requestQueues, options.queues)
    this.#plan = planMemory({
      queues: this.queues, queueSize: options.queueSize, indirectDesc: transport.info.features.indirectDesc, largeBuffers: this.#largeBuffers, parked: options.reach || options.survival ? PARKED_AWAY : PARKED,
      notifyBufBytes: transport.info.notifyBufBytes ?? 0,
    })
    this.counters = allocateCounters(this.queues)
    this.#trace = options.traceJson === undefined ? undefined : new TraceFile(options.traceJson)
    this.#replacement = new BackendReplacement(this.#replaceable(this))
    if (options.reach) this.#reconnection = new Reconnection(this.#reconnecting(options.reach, this))
  }

  /**
   * Brings a probed device online: memory, rings, tag (virtio_fs_probe).
   *
   * @param transport probed; owned by the instance from now on, also when this throws
   * @param worker the first queue's, started early; likewise
   * @param newWorker starts the others
   * @throws TagInUseError; SyscallError; ProtocolError; PeerGoneError
   */
  static async create(
    transport: Transport, options: VirtioFsOptions, worker: WorkerHandle, newWorker = (index: number) => new WorkerHandle(index),
  ): Promise<VirtioFs> {
    let fs: VirtioFs
    try {
      fs = new VirtioFs(transport, options, new QueueWorkers(worker, newWorker))
    } catch (error) {
      await transport.close()
      await worker.end().catch(() => {})
      throw error
    }
    fs.#resources.push('trace', () => fs.#trace?.close())
    fs.#resources.push('transport', () => fs.transport.close())
    try {
      await fs.#probe()
    } catch (error) {
      await fs.#free()
      throw error
    }
    return fs
  }

  /** Changes what is watched; `observed` tells of it. */
  observe(observation: Observation): void {
    this.#workers.observe(observation)
  }

  get queueSize(): number {
    return this.#options.queueSize
  }

  /** Whether the last user is gone: the kernel may have given the number of the connection to somebody else. */
  get unmounted(): boolean {
    return this.#unmounted
  }

  get tag(): string {
    return this.transport.info.tag
  }

  event(name: string, detail: object = {}): void {
    debug('%s %o', name, detail)
    this.#trace?.write({ event: name, ...detail })
    this.#trace?.flush()
  }

  async #probe(): Promise<void> {
    const { info } = this.transport
    while (this.#options.lowLatency && this.#cpuLatencyFds.length < this.queues) {
      const fd = openCpuLatency()
      this.#cpuLatencyFds.push(fd)
      this.#resources.push('CPU latency', () => { close(fd) })
    }
    this.event('probe', { tag: info.tag, request_queues: info.requestQueues })
    this.event('negotiation', { features: info.featureNames, protocol_features: info.protocolFeatureNames })
    instances.add(this.tag, this)
    this.#resources.push('tag', () => instances.remove(this.tag, this))
    const { lengthBytes } = this.#plan
    this.#memory = new SessionMemory(lengthBytes)
    this.#resources.push('memory', () => this.#memory!.free())
  }

  /**
   * Starts the queues on a mounted FUSE connection and waits for INIT (virtio_fs_fill_super).
   *
   * @param kernel descriptors, one per queue, clones of one connection; they stay the caller's
   * @param init how INIT is adapted to the mount
   * @throws Error when the device refuses INIT, is gone, or does not answer in time
   */
  async start({ fuseFds, connection, mountpoint }: FuseConnection, init: Omit<InitPolicy, 'maxWrite' | 'maxBackground'>): Promise<InitAnswer> {
    const { survival } = this.#options
    this.#workers.start(fuseFds.length)
    this.transport.onFailure = reason => this.#failed(reason)
    // a device whose node ids are not the kernel's can tell it nothing
    const windowFd = survival ? -1 : fuseFds[0]!
    const backends = await this.transport.start(this.#deviceMemory(this.#memory!, windowFd))
    this.#started = true
    const { notification } = this.#plan
    this.event('queues', { hiprio: 1, ...notification && { notification: 1 }, request: this.queues, size: this.#options.queueSize })
    if (notification) this.#startNotifier(fuseFds[0]!)
    // only worker 0 until INIT is answered: nothing else can come before that
    const answered: Promise<Greeted | undefined | void> = survival?.init ? this.#greeted() : this.#initAnswer()
    answered.catch(() => {})
    for (const [index, handle] of this.#workers.all.entries()) {
      handle.on('event', event => this.#workerEvent(event))
      await this.#workers.serve(index, {
        connection, mountpoint, fuseFd: fuseFds[index]!, memoryAddress: this.#memory!.address, plan: this.#plan,
        features: this.transport.info.features, backend: backends[index] ?? { kind: 'away' },
        init: { ...init, waits: this.#reconnection !== undefined || survival !== undefined, maxWrite: MAX_WRITE, maxBackground: Math.max(2, Math.min(this.#largeBuffers - 4, this.#options.queueSize / 2)) },
        pollUs: this.#options.pollUs, cpuLatencyFd: this.#cpuLatencyFds[index] ?? -1, outlivesDevice: this.#reconnection !== undefined, stateFd: survival?.stateFd ?? -1, requestLimitMs: this.#options.requestLimitMs ?? 0,
        counters: this.counters, traceJson: this.#options.traceJson,
      })
      // those that served by then have been told
      if (this.gone !== '') handle.send(FAIL)
      if (this.gone !== '') break
    }
    if (survival?.init) return await this.#goOnWith(survival.init, answered as Promise<Greeted | undefined>)
    if (this.gone !== '' && this.init === undefined) throw new PeerGoneError(`${this.gone} before it answered FUSE_INIT`)
    // from here on: a machine that is slow to start our threads is not a device that does not answer
    await within(this, this.#options.initTimeoutMs ?? this.#options.timeoutMs, 'FUSE_INIT', answered)
    if (this.gone !== '') throw new PeerGoneError(this.gone)
    await this.#notifier?.ready()
    // one thread of the device's pool, in the background; more when there is work for them
    this.transport.poolWanted?.()
    return this.init!
  }

  /** The kernel has its answer to INIT from the process before: the device that is here is greeted, one that is away waited for. */
  async #goOnWith(init: InitAnswer, greeted: Promise<Greeted | undefined>): Promise<InitAnswer> {
    this.init = init
    const [worker] = this.#workers.all
    if (this.#reconnection) {
      this.#reconnection.told({ type: 'lost', reason: 'the process that served the mount has ended' })
      return init
    }
    worker!.send({ type: 'greet' })
    const event = await within(this, this.#options.timeoutMs, 'FUSE_INIT', greeted)
    if (event === undefined) return init
    const wrong = event.answer ? initDifference(init, event.answer) : `with an error (${event.error})`
    if (wrong !== '') throw new PeerGoneError(`the device answers FUSE_INIT otherwise than before: ${wrong}`)
    this.event('found', {})
    worker!.send({ type: 'go-on' })
    this.transport.poolWanted?.()
    return init
  }

  /** The device has answered; undefined when it is unmounted instead. */
  #greeted(): Promise<Greeted | undefined> {
    return new Promise(resolve => {
      this.#workers.all[0]!.on('event', event => { if (event.type === 'greeted') resolve(event) })
      this.once('unmounted', () => resolve(undefined))
    })
  }

  #startNotifier(mounted: number): void {
    const fuseFd = cloneFuse(mounted)
    this.#resources.push('notifier', () => { close(fuseFd) })
    this.#notifier = new NotifierHandle({
      ...this.transport.notificationFds!, fuseFd, memoryAddress: this.#memory!.address, plan: this.#plan, features: this.transport.info.features,
    }, reason => this.remove(reason))
  }

  /** Whichever worker read it: resolves when it was accepted. */
  #initAnswer(): Promise<void> {
    return new Promise<void>((resolve, reject) => {
      this.once('init', refusal => {
        if (refusal === '') resolve()
        else reject(new PeerGoneError(refusal, 'ECONNREFUSED'))
      })
      // an INIT that was read is waited for all the same, when kill_sb drains
      this.once('unmounted', () => reject(new PeerGoneError('it was unmounted before the device answered FUSE_INIT')))
    })
  }

  #workerEvent(event: WorkerEvent): void {
    if (event.type === 'init') {
      this.event('init', { error: event.error, ...event.answer })
      this.init = event.answer
      this.emit('init', event.answer ? '' : explainInitRefusal(event.error, event.offered))
    } else if (event.type === 'unmounted' && !this.#unmounted) {
      this.#unmounted = true
      this.event('unmounted')
      this.emit('unmounted')
    } else if (event.type === 'lost' || event.type === 'greeted') {
      this.#reconnection?.told(event)
    } else if (event.type === 'broke') {
      void this.#broke(event.reason, this.transport)
    } else if (event.type === 'gone') {
      this.remove(event.reason, event.failed)
    } else if (event.type === 'interrupted') {
      const { uniqueLow, uniqueHigh } = event
      this.#workers.send({ type: 'interrupt', uniqueLow, uniqueHigh })
    } else if (event.type === 'observed') {
      this.emit('observed', event.observed)
    } else if (event.type === 'pool-wanted') {
      this.transport.poolWanted?.()
    } else if (event.type === 'crashed' && this.#options.survival) {
      this.#options.survival.failed(event.reason)
    } else if (event.type === 'crashed') {
      this.remove(event.reason)
      this.emit('crashed')
      this.#workerEvent({ type: 'unmounted' })
    }
  }

  #deviceMemory({ memfd, address }: SessionMemory, windowFd = -1): DeviceMemory {
    return { memfd, address, plan: this.#plan, ...this.#workers.wakeUp, windowFd, workers: true }
  }

  #replaceable(fs: VirtioFs): Replaceable {
    return {
      get transport() { return fs.transport },
      get serving() { return fs.#workers.serving },
      checkPresent: () => this.#checkPresent(),
      within: (what, promise) => this.#within(what, promise),
      event: (name, detail) => this.event(name, detail),
    }
  }

  #reconnecting(reach: Reach, fs: VirtioFs): Reconnecting {
    return {
      reach: signal => reach(this.#replacement.target, signal), queues: this.queues, timeoutMs: this.#options.timeoutMs,
      get worker() { return fs.#workers.all[0]! },
      get transport() { return fs.transport },
      get init() { return fs.init! },
      newMemory: () => new SessionMemory(this.#plan.lengthBytes),
      startRings: (transport, memory) => transport.start(this.#deviceMemory(memory)),
      take: (transport, memory) => {
        transport.info.tag = this.tag
        this.#memory!.free()
        this.#memory = memory
        this.transport = transport
        transport.onFailure = reason => this.#failed(reason)
      },
      event: (name, detail) => {
        this.event(name, detail)
        if (name === 'lost') this.emit('lost', detail.reason ?? '')
        else this.emit('found')
      },
      remove: reason => this.remove(reason),
    }
  }

  async #broke(reason: string, transport: Transport): Promise<void> {
    const explained = await transport.explain?.(reason) ?? reason
    // after DESTROY a far end goes by itself
    if (transport === this.transport && !this.#destroyed) this.#failed(explained)
  }

  /** Our own side of the device has failed. */
  #failed(reason: string): void {
    if (this.#reconnection && this.init && !this.#unmounted) this.#workers.all[0]?.send({ type: 'lose', reason })
    else this.remove(reason)
  }

  /** Whether the device is away, and waited for. */
  get away(): boolean {
    return this.#reconnection?.active ?? false
  }

  /** Goes on as if it were unmounted, for a mount that cannot be: what is left of it answers ENOTCONN. */
  abandon(): void {
    this.#workerEvent({ type: 'unmounted' })
  }

  /**
   * The device is gone (virtio_fs_remove): unlists the tag, stops the queues, fails what is in
   * flight. Callers get EIO, later ones ENOTCONN; the mount stays until it is unmounted.
   */
  remove(reason: string, alreadyFailed = 0): void {
    if (!this.#giveUp(reason, alreadyFailed)) return
    void this.#notifier?.stop()
    this.emit('gone', reason)
  }

  /** @returns false when that was done before */
  #giveUp(reason: string, alreadyFailed = 0): boolean {
    if (this.gone !== '') return false
    this.gone = reason
    void this.#reconnection?.end()
    instances.remove(this.tag, this)
    this.event('remove', { reason, failed: alreadyFailed })
    this.#workers.send(FAIL)
    return true
  }

  /**
   * Goes on with another backend, which gets the state of the device from the one there is: node
   * ids and open files stay, and there is no new INIT. Requests wait meanwhile.
   *
   * @returns how long they had to, in milliseconds
   * @throws what makes it fail: the old backend goes on then, unless it is gone
   */
  async replaceBackend(target: ReplacementTarget): Promise<number> {
    return await this.#replacement.run(target)
  }

  #checkPresent(): void {
    if (this.gone !== '') throw new PeerGoneError(this.gone)
    if (this.away) throw new PeerGoneError('the device is away, and waited for')
    if (this.#unmounted) throw new PeerGoneError('it was unmounted')
  }

  /**
   * Ends the session of an unmounted file system in the order of virtio_kill_sb, then frees the
   * device. Safe in every state; never throws.
   */
  async killSb(): Promise<void> {
    await this.#replacement.pending
    if (this.away) {
      this.#giveUp('it was unmounted while the device was away')
      await this.#reconnection!.end()
    }
    if (this.#started) {
      try {
        await this.#killSb()
      } catch (error) {
        // the rest of the order makes no sense with a device that does not answer
        this.event('kill_sb.failed', { error: errorLine(error) })
        this.remove(errorLine(error))
      }
    }
    await this.#free()
  }

  async #killSb(): Promise<void> {
    const [first] = this.#workers.serving
    if (this.#notifier) this.event('kill_sb.stop_notifications', { ...await this.#within('a notification', this.#notifier.stop()) })
    if (!first) return
    first.send({ type: 'stop-hiprio' })
    this.event('kill_sb.stop_hiprio')
    await this.#drain()
    this.event('kill_sb.drained')
    if (this.init !== undefined && this.gone === '') {
      await this.#within('FUSE_DESTROY', first.request({ type: 'send-destroy' }, 'destroyed'))
      this.#destroyed = true
      this.event('kill_sb.destroy')
    }
    this.#workers.send({ type: 'stop' })
    this.event('kill_sb.stop_queues')
    await this.#drain()
    this.event('kill_sb.drained_again')
  }

  async #drain(): Promise<void> {
    await this.#within('what is in flight', this.#workers.drained())
  }

  #within<T>(what: string, promise: Promise<T>): Promise<T> {
    return within(this, this.#options.timeoutMs, what, promise)
  }

  /**
   * Stops the rings, ends the threads, frees memory and descriptors: set-up in reverse. What a thread
   * that hangs in a system call may use is freed when it has ended after all.
   */
  async #free(): Promise<void> {
    const stuck = new StuckThreads()
    if (this.#started) {
      try {
        await this.transport.stop(this.gone !== '')
        if (this.gone === '') this.event('kill_sb.stop_rings')
      } catch (error) {
        this.event('kill_sb.stop_rings', { error: errorLine(error) })
        stuck.note(error)
      }
    }
    this.#started = false
    const failed = (error: unknown): void => {
      this.event('kill_sb.stop_threads', { error: errorLine(error) })
      stuck.note(error)
    }
    await Promise.all([this.#workers.end(failed), this.#notifier?.end().catch(failed)])
    this.#stuck = stuck.ended?.then(() => this.#dispose())
    if (!this.#stuck) await this.#dispose()
    this.emit('ended')
  }

  async #dispose(): Promise<void> {
    this.event('freed')
    await this.#resources.dispose()
  }

  /**
   * The kernel has ended the connection, of which a thread is to tell. When none does in time, as when
   * each hangs in a system call, the end begins without it.
   */
  expectUnmounted(): void {
    if (this.#unmounted) return
    const timer = setTimeout(() => this.abandon(), this.#options.timeoutMs)
    this.once('unmounted', () => clearTimeout(timer))
  }

  /** Whether threads hang in a system call at the end, and may still use what they were given. */
  get stuck(): boolean {
    return this.#stuck !== undefined
  }

  /** After the end: frees something that threads were given, now or when those that hang have ended after all. */
  afterThreads(free: () => void): void {
    if (this.#stuck) void this.#stuck.then(free)
    else free()
  }

  /** Resolves when the file system is unmounted. */
  async untilUnmounted(): Promise<void> {
    if (!this.#unmounted) await once(this, 'unmounted')
  }
}
