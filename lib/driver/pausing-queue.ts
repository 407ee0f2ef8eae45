/**
 * A request queue whose device may go away and come back, with other memory: what it had is kept and
 * waits, in order, behind a request of the driver's own at a time, in a slot that only those use.
 *
 * States: `session` (requests go to the device), `lost` (all wait), `greeting` (INIT is under way, all
 * others wait).
 */
import { errno } from '../errors.js'
import { FuseInHeader, FuseOutHeader } from '../fuse/abi.js'
import { adaptInitReply } from '../fuse/init.js'
import { Op, replyFixedBytes } from '../fuse/opcodes.js'
import { mapAnonymous, viewRegion, type Region } from '../sys/memory.js'
import { DriverRing, type RingFeatures } from '../virtio/driver-ring.js'
import { REQUEST_HEAD_BYTES, Slot } from './memory-plan.js'
import { RequestQueue } from './request-queue.js'
import { NO_BUFFER, Waiter } from './slot-table.js'

/** Most bytes of data that are held for a device that is away, beyond what the buffers take. */
const MAX_SPILLED = 256 << 20

/** What the driver's own slot is used for. */
export const enum Task { NONE, GREET, ROOT, NODE, NAME, HANDLE, CHECK }

export abstract class PausingQueue extends RequestQueue {
  protected state: 'session' | 'lost' | 'greeting' = 'session'
  protected task = Task.NONE
  protected readonly ownSlot = this.slots.takeSlot()
  /** By slot: which came first. */
  protected readonly order = new Float64Array(this.plan.slotCount)
  /** The INIT that the first device was sent: it is sent again, byte for byte. */
  #initBytes = new Uint8Array(0)
  /** Data of WRITEs that wait for a device, by slot: so others can be read, and the INTERRUPTs that free their callers. */
  readonly #spilled = new Map<number, Uint8Array>()
  #spilledBytes = 0

  /** The session has ended; these are the requests that the device had. */
  protected abstract sessionEnded(had: readonly number[]): void
  /** Whether a request needs no device any more, and was answered. */
  protected abstract needless(slot: number): boolean
  /** The answer to a request of the driver's own but INIT. @param error 0 or −errno @param arg byte where its arguments are */
  protected abstract taskDone(task: Task, error: number, arg: number): void

  protected override initReceived(head: number, length: number): void {
    this.#initBytes = this.region.bytes.slice(head, head + length)
  }

  protected override add(slot: number): void {
    super.add(slot)
    this.watch(slot, this.slots.opcode[slot]!)
  }

  protected override release(slot: number): void {
    // the next request in this slot has data of its own
    this.forgetSpilled(slot)
    super.release(slot)
  }

  /** The slot is another request's from now on, which must not be given the data. */
  protected forgetSpilled(slot: number): void {
    this.#spilledBytes -= this.#spilled.get(slot)?.length ?? 0
    this.#spilled.delete(slot)
  }

