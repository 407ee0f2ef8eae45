/**
 * One request queue: reads FUSE requests from /dev/fuse into its slots, puts them on the ring,
 * verifies what the device answers and writes it back. Port of virtio_fs_wake_pending_and_unlock,
 * virtio_fs_enqueue_req and virtio_fs_requests_done_work (fs/fuse/virtio_fs.c), with the reply
 * check that Linux gained in 7.1.
 *
 * Memory (native-notes/memory.md): every read takes two buffers, 80 bytes of the next free slot
 * and one large buffer. Only a request that is really large uses the latter up; a small one that
 * is longer than 80 bytes is copied back behind its head.
 *
 * The device can change shared memory at any time, so what is decided here is decided on private
 * copies: opcode, unique and sizes of each slot are kept in arrays, iovecs in private memory.
 */
import { errno } from '../errors.js'
import { FuseBatchForgetIn, FuseForgetIn, FuseForgetOne, FuseInHeader, FuseInterruptIn, FuseOutHeader } from '../fuse/abi.js'
import { adaptInitReply, adaptInitRequest, type InitPolicy } from '../fuse/init.js'
import { hasReply, Op, OPCODE_LIMIT, replyFixedBytes, replyPayloadBytes } from '../fuse/opcodes.js'
import { readv, write, writev } from '../sys/io.js'
import { PAGE_SIZE, scratch, type Region } from '../sys/memory.js'
import { DriverRing, writeDescriptor, type RingFeatures } from '../virtio/driver-ring.js'
import { VIRTQ_DESC_F_WRITE } from '../virtio/split-ring.js'
import { Counter } from './counters.js'
import type { HiprioSink } from './hiprio-queue.js'
import { MAX_WRITE, REQUEST_HEAD_BYTES, Slot, type WorkerPlan } from './memory-plan.js'
import type { RequestTrace } from './request-trace.js'
import { setU64 } from '../wire/u64.js'

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

const NO_BUFFER = -1
const IOVEC_BYTES = 16
/** Errors beyond this are not errno numbers (MAX_ERRNO of the reply check in fs/fuse/dev.c). */
const ERROR_LIMIT = 512

/** Called on the worker's thread for what is no request's own business. */
export interface QueueEvents {
  /** INIT was answered; `error` is 0 or −errno and the fuse_init_out is at `view[at]`. */
  initAnswered(error: number, view: DataView, at: number): void
  /** DESTROY came back. */
  destroyed(): void
}

export class RequestQueue {
  readonly ring: DriverRing
  /** Requests put on the ring and not yet ended (virtio_fs_vq.in_flight). */
  inFlight = 0
  /** False once the queue is stopped: what still comes is answered ENOTCONN. */
  connected = true

  readonly #region: Region
  readonly #plan: WorkerPlan
  readonly #fuseFd: number
  readonly #counters: Float64Array
  readonly #hiprio: HiprioSink
  readonly #init: InitPolicy
  readonly #events: QueueEvents
  readonly #trace: RequestTrace | null

  readonly #freeSlots: Int32Array
  #freeSlotCount: number
  readonly #freeLarge: Int32Array
  #freeLargeCount: number

  // of each slot, valid while it is on the ring
  readonly #opcode: Uint16Array
  readonly #uniqueLow: Uint32Array
  readonly #uniqueHigh: Uint32Array
  /** Bytes of fuse_out_header and the fixed part of the reply. */
  readonly #fixedBytes: Uint32Array
  readonly #payloadBytes: Uint32Array
  /** Byte of the region where payload of the reply goes. */
  readonly #payloadAt: Float64Array
  readonly #largeIn: Int32Array
  readonly #largeOut: Int32Array
  readonly #startMs: Float64Array

  readonly #iov = scratch(4 * IOVEC_BYTES)
  readonly #readIov: number
  readonly #writeIov: number
  readonly #ownReply = scratch(FuseOutHeader.SIZE)
  /** The slot and the large buffer that the read iovecs describe now. */
  #iovSlot = -1
  #iovLarge = -1
  /** Byte of the region where the last INIT lies; it stays there until the slot is used again. */
  lastInitAt = 0
  #lastUniqueLow = 0
  #lastUniqueHigh = 0

