/**
 * The request engine for callers with no kernel between: many callers on one thread, one request
 * queue. Port of the behaviour of fs/fuse/dev.c (get_request, queue_request, request_wait_answer,
 * background_request, request_end, end_requests) with the queue of virtio_fs.c behind it.
 *
 *   waiting ──► pending ──► processing ──► ended
 *     │           │             └─ interrupted: INTERRUPT on hiprio, in the background from then on
 *     └───────────┴─ interrupted: ends with EINTR at once, never sent
 *
 * A request waits while INIT is not answered or the bound of outstanding requests is reached; it is
 * pending until ring and buffers have room; the device has it while it is processing. Each ends
 * exactly once: with what the device answered, or EINTR, ECONNABORTED (the device went), ENOTCONN
 * (it was gone before), ECONNREFUSED (INIT failed). Results are values or −errno, never exceptions.
 *
 * References: a caller that waits keeps node and file itself. An interrupted caller does not wait,
 * so the engine takes its own references, and FORGET and RELEASE cannot overtake the request.
 */
import { errno } from '../errors.js'
import { FuseEntryOut, FuseInHeader, FuseOutHeader } from '../fuse/abi.js'
import { Op, OPCODE_LIMIT, replyFixedBytes, replyPayloadBytes } from '../fuse/opcodes.js'
import { buildRelease, forgetReply, releaseOpcode } from '../driver/abandoned-reply.js'
import { Counter } from '../driver/counters.js'
import type { HiprioQueue } from '../driver/hiprio-queue.js'
import { MAX_WRITE, REQUEST_HEAD_BYTES, Slot, type WorkerPlan } from '../driver/memory-plan.js'
import { isSound, writeChain } from '../driver/request-chain.js'
import type { RequestTrace } from '../driver/request-trace.js'
import { NO_BUFFER, OWN_UNIQUE_HIGH, SlotTable } from '../driver/slot-table.js'
import { PAGE_SIZE, type Region } from '../sys/memory.js'
import { DriverRing, type RingFeatures } from '../virtio/driver-ring.js'
import { EngineRequest, RequestList, RequestState, type Decode, type Reference, type ReplyPlace } from './engine-request.js'

/** Who makes the requests: what stands in every fuse_in_header. */
export interface Identity {
  readonly uid: number
  readonly gid: number
  readonly pid: number
}

export interface EngineOptions {
  identity: Identity
  /** Requests that may be outstanding at once; more wait. */
  maxOutstanding: number
  counters: Float64Array
  trace: RequestTrace | null
  /** Tells the device that the request ring has something new. */
  notify(): void
  /** The device broke a ring. */
  broken(reason: string): void
  /** Where uniques start again, as two words; there must be more below it than requests can be live. */
  uniqueEnd?: readonly [low: number, high: number]
}

export interface SendOptions {
  payload?: Uint8Array | undefined
  target?: Uint8Array | undefined
  first?: Reference | undefined
  second?: Reference | undefined
  signal?: AbortSignal | undefined
  /** Called once the payload may be changed by its owner: it was copied, or will never be sent. */
  copied?: (() => void) | undefined
}

/** Room for the longest arguments: two names of PATH_MAX, and their structure. */
const STAGING_BYTES = 16384
/** Below the ranges of the driver's own requests (HiprioQueue, RequestQueue). */
const UNIQUE_END = [0, OWN_UNIQUE_HIGH] as const

type Status = 'new' | 'ready' | 'refused' | 'gone'

export class RequestEngine {
  readonly ring: DriverRing
  readonly slots: SlotTable
  readonly hiprio: HiprioQueue
  /** Where the arguments of the next request are written, behind room for its fuse_in_header. */
  readonly staging = new DataView(new ArrayBuffer(STAGING_BYTES))
  readonly waiting = new RequestList()
  readonly pending = new RequestList()
  /** Requests that the device has. */
  processing = 0

  readonly #stagingBytes = new Uint8Array(this.staging.buffer)
  readonly #region: Region
  readonly #options: EngineOptions
  readonly #bySlot: (EngineRequest | undefined)[]
  readonly #reply: ReplyPlace
  #status: Status = 'new'
  #uniqueLow = 0
  #uniqueHigh = 0
  readonly #uniqueEnd: readonly [low: number, high: number]
  /** Uniques have been used up once: from now on a live one may come again. */
  #wrapped = false
  /** Admitted and not ended. */
  #outstanding = 0
  #idleListeners: (() => void)[] = []
  #flushScheduled = false

