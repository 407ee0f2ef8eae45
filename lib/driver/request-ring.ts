/**
 * Requests in their slots, on their way to the ring of one request queue: at once, or in order when
 * there is room. What makes requests, and what becomes of the replies, is in request-queue.ts.
 */
import { errno } from '../errors.js'
import { FuseInHeader, FuseOutHeader } from '../fuse/abi.js'
import { Op, replyFixedBytes, replyPayloadBytes } from '../fuse/opcodes.js'
import { PAGE_SIZE, unmap, type Region } from '../sys/memory.js'
import { DriverRing, type RingFeatures } from '../virtio/driver-ring.js'
import { Counter } from './counters.js'
import { FuseChannel } from './fuse-channel.js'
import { MAX_WRITE, Slot, type WorkerPlan } from './memory-plan.js'
import { buildChain } from './request-chain.js'
import { RequestDeadline } from './request-deadline.js'
import type { RequestTrace } from './request-trace.js'
import type { RingRoom } from './ring-room.js'
import { SlotFifo } from './slot-fifo.js'
import { NO_BUFFER, OWN_UNIQUE_HIGH, SlotTable, Waiter } from './slot-table.js'

/** Further attempts to tell the kernel of a failure: nobody else will. */
const FAIL_ATTEMPTS = 10

export class RequestRing {
  ring: DriverRing
  slots: SlotTable
  /** Requests that are on the ring or wait for it (virtio_fs_vq.in_flight). */
  inFlight = 0
  /** False once the queue is stopped: what still comes is answered ENOTCONN. */
  connected = true
  /** While the backend is replaced: nothing goes to the ring, and nothing is read that would have to. */
  paused = false

  protected region: Region
  protected readonly plan: WorkerPlan
  protected readonly ringFeatures: RingFeatures
  readonly #ringRoom: RingRoom
  protected readonly parked: SlotFifo
  readonly #parkedLimit: number
  protected readonly channel: FuseChannel
  protected readonly counters: Float64Array
  protected trace: RequestTrace | null
  /** What the device has and has to answer in time; null without a deadline for requests. */
  protected readonly deadline: RequestDeadline | null
  /** Instead of the shared memory, while there is no device. */
  protected private: Region | undefined
  /** Of the request at hand. */
  protected lastUniqueLow = 0
  protected lastUniqueHigh = 0
  #ownUnique = 0

  constructor(
    region: Region, plan: WorkerPlan, features: RingFeatures, fuseFd: number, counters: Float64Array,
    trace: RequestTrace | null, ringRoom: RingRoom, limitMs: number,
  ) {
    this.region = region
    this.plan = plan
    this.ringFeatures = features
    this.#ringRoom = ringRoom
    this.parked = new SlotFifo(plan.slotCount)
    this.#parkedLimit = plan.parked
    this.channel = new FuseChannel(fuseFd)
    this.counters = counters
    this.trace = trace
    this.deadline = limitMs > 0 ? new RequestDeadline(plan.slotCount, limitMs) : null
    this.slots = new SlotTable(plan)
    this.ring = new DriverRing(region, plan.ring, features)
  }

