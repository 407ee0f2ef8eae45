/**
 * A request queue that outlives its backend (on_disconnect=wait). The kernel has numbers of ours for
 * nodes and open files (session-ids.ts); what a device had when it went away waits, in order, and is
 * sent again in the next session (resend-rules.ts).
 *
 * States: `session` (requests go to the device), `lost` (all wait), `greeting` (INIT is under way, all
 * others wait). In a session the oldest request that waits is the only one that may need something:
 * its nodes looked up, its files opened again, or the outcome of its first try. That is one request
 * of the driver's own at a time, in a slot of its own; the others wait behind, in order.
 */
import { errno } from '../errors.js'
import { FuseEntryOut, FuseInHeader, FuseOutHeader, FuseWriteIn, FuseWriteOut } from '../fuse/abi.js'
import { adaptInitReply } from '../fuse/init.js'
import { Op, replyFixedBytes } from '../fuse/opcodes.js'
import { mapAnonymous, viewRegion, type Region } from '../sys/memory.js'
import { DriverRing, type RingFeatures } from '../virtio/driver-ring.js'
import { setU64 } from '../wire/u64.js'
import { isBeingKilled } from './abandoned-reply.js'
import type { HiprioSink } from './hiprio-queue.js'
import { REQUEST_HEAD_BYTES, Slot } from './memory-plan.js'
import { ROOT } from './node-table.js'
import { Outcome, OutcomeCheck } from './outcome-check.js'
import { RequestQueue } from './request-queue.js'
import { afterResend, Again, beforeResend } from './resend-rules.js'
import { RootAnswers } from './root-answers.js'
import { HOPELESS, SessionIds } from './session-ids.js'
import { NO_BUFFER, Waiter } from './slot-table.js'

const NONE = -1
const HIGH = 0x1_0000_0000

/** What the driver's own slot is used for. */
const enum Task { NONE, GREET, ROOT, NODE, HANDLE, CHECK }

/** Of a request: the device of an earlier session had it; its outcome is to be looked up; is known. */
const enum Stage { NEW, SENT, CHECK, CHECKED }

export class SessionQueue extends RequestQueue {
  #state: 'session' | 'lost' | 'greeting' = 'session'
  readonly #ids: SessionIds
  readonly #ownSlot: number
  #task = Task.NONE
  /** The node or the handle of the task, and the request for whose sake it is done. */
  #subject = NONE
  #subjectReuse = 0
  #forOrder = NONE
  // of each slot
  readonly #stage: Uint8Array
  readonly #order: Float64Array
  readonly #readMs: Float64Array
  readonly #error: Int32Array
  #count = 0
  /** The INIT that the first device was sent: it is sent again, byte for byte. */
  #initBytes = new Uint8Array(0)
  readonly #check: OutcomeCheck
  readonly #root = new RootAnswers()
  #begun = false

  constructor(...args: ConstructorParameters<typeof RequestQueue>) {
    super(...args)
    const { slotCount } = this.plan
    this.#ids = new SessionIds(this.slots, slotCount)
    this.#check = new OutcomeCheck(this.#ids, this.slots)
    this.#ownSlot = this.slots.takeSlot()
    this.#stage = new Uint8Array(slotCount)
    this.#order = new Float64Array(slotCount)
    this.#readMs = new Float64Array(slotCount)
    this.#error = new Int32Array(slotCount)
    const { hiprio } = this
    const { nodes } = this.#ids
    // the device hears of FORGETs when a node is given up
    nodes.table.released = (low, high, lookups) => hiprio.forget(low, high, lookups >>> 0, Math.floor(lookups / HIGH))
    this.forgets = {
      forget: (low, high, countLow, countHigh) => nodes.forget(low, high, countHigh * HIGH + countLow),
      interrupt: (low, high) => hiprio.interrupt(low, high),
      flush: () => hiprio.flush(),
    } satisfies HiprioSink
  }

  protected override initReceived(head: number, length: number): void {
    this.#initBytes = this.region.bytes.slice(head, head + length)
  }

