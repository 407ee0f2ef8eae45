/**
 * One request queue: reads FUSE requests from /dev/fuse into its slots, lets them go to the ring,
 * verifies what the device answers and writes it back. Port of virtio_fs_wake_pending_and_unlock,
 * virtio_fs_enqueue_req and virtio_fs_requests_done_work (fs/fuse/virtio_fs.c), with the reply
 * check that Linux gained in 7.1.
 *
 * Memory (native-notes/memory.md): every read takes two buffers, 80 bytes of the next free slot
 * and one large buffer. Only a request that is really large uses the latter up; a small one that
 * is longer than 80 bytes is copied back behind its head.
 *
 * A full ring: what is read then waits here, in order, and the completion that makes room sends
 * it. Reading goes on, up to a limit, because the INTERRUPTs that free a caller of a slow device
 * come by the same way; a request that still waits here is given up when its caller is killed.
 */
import { errno } from '../errors.js'
import { FuseEntryOut, FuseInHeader, FuseInitIn, FuseInitOut, FuseInterruptIn, FuseOutHeader } from '../fuse/abi.js'
import { adaptInitReply, adaptInitRequest, type InitPolicy } from '../fuse/init.js'
import { hasReply, Op, OPCODE_LIMIT } from '../fuse/opcodes.js'
import { isBeingKilled } from '../sys/being-killed.js'
import { mapAnonymous, scratch, viewRegion, type Region } from '../sys/memory.js'
import type { RingFeatures } from '../virtio/driver-ring.js'
import { buildRelease, forgetReply, releaseOpcode } from './abandoned-reply.js'
import { Counter } from './counters.js'
import type { HiprioSink } from './hiprio-queue.js'
import { handOverBatch, handOverForget } from './hiprio-requests.js'
import { REQUEST_HEAD_BYTES, Slot, type WorkerPlan } from './memory-plan.js'
import { isSound } from './request-chain.js'
import { RequestRing } from './request-ring.js'
import type { RequestTrace } from './request-trace.js'
import type { RingRoom } from './ring-room.js'
import { NO_BUFFER, SlotTable, Waiter } from './slot-table.js'

/** What `receive` found. */
export const enum Received {
  /** A request, which was put on a ring or answered. */
  ONE = 1,
  /** Nothing to read now. */
  NONE = 0,
  /** No room for another request: wait for a completion. */
  FULL = -1,
  /** The file system is unmounted, or its connection aborted. */
  UNMOUNTED = -2,
}

/** How often callers are looked at that got a signal and wait on. */
const LOOK_AGAIN_MS = 250

const enum Interrupted {
  /** The request is not on this queue. */
  ELSEWHERE,
  /** Nothing more is to be done about it. */
  SETTLED,
  /** Its caller is not being killed. */
  LIVES_ON,
}

/** Called on the worker's thread for what is no request's own business. */
export interface QueueEvents {
  /** INIT was answered; `error` is 0 or −errno and the fuse_init_out is at `view[at]`. */
  initAnswered(error: number, view: DataView, at: number): void
  /** The device of a new session has answered INIT; otherwise the same. */
  greeted?(error: number, view: DataView, at: number): void
  /** DESTROY came back. */
  destroyed(): void
  /** The caller of a request that another queue may have was interrupted. */
  interrupted(uniqueLow: number, uniqueHigh: number): void
}

export class RequestQueue extends RequestRing {
  /** The flag words of the last INIT, as the device was sent them. */
  offered: [low: number, high: number] = [0, 0]

  protected readonly hiprio: HiprioSink
  /** Where FORGETs of the kernel go. */
  protected forgets: HiprioSink
  protected readonly init: InitPolicy
  protected readonly events: QueueEvents
  #failed = false
  /** Uniques of requests whose callers got a signal and were not killed by it. */
  #signalled: (readonly [low: number, high: number])[] = []
  #lookMs = 0
  #initReply: Region | undefined

  constructor(
    region: Region, plan: WorkerPlan, features: RingFeatures, fuseFd: number, counters: Float64Array,
    hiprio: HiprioSink, init: InitPolicy, events: QueueEvents, trace: RequestTrace | null, ringRoom: RingRoom, limitMs = 0,
  ) {
    super(region, plan, features, fuseFd, counters, trace, ringRoom, limitMs)
    this.hiprio = hiprio
    this.forgets = hiprio
    this.init = init
    this.events = events
  }

