/**
 * The inodes that the kernel knows, in memory shared by all workers.
 *
 * A record is live while the kernel holds lookups of it. Its node id is its index plus a
 * generation, so that the id of a forgotten inode is never taken for the next one in its slot.
 *
 * Concurrency. A request *pins* the records it uses: as long as the pin is held the record is not
 * reused and its descriptor is not closed. State word of a record:
 *
 *     bit 31      DYING: forgotten; whoever drops the last pin frees the record
 *     bits 10–30  O_PATH descriptor + 1, 0 for none
 *     bit 9       USED lately, for the descriptor cache
 *     bits 0–8    pins
 *
 * Reading (`pin`, `claim`) takes no lock. Inserting and forgetting take Head.INODE_LOCK. The hash
 * uses linear probing; a reader that runs while an entry is moved may miss it, and then takes the
 * lock and looks again. It grows by levels, each twice as large: a level is filled completely
 * before it is published, and readers of the old one miss at worst.
 *
 * Identity. Device, inode number and mount are not enough: a number is used again as soon as a
 * file is gone, and nothing here keeps a forgotten-by-others file alive. So the birth time and the
 * file handle (which has the inode's generation) are compared too. Birth time alone is proof only
 * when it lies well before the moment at which the inode was seen (TRUSTED): what is created
 * later is born later.
 */
import { errno } from '../../errors.js'
import { close } from '../../sys/io.js'
import { HANDLE_AT, HandleIndex } from './handle-index.js'
import { hashLevelAt, hashLevels, HASH_FIRST_BITS, Head, RECORD_WORDS, type Layout } from './layout.js'
import type { Space } from './space.js'
import { lock, unlock } from './spin-lock.js'
import { St, type StatBuffer } from './stat-buffer.js'

/** Words of a record. */
export const Rec = {
  STATE: 0, GENERATION: 1, COUNT: 2, COUNT_HIGH: 3, INO: 4, DEV_MAJOR: 6, DEV_MINOR: 7, MOUNT: 8, FLAGS: 9,
  BTIME: 10, BTIME_NSEC: 11,
  /** Backing id, and opens that have it. */
  BACKING: 12, BACKING_OPENS: 13,
  /** struct file_handle: u32 handle_bytes, i32 handle_type, bytes */
  HANDLE: HANDLE_AT,
  /** Instead of a file handle: the node id of a directory and the name there, NUL-terminated. */
  PARENT: 14, NAME: 16,
} as const

/** Bytes of a file handle behind its two leading words that fit a record. */
export const HANDLE_ROOM = (RECORD_WORDS - Rec.HANDLE - 2) * 4

/** Longest name, with its NUL, that fits a record. */
const NAME_ROOM = (RECORD_WORDS - Rec.NAME) * 4

/** Bits of Rec.FLAGS; bits 12–15 are the file type as in st_mode. */
export const Flag = {
  /** The record has a file handle. */
  HANDLE: 1,
  /** Opening the handle gave the inode that the record names. */
  VERIFIED: 2,
  /** A match of the birth time proves identity. */
  TRUSTED: 4,
  /** The descriptor must stay: nothing else leads to the inode. */
  KEPT: 8,
  /** In the hash. */
  HASHED: 16,
  /** The record has a directory and a name instead of a file handle. */
  NAMED: 32,
  /** Somebody hears of every change of it. */
  WATCHED: 64,
  /** A directory in which no two names are one file's, see Volume.hasPlainNames. */
  PLAIN: 128,
  /** No name leads to it any more: with the record its blocks are given back. */
  GONE: 256,
  TYPE: 0o170000,
} as const

const PIN_MASK = 0x1ff
export const USED = 0x200
const FD_SHIFT = 10
const FD_MASK = 0x7ffffc00
const DYING = 0x8000_0000 | 0

const INDEX_BITS = 24
const INDEX_SPAN = 2 ** INDEX_BITS
const INDEX_MASK = INDEX_SPAN - 1
const GENERATION_LIMIT = 2 ** 28

export const ROOT_INDEX = 1

/** Lookups are counted in COUNT up to here, and then moved to COUNT_HIGH half of this at a time. */
const COUNT_SPILL = 2 ** 30
const COUNT_UNIT = 2 ** 29

/** A birth time is at most this much younger than the clock that the kernel reads it from. */
const BIRTH_SLACK_MS = 50

