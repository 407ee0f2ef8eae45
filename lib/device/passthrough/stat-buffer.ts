/** A struct statx in scratch memory of one thread, read as words. */
import { scratch } from '../../sys/memory.js'
import { STATX_BASIC_STATS, STATX_BTIME, STATX_BYTES, STATX_MNT_ID, S_IFMT } from '../../sys/file.js'
import { St } from './stat-words.js'

export { St }

/** What is asked of every statx. */
export const STAT_MASK = STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID

const HIGH = 0x1_0000_0000

export class StatBuffer {
  readonly address: number
  readonly words: Int32Array

  constructor() {
    const memory = scratch(STATX_BYTES)
    this.address = memory.address
    this.words = new Int32Array(memory.view.buffer, memory.view.byteOffset, STATX_BYTES / 4)
  }

  get mode(): number {
    return this.words[St.mode]! & 0xffff
  }

  get type(): number {
    return this.words[St.mode]! & S_IFMT
  }

  get nlink(): number {
    return this.words[St.nlink]! >>> 0
  }

  /** Of 512 bytes. */
  get blocks(): number {
    return (this.words[St.blocks]! >>> 0) + this.words[St.blocks + 1]! * HIGH
  }

  get sizeBytes(): number {
    return (this.words[St.size]! >>> 0) + this.words[St.size + 1]! * HIGH
  }

  /** Whether it is of the file system without a device of its own (major 0) of this minor number. */
  isOf(minor: number): boolean {
    return this.words[St.devMinor] === minor && this.words[St.devMajor] === 0
  }

  get mountId(): number {
    return this.words[St.mntId]!
  }
}
