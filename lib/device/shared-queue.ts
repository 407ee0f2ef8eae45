/**
 * A bounded queue of pairs of integers in memory that all threads see; any thread may push and any
 * may pop, without locks. D. Vyukov's bounded MPMC queue: each cell carries the ticket that says
 * whose turn it is, so a reader never sees a cell that is half written.
 */
const CELL_WORDS = 4
const TICKET = 0
const FIRST = 1
const SECOND = 2
/** Words before the cells: the two positions, a cache line apart, then the word to wait on. */
const PUSH_AT = 0
const POP_AT = 16
const EPOCH = 32
const HEAD_WORDS = 48

/** @param capacity a power of two */
export function allocateSharedQueue(capacity: number): SharedArrayBuffer {
  const shared = new SharedArrayBuffer((HEAD_WORDS + capacity * CELL_WORDS) * 4)
  const words = new Int32Array(shared)
  for (let i = 0; i < capacity; i++) words[HEAD_WORDS + i * CELL_WORDS + TICKET] = i
  return shared
}

export class SharedQueue {
  /** The pair that `pop` took. */
  first = 0
  second = 0
  readonly #words: Int32Array
  readonly #mask: number

  constructor(shared: SharedArrayBuffer) {
    this.#words = new Int32Array(shared)
    this.#mask = (this.#words.length - HEAD_WORDS) / CELL_WORDS - 1
  }

  /** @returns false when the queue is full */
  push(first: number, second: number): boolean {
    const words = this.#words
    for (;;) {
      const position = Atomics.load(words, PUSH_AT)
      const cell = HEAD_WORDS + (position & this.#mask) * CELL_WORDS
      const turn = (Atomics.load(words, cell + TICKET) - position) | 0
      if (turn < 0) return false
      if (turn > 0 || Atomics.compareExchange(words, PUSH_AT, position, (position + 1) | 0) !== position) continue
      words[cell + FIRST] = first
      words[cell + SECOND] = second
      Atomics.store(words, cell + TICKET, (position + 1) | 0)
      return true
    }
  }

  /** @returns false when the queue is empty */
  pop(): boolean {
    const words = this.#words
    for (;;) {
      const position = Atomics.load(words, POP_AT)
      const cell = HEAD_WORDS + (position & this.#mask) * CELL_WORDS
      const turn = (Atomics.load(words, cell + TICKET) - ((position + 1) | 0)) | 0
      if (turn < 0) return false
      if (turn > 0 || Atomics.compareExchange(words, POP_AT, position, (position + 1) | 0) !== position) continue
      this.first = words[cell + FIRST]!
      this.second = words[cell + SECOND]!
      Atomics.store(words, cell + TICKET, (position + this.#mask + 1) | 0)
      return true
    }
  }

  isEmpty(): boolean {
    const position = Atomics.load(this.#words, POP_AT)
    const cell = HEAD_WORDS + (position & this.#mask) * CELL_WORDS
    return ((Atomics.load(this.#words, cell + TICKET) - ((position + 1) | 0)) | 0) < 0
  }

  /** Wakes threads that wait in `waitForMore`. @param count how many, at most */
  wake(count: number): void {
    Atomics.add(this.#words, EPOCH, 1)
    Atomics.notify(this.#words, EPOCH, count)
  }

  /** To be taken before the last look at the queue, and given to `waitForMore`. */
  epoch(): number {
    return Atomics.load(this.#words, EPOCH)
  }

  /** Blocks until `wake` was called since `epoch` was taken. */
  waitForMore(epoch: number): void {
    Atomics.wait(this.#words, EPOCH, epoch)
  }
}
