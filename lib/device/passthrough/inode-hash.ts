/**
 * Finds records by what statx tells of an inode: a hash with linear probing, in levels; see
 * InodeTable for who may do what when.
 */
import { HandleIndex } from './handle-index.js'
import { Flag, Rec, type InodeRecords } from './inode-record.js'
import { hashLevelAt, hashLevels, HASH_FIRST_BITS, Head } from './layout.js'
import { St } from './stat-buffer.js'

/** What makes a record of the same device, inode number, mount and type the same inode. */
export const By = {
  /** A birth time that proves it. */
  BIRTH: 0,
  /** The same file handle. */
  HANDLE: 1,
  /** The same birth time, of a record without a file handle, while a descriptor of the inode is held. */
  FD: 2,
  /** The same birth time, proof or not. */
  BORN: 3,
  /** Nothing more. */
  NUMBER: 4,
} as const

export class InodeHash {
  readonly #records: InodeRecords
  readonly #words: Int32Array
  readonly #levels: number
  /** Only when somebody watches the directory. */
  readonly byHandle: HandleIndex | undefined

  constructor(records: InodeRecords) {
    const { words, layout } = records
    this.#records = records
    this.#words = words
    this.#levels = hashLevels(layout.inodeCapacity)
    this.byHandle = layout.byHandleAt > 0 ? new HandleIndex(words, layout) : undefined
  }

  #hash(inoLow: number, inoHigh: number, devMinor: number, mount: number): number {
    let h = Math.imul(inoLow ^ Math.imul(inoHigh, 0x9e3779b1), 0x85ebca6b) ^ Math.imul(devMinor + Math.imul(mount, 31), 0xc2b2ae35)
    h ^= h >>> 15
    h = Math.imul(h, 0x2c1b3c6d)
    return h ^ h >>> 13
  }

  #hashOfStat(st: Int32Array): number {
    return this.#hash(st[St.ino]!, st[St.ino + 1]!, st[St.devMinor]!, st[St.mntId]!)
  }

  #hashOfRecord(index: number): number {
    const at = this.#records.at(index)
    const w = this.#words
    return this.#hash(w[at + Rec.INO]!, w[at + Rec.INO + 1]!, w[at + Rec.DEV_MINOR]!, w[at + Rec.MOUNT]!)
  }

  /** The first record of this inode number that is the same inode by the given proof, or 0. */
  search(st: Int32Array, by: number, handle: Int32Array | undefined): number {
    const w = this.#words
    const level = Atomics.load(w, Head.HASH_LEVEL)
    const base = this.#records.layout.hashAt + hashLevelAt(level)
    const mask = 2 ** (HASH_FIRST_BITS + level) - 1
    for (let bucket = this.#hashOfStat(st) & mask, n = 0; n <= mask; bucket = (bucket + 1) & mask, n++) {
      const index = w[base + bucket]!
      if (index === 0) return 0
      const at = this.#records.at(index)
      if (!this.#records.sameInode(at, st)) continue
      const flags = w[at + Rec.FLAGS]!
      if (by === By.NUMBER) return index
      if (by === By.HANDLE) {
        if ((flags & Flag.HANDLE) !== 0 && this.#records.sameHandle(at, handle!)) return index
      } else if (this.#records.sameBirthAt(at, st) && (by === By.BORN || (by === By.FD ? (flags & Flag.HANDLE) === 0 : (flags & Flag.TRUSTED) !== 0))) {
        return index
      }
    }
    return 0
  }

  /** Under the lock. */
  link(index: number): void {
    const w = this.#words
    let level = w[Head.HASH_LEVEL]!
    if (w[Head.HASH_USED]! * 2 >= 2 ** (HASH_FIRST_BITS + level) && level + 1 < this.#levels) {
      this.#grow(level)
      level++
    }
    this.#put(level, index)
    w[Head.HASH_USED]!++
    if (this.byHandle && (this.#records.flags(index) & Flag.HANDLE) !== 0) this.byHandle.add(index)
  }

  #put(level: number, index: number): void {
    const base = this.#records.layout.hashAt + hashLevelAt(level)
    const mask = 2 ** (HASH_FIRST_BITS + level) - 1
    let bucket = this.#hashOfRecord(index) & mask
    while (this.#words[base + bucket] !== 0) bucket = (bucket + 1) & mask
    Atomics.store(this.#words, base + bucket, index)
  }

  #grow(level: number): void {
    const base = this.#records.layout.hashAt + hashLevelAt(level)
    const end = base + 2 ** (HASH_FIRST_BITS + level)
    for (let at = base; at < end; at++) {
      const index = this.#words[at]!
      if (index !== 0) this.#put(level + 1, index)
    }
    Atomics.store(this.#words, Head.HASH_LEVEL, level + 1)
  }

  /** Under the lock. Entries behind the hole move up, so that no probe stops early. */
  unlink(index: number): void {
    const w = this.#words
    const flagsAt = this.#records.at(index) + Rec.FLAGS
    if ((w[flagsAt]! & Flag.HASHED) === 0) return
    this.#records.clearFlags(index, Flag.HASHED)
    if (this.byHandle && (this.#records.flags(index) & Flag.HANDLE) !== 0) this.byHandle.remove(index)
    const level = w[Head.HASH_LEVEL]!
    const base = this.#records.layout.hashAt + hashLevelAt(level)
    const mask = 2 ** (HASH_FIRST_BITS + level) - 1
    let hole = this.#hashOfRecord(index) & mask
    while (w[base + hole] !== index) {
      if (w[base + hole] === 0) return
      hole = (hole + 1) & mask
    }
    for (let next = (hole + 1) & mask; w[base + next] !== 0; next = (next + 1) & mask) {
      const home = this.#hashOfRecord(w[base + next]!) & mask
      // it may move into the hole unless its home lies behind the hole
      if (((next - home) & mask) >= ((next - hole) & mask)) {
        Atomics.store(w, base + hole, w[base + next]!)
        hole = next
      }
    }
    Atomics.store(w, base + hole, 0)
    w[Head.HASH_USED]!--
  }
}
