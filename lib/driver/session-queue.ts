/**
 * A request queue that outlives its backend (on_disconnect=wait). The kernel has numbers of ours for
 * nodes and open files (session-ids.ts); what a device had when it went away waits, in order, and is
 * sent again in the next session (resend-rules.ts).
 *
 * How it waits is in pausing-queue.ts. In a session the oldest request that waits is the only one that may need something:
 * its nodes looked up, its files opened again, or the outcome of its first try. The others wait behind.
 */
import { errno } from '../errors.js'
import { FuseEntryOut, FuseInHeader, FuseOutHeader, FuseWriteIn, FuseWriteOut } from '../fuse/abi.js'
import { Op, replyFixedBytes } from '../fuse/opcodes.js'
import { setU64 } from '../wire/u64.js'
import type { HiprioSink } from './hiprio-queue.js'
import { Slot } from './memory-plan.js'
import { ROOT } from './node-table.js'
import { Outcome, OutcomeCheck } from './outcome-check.js'
import { PausingQueue, Task } from './pausing-queue.js'
import type { RequestQueue } from './request-queue.js'
import { afterResend, Again, beforeResend } from './resend-rules.js'
import { RootAnswers } from './root-answers.js'
import { HOPELESS, SessionIds } from './session-ids.js'
import { Waiter } from './slot-table.js'

const NONE = -1
const HIGH = 0x1_0000_0000

/** Of a request: the device of an earlier session had it; its outcome is to be looked up; is known. */
export const enum Stage { NEW, SENT, CHECK, CHECKED }

export class SessionQueue extends PausingQueue {
  /** How far the device's clock is ahead of ours. */
  clockAheadMs = 0
  protected readonly ids: SessionIds
  /** The node or the handle of the task, and the request for whose sake it is done. */
  #subject = NONE
  #subjectReuse = 0
  #forOrder = NONE
  // of each slot
  protected readonly stage: Uint8Array
  protected readonly readMs: Float64Array
  readonly #error: Int32Array
  /** Whether this session's device was asked for its name. */
  readonly #asked: Uint8Array
  #count = 0
  readonly #check: OutcomeCheck
  protected readonly root = new RootAnswers()
  #begun = false

  constructor(...args: ConstructorParameters<typeof RequestQueue>) {
    super(...args)
    const { slotCount } = this.plan
    this.ids = new SessionIds(this.slots, slotCount)
    this.#check = new OutcomeCheck(this.ids, this.slots)
    this.stage = new Uint8Array(slotCount)
    this.readMs = new Float64Array(slotCount)
    this.#error = new Int32Array(slotCount)
    this.#asked = new Uint8Array(slotCount)
    const { hiprio } = this
    const { nodes } = this.ids
    // the device hears of FORGETs when a node is given up
    nodes.table.released = (low, high, lookups) => hiprio.forget(low, high, lookups >>> 0, Math.floor(lookups / HIGH))
    this.forgets = {
      forget: (low, high, countLow, countHigh) => nodes.forget(low, high, countHigh * HIGH + countLow),
      interrupt: (low, high) => hiprio.interrupt(low, high),
      flush: () => hiprio.flush(),
    } satisfies HiprioSink
  }

  protected override queued(slot: number, opcode: number): void {
    this.order[slot] = ++this.#count
    this.stage[slot] = Stage.NEW
    this.#asked[slot] = 0
    if (this.slots.waiter[slot] !== Waiter.KERNEL || opcode === Op.INIT) {
      this.ids.noteNothing(slot)
    } else {
      this.readMs[slot] = Date.now()
      if (this.inHand(slot)) return
      const error = this.ids.note(slot, opcode, this.region.view, this.slots.at(slot))
      if (error < 0) {
        this.ids.noteNothing(slot)
        return this.giveUp(slot, error)
      }
      if (this.needless(slot)) return
      if (this.state !== 'session' && this.ids.nodeOf(slot) === ROOT && this.root.knows(opcode)) return this.#answerRoot(slot, opcode)
    }
    if (this.state !== 'session') this.spill(slot)
    this.parked.push(slot)
    this.sendParked()
  }

  #isMoot(slot: number): boolean {
    return this.ids.isMoot(slot, this.slots.opcode[slot]!, this.task === Task.HANDLE ? this.#subject : NONE)
  }