  /** Takes the data of a WRITE out of its large buffer, while there is no device. */
  protected spill(slot: number): void {
    const { slots } = this
    const large = slots.largeIn[slot]!
    const length = slots.inBytes[slot]! - REQUEST_HEAD_BYTES
    if (large === NO_BUFFER || slots.opcode[slot] !== Op.WRITE || this.#spilledBytes + length > MAX_SPILLED) return
    const at = slots.largeAt(large)
    this.#spilled.set(slot, this.region.bytes.slice(at, at + length))
    this.#spilledBytes += length
    slots.dropLarge(slot)
  }

  /** Puts it back into one. @returns false when none is free */
  protected unspill(slot: number): boolean {
    const { slots } = this
    const data = this.#spilled.get(slot)
    if (data === undefined) return true
    if (slots.freeLargeCount === 0) return false
    const large = slots.largeIn[slot] = slots.takeLarge()
    this.region.bytes.set(data, slots.largeAt(large))
    this.forgetSpilled(slot)
    return true
  }

  protected get hasRingRoom(): boolean {
    return this.ring.freeCount >= this.ring.cost(Slot.TABLE_LENGTH)
  }

  /** Puts the request that was built in the own slot on the ring. There is room. */
  protected sendTask(task: Task, length: number): void {
    const { slots } = this
    const slot = this.ownSlot
    const opcode = this.region.view.getUint32(slots.at(slot) + FuseInHeader.opcode, true)
    this.task = task
    slots.opcode[slot] = opcode
    slots.inBytes[slot] = length
    slots.fixedBytes[slot] = replyFixedBytes(opcode)
    slots.payloadBytes[slot] = 0
    slots.largeIn[slot] = slots.largeOut[slot] = NO_BUFFER
    slots.waiter[slot] = Waiter.DRIVER
    this.putOwnUnique(slot)
    this.inFlight++
    this.add(slot)
  }

  protected override answered(slot: number, _opcode: number, sound: boolean, error: number, _used: number): boolean {
    if (slot !== this.ownSlot) return false
    const out = this.slots.at(slot) + Slot.OUT
    const result = sound ? error : -errno.EIO
    const { task } = this
    this.task = Task.NONE
    if (task === Task.GREET) {
      if (result === 0) adaptInitReply(this.region.view, out, this.init)
      this.events.greeted?.(result, this.region.view, out + FuseOutHeader.SIZE)
    } else {
      this.taskDone(task, result, out + FuseOutHeader.SIZE)
    }
    return true
  }

  /**
   * The device is gone and will come back: what it had waits again, before everything else. Nothing
   * of the shared memory is used any more, and a device that was only slow finds no requests there.
   */
  suspend(): void {
    this.state = 'lost'
    // what it answered before it went is still good
    this.complete()
    this.task = Task.NONE
    const had = this.ring.outstanding().sort((a, b) => this.order[a]! - this.order[b]!)
    const waiting = Array.from({ length: this.parked.length }, (_, place) => this.parked.at(place))
    while (this.parked.length > 0) this.parked.shift()
    for (const slot of had) this.deadline?.remove(slot)
    this.sessionEnded(had)
    for (const slot of [...had, ...waiting]) if (slot !== this.ownSlot) this.spill(slot)
    const old = this.region
    const { lengthBytes } = old
    const memory = this.private ?? viewRegion(mapAnonymous(lengthBytes), lengthBytes)
    this.#moveTo(memory, [...had, ...waiting])
    this.private = memory
    for (const slot of had) old.bytes.fill(0, this.slots.at(slot), this.slots.at(slot) + Slot.PAGE)
    this.ring = new DriverRing(memory, this.plan.ring, this.ringFeatures)
    for (const slot of [...had, ...waiting]) this.#keepWaiting(slot)
  }

  #keepWaiting(slot: number): void {
    const { slots } = this
    slots.dropLargeOut(slot)
    if (slots.waiter[slot] === Waiter.KERNEL) {
      if (!this.needless(slot)) this.parked.push(slot)
      return
    }
    // nobody waits for it, or only this driver did
    this.inFlight--
    if (slot !== this.ownSlot) this.release(slot)
  }

  /** The device is back, with memory of its own: greets it with the INIT of the first session. */
  resume(region: Region, features: RingFeatures): void {
    this.#moveTo(region, Array.from({ length: this.parked.length }, (_, place) => this.parked.at(place)))
    this.freePrivate()
    this.ring = new DriverRing(region, this.plan.ring, features)
    this.greet()
  }

  /** Begins with the INIT that another process had from the kernel, and no device. */
  protected beginAway(init: Uint8Array<ArrayBuffer>): void {
    this.#initBytes = init
    this.state = 'lost'
  }

  /** Sends the device that INIT, on memory that nobody has used. */
  greet(): void {
    this.state = 'greeting'
    this.region.bytes.set(this.#initBytes, this.slots.at(this.ownSlot))
    this.sendTask(Task.GREET, this.#initBytes.length)
  }

  /** The device has greeted back: what waits is sent. */
  goOn(): void {
    if (this.state !== 'greeting') return
    this.state = 'session'
    this.sendParked()
  }

  /** Copies requests to other memory of the same layout. */
  #moveTo(region: Region, requests: readonly number[]): void {
    const { slots } = this
    const from = this.region.bytes
    for (const slot of requests) {
      const at = slots.at(slot)
      const large = slots.largeIn[slot]!
      region.bytes.set(from.subarray(at, at + Slot.IN_BYTES), at)
      if (large !== NO_BUFFER) region.bytes.set(from.subarray(slots.largeAt(large), slots.largeAt(large) + slots.inBytes[slot]! - REQUEST_HEAD_BYTES), slots.largeAt(large))
    }
    this.region = region
  }
}
