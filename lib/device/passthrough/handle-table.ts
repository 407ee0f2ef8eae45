/**
 * Open files and directories, in memory shared by all workers: a file opened through one queue is
 * read through another.
 *
 * A handle on the wire is an index plus a generation, as node ids are. Pins keep a descriptor open
 * while a request uses it. State word: bit 31 DYING (released; the last pin closes), bits 0–15
 * pins.
 */
import { errno } from '../../errors.js'
import { close } from '../../sys/io.js'
import type { Freeing } from './freeing.js'
import { HANDLE_WORDS, Head, type Layout } from './layout.js'
import { lock, unlock } from './spin-lock.js'

const Word = {
  STATE: 0, GENERATION: 1, FD: 2, KIND: 3, NODE_LOW: 4, NODE_HIGH: 5,
  /** Directories: lock of the descriptor's position, and that position. */
  LOCK: 6, POSITION: 8, POSITION_HIGH: 9,
  FLAGS: 10,
} as const

export const FILE = 1
export const DIRECTORY = 2

/** What an open file has to say about waiting. */
export const HandleFlag = {
  /** Every read and write goes to the device: O_DIRECT. */
  DIRECT: 1,
  /** Every write waits for the device: O_SYNC, O_DSYNC. */
  SYNC: 2,
  /** All its data is in memory. */
  MEMORY: 4,
  /** Whether its data is in memory cannot be asked. */
  UNKNOWN: 8,
  /** The kernel has it as a backing file. */
  BACKED: 16,
  /** Released, and the last descriptor of a large file without a name. */
  FREES: 32,
  /** Closing it may bring data to where they belong: to a server, or another file system. */
  FLUSHES: 64,
} as const

const DYING = 0x8000_0000 | 0
const PIN_MASK = 0xffff
const INDEX_BITS = 20
const INDEX_SPAN = 2 ** INDEX_BITS
const INDEX_MASK = INDEX_SPAN - 1
const GENERATION_LIMIT = 2 ** 30
const HIGH = 0x1_0000_0000

/** The table cannot hold more than this. */
export const HANDLE_LIMIT = INDEX_SPAN - 1

export class HandleTable {
  readonly #words: Int32Array
  readonly #layout: Layout
  /** Where descriptors are left whose closing takes long. */
  freeing: Freeing | undefined

  constructor(words: Int32Array, layout: Layout) {
    this.#words = words
    this.#layout = layout
  }

  get live(): number {
    return Atomics.load(this.#words, Head.HANDLE_LIVE)
  }

  #at(index: number): number {
    return this.#layout.handlesAt + index * HANDLE_WORDS
  }

