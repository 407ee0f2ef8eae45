/**
 * The hiprio queue: FORGET, BATCH_FORGET and INTERRUPT on their way to the device. Worker 0 owns
 * it. Port of virtio_fs_wake_forget_and_unlock, virtio_fs_hiprio_done_work and
 * virtio_fs_hiprio_dispatch_work (fs/fuse/virtio_fs.c), with completions where those use a timer.
 *
 * A full ring parks what does not fit; the completion that makes room sends it. FORGETs are sent
 * in the order they were read; as many as fit one buffer travel as a BATCH_FORGET. INTERRUPTs go
 * first: they are worth nothing when they come late.
 */
import type { Region } from '../sys/memory.js'
import { FuseBatchForgetIn, FuseForgetIn, FuseForgetOne, FuseInHeader, FuseInterruptIn } from '../fuse/abi.js'
import { Op } from '../fuse/opcodes.js'
import { DriverRing, writeDescriptor, type RingFeatures } from '../virtio/driver-ring.js'
import { Counter } from './counters.js'
import { HiprioSlot, type MemoryPlan } from './memory-plan.js'
import { PairFifo } from './pair-fifo.js'

/** Where FORGETs and INTERRUPTs go: the queue itself on worker 0, a relay to it on the others. */
export interface HiprioSink {
  forget(nodeidLow: number, nodeidHigh: number, nlookupLow: number, nlookupHigh: number): void
  interrupt(uniqueLow: number, uniqueHigh: number): void
  /** Sends what was handed over since the last flush, as far as there is room. */
  flush(): void
}

const BATCH_HEAD = FuseInHeader.SIZE + FuseBatchForgetIn.SIZE
const BATCH_MAX = Math.floor((HiprioSlot.MESSAGE_BYTES - BATCH_HEAD) / FuseForgetOne.SIZE)

export class HiprioQueue implements HiprioSink {
  ring: DriverRing
  /** Cleared at unmount: nothing is sent any more (virtio_kill_sb). */
  connected = true
  /** While the backend is replaced: nothing is sent. */
  paused = false
  /**
   * Whether the device is sent INTERRUPTs. A backend is not, as by virtio_fs.c: the Rust virtiofsd
   * does nothing with them, the C one keeps what does not match a request, and uses its freed
   * memory at the next request.
   */
  takesInterrupts = true

  #region: Region
  readonly #slots: number
  readonly #free: Int32Array
  #freeCount: number
  readonly #counters: Float64Array
  readonly #forgets = new PairFifo()
  readonly #interrupts = new PairFifo()
  readonly #notify: () => void
  #unique = 0
  #flushing = false

  /** @param notify tells the device that the ring has something new */
  constructor(region: Region, plan: MemoryPlan, features: RingFeatures, counters: Float64Array, notify: () => void) {
    this.#region = region
    this.ring = new DriverRing(region, plan.hiprio, features)
    this.#slots = plan.hiprioSlots
    this.#counters = counters
    this.#notify = notify
    this.#freeCount = plan.hiprio.size
    this.#free = new Int32Array(plan.hiprio.size)
    for (let i = 0; i < plan.hiprio.size; i++) this.#free[i] = plan.hiprio.size - 1 - i
  }

  /** FORGETs and INTERRUPTs that wait for room. */
  get parked(): number {
    return this.#forgets.length + this.#interrupts.length
  }

  /** Message buffers that the device does not have. */
  get freeSlots(): number {
    return this.#freeCount
  }

  forget(nodeidLow: number, nodeidHigh: number, nlookupLow: number, nlookupHigh: number): void {
    if (this.connected) this.#forgets.push(nodeidLow, nodeidHigh, nlookupLow, nlookupHigh)
  }

  interrupt(uniqueLow: number, uniqueHigh: number): void {
    if (this.connected && this.takesInterrupts) this.#interrupts.push(uniqueLow, uniqueHigh, 0, 0)
  }