  protected override needless(slot: number): boolean {
    if (!this.#isMoot(slot)) return false
    this.#done(slot)
    return true
  }

  protected override sessionEnded(had: readonly number[]): void {
    this.ids.newSession()
    this.#asked.fill(0)
    for (const slot of had) this.stage[slot] = Stage.SENT
  }

  /** A request needs no device, or had been carried out. */
  #done(slot: number): void {
    this.carriedOut(slot, this.slots.opcode[slot]!)
    this.giveUp(slot, 0)
  }

  /** A device has done it: what that did to paths and open files. */
  protected carriedOut(slot: number, opcode: number): void {
    this.ids.carriedOut(slot, opcode, this.region)
  }

  /** A request was read. @returns whether it was answered, for an earlier process had done it */
  protected inHand(_slot: number): boolean {
    return false
  }

  protected override giveUp(slot: number, error: number): void {
    if (this.trace !== null) this.ids.restore(slot, this.slots.opcode[slot]!, this.region.view, this.slots.at(slot))
    super.giveUp(slot, error)
  }

  protected override mayHaveBegun(slot: number): boolean {
    return this.stage[slot] !== Stage.NEW
  }

  protected override sendParked(): void {
    if (this.paused) return
    if (this.#begun && this.state === 'session' && this.task === Task.NONE && this.hasRingRoom) this.#learnRoot()
    while (this.parked.length > 0 && this.state === 'session' && this.task === Task.NONE) {
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
      if (!this.fits(slot) || !this.unspill(slot)) return
      this.parked.shift()
      this.ids.write(slot, opcode, this.region.view, this.slots.at(slot))
      this.add(slot)
    }
  }

  /** Asks what umount(8) will want to know. */
  #learnRoot(): void {
    const opcode = !this.root.knows(Op.GETATTR) ? Op.GETATTR : !this.root.knows(Op.STATFS) ? Op.STATFS : 0
    if (opcode === 0) this.#begun = false
    else this.sendTask(Task.ROOT, this.root.buildRequest(opcode, this.region, this.slots.at(this.ownSlot)))
  }

