/**
 * The device's side of a split virtqueue: takes available chains, gives them back used.
 *
 * The driver is not trusted: descriptor tables are walked with a bound, every buffer must lie in
 * the shared memory, readable parts come before writable ones (virtio 1.2 §2.7.4.2). A chain that
 * breaks a rule makes `pop` fail with `broken` set; the queue is then stopped.
 *
 * The guest address of a byte in this project is its address in this process, so nothing is
 * translated: `region` says which addresses are the driver's to give.
 */
import type { Region } from '../sys/memory.js'
import { getU64 } from '../wire/u64.js'
import type { RingFeatures } from './driver-ring.js'
import {
  needEvent, VIRTQ_AVAIL_F_NO_INTERRUPT, VIRTQ_DESC_F_INDIRECT, VIRTQ_DESC_F_NEXT, VIRTQ_DESC_F_WRITE,
  VIRTQ_USED_F_NO_NOTIFY, VirtqAvail, VirtqDesc, VirtqUsed, VirtqUsedElem, type RingLayout,
} from './split-ring.js'

/** Descriptors in one chain; Linux never makes longer ones than its ring. */
export const MAX_CHAIN = 1024
/** virtio 1.2 §2.7.5.2. A used length has 32 bits. */
const MAX_CHAIN_BYTES = 2 ** 32

export class DeviceRing {
  /** What the driver did to the ring, or '' while it is sound. */
  broken = ''

  /** The chain taken last: its buffers in order, readable ones first. */
  count = 0
  readableCount = 0
  readableBytes = 0
  writableBytes = 0
  readonly addresses = new Float64Array(MAX_CHAIN)
  readonly lengths = new Float64Array(MAX_CHAIN)

  readonly #region: Region
  readonly #view: DataView
  readonly #u16: Uint16Array
  readonly #layout: RingLayout
  readonly #mask: number
  readonly #indirect: boolean
  readonly #eventIdx: boolean
  #availIdx = 0
  #usedIdx = 0
  /** used.idx when the driver was last notified. */
  #calledIdx = 0

  constructor(region: Region, layout: RingLayout, features: RingFeatures) {
    this.#region = region
    this.#view = region.view
    this.#u16 = region.u16
    this.#layout = layout
    this.#mask = layout.size - 1
    this.#indirect = features.indirectDesc
    this.#eventIdx = features.eventIdx
  }

