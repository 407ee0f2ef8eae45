/**
 * Requests as they come from the near end: each is put into a slot, by the read itself as far as it
 * has not come yet; what needs no slot (FORGET, BATCH_FORGET, INTERRUPT, DESTROY) is handled where it
 * was read.
 *
 * The near end never has more in flight than it was told (limits.ts), so a message that has begun
 * always has a place, and FORGETs and INTERRUPTs never wait behind a full ring. Who does not keep to
 * that is no near end of ours: the stream is broken. Belongs to the far thread.
 */
import { errno } from '../errors.js'
import { FuseBatchForgetIn, FuseForgetIn, FuseForgetOne, FuseInHeader, FuseInterruptIn } from '../fuse/abi.js'
import { hasReply, Op, OPCODE_LIMIT, opcodeName, replyFixedBytes } from '../fuse/opcodes.js'
import { Counter } from '../driver/counters.js'
import type { HiprioQueue } from '../driver/hiprio-queue.js'
import { handOverBatch, handOverForget } from '../driver/hiprio-requests.js'
import { REQUEST_HEAD_BYTES, Slot } from '../driver/memory-plan.js'
import { NO_BUFFER, Waiter, type SlotTable } from '../driver/slot-table.js'
import type { Region } from '../sys/memory.js'
import type { DriverRing } from '../virtio/driver-ring.js'
import { MAX_MESSAGE } from './hello.js'
import { isLargeRequest } from './limits.js'
import { READ_BUFFER_BYTES, StreamReader } from './stream-reader.js'

/** What `next` says when it is no slot: a message that needs none was handled, or there is none now. */
export const HANDLED = -1
export const NOTHING = -2
/** Uniques of the near end stay below; the driver's own requests are above (far-queue.ts). */
const NEAR_UNIQUE_LIMIT = 0x10000000

const enum Kind { NONE, REQUEST, URGENT }

/** Bytes of a request that lie in its slot. */
export function headBytes(opcode: number, length: number): number {
  return opcode === Op.WRITE || length > Slot.IN_BYTES ? Math.min(length, REQUEST_HEAD_BYTES) : length
}

/** Byte of the region where the others lie. */
export function tailAt(slots: SlotTable, slot: number): number {
  const large = slots.largeIn[slot]!
  return large === NO_BUFFER ? slots.at(slot) + Slot.PAGE : slots.largeAt(large)
}

export class FarReceiver {
  /** What the near end did wrong, or how its stream ended; '' while it is sound. */
  broken = ''
  /** Nothing more is taken from the stream: DESTROY has come, or the end, or nobody reads replies. */
  ended = false
  /** Unique of the near end's DESTROY, which is answered when ours has been. */
  destroyAsked = false
  destroyLow = 0
  destroyHigh = 0
  readonly #region: Region
  readonly #slots: SlotTable
  readonly #ring: DriverRing
  readonly #live: Uint8Array
  readonly #counters: Float64Array
  readonly #hiprio: HiprioQueue
  readonly #reader: StreamReader

  // the message that is being read
  #kind = Kind.NONE
  #slot = 0
  #opcode = 0
  #messageBytes = 0

  /**
   * @param inFd not blocking; the caller's
   * @param ring that requests are for: nothing is put on it here
   * @param live of each slot, whether its request has not come back
   */
  constructor(inFd: number, region: Region, slots: SlotTable, ring: DriverRing, live: Uint8Array, counters: Float64Array, hiprio: HiprioQueue) {
    this.#region = region
    this.#slots = slots
    this.#ring = ring
    this.#live = live
    this.#counters = counters
    this.#hiprio = hiprio
    this.#reader = new StreamReader(inFd, region)
  }

  /** Goes on until a message is complete. @returns the slot that holds it, which is the caller's now; or HANDLED, or NOTHING */
  next(): number {
    while (!this.ended) {
      const found = this.#advance()
      if (found !== NOTHING) return found
      if (this.ended) break
      const read = this.#reader.fill()
      if (read === -errno.EAGAIN) break
      if (read <= 0) this.#streamEnded(read)
    }
    return NOTHING
  }

