/**
 * The far end's request queue: FUSE requests come from a stream instead of /dev/fuse, and replies go
 * back to it. What RequestQueue is for a mount: slots, chains, the check of replies.
 *
 * The near end never has more in flight than it was told (limits.ts), so a message that has begun
 * always has a place, and FORGETs and INTERRUPTs never wait behind a full ring. Who does not keep to
 * that is no near end of ours: the stream is broken.
 */
import { errno } from '../errors.js'
import { FuseAttrOut, FuseBatchForgetIn, FuseForgetIn, FuseForgetOne, FuseGetattrIn, FuseInHeader, FuseInterruptIn, FuseOutHeader } from '../fuse/abi.js'
import { adaptInitReply, adaptInitRequest, type InitPolicy } from '../fuse/init.js'
import { hasReply, Op, OPCODE_LIMIT, opcodeName, replyFixedBytes, replyPayloadBytes } from '../fuse/opcodes.js'
import { Counter } from '../driver/counters.js'
import type { HiprioQueue } from '../driver/hiprio-queue.js'
import { handOverBatch, handOverForget } from '../driver/hiprio-requests.js'
import { MAX_WRITE, REQUEST_HEAD_BYTES, Slot, type WorkerPlan } from '../driver/memory-plan.js'
import { isSound, writeChain } from '../driver/request-chain.js'
import type { RequestTrace } from '../driver/request-trace.js'
import { NO_BUFFER, SlotTable, Waiter } from '../driver/slot-table.js'
import { PAGE_SIZE, scratch, type Region } from '../sys/memory.js'
import { DriverRing, type RingFeatures } from '../virtio/driver-ring.js'
import { RelayNote, WANTS_NOTE } from './attribute-notes.js'
import { MAX_MESSAGE } from './hello.js'
import { isLargeRequest } from './limits.js'
import { changesDirectory } from './request-effects.js'
import { READ_BUFFER_BYTES, StreamReader } from './stream-reader.js'
import { StreamWriter } from './stream-writer.js'

/** Called on the queue's thread. */
export interface FarEvents {
  /** INIT was answered; `error` is 0 or −errno and the fuse_init_out is at `view[at]`. */
  initAnswered(error: number, view: DataView, at: number): void
  /** Our own DESTROY came back. */
  destroyed(): void
}

const enum Kind { NONE, REQUEST, URGENT }

/** Uniques of the driver's own requests: the near end stays below. */
const OWN_UNIQUE_HIGH = 0x20000000
const NEAR_UNIQUE_LIMIT = 0x10000000

export class FarQueue {
  readonly ring: DriverRing
  slots: SlotTable
  /** Requests that the device has. */
  inFlight = 0
  /** What the near end did wrong, or how its stream ended; '' while it is sound. */
  broken = ''
  /** Whether the near end has ended the session: by DESTROY, or by the end of its stream. */
  ended = false
  /** Byte of the region where the last INIT lies. */
  lastInitAt = 0
  trace: RequestTrace | null

  readonly #region: Region
  readonly #counters: Float64Array
  readonly #hiprio: HiprioQueue
  readonly #init: InitPolicy
  /** What the device has when it goes is not answered. */
  readonly #keepsQuiet: boolean
  readonly #events: FarEvents
  readonly #reader: StreamReader
  readonly #writer: StreamWriter
  /** Headers of replies as they go out: the device may change its own after they were checked. */
  readonly #headers: Region
  /** Whether a slot's request has not come back. */
  readonly #live: Uint8Array
  /** Notes as they go out, one for each slot. */
  readonly #notes: Region
  /** Whether a slot's change is to be followed by a note. */
  readonly #wantsNote: Uint8Array
  /** Of a GETATTR for a note: the slot of the change, whose reply is held meanwhile, + 1. */
  readonly #noteFor: Uint16Array
  readonly #heldBytes: Uint32Array
  #ownUnique = 0
  #saysNothing = false
  /** The device answers nothing any more. */
  #failed = 0

