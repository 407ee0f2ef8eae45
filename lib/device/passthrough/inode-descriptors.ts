/** The O_PATH descriptors of inode records, in their state words: see InodeTable. */
import { close } from '../../sys/io.js'
import type { Freeing } from './freeing.js'
import { FD_MASK, FD_SHIFT, Flag, FREES, InodeRecords, PIN_MASK, Rec, USED } from './inode-record.js'
import { Head } from './layout.js'

/** The descriptor of a state word, −1 for none. */
export function fdOf(state: number): number {
  return ((state & FD_MASK) >>> FD_SHIFT) - 1
}

export abstract class InodeDescriptors extends InodeRecords {
  /** Where descriptors are left whose closing takes long. */
  freeing: Freeing | undefined

  abstract unpin(index: number): void

  /** Closes what was the descriptor of a record. @param at of the record */
  protected closeFd(at: number, fd: number): void {
    if ((this.words[at + Rec.FLAGS]! & FREES) === FREES && this.freeing?.leave(fd)) return
    close(fd)
  }

  /** The open O_PATH descriptor of a pinned record, or −1. */
  fd(index: number): number {
    const at = this.at(index)
    const state = Atomics.load(this.words, at)
    if ((state & USED) === 0) Atomics.or(this.words, at, USED)
    return fdOf(state)
  }

  /**
   * Gives a pinned record its descriptor.
   * @returns false when another thread did so first; the caller closes its own
   */
  publishFd(index: number, fd: number): boolean {
    const at = this.at(index)
    for (;;) {
      const state = Atomics.load(this.words, at)
      if ((state & FD_MASK) !== 0) return false
      if (Atomics.compareExchange(this.words, at, state, state | (fd + 1) << FD_SHIFT | USED) === state) break
    }
    Atomics.add(this.words, Head.PATH_FDS, 1)
    return true
  }

  /**
   * Closes the descriptor of a record that nobody uses.
   * @param force also when it was used since the last time somebody asked
   * @returns false when it must stay for now
   */
  evictFd(index: number, force: boolean): boolean {
    const at = this.at(index)
    const state = Atomics.load(this.words, at)
    // a dying record closes it itself; one that is kept leaves the cache
    if ((state & FD_MASK) === 0 || state < 0 || (this.words[at + Rec.FLAGS]! & Flag.KEPT) !== 0) return true
    if ((state & PIN_MASK) !== 0) return false
    if ((state & USED) !== 0 && !force) {
      Atomics.and(this.words, at, ~USED)
      return false
    }
    // with a pin, so that it stays the same record
    if (Atomics.compareExchange(this.words, at, state, (state & ~(FD_MASK | USED)) + 1) !== state) return false
    Atomics.sub(this.words, Head.PATH_FDS, 1)
    const fd = fdOf(state)
    // it may have been kept after the look at its flags, and look as it did
    const kept = (Atomics.load(this.words, at + Rec.FLAGS) & Flag.KEPT) !== 0
    if (!kept || !this.publishFd(index, fd)) this.closeFd(at, fd)
    this.unpin(index)
    return true
  }

  /** The descriptor of a pinned record stays until the record is forgotten. */
  keep(index: number): void {
    if ((Atomics.or(this.words, this.at(index) + Rec.FLAGS, Flag.KEPT) & Flag.KEPT) === 0) Atomics.add(this.words, Head.KEPT_FDS, 1)
  }

  /** Undoes `keep`. @returns whether the descriptor may be closed early again */
  unkeep(index: number): boolean {
    const at = this.at(index) + Rec.FLAGS
    if ((this.words[at]! & (Flag.HANDLE | Flag.NAMED)) === 0 || (Atomics.and(this.words, at, ~Flag.KEPT) & Flag.KEPT) === 0) return false
    Atomics.sub(this.words, Head.KEPT_FDS, 1)
    return true
  }
}
