/**
 * What the removal of a name does to the inode that it leads to: for one worker, and one name at a
 * time.
 *
 * If it is the last name of an inode that the kernel knows, a descriptor of it stays open until it
 * is forgotten, because its handle opens nothing once it is gone. With `max_size` its blocks are
 * given back, then or when it is forgotten.
 */
import { S_IFDIR } from '../../sys/file.js'
import { Flag } from './inode-record.js'
import { Head } from './layout.js'
import type { Volume } from './volume.js'

export class Removal {
  readonly #volume: Volume
  /** Index of the inode, pinned, if it is known and this is its last name; else 0. */
  #index = 0
  /** Its descriptor stays because of this. */
  #kept = false
  /** What is known by its number is not the inode that the name leads to. */
  #isOther = false
  /** Of an inode that is not known, if this is its last name. */
  #blocks = 0

  constructor(volume: Volume) {
    this.#volume = volume
  }

  /** Before a name is removed or replaced. To be followed by `end`. */
  begin(dirFd: number, name: number): void {
    const { inodes, stat } = this.#volume
    this.#index = 0
    this.#kept = false
    this.#blocks = 0
    if (this.#volume.statName(dirFd, name) < 0) return
    if (stat.nlink > 1 && stat.type !== S_IFDIR) return
    const index = inodes.pinKnown(stat)
    if (index === 0) {
      this.#blocks = stat.blocks
      return
    }
    this.#index = index
    // another inode of this number is being forgotten: it keeps what is counted for it
    this.#isOther = !inodes.sameBirth(index, stat)
    if (this.#isOther) this.#blocks = stat.blocks
    this.#kept = this.#keep(index)
  }

  #keep(index: number): boolean {
    const { inodes, words, keptLimit } = this.#volume
    if ((inodes.flags(index) & Flag.KEPT) !== 0 || words[Head.KEPT_FDS]! >= keptLimit || this.#volume.fd(index) < 0) return false
    inodes.keep(index)
    return true
  }

  /** After it. @param removed whether the name is gone */
  end(removed: boolean): void {
    const { inodes, space, cache } = this.#volume
    const index = this.#index
    if (removed && this.#blocks > 0) space?.add(-this.#blocks)
    if (index === 0) return
    if (removed && space !== undefined && !this.#isOther) {
      // another name may have come meanwhile; without a descriptor nobody can tell
      const fd = inodes.fd(index)
      if (fd < 0 || space.hasNoName(fd)) inodes.setFlags(index, Flag.GONE)
    }
    // the name is still there: the descriptor need not stay
    if (!removed && this.#kept && inodes.unkeep(index)) cache.enter(index)
    inodes.unpin(index)
  }
}
