/**
 * The slots and large buffers of one queue worker: which are free, and what is known of each
 * request in flight. What a decision rests on is kept here and not in the shared memory, which the
 * device can change at any time.
 */
import { MAX_WRITE, Slot, type WorkerPlan } from './memory-plan.js'

export const NO_BUFFER = -1

/** Who waits for the answer of a request. */
export const Waiter = {
  KERNEL: 0,
  /** Its caller was killed and has been answered. */
  NOBODY: 1,
  /** The driver made it itself. */
  DRIVER: 2,
} as const

/**
 * Upper half of the uniques of requests that the driver made itself: everybody else's stay below it,
 * the kernel's, which count from 2, and a client's.
 */
export const OWN_UNIQUE_HIGH = 0x20000000

export class SlotTable {
  // of each slot, valid while it is taken
  readonly opcode: Uint32Array
  readonly uniqueLow: Uint32Array
  readonly uniqueHigh: Uint32Array
  /** Bytes of the request. */
  readonly inBytes: Uint32Array
  /** Bytes of fuse_out_header and the fixed part of the reply. */
  readonly fixedBytes: Uint32Array
  /** Most bytes of payload behind them, and the byte of the region where they go. */
  readonly payloadBytes: Uint32Array
  readonly payloadAt: Float64Array
  /** Large buffers that hold a part of the request and the payload of the reply, or NO_BUFFER. */
  readonly largeIn: Int32Array
  readonly largeOut: Int32Array
  readonly waiter: Uint8Array
  /** `performance.now()` when it was read; only for a trace, and 0 for what was read before there was one. */
  readonly startMs: Float64Array

  /** Freed last, used first: so few pages are touched. */
  readonly #freeSlots: Int32Array
  readonly #freeLarge: Int32Array
  freeSlotCount: number
  freeLargeCount: number
  readonly #plan: WorkerPlan

  constructor(plan: WorkerPlan) {
    const { slotCount, largeCount } = plan
    this.#plan = plan
    this.opcode = new Uint32Array(slotCount)
    this.uniqueLow = new Uint32Array(slotCount)
    this.uniqueHigh = new Uint32Array(slotCount)
    this.inBytes = new Uint32Array(slotCount)
    this.fixedBytes = new Uint32Array(slotCount)
    this.payloadBytes = new Uint32Array(slotCount)
    this.payloadAt = new Float64Array(slotCount)
    this.largeIn = new Int32Array(slotCount)
    this.largeOut = new Int32Array(slotCount)
    this.waiter = new Uint8Array(slotCount)
    this.startMs = new Float64Array(slotCount)
    this.#freeSlots = Int32Array.from({ length: slotCount }, (_, i) => slotCount - 1 - i)
    this.#freeLarge = Int32Array.from({ length: largeCount }, (_, i) => largeCount - 1 - i)
    this.freeSlotCount = slotCount
    this.freeLargeCount = largeCount
  }

  /** Byte of the region where a slot starts. */
  at(slot: number): number {
    return this.#plan.slots + slot * Slot.SIZE
  }

  /** Byte of the region where a large buffer starts. */
  largeAt(large: number): number {
    return this.#plan.large + large * MAX_WRITE
  }

  /** The slot and the large buffer that `take` would give, for a read whose result decides. */
  get nextSlot(): number {
    return this.#freeSlots[this.freeSlotCount - 1]!
  }

  get nextLarge(): number {
    return this.#freeLarge[this.freeLargeCount - 1]!
  }

  takeSlot(): number {
    return this.#freeSlots[--this.freeSlotCount]!
  }

  takeLarge(): number {
    return this.#freeLarge[--this.freeLargeCount]!
  }

  /** Frees the large buffer for a slot's reply. */
  dropLargeOut(slot: number): void {
    if (this.largeOut[slot] !== NO_BUFFER) this.#freeLarge[this.freeLargeCount++] = this.largeOut[slot]!
    this.largeOut[slot] = NO_BUFFER
  }

  /** Frees both large buffers of a slot. */
  dropLarge(slot: number): void {
    this.dropLargeOut(slot)
    if (this.largeIn[slot] !== NO_BUFFER) this.#freeLarge[this.freeLargeCount++] = this.largeIn[slot]!
    this.largeIn[slot] = NO_BUFFER
  }

  /** Frees a slot and the large buffers that it has. */
  release(slot: number): void {
    this.dropLarge(slot)
    this.#freeSlots[this.freeSlotCount++] = slot
  }
}