  protected override queued(slot: number, opcode: number): void {
    this.#order[slot] = ++this.#count
    this.#stage[slot] = Stage.NEW
    if (this.slots.waiter[slot] !== Waiter.KERNEL || opcode === Op.INIT) {
      this.#ids.noteNothing(slot)
    } else {
      this.#readMs[slot] = Date.now()
      const error = this.#ids.note(slot, opcode, this.region.view, this.slots.at(slot))
      if (error < 0) {
        this.#ids.noteNothing(slot)
        return this.giveUp(slot, error)
      }
      if (this.#isMoot(slot)) return this.#done(slot)
      if (this.#state !== 'session' && this.#ids.nodeOf(slot) === ROOT && this.#root.knows(opcode)) return this.#answerRoot(slot, opcode)
    }
    this.parked.push(slot)
    this.sendParked()
  }

  #isMoot(slot: number): boolean {
    return this.#ids.isMoot(slot, this.slots.opcode[slot]!, this.#task === Task.HANDLE ? this.#subject : NONE)
  }

  /** A request needs no device, or had been carried out. */
  #done(slot: number): void {
    this.#ids.carriedOut(slot, this.slots.opcode[slot]!, this.region)
    this.giveUp(slot, 0)
  }

  protected override giveUp(slot: number, error: number): void {
    if (this.trace !== null) this.#ids.restore(slot, this.slots.opcode[slot]!, this.region.view, this.slots.at(slot))
    super.giveUp(slot, error)
  }

  protected override mustWait(slot: number): boolean {
    return this.#stage[slot] !== Stage.NEW && !isBeingKilled(this.region.view.getUint32(this.slots.at(slot) + FuseInHeader.pid, true))
  }

  protected override add(slot: number): void {
    super.add(slot)
    this.watch(slot, this.slots.opcode[slot]!)
  }

  protected override sendParked(): void {
    if (this.paused) return
    if (this.#begun && this.#state === 'session' && this.#task === Task.NONE && this.#hasRingRoom) this.#learnRoot()
    while (this.parked.length > 0 && this.#state === 'session' && this.#task === Task.NONE) {
      const slot = this.parked.at(0)
      const opcode = this.slots.opcode[slot]!
      if (this.slots.waiter[slot] === Waiter.KERNEL && opcode !== Op.INIT) {
        const answer = this.#prepare(slot, opcode)
        if (answer === WAIT) return
        if (answer !== SEND) {
          this.parked.shift()
          if (answer === 0) this.#done(slot)
          else this.giveUp(slot, answer)
          continue
        }
      }
      if (!this.fits(slot)) return
      this.parked.shift()
      this.#ids.write(slot, opcode, this.region.view, this.slots.at(slot))
      this.add(slot)
    }
  }

  /** Asks what umount(8) will want to know. */
  #learnRoot(): void {
    const opcode = !this.#root.knows(Op.GETATTR) ? Op.GETATTR : !this.#root.knows(Op.STATFS) ? Op.STATFS : 0
    if (opcode === 0) this.#begun = false
    else this.#sendTask(Task.ROOT, this.#root.buildRequest(opcode, this.region, this.slots.at(this.#ownSlot)))
  }