  flush(): void {
    // a device on this thread gives back within `notify`, and `complete` then comes here again
    if (!this.connected || this.paused || this.parked === 0 || this.#flushing) return
    this.#flushing = true
    while (this.#freeCount > 0 && this.ring.freeCount > 0 && this.parked > 0) this.#fill()
    this.#flushing = false
  }

  /** Puts as much on the ring as it holds, and tells the device. */
  #fill(): void {
    while (this.#freeCount > 0 && this.ring.freeCount > 0 && this.parked > 0) {
      const slot = this.#free[--this.#freeCount]!
      const at = this.#slots + slot * HiprioSlot.SIZE
      const length = this.#interrupts.length > 0 ? this.#buildInterrupt(at) : this.#forgets.length === 1 ? this.#buildForget(at) : this.#buildBatch(at)
      const table = at + HiprioSlot.TABLE
      writeDescriptor(this.#region.view, table, 0, this.#region.address + at, length, 0, true)
      this.ring.add(table, this.#region.address + table, 1, slot)
    }
    if (this.ring.kickNeeded()) {
      this.#counters[Counter.KICKS]!++
      this.#notify()
    }
  }

  #header(at: number, opcode: number, length: number): void {
    const { view, bytes } = this.#region
    bytes.fill(0, at, at + BATCH_HEAD)
    view.setUint32(at + FuseInHeader.len, length, true)
    view.setUint32(at + FuseInHeader.opcode, opcode, true)
    // a range that the kernel, which counts from 2, does not reach
    view.setUint32(at + FuseInHeader.unique, this.#unique = (this.#unique + 2) >>> 0, true)
    view.setUint32(at + FuseInHeader.unique + 4, 0x40000000, true)
  }

  #buildInterrupt(at: number): number {
    const length = FuseInHeader.SIZE + FuseInterruptIn.SIZE
    this.#header(at, Op.INTERRUPT, length)
    // the pair's second half lands behind the message, in memory of this buffer
    this.#interrupts.shiftTo(this.#region.view, at + FuseInHeader.SIZE)
    this.#counters[Counter.INTERRUPTS]!++
    return length
  }

  /** nodeid stands in the header and nlookup right behind uid, gid, pid: not side by side as in a pair. */
  #buildForget(at: number): number {
    const { view } = this.#region
    const length = FuseInHeader.SIZE + FuseForgetIn.SIZE
    this.#header(at, Op.FORGET, length)
    const pair = at + length
    this.#forgets.shiftTo(view, pair)
    for (let i = 0; i < 8; i += 4) {
      view.setUint32(at + FuseInHeader.nodeid + i, view.getUint32(pair + FuseForgetOne.nodeid + i, true), true)
      view.setUint32(at + FuseInHeader.SIZE + i, view.getUint32(pair + FuseForgetOne.nlookup + i, true), true)
    }
    this.#counters[Counter.FORGETS]!++
    return length
  }

  #buildBatch(at: number): number {
    const count = Math.min(this.#forgets.length, BATCH_MAX)
    const length = BATCH_HEAD + count * FuseForgetOne.SIZE
    this.#header(at, Op.BATCH_FORGET, length)
    this.#region.view.setUint32(at + FuseInHeader.SIZE + FuseBatchForgetIn.count, count, true)
    for (let i = 0; i < count; i++) this.#forgets.shiftTo(this.#region.view, at + BATCH_HEAD + i * FuseForgetOne.SIZE)
    this.#counters[Counter.FORGETS]! += count
    return length
  }

  /** Takes back what the device has used and sends what waited for it. @returns how many came back */
  complete(): number {
    let count = 0
    for (let slot = this.ring.popUsed(); slot >= 0; slot = this.ring.popUsed()) {
      this.#free[this.#freeCount++] = slot
      count++
    }
    if (count > 0) this.flush()
    return count
  }

  /** A new session with the device: what was for the old one is dropped. @param region of the same layout */
  reset(region: Region, plan: MemoryPlan, features: RingFeatures): void {
    this.#region = region
    this.ring = new DriverRing(region, plan.hiprio, features)
    this.#freeCount = plan.hiprio.size
    for (let i = 0; i < plan.hiprio.size; i++) this.#free[i] = plan.hiprio.size - 1 - i
    this.disconnect()
    this.connected = true
  }

  /** Stops the queue and drops what is parked (virtio_kill_sb, drain_hiprio_queued_reqs). */
  disconnect(): void {
    this.connected = false
    this.#forgets.clear()
    this.#interrupts.clear()
  }
}
