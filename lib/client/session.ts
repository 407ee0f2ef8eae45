/**
 * A FUSE session with a device and no mount: rings, memory, INIT, and the end in the order of
 * virtio_kill_sb. The thread that opens it owns it and drives its rings; nothing here blocks it.
 */
import { EventEmitter } from 'node:events'
import createDebug from 'debug'
import { allocateCounters, workerCounters } from '../driver/counters.js'
import { within } from '../driver/deadline.js'
import { Disposer } from '../driver/disposer.js'
import { HiprioQueue } from '../driver/hiprio-queue.js'
import { MAX_WRITE, planMemory, type MemoryPlan } from '../driver/memory-plan.js'
import { SessionMemory } from '../driver/session-memory.js'
import { RequestTrace, TraceFile, traceWanted } from '../driver/request-trace.js'
import type { Transport } from '../driver/transport.js'
import type { WorkerBackend } from '../driver/worker-protocol.js'
import { StuckThreads } from '../device/threads-stuck.js'
import { QueueThread } from '../device/queue-thread.js'
import { errorLine, PeerGoneError } from '../errors.js'
import { FuseInHeader, FuseInitOut, FUSE_KERNEL_VERSION, type InitFlag } from '../fuse/abi.js'
import { buildInitRequest, decodeInitAnswer, explainInitRefusal, initFlagWords, type InitAnswer } from '../fuse/init.js'
import { Op } from '../fuse/opcodes.js'
import { close, createEventfd, signalEventfd } from '../sys/io.js'
import { viewRegion } from '../sys/memory.js'
import { CallWatch, HangupWatch } from './call-watch.js'
import type { ReplyPlace } from './engine-request.js'
import { RequestEngine, type Identity } from './request-engine.js'

const debug = createDebug('virtiofs:driver')

/**
 * What a client offers: what it does as the kernel does it, or what asks nothing of it. No locks, no
 * ioctl, no cache of written data, no DAX, and nothing that lives between kernel and /dev/fuse.
 */
const OFFERED: readonly InitFlag[] = [
  'ASYNC_READ', 'FILE_OPS', 'ATOMIC_O_TRUNC', 'EXPORT_SUPPORT', 'BIG_WRITES', 'AUTO_INVAL_DATA', 'DO_READDIRPLUS', 'READDIRPLUS_AUTO', 'ASYNC_DIO',
  'NO_OPEN_SUPPORT', 'PARALLEL_DIROPS', 'HANDLE_KILLPRIV', 'ABORT_ERROR', 'MAX_PAGES', 'CACHE_SYMLINKS', 'NO_OPENDIR_SUPPORT', 'HANDLE_KILLPRIV_V2',
]

/** Large buffers: how many requests with more than a page of payload are in flight at most. */
const LARGE_BUFFERS = 32
const PAGE = 4096
/** max_pages of devices that do not know it (FUSE_DEFAULT_MAX_PAGES_PER_REQ). */
const DEFAULT_MAX_PAGES = 32

export interface SessionOptions {
  /** Ring entries, a power of two from 4 to 1024. */
  queueSize: number
  /** Longest poll of the emulated device's thread, in microseconds. */
  pollUs: number
  /** Deadline of INIT and of each step of the end, in milliseconds. */
  timeoutMs: number
  maxOutstanding: number
  identity: Identity
  traceJson: string | undefined
  /** One block of counters; default: memory of its own. */
  counters: Float64Array | undefined
}

interface Events {
  /** The device is gone. */
  gone: [reason: string]
}

export class Session extends EventEmitter<Events> {
  readonly transport: Transport
  readonly counters: Float64Array
  /** Made while the session opens. */
  engine!: RequestEngine
  /** The device's answer to INIT. */
  init!: InitAnswer
  /** Why the device is gone, or ''. */
  gone = ''

  readonly #options: SessionOptions
  readonly #plan: MemoryPlan
  readonly #resources = new Disposer()
  readonly #trace: TraceFile | undefined
  #initialised = false
  #closing: Promise<void> | undefined
  #hangup: HangupWatch | undefined
  #thread: QueueThread | undefined
  #started = false
  /** From here on a backend may end: it has been told to. */
  #stopping = false

  private constructor(transport: Transport, options: SessionOptions) {
    super()
    this.transport = transport
    this.#options = options
    this.#plan = planMemory({ queues: 1, queueSize: options.queueSize, indirectDesc: transport.info.features.indirectDesc, largeBuffers: LARGE_BUFFERS })
    this.counters = options.counters ?? workerCounters(allocateCounters(1), 0)
    this.#trace = options.traceJson === undefined ? undefined : new TraceFile(options.traceJson)
  }

