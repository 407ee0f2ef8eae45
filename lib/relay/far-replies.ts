/**
 * What the far end sends: replies, errors, notes on directories.
 *
 * A slot whose reply is on its way belongs to this until the last of it has left; then it is free.
 * Payload goes out from where the device put it. Headers and notes are copies: the device may change
 * its own after they were checked. Belongs to the far thread.
 */
import { FuseAttrOut, FuseInHeader, FuseOutHeader } from '../fuse/abi.js'
import { adaptInitReply, type InitPolicy } from '../fuse/init.js'
import { Op } from '../fuse/opcodes.js'
import { Counter } from '../driver/counters.js'
import { Slot, type WorkerPlan } from '../driver/memory-plan.js'
import type { SlotTable } from '../driver/slot-table.js'
import { scratch, type Region } from '../sys/memory.js'
import { RelayNote } from './attribute-notes.js'
import { StreamWriter } from './stream-writer.js'

export class FarReplies {
  readonly #region: Region
  readonly #slots: SlotTable
  readonly #counters: Float64Array
  readonly #init: InitPolicy
  readonly #writer: StreamWriter
  /** Headers as they go out: of each slot, and of the answer to DESTROY. */
  readonly #headers: Region
  readonly #destroyCell: number
  /** Notes as they go out, one for each slot. */
  readonly #notes: Region
  #silent = false

  /** @param outFd not blocking; the caller's */
  constructor(outFd: number, region: Region, { slotCount }: WorkerPlan, slots: SlotTable, counters: Float64Array, init: InitPolicy) {
    this.#region = region
    this.#slots = slots
    this.#counters = counters
    this.#init = init
    this.#destroyCell = slotCount
    this.#writer = new StreamWriter(outFd, slotCount * 4 + 1, token => {
      if (token < slotCount) slots.release(token)
    })
    this.#headers = scratch(FuseOutHeader.SIZE * (slotCount + 1))
    this.#notes = scratch(RelayNote.SIZE * slotCount)
  }

  /** Whether the stream has to be written to before more can be sent. */
  get blocked(): boolean {
    return this.#writer.blocked
  }

  /** Bytes that were not sent. */
  get unsentBytes(): number {
    return this.#writer.queuedBytes
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

  /** Sends the reply that the device has written to a slot, so many bytes with its header. */
  reply(slot: number, used: number): void {
    const slots = this.#slots
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

  /** Sends an error for a slot. */
  fail(slot: number, error: number): void {
    this.#writer.push(this.#header(slot, FuseOutHeader.SIZE, error, this.#slots.uniqueLow[slot]!, this.#slots.uniqueHigh[slot]!), FuseOutHeader.SIZE, slot)
  }

  /** Sends a note on the directory that a slot's request has changed. @param own slot of the GETATTR that has brought it */
  note(slot: number, own: number): void {
    const slots = this.#slots
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

  /** Answers the near end's DESTROY, which has no slot. */
  answerDestroy(low: number, high: number): void {
    this.#writer.push(this.#header(this.#destroyCell, FuseOutHeader.SIZE, 0, low, high), FuseOutHeader.SIZE, this.#destroyCell)
  }

  /** Nothing is said any more. */
  silence(): void {
    this.#silent = true
  }

  /** Sends what the stream takes. @returns false when nobody reads it: what waited is dropped */
  send(): boolean {
    if (this.#writer.queuedBytes === 0 || (!this.#silent && this.#writer.flush() >= 0)) return true
    this.#writer.discard()
    return false
  }

  close(): void {
    this.#writer.close()
  }
}