  /**
   * What the oldest request needs; the first of it is sent for.
   *
   * @returns SEND, WAIT, or 0 or −errno to answer it with
   */
  #prepare(slot: number, opcode: number): number {
    if (this.#isMoot(slot)) return 0
    const head = this.slots.at(slot)
    if (this.stage[slot] === Stage.SENT) {
      const again = beforeResend(opcode, this.region.view, head)
      if (again === Again.UNKNOWN) return -errno.EIO
      if (again === Again.CHECK) this.stage[slot] = Stage.CHECK
    }
    let node = this.ids.missingNode(slot)
    const handle = node === NONE ? this.ids.missingHandle(slot) : NONE
    if (handle >= 0) node = this.ids.nodes.table.nextToLookUp(this.ids.handles.node[handle]!)
    if (node === HOPELESS || handle === HOPELESS) return -errno.ESTALE
    const child = node === NONE ? this.ids.missingChild(slot, opcode, this.region) : NONE
    const asks = child === HOPELESS && this.#asked[slot] === 0
    if (child >= 0 && this.stage[slot] !== Stage.CHECK) node = child
    if (node === NONE && handle === NONE && !asks && this.stage[slot] !== Stage.CHECK) return SEND
    if (!this.hasRingRoom) return WAIT
    this.#forOrder = this.order[slot]!
    const own = this.slots.at(this.ownSlot)
    if (node >= 0) {
      this.#subject = node
      this.#subjectReuse = this.ids.nodes.table.reuse[node]!
      this.sendTask(Task.NODE, this.ids.nodes.buildLookup(node, this.region, own))
    } else if (handle >= 0) {
      this.#subject = handle
      this.sendTask(Task.HANDLE, this.ids.buildOpen(handle, this.region, own))
    } else if (asks) {
      this.#asked[slot] = 1
      this.sendTask(Task.NAME, this.#check.buildName(slot, this.region, own))
    } else {
      this.sendTask(Task.CHECK, this.#check.build(slot, this.region, own))
    }
    return WAIT
  }

  protected override answered(slot: number, opcode: number, sound: boolean, error: number, used: number): boolean {
    const { slots, region } = this
    const at = slots.at(slot)
    if (super.answered(slot, opcode, sound, error, used)) return true
    if (opcode === Op.INIT) this.#begun = sound && error === 0
    if (slots.waiter[slot] === Waiter.DRIVER || opcode === Op.INIT) return false
    const kernel = slots.waiter[slot] === Waiter.KERNEL
    if (sound && error === 0) {
      this.carriedOut(slot, opcode)
      if (this.ids.nodeOf(slot) === ROOT) this.root.keep(opcode, region.bytes, at + Slot.OUT + FuseOutHeader.SIZE)
      if (kernel) this.ids.replied(slot, opcode, region, at + Slot.OUT, slots.payloadAt[slot]!, Math.max(0, used - slots.fixedBytes[slot]!))
    } else if (sound && kernel && this.stage[slot] === Stage.SENT) {
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
    if (!sound || error !== 0) this.ids.notCarriedOut(slot, opcode, region)
    if (kernel && this.trace !== null) this.ids.restore(slot, opcode, region.view, at)
    return false
  }

  #checkLater(slot: number, error: number): void {
    this.stage[slot] = Stage.CHECK
    this.#error[slot] = error
    this.parked.pushFirst(slot)
  }

  protected override taskDone(task: Task, error: number, arg: number): void {
    const { view } = this.region
    // its request may have been given up meanwhile
    const slot = this.parked.length > 0 && this.order[this.parked.at(0)] === this.#forOrder ? this.parked.at(0) : NONE
    if (task === Task.ROOT) {
      if (error === 0) this.learned(this.slots.opcode[this.ownSlot]!, arg)
      else this.#begun = false
    } else if (task === Task.NODE) {
      this.#nodeAnswered(slot, error, arg)
    } else if (task === Task.NAME) {
      this.#nameAnswered(slot, error, arg)
    } else if (task === Task.HANDLE) {
      if (error === 0) this.ids.reopened(this.#subject, view, arg)
      else if (isPassing(error)) this.#giveUpFirst(slot, error)
      else this.ids.notReopened(this.#subject)
    } else if (task === Task.CHECK) {
      if (this.slots.opcode[this.ownSlot] === Op.LOOKUP) this.#forgetEntry(error, arg)
      if (slot !== NONE) this.#checked(slot, error, arg)
    }
  }

  /** @param arg byte where the arguments of an answer about the root are */
  protected learned(opcode: number, arg: number): void {
    this.root.keep(opcode, this.region.bytes, arg)
  }

  #nodeAnswered(slot: number, error: number, entry: number): void {
    const { nodes } = this.ids
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

  #nameAnswered(slot: number, error: number, entry: number): void {
    const { view } = this.region
    if (slot === NONE) return this.#forgetEntry(error, entry)
    if (error !== 0) {
      if (isPassing(error)) this.#giveUpFirst(slot, error)
    } else if (view.getUint32(entry + FuseEntryOut.nodeid, true) !== 0 || view.getUint32(entry + FuseEntryOut.nodeid + 4, true) !== 0) {
      const { bytes, length } = this.ids.name(slot, this.slots.opcode[slot]!, this.region, 0)
      this.ids.nodes.adopt(view, entry, this.ids.nodeOf(slot), bytes, length)
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
    const outcome = this.#check.outcome(slot, this.region, error, arg, this.#error[slot]!, this.readMs[slot]! + this.clockAheadMs)
    this.stage[slot] = Stage.CHECKED
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
    this.#answer(slot, out, this.root.buildReply(opcode, this.region, out, this.slots.uniqueLow[slot]!, this.slots.uniqueHigh[slot]!))
  }

  /** A reply of our own, that lies at `out`. */
  #answer(slot: number, out: number, length: number): void {
    const { slots } = this
    const { view, address } = this.region
    this.channel.reply(address + out, length)
    this.inFlight--
    if (this.trace !== null) {
      this.ids.restore(slot, slots.opcode[slot]!, view, slots.at(slot))
      this.trace.ended(view, slots, slot, 0, length)
    }
    this.release(slot)
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
    slots.inBytes[slot] = this.ids.turnIntoLookup(slot, slots.opcode[slot]!, this.region)
    slots.opcode[slot] = Op.LOOKUP
    slots.fixedBytes[slot] = replyFixedBytes(Op.LOOKUP)
    slots.payloadBytes[slot] = 0
    slots.dropLarge(slot)
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