  get #hasRingRoom(): boolean {
    return this.ring.freeCount >= this.ring.cost(Slot.TABLE_LENGTH)
  }

  /**
   * What the oldest request needs; the first of it is sent for.
   *
   * @returns SEND, WAIT, or 0 or −errno to answer it with
   */
  #prepare(slot: number, opcode: number): number {
    if (this.#isMoot(slot)) return 0
    const head = this.slots.at(slot)
    if (this.#stage[slot] === Stage.SENT) {
      const again = beforeResend(opcode, this.region.view, head)
      if (again === Again.UNKNOWN) return -errno.EIO
      if (again === Again.CHECK) this.#stage[slot] = Stage.CHECK
    }
    let node = this.#ids.missingNode(slot)
    const handle = node === NONE ? this.#ids.missingHandle(slot) : NONE
    if (handle >= 0) node = this.#ids.nodes.table.nextToLookUp(this.#ids.handles.node[handle]!)
    if (node === HOPELESS || handle === HOPELESS) return -errno.ESTALE
    if (node === NONE && this.#stage[slot] !== Stage.CHECK) node = this.#ids.missingChild(slot, opcode, this.region)
    if (node === NONE && handle === NONE && this.#stage[slot] !== Stage.CHECK) return SEND
    if (!this.#hasRingRoom) return WAIT
    this.#forOrder = this.#order[slot]!
    const own = this.slots.at(this.#ownSlot)
    if (node >= 0) {
      this.#subject = node
      this.#subjectReuse = this.#ids.nodes.table.reuse[node]!
      this.#sendTask(Task.NODE, this.#ids.nodes.buildLookup(node, this.region, own))
    } else if (handle >= 0) {
      this.#subject = handle
      this.#sendTask(Task.HANDLE, this.#ids.buildOpen(handle, this.region, own))
    } else {
      this.#sendTask(Task.CHECK, this.#check.build(slot, this.region, own))
    }
    return WAIT
  }

  /** Puts the request that was built in the own slot on the ring. There is room. */
  #sendTask(task: Task, length: number): void {
    const { slots } = this
    const slot = this.#ownSlot
    const opcode = this.region.view.getUint32(slots.at(slot) + FuseInHeader.opcode, true)
    this.#task = task
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

  protected override answered(slot: number, opcode: number, sound: boolean, error: number, used: number): boolean {
    const { slots, region } = this
    const at = slots.at(slot)
    if (slot === this.#ownSlot) {
      this.#taskDone(sound ? error : -errno.EIO, at + Slot.OUT)
      return true
    }
    if (opcode === Op.INIT) this.#begun = sound && error === 0
    if (slots.waiter[slot] === Waiter.DRIVER || opcode === Op.INIT) return false
    const kernel = slots.waiter[slot] === Waiter.KERNEL
    if (sound && error === 0) {
      this.#ids.carriedOut(slot, opcode, region)
      if (this.#ids.nodeOf(slot) === ROOT) this.#root.keep(opcode, region, at + Slot.OUT + FuseOutHeader.SIZE)
      if (kernel) this.#ids.replied(slot, opcode, region, at + Slot.OUT, slots.payloadAt[slot]!, Math.max(0, used - slots.fixedBytes[slot]!))
    } else if (sound && kernel && this.#stage[slot] === Stage.SENT) {
      const again = afterResend(opcode, error, region.view, at)
      if (again !== Again.PLAIN) {
        // it ends by giveUp
        this.inFlight++
        if (again === Again.DONE) this.#done(slot)
        else if (again === Again.UNKNOWN) this.giveUp(slot, -errno.EIO)
        else this.#checkLater(slot, error)
        return true
      }
    }
    if (kernel && this.trace !== null) this.#ids.restore(slot, opcode, region.view, at)
    return false
  }

  #checkLater(slot: number, error: number): void {
    this.#stage[slot] = Stage.CHECK
    this.#error[slot] = error
    this.parked.pushFirst(slot)
  }

  /** The answer to a request of the driver's own. @param error 0 or −errno @param out byte of its fuse_out_header */
  #taskDone(error: number, out: number): void {
    const { view } = this.region
    const arg = out + FuseOutHeader.SIZE
    const task = this.#task
    this.#task = Task.NONE
    // its request may have been given up meanwhile
    const slot = this.parked.length > 0 && this.#order[this.parked.at(0)] === this.#forOrder ? this.parked.at(0) : NONE
    if (task === Task.GREET) {
      if (error === 0) adaptInitReply(view, out, this.init)
      this.events.greeted?.(error, view, arg)
    } else if (task === Task.ROOT) {
      if (error === 0) this.#root.keep(this.slots.opcode[this.#ownSlot]!, this.region, arg)
      else this.#begun = false
    } else if (task === Task.NODE) {
      this.#nodeAnswered(slot, error, arg)
    } else if (task === Task.HANDLE) {
      if (error === 0) this.#ids.reopened(this.#subject, view, arg)
      else if (isPassing(error)) this.#giveUpFirst(slot, error)
      else this.#ids.notReopened(this.#subject)
    } else if (task === Task.CHECK) {
      if (this.slots.opcode[this.#ownSlot] === Op.LOOKUP) this.#forgetEntry(error, arg)
      if (slot !== NONE) this.#checked(slot, error, arg)
    }
  }

  #nodeAnswered(slot: number, error: number, entry: number): void {
    const { nodes } = this.#ids
    const node = this.#subject
    // the kernel may have forgotten it meanwhile
    const still = nodes.table.reuse[node] === this.#subjectReuse
    if (error !== 0) {
      if (isPassing(error)) this.#giveUpFirst(slot, error)
      else if (still) nodes.table.clearPath(node)
    } else if (!still || !nodes.found(node, this.region.view, entry)) {
      this.#forgetEntry(0, entry)
    }
  }

  /** Gives the lookup back that an entry came with. */
  #forgetEntry(error: number, entry: number): void {
    const { view } = this.region
    const low = view.getUint32(entry + FuseEntryOut.nodeid, true)
    const high = view.getUint32(entry + FuseEntryOut.nodeid + 4, true)
    if (error === 0 && (low !== 0 || high !== 0)) this.hiprio.forget(low, high, 1, 0)
  }

  #giveUpFirst(slot: number, error: number): void {
    if (slot === NONE) return
    this.parked.shift()
    this.giveUp(slot, error)
  }

  /** What was looked up for the sake of the first request that waits. @param arg byte of fuse_entry_out, or of fuse_attr_out */
  #checked(slot: number, error: number, arg: number): void {
    const outcome = this.#check.outcome(slot, this.region, error, arg, this.#error[slot]!, this.#readMs[slot]!)
    this.#stage[slot] = Stage.CHECKED
    if (outcome === Outcome.SEND) return
    if (outcome === Outcome.LOOK_UP) return this.#lookUpInstead(slot)
    this.parked.shift()
    if (outcome === Outcome.DONE) this.#done(slot)
    else if (outcome === Outcome.WRITTEN) this.#answerWritten(slot)
    else this.giveUp(slot, outcome)
  }

  /** What is known of the root, while nobody else can be asked. */
  #answerRoot(slot: number, opcode: number): void {
    const out = this.slots.at(slot) + Slot.OUT
    this.#answer(slot, out, this.#root.buildReply(opcode, this.region, out, this.slots.uniqueLow[slot]!, this.slots.uniqueHigh[slot]!))
  }

  /** A reply of our own, that lies at `out`. */
  #answer(slot: number, out: number, length: number): void {
    const { slots } = this
    const { view, address } = this.region
    this.channel.reply(address + out, length)
    this.inFlight--
    if (this.trace !== null) {
      this.#ids.restore(slot, slots.opcode[slot]!, view, slots.at(slot))
      this.trace.ended(view, slots, slot, 0, length)
    }
    slots.release(slot)
  }

  /** A WRITE that had been carried out is answered as its device would have. */
  #answerWritten(slot: number): void {
    const { slots } = this
    const { view } = this.region
    const out = slots.at(slot) + Slot.OUT
    view.setUint32(out + FuseOutHeader.len, FuseOutHeader.SIZE + FuseWriteOut.SIZE, true)
    view.setInt32(out + FuseOutHeader.error, 0, true)
    view.setUint32(out + FuseOutHeader.unique, slots.uniqueLow[slot]!, true)
    view.setUint32(out + FuseOutHeader.unique + 4, slots.uniqueHigh[slot]!, true)
    setU64(view, out + FuseOutHeader.SIZE, view.getUint32(slots.at(slot) + FuseInHeader.SIZE + FuseWriteIn.size, true))
    this.#answer(slot, out, FuseOutHeader.SIZE + FuseWriteOut.SIZE)
  }

  /** A request that made an entry turns into the LOOKUP of it. */
  #lookUpInstead(slot: number): void {
    const { slots } = this
    slots.inBytes[slot] = this.#ids.turnIntoLookup(slot, slots.opcode[slot]!, this.region)
    slots.opcode[slot] = Op.LOOKUP
    slots.fixedBytes[slot] = replyFixedBytes(Op.LOOKUP)
    slots.payloadBytes[slot] = 0
    slots.dropLarge(slot)
  }

  /**
   * The device is gone and will come back: what it had waits again, before everything else. Nothing
   * of the shared memory is used any more, and a device that was only slow finds no requests there.
   */
  suspend(): void {
    this.#state = 'lost'
    // what it answered before it went is still good
    this.complete()
    this.#task = Task.NONE
    const had = this.ring.outstanding().sort((a, b) => this.#order[a]! - this.#order[b]!)
    const waiting = Array.from({ length: this.parked.length }, (_, place) => this.parked.at(place))
    while (this.parked.length > 0) this.parked.shift()
    this.#ids.newSession()
    for (const slot of had) {
      this.deadline?.remove(slot)
      this.#stage[slot] = Stage.SENT
    }
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
      if (this.#isMoot(slot)) this.#done(slot)
      else this.parked.push(slot)
      return
    }
    // nobody waits for it, or only this driver did
    this.inFlight--
    if (slot !== this.#ownSlot) slots.release(slot)
  }

  /** The device is back, with memory of its own: greets it with the INIT of the first session. */
  resume(region: Region, features: RingFeatures): void {
    this.#moveTo(region, Array.from({ length: this.parked.length }, (_, place) => this.parked.at(place)))
    this.freePrivate()
    this.ring = new DriverRing(region, this.plan.ring, features)
    this.#state = 'greeting'
    region.bytes.set(this.#initBytes, this.slots.at(this.#ownSlot))
    this.#sendTask(Task.GREET, this.#initBytes.length)
  }

  /** The device has greeted back: what waits is sent. */
  goOn(): void {
    if (this.#state !== 'greeting') return
    this.#state = 'session'
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

const SEND = 1
const WAIT = 2

/** Errors that say nothing of the file: it may be there at the next try. */
function isPassing(error: number): boolean {
  switch (-error) {
    case errno.ENOENT: case errno.ENOTDIR: case errno.ESTALE: case errno.EACCES: case errno.EPERM: case errno.ELOOP: case errno.EISDIR: case errno.ENXIO: case errno.EROFS: return false
    default: return true
  }
}