  constructor(region: Region, plan: WorkerPlan, features: RingFeatures, hiprio: HiprioQueue, options: EngineOptions) {
    this.#region = region
    this.#options = options
    this.hiprio = hiprio
    this.slots = new SlotTable(plan)
    this.ring = new DriverRing(region, plan.ring, features)
    this.#bySlot = new Array(plan.slotCount).fill(undefined)
    this.#reply = { region, at: 0, fixedBytes: 0, payloadAt: 0, payloadBytes: 0 }
    this.#uniqueEnd = options.uniqueEnd ?? UNIQUE_END
  }

  /** Requests that have not ended, whatever they wait for. */
  get live(): number {
    return this.waiting.length + this.pending.length + this.processing
  }

  /**
   * Sends the request whose arguments lie in `staging` from FuseInHeader.SIZE on.
   *
   * @param argsBytes their length
   * @returns what `decode` takes from the reply, or −errno. With `signal`: −EINTR as soon as it is aborted
   */
  send<T>(opcode: number, nodeidLow: number, nodeidHigh: number, argsBytes: number, decode: Decode<T>, options: SendOptions = NO_OPTIONS): Promise<T | number> {
    const { payload, target, first, second, signal, copied } = options
    const message = this.#header(opcode, nodeidLow, nodeidHigh, argsBytes, payload === undefined ? 0 : payload.length)
    if (signal === undefined) {
      return new Promise(resolve => {
        this.#queue(new EngineRequest(opcode, message, payload, target, first, second, decode, resolve as (result: unknown) => void, copied))
      })
    }
    return new Promise(resolve => {
      const end = (result: unknown): void => {
        signal.removeEventListener('abort', interrupt)
        resolve(result as T | number)
      }
      const request = new EngineRequest(opcode, message, payload, target, first, second, decode, end, copied)
      const interrupt = (): void => this.interrupt(request)
      if (signal.aborted) return this.#finish(request, -errno.EINTR)
      signal.addEventListener('abort', interrupt, { once: true })
      this.#queue(request)
    })
  }

  /**
   * Sends a request that nobody waits for, such as RELEASE. It holds its references until it ends,
   * and never waits for the bound: whoever closes files must not be held up by those who use them.
   */
  sendBackground(opcode: number, nodeidLow: number, nodeidHigh: number, argsBytes: number, first?: Reference, second?: Reference): void {
    const message = this.#header(opcode, nodeidLow, nodeidHigh, argsBytes, 0)
    const request = new EngineRequest(opcode, message, undefined, undefined, first, second, nothing, nothing, undefined)
    request.toBackground()
    this.#queue(request)
  }

