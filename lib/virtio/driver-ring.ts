/**
 * The driver's side of a split virtqueue: makes chains available, takes them back used.
 *
 * One thread owns a DriverRing. Everything the device can write (the used ring, its flags and its
 * event word) is checked before it is believed: an entry that was never given out, or came twice,
 * or an index that ran ahead, breaks the ring for good (`broken` says how).
 *
 * Ordering: descriptors and avail.ring are plain stores; avail.idx is stored by `Atomics.store`,
 * which is sequentially consistent, so the device that sees the index sees the chain, and the
 * following load of the device's event word is not moved before it (virtio 1.2 §2.7.13.3).
 */
import type { Region } from '../sys/memory.js'
import { getU64, setU64 } from '../wire/u64.js'
import {
  needEvent, VIRTQ_AVAIL_F_NO_INTERRUPT, VIRTQ_DESC_F_INDIRECT, VIRTQ_DESC_F_NEXT, VIRTQ_USED_F_NO_NOTIFY,
  VirtqAvail, VirtqDesc, VirtqUsed, VirtqUsedElem, type RingLayout,
} from './split-ring.js'

export interface RingFeatures {
  indirectDesc: boolean
  eventIdx: boolean
}

const FREE = -1

export class DriverRing {
  /** Free descriptors. A chain of n needs n of them, or one with INDIRECT_DESC. */
  freeCount: number
  /** Chains the device has not given back. */
  inFlight = 0
  /** Length written by the device, of the chain that `popUsed` returned last. */
  usedLength = 0
  /** What the device did to the ring, or '' while it is sound. */
  broken = ''

  readonly #view: DataView
  readonly #u16: Uint16Array
  readonly #layout: RingLayout
  readonly #mask: number
  readonly #indirect: boolean
  readonly #eventIdx: boolean
  /** Token of the chain that starts at a descriptor; FREE when none does. */
  readonly #tokens: Int32Array
  /** Descriptors in that chain. */
  readonly #counts: Uint16Array
  /** Free list; the driver's own copy, since the device may scribble on `next`. */
  readonly #next: Uint16Array
  #freeHead = 0
  #availIdx = 0
  #usedIdx = 0
  /** avail.idx when the device was last notified. */
  #kickedIdx = 0

  constructor(region: Region, layout: RingLayout, features: RingFeatures) {
    this.#view = region.view
    this.#u16 = region.u16
    this.#layout = layout
    this.#mask = layout.size - 1
    this.#indirect = features.indirectDesc
    this.#eventIdx = features.eventIdx
    this.freeCount = layout.size
    this.#tokens = new Int32Array(layout.size).fill(FREE)
    this.#counts = new Uint16Array(layout.size)
    this.#next = new Uint16Array(layout.size)
    for (let i = 0; i < layout.size; i++) this.#next[i] = i + 1
    region.bytes.fill(0, layout.desc, layout.end)
  }

  /** Free descriptors that a chain of `count` takes. */
  cost(count: number): number {
    return this.#indirect ? 1 : count
  }

