/** What the records of the inode table hold, see InodeTable: node ids, flags, identity, and the way to the inode. */
import { HANDLE_AT } from './handle-index.js'
import { Head, RECORD_WORDS, type Layout } from './layout.js'
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
export const NAME_ROOM = (RECORD_WORDS - Rec.NAME) * 4

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
  /** It had many blocks when that was last seen: giving them back takes long. Nothing depends on it being so. */
  LARGE: 512,
  /** It has lost its last name, or was made without one. The same holds. */
  NAMELESS: 1024,
  TYPE: 0o170000,
} as const

/** Closing its last descriptor takes long. */
export const FREES = Flag.LARGE | Flag.NAMELESS

export const PIN_MASK = 0x1ff
export const USED = 0x200
export const FD_SHIFT = 10
export const FD_MASK = 0x7ffffc00
export const DYING = 0x8000_0000 | 0

export const INDEX_BITS = 24
export const INDEX_SPAN = 2 ** INDEX_BITS
export const INDEX_MASK = INDEX_SPAN - 1
export const GENERATION_LIMIT = 2 ** 28

export const ROOT_INDEX = 1

/** A birth time is at most this much younger than the clock that the kernel reads it from. */
const BIRTH_SLACK_MS = 50

/** One thread's access to the records. */
export class InodeRecords {
  readonly words: Int32Array
  readonly address: number
  readonly layout: Layout

  constructor(words: Int32Array, address: number, layout: Layout) {
    this.words = words
    this.address = address
    this.layout = layout
  }

  /** Word where a record starts. */
  at(index: number): number {
    return this.layout.recordsAt + index * RECORD_WORDS
  }

  /** Writes the node id of a record as the two halves of a u64. */
  writeNodeid(view: DataView, at: number, index: number): void {
    const generation = this.words[this.at(index) + Rec.GENERATION]!
    view.setUint32(at, (index | generation << INDEX_BITS) >>> 0, true)
    view.setUint32(at + 4, generation >>> (32 - INDEX_BITS), true)
  }

  /** The index that is part of a node id. */
  indexOf(nodeid: number): number {
    return nodeid & INDEX_MASK
  }

  /** The node id of a record as a number. */
  nodeid(index: number): number {
    return this.words[this.at(index) + Rec.GENERATION]! * INDEX_SPAN + index
  }

  flags(index: number): number {
    return this.words[this.at(index) + Rec.FLAGS]!
  }

  /** File type of a record, as in st_mode. */
  type(index: number): number {
    return this.words[this.at(index) + Rec.FLAGS]! & Flag.TYPE
  }

  setFlags(index: number, flags: number): void {
    Atomics.or(this.words, this.at(index) + Rec.FLAGS, flags)
  }

  clearFlags(index: number, flags: number): void {
    Atomics.and(this.words, this.at(index) + Rec.FLAGS, ~flags)
  }

  mountId(index: number): number {
    return this.words[this.at(index) + Rec.MOUNT]!
  }

  /** Backing id of a pinned record, 0 for none. Under Head.BACKING_LOCK. */
  backing(index: number): number {
    return this.words[this.at(index) + Rec.BACKING]!
  }

  /** Counts opens with a backing id, which goes with the last. Under Head.BACKING_LOCK. @returns how many there are */
  addBacking(index: number, id: number, opens: number): number {
    const at = this.at(index)
    const left = this.words[at + Rec.BACKING_OPENS]! + opens
    this.words[at + Rec.BACKING_OPENS] = left
    this.words[at + Rec.BACKING] = left === 0 ? 0 : id
    return left
  }

  /** Address of the struct file_handle of a record. */
  handleAddress(index: number): number {
    return this.address + (this.at(index) + Rec.HANDLE) * 4
  }

  /**
   * Notes by which name a record without a file handle can be found again.
   * @param parent node id of the directory
   * @returns whether the name fits
   */
  setName(index: number, parent: number, name: Uint8Array, nameAt: number): boolean {
    lock(this.words, Head.INODE_LOCK)
    const fits = this.writeName(index, parent, name, nameAt)
    unlock(this.words, Head.INODE_LOCK)
    return fits
  }

  /** Under the lock. */
  writeName(index: number, parent: number, name: Uint8Array, nameAt: number): boolean {
    const at = this.at(index)
    let length = 0
    while (name[nameAt + length] !== 0) length++
    if (length >= NAME_ROOM) return false
    this.words[at + Rec.PARENT] = parent | 0
    this.words[at + Rec.PARENT + 1] = Math.floor(parent / 0x1_0000_0000)
    for (let i = 0; i <= length; i += 4) {
      this.words[at + Rec.NAME + (i >> 2)] = name[nameAt + i]! | name[nameAt + i + 1]! << 8 | name[nameAt + i + 2]! << 16 | name[nameAt + i + 3]! << 24
    }
    this.setFlags(index, Flag.NAMED)
    return true
  }

  /** Copies the name of a record with the flag NAMED. @returns the node id of the directory */
  readName(index: number, name: Uint8Array): number {
    const at = this.at(index)
    lock(this.words, Head.INODE_LOCK)
    for (let i = 0; i < NAME_ROOM; i++) name[i] = this.words[at + Rec.NAME + (i >> 2)]! >>> (i & 3) * 8
    const parent = (this.words[at + Rec.PARENT + 1]! >>> 0) * 0x1_0000_0000 + (this.words[at + Rec.PARENT]! >>> 0)
    unlock(this.words, Head.INODE_LOCK)
    return parent
  }

  sameInode(at: number, st: Int32Array): boolean {
    const w = this.words
    return w[at + Rec.INO] === st[St.ino] && w[at + Rec.INO + 1] === st[St.ino + 1] &&
      w[at + Rec.DEV_MINOR] === st[St.devMinor] && w[at + Rec.DEV_MAJOR] === st[St.devMajor] &&
      w[at + Rec.MOUNT] === st[St.mntId] && (w[at + Rec.FLAGS]! & Flag.TYPE) === (st[St.mode]! & Flag.TYPE)
  }

  sameBirthAt(at: number, st: Int32Array): boolean {
    return this.words[at + Rec.BTIME] === st[St.btime] && this.words[at + Rec.BTIME_NSEC] === st[St.btimeNsec]
  }

  sameHandle(at: number, handle: Int32Array): boolean {
    const w = this.words
    const length = 2 + ((handle[0]! + 3) >> 2)
    for (let i = 0; i < length; i++) if (w[at + Rec.HANDLE + i] !== handle[i]) return false
    return true
  }

  /** Whether the record was born when the buffer says. */
  sameBirth(index: number, stat: StatBuffer): boolean {
    return this.sameBirthAt(this.at(index), stat.words)
  }

  /** Whether the record names what the buffer describes. */
  matches(index: number, stat: StatBuffer): boolean {
    return this.sameInode(this.at(index), stat.words)
  }

  /** Whether the birth time in the buffer lies so far back that a later inode cannot share it. */
  bornBefore(st: Int32Array): boolean {
    if ((st[St.mask]! & 0x800) === 0) return false
    const seconds = st[St.btime + 1]! * 0x1_0000_0000 + (st[St.btime]! >>> 0)
    return seconds * 1000 + st[St.btimeNsec]! / 1e6 + BIRTH_SLACK_MS < Date.now()
  }
}