  /**
   * Brings a probed device online and sends INIT.
   *
   * @param transport owned by the session from now on, also when this throws
   * @throws PeerGoneError when the device refuses INIT or does not answer in time; ProtocolError; SyscallError
   */
  static async open(transport: Transport, options: SessionOptions): Promise<Session> {
    let session: Session
    try {
      session = new Session(transport, options)
    } catch (error) {
      await transport.close()
      throw error
    }
    try {
      await session.#start()
      return session
    } catch (error) {
      await session.close()
      throw error
    }
  }

  get tag(): string {
    return this.transport.info.tag
  }

  /** Ring entries. */
  get queueSize(): number {
    return this.#options.queueSize
  }

  /** Whether the device agreed to a flag of INIT. */
  has(flag: InitFlag): boolean {
    return this.init.flags.includes(flag)
  }

  /** Most bytes of one WRITE. */
  get maxWrite(): number {
    return Math.max(PAGE, Math.min(MAX_WRITE, this.init.maxWrite))
  }

  /** Most bytes of one READ. */
  get maxRead(): number {
    return Math.min(MAX_WRITE, (this.init.maxPages || DEFAULT_MAX_PAGES) * PAGE)
  }

  event(name: string, detail: object = {}): void {
    debug('%s %o', name, detail)
    this.#trace?.write({ event: name, ...detail })
    this.#trace?.flush()
  }