  #header(opcode: number, nodeidLow: number, nodeidHigh: number, argsBytes: number, payloadBytes: number): Uint8Array {
    const view = this.staging
    const { identity } = this.#options
    const length = FuseInHeader.SIZE + argsBytes
    view.setUint32(FuseInHeader.len, length + payloadBytes, true)
    view.setUint32(FuseInHeader.opcode, opcode, true)
    view.setUint32(FuseInHeader.nodeid, nodeidLow, true)
    view.setUint32(FuseInHeader.nodeid + 4, nodeidHigh, true)
    view.setUint32(FuseInHeader.uid, identity.uid, true)
    view.setUint32(FuseInHeader.gid, identity.gid, true)
    view.setUint32(FuseInHeader.pid, identity.pid, true)
    view.setUint32(FuseInHeader.total_extlen, 0, true)
    return this.#stagingBytes.subarray(0, length)
  }

  #queue(request: EngineRequest): void {
    const refused = this.#refusal(request)
    if (refused !== 0) return this.#finish(request, refused)
    if (this.#mayBeAdmitted(request)) this.#admit(request)
    else this.waiting.push(request)
    if (request.slot < 0) request.message = request.message.slice()
  }

  /** −errno of a request that is not taken at all. */
  #refusal(request: EngineRequest): number {
    switch (this.#status) {
      case 'gone': return -errno.ENOTCONN
      case 'refused': return -errno.ECONNREFUSED
      default: return request.payload !== undefined && request.payload.length > MAX_WRITE ? -errno.EINVAL : 0
    }
  }

  #mayBeAdmitted(request: EngineRequest): boolean {
    if (request.opcode === Op.INIT || request.background) return true
    // who came earlier goes first
    return this.#status !== 'new' && this.waiting.length === 0 && this.#outstanding < this.#options.maxOutstanding
  }

  #admit(request: EngineRequest): void {
    request.state = RequestState.PENDING
    this.#outstanding++
    this.#nextUnique()
    request.uniqueLow = this.#uniqueLow
    request.uniqueHigh = this.#uniqueHigh
    if (this.pending.length > 0 || !this.#enqueue(request)) this.pending.push(request)
  }

  /** Counts in steps of 2, as the kernel does: odd ones stand for INTERRUPTs there. */
  #nextUnique(): void {
    const [endLow, endHigh] = this.#uniqueEnd
    do {
      this.#uniqueLow = (this.#uniqueLow + 2) >>> 0
      if (this.#uniqueLow === 0) this.#uniqueHigh++
      if (this.#uniqueHigh > endHigh || (this.#uniqueHigh === endHigh && this.#uniqueLow >= endLow)) {
        // 0 is that of notifications
        this.#uniqueLow = 2
        this.#uniqueHigh = 0
        this.#wrapped = true
      }
    } while (this.#wrapped && this.#isLive(this.#uniqueLow, this.#uniqueHigh))
  }

  #isLive(low: number, high: number): boolean {
    const same = (request: EngineRequest | undefined): boolean => request !== undefined && request.uniqueLow === low && request.uniqueHigh === high
    for (let request = this.pending.first; request; request = request.next) if (same(request)) return true
    return this.#bySlot.some(same)
  }

  /** Copies a request into a slot and puts it on the ring. @returns false when there is no room */
  #enqueue(request: EngineRequest): boolean {
    const { slots, ring } = this
    const { opcode, message, payload } = request
    const { view, bytes, address } = this.#region
    const messageView = message.buffer === this.staging.buffer ? this.staging : new DataView(message.buffer, message.byteOffset)
    const replyBytes = replyPayloadBytes(opcode, messageView, 0)
    const payloadBytes = payload === undefined ? 0 : payload.length
    const largeIn = message.length > Slot.IN_BYTES || payloadBytes > PAGE_SIZE || (payloadBytes > 0 && replyBytes > 0)
    const largeOut = replyBytes > PAGE_SIZE
    if (slots.freeSlotCount === 0 || slots.freeLargeCount < (largeIn ? 1 : 0) + (largeOut ? 1 : 0) || ring.freeCount < ring.cost(Slot.TABLE_LENGTH)) return false

    messageView.setUint32(FuseInHeader.unique, request.uniqueLow, true)
    messageView.setUint32(FuseInHeader.unique + 4, request.uniqueHigh, true)
    const slot = slots.takeSlot()
    const at = slots.at(slot)
    slots.largeIn[slot] = largeIn ? slots.takeLarge() : NO_BUFFER
    slots.largeOut[slot] = largeOut ? slots.takeLarge() : NO_BUFFER
    slots.opcode[slot] = opcode
    slots.uniqueLow[slot] = request.uniqueLow
    slots.uniqueHigh[slot] = request.uniqueHigh
    slots.fixedBytes[slot] = replyFixedBytes(opcode)
    slots.payloadBytes[slot] = replyBytes
    slots.payloadAt[slot] = largeOut ? slots.largeAt(slots.largeOut[slot]!) : at + Slot.PAGE

    const headBytes = message.length > Slot.IN_BYTES ? REQUEST_HEAD_BYTES : message.length
    const restBytes = message.length - headBytes
    const tailAt = largeIn ? slots.largeAt(slots.largeIn[slot]!) : at + Slot.PAGE
    bytes.set(restBytes === 0 ? message : message.subarray(0, headBytes), at + Slot.IN)
    if (restBytes > 0) bytes.set(message.subarray(headBytes), tailAt)
    if (payload !== undefined) bytes.set(payload, tailAt + restBytes)
    const count = writeChain(this.#region, slots, slot, headBytes, tailAt, restBytes + payloadBytes)
    request.slot = slot
    request.state = RequestState.PROCESSING
    this.#bySlot[slot] = request
    this.processing++
    this.#count(request, payloadBytes)
    if (this.#options.trace !== null) {
      slots.startMs[slot] = performance.now()
      this.#options.trace.received(view, at + Slot.IN)
    }
    ring.add(at + Slot.TABLE, address + at + Slot.TABLE, count, slot)
    if (ring.kickNeeded()) this.#kick()
    request.copied?.()
    return true
  }

  #kick(): void {
    this.#options.counters[Counter.KICKS]!++
    this.#options.notify()
  }

  #count(request: EngineRequest, payloadBytes: number): void {
    const { counters } = this.#options
    counters[Counter.REQUESTS]!++
    counters[Counter.OPCODES + (request.opcode < OPCODE_LIMIT ? request.opcode : 0)]!++
    if (request.opcode === Op.WRITE) counters[Counter.BYTES_WRITTEN]! += payloadBytes
    if (this.processing > counters[Counter.IN_FLIGHT_MAX]!) counters[Counter.IN_FLIGHT_MAX] = this.processing
  }

  /** The device has given something back, or may have. */
  called(): void {
    if (this.#status === 'gone') return
    this.ring.disableCallbacks()
    this.hiprio.ring.disableCallbacks()
    do {
      this.#completions()
    } while (this.ring.broken === '' && this.hiprio.ring.broken === '' && !this.#quiet())
    const broken = this.ring.broken || this.hiprio.ring.broken
    if (broken !== '') this.#options.broken(broken)
  }

  /**
   * Asks for notice of what comes next. FORGETs need none: their buffers are taken back with the next
   * ones, unless some wait for room or somebody waits for the end of all.
   *
   * @returns false when there is something already
   */
  #quiet(): boolean {
    const watched = this.hiprio.parked > 0 || this.#idleListeners.length > 0
    return this.ring.enableCallbacks() && (!watched || this.hiprio.ring.enableCallbacks())
  }

  #completions(): void {
    for (let slot = this.ring.popUsed(); slot >= 0; slot = this.ring.popUsed()) this.#completed(slot, this.ring.usedLength)
    this.hiprio.complete()
    this.#goOn()
  }

  /** Sends what now has room, and tells who waits for nothing to be left. */
  #goOn(): void {
    while (this.pending.first !== undefined && this.#enqueue(this.pending.first)) this.pending.shift()
    while (this.waiting.first !== undefined && this.#status === 'ready' && this.#outstanding < this.#options.maxOutstanding) this.#admit(this.waiting.shift()!)
    if (this.#idle) for (const listener of this.#idleListeners.splice(0)) listener()
  }

  get #idle(): boolean {
    return this.live === 0 && this.hiprio.ring.inFlight === 0 && this.hiprio.parked === 0
  }

  #completed(slot: number, used: number): void {
    const { slots } = this
    const { view } = this.#region
    const request = this.#bySlot[slot]!
    const at = slots.at(slot)
    const { opcode } = request
    const error = view.getInt32(at + Slot.OUT + FuseOutHeader.error, true)
    const sound = isSound(view, slots, slot, used, error)
    // the Rust virtiofsd gives DESTROY back unwritten, the C one with a header: both are right
    let result: unknown = sound ? error : opcode === Op.DESTROY && used === 0 ? 0 : this.#badReply()
    if (sound && error === 0 && used < slots.fixedBytes[slot]! && opcode !== Op.INIT) result = this.#badReply()
    const good = sound && result === 0
    if (sound && error !== 0) this.#options.counters[Counter.ERRORS]!++
    if (this.#options.trace !== null) this.#options.trace.ended(view, slots, slot, result as number, used)
    if (good && !request.background) result = this.#decode(request, slot, used)
    this.#bySlot[slot] = undefined
    this.processing--
    if (good && request.interrupted && this.#status === 'ready') this.#giveBack(slot, opcode, used)
    else slots.release(slot)
    this.#finish(request, result)
  }

  #badReply(): number {
    this.#options.counters[Counter.BAD_REPLIES]!++
    return -errno.EIO
  }

  #decode(request: EngineRequest, slot: number, used: number): unknown {
    const reply = this.#reply
    const fixedBytes = this.slots.fixedBytes[slot]!
    reply.at = this.slots.at(slot) + Slot.OUT + FuseOutHeader.SIZE
    reply.fixedBytes = Math.min(used, fixedBytes) - FuseOutHeader.SIZE
    reply.payloadAt = this.slots.payloadAt[slot]!
    reply.payloadBytes = Math.max(0, used - fixedBytes)
    if (request.opcode === Op.READ) this.#options.counters[Counter.BYTES_READ]! += reply.payloadBytes
    return request.decode(reply, request)
  }

  /** Gives the lookups and the handle of a good reply back that nobody waits for, and its slot. */
  #giveBack(slot: number, opcode: number, used: number): void {
    const { slots } = this
    const { view, bytes } = this.#region
    const at = slots.at(slot)
    const out = at + Slot.OUT + FuseOutHeader.SIZE
    forgetReply(view, opcode, out, slots.payloadAt[slot]!, Math.max(0, used - slots.fixedBytes[slot]!), this.hiprio)
    this.flushSoon()
    if (releaseOpcode(opcode) !== 0) {
      const head = at + Slot.IN
      const nodeidAt = opcode === Op.CREATE || opcode === Op.TMPFILE ? out + FuseEntryOut.nodeid : head + FuseInHeader.nodeid
      const length = buildRelease(view, opcode, nodeidAt, out, head)
      this.#stagingBytes.set(bytes.subarray(head, head + length))
      slots.release(slot)
      this.sendBackground(releaseOpcode(opcode), this.staging.getUint32(FuseInHeader.nodeid, true), this.staging.getUint32(FuseInHeader.nodeid + 4, true), length - FuseInHeader.SIZE)
    } else {
      slots.release(slot)
    }
  }

  /** request_end: every request comes here once, but for its second end when it was interrupted. */
  #finish(request: EngineRequest, result: unknown): void {
    if (request.state === RequestState.PENDING || request.state === RequestState.PROCESSING) this.#outstanding--
    if (request.state !== RequestState.PROCESSING) request.copied?.()
    request.state = RequestState.ENDED
    if (request.background) request.releaseReferences()
    if (!request.interrupted) request.end(result)
  }

  /**
   * The caller of a request does not wait any more. One that was not sent ends; for one that was, the
   * device is told, the caller gets EINTR and the request goes on in the background.
   */
  interrupt(request: EngineRequest): void {
    if (request.state === RequestState.ENDED || request.interrupted) return
    if (request.state === RequestState.PROCESSING) {
      this.hiprio.interrupt(request.uniqueLow, request.uniqueHigh)
      this.#flush()
      request.toBackground()
      request.interrupted = true
      request.end(-errno.EINTR)
      return
    }
    (request.state === RequestState.WAITING ? this.waiting : this.pending).remove(request)
    this.#finish(request, -errno.EINTR)
    this.#goOn()
  }

  /** Hands lookups back to the device: on hiprio, with what else comes in this turn of the event loop. */
  forget(nodeidLow: number, nodeidHigh: number, nlookup: number): void {
    this.hiprio.forget(nodeidLow, nodeidHigh, nlookup >>> 0, Math.floor(nlookup / 2 ** 32))
    this.flushSoon()
  }

  /** Sends FORGETs once whoever runs now is done: many then travel in one message. */
  flushSoon(): void {
    if (this.#flushScheduled) return
    this.#flushScheduled = true
    queueMicrotask(() => {
      this.#flushScheduled = false
      if (this.#status !== 'gone') this.#flush()
    })
  }

  #flush(): void {
    this.hiprio.complete()
    this.hiprio.flush()
    if (this.hiprio.parked > 0) this.called()
  }

  /** INIT was answered well: everybody may send. */
  initialised(): void {
    this.#status = 'ready'
    this.#goOn()
  }

  /** INIT failed: who waits and who comes gets ECONNREFUSED. */
  refused(): void {
    this.#status = 'refused'
    for (let request = this.waiting.shift(); request; request = this.waiting.shift()) this.#finish(request, -errno.ECONNREFUSED)
  }

  /**
   * The device is gone: everything ends with ECONNABORTED, once (end_requests in fs/fuse/dev.c); who
   * comes later gets ENOTCONN. The buffers are not used again: the device may still write to them.
   *
   * @returns how many requests were failed
   */
  abort(): number {
    if (this.#status === 'gone') return 0
    this.#status = 'gone'
    this.hiprio.disconnect()
    this.ring.broken ||= 'the device is gone'
    const failed = [...this.#bySlot.filter(request => request !== undefined)]
    this.#bySlot.fill(undefined)
    this.processing = 0
    for (const list of [this.pending, this.waiting]) for (let request = list.shift(); request; request = list.shift()) failed.push(request)
    for (const request of failed) this.#finish(request, -errno.ECONNABORTED)
    for (const listener of this.#idleListeners.splice(0)) listener()
    return failed.length
  }

  /** Resolves when no request and no FORGET is on its way. */
  async drained(): Promise<void> {
    if (this.#status === 'gone') return
    const idle = new Promise<void>(resolve => this.#idleListeners.push(resolve))
    this.called()
    await idle
  }
}

const NO_OPTIONS: SendOptions = {}
const nothing = (): void => {}
