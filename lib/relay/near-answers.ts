/**
 * What the near end answers itself: LOOKUPs from what was listed ahead, GETATTRs from notes that came
 * with changes. Both are true only as long as they hear of every request of this mount:
 *
 * - a change is told of when it is taken off its ring, before anything behind it is answered, and
 *   again when it has been answered;
 * - a read is told of when it is taken, and again before the driver has its answer: an access time
 *   may change at any point between them.
 *
 * Belongs to the near end's thread.
 */
import { FUSE_INIT_FLAGS, FuseAttrOut, FuseEntryOut, FuseInHeader, FuseInitOut, FuseOutHeader } from '../fuse/abi.js'
import { Op } from '../fuse/opcodes.js'
import type { Region } from '../sys/memory.js'
import type { DeviceRing } from '../virtio/device-ring.js'
import { AttributeNotes } from './attribute-notes.js'
import { LookAhead, type AheadSender } from './look-ahead.js'

const LOOKUP_REPLY_BYTES = FuseOutHeader.SIZE + FuseEntryOut.SIZE
const GETATTR_REPLY_BYTES = FuseOutHeader.SIZE + FuseAttrOut.SIZE

export class NearAnswers {
  readonly ahead: LookAhead
  readonly notes = new AttributeNotes()
  readonly #region: Region
  readonly #mayLookAhead: boolean

  /**
   * @param mayLookAhead whether directories may be listed ahead
   * @param sender of what LookAhead asks for
   */
  constructor(region: Region, mayLookAhead: boolean, sender: AheadSender) {
    this.#region = region
    this.#mayLookAhead = mayLookAhead
    this.ahead = new LookAhead(sender)
  }

  /**
   * Answers the LOOKUP or GETATTR at byte `at` of the region, the chain that a ring took last.
   * @returns whether it did: the chain has been given back
   */
  answer(ring: DeviceRing, opcode: number, head: number, at: number): boolean {
    const length = opcode === Op.LOOKUP ? LOOKUP_REPLY_BYTES : GETATTR_REPLY_BYTES
    if (ring.readableCount !== 1 || ring.lengths[1]! < length) return false
    const { view } = this.#region
    const out = ring.addresses[1]! - this.#region.address
    const to = out + FuseOutHeader.SIZE
    if (!(opcode === Op.LOOKUP ? this.ahead.enabled && this.ahead.lookup(this.#region, at, ring.readableBytes, to) : this.notes.answer(this.#region, at, to))) return false
    view.setUint32(out + FuseOutHeader.len, length, true)
    view.setInt32(out + FuseOutHeader.error, 0, true)
    view.setUint32(out + FuseOutHeader.unique, view.getUint32(at + FuseInHeader.unique, true), true)
    view.setUint32(out + FuseOutHeader.unique + 4, view.getUint32(at + FuseInHeader.unique + 4, true), true)
    ring.push(head, length)
    return true
  }

  /** A request that can change something was taken. @returns a number other than 0 when a note of it would be good */
  changeBegins(opcode: number): number {
    this.ahead.changeBegins()
    return this.notes.changeBegins(opcode)
  }

  /** It has been answered. */
  changeEnded(opcode: number): void {
    this.ahead.changeEnded()
    this.notes.changeEnded(opcode)
  }

  /** The file or directory with the id at byte `at` of the region is read: its access time may change. */
  read(at: number): void {
    this.ahead.touch(this.#region.view, at)
    this.notes.drop(this.#region.view, at)
  }

  /** The device has answered INIT with the fuse_init_out at byte `at` of the region. */
  initAnswered(at: number): void {
    const flags = this.#region.view.getUint32(at + FuseInitOut.flags, true)
    this.ahead.enabled = this.#mayLookAhead && (flags & 1 << FUSE_INIT_FLAGS.DO_READDIRPLUS) !== 0
  }

  /** DESTROY was taken: nothing is listed any more. */
  destroyed(): void {
    this.ahead.enabled = false
  }

  close(): void {
    this.ahead.close()
  }
}
