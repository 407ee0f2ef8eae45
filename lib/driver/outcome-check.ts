/**
 * Finds out what a device that went away did with a request: builds the question for the device that
 * came back, and says what follows from its answer (the rules are in resend-rules.ts).
 */
import { errno } from '../errors.js'
import { FuseAttr, FuseAttrOut, FuseEntryOut, FuseGetattrIn, FuseInHeader } from '../fuse/abi.js'
import { Op } from '../fuse/opcodes.js'
import type { Region } from '../sys/memory.js'
import { getU64 } from '../wire/u64.js'
import { Slot } from './memory-plan.js'
import { Again, appended, hasChanged, madeBy, openMade } from './resend-rules.js'
import type { SessionIds } from './session-ids.js'
import type { SlotTable } from './slot-table.js'

const NONE = -1

/** What to do with the request; −errno: it failed. */
export const enum Outcome {
  SEND = 0,
  /** It had been carried out. */
  DONE = 1,
  /** So had a WRITE, whose caller wants to hear how much. */
  WRITTEN = 2,
  /** The entry that it made is there: its caller wants it. */
  LOOK_UP = 3,
}

function isRename(opcode: number): boolean {
  return opcode === Op.RENAME || opcode === Op.RENAME2
}

export class OutcomeCheck {
  readonly #ids: SessionIds
  readonly #slots: SlotTable

  constructor(ids: SessionIds, slots: SlotTable) {
    this.#ids = ids
    this.#slots = slots
  }

  /**
   * A LOOKUP of what the request makes, moves or removes; the attributes of a file that it appends to.
   *
   * @param head byte where it goes
   * @returns its length in bytes
   */
  build(slot: number, region: Region, head: number): number {
    const opcode = this.#slots.opcode[slot]!
    if (opcode !== Op.WRITE) return this.#buildLookup(slot, region, head, isRename(opcode) ? 1 : 0)
    region.bytes.fill(0, head, head + Slot.IN_BYTES)
    return this.#header(region, head, FuseInHeader.SIZE + FuseGetattrIn.SIZE, Op.GETATTR, this.#ids.nodeOf(slot))
  }

  /** A LOOKUP of the first name of a request. */
  buildName(slot: number, region: Region, head: number): number {
    return this.#buildLookup(slot, region, head, 0)
  }

  #buildLookup(slot: number, region: Region, head: number, which: 0 | 1): number {
    const { bytes } = region
    bytes.fill(0, head, head + Slot.IN_BYTES)
    const name = this.#ids.name(slot, this.#slots.opcode[slot]!, region, which)
    const nameBytes = Math.min(name.length, Slot.IN_BYTES - FuseInHeader.SIZE - 1)
    bytes.set(name.bytes.subarray(0, nameBytes), head + FuseInHeader.SIZE)
    return this.#header(region, head, FuseInHeader.SIZE + nameBytes + 1, Op.LOOKUP, which === 0 ? this.#ids.nodeOf(slot) : this.#ids.secondNodeOf(slot))
  }

  #header({ view }: Region, head: number, length: number, opcode: number, node: number): number {
    view.setUint32(head + FuseInHeader.len, length, true)
    view.setUint32(head + FuseInHeader.opcode, opcode, true)
    this.#ids.nodes.putId(view, head + FuseInHeader.nodeid, node)
    return length
  }

  /**
   * @param error of the answer, 0 or −errno
   * @param answer byte where its fuse_entry_out or fuse_attr_out is
   * @param failed what the request got when it was sent again, or 0
   * @param readMs when the request was read, by the clock of the device
   */
  outcome(slot: number, region: Region, error: number, answer: number, failed: number, readMs: number): Outcome | number {
    const { view } = region
    const head = this.#slots.at(slot)
    const opcode = this.#slots.opcode[slot]!
    if (error !== 0 && (error !== -errno.ENOENT || opcode === Op.WRITE)) return -errno.EIO
    if (opcode === Op.WRITE) {
      const again = appended(view, head, getU64(view, answer + FuseAttrOut.attr + FuseAttr.size))
      return again === Again.DONE ? Outcome.WRITTEN : again === Again.PLAIN ? Outcome.SEND : -errno.EIO
    }
    const found = error === 0 && getU64(view, answer + FuseEntryOut.nodeid) !== 0
    if (opcode === Op.UNLINK || opcode === Op.RMDIR) return found ? failed : Outcome.DONE
    if (isRename(opcode)) {
      const moved = this.#ids.named(slot, opcode, region)
      // the old name is not there: a rename changes its file, too
      if (moved === NONE) return found && hasChanged(view, answer, readMs) ? Outcome.DONE : -errno.ENOENT
      return found && this.#ids.nodes.isSame(moved, view, answer) ? Outcome.DONE : Outcome.SEND
    }
    const own = found && (opcode === Op.LINK ? this.#ids.nodes.isSame(this.#ids.secondNodeOf(slot), view, answer) : madeBy(opcode, view, head, answer, readMs))
    if (!own) return failed
    if (opcode !== Op.CREATE) return Outcome.LOOK_UP
    openMade(view, head)
    return Outcome.SEND
  }
}