  #streamEnded(error: number): void {
    const reader = this.#reader
    const missing = reader.left > 0 || reader.buffered > 0
    const part = reader.left > 0 ? `${this.#messageBytes - reader.left} of ${this.#messageBytes} bytes` : `${reader.buffered} bytes`
    this.stop()
    if (missing) this.broken = `the near end's stream was cut in the middle of a message (${part})`
    else if (error < 0 && error !== -errno.ECONNRESET) this.broken = `the near end's stream failed (errno ${-error})`
  }

  /** Takes nothing more from the stream. */
  stop(): void {
    this.ended = true
    if (this.#kind === Kind.REQUEST) this.#slots.release(this.#slot)
    this.#kind = Kind.NONE
  }

  /** Goes on with the message that is being read. @returns as `next` */
  #advance(): number {
    const reader = this.#reader
    if (this.#kind === Kind.NONE) {
      if (reader.buffered < FuseInHeader.SIZE || !this.#begin()) return NOTHING
    }
    if (this.#kind === Kind.URGENT) {
      if (reader.buffered < this.#messageBytes) return NOTHING
      this.#kind = Kind.NONE
      this.#urgent()
      reader.skip(this.#messageBytes)
      return this.ended ? NOTHING : HANDLED
    }
    if (!reader.settle()) return NOTHING
    this.#kind = Kind.NONE
    this.#complete()
    return this.#slot
  }

  /** The near end did what it must not: the stream is broken. */
  refuse(field: string, got: unknown, expected: string): false {
    this.broken = `the near end broke the protocol: fuse_in_header.${field} is ${String(got)}, expected ${expected}`
    this.ended = true
    return false
  }

  /** A header has come: takes a slot and says where the message goes. @returns whether it is one */
  #begin(): boolean {
    const slots = this.#slots
    const ring = this.#ring
    const { view, at } = this.#reader
    const length = view.getUint32(at + FuseInHeader.len, true)
    const opcode = view.getUint32(at + FuseInHeader.opcode, true)
    const high = view.getUint32(at + FuseInHeader.unique + 4, true)
    if (length < FuseInHeader.SIZE || length > MAX_MESSAGE) return this.refuse('len', length, `${FuseInHeader.SIZE} to ${MAX_MESSAGE}`)
    this.#opcode = opcode
    this.#messageBytes = length
    if (!hasReply(opcode) || opcode === Op.DESTROY) return this.#beginUrgent(opcode, length)
    if (high >= NEAR_UNIQUE_LIMIT) return this.refuse('unique', `0x${high.toString(16)} in its high word`, `less than 0x${NEAR_UNIQUE_LIMIT.toString(16)}`)
    if (this.#isLive(view.getUint32(at + FuseInHeader.unique, true), high)) return this.refuse('unique', 'that of a request in flight', 'a new one')
    const large = isLargeRequest(opcode, length)
    if (slots.freeSlotCount <= 1 || ring.freeCount <= 2 * ring.cost(Slot.TABLE_LENGTH) || (large && slots.freeLargeCount === 0)) {
      return this.refuse('len', `${length}, with as much in flight as possible`, 'no request before some were answered')
    }
    const slot = this.#slot = slots.takeSlot()
    slots.largeIn[slot] = large ? slots.takeLarge() : NO_BUFFER
    slots.largeOut[slot] = NO_BUFFER
    const { address } = this.#region
    const head = headBytes(opcode, length)
    this.#reader.place(address + slots.at(slot) + Slot.IN, head)
    if (length > head) this.#reader.place(address + tailAt(slots, slot), length - head)
    this.#kind = Kind.REQUEST
    return true
  }

  #isLive(low: number, high: number): boolean {
    const slots = this.#slots
    for (let slot = 0; slot < this.#live.length; slot++) if (this.#live[slot] === 1 && slots.uniqueLow[slot] === low && slots.uniqueHigh[slot] === high) return true
    return false
  }

  #beginUrgent(opcode: number, length: number): boolean {
    // looked at where it was read
    if (length > READ_BUFFER_BYTES) return this.refuse('len', length, `at most ${READ_BUFFER_BYTES} for ${opcodeName(opcode)}`)
    this.#kind = Kind.URGENT
    return true
  }

  /** FORGET, BATCH_FORGET, INTERRUPT, DESTROY: complete, and still in the buffer. */
  #urgent(): void {
    const { view, at } = this.#reader
    const opcode = this.#opcode
    const arg = at + FuseInHeader.SIZE
    const argsBytes = this.#messageBytes - FuseInHeader.SIZE
    if (opcode < OPCODE_LIMIT) this.#counters[Counter.OPCODES + opcode]!++
    this.#counters[Counter.REQUESTS]!++
    switch (opcode) {
      case Op.FORGET:
        if (argsBytes < FuseForgetIn.SIZE) return void this.refuse('len', this.#messageBytes, 'room for a FORGET')
        handOverForget(view, at, this.#hiprio)
        break
      case Op.BATCH_FORGET: {
        const count = argsBytes < FuseBatchForgetIn.SIZE ? Infinity : view.getUint32(arg + FuseBatchForgetIn.count, true)
        if (FuseBatchForgetIn.SIZE + count * FuseForgetOne.SIZE > argsBytes) return void this.refuse('len', this.#messageBytes, `room for ${count} FORGETs`)
        handOverBatch(view, at, at + REQUEST_HEAD_BYTES, this.#messageBytes, this.#hiprio)
        break
      }
      case Op.INTERRUPT:
        if (argsBytes < FuseInterruptIn.SIZE) return void this.refuse('len', this.#messageBytes, 'room for an INTERRUPT')
        this.#hiprio.interrupt(view.getUint32(arg + FuseInterruptIn.unique, true), view.getUint32(arg + FuseInterruptIn.unique + 4, true))
        break
      case Op.DESTROY:
        this.destroyLow = view.getUint32(at + FuseInHeader.unique, true)
        this.destroyHigh = view.getUint32(at + FuseInHeader.unique + 4, true)
        this.destroyAsked = true
        this.ended = true
        break
    }
  }

  /** A request is complete in its slot: notes what it is, before the device can change it. */
  #complete(): void {
    const slots = this.#slots
    const { view } = this.#region
    const slot = this.#slot
    const head = slots.at(slot) + Slot.IN
    const opcode = this.#opcode
    this.#counters[Counter.REQUESTS]!++
    this.#counters[Counter.OPCODES + (opcode < OPCODE_LIMIT ? opcode : 0)]!++
    if (opcode === Op.WRITE) this.#counters[Counter.BYTES_WRITTEN]! += this.#messageBytes - REQUEST_HEAD_BYTES
    slots.uniqueLow[slot] = view.getUint32(head + FuseInHeader.unique, true)
    slots.uniqueHigh[slot] = view.getUint32(head + FuseInHeader.unique + 4, true)
    slots.opcode[slot] = opcode
    slots.inBytes[slot] = this.#messageBytes
    slots.fixedBytes[slot] = replyFixedBytes(opcode)
    slots.waiter[slot] = Waiter.KERNEL
  }

  close(): void {
    this.#reader.close()
  }
}
