/**
 * A request queue whose process may be killed at any moment, and another go on (supervise). What that
 * one needs is kept as it changes (surviving-state.ts), before the kernel hears of it.
 */
import { errno } from '../errors.js'
import { FuseOutHeader, UNIQUE_RESEND_HIGH } from '../fuse/abi.js'
import { PAGE_SIZE } from '../sys/memory.js'
import { Hand } from './requests-in-hand.js'
import type { Received } from './request-queue.js'
import { ResidentPages } from './resident-pages.js'
import { SessionQueue, Stage } from './session-queue.js'
import type { StateMemory } from './state-memory.js'
import { SurvivingState } from './surviving-state.js'

/** Requests that may have come between the last one that was noted and one that was only read. */
const UNNOTED = 4096
/** Further attempts to ask for what is to come again. */
const ATTEMPTS = 10

export class SurvivingQueue extends SessionQueue {
  #state!: SurvivingState
  readonly #pages = new ResidentPages(this.plan)

  /**
   * Keeps from now on what the next process needs, and begins as the one before has left it. Called
   * once, before anything is read.
   *
   * @param memory that the supervisor holds
   * @returns whether there was a process before
   */
  survive(memory: StateMemory): boolean {
    const { nodes, handles } = this.ids
    const state = this.#state = new SurvivingState(memory, this.plan.slotCount, nodes.table, handles)
    if (!state.inherited) return false
    this.beginAway(state.init())
    state.eachOfRoot((opcode, bytes, at) => this.root.keep(opcode, bytes, at))
    return true
  }

  /** Takes over what the process before has left unanswered: the kernel sends it again, or it fails. */
  takeOver(): void {
    const { hands } = this.#state
    let asked = this.channel.resend()
    for (let i = 0; i < ATTEMPTS && (asked === -errno.EINTR || asked === -errno.EAGAIN || asked === -errno.ENOMEM); i++) asked = this.channel.resend()
    if (asked >= 0) return
    hands.each(UNNOTED, (low, high) => { this.channel.fail(low, high, -errno.EIO) })
    hands.settle()
  }

  override receive(): Received {
    const { slots } = this
    if (slots.freeSlotCount > 0 && slots.freeLargeCount > 0) {
      this.#pages.slot(this.region, slots.nextSlot)
      this.#pages.large(this.region, slots.nextLarge)
    }
    return super.receive()
  }

  protected override initReceived(head: number, length: number): void {
    super.initReceived(head, length)
    this.#state.keepInit(this.region.bytes.subarray(head, head + length))
  }

  protected override inHand(slot: number): boolean {
    const { hands } = this.#state
    const high = this.slots.uniqueHigh[slot]!
    // those that come again come before all others
    if (hands.waits && (high & UNIQUE_RESEND_HIGH) === 0) hands.settle()
    const before = hands.take(slot, this.slots.uniqueLow[slot]!, high, this.readMs[slot]!)
    if (before === Hand.READ) return false
    this.readMs[slot] = hands.readMs(slot)
    this.stage[slot] = Stage.SENT
    if (before !== Hand.DONE) return false
    this.ids.noteNothing(slot)
    this.giveUp(slot, 0)
    return true
  }

  protected override add(slot: number): void {
    // a reply that needs a large buffer gets the next one
    if (this.slots.payloadBytes[slot]! > PAGE_SIZE) this.#pages.large(this.region, this.slots.nextLarge)
    this.#state.hands.mark(slot, Hand.SENT)
    super.add(slot)
  }

  /** Also that it need not be done again, when its answer is only that. */
  protected override carriedOut(slot: number, opcode: number): void {
    const state = this.#state
    state.begin()
    super.carriedOut(slot, opcode)
    if (this.slots.fixedBytes[slot] === FuseOutHeader.SIZE && this.slots.payloadBytes[slot] === 0) state.hands.mark(slot, Hand.DONE)
    state.end()
  }

  protected override learned(opcode: number, arg: number): void {
    super.learned(opcode, arg)
    this.#state.keepRoot(opcode, this.region.bytes, arg)
  }

  protected override release(slot: number): void {
    super.release(slot)
    this.#state.hands.over(slot)
  }
}