  constructor(
    region: Region, plan: WorkerPlan, features: RingFeatures, fuseFd: number, counters: Float64Array,
    hiprio: HiprioSink, init: InitPolicy, events: QueueEvents, trace: RequestTrace | null,
  ) {
    this.#region = region
    this.#plan = plan
    this.#fuseFd = fuseFd
    this.#counters = counters
    this.#hiprio = hiprio
    this.#init = init
    this.#events = events
    this.#trace = trace
    this.ring = new DriverRing(region, plan.ring, features)
    const { slotCount, largeCount } = plan
    this.#freeSlots = new Int32Array(slotCount)
    for (let i = 0; i < slotCount; i++) this.#freeSlots[i] = slotCount - 1 - i
    this.#freeSlotCount = slotCount
    this.#freeLarge = new Int32Array(largeCount)
    for (let i = 0; i < largeCount; i++) this.#freeLarge[i] = largeCount - 1 - i
    this.#freeLargeCount = largeCount
    this.#opcode = new Uint16Array(slotCount)
    this.#uniqueLow = new Uint32Array(slotCount)
    this.#uniqueHigh = new Uint32Array(slotCount)
    this.#fixedBytes = new Uint32Array(slotCount)
    this.#payloadBytes = new Uint32Array(slotCount)
    this.#payloadAt = new Float64Array(slotCount)
    this.#largeIn = new Int32Array(slotCount).fill(NO_BUFFER)
    this.#largeOut = new Int32Array(slotCount).fill(NO_BUFFER)
    this.#startMs = new Float64Array(slotCount)
    this.#readIov = this.#iov.address
    this.#writeIov = this.#iov.address + 2 * IOVEC_BYTES
  }

  /** Whether there is room to read one more request, whatever it turns out to be. */
  get hasRoom(): boolean {
    // a large buffer for the read itself, one more when the reply is large too
    return this.#freeSlotCount > 0 && this.#freeLargeCount > 1 && this.ring.freeCount >= this.ring.cost(Slot.TABLE_LENGTH)
  }

  /** Slots that no request holds. */
  get freeSlots(): number {
    return this.#freeSlotCount
  }

  /** Large buffers that no request holds. */
  get freeLargeBuffers(): number {
    return this.#freeLargeCount
  }