  /** Reads one request from the kernel and puts it on its way, without notifying the device. */
  receive(): Received {
    if (!this.hasRoom) return Received.FULL
    const { slots } = this
    const { view, bytes, address } = this.region
    const head = slots.at(slots.nextSlot) + Slot.IN
    const tail = slots.largeAt(slots.nextLarge)
    const length = this.channel.receive(address + head, address + tail)
    if (length <= 0) return this.#readFailed(length)

    const opcode = view.getUint32(head + FuseInHeader.opcode, true)
    let large = false
    if (length > REQUEST_HEAD_BYTES) {
      large = opcode === Op.WRITE || length > Slot.IN_BYTES
      if (!large) bytes.copyWithin(head + REQUEST_HEAD_BYTES, tail, tail + length - REQUEST_HEAD_BYTES)
    }
    this.lastUniqueLow = view.getUint32(head + FuseInHeader.unique, true)
    this.lastUniqueHigh = view.getUint32(head + FuseInHeader.unique + 4, true)
    this.counters[Counter.REQUESTS]!++
    this.counters[Counter.OPCODES + (opcode < OPCODE_LIMIT ? opcode : 0)]!++
    if (!hasReply(opcode)) {
      this.#toHiprio(opcode, head, large ? tail : head + REQUEST_HEAD_BYTES, length)
      return Received.ONE
    }
    if (this.trace !== null) this.trace.received(view, head)
    if (!this.connected) {
      this.fail(this.lastUniqueLow, this.lastUniqueHigh, -errno.ENOTCONN)
      return Received.ONE
    }
    if (opcode === Op.INIT) {
      adaptInitRequest(view, head, this.init)
      this.initReceived(head, length)
      this.offered = [view.getUint32(head + FuseInHeader.SIZE + FuseInitIn.flags, true), view.getUint32(head + FuseInHeader.SIZE + FuseInitIn.flags2, true)]
    } else if (opcode === Op.WRITE) {
      this.counters[Counter.BYTES_WRITTEN]! += length - REQUEST_HEAD_BYTES
    }
    this.enqueue(slots.takeSlot(), opcode, length, large ? slots.takeLarge() : NO_BUFFER, Waiter.KERNEL)
    return Received.ONE
  }