  /** Whether there is something to take: never from a broken ring. */
  hasAvailable(): boolean {
    return this.broken === '' && Atomics.load(this.#u16, (this.#layout.avail + VirtqAvail.idx) >> 1) !== this.#availIdx
  }

  /** Takes the next chain. @returns its head, or −1 when there is none or the ring is broken */
  pop(): number {
    const idx = Atomics.load(this.#u16, (this.#layout.avail + VirtqAvail.idx) >> 1)
    if (idx === this.#availIdx || this.broken !== '') return -1
    if (((idx - this.#availIdx) & 0xffff) > this.#layout.size) {
      this.#break(`avail.idx is ${idx}, ${this.#availIdx} was taken`)
      return -1
    }
    const head = this.#view.getUint16(this.#layout.avail + VirtqAvail.SIZE + 2 * (this.#availIdx & this.#mask), true)
    this.#availIdx = (this.#availIdx + 1) & 0xffff
    return this.describe(head) ? head : -1
  }

  #break(reason: string): false {
    this.broken = reason
    return false
  }

  /** Describes the chain that starts at `head` in the fields above. @returns false when it breaks a rule */
  describe(head: number): boolean {
    this.count = this.readableCount = this.readableBytes = this.writableBytes = 0
    let table = this.#layout.desc
    let size = this.#layout.size
    let indirect = false
    let id = head
    let steps = 0
    for (;;) {
      if (id >= size) return this.#break(`descriptor ${id} is beyond the table of ${size}`)
      const at = table + id * VirtqDesc.SIZE
      const flags = this.#view.getUint16(at + VirtqDesc.flags, true)
      const address = getU64(this.#view, at + VirtqDesc.addr)
      const length = this.#view.getUint32(at + VirtqDesc.len, true)
      const offset = address - this.#region.address
      if (!(offset >= 0 && offset + length <= this.#region.lengthBytes)) {
        return this.#break(`descriptor ${id} is ${length} bytes at 0x${address.toString(16)}, outside the shared memory`)
      }
      if ((flags & VIRTQ_DESC_F_INDIRECT) !== 0) {
        // §2.7.5.3.1: only when negotiated, not nested, not with NEXT, a whole number of descriptors
        if (!this.#indirect || indirect || (flags & VIRTQ_DESC_F_NEXT) !== 0 || length === 0 || length % VirtqDesc.SIZE !== 0) {
          return this.#break(`descriptor ${id} is a bad indirect one (flags ${flags}, ${length} bytes)`)
        }
        table = offset
        size = length / VirtqDesc.SIZE
        indirect = true
        id = 0
        steps = 0
        continue
      }
      // more steps than the table has descriptors are a loop
      if (++steps > size || this.count >= MAX_CHAIN) return this.#break(`chain ${head} loops or is too long`)
      if (this.readableBytes + this.writableBytes + length > MAX_CHAIN_BYTES) return this.#break(`chain ${head} is longer than 4 GiB`)
      if ((flags & VIRTQ_DESC_F_WRITE) !== 0) {
        this.writableBytes += length
      } else {
        if (this.writableBytes > 0 || this.readableCount < this.count) return this.#break(`chain ${head} has a readable part behind a writable one`)
        this.readableCount++
        this.readableBytes += length
      }
      this.addresses[this.count] = address
      this.lengths[this.count++] = length
      if ((flags & VIRTQ_DESC_F_NEXT) === 0) return true
      id = this.#view.getUint16(at + VirtqDesc.next, true)
    }
  }

  /** Gives a chain back. @param written bytes written to its writable part, from its start */
  push(head: number, written: number): void {
    const at = this.#layout.used + VirtqUsed.SIZE + VirtqUsedElem.SIZE * (this.#usedIdx & this.#mask)
    this.#view.setUint32(at + VirtqUsedElem.id, head, true)
    this.#view.setUint32(at + VirtqUsedElem.len, written, true)
    this.#usedIdx = (this.#usedIdx + 1) & 0xffff
    // the element is stored before the index that publishes it (§2.7.8)
    Atomics.store(this.#u16, (this.#layout.used + VirtqUsed.idx) >> 1, this.#usedIdx)
  }

  /** Whether the driver wants notice of what was given back since this was last asked. */
  callNeeded(): boolean {
    const old = this.#calledIdx
    if (old === this.#usedIdx) return false
    this.#calledIdx = this.#usedIdx
    if (this.#eventIdx) return needEvent(Atomics.load(this.#u16, this.#layout.usedEvent >> 1), this.#usedIdx, old)
    return (Atomics.load(this.#u16, (this.#layout.avail + VirtqAvail.flags) >> 1) & VIRTQ_AVAIL_F_NO_INTERRUPT) === 0
  }

  disableKicks(): void {
    if (this.#eventIdx) Atomics.store(this.#u16, this.#layout.availEvent >> 1, (this.#availIdx - 1) & 0xffff)
    else Atomics.store(this.#u16, (this.#layout.used + VirtqUsed.flags) >> 1, VIRTQ_USED_F_NO_NOTIFY)
  }

  /** Asks for a kick at the next chain. @returns false when there is one already */
  enableKicks(): boolean {
    if (this.#eventIdx) Atomics.store(this.#u16, this.#layout.availEvent >> 1, this.#availIdx)
    else Atomics.store(this.#u16, (this.#layout.used + VirtqUsed.flags) >> 1, 0)
    return !this.hasAvailable()
  }
}
