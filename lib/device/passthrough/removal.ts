/**
 * What the removal of a name does to the inode that it leads to: for one worker, and one name at a
 * time.
 *
 * If it is the last name of an inode that the kernel knows, a descriptor of it stays open until it
 * is forgotten, because its handle opens nothing once it is gone. With `max_size` its blocks are
 * given back, then or when it is forgotten.
 *
 * Two workers may remove names of one inode at once, or the host may: the one whose removal fails
 * lets the descriptor go, and then looks whether the inode still has a name; the other one removes,
 * and then sees to it that the descriptor stays. So one of them sees what the other did.
 */
import { S_IFDIR } from '../../sys/file.js'
import { LARGE_BLOCKS } from './freeing.js'
import { FREES, Flag } from './inode-record.js'
import { Head } from './layout.js'
import type { Volume } from './volume.js'

export class Removal {
  readonly #volume: Volume
  /** Index of the inode, pinned, if it is known and this is its last name; else 0. */
  #index = 0
  /** Its descriptor stays, because of this or of another worker's removal. */
  #kept = false
  /** Because of this one. */
  #keptHere = false
  /** What is known by its number is not the inode that the name leads to. */
  #isOther = false
  /** Of an inode that is not known, if this is its last name. */
  #blocks = 0
  #large = false
  /** The removal itself gives back the blocks of a large file: it takes long. */
  frees = false

  constructor(volume: Volume) {
    this.#volume = volume
  }

  /** Before a name is removed or replaced. To be followed by `end`. */
  begin(dirFd: number, name: number): void {
    const { inodes, stat } = this.#volume
    this.#index = 0
    this.#kept = this.#keptHere = false
    this.#blocks = 0
    this.frees = false
    if (this.#volume.statName(dirFd, name) < 0) return
    if (stat.nlink > 1 && stat.type !== S_IFDIR) return
    const index = inodes.pinKnown(stat)
    this.#large = stat.blocks >= LARGE_BLOCKS
    if (index === 0) {
      this.#blocks = stat.blocks
      this.frees = this.#large
      return
    }
    this.#index = index
    // another inode of this number is being forgotten: it keeps what is counted for it
    this.#isOther = !inodes.sameBirth(index, stat)
    if (this.#isOther) this.#blocks = stat.blocks
    this.#keep(index)
    this.frees = this.#large && (this.#isOther || inodes.fd(index) < 0)
  }

  #keep(index: number): void {
    const { inodes, words, keptLimit } = this.#volume
    this.#kept = (inodes.flags(index) & Flag.KEPT) !== 0
    if (this.#kept || words[Head.KEPT_FDS]! >= keptLimit || this.#volume.fd(index) < 0) return
    inodes.keep(index)
    this.#kept = this.#keptHere = true
  }

  /** After it. @param removed whether the name is gone */
  end(removed: boolean): void {
    const { inodes, space } = this.#volume
    const index = this.#index
    if (removed && this.#blocks > 0) space?.add(-this.#blocks)
    if (index === 0) return
    if (removed && !this.#isOther) inodes.setFlags(index, this.#large ? FREES : Flag.NAMELESS)
    if (removed && space !== undefined && !this.#isOther) {
      // another name may have come meanwhile; without a descriptor nobody can tell
      const fd = inodes.fd(index)
      if (fd < 0 || space.hasNoName(fd)) inodes.setFlags(index, Flag.GONE)
    }
    if (removed && this.#kept) inodes.keep(index)
    // the name is still there: the descriptor need not stay
    else if (!removed && this.#keptHere && inodes.unkeep(index)) this.#unkept(index)
    inodes.unpin(index)
  }

  /** The descriptor of an inode may be closed early again, unless its last name has gone meanwhile. */
  #unkept(index: number): void {
    const { inodes, stat, cache } = this.#volume
    if (this.#volume.statFd(inodes.fd(index)) === 0 && stat.nlink === 0) inodes.keep(index)
    else cache.enter(index)
  }
}
