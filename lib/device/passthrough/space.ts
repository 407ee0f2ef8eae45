/**
 * How much of `max_size` is used, in blocks of 512 bytes as stat(2) counts them, shared by all
 * workers.
 *
 * For each inode that is known the blocks that are counted for it are noted. After whatever may
 * change them they are asked for again (`settle`), and the sum changes by the difference: however
 * many do so at once, and in whatever order, the sum is what the notes say. The last one to
 * release a file asks when nobody writes any more, so what was asked for too early is set right.
 *
 * What is to take room is let in (`admit`) only while all that was let in and has not been settled
 * fits too.
 */
import { errno } from '../../errors.js'
import { AT_EMPTY_PATH, lseek, statx, STATX_BLOCKS, STATX_NLINK, STATX_SIZE } from '../../sys/file.js'
import { scratch } from '../../sys/memory.js'
import { Head, type Layout } from './layout.js'
import { lock, unlock } from './spin-lock.js'
import { StatBuffer } from './stat-buffer.js'

export const BLOCK_BYTES = 512
/** File systems give room by this much, or more. */
export const UNIT_BYTES = 4096
const SEEK_DATA = 3
const SEEK_HOLE = 4
/** Holes that are looked at; what is behind counts as one. */
const MOST_HOLES = 64

/** One worker's. */
export class Space {
  /** Blocks that the tree may have. */
  readonly limit: number
  readonly #words: Int32Array
  /** Head.SPACE_USED and Head.SPACE_ADMITTED. */
  readonly #sums: Float64Array
  /** By inode. */
  readonly #notes: Float64Array
  readonly #stat = new StatBuffer()
  readonly #empty: number = scratch(1).address

  constructor(words: Int32Array, layout: Layout, limitBytes: number) {
    this.limit = Math.floor(limitBytes / BLOCK_BYTES)
    this.#words = words
    this.#sums = new Float64Array(words.buffer, words.byteOffset + Head.SPACE_USED * 4, 2)
    this.#notes = new Float64Array(words.buffer, words.byteOffset + layout.spaceAt * 4, layout.inodeCapacity)
  }

  /** Blocks in use. */
  get used(): number {
    return this.#sums[0]!
  }

  /** 0, or −ENOSPC when more is used than there is: nothing is made then, however little it takes. */
  get full(): number {
    return this.#sums[0]! > this.limit ? -errno.ENOSPC : 0
  }

  /** Counts blocks that no note is about. */
  add(blocks: number): void {
    lock(this.#words, Head.SPACE_LOCK)
    this.#sums[0]! += blocks
    unlock(this.#words, Head.SPACE_LOCK)
  }

  /** A record was made for an inode that is counted already. */
  known(index: number, blocks: number): void {
    this.#notes[index] = blocks
  }

  /** An inode is gone, and with it what its note says. */
  gone(index: number): void {
    lock(this.#words, Head.SPACE_LOCK)
    this.#sums[0]! -= this.#notes[index]!
    this.#notes[index] = 0
    unlock(this.#words, Head.SPACE_LOCK)
  }

  /** @returns what to give to `settle`, or −ENOSPC */
  admit(bytes: number): number {
    const blocks = Math.ceil(bytes / UNIT_BYTES) * (UNIT_BYTES / BLOCK_BYTES)
    lock(this.#words, Head.SPACE_LOCK)
    const fits = this.#sums[0]! + this.#sums[1]! + blocks <= this.limit
    if (fits) this.#sums[1]! += blocks
    unlock(this.#words, Head.SPACE_LOCK)
    return fits ? blocks : -errno.ENOSPC
  }

  /**
   * The same for bytes that go to a place in an open file: what is there already takes no more room.
   */
  admitRange(fd: number, offset: number | bigint, bytes: number | bigint): number {
    // no file system has such files
    if (typeof offset === 'bigint' || typeof bytes === 'bigint') return this.admit(0)
    // one more: the range may begin and end within a unit
    const blocks = this.admit(bytes + UNIT_BYTES)
    return blocks >= 0 ? blocks : this.admit(this.#missing(fd, offset, bytes))
  }

  /** Bytes of a range for which a file has no room yet. */
  #missing(fd: number, offset: number, bytes: number): number {
    if (statx(fd, this.#empty, AT_EMPTY_PATH, STATX_BLOCKS | STATX_SIZE, this.#stat.address) < 0) return bytes
    const size = this.#stat.sizeBytes
    const end = offset + bytes
    // as much room as contents: it was allocated beforehand, which is a hole to SEEK_HOLE
    if (end <= size && this.#stat.blocks * BLOCK_BYTES >= size) return 0
    let missing = 0
    let at = offset
    for (let holes = 0; at < end; holes++) {
      const hole = at < size && holes < MOST_HOLES ? Number(lseek(fd, at, SEEK_HOLE)) : at
      if (hole >= end) break
      const data = hole >= 0 && hole < size && holes < MOST_HOLES ? Number(lseek(fd, hole, SEEK_DATA)) : end
      const until = data < 0 ? end : Math.min(data, end)
      // the unit in which the contents end is there
      const from = hole < 0 ? at : hole >= size ? Math.max(hole - hole % UNIT_BYTES, Math.ceil(size / UNIT_BYTES) * UNIT_BYTES) : hole - hole % UNIT_BYTES
      missing += Math.max(0, Math.ceil(until / UNIT_BYTES) * UNIT_BYTES - from)
      at = until
    }
    return missing
  }

  /**
   * What may have changed the blocks of a pinned inode is done.
   * @param fd of it, any kind
   * @param admitted what `admit` returned, or 0
   */
  settle(index: number, fd: number, admitted: number): void {
    const asked = statx(fd, this.#empty, AT_EMPTY_PATH, STATX_BLOCKS, this.#stat.address) === 0
    lock(this.#words, Head.SPACE_LOCK)
    if (asked) {
      this.#sums[0]! += this.#stat.blocks - this.#notes[index]!
      this.#notes[index] = this.#stat.blocks
    }
    this.#sums[1]! -= admitted
    unlock(this.#words, Head.SPACE_LOCK)
  }

  /** Gives back what `admit` returned, when nothing came of it. */
  cancel(admitted: number): void {
    lock(this.#words, Head.SPACE_LOCK)
    this.#sums[1]! -= admitted
    unlock(this.#words, Head.SPACE_LOCK)
  }

  /** Whether no name leads to what a descriptor refers to. */
  hasNoName(fd: number): boolean {
    return statx(fd, this.#empty, AT_EMPTY_PATH, STATX_NLINK, this.#stat.address) === 0 && this.#stat.nlink === 0
  }
}