/** What makes a record of the same device, inode number, mount and type the same inode. */
const By = {
  /** A birth time that proves it. */
  BIRTH: 0,
  /** The same file handle. */
  HANDLE: 1,
  /** The same birth time, of a record without a file handle, while a descriptor of the inode is held. */
  FD: 2,
  /** Nothing more. */
  NUMBER: 3,
} as const

/** The descriptor of a state word, −1 for none. */
function fdOf(state: number): number {
  return ((state & FD_MASK) >>> FD_SHIFT) - 1
}

/** One thread's access to the table. */
export class InodeTable {
  readonly #words: Int32Array
  readonly #address: number
  readonly #layout: Layout
  readonly #levels: number
  /** Only when somebody watches the directory. */
  readonly byHandle: HandleIndex | undefined

  constructor(words: Int32Array, address: number, layout: Layout) {
    this.#words = words
    this.#address = address
    this.#layout = layout
    this.#levels = hashLevels(layout.inodeCapacity)
    this.byHandle = layout.byHandleAt > 0 ? new HandleIndex(words, layout) : undefined
  }

  get live(): number {
    return Atomics.load(this.#words, Head.INODE_LIVE)
  }

  /** Word where a record starts. */
  #at(index: number): number {
    return this.#layout.recordsAt + index * RECORD_WORDS
  }

  /** Writes the node id of a record as the two halves of a u64. */
  writeNodeid(view: DataView, at: number, index: number): void {
    const generation = this.#words[this.#at(index) + Rec.GENERATION]!
    view.setUint32(at, (index | generation << INDEX_BITS) >>> 0, true)
    view.setUint32(at + 4, generation >>> (32 - INDEX_BITS), true)
  }

  /** The index that is part of a node id. */
  indexOf(nodeid: number): number {
    return nodeid & INDEX_MASK
  }

  /** The node id of a record as a number. */
  nodeid(index: number): number {
    return this.#words[this.#at(index) + Rec.GENERATION]! * INDEX_SPAN + index
  }

