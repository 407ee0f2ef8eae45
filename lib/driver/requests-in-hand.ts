/**
 * Which requests of the kernel this process has, kept where the next one finds them: what was done
 * with a request that is sent again (FUSE_NOTIFY_RESEND) cannot be seen in it.
 *
 * An entry lasts from the reading of its request until after the answer, whichever process gives it.
 */
import { UNIQUE_RESEND_HIGH } from '../fuse/abi.js'
import { StateWord, type StateMemory } from './state-memory.js'

/** What had been done with a request. */
export const enum Hand {
  FREE = 0,
  /** It was read, and no device has had it. */
  READ = 1,
  SENT = 2,
  /** The device has done it, and its answer is that and no more. */
  DONE = 3,
}

/** Words of an entry. */
const Entry = { HAND: 0, LOW: 1, HIGH: 2, READ_MS: 4, WORDS: 8 } as const
export const ENTRY_BYTES = 4 * Entry.WORDS
const NONE = -1
const HIGH = 0x1_0000_0000

export class RequestsInHand {
  readonly #memory: StateMemory
  /** First word of the entries. */
  readonly #base: number
  readonly #capacity: number
  readonly #free: Int32Array
  #freeCount = 0
  /** By slot. */
  readonly #entry: Int32Array
  /** By unique: entries of the process before this one whose requests have not come again. */
  readonly #earlier = new Map<number, number>()
  #answered: number

  /** @param at byte where the entries begin, `capacity` of them */
  constructor(memory: StateMemory, at: number, capacity: number, slotCount: number) {
    this.#memory = memory
    this.#base = at / 4
    this.#capacity = capacity
    this.#free = new Int32Array(capacity)
    this.#entry = new Int32Array(slotCount).fill(NONE)
    this.#answered = memory.word(StateWord.ANSWERED)
    for (let entry = capacity - 1; entry >= 0; entry--) {
      if (memory.word(this.#word(entry)) === Hand.FREE) this.#free[this.#freeCount++] = entry
      else this.#earlier.set(this.#unique(entry), entry)
    }
  }

  #word(entry: number): number {
    return this.#base + entry * Entry.WORDS
  }

  #unique(entry: number): number {
    const at = this.#word(entry)
    return this.#memory.word(at + Entry.HIGH) * HIGH + this.#memory.word(at + Entry.LOW)
  }

  /**
   * A request was read into a slot.
   *
   * @returns what an earlier process had done with it; READ for a new one
   */
  take(slot: number, low: number, high: number, nowMs: number): Hand {
    const plainHigh = high & ~UNIQUE_RESEND_HIGH
    if (this.#earlier.size > 0 && (high & UNIQUE_RESEND_HIGH) !== 0) {
      const unique = plainHigh * HIGH + low
      const entry = this.#earlier.get(unique)
      if (entry !== undefined) {
        this.#earlier.delete(unique)
        this.#entry[slot] = entry
        return this.#memory.word(this.#word(entry))
      }
    }
    // there are more than requests can be here and in the process before
    if (this.#freeCount === 0) return Hand.READ
    const entry = this.#entry[slot] = this.#free[--this.#freeCount]!
    const at = this.#word(entry)
    this.#memory.put(at + Entry.LOW, low)
    this.#memory.put(at + Entry.HIGH, plainHigh)
    this.#memory.putDouble((at + Entry.READ_MS) / 2, nowMs)
    this.#memory.commit(at + Entry.HAND, Hand.READ)
    return Hand.READ
  }

  /** When it was read first, as Date.now() has it; 0 when that is not known. */
  readMs(slot: number): number {
    const entry = this.#entry[slot]!
    return entry === NONE ? 0 : this.#memory.double((this.#word(entry) + Entry.READ_MS) / 2)
  }

  /** The device is about to get it, or has done it. */
  mark(slot: number, hand: Hand): void {
    const entry = this.#entry[slot]!
    if (entry !== NONE) this.#memory.commit(this.#word(entry) + Entry.HAND, hand)
  }

  /** It was answered. */
  over(slot: number): void {
    const entry = this.#entry[slot]!
    if (entry === NONE) return
    this.#entry[slot] = NONE
    this.#release(entry)
    this.#memory.put(StateWord.ANSWERED, this.#answered = (this.#answered + 1) >>> 0)
  }

  #release(entry: number): void {
    this.#memory.commit(this.#word(entry) + Entry.HAND, Hand.FREE)
    this.#free[this.#freeCount++] = entry
  }

  /** Whether requests of the process before are still to come again. */
  get waits(): boolean {
    return this.#earlier.size > 0
  }

  /** All have come again that the kernel still had: the others were answered just before the end. */
  settle(): void {
    for (const entry of this.#earlier.values()) this.#release(entry)
    this.#earlier.clear()
  }

  /**
   * Requests of the process before, for a kernel that does not send them again: those that are known,
   * and behind the last one that was read as many numbers as there may have been until the one that
   * was read and not noted. @param tell called with each unique
   */
  each(ahead: number, tell: (low: number, high: number) => void): void {
    for (const entry of this.#earlier.values()) tell(this.#memory.word(this.#word(entry) + Entry.LOW), this.#memory.word(this.#word(entry) + Entry.HIGH))
    let last = 0
    // an entry that is free still says whose it was
    for (let entry = 0; entry < this.#capacity; entry++) last = Math.max(last, this.#unique(entry))
    for (let unique = last + 2; unique <= last + 2 * ahead; unique += 2) tell(unique >>> 0, Math.floor(unique / HIGH))
  }
}
