/**
 * Attributes of a directory that come with the answer to a change in it. After each change the kernel
 * asks for them, when it checks permissions: that would be one more time there and back.
 *
 * The far end takes them after the change and sends them, as a note, before its answer. A note is good
 * for one GETATTR, and only if no other change of this mount was under way since the change was sent,
 * but for those of data: so the near end asks for a note only for a change that is alone, and drops it
 * when another begins.
 *
 *     fuse_out_header (unique 0, error 0) | nodeid | unique of the change | fuse_attr_out
 */
import { FuseAttrOut, FuseGetattrIn, FuseInHeader } from '../fuse/abi.js'
import { elapsedUs, microseconds, secondsRead } from '../sys/clock.js'
import type { Region } from '../sys/memory.js'
import { defineStruct } from '../wire/struct.js'
import { changesDirectory, concernsData } from './request-effects.js'
import { shorten, validUs } from './valid-time.js'

export const RelayNote = defineStruct('relay_note', 136, {
  len: 'u32', error: 'i32', unique: 'u64', nodeid: 'u64', cause: 'u64', attr_out: 'bytes:104',
})

/** In fuse_in_header.padding of a request on the wire: a note is wanted. The device sees 0. */
export const WANTS_NOTE = 1

const NOTES = 16
/** However long the device allows. */
const MOST_LIFE_SECONDS = 1

/** What the near end has of them. */
export class AttributeNotes {
  /** Changes under way, and how many there were. */
  #changing = 0
  #changes = 0
  readonly #bytes = new Uint8Array(NOTES * FuseAttrOut.SIZE)
  readonly #low = new Uint32Array(NOTES)
  readonly #high = new Uint32Array(NOTES)
  readonly #startUs = new Float64Array(NOTES)
  readonly #startSeconds = new Float64Array(NOTES)
  #count = 0

  /**
   * A request that can change something is on its way.
   * @returns a number other than 0 when a note of it would be good
   */
  changeBegins(opcode: number): number {
    if (concernsData(opcode)) return 0
    this.#count = 0
    this.#changes++
    return ++this.#changing === 1 && changesDirectory(opcode) ? this.#changes : 0
  }

  changeEnded(opcode: number): void {
    if (!concernsData(opcode)) this.#changing--
  }

  /** Keeps the note at `view[at]`, unless another change has begun since. @param change the number of its change, or 0 */
  keep(view: DataView, bytes: Uint8Array, at: number, change: number): void {
    const attr = at + RelayNote.attr_out
    if (change === 0 || change !== this.#changes || this.#count === NOTES || validUs(view, attr + FuseAttrOut.attr_valid, attr + FuseAttrOut.attr_valid_nsec) === 0) return
    const i = this.#count++
    this.#bytes.set(bytes.subarray(attr, attr + FuseAttrOut.SIZE), i * FuseAttrOut.SIZE)
    this.#low[i] = view.getUint32(at + RelayNote.nodeid, true)
    this.#high[i] = view.getUint32(at + RelayNote.nodeid + 4, true)
    this.#startUs[i] = microseconds()
    this.#startSeconds[i] = secondsRead()
  }

  /**
   * Answers the GETATTR at byte `at` of a region.
   * @param to byte of the region for a fuse_attr_out
   * @returns whether it did
   */
  answer({ view, bytes }: Region, at: number, to: number): boolean {
    if (this.#count === 0 || view.getUint32(at + FuseInHeader.SIZE + FuseGetattrIn.getattr_flags, true) !== 0) return false
    const i = this.#take(view, at + FuseInHeader.nodeid)
    if (i < 0) return false
    const ageUs = elapsedUs(this.#startUs[i]!, microseconds())
    if (ageUs >= MOST_LIFE_SECONDS * 1e6 || secondsRead() - this.#startSeconds[i]! > MOST_LIFE_SECONDS) return false
    bytes.set(this.#bytes.subarray(i * FuseAttrOut.SIZE, (i + 1) * FuseAttrOut.SIZE), to)
    shorten(view, to + FuseAttrOut.attr_valid, to + FuseAttrOut.attr_valid_nsec, ageUs)
    return true
  }

  /** The directory with the id at `view[at]` is read, which changes its access time. */
  drop(view: DataView, at: number): void {
    if (this.#count > 0) this.#take(view, at)
  }

  /** @returns where the note on a directory is, which nobody finds again, or −1 */
  #take(view: DataView, at: number): number {
    const low = view.getUint32(at, true)
    const high = view.getUint32(at + 4, true)
    for (let i = this.#count - 1; i >= 0; i--) {
      if (this.#low[i] !== low || this.#high[i] !== high) continue
      // no directory has the id 0
      this.#low[i] = this.#high[i] = 0
      return i
    }
    return -1
  }
}