  /**
   * Enters an open file. The table owns the descriptor from then on.
   * @returns its index, or −ENFILE (the descriptor is still the caller's)
   */
  add(fd: number, kind: number, nodeid: number, flags: number): number {
    const w = this.#words
    lock(w, Head.HANDLE_LOCK)
    let index = w[Head.HANDLE_FREE]!
    if (index !== 0) {
      w[Head.HANDLE_FREE] = w[this.#at(index) + Word.NODE_LOW]!
    } else if (w[Head.HANDLE_TOP]! + 1 < this.#layout.handleCapacity) {
      index = w[Head.HANDLE_TOP]! + 1
      Atomics.store(w, Head.HANDLE_TOP, index)
    } else {
      unlock(w, Head.HANDLE_LOCK)
      return -errno.ENFILE
    }
    const at = this.#at(index)
    w[at + Word.FD] = fd
    w[at + Word.KIND] = kind
    w[at + Word.FLAGS] = flags
    w[at + Word.NODE_LOW] = nodeid | 0
    w[at + Word.NODE_HIGH] = Math.floor(nodeid / HIGH)
    w[at + Word.POSITION] = 0
    w[at + Word.POSITION_HIGH] = 0
    Atomics.add(w, Head.HANDLE_LIVE, 1)
    // last: from here on `pin` accepts it
    Atomics.store(w, at + Word.GENERATION, -w[at + Word.GENERATION]! + 1)
    unlock(w, Head.HANDLE_LOCK)
    return index
  }

  /** Writes the handle of an index as the two halves of a u64. */
  write(view: DataView, at: number, index: number): void {
    const generation = this.#words[this.#at(index) + Word.GENERATION]!
    view.setUint32(at, (index | generation << INDEX_BITS) >>> 0, true)
    view.setUint32(at + 4, generation >>> (32 - INDEX_BITS), true)
  }

  /**
   * Holds an open file until `unpin`.
   * @param view where the handle is read from
   * @param kind FILE or DIRECTORY
   * @param nodeid of the request: a handle of another inode is refused
   * @returns its index, or −EBADF
   */
  pin(view: DataView, viewAt: number, kind: number, nodeid: number): number {
    const low = view.getUint32(viewAt, true)
    const index = low & INDEX_MASK
    if (index === 0 || index > Atomics.load(this.#words, Head.HANDLE_TOP)) return -errno.EBADF
    const high = view.getUint32(viewAt + 4, true)
    if (high >= GENERATION_LIMIT / 2 ** (32 - INDEX_BITS)) return -errno.EBADF
    const generation = high << (32 - INDEX_BITS) | low >>> INDEX_BITS
    const at = this.#at(index)
    if (Atomics.load(this.#words, at + Word.GENERATION) !== generation) return -errno.EBADF
    Atomics.add(this.#words, at, 1)
    if (Atomics.load(this.#words, at + Word.GENERATION) === generation && this.#words[at + Word.KIND] === kind &&
      this.#words[at + Word.NODE_LOW] === (nodeid | 0) && this.#words[at + Word.NODE_HIGH] === Math.floor(nodeid / HIGH)) return index
    this.unpin(index)
    return -errno.EBADF
  }

  unpin(index: number): void {
    const before = Atomics.sub(this.#words, this.#at(index), 1)
    if (before < 0 && ((before - 1) & PIN_MASK) === 0) this.#free(index)
  }

  /** The descriptor of a pinned handle. */
  fd(index: number): number {
    return this.#words[this.#at(index) + Word.FD]!
  }

  /** `HandleFlag` bits of a pinned handle. */
  flags(index: number): number {
    return this.#words[this.#at(index) + Word.FLAGS]!
  }

  setFlags(index: number, flags: number): void {
    Atomics.or(this.#words, this.#at(index) + Word.FLAGS, flags)
  }

  /** RELEASE of a pinned handle: nobody can pin it again, and the last `unpin` closes it. @returns false when it was released before */
  release(index: number): boolean {
    const at = this.#at(index)
    const generation = Atomics.load(this.#words, at + Word.GENERATION)
    // of two releases at once only one counts
    if (generation <= 0 || Atomics.compareExchange(this.#words, at + Word.GENERATION, generation, -generation) !== generation) return false
    Atomics.or(this.#words, at, DYING)
    return true
  }

  #free(index: number): void {
    const w = this.#words
    const at = this.#at(index)
    let state = 0
    do {
      state = Atomics.load(w, at)
      if (state >= 0 || (state & PIN_MASK) !== 0) return
    } while (Atomics.compareExchange(w, at, state, 0) !== state)
    if ((w[at + Word.FLAGS]! & HandleFlag.FREES) === 0 || !this.freeing?.leave(w[at + Word.FD]!)) close(w[at + Word.FD]!)
    lock(w, Head.HANDLE_LOCK)
    Atomics.sub(w, Head.HANDLE_LIVE, 1)
    if (-w[at + Word.GENERATION]! + 1 < GENERATION_LIMIT) {
      w[at + Word.NODE_LOW] = w[Head.HANDLE_FREE]!
      w[Head.HANDLE_FREE] = index
    }
    unlock(w, Head.HANDLE_LOCK)
  }

  /** Releases everything: DESTROY. */
  releaseAll(): void {
    const top = Atomics.load(this.#words, Head.HANDLE_TOP)
    for (let index = 1; index <= top; index++) {
      const at = this.#at(index)
      if (Atomics.load(this.#words, at + Word.GENERATION) <= 0) continue
      Atomics.add(this.#words, at, 1)
      this.release(index)
      this.unpin(index)
    }
  }

  /** Takes a directory's position for itself: seeking and reading are two calls. */
  lockPosition(index: number): void {
    lock(this.#words, this.#at(index) + Word.LOCK)
  }

  unlockPosition(index: number): void {
    unlock(this.#words, this.#at(index) + Word.LOCK)
  }

  /** Whether the descriptor stands at this offset. Under `lockPosition`. */
  standsAt(index: number, low: number, high: number): boolean {
    const at = this.#at(index)
    return this.#words[at + Word.POSITION] === (low | 0) && this.#words[at + Word.POSITION_HIGH] === (high | 0)
  }

  setPosition(index: number, low: number, high: number): void {
    const at = this.#at(index)
    this.#words[at + Word.POSITION] = low
    this.#words[at + Word.POSITION_HIGH] = high
  }

  /** The descriptor stands where no offset on the wire can be. */
  losePosition(index: number): void {
    this.setPosition(index, -1, -1)
  }
}