  #readFailed(error: number): Received {
    switch (-error) {
      case errno.EAGAIN: return Received.NONE
      // ENOENT: the request was interrupted before it was read; EINTR: a signal; ENOMEM: the kernel has failed it
      case errno.ENOENT: case errno.EINTR: case errno.ENOMEM: return Received.ONE
      default: return Received.UNMOUNTED
    }
  }

  /** FORGET, BATCH_FORGET, INTERRUPT: copied, so the slot stays free. @param tailAt where bytes from 80 on lie, of `length` in all */
  #toHiprio(opcode: number, head: number, tailAt: number, length: number): void {
    const { view } = this.region
    if (this.trace !== null) this.trace.hiprio(opcode, view, head, tailAt, length)
    const arg = head + FuseInHeader.SIZE
    switch (opcode) {
      case Op.FORGET: handOverForget(view, head, this.forgets); break
      case Op.BATCH_FORGET: handOverBatch(view, head, tailAt, length, this.forgets); break
      case Op.INTERRUPT: {
        const low = view.getUint32(arg + FuseInterruptIn.unique, true)
        const high = view.getUint32(arg + FuseInterruptIn.unique + 4, true)
        this.hiprio.interrupt(low, high)
        if (!this.interrupt(low, high)) this.events.interrupted(low, high)
        break
      }
    }
  }

  /** An INIT is about to be sent. */
  protected initReceived(_head: number, _length: number): void {}

  /** Ends every request that the device has given back, and sends what waited for the room. @returns how many came back */
  complete(): number {
    let count = 0
    for (let slot = this.ring.popUsed(); slot >= 0; slot = this.ring.popUsed()) {
      this.#end(slot, this.ring.usedLength)
      count++
    }
    this.sendParked()
    return count
  }

  #end(slot: number, used: number): void {
    const { slots } = this
    const { view } = this.region
    const at = slots.at(slot)
    const opcode = slots.opcode[slot]!
    const error = view.getInt32(at + Slot.OUT + FuseOutHeader.error, true)
    const sound = isSound(view, slots, slot, used, error)
    this.inFlight--
    this.deadline?.remove(slot)
    if (this.answered(slot, opcode, sound, error, used)) return
    if (slots.waiter[slot] === Waiter.KERNEL) {
      if (error !== 0) this.counters[Counter.ERRORS]!++
      if (sound) this.#reply(slot, opcode, error, used)
      else this.#badReply(slot)
    }
    // the Rust virtiofsd gives DESTROY back unwritten, the C one with a header: both are right
    if (this.trace !== null) this.trace.ended(view, slots, slot, sound ? error : opcode === Op.DESTROY && used === 0 ? 0 : -errno.EIO, used)
    if (slots.waiter[slot] === Waiter.NOBODY && sound && error === 0 && this.connected) this.#giveBack(slot, opcode, used)
    else this.release(slot)
    if (opcode === Op.DESTROY) this.events.destroyed()
  }

  /** A reply came, before anybody else sees it. @returns whether it is no reply to the kernel, nor the end of the request */
  protected answered(_slot: number, _opcode: number, _sound: boolean, _error: number, _used: number): boolean {
    return false
  }

  #badReply(slot: number): void {
    this.counters[Counter.BAD_REPLIES]!++
    this.fail(this.slots.uniqueLow[slot]!, this.slots.uniqueHigh[slot]!, -errno.EIO)
  }

  #reply(slot: number, opcode: number, error: number, used: number): void {
    const { slots } = this
    const { address } = this.region
    const out = slots.at(slot) + Slot.OUT
    const fixedBytes = slots.fixedBytes[slot]!
    if (opcode === Op.INIT) return this.#replyInit(slot, error, used)
    let written
    if (used <= fixedBytes) {
      written = this.channel.reply(address + out, used)
    } else {
      written = this.channel.replyWithPayload(address + out, fixedBytes, address + slots.payloadAt[slot]!, used - fixedBytes)
      if (opcode === Op.READ) this.counters[Counter.BYTES_READ]! += used - fixedBytes
    }
    if (written < 0) this.#notTaken(slot, written)
  }

  /** What the kernel is told of the mount's limits is what was bounded here: the device cannot change the copy. */
  #replyInit(slot: number, error: number, used: number): void {
    const { view, bytes, address } = this.#initReply ??= scratch(FuseOutHeader.SIZE + FuseInitOut.SIZE)
    const out = this.slots.at(slot) + Slot.OUT
    bytes.set(this.region.bytes.subarray(out, out + used))
    view.setUint32(FuseOutHeader.len, used, true)
    adaptInitReply(view, 0, this.init)
    const written = this.channel.reply(address, used)
    if (written < 0) this.#notTaken(slot, written)
    // the kernel has it by now: what is asked of the mount from here on is asked as was negotiated
    this.events.initAnswered(error, view, FuseOutHeader.SIZE)
  }

  /**
   * The kernel did not take a reply. ENOENT: its caller is gone; ENODEV and EPERM: so is the mount.
   * EINVAL: the device changed the reply after it was checked. After that, or when the system could
   * not do it, the caller still waits.
   */
  #notTaken(slot: number, error: number): void {
    this.counters[Counter.DROPPED_REPLIES]!++
    switch (-error) {
      case errno.EINVAL: case errno.EINTR: case errno.EAGAIN: case errno.ENOMEM: case errno.EIO: this.#badReply(slot)
    }
  }

  /** Puts FUSE_DESTROY on the ring. Only when nothing is in flight, so there is room. */
  sendDestroy(): void {
    const slot = this.slots.takeSlot()
    const head = this.slots.at(slot) + Slot.IN
    const { view, bytes } = this.region
    bytes.fill(0, head, head + FuseInHeader.SIZE)
    view.setUint32(head + FuseInHeader.len, FuseInHeader.SIZE, true)
    view.setUint32(head + FuseInHeader.opcode, Op.DESTROY, true)
    this.sendOwn(slot, Op.DESTROY, FuseInHeader.SIZE)
  }

  /**
   * The caller of a request got a signal. If that kills it, it is answered now, since the kernel lets
   * it die only then; a request that is still here is given up. Anybody else waits on: what is asked
   * of a disk's file system ends with no EINTR, and few programs expect one.
   *
   * @returns whether the request is on this queue
   */
  interrupt(uniqueLow: number, uniqueHigh: number): boolean {
    const found = this.#interrupt(uniqueLow, uniqueHigh)
    if (found === Interrupted.LIVES_ON) {
      if (this.#signalled.length === 0) this.#lookMs = performance.now() + LOOK_AGAIN_MS
      this.#signalled.push([uniqueLow, uniqueHigh])
    }
    return found !== Interrupted.ELSEWHERE
  }

  /** Milliseconds until somebody has to look here although nothing has happened, −1 when nobody has to. */
  get wakeMs(): number {
    const { leftMs } = this
    if (this.#signalled.length === 0) return leftMs
    const lookMs = Math.max(0, Math.ceil(this.#lookMs - performance.now()))
    return leftMs < 0 ? lookMs : Math.min(leftMs, lookMs)
  }

  /** The kernel tells of a caller's first signal alone: whether a later one kills it has to be looked for. */
  lookAtSignalled(): void {
    if (this.#signalled.length === 0) return
    const nowMs = performance.now()
    if (nowMs < this.#lookMs) return
    this.#lookMs = nowMs + LOOK_AGAIN_MS
    this.#signalled = this.#signalled.filter(([low, high]) => this.#interrupt(low, high) === Interrupted.LIVES_ON)
  }

  #interrupt(uniqueLow: number, uniqueHigh: number): Interrupted {
    const parked = this.#interruptParked(uniqueLow, uniqueHigh)
    if (parked !== Interrupted.ELSEWHERE) return parked
    const { slots } = this
    for (const slot of this.ring.outstanding()) {
      if (slots.uniqueLow[slot] !== uniqueLow || slots.uniqueHigh[slot] !== uniqueHigh || slots.waiter[slot] !== Waiter.KERNEL) continue
      if (slots.opcode[slot] === Op.INIT) return Interrupted.SETTLED
      if (!this.isBeingKilled(this.#pid(slot))) return Interrupted.LIVES_ON
      slots.waiter[slot] = Waiter.NOBODY
      this.fail(uniqueLow, uniqueHigh, -errno.EINTR)
      return Interrupted.SETTLED
    }
    return Interrupted.ELSEWHERE
  }

  #interruptParked(uniqueLow: number, uniqueHigh: number): Interrupted {
    const { slots } = this
    for (let place = 0; place < this.parked.length; place++) {
      const slot = this.parked.at(place)
      if (slots.uniqueLow[slot] !== uniqueLow || slots.uniqueHigh[slot] !== uniqueHigh) continue
      const opcode = slots.opcode[slot]!
      // the end of a close(), which gives the caller's locks back, has to come to the device
      if (opcode === Op.INIT || opcode === Op.FLUSH) return Interrupted.SETTLED
      const pid = this.#pid(slot)
      // of one that has no number here nobody would see that it is killed: what has done nothing may fail
      const unseen = pid === 0 && !this.mayHaveBegun(slot)
      if (!unseen && !this.isBeingKilled(pid)) return Interrupted.LIVES_ON
      this.parked.remove(place)
      this.giveUp(slot, -errno.EINTR)
      return Interrupted.SETTLED
    }
    return Interrupted.ELSEWHERE
  }

  /** The thread that waits for a request. */
  #pid(slot: number): number {
    return this.region.view.getUint32(this.slots.at(slot) + Slot.IN + FuseInHeader.pid, true)
  }

  /** Of the caller of a request, by its number; a method, so that tests can have one who stays so. */
  protected isBeingKilled(pid: number): boolean {
    return isBeingKilled(pid)
  }

  /** Whether a request that is here may have done something, so that its caller has to hear how it ends. */
  protected mayHaveBegun(_slot: number): boolean {
    return false
  }

  /** Gives the lookups and the handle of a good reply back that nobody waits for, and its slot. */
  #giveBack(slot: number, opcode: number, used: number): void {
    const { slots } = this
    const { view } = this.region
    const at = slots.at(slot)
    const out = at + Slot.OUT + FuseOutHeader.SIZE
    forgetReply(view, opcode, out, slots.payloadAt[slot]!, Math.max(0, used - slots.fixedBytes[slot]!), this.hiprio)
    this.release(slot)
    if (releaseOpcode(opcode) === 0) return
    // the slot just freed is the next one
    const own = slots.takeSlot()
    const head = slots.at(own) + Slot.IN
    const nodeidAt = opcode === Op.CREATE || opcode === Op.TMPFILE ? out + FuseEntryOut.nodeid : head + FuseInHeader.nodeid
    this.sendOwn(own, releaseOpcode(opcode), buildRelease(view, opcode, nodeidAt, out, head))
  }

  /**
   * The device is gone: answers everything in flight with `error` (0 > error), once. The device may
   * still write to the shared memory, so nothing there is used again: what comes later is read into
   * memory of the queue's own, and there is always room for it.
   *
   * @returns how many were answered
   */
  failInFlight(error: number): number {
    if (this.#failed) return 0
    this.#failed = true
    this.connected = false
    const { slots } = this
    const parked = Array.from({ length: this.parked.length }, (_, place) => this.parked.at(place))
    const waiting = [...this.ring.outstanding(), ...parked].filter(slot => slots.waiter[slot] === Waiter.KERNEL)
    while (this.parked.length > 0) this.parked.shift()
    for (const slot of waiting) {
      slots.waiter[slot] = Waiter.NOBODY
      this.fail(slots.uniqueLow[slot]!, slots.uniqueHigh[slot]!, error)
    }
    this.inFlight = 0
    this.ring.broken ||= 'the device is gone'
    const { lengthBytes } = this.region
    this.region = this.private ??= viewRegion(mapAnonymous(lengthBytes), lengthBytes)
    this.slots = new SlotTable(this.plan)
    return waiting.length
  }
}