  /**
   * Holds the record of a node id until `unpin`.
   * @returns its index, or −ESTALE when the id was not handed out or is forgotten
   */
  pin(nodeid: number): number {
    const index = nodeid & INDEX_MASK
    if (index === 0 || index > Atomics.load(this.#words, Head.INODE_TOP)) return -errno.ESTALE
    const at = this.#at(index)
    const generation = (nodeid - index) / INDEX_SPAN
    if (Atomics.load(this.#words, at + Rec.GENERATION) !== generation) return -errno.ESTALE
    Atomics.add(this.#words, at, 1)
    // from here on it cannot be reused, but that may just have happened
    if (Atomics.load(this.#words, at + Rec.GENERATION) === generation) return index
    this.unpin(index)
    return -errno.ESTALE
  }

  unpin(index: number): void {
    const before = Atomics.sub(this.#words, this.#at(index), 1)
    if (before < 0 && ((before - 1) & PIN_MASK) === 0) this.#free(index)
  }

  /** Holds a record known by its index, whose lookup the caller owns. */
  pinIndex(index: number): void {
    Atomics.add(this.#words, this.#at(index), 1)
  }

  /** The open O_PATH descriptor of a pinned record, or −1. */
  fd(index: number): number {
    const at = this.#at(index)
    const state = Atomics.load(this.#words, at)
    if ((state & USED) === 0) Atomics.or(this.#words, at, USED)
    return fdOf(state)
  }

  flags(index: number): number {
    return this.#words[this.#at(index) + Rec.FLAGS]!
  }

  /** File type of a record, as in st_mode. */
  type(index: number): number {
    return this.#words[this.#at(index) + Rec.FLAGS]! & Flag.TYPE
  }

  setFlags(index: number, flags: number): void {
    Atomics.or(this.#words, this.#at(index) + Rec.FLAGS, flags)
  }

  clearFlags(index: number, flags: number): void {
    Atomics.and(this.#words, this.#at(index) + Rec.FLAGS, ~flags)
  }

  mountId(index: number): number {
    return this.#words[this.#at(index) + Rec.MOUNT]!
  }

  /** Backing id of a pinned record, 0 for none. Under Head.BACKING_LOCK. */
  backing(index: number): number {
    return this.#words[this.#at(index) + Rec.BACKING]!
  }

  /** Counts opens with a backing id, which goes with the last. Under Head.BACKING_LOCK. @returns how many there are */
  addBacking(index: number, id: number, opens: number): number {
    const at = this.#at(index)
    const left = this.#words[at + Rec.BACKING_OPENS]! + opens
    this.#words[at + Rec.BACKING_OPENS] = left
    this.#words[at + Rec.BACKING] = left === 0 ? 0 : id
    return left
  }

  /** Address of the struct file_handle of a record. */
  handleAddress(index: number): number {
    return this.#address + (this.#at(index) + Rec.HANDLE) * 4
  }

  /**
   * Notes by which name a record without a file handle can be found again.
   * @param parent node id of the directory
   * @returns whether the name fits
   */
  setName(index: number, parent: number, name: Uint8Array, nameAt: number): boolean {
    lock(this.#words, Head.INODE_LOCK)
    const fits = this.#writeName(index, parent, name, nameAt)
    unlock(this.#words, Head.INODE_LOCK)
    return fits
  }

  /** Under the lock. */
  #writeName(index: number, parent: number, name: Uint8Array, nameAt: number): boolean {
    const at = this.#at(index)
    let length = 0
    while (name[nameAt + length] !== 0) length++
    if (length >= NAME_ROOM) return false
    this.#words[at + Rec.PARENT] = parent | 0
    this.#words[at + Rec.PARENT + 1] = Math.floor(parent / 0x1_0000_0000)
    for (let i = 0; i <= length; i += 4) {
      this.#words[at + Rec.NAME + (i >> 2)] = name[nameAt + i]! | name[nameAt + i + 1]! << 8 | name[nameAt + i + 2]! << 16 | name[nameAt + i + 3]! << 24
    }
    this.setFlags(index, Flag.NAMED)
    return true
  }

  /** Copies the name of a record with the flag NAMED. @returns the node id of the directory */
  readName(index: number, name: Uint8Array): number {
    const at = this.#at(index)
    lock(this.#words, Head.INODE_LOCK)
    for (let i = 0; i < NAME_ROOM; i++) name[i] = this.#words[at + Rec.NAME + (i >> 2)]! >>> (i & 3) * 8
    const parent = (this.#words[at + Rec.PARENT + 1]! >>> 0) * 0x1_0000_0000 + (this.#words[at + Rec.PARENT]! >>> 0)
    unlock(this.#words, Head.INODE_LOCK)
    return parent
  }

  /**
   * Gives a pinned record its descriptor.
   * @returns false when another thread did so first; the caller closes its own
   */
  publishFd(index: number, fd: number): boolean {
    const at = this.#at(index)
    for (;;) {
      const state = Atomics.load(this.#words, at)
      if ((state & FD_MASK) !== 0) return false
      if (Atomics.compareExchange(this.#words, at, state, state | (fd + 1) << FD_SHIFT | USED) === state) break
    }
    Atomics.add(this.#words, Head.PATH_FDS, 1)
    return true
  }

  /**
   * Closes the descriptor of a record that nobody uses.
   * @param force also when it was used since the last time somebody asked
   * @returns false when it must stay for now
   */
  evictFd(index: number, force: boolean): boolean {
    const at = this.#at(index)
    const state = Atomics.load(this.#words, at)
    // a dying record closes it itself; one that is kept leaves the cache
    if ((state & FD_MASK) === 0 || state < 0 || (this.#words[at + Rec.FLAGS]! & Flag.KEPT) !== 0) return true
    if ((state & PIN_MASK) !== 0) return false
    if ((state & USED) !== 0 && !force) {
      Atomics.and(this.#words, at, ~USED)
      return false
    }
    if (Atomics.compareExchange(this.#words, at, state, state & ~(FD_MASK | USED)) !== state) return false
    Atomics.sub(this.#words, Head.PATH_FDS, 1)
    close(fdOf(state))
    return true
  }

  /** The descriptor of a pinned record stays until the record is forgotten. */
  keep(index: number): void {
    if ((Atomics.or(this.#words, this.#at(index) + Rec.FLAGS, Flag.KEPT) & Flag.KEPT) === 0) Atomics.add(this.#words, Head.KEPT_FDS, 1)
  }

  /** Undoes `keep`. @returns whether the descriptor may be closed early again */
  unkeep(index: number): boolean {
    const at = this.#at(index) + Rec.FLAGS
    if ((this.#words[at]! & (Flag.HANDLE | Flag.NAMED)) === 0 || (Atomics.and(this.#words, at, ~Flag.KEPT) & Flag.KEPT) === 0) return false
    Atomics.sub(this.#words, Head.KEPT_FDS, 1)
    return true
  }

  #sameInode(at: number, st: Int32Array): boolean {
    const w = this.#words
    return w[at + Rec.INO] === st[St.ino] && w[at + Rec.INO + 1] === st[St.ino + 1] &&
      w[at + Rec.DEV_MINOR] === st[St.devMinor] && w[at + Rec.DEV_MAJOR] === st[St.devMajor] &&
      w[at + Rec.MOUNT] === st[St.mntId] && (w[at + Rec.FLAGS]! & Flag.TYPE) === (st[St.mode]! & Flag.TYPE)
  }

  #sameBirth(at: number, st: Int32Array): boolean {
    return this.#words[at + Rec.BTIME] === st[St.btime] && this.#words[at + Rec.BTIME_NSEC] === st[St.btimeNsec]
  }

  #sameHandle(at: number, handle: Int32Array): boolean {
    const w = this.#words
    const length = 2 + ((handle[0]! + 3) >> 2)
    for (let i = 0; i < length; i++) if (w[at + Rec.HANDLE + i] !== handle[i]) return false
    return true
  }

  /** Whether the record was born when the buffer says. */
  sameBirth(index: number, stat: StatBuffer): boolean {
    return this.#sameBirth(this.#at(index), stat.words)
  }

  /** Whether the record names what the buffer describes. */
  matches(index: number, stat: StatBuffer): boolean {
    return this.#sameInode(this.#at(index), stat.words)
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
    const at = this.#at(index)
    const w = this.#words
    return this.#hash(w[at + Rec.INO]!, w[at + Rec.INO + 1]!, w[at + Rec.DEV_MINOR]!, w[at + Rec.MOUNT]!)
  }

  /**
   * Looks up the inode that the buffer describes and counts one lookup, if a match of what statx
   * tells is proof.
   * @returns its index, or 0
   */
  claim(stat: StatBuffer): number {
    const index = this.#search(stat.words, By.BIRTH, undefined)
    if (index === 0 || !this.#count(index, false)) return 0
    // the record may have been reused between the search and the count
    const at = this.#at(index)
    if (this.#sameInode(at, stat.words) && (this.#words[at + Rec.FLAGS]! & Flag.TRUSTED) !== 0 && this.#sameBirth(at, stat.words)) return index
    this.forgetIndex(index, 1)
    return 0
  }

  /** Index of a record for this inode, whoever it is: not proof of identity. 0 for none. */
  peek(stat: StatBuffer): number {
    return this.#search(stat.words, By.NUMBER, undefined)
  }

  /** The first record of this inode number that is the same inode by the given proof, or 0. */
  #search(st: Int32Array, by: number, handle: Int32Array | undefined): number {
    const w = this.#words
    const level = Atomics.load(w, Head.HASH_LEVEL)
    const base = this.#layout.hashAt + hashLevelAt(level)
    const mask = 2 ** (HASH_FIRST_BITS + level) - 1
    for (let bucket = this.#hashOfStat(st) & mask, n = 0; n <= mask; bucket = (bucket + 1) & mask, n++) {
      const index = w[base + bucket]!
      if (index === 0) return 0
      const at = this.#at(index)
      if (!this.#sameInode(at, st)) continue
      const flags = w[at + Rec.FLAGS]!
      if (by === By.NUMBER) return index
      if (by === By.HANDLE) {
        if ((flags & Flag.HANDLE) !== 0 && this.#sameHandle(at, handle!)) return index
      } else if (this.#sameBirth(at, st) && (by === By.FD ? (flags & Flag.HANDLE) === 0 : (flags & Flag.TRUSTED) !== 0)) {
        return index
      }
    }
    return 0
  }

  /** Counts one more lookup unless the record has none. @param locked the caller has the lock */
  #count(index: number, locked: boolean): boolean {
    const at = this.#at(index) + Rec.COUNT
    for (;;) {
      const count = Atomics.load(this.#words, at)
      if (count === 0) return false
      if (Atomics.compareExchange(this.#words, at, count, count + 1) !== count) continue
      if (count + 1 >= COUNT_SPILL) this.#spill(at, locked)
      return true
    }
  }

  #spill(at: number, locked: boolean): void {
    if (!locked) lock(this.#words, Head.INODE_LOCK)
    if (Atomics.load(this.#words, at) >= COUNT_SPILL) {
      Atomics.sub(this.#words, at, COUNT_UNIT)
      this.#words[at + 1]!++
    }
    if (!locked) unlock(this.#words, Head.INODE_LOCK)
  }

  /** Whether the birth time in the buffer lies so far back that a later inode cannot share it. */
  #bornBefore(st: Int32Array): boolean {
    if ((st[St.mask]! & 0x800) === 0) return false
    const seconds = st[St.btime + 1]! * 0x1_0000_0000 + (st[St.btime]! >>> 0)
    return seconds * 1000 + st[St.btimeNsec]! / 1e6 + BIRTH_SLACK_MS < Date.now()
  }

  /**
   * Counts one lookup of the inode that the buffer and the handle describe, which becomes known
   * if it was not.
   * @param handle its struct file_handle
   * @param verified both descriptions were taken from one descriptor
   * @returns its index, or −errno
   */
  insertHandle(stat: StatBuffer, handle: Int32Array, verified: boolean): number {
    const w = this.#words
    lock(w, Head.INODE_LOCK)
    let index = this.#again(stat, By.HANDLE, handle)
    if (index === 0) index = this.#allocate()
    if (index > 0 && this.created) {
      for (let i = 0, n = 2 + ((handle[0]! + 3) >> 2); i < n; i++) w[this.#at(index) + Rec.HANDLE + i] = handle[i]!
      this.#publish(index, stat, Flag.HANDLE | (verified ? Flag.VERIFIED : 0) | (this.#bornBefore(stat.words) ? Flag.TRUSTED : 0))
    }
    unlock(w, Head.INODE_LOCK)
    return index
  }

  /**
   * The same for an inode without a file handle.
   * @param fd O_PATH descriptor of it, which the record owns from now on if this call `created` it
   * @param parent node id of its directory, and its name there; without them, or when the name
   * does not fit, the descriptor stays open until the inode is forgotten
   * @returns its index, or −errno
   */
  insertFd(stat: StatBuffer, fd: number, parent: number, name: Uint8Array | undefined, nameAt: number): number {
    const w = this.#words
    lock(w, Head.INODE_LOCK)
    let index = this.#again(stat, By.FD, undefined)
    if (index === 0) index = this.#allocate()
    if (index > 0 && this.created) {
      const named = name !== undefined && this.#writeName(index, parent, name, nameAt)
      Atomics.or(w, this.#at(index), (fd + 1) << FD_SHIFT | USED)
      Atomics.add(w, Head.PATH_FDS, 1)
      if (!named) Atomics.add(w, Head.KEPT_FDS, 1)
      // an inode number is not used again while a descriptor is open
      const trusted = !named || this.#bornBefore(stat.words)
      this.#publish(index, stat, Flag.VERIFIED | (named ? Flag.NAMED : Flag.KEPT) | (trusted ? Flag.TRUSTED : 0))
    }
    unlock(w, Head.INODE_LOCK)
    return index
  }

  /** Under the lock. Counts one lookup of the inode if it is known by now. @returns its index, or 0 */
  #again(stat: StatBuffer, by: number, handle: Int32Array | undefined): number {
    this.created = false
    const index = this.#search(stat.words, by, handle)
    if (index === 0 || !this.#count(index, true)) return 0
    if (this.#bornBefore(stat.words) && this.#sameBirth(this.#at(index), stat.words)) this.setFlags(index, Flag.TRUSTED)
    return index
  }

  /** Under the lock. Fills a new record and lets others find it, with one lookup. */
  #publish(index: number, stat: StatBuffer, flags: number): void {
    const st = stat.words
    const w = this.#words
    const at = this.#at(index)
    w[at + Rec.INO] = st[St.ino]!
    w[at + Rec.INO + 1] = st[St.ino + 1]!
    w[at + Rec.DEV_MAJOR] = st[St.devMajor]!
    w[at + Rec.DEV_MINOR] = st[St.devMinor]!
    w[at + Rec.MOUNT] = st[St.mntId]!
    w[at + Rec.BTIME] = st[St.btime]!
    w[at + Rec.BTIME_NSEC] = st[St.btimeNsec]!
    w[at + Rec.FLAGS] = (st[St.mode]! & Flag.TYPE) | flags | Flag.HASHED
    w[at + Rec.COUNT_HIGH] = 0
    w[at + Rec.BACKING] = 0
    w[at + Rec.BACKING_OPENS] = 0
    this.space?.known(index, stat.blocks)
    Atomics.store(w, at + Rec.COUNT, 1)
    // last: from here on `pin` accepts the new node id
    Atomics.store(w, at + Rec.GENERATION, -w[at + Rec.GENERATION]! + 1)
    this.#link(index)
  }

  /** With `max_size`. */
  space: Space | undefined

  /** Whether the last insertion of this thread made a record. */
  created = false

  /** Makes the root known: node id 1, never forgotten, with a descriptor of its own. */
  insertRoot(stat: StatBuffer, fd: number): void {
    const index = this.insertFd(stat, fd, 0, undefined, 0)
    if (index !== ROOT_INDEX) throw new RangeError('the root must be the first inode')
    Atomics.store(this.#words, this.#at(index) + Rec.GENERATION, 0)
  }

  /** Under the lock. A record whose GENERATION is −g, where g was its last generation; sets `created`. */
  #allocate(): number {
    const w = this.#words
    let index = w[Head.INODE_FREE]!
    if (index !== 0) {
      w[Head.INODE_FREE] = w[this.#at(index) + Rec.INO]!
    } else {
      index = w[Head.INODE_TOP]! + 1
      if (index >= this.#layout.inodeCapacity) return -errno.ENFILE
      Atomics.store(w, Head.INODE_TOP, index)
    }
    Atomics.add(w, Head.INODE_LIVE, 1)
    this.created = true
    return index
  }

  /** Under the lock. */
  #link(index: number): void {
    const w = this.#words
    let level = w[Head.HASH_LEVEL]!
    if (w[Head.HASH_USED]! * 2 >= 2 ** (HASH_FIRST_BITS + level) && level + 1 < this.#levels) {
      this.#grow(level)
      level++
    }
    this.#put(level, index)
    w[Head.HASH_USED]!++
    if (this.byHandle && (this.flags(index) & Flag.HANDLE) !== 0) this.byHandle.add(index)
  }

  #put(level: number, index: number): void {
    const base = this.#layout.hashAt + hashLevelAt(level)
    const mask = 2 ** (HASH_FIRST_BITS + level) - 1
    let bucket = this.#hashOfRecord(index) & mask
    while (this.#words[base + bucket] !== 0) bucket = (bucket + 1) & mask
    Atomics.store(this.#words, base + bucket, index)
  }

  #grow(level: number): void {
    const base = this.#layout.hashAt + hashLevelAt(level)
    const end = base + 2 ** (HASH_FIRST_BITS + level)
    for (let at = base; at < end; at++) {
      const index = this.#words[at]!
      if (index !== 0) this.#put(level + 1, index)
    }
    Atomics.store(this.#words, Head.HASH_LEVEL, level + 1)
  }

  /** Under the lock. Entries behind the hole move up, so that no probe stops early. */
  #unlink(index: number): void {
    const w = this.#words
    const flagsAt = this.#at(index) + Rec.FLAGS
    if ((w[flagsAt]! & Flag.HASHED) === 0) return
    this.clearFlags(index, Flag.HASHED)
    if (this.byHandle && (this.flags(index) & Flag.HANDLE) !== 0) this.byHandle.remove(index)
    const level = w[Head.HASH_LEVEL]!
    const base = this.#layout.hashAt + hashLevelAt(level)
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

  /** The record names nothing any more: no lookup shall find it. */
  disown(index: number): void {
    lock(this.#words, Head.INODE_LOCK)
    this.#unlink(index)
    unlock(this.#words, Head.INODE_LOCK)
  }

  /** FORGET. Unknown ids are ignored. */
  forget(nodeid: number, count: number): void {
    const index = this.pin(nodeid)
    if (index < 0) return
    if (index !== ROOT_INDEX) this.forgetIndex(index, count)
    this.unpin(index)
  }

  /** Takes lookups off a record; without any left it is freed once its pins are gone. */
  forgetIndex(index: number, count: number): void {
    const w = this.#words
    const at = this.#at(index)
    this.pinIndex(index)
    lock(w, Head.INODE_LOCK)
    let left = count
    for (;;) {
      const low = Atomics.load(w, at + Rec.COUNT)
      if (low === 0) break
      if (left < low) {
        if (Atomics.compareExchange(w, at + Rec.COUNT, low, low - left) === low) break
        continue
      }
      if (w[at + Rec.COUNT_HIGH]! > 0) {
        // leaves at least one in COUNT all the time: it is never seen as 0 while lookups exist
        const units = Math.min(w[at + Rec.COUNT_HIGH]!, Math.floor(left / COUNT_UNIT))
        w[at + Rec.COUNT_HIGH]! -= units
        left -= units * COUNT_UNIT
        if (left >= low && w[at + Rec.COUNT_HIGH]! > 0) {
          w[at + Rec.COUNT_HIGH]!--
          Atomics.add(w, at + Rec.COUNT, COUNT_UNIT)
        }
        continue
      }
      if (Atomics.compareExchange(w, at + Rec.COUNT, low, 0) !== low) continue
      this.#unlink(index)
      const generation = w[at + Rec.GENERATION]!
      Atomics.store(w, at + Rec.GENERATION, -generation)
      Atomics.or(w, at, DYING)
      break
    }
    unlock(w, Head.INODE_LOCK)
    this.unpin(index)
  }

  /** Frees a dying record if it has no pins; only one of those who try succeeds. */
  #free(index: number): void {
    const w = this.#words
    const at = this.#at(index)
    let state = 0
    do {
      state = Atomics.load(w, at)
      if (state >= 0 || (state & PIN_MASK) !== 0) return
    } while (Atomics.compareExchange(w, at, state, 0) !== state)
    const fd = fdOf(state)
    if (fd >= 0) {
      Atomics.sub(w, Head.PATH_FDS, 1)
      if ((w[at + Rec.FLAGS]! & Flag.KEPT) !== 0) Atomics.sub(w, Head.KEPT_FDS, 1)
      close(fd)
    }
    if ((w[at + Rec.FLAGS]! & Flag.GONE) !== 0) this.space?.gone(index)
    lock(w, Head.INODE_LOCK)
    Atomics.sub(w, Head.INODE_LIVE, 1)
    // a slot whose generations are used up is never used again
    if (-w[at + Rec.GENERATION]! + 1 < GENERATION_LIMIT) {
      w[at + Rec.INO] = w[Head.INODE_FREE]!
      w[Head.INODE_FREE] = index
    }
    unlock(w, Head.INODE_LOCK)
  }

  /** Takes all lookups off everything but the root: DESTROY. No other request may be running. */
  forgetAll(): void {
    const top = Atomics.load(this.#words, Head.INODE_TOP)
    for (let index = ROOT_INDEX + 1; index <= top; index++) {
      if (Atomics.load(this.#words, this.#at(index) + Rec.COUNT) !== 0) this.forgetIndex(index, Number.MAX_SAFE_INTEGER)
    }
  }

  /** Records ever used: each index from 1 to here may be a live one. */
  get top(): number {
    return Atomics.load(this.#words, Head.INODE_TOP)
  }

  /** Node id of a record that nobody holds, or 0 when it is not live. */
  liveNodeid(index: number): number {
    const generation = Atomics.load(this.#words, this.#at(index) + Rec.GENERATION)
    return generation > 0 || index === ROOT_INDEX ? generation * INDEX_SPAN + index : 0
  }

  /** Closes the descriptor of the root. No thread uses the table any more. */
  closeRoot(): void {
    const at = this.#at(ROOT_INDEX)
    const fd = fdOf(this.#words[at]!)
    this.#words[at] = 0
    if (fd >= 0) close(fd)
  }

  /** Lookups of a record, for tests. */
  lookups(nodeid: number): number {
    const index = this.pin(nodeid)
    if (index < 0) return 0
    const at = this.#at(index)
    const count = this.#words[at + Rec.COUNT]! + this.#words[at + Rec.COUNT_HIGH]! * COUNT_UNIT
    this.unpin(index)
    return count
  }
}
