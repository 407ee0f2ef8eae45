/**
 * The far end's request queue: FUSE requests come from a stream instead of /dev/fuse, and replies go
 * back to it. What RequestQueue is for a mount: slots, chains, the check of replies.
 *
 *   stream ─► FarReceiver ─► slot ─► ring ─► slot ─► FarReplies ─► stream
 *
 * - A slot has one owner at a time: the receiver, the ring (`#live`), the reply on its way; or it is
 *   held while the device is asked for a note on the directory that its request has changed.
 * - Every request is answered once: by the device or, when that is gone, with an error; unless this
 *   end keeps quiet then.
 *
 * Belongs to the far thread.
 */
import { errno } from '../errors.js'
import { FuseGetattrIn, FuseInHeader, FuseOutHeader } from '../fuse/abi.js'
import { adaptInitRequest, type InitPolicy } from '../fuse/init.js'
import { Op, opcodeName, replyFixedBytes, replyPayloadBytes } from '../fuse/opcodes.js'
import { Counter } from '../driver/counters.js'
import type { HiprioQueue } from '../driver/hiprio-queue.js'
import { MAX_WRITE, Slot, type WorkerPlan } from '../driver/memory-plan.js'
import { isSound, writeChain } from '../driver/request-chain.js'
import type { RequestTrace } from '../driver/request-trace.js'
import { NO_BUFFER, OWN_UNIQUE_HIGH, SlotTable, Waiter } from '../driver/slot-table.js'
import { PAGE_SIZE, type Region } from '../sys/memory.js'
import { DriverRing, type RingFeatures } from '../virtio/driver-ring.js'
import { WANTS_NOTE } from './attribute-notes.js'
import { FarReceiver, headBytes, NOTHING, tailAt } from './far-receiver.js'
import { FarReplies } from './far-replies.js'
import { changesDirectory } from './request-effects.js'

/** Called on the queue's thread. */
export interface FarEvents {
  /** INIT was answered; `error` is 0 or −errno and the fuse_init_out is at `view[at]`. */
  initAnswered(error: number, view: DataView, at: number): void
  /** Our own DESTROY came back. */
  destroyed(): void
}

export class FarQueue {
  readonly ring: DriverRing
  readonly slots: SlotTable
  /** Requests that the device has. */
  inFlight = 0
  /** Byte of the region where the last INIT lies. */
  lastInitAt = 0
  trace: RequestTrace | null

  readonly #region: Region
  readonly #counters: Float64Array
  readonly #init: InitPolicy
  /** What the device has when it goes is not answered. */
  readonly #keepsQuiet: boolean
  readonly #events: FarEvents
  readonly #receiver: FarReceiver
  readonly #replies: FarReplies
  /** Whether a slot's request has not come back. */
  readonly #live: Uint8Array
  /** Whether a slot's change is to be followed by a note. */
  readonly #wantsNote: Uint8Array
  /** Of a GETATTR for a note: the slot of the change, whose reply is held meanwhile, + 1. */
  readonly #noteFor: Uint16Array
  readonly #heldBytes: Uint32Array
  #ownUnique = 0
  /** The device answers nothing any more. */
  #failed = 0

  constructor(
    region: Region, plan: WorkerPlan, features: RingFeatures, inFd: number, outFd: number, counters: Float64Array,
    hiprio: HiprioQueue, init: InitPolicy, keepsQuiet: boolean, events: FarEvents, trace: RequestTrace | null,
  ) {
    this.#region = region
    this.#counters = counters
    this.#init = init
    this.#keepsQuiet = keepsQuiet
    this.#events = events
    this.trace = trace
    this.slots = new SlotTable(plan)
    this.ring = new DriverRing(region, plan.ring, features)
    this.#live = new Uint8Array(plan.slotCount)
    this.#receiver = new FarReceiver(inFd, region, this.slots, this.ring, this.#live, counters, hiprio)
    this.#replies = new FarReplies(outFd, region, plan, this.slots, counters, init)
    this.#wantsNote = new Uint8Array(plan.slotCount)
    this.#noteFor = new Uint16Array(plan.slotCount)
    this.#heldBytes = new Uint32Array(plan.slotCount)
  }

  /** What the near end did wrong, or how its stream ended; '' while it is sound. */
  get broken(): string {
    return this.#receiver.broken
  }

  /** Whether the near end has ended the session: by DESTROY, or by the end of its stream. */
  get ended(): boolean {
    return this.#receiver.ended
  }

  /** Whether the stream has to be written to before more can be sent. */
  get blocked(): boolean {
    return this.#replies.blocked
  }

  /** Bytes of replies that were not sent. */
  get unsentBytes(): number {
    return this.#replies.unsentBytes
  }

  /**
   * Reads requests and puts them on the ring, without notifying the device.
   * @param most after so many
   * @returns how many
   */
  receive(most: number): number {
    let count = 0
    while (count < most) {
      const slot = this.#receiver.next()
      if (slot === NOTHING) break
      if (slot >= 0) this.#take(slot)
      count++
    }
    return count
  }

  /** Takes nothing more from the stream, and says nothing more: its near end has turned to another far end. */
  stopListening(): void {
    this.#receiver.stop()
    this.#replies.silence()
  }

  /** A request has come: puts it on the ring, or answers it when there is no device for it. */
  #take(slot: number): void {
    const { slots } = this
    const { view } = this.#region
    const head = slots.at(slot) + Slot.IN
    const opcode = slots.opcode[slot]!
    if (opcode === Op.INIT) {
      adaptInitRequest(view, head, this.#init)
      this.lastInitAt = head
    }
    const payloadBytes = replyPayloadBytes(opcode, view, head)
    this.#wantsNote[slot] = view.getUint16(head + FuseInHeader.padding, true) === WANTS_NOTE && changesDirectory(opcode) ? 1 : 0
    view.setUint16(head + FuseInHeader.padding, 0, true)
    if (this.#failed !== 0) return this.#failUnsent(slot)
    if (payloadBytes > MAX_WRITE) return this.#replies.fail(slot, -errno.EIO)
    if (payloadBytes > PAGE_SIZE && slots.freeLargeCount === 0) {
      slots.release(slot)
      this.#receiver.refuse('opcode', `${opcodeName(opcode)}, with as much in flight as possible`, 'no such request before some were answered')
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
    const head = headBytes(opcode, length)
    const count = writeChain(this.#region, slots, slot, head, tailAt(slots, slot), length - head)
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
      return this.#replies.fail(slot, -errno.EIO)
    }
    if (error !== 0) {
      this.#counters[Counter.ERRORS]!++
      this.#replies.fail(slot, error)
    } else if (this.#wantsNote[slot] === 0 || !this.#askForNote(slot, used)) {
      this.#replies.reply(slot, used)
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
    if (good) this.#replies.note(slot, own)
    slots.release(own)
    this.#replies.reply(slot, this.#heldBytes[slot]!)
  }

  /** The device that was to have it is gone. */
  #failUnsent(slot: number): void {
    if (this.#keepsQuiet) this.slots.release(slot)
    else this.#replies.fail(slot, this.#failed)
  }

  /** Sends what the stream takes. */
  send(): void {
    // who reads no replies has ended the session
    if (!this.#replies.send()) this.#receiver.ended = true
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
    const { destroyAsked, destroyLow, destroyHigh } = this.#receiver
    if (destroyAsked) this.#replies.answerDestroy(destroyLow, destroyHigh)
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
    this.#receiver.close()
    this.#replies.close()
  }
}