  #slotAt(slot: number): number {
    return this.#plan.slots + slot * Slot.SIZE
  }

  #largeAt(large: number): number {
    return this.#plan.large + large * MAX_WRITE
  }

  #setIov(index: number, address: number, lengthBytes: number): void {
    setU64(this.#iov.view, index * IOVEC_BYTES, address)
    setU64(this.#iov.view, index * IOVEC_BYTES + 8, lengthBytes)
  }

  /** Reads one request from the kernel and puts it on its way, without notifying the device. */
  receive(): Received {
    if (!this.hasRoom) return Received.FULL
    const slot = this.#freeSlots[this.#freeSlotCount - 1]!
    const large = this.#freeLarge[this.#freeLargeCount - 1]!
    const at = this.#slotAt(slot)
    const largeAt = this.#largeAt(large)
    if (slot !== this.#iovSlot) this.#setIov(0, this.#region.address + at + Slot.IN, REQUEST_HEAD_BYTES)
    if (large !== this.#iovLarge) this.#setIov(1, this.#region.address + largeAt, MAX_WRITE)
    this.#iovSlot = slot
    this.#iovLarge = large
    const length = readv(this.#fuseFd, this.#readIov, 2)
    if (length < 0) return this.#readFailed(length)

    const { view, bytes } = this.#region
    const head = at + Slot.IN
    const opcode = view.getUint32(head + FuseInHeader.opcode, true)
    let inLarge = NO_BUFFER
    if (length > REQUEST_HEAD_BYTES) {
      if (opcode !== Op.WRITE && length <= Slot.IN_BYTES) bytes.copyWithin(head + REQUEST_HEAD_BYTES, largeAt, largeAt + length - REQUEST_HEAD_BYTES)
      else inLarge = large
    }
    this.#lastUniqueLow = view.getUint32(head + FuseInHeader.unique, true)
    this.#lastUniqueHigh = view.getUint32(head + FuseInHeader.unique + 4, true)
    this.#counters[Counter.REQUESTS]!++
    this.#counters[Counter.OPCODES + (opcode < OPCODE_LIMIT ? opcode : 0)]!++
    if (!hasReply(opcode)) {
      this.#toHiprio(opcode, head, inLarge === NO_BUFFER ? head + REQUEST_HEAD_BYTES : largeAt)
      return Received.ONE
    }
    if (this.#trace !== null) this.#trace.received(view, head)
    if (!this.connected) {
      this.#answer(this.#lastUniqueLow, this.#lastUniqueHigh, -errno.ENOTCONN)
      return Received.ONE
    }
    if (opcode === Op.INIT) {
      adaptInitRequest(view, head, this.#init)
      this.lastInitAt = head
    } else if (opcode === Op.WRITE) {
      this.#counters[Counter.BYTES_WRITTEN]! += length - REQUEST_HEAD_BYTES
    }
    this.#freeSlotCount--
    if (inLarge !== NO_BUFFER) this.#freeLargeCount--
    this.#enqueue(slot, opcode, length, inLarge)
    return Received.ONE
  }

  #readFailed(error: number): Received {
    switch (-error) {
      case errno.EAGAIN: return Received.NONE
      // ENOENT: the request was interrupted before it was read; EINTR: a signal
      case errno.ENOENT: case errno.EINTR: return Received.ONE
      default: return Received.UNMOUNTED
    }
  }

  /** FORGET, BATCH_FORGET, INTERRUPT: copied, so the slot stays free. @param tailAt where bytes from 80 on lie */
  #toHiprio(opcode: number, head: number, tailAt: number): void {
    const { view } = this.#region
    if (this.#trace !== null) this.#trace.hiprio(opcode, view, head)
    const arg = head + FuseInHeader.SIZE
    switch (opcode) {
      case Op.FORGET:
        this.#hiprio.forget(
          view.getUint32(head + FuseInHeader.nodeid, true), view.getUint32(head + FuseInHeader.nodeid + 4, true),
          view.getUint32(arg + FuseForgetIn.nlookup, true), view.getUint32(arg + FuseForgetIn.nlookup + 4, true))
        break
      case Op.BATCH_FORGET: {
        const count = view.getUint32(arg + FuseBatchForgetIn.count, true)
        for (let i = 0, p = FuseInHeader.SIZE + FuseBatchForgetIn.SIZE; i < count; i++, p += FuseForgetOne.SIZE) {
          // 80 is 48 + 2 × 16: no element straddles the two buffers
          const one = p < REQUEST_HEAD_BYTES ? head + p : tailAt + p - REQUEST_HEAD_BYTES
          this.#hiprio.forget(
            view.getUint32(one + FuseForgetOne.nodeid, true), view.getUint32(one + FuseForgetOne.nodeid + 4, true),
            view.getUint32(one + FuseForgetOne.nlookup, true), view.getUint32(one + FuseForgetOne.nlookup + 4, true))
        }
        break
      }
      case Op.INTERRUPT:
        this.#hiprio.interrupt(view.getUint32(arg + FuseInterruptIn.unique, true), view.getUint32(arg + FuseInterruptIn.unique + 4, true))
        break
    }
  }

  /** Builds the chain of a slot (readable parts, then writable ones) and makes it available. */
  #enqueue(slot: number, opcode: number, length: number, inLarge: number): void {
    const { view, address } = this.#region
    const at = this.#slotAt(slot)
    const head = at + Slot.IN
    const fixedBytes = replyFixedBytes(opcode)
    const payloadBytes = replyPayloadBytes(opcode, view, head)
    let outLarge = NO_BUFFER
    let payloadAt = at + Slot.PAGE
    if (payloadBytes > MAX_WRITE) {
      this.#releaseBuffers(slot, inLarge, NO_BUFFER)
      this.#answer(this.#lastUniqueLow, this.#lastUniqueHigh, -errno.EIO)
      return
    }
    if (payloadBytes > PAGE_SIZE) {
      outLarge = this.#freeLarge[--this.#freeLargeCount]!
      payloadAt = this.#largeAt(outLarge)
    }
    this.#opcode[slot] = opcode
    this.#uniqueLow[slot] = this.#lastUniqueLow
    this.#uniqueHigh[slot] = this.#lastUniqueHigh
    this.#fixedBytes[slot] = fixedBytes
    this.#payloadBytes[slot] = payloadBytes
    this.#payloadAt[slot] = payloadAt
    this.#largeIn[slot] = inLarge
    this.#largeOut[slot] = outLarge
    if (this.#trace !== null) this.#startMs[slot] = performance.now()

    const table = at + Slot.TABLE
    let count = 0
    if (inLarge === NO_BUFFER) {
      writeDescriptor(view, table, count++, address + head, length, 0, false)
    } else {
      writeDescriptor(view, table, count++, address + head, REQUEST_HEAD_BYTES, 0, false)
      writeDescriptor(view, table, count++, address + this.#largeAt(inLarge), length - REQUEST_HEAD_BYTES, 0, false)
    }
    writeDescriptor(view, table, count++, address + at + Slot.OUT, fixedBytes, VIRTQ_DESC_F_WRITE, payloadBytes === 0)
    if (payloadBytes > 0) writeDescriptor(view, table, count++, address + payloadAt, payloadBytes, VIRTQ_DESC_F_WRITE, true)
    // a device that leaves the header unwritten must not be heard saying what an older reply said
    view.setUint32(at + Slot.OUT + FuseOutHeader.len, 0, true)
    this.ring.add(table, address + table, count, slot)
    this.inFlight++
  }

  /** Ends every request that the device has given back. @returns how many */
  complete(): number {
    let count = 0
    for (let slot = this.ring.popUsed(); slot >= 0; slot = this.ring.popUsed()) {
      this.#end(slot, this.ring.usedLength)
      count++
    }
    return count
  }

  /** virtio_fs_verify_response of Linux 7.1, and the bounds of the buffers. @returns 0, −errno of the reply, or −EIO */
  #end(slot: number, used: number): void {
    const { view, address } = this.#region
    const at = this.#slotAt(slot)
    const out = at + Slot.OUT
    const opcode = this.#opcode[slot]!
    const fixedBytes = this.#fixedBytes[slot]!
    const error = view.getInt32(out + FuseOutHeader.error, true)
    const sound = used >= FuseOutHeader.SIZE && used <= fixedBytes + this.#payloadBytes[slot]!
      && view.getUint32(out + FuseOutHeader.len, true) === used
      && view.getUint32(out + FuseOutHeader.unique, true) === this.#uniqueLow[slot]!
      && view.getUint32(out + FuseOutHeader.unique + 4, true) === this.#uniqueHigh[slot]!
      && error <= 0 && error > -ERROR_LIMIT && (error === 0 || used === FuseOutHeader.SIZE)
    this.inFlight--
    if (error !== 0) this.#counters[Counter.ERRORS]!++
    if (opcode === Op.DESTROY && (sound || used === 0)) {
      // the Rust virtiofsd gives DESTROY back unwritten, the C one with a header: both are right
      this.#releaseBuffers(slot, this.#largeIn[slot]!, this.#largeOut[slot]!)
      if (this.#trace !== null) this.#trace.ended(view, at + Slot.IN, opcode, 0, used, this.#startMs[slot]!)
      this.#events.destroyed()
      return
    }
    if (!sound) {
      this.#counters[Counter.BAD_REPLIES]!++
      this.#answer(this.#uniqueLow[slot]!, this.#uniqueHigh[slot]!, -errno.EIO)
    } else {
      if (opcode === Op.INIT) {
        adaptInitReply(view, out, this.#init)
        this.#events.initAnswered(error, view, out + FuseOutHeader.SIZE)
      }
      let written
      if (used <= fixedBytes) {
        written = write(this.#fuseFd, address + out, used)
      } else {
        this.#setIov(2, address + out, fixedBytes)
        this.#setIov(3, address + this.#payloadAt[slot]!, used - fixedBytes)
        written = writev(this.#fuseFd, this.#writeIov, 2)
        if (opcode === Op.READ) this.#counters[Counter.BYTES_READ]! += used - fixedBytes
      }
      // ENOENT: nobody waits for it any more; ENODEV: unmounted meanwhile
      if (written < 0) this.#counters[Counter.DROPPED_REPLIES]!++
    }
    if (this.#trace !== null) this.#trace.ended(view, at + Slot.IN, opcode, sound ? error : -errno.EIO, used, this.#startMs[slot]!)
    this.#releaseBuffers(slot, this.#largeIn[slot]!, this.#largeOut[slot]!)
  }

  #releaseBuffers(slot: number, inLarge: number, outLarge: number): void {
    if (outLarge !== NO_BUFFER) this.#freeLarge[this.#freeLargeCount++] = outLarge
    if (inLarge !== NO_BUFFER) this.#freeLarge[this.#freeLargeCount++] = inLarge
    this.#freeSlots[this.#freeSlotCount++] = slot
  }

  /** Answers a request without the device. */
  #answer(uniqueLow: number, uniqueHigh: number, error: number): void {
    const { view, address } = this.#ownReply
    view.setUint32(FuseOutHeader.len, FuseOutHeader.SIZE, true)
    view.setInt32(FuseOutHeader.error, error, true)
    view.setUint32(FuseOutHeader.unique, uniqueLow, true)
    view.setUint32(FuseOutHeader.unique + 4, uniqueHigh, true)
    if (write(this.#fuseFd, address, FuseOutHeader.SIZE) < 0) this.#counters[Counter.DROPPED_REPLIES]!++
  }

  /** Puts FUSE_DESTROY on the ring. Only when nothing is in flight, so there is room. */
  sendDestroy(): void {
    const slot = this.#freeSlots[--this.#freeSlotCount]!
    const head = this.#slotAt(slot) + Slot.IN
    const { view, bytes } = this.#region
    bytes.fill(0, head, head + FuseInHeader.SIZE)
    view.setUint32(head + FuseInHeader.len, FuseInHeader.SIZE, true)
    view.setUint32(head + FuseInHeader.opcode, Op.DESTROY, true)
    // the next even number: the kernel counts in steps of FUSE_REQ_ID_STEP
    this.#lastUniqueLow = (this.#lastUniqueLow + 2) >>> 0
    if (this.#lastUniqueLow < 2) this.#lastUniqueHigh++
    view.setUint32(head + FuseInHeader.unique, this.#lastUniqueLow, true)
    view.setUint32(head + FuseInHeader.unique + 4, this.#lastUniqueHigh, true)
    this.#enqueue(slot, Op.DESTROY, FuseInHeader.SIZE, NO_BUFFER)
  }

  /**
   * The device is gone: answers everything in flight with `error` (0 > error), once. Its buffers are
   * not used again, since the device may still write to them.
   *
   * @returns how many were answered
   */
  failInFlight(error: number): number {
    const slots = this.ring.outstanding()
    for (const slot of slots) {
      if (this.#opcode[slot] === Op.DESTROY) continue
      this.#answer(this.#uniqueLow[slot]!, this.#uniqueHigh[slot]!, error)
    }
    this.inFlight = 0
    this.ring.broken ||= 'the device is gone'
    return slots.length
  }
}
