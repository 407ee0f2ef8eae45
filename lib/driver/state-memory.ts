/**
 * Memory that outlives this process: its supervisor holds the same memfd. The process may be killed
 * between any two stores, so what belongs together is written where nobody looks yet and then
 * committed by one store, or by several that a journal makes one. Only one thread writes.
 *
 * The first page: words of the header, a few bytes of the tables' user, and the journal. A journal
 * is a list of words with their new values, valid while its count is not zero: who opens the memory
 * after a death carries it out again, which does no harm.
 */

/** Words of the header. */
export const StateWord = {
  /** Which layout it is; zero for memory that nobody has used. */
  FORMAT: 0,
  /** Page where the tables are. */
  AREA: 1,
  /** Requests that were answered, ever: the supervisor looks at it. */
  ANSWERED: 2,
  /** Bytes of the INIT that is kept. */
  INIT_BYTES: 3,
  /** 1 and 2: the attributes and the statistics of the root are kept. */
  ROOT: 4,
  JOURNAL: 5,
} as const

export const FORMAT = 0x53465601
/** Bytes of the first page that are the user's. */
export const KEPT_AT = 64
export const STATE_PAGE = 4096
const JOURNAL_AT = 2048
const MOST_ENTRIES = (STATE_PAGE - JOURNAL_AT) / 8

export class StateMemory {
  protected words: Uint32Array
  protected doubles: Float64Array
  bytes: Uint8Array
  /** Of the journal that is being written; −1 while each commit counts at once. */
  #entries = -1

  constructor(buffer: ArrayBuffer) {
    this.words = new Uint32Array(buffer)
    this.doubles = new Float64Array(buffer)
    this.bytes = new Uint8Array(buffer)
  }

  get lengthBytes(): number {
    return this.bytes.length
  }

  protected use(buffer: ArrayBuffer): void {
    this.words = new Uint32Array(buffer)
    this.doubles = new Float64Array(buffer)
    this.bytes = new Uint8Array(buffer)
  }

  /** Makes it at least so long. What is added is zero. */
  ensure(lengthBytes: number): void {
    if (lengthBytes > this.lengthBytes) throw new RangeError(`${lengthBytes} bytes are needed, and there are ${this.lengthBytes}`)
  }

  /** Gives pages back, which read as zero from then on. */
  drop(at: number, lengthBytes: number): void {
    this.bytes.fill(0, at, at + lengthBytes)
  }

  word(index: number): number {
    return this.words[index]!
  }

  double(index: number): number {
    return this.doubles[index]!
  }

  /** Stores a word that nobody looks at yet, or that means nothing without another. */
  put(index: number, value: number): void {
    this.words[index] = value
  }

  putDouble(index: number, value: number): void {
    this.doubles[index] = value
  }

  putBytes(at: number, from: Uint8Array, fromAt: number, length: number): void {
    for (let i = 0; i < length; i++) this.bytes[at + i] = from[fromAt + i]!
  }

  /** The store that makes others count: at once, or with those of the journal. */
  commit(index: number, value: number): void {
    if (this.#entries < 0) return this.store(index, value)
    if (this.#entries === MOST_ENTRIES) {
      this.end()
      this.begin()
    }
    const at = JOURNAL_AT / 4 + 2 * this.#entries++
    this.put(at, index)
    this.put(at + 1, value)
  }

  /** The same, but never with others. */
  commitNow(index: number, value: number): void {
    this.store(index, value)
  }

  protected store(index: number, value: number): void {
    Atomics.store(this.words, index, value)
  }

  /** From here to `end` all commits are one. */
  begin(): void {
    this.#entries = 0
  }

  end(): void {
    const entries = this.#entries
    this.#entries = -1
    if (entries <= 0) return
    if (entries > 1) this.store(StateWord.JOURNAL, entries)
    this.#carryOut(entries)
    if (entries > 1) this.store(StateWord.JOURNAL, 0)
  }

  #carryOut(entries: number): void {
    for (let entry = 0; entry < entries; entry++) {
      const at = JOURNAL_AT / 4 + 2 * entry
      this.store(this.words[at]!, this.words[at + 1]!)
    }
  }

  /** What was journalled of words from `index` on is stored otherwise. */
  forget(index: number): void {
    let kept = 0
    for (let entry = 0; entry < this.#entries; entry++) {
      const at = JOURNAL_AT / 4 + 2 * entry
      if (this.words[at]! >= index) continue
      this.put(JOURNAL_AT / 4 + 2 * kept, this.words[at]!)
      this.put(JOURNAL_AT / 4 + 2 * kept++ + 1, this.words[at + 1]!)
    }
    if (this.#entries >= 0) this.#entries = kept
  }

  /** Ends what a process that has died had begun to commit. */
  recover(): void {
    const entries = Math.min(this.words[StateWord.JOURNAL]!, MOST_ENTRIES)
    this.#carryOut(entries)
    this.store(StateWord.JOURNAL, 0)
  }
}