  async #start(): Promise<void> {
    const { info } = this.transport
    this.transport.onFailure = reason => this.abort(reason)
    const resources = this.#resources
    resources.push('trace', () => this.#trace?.close())
    resources.push('transport', () => this.transport.close())
    this.event('probe', { tag: info.tag, request_queues: info.requestQueues })
    this.event('negotiation', { features: info.featureNames, protocol_features: info.protocolFeatureNames })
    const { lengthBytes } = this.#plan
    const memory = new SessionMemory(lengthBytes)
    const { memfd, address } = memory
    resources.push('memory', () => memory.free())
    const wakeFd = createEventfd()
    resources.push('wake', () => { close(wakeFd) })
    const watch = new CallWatch(() => this.engine?.called(), () => this.abort('the backend has ended'))
    resources.push('calls', () => watch.close())
    let deviceFd: number | undefined = watch.deviceFd
    const closeDeviceFd = (): void => {
      if (deviceFd !== undefined) close(deviceFd)
      deviceFd = undefined
    }
    resources.push('device\'s end', closeDeviceFd)

    const sleepFlags = new SharedArrayBuffer(4)
    const [backend] = await this.transport.start({ memfd, address, plan: this.#plan, wakeFds: [wakeFd], sleepFlags, windowFd: -1, callFd: watch.deviceFd })
    this.#started = true
    const [notify, notifyHiprio] = await this.#connect(backend!, address, wakeFd, sleepFlags, watch.deviceFd)
    // the end of a backend shows here only when nobody else has this end
    if (backend!.kind === 'vhost-user') closeDeviceFd()
    this.#makeEngine(address, notify, notifyHiprio)
    this.event('queues', { hiprio: 1, request: 1, size: this.#options.queueSize })
    // a kick that came while the ring was disabled is lost, so each ring is kicked once now
    notify()
    notifyHiprio()
    await this.#sendInit()
  }

  /** Ties the rings to the device. @returns what notifies it of the request ring, and of hiprio */
  async #connect(backend: WorkerBackend, address: number, wakeFd: number, sleepFlags: SharedArrayBuffer, callFd: number): Promise<[() => void, () => void]> {
    if (backend.kind === 'vhost-user') {
      this.#hangup = new HangupWatch(backend.socketFd, () => this.abort('the backend closed its socket'))
      return [() => { signalEventfd(backend.kickFd) }, () => { signalEventfd(backend.hiprioKickFd) }]
    }
    // only for workers
    if (backend.kind === 'local') throw new Error('a local device without a worker')
    const thread = await QueueThread.start({
      memoryAddress: address, memoryBytes: this.#plan.lengthBytes, hiprio: this.#plan.hiprio, ring: this.#plan.workers[0]!.ring,
      features: this.transport.info.features, module: backend.module, data: backend.data, pool: backend.pool, hiprioPool: backend.hiprioPool, interrupts: backend.interrupts,
      wakeFd, sleepFlags, callFd, pollUs: this.#options.pollUs,
    })
    this.#thread = thread
    thread.on('poolWanted', () => this.transport.poolWanted?.())
    thread.on('gone', reason => this.abort(reason))
    const kick = (): void => { signalEventfd(thread.kickFd) }
    return [kick, kick]
  }

  #makeEngine(address: number, notify: () => void, notifyHiprio: () => void): void {
    const region = viewRegion(address, this.#plan.lengthBytes)
    const { features } = this.transport.info
    const hiprio = new HiprioQueue(region, this.#plan, features, this.counters, notifyHiprio)
    const { traceJson, identity, maxOutstanding } = this.#options
    const trace = traceWanted(traceJson) ? new RequestTrace(traceJson, 0, () => {}) : null
    this.#resources.push('requests\' trace', () => trace?.close())
    this.engine = new RequestEngine(region, this.#plan.workers[0]!, features, hiprio, {
      identity, maxOutstanding, counters: this.counters, trace, notify, broken: reason => this.abort(`the device broke a ring: ${reason}`),
    })
  }

  async #sendInit(): Promise<void> {
    const { engine } = this
    const length = buildInitRequest(engine.staging, 0, OFFERED)
    const sent = engine.send(Op.INIT, 0, 0, length - FuseInHeader.SIZE, decodeInit)
    const answer = await within(this, this.#options.timeoutMs, 'FUSE_INIT', sent)
    if (this.gone !== '') throw new PeerGoneError(this.gone)
    if (typeof answer === 'number') {
      engine.refused()
      this.event('init', { error: answer })
      throw new PeerGoneError(explainInitRefusal(answer, initFlagWords(OFFERED)), 'ECONNREFUSED')
    }
    if (answer.major !== FUSE_KERNEL_VERSION) {
      engine.refused()
      throw new PeerGoneError(`the device speaks FUSE ${answer.major}.${answer.minor}, expected ${FUSE_KERNEL_VERSION}`, 'ECONNREFUSED')
    }
    this.event('init', { error: 0, ...answer })
    this.init = answer
    this.#initialised = true
    engine.initialised()
    this.transport.poolWanted?.()
  }

  /** The device is gone: what is in flight ends with ECONNABORTED, what comes later with ENOTCONN. */
  abort(reason: string): void {
    if (this.gone !== '' || this.#stopping) return
    this.gone = reason
    this.event('remove', { reason, failed: this.engine?.abort() ?? 0 })
    this.emit('gone', reason)
  }

  /** Ends the session in the order of virtio_kill_sb and frees everything. Never throws. */
  async close(): Promise<void> {
    await (this.#closing ??= this.#end())
  }

  async #end(): Promise<void> {
    if (this.#initialised && this.gone === '') {
      try {
        await this.#killSb()
      } catch (error) {
        this.event('kill_sb.failed', { error: errorLine(error) })
        this.gone = errorLine(error)
      }
    }
    this.#stopping = true
    this.engine?.abort()
    await this.#free()
  }

  async #killSb(): Promise<void> {
    const { engine } = this
    const { timeoutMs } = this.#options
    await within(this, timeoutMs, 'what is in flight', engine.drained())
    engine.hiprio.disconnect()
    this.event('kill_sb.stop_hiprio')
    await within(this, timeoutMs, 'what is in flight', engine.drained())
    this.event('kill_sb.drained')
    await within(this, timeoutMs, 'FUSE_DESTROY', engine.send(Op.DESTROY, 0, 0, 0, () => 0))
    this.event('kill_sb.destroy')
  }

  async #free(): Promise<void> {
    const stuck = new StuckThreads()
    const failed = (error: unknown): void => {
      this.event('kill_sb.stop_rings', { error: errorLine(error) })
      stuck.note(error)
    }
    await this.#hangup?.close()
    // the thread of the device stops before its pool: it hands requests over
    await this.#thread?.end().catch(failed)
    try {
      if (this.#started) await this.transport.stop(this.gone !== '')
      if (this.gone === '') this.event('kill_sb.stop_rings')
    } catch (error) {
      failed(error)
    }
    // what a thread that hangs may use is freed when it has ended after all
    if (stuck.ended) void stuck.ended.then(() => this.#dispose())
    else await this.#dispose()
  }

  async #dispose(): Promise<void> {
    this.event('freed')
    await this.#resources.dispose()
  }
}

function decodeInit({ region, at, fixedBytes }: ReplyPlace): InitAnswer {
  // old devices answer with the first 8 or 24 bytes
  const answer = new Uint8Array(FuseInitOut.SIZE)
  answer.set(region.bytes.subarray(at, at + fixedBytes))
  return decodeInitAnswer(new DataView(answer.buffer), 0)
}