  // the message that is being read
  #kind = Kind.NONE
  #slot = 0
  #opcode = 0
  #messageBytes = 0
  /** Unique of the near end's DESTROY, which is answered when ours has been. */
  #destroyLow = 0
  #destroyHigh = 0
  #destroyAsked = false

  constructor(
    region: Region, plan: WorkerPlan, features: RingFeatures, inFd: number, outFd: number, counters: Float64Array,
    hiprio: HiprioQueue, init: InitPolicy, keepsQuiet: boolean, events: FarEvents, trace: RequestTrace | null,
  ) {
    this.#region = region
    this.#counters = counters
    this.#hiprio = hiprio
    this.#init = init
    this.#keepsQuiet = keepsQuiet
    this.#events = events
    this.trace = trace
    this.slots = new SlotTable(plan)
    this.ring = new DriverRing(region, plan.ring, features)
    this.#reader = new StreamReader(inFd, region)
    this.#writer = new StreamWriter(outFd, plan.slotCount * 4 + 1, slot => this.#sent(slot))
    this.#headers = scratch(FuseOutHeader.SIZE * (plan.slotCount + 1))
    this.#live = new Uint8Array(plan.slotCount)
    this.#notes = scratch(RelayNote.SIZE * plan.slotCount)
    this.#wantsNote = new Uint8Array(plan.slotCount)
    this.#noteFor = new Uint16Array(plan.slotCount)
    this.#heldBytes = new Uint32Array(plan.slotCount)
  }

  /** Whether the stream has to be written to before more can be sent. */
  get blocked(): boolean {
    return this.#writer.blocked
  }

  /** Bytes of replies that were not sent. */
  get unsentBytes(): number {
    return this.#writer.queuedBytes
  }

  /**
   * Reads requests and puts them on the ring, without notifying the device.
   * @param most after so many
   * @returns how many
   */
  receive(most: number): number {
    let count = 0
    while (!this.ended && count < most) {
      if (this.#advance()) {
        count++
        continue
      }
      if (this.ended) break
      const read = this.#reader.fill()
      if (read === -errno.EAGAIN) break
      if (read <= 0) this.#streamEnded(read)
    }
    return count
  }

