/**
 * Buffers of a queue whose process may be killed at any moment without harm. The kernel copies
 * requests and replies to and from them; if it has to fetch a page for that, and the process is being
 * killed, it gives up, and the request fails with EIO (fs/fuse/dev.c: fuse_copy_fill, and its callers).
 * So each buffer is written to by this process before the kernel has to, once.
 */
import { PAGE_SIZE, type Region } from '../sys/memory.js'
import { MAX_WRITE, Slot, type WorkerPlan } from './memory-plan.js'

export class ResidentPages {
  readonly #plan: WorkerPlan
  readonly #slots: Uint8Array
  readonly #large: Uint8Array
  #region: Region | undefined

  constructor(plan: WorkerPlan) {
    this.#plan = plan
    this.#slots = new Uint8Array(plan.slotCount)
    this.#large = new Uint8Array(plan.largeCount)
  }

  #use(region: Region): void {
    if (this.#region === region) return
    this.#region = region
    this.#slots.fill(0)
    this.#large.fill(0)
  }

  /** A slot that is free is about to be used. */
  slot(region: Region, slot: number): void {
    this.#use(region)
    if (this.#slots[slot] === 1) return
    this.#slots[slot] = 1
    this.#touch(region, this.#plan.slots + slot * Slot.SIZE, Slot.SIZE)
  }

  /** The same of a large buffer. */
  large(region: Region, large: number): void {
    this.#use(region)
    if (this.#large[large] === 1) return
    this.#large[large] = 1
    this.#touch(region, this.#plan.large + large * MAX_WRITE, MAX_WRITE)
  }

  #touch({ bytes }: Region, at: number, lengthBytes: number): void {
    for (let page = at; page < at + lengthBytes; page += PAGE_SIZE) bytes[page] = 0
  }
}
