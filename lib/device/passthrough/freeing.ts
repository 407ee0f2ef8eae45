/**
 * Descriptors whose closing frees a large file: the last ones of files without a name. All blocks of
 * the file are given back then, which takes about 50 µs for each MiB on a tmpfs and up to ten times
 * that on a disk, and nobody waits for it: not the caller of close(2), whose RELEASE comes later,
 * nor anybody with a FORGET. So a request leaves such a descriptor here, and a thread that may wait
 * closes it (`Handlers.finish`), one at a time: the others are for requests.
 *
 * To callers the file is gone all the same. A request that lacks room, or asks how much there is,
 * waits for what was left before it (`settle`), and so does the end of the session.
 *
 * The list, in the head of the shared memory, is under a lock. LEFT counts what was ever left, DONE
 * what was closed of it. CLAIMED is 1 from the moment on at which a thread was asked to close them
 * until it finds none; it looks once more after it has said so.
 */
import { AT_EMPTY_PATH, fstatfs, statx, STATX_BLOCKS, STATX_NLINK } from '../../sys/file.js'
import { futexWait, futexWake } from '../../sys/futex.js'
import { close } from '../../sys/io.js'
import { scratch, type Region } from '../../sys/memory.js'
import { getU64 } from '../../wire/u64.js'
import { Head, MOST_FREEING } from './layout.js'
import { lock, unlock } from './spin-lock.js'
import { StatBuffer } from './stat-buffer.js'

/** From here on what frees a file is work for another thread: waking one takes less. */
export const LARGE_BYTES = 1 << 20
/** The same in blocks of 512 bytes. */
export const LARGE_BLOCKS = LARGE_BYTES / 512

const BLOCKS_PER_MIB = 2048
const MIB = 1 << 20
const ALL = 0x7fff_ffff
/** struct statfs of 64-bit Linux. */
const STATFS_BYTES = 120
const F_BAVAIL = 32
const F_FRSIZE = 72

/** Closes what is there. No thread uses the list any more. */
export function closeLeft(words: Int32Array): void {
  for (let i = 0; i < words[Head.FREEING_COUNT]!; i++) close(words[Head.FREEING_LIST + i * 2]!)
  words[Head.FREEING_COUNT] = 0
}

/** One thread's access to the list. */
export class Freeing {
  readonly #words: Int32Array
  readonly #address: number
  readonly #limit: number
  readonly #stat = new StatBuffer()
  readonly #statfs: Region = scratch(STATFS_BYTES)
  readonly #empty: number = scratch(1).address
  #leaves = false
  /** The entry that was taken last. */
  #fd = -1
  #mib = 0

  /**
   * @param address of the first of `words`
   * @param limit how many descriptors may wait here
   */
  constructor(words: Int32Array, address: number, limit: number) {
    this.#words = words
    this.#address = address
    this.#limit = Math.min(limit, MOST_FREEING)
  }

  /** Somebody closes what this thread leaves. */
  enable(): void {
    this.#leaves = true
  }

  /**
   * Takes over a descriptor that is to be closed.
   * @returns false, the descriptor still being the caller's, when closing it does not take long, or there is no place
   */
  leave(fd: number): boolean {
    if (!this.#leaves || statx(fd, this.#empty, AT_EMPTY_PATH, STATX_BLOCKS | STATX_NLINK, this.#stat.address) < 0) return false
    const { blocks, nlink } = this.#stat
    if (nlink !== 0 || blocks < LARGE_BLOCKS) return false
    const mib = Math.ceil(blocks / BLOCKS_PER_MIB)
    const w = this.#words
    lock(w, Head.FREEING_LOCK)
    const count = w[Head.FREEING_COUNT]!
    const fits = count < this.#limit
    if (fits) {
      w[Head.FREEING_LIST + count * 2] = fd
      w[Head.FREEING_LIST + count * 2 + 1] = mib
      w[Head.FREEING_MIB]! += mib
      Atomics.add(w, Head.FREEING_LEFT, 1)
      Atomics.store(w, Head.FREEING_COUNT, count + 1)
    }
    unlock(w, Head.FREEING_LOCK)
    return fits
  }

  /** Whether something that was left is not closed yet. */
  get pending(): boolean {
    return Atomics.load(this.#words, Head.FREEING_LEFT) !== Atomics.load(this.#words, Head.FREEING_DONE)
  }

  /** Whether there is something that nobody was asked to close: who asks has to have `finish` called. */
  claim(): boolean {
    return Atomics.load(this.#words, Head.FREEING_COUNT) > 0 && Atomics.compareExchange(this.#words, Head.FREEING_CLAIMED, 0, 1) === 0
  }

  /** Closes what is there. */
  finish(): void {
    do {
      while (this.#closeOne());
      Atomics.store(this.#words, Head.FREEING_CLAIMED, 0)
    } while (this.claim())
  }

  /** The oldest first. @returns false when there is none */
  #closeOne(): boolean {
    if (!this.#take()) return false
    const w = this.#words
    close(this.#fd)
    lock(w, Head.FREEING_LOCK)
    w[Head.FREEING_MIB]! -= this.#mib
    unlock(w, Head.FREEING_LOCK)
    Atomics.add(w, Head.FREEING_DONE, 1)
    futexWake(this.#address + Head.FREEING_DONE * 4, ALL)
    return true
  }

  #take(): boolean {
    const w = this.#words
    if (Atomics.load(w, Head.FREEING_COUNT) === 0) return false
    lock(w, Head.FREEING_LOCK)
    const count = w[Head.FREEING_COUNT]!
    if (count > 0) {
      this.#fd = w[Head.FREEING_LIST]!
      this.#mib = w[Head.FREEING_LIST + 1]!
      w.copyWithin(Head.FREEING_LIST, Head.FREEING_LIST + 2, Head.FREEING_LIST + count * 2)
      Atomics.store(w, Head.FREEING_COUNT, count - 1)
    }
    unlock(w, Head.FREEING_LOCK)
    return count > 0
  }

  /** Waits until as much was closed as has been left by now, and helps. */
  settle(): void {
    const w = this.#words
    const left = Atomics.load(w, Head.FREEING_LEFT)
    for (;;) {
      const done = Atomics.load(w, Head.FREEING_DONE)
      if (((left - done) | 0) <= 0) return
      if (!this.#closeOne()) futexWait(this.#address + Head.FREEING_DONE * 4, done)
    }
  }

  /** Whether the file system of a descriptor has less room than is being given back. */
  isScarce(fd: number): boolean {
    if (fstatfs(fd, this.#statfs.address) < 0) return false
    const { view } = this.#statfs
    return getU64(view, F_BAVAIL) * getU64(view, F_FRSIZE) < this.#words[Head.FREEING_MIB]! * MIB
  }
}