  /** Whether one more request may be read, whatever it turns out to be. */
  get hasRoom(): boolean {
    if (this.paused) return false
    // a large buffer for the read itself, and one for a reply: the request that waits longest can then always go on
    const buffers = this.slots.freeSlotCount > 0 && this.slots.freeLargeCount > 1
    if (!this.connected) return buffers
    const room = buffers && this.parked.length === 0 && this.ring.freeCount >= this.ring.cost(Slot.TABLE_LENGTH)
    this.#ringRoom.tell(room)
    return room || (buffers && this.parked.length < this.#parkedLimit && !this.#ringRoom.elsewhere())
  }

  /** Changes who is told of requests: nobody, or this. */
  observe(trace: RequestTrace | null): void {
    // those under way have no time of their beginning
    if (this.trace === null) this.slots.startMs.fill(0)
    this.trace = trace
  }

  /** Notes what is known of a request, and puts it on the ring, now or when there is room. */
  protected enqueue(slot: number, opcode: number, length: number, inLarge: number, waiter: number): void {
    const { slots } = this
    const at = slots.at(slot)
    const payloadBytes = replyPayloadBytes(opcode, this.region.view, at + Slot.IN)
    slots.largeIn[slot] = inLarge
    slots.largeOut[slot] = NO_BUFFER
    if (payloadBytes > MAX_WRITE) {
      this.release(slot)
      this.fail(this.lastUniqueLow, this.lastUniqueHigh, -errno.EIO)
      return
    }
    slots.opcode[slot] = opcode
    slots.uniqueLow[slot] = this.lastUniqueLow
    slots.uniqueHigh[slot] = this.lastUniqueHigh
    slots.inBytes[slot] = length
    slots.fixedBytes[slot] = replyFixedBytes(opcode)
    slots.payloadBytes[slot] = payloadBytes
    slots.payloadAt[slot] = at + Slot.PAGE
    slots.waiter[slot] = waiter
    if (this.trace !== null) slots.startMs[slot] = performance.now()
    this.inFlight++
    this.queued(slot, opcode)
  }

  /** A request is to be sent, now or when there is room. */
  protected queued(slot: number, opcode: number): void {
    this.watch(slot, opcode)
    if (this.parked.length === 0 && !this.paused && this.fits(slot)) {
      this.add(slot)
    } else {
      this.parked.push(slot)
      this.counters[Counter.PARKED]!++
    }
  }

  /** From now on the device has to answer in time. Waiting for a lock takes as long as its owner likes. */
  protected watch(slot: number, opcode: number): void {
    if (this.deadline !== null && opcode !== Op.SETLKW) this.deadline.add(slot, performance.now())
  }

  /** Milliseconds until a request is late, 0 when one is, −1 when none can be. */
  get leftMs(): number {
    return this.deadline === null || !this.connected || this.paused ? -1 : this.deadline.leftMs(performance.now())
  }

  /** For messages: the opcode of the request that is late. */
  get lateOpcode(): number {
    return this.slots.opcode[this.deadline!.oldest]!
  }

  /** Whether ring and buffers have room for a request. */
  protected fits(slot: number): boolean {
    return this.ring.freeCount >= this.ring.cost(Slot.TABLE_LENGTH) && (this.slots.payloadBytes[slot]! <= PAGE_SIZE || this.slots.freeLargeCount > 0)
  }

  /** Makes the chain of a request available to the device. */
  protected add(slot: number): void {
    const { slots } = this
    if (slots.payloadBytes[slot]! > PAGE_SIZE) slots.payloadAt[slot] = slots.largeAt(slots.largeOut[slot] = slots.takeLarge())
    const count = buildChain(this.region, slots, slot)
    const table = slots.at(slot) + Slot.TABLE
    this.ring.add(table, this.region.address + table, count, slot)
  }

  /** Sends what waited, as far as there is room. */
  protected sendParked(): void {
    while (this.parked.length > 0 && !this.paused && this.fits(this.parked.at(0))) {
      const slot = this.parked.at(0)
      this.parked.shift()
      this.add(slot)
    }
  }

  /** Answers a request without the device. */
  protected fail(uniqueLow: number, uniqueHigh: number, error: number): void {
    let written = this.channel.fail(uniqueLow, uniqueHigh, error)
    for (let i = 0; i < FAIL_ATTEMPTS && (written === -errno.EINTR || written === -errno.EAGAIN || written === -errno.ENOMEM); i++) {
      written = this.channel.fail(uniqueLow, uniqueHigh, error)
    }
    if (written < 0) this.counters[Counter.DROPPED_REPLIES]!++
  }

  /** Puts a request of the driver's own on the ring; the slot holds it but for its unique. */
  protected sendOwn(slot: number, opcode: number, length: number): void {
    this.putOwnUnique(slot)
    this.lastUniqueLow = this.slots.uniqueLow[slot]!
    this.lastUniqueHigh = OWN_UNIQUE_HIGH
    this.enqueue(slot, opcode, length, NO_BUFFER, Waiter.DRIVER)
  }

  /** Gives a request of the driver's own the next unique. */
  protected putOwnUnique(slot: number): void {
    const at = this.slots.at(slot) + Slot.IN + FuseInHeader.unique
    const low = this.#ownUnique = (this.#ownUnique + 2) >>> 0
    this.region.view.setUint32(at, this.slots.uniqueLow[slot] = low, true)
    this.region.view.setUint32(at + 4, this.slots.uniqueHigh[slot] = OWN_UNIQUE_HIGH, true)
  }

  /** Answers a request that is not on the ring without the device, and frees its slot. @param error 0 or −errno */
  protected giveUp(slot: number, error: number): void {
    const { slots } = this
    this.inFlight--
    this.deadline?.remove(slot)
    if (this.trace !== null) this.trace.ended(this.region.view, slots, slot, error, FuseOutHeader.SIZE)
    this.fail(slots.uniqueLow[slot]!, slots.uniqueHigh[slot]!, error)
    this.release(slot)
  }

  /** Frees the slot of a request that was answered. */
  protected release(slot: number): void {
    this.slots.release(slot)
  }

  /** Frees what the queue made itself. */
  close(): void {
    this.freePrivate()
  }

  protected freePrivate(): void {
    if (this.private) unmap(this.private.address, this.private.lengthBytes)
    this.private = undefined
  }
}