  /**
   * Makes a chain available to the device, without telling it (see `kickNeeded`).
   *
   * The caller has written `count` descriptors, linked one to the next, at byte `table` of the
   * region, and leaves them alone until the chain comes back. `freeCount` must allow for it.
   *
   * @param tableAddress guest address of the table, for INDIRECT_DESC
   * @param token non-negative number that `popUsed` gives back
   */
  add(table: number, tableAddress: number, count: number, token: number): void {
    const view = this.#view
    const head = this.#freeHead
    let last = head
    if (this.#indirect) {
      const at = this.#layout.desc + head * VirtqDesc.SIZE
      setU64(view, at + VirtqDesc.addr, tableAddress)
      view.setUint32(at + VirtqDesc.len, count * VirtqDesc.SIZE, true)
      view.setUint16(at + VirtqDesc.flags, VIRTQ_DESC_F_INDIRECT, true)
      this.freeCount--
      this.#counts[head] = 1
    } else {
      for (let i = 0, id = head; i < count; i++, id = this.#next[id]!) {
        const from = table + i * VirtqDesc.SIZE
        const at = this.#layout.desc + id * VirtqDesc.SIZE
        setU64(view, at + VirtqDesc.addr, getU64(view, from + VirtqDesc.addr))
        view.setUint32(at + VirtqDesc.len, view.getUint32(from + VirtqDesc.len, true), true)
        view.setUint16(at + VirtqDesc.flags, view.getUint16(from + VirtqDesc.flags, true), true)
        view.setUint16(at + VirtqDesc.next, this.#next[id]!, true)
        last = id
      }
      this.freeCount -= count
      this.#counts[head] = count
    }
    this.#freeHead = this.#next[last]!
    this.#tokens[head] = token
    this.inFlight++

    view.setUint16(this.#layout.avail + VirtqAvail.SIZE + 2 * (this.#availIdx & this.#mask), head, true)
    this.#availIdx = (this.#availIdx + 1) & 0xffff
    Atomics.store(this.#u16, (this.#layout.avail + VirtqAvail.idx) >> 1, this.#availIdx)
  }

  /** Whether the device wants to be notified of what was added since the last time this was asked. */
  kickNeeded(): boolean {
    const old = this.#kickedIdx
    if (old === this.#availIdx) return false
    this.#kickedIdx = this.#availIdx
    if (this.#eventIdx) {
      return needEvent(Atomics.load(this.#u16, this.#layout.availEvent >> 1), this.#availIdx, old)
    }
    return (Atomics.load(this.#u16, (this.#layout.used + VirtqUsed.flags) >> 1) & VIRTQ_USED_F_NO_NOTIFY) === 0
  }

  /** Whether the device has given something back that `popUsed` has not returned. */
  hasUsed(): boolean {
    return Atomics.load(this.#u16, (this.#layout.used + VirtqUsed.idx) >> 1) !== this.#usedIdx
  }

  /**
   * Takes back one chain that the device has used; `usedLength` is what it says it wrote.
   *
   * @returns its token, or −1 when there is none or the ring is broken
   */
  popUsed(): number {
    const idx = Atomics.load(this.#u16, (this.#layout.used + VirtqUsed.idx) >> 1)
    if (idx === this.#usedIdx || this.broken !== '') return -1
    if (((idx - this.#usedIdx) & 0xffff) > this.inFlight) {
      this.broken = `used.idx is ${idx}, at most ${(this.#usedIdx + this.inFlight) & 0xffff} is possible`
      return -1
    }
    const at = this.#layout.used + VirtqUsed.SIZE + VirtqUsedElem.SIZE * (this.#usedIdx & this.#mask)
    const id = this.#view.getUint32(at + VirtqUsedElem.id, true)
    const token = id < this.#layout.size ? this.#tokens[id]! : FREE
    if (token === FREE) {
      this.broken = `used descriptor id ${id} is not in flight`
      return -1
    }
    this.usedLength = this.#view.getUint32(at + VirtqUsedElem.len, true)
    this.#usedIdx = (this.#usedIdx + 1) & 0xffff
    this.#free(id)
    return token
  }

  /** Gives the descriptors of a chain back to the free list, last in, first out. */
  #free(head: number): void {
    const count = this.#counts[head]!
    let last = head
    for (let i = 1; i < count; i++) last = this.#next[last]!
    this.#next[last] = this.#freeHead
    this.#freeHead = head
    this.freeCount += count
    this.#tokens[head] = FREE
    this.inFlight--
  }

  /** Asks the device to give no notice of used chains; it may still do so. */
  disableCallbacks(): void {
    if (this.#eventIdx) {
      // an index that used.idx has just passed: 65535 chains away
      Atomics.store(this.#u16, this.#layout.usedEvent >> 1, (this.#usedIdx - 1) & 0xffff)
    } else {
      Atomics.store(this.#u16, (this.#layout.avail + VirtqAvail.flags) >> 1, VIRTQ_AVAIL_F_NO_INTERRUPT)
    }
  }

  /**
   * Asks for notice of the next used chain.
   *
   * @returns false when there is one already: the notice for it may never come, so look again
   */
  enableCallbacks(): boolean {
    if (this.#eventIdx) Atomics.store(this.#u16, this.#layout.usedEvent >> 1, this.#usedIdx)
    else Atomics.store(this.#u16, (this.#layout.avail + VirtqAvail.flags) >> 1, 0)
    return !this.hasUsed()
  }

  /** Tokens of all chains that the device has not given back, for a device that is gone. */
  outstanding(): number[] {
    return [...this.#tokens].filter(token => token !== FREE)
  }
}

/** Writes one descriptor of a chain, linked to the one behind it unless it is the last. */
export function writeDescriptor(view: DataView, table: number, index: number, address: number, lengthBytes: number, flags: number, last: boolean): void {
  const at = table + index * VirtqDesc.SIZE
  setU64(view, at + VirtqDesc.addr, address)
  view.setUint32(at + VirtqDesc.len, lengthBytes, true)
  view.setUint16(at + VirtqDesc.flags, last ? flags : flags | VIRTQ_DESC_F_NEXT, true)
  view.setUint16(at + VirtqDesc.next, last ? 0 : index + 1, true)
}