  #streamEnded(error: number): void {
    const reader = this.#reader
    const missing = reader.left > 0 || reader.buffered > 0
    const part = reader.left > 0 ? `${this.#messageBytes - reader.left} of ${this.#messageBytes} bytes` : `${reader.buffered} bytes`
    this.#endReceiving()
    if (missing) this.broken = `the near end's stream was cut in the middle of a message (${part})`
    else if (error < 0 && error !== -errno.ECONNRESET) this.broken = `the near end's stream failed (errno ${-error})`
  }

  #endReceiving(): void {
    this.ended = true
    if (this.#kind === Kind.REQUEST) this.slots.release(this.#slot)
    this.#kind = Kind.NONE
  }

  /** Takes nothing more from the stream, and says nothing more: its near end has turned to another far end. */
  stopListening(): void {
    this.#endReceiving()
    this.#saysNothing = true
  }

  /** Goes on with the message that is being read. @returns whether one was completed */
  #advance(): boolean {
    const reader = this.#reader
    if (this.#kind === Kind.NONE) {
      if (reader.buffered < FuseInHeader.SIZE || !this.#begin()) return false
    }
    if (this.#kind === Kind.URGENT) {
      if (reader.buffered < this.#messageBytes) return false
      this.#kind = Kind.NONE
      this.#urgent()
      reader.skip(this.#messageBytes)
      return !this.ended
    }
    if (!reader.settle()) return false
    this.#kind = Kind.NONE
    this.#complete()
    return true
  }

  #bad(field: string, got: unknown, expected: string): false {
    this.broken = `the near end broke the protocol: fuse_in_header.${field} is ${String(got)}, expected ${expected}`
    this.ended = true
    return false
  }

  /** A header has come: takes a slot and says where the message goes. @returns whether it is one */
  #begin(): boolean {
    const { slots } = this
    const { view, at } = this.#reader
    const length = view.getUint32(at + FuseInHeader.len, true)
    const opcode = view.getUint32(at + FuseInHeader.opcode, true)
    const high = view.getUint32(at + FuseInHeader.unique + 4, true)
    if (length < FuseInHeader.SIZE || length > MAX_MESSAGE) return this.#bad('len', length, `${FuseInHeader.SIZE} to ${MAX_MESSAGE}`)
    this.#opcode = opcode
    this.#messageBytes = length
    if (!hasReply(opcode) || opcode === Op.DESTROY) return this.#beginUrgent(opcode, length)
    if (high >= NEAR_UNIQUE_LIMIT) return this.#bad('unique', `0x${high.toString(16)} in its high word`, `less than 0x${NEAR_UNIQUE_LIMIT.toString(16)}`)
    if (this.#isLive(view.getUint32(at + FuseInHeader.unique, true), high)) return this.#bad('unique', 'that of a request in flight', 'a new one')
    const large = isLargeRequest(opcode, length)
    if (slots.freeSlotCount <= 1 || this.ring.freeCount <= 2 * this.ring.cost(Slot.TABLE_LENGTH) || (large && slots.freeLargeCount === 0)) {
      return this.#bad('len', `${length}, with as much in flight as possible`, 'no request before some were answered')
    }
    const slot = this.#slot = slots.takeSlot()
    slots.largeIn[slot] = large ? slots.takeLarge() : NO_BUFFER
    slots.largeOut[slot] = NO_BUFFER
    const { address } = this.#region
    const head = this.#headBytes(opcode, length)
    this.#reader.place(address + slots.at(slot) + Slot.IN, head)
    if (length > head) this.#reader.place(address + this.#tailAt(slot), length - head)
    this.#kind = Kind.REQUEST
    return true
  }

  /** Bytes of a request that lie in its slot. */
  #headBytes(opcode: number, length: number): number {
    return opcode === Op.WRITE || length > Slot.IN_BYTES ? Math.min(length, REQUEST_HEAD_BYTES) : length
  }

  /** Where the others lie. */
  #tailAt(slot: number): number {
    const large = this.slots.largeIn[slot]!
    return large === NO_BUFFER ? this.slots.at(slot) + Slot.PAGE : this.slots.largeAt(large)
  }

  #isLive(low: number, high: number): boolean {
    const { slots } = this
    for (let slot = 0; slot < this.#live.length; slot++) if (this.#live[slot] === 1 && slots.uniqueLow[slot] === low && slots.uniqueHigh[slot] === high) return true
    return false
  }

  #beginUrgent(opcode: number, length: number): boolean {
    // looked at where it was read
    if (length > READ_BUFFER_BYTES) return this.#bad('len', length, `at most ${READ_BUFFER_BYTES} for ${opcodeName(opcode)}`)
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
        if (argsBytes < FuseForgetIn.SIZE) return void this.#bad('len', this.#messageBytes, 'room for a FORGET')
        handOverForget(view, at, this.#hiprio)
        break
      case Op.BATCH_FORGET: {
        const count = argsBytes < FuseBatchForgetIn.SIZE ? Infinity : view.getUint32(arg + FuseBatchForgetIn.count, true)
        if (FuseBatchForgetIn.SIZE + count * FuseForgetOne.SIZE > argsBytes) return void this.#bad('len', this.#messageBytes, `room for ${count} FORGETs`)
        handOverBatch(view, at, at + REQUEST_HEAD_BYTES, this.#messageBytes, this.#hiprio)
        break
      }
      case Op.INTERRUPT:
        if (argsBytes < FuseInterruptIn.SIZE) return void this.#bad('len', this.#messageBytes, 'room for an INTERRUPT')
        this.#hiprio.interrupt(view.getUint32(arg + FuseInterruptIn.unique, true), view.getUint32(arg + FuseInterruptIn.unique + 4, true))
        break
      case Op.DESTROY:
        this.#destroyLow = view.getUint32(at + FuseInHeader.unique, true)
        this.#destroyHigh = view.getUint32(at + FuseInHeader.unique + 4, true)
        this.#destroyAsked = true
        this.ended = true
        break
    }
  }

  /** A request is complete in its slot. */
  #complete(): void {
    const { slots } = this
    const { view } = this.#region
    const slot = this.#slot
    const head = slots.at(slot) + Slot.IN
    const opcode = this.#opcode
    this.#counters[Counter.REQUESTS]!++
    this.#counters[Counter.OPCODES + (opcode < OPCODE_LIMIT ? opcode : 0)]!++
    if (opcode === Op.WRITE) this.#counters[Counter.BYTES_WRITTEN]! += this.#messageBytes - REQUEST_HEAD_BYTES
    if (opcode === Op.INIT) {
      adaptInitRequest(view, head, this.#init)
      this.lastInitAt = head
    }
    slots.uniqueLow[slot] = view.getUint32(head + FuseInHeader.unique, true)
    slots.uniqueHigh[slot] = view.getUint32(head + FuseInHeader.unique + 4, true)
    const payloadBytes = replyPayloadBytes(opcode, view, head)
    this.#wantsNote[slot] = view.getUint16(head + FuseInHeader.padding, true) === WANTS_NOTE && changesDirectory(opcode) ? 1 : 0
    view.setUint16(head + FuseInHeader.padding, 0, true)
    slots.opcode[slot] = opcode
    slots.inBytes[slot] = this.#messageBytes
    slots.fixedBytes[slot] = replyFixedBytes(opcode)
    slots.waiter[slot] = Waiter.KERNEL
    if (this.#failed !== 0) return this.#failUnsent(slot)
    if (payloadBytes > MAX_WRITE) return this.#fail(slot, -errno.EIO)
    if (payloadBytes > PAGE_SIZE && slots.freeLargeCount === 0) {
      slots.release(slot)
      this.#bad('opcode', `${opcodeName(opcode)}, with as much in flight as possible`, 'no such request before some were answered')
      return
    }
    this.#add(slot, payloadBytes)
  }

  #add(slot: number, payloadBytes: number): void {
    const { slots } = this
    const at = slots.at(slot)
    const opcode = slots.opcode[slot]!
    const length = slots.inBytes[slot]!
    if (payloadBytes > PAGE_SIZE) slots.largeOut[slot] = slots.takeLarge()
    slots.payloadBytes[slot] = payloadBytes
    // a small WRITE has its data there, and no payload in its reply
    slots.payloadAt[slot] = slots.largeOut[slot] === NO_BUFFER ? at + Slot.PAGE : slots.largeAt(slots.largeOut[slot]!)
    if (this.trace !== null) {
      this.trace.received(this.#region.view, at + Slot.IN)
      slots.startMs[slot] = performance.now()
    }
    const head = this.#headBytes(opcode, length)
    const count = writeChain(this.#region, slots, slot, head, this.#tailAt(slot), length - head)
    this.#live[slot] = 1
    this.inFlight++
    this.ring.add(at + Slot.TABLE, this.#region.address + at + Slot.TABLE, count, slot)
  }

  /** Ends every request that the device has given back. @returns how many */
  complete(): number {
    let count = 0
    for (let slot = this.ring.popUsed(); slot >= 0; slot = this.ring.popUsed(), count++) this.#end(slot, this.ring.usedLength)
    return count
  }

  #end(slot: number, used: number): void {
    const { slots } = this
    const { view } = this.#region
    const out = slots.at(slot) + Slot.OUT
    const opcode = slots.opcode[slot]!
    const error = view.getInt32(out + FuseOutHeader.error, true)
    const sound = isSound(view, slots, slot, used, error)
    this.inFlight--
    this.#live[slot] = 0
    // the Rust virtiofsd gives DESTROY back unwritten, the C one with a header: both are right
    const traced = sound ? error : opcode === Op.DESTROY && used === 0 ? 0 : -errno.EIO
    if (this.trace !== null) this.trace.ended(view, slots, slot, traced, used)
    if (this.#noteFor[slot] !== 0) return this.#noteTaken(slot, sound && error === 0)
    if (slots.waiter[slot] === Waiter.DRIVER) {
      slots.release(slot)
      this.#events.destroyed()
      this.#answerDestroy()
      return
    }
    if (!sound) {
      this.#counters[Counter.BAD_REPLIES]!++
      return this.#fail(slot, -errno.EIO)
    }
    if (error !== 0) {
      this.#counters[Counter.ERRORS]!++
      this.#fail(slot, error)
    } else if (this.#wantsNote[slot] === 0 || !this.#askForNote(slot, used)) {
      this.#reply(slot, used)
    }
    if (opcode === Op.INIT) this.#events.initAnswered(error, view, out + FuseOutHeader.SIZE)
  }

  /** A change was made: asks the device what its directory is like now. @returns false when there is no room */
  #askForNote(slot: number, used: number): boolean {
    const { slots } = this
    if (slots.freeSlotCount <= 2 || this.ring.freeCount <= 2 * this.ring.cost(Slot.TABLE_LENGTH)) return false
    const own = slots.takeSlot()
    const head = this.#ownRequest(own, Op.GETATTR, FuseInHeader.SIZE + FuseGetattrIn.SIZE)
    const { bytes } = this.#region
    const from = slots.at(slot) + Slot.IN
    bytes.copyWithin(head + FuseInHeader.nodeid, from + FuseInHeader.nodeid, from + FuseInHeader.nodeid + 8)
    bytes.copyWithin(head + FuseInHeader.uid, from + FuseInHeader.uid, from + FuseInHeader.uid + 8)
    this.#noteFor[own] = slot + 1
    this.#heldBytes[slot] = used
    this.#add(own, 0)
    return true
  }

  /** Sends the note, if there is one, and the answer that was held for it. */
  #noteTaken(own: number, good: boolean): void {
    const { slots } = this
    const slot = this.#noteFor[own]! - 1
    this.#noteFor[own] = 0
    if (good) {
      const { view, bytes, address } = this.#notes
      const at = slot * RelayNote.SIZE
      const attr = slots.at(own) + Slot.OUT + FuseOutHeader.SIZE
      const from = slots.at(slot) + Slot.IN
      view.setUint32(at + RelayNote.len, RelayNote.SIZE, true)
      bytes.set(this.#region.bytes.subarray(from + FuseInHeader.nodeid, from + FuseInHeader.nodeid + 8), at + RelayNote.nodeid)
      view.setUint32(at + RelayNote.cause, slots.uniqueLow[slot]!, true)
      view.setUint32(at + RelayNote.cause + 4, slots.uniqueHigh[slot]!, true)
      bytes.set(this.#region.bytes.subarray(attr, attr + FuseAttrOut.SIZE), at + RelayNote.attr_out)
      this.#writer.push(address + at, RelayNote.SIZE)
    }
    slots.release(own)
    this.#reply(slot, this.#heldBytes[slot]!)
  }

  #header(cell: number, length: number, error: number, low: number, high: number): number {
    const { view, address } = this.#headers
    const at = cell * FuseOutHeader.SIZE
    view.setUint32(at + FuseOutHeader.len, length, true)
    view.setInt32(at + FuseOutHeader.error, error, true)
    view.setUint32(at + FuseOutHeader.unique, low, true)
    view.setUint32(at + FuseOutHeader.unique + 4, high, true)
    return address + at
  }

  /** Sends an error; the slot is free once it has left. */
  #fail(slot: number, error: number): void {
    this.#writer.push(this.#header(slot, FuseOutHeader.SIZE, error, this.slots.uniqueLow[slot]!, this.slots.uniqueHigh[slot]!), FuseOutHeader.SIZE, slot)
  }

  /** The device that was to have it is gone. */
  #failUnsent(slot: number): void {
    if (this.#keepsQuiet) this.slots.release(slot)
    else this.#fail(slot, this.#failed)
  }

  #reply(slot: number, used: number): void {
    const { slots } = this
    const out = slots.at(slot) + Slot.OUT
    if (slots.opcode[slot] === Op.INIT) adaptInitReply(this.#region.view, out, this.#init)
    const fixed = Math.min(used, slots.fixedBytes[slot]!) - FuseOutHeader.SIZE
    const payload = used - FuseOutHeader.SIZE - fixed
    if (slots.opcode[slot] === Op.READ) this.#counters[Counter.BYTES_READ]! += payload
    const { address } = this.#region
    const header = this.#header(slot, used, 0, slots.uniqueLow[slot]!, slots.uniqueHigh[slot]!)
    this.#writer.push(header, FuseOutHeader.SIZE, fixed + payload === 0 ? slot : -1)
    if (fixed > 0) this.#writer.push(address + out + FuseOutHeader.SIZE, fixed, payload === 0 ? slot : -1)
    if (payload > 0) this.#writer.push(address + slots.payloadAt[slot]!, payload, slot)
  }

  #sent(slot: number): void {
    if (slot < this.#live.length) this.slots.release(slot)
  }

  /** Sends what the stream takes. */
  send(): void {
    if (this.#writer.queuedBytes > 0 && (this.#saysNothing || this.#writer.flush() < 0)) this.dropReplies()
  }

  /** Nobody reads replies any more. */
  dropReplies(): void {
    this.#writer.discard()
    this.ended = true
  }

  /** Puts FUSE_DESTROY on the ring. Only when nothing is in flight. */
  sendDestroy(): void {
    const { slots } = this
    const slot = slots.takeSlot()
    this.#ownRequest(slot, Op.DESTROY, FuseInHeader.SIZE)
    this.#add(slot, 0)
  }

  /** Builds a request of this end's own in a slot, its arguments zeroed. @returns byte where it is */
  #ownRequest(slot: number, opcode: number, lengthBytes: number): number {
    const { slots } = this
    const head = slots.at(slot) + Slot.IN
    const { view, bytes } = this.#region
    bytes.fill(0, head, head + lengthBytes)
    view.setUint32(head + FuseInHeader.len, lengthBytes, true)
    view.setUint32(head + FuseInHeader.opcode, opcode, true)
    view.setUint32(head + FuseInHeader.unique, this.#ownUnique += 2, true)
    view.setUint32(head + FuseInHeader.unique + 4, OWN_UNIQUE_HIGH, true)
    slots.opcode[slot] = opcode
    slots.uniqueLow[slot] = this.#ownUnique
    slots.uniqueHigh[slot] = OWN_UNIQUE_HIGH
    slots.inBytes[slot] = lengthBytes
    slots.fixedBytes[slot] = replyFixedBytes(opcode)
    slots.waiter[slot] = Waiter.DRIVER
    slots.largeIn[slot] = slots.largeOut[slot] = NO_BUFFER
    return head
  }

  #answerDestroy(): void {
    if (!this.#destroyAsked) return
    const cell = this.#live.length
    this.#writer.push(this.#header(cell, FuseOutHeader.SIZE, 0, this.#destroyLow, this.#destroyHigh), FuseOutHeader.SIZE, cell)
  }

  /** The device is gone: everything that it has is answered with this error, and all that comes. @returns how much it had */
  failInFlight(error: number): number {
    if (this.#failed !== 0) return 0
    this.#failed = error
    this.ring.broken ||= 'the device is gone'
    let count = 0
    for (let slot = 0; slot < this.#live.length; slot++) {
      if (this.#live[slot] === 0) continue
      this.#live[slot] = 0
      // its buffers are not used again: the device may still write to them
      this.slots.largeIn[slot] = this.slots.largeOut[slot] = NO_BUFFER
      if (this.#noteFor[slot] !== 0) this.#noteTaken(slot, false)
      else if (this.slots.waiter[slot] !== Waiter.DRIVER) this.#failUnsent(slot)
      count++
    }
    this.inFlight = 0
    return count
  }

  close(): void {
    this.#reader.close()
    this.#writer.close()
  }
}
