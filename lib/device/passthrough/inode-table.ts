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
import type { HandleIndex } from './handle-index.js'
import { fdOf, InodeDescriptors } from './inode-descriptors.js'
import { By, InodeHash } from './inode-hash.js'
import { InodeLookups } from './inode-lookups.js'
import { DYING, FD_SHIFT, Flag, GENERATION_LIMIT, INDEX_MASK, INDEX_SPAN, PIN_MASK, Rec, ROOT_INDEX, USED } from './inode-record.js'
import { Head, type Layout } from './layout.js'
import type { Space } from './space.js'
import { lock, unlock } from './spin-lock.js'
import { St, type StatBuffer } from './stat-buffer.js'

/** One thread's access to the table. */
export class InodeTable extends InodeDescriptors {
  readonly #hash: InodeHash
  readonly #lookups: InodeLookups

  constructor(words: Int32Array, address: number, layout: Layout) {
    super(words, address, layout)
    this.#hash = new InodeHash(this)
    this.#lookups = new InodeLookups(this)
  }

  /** Only when somebody watches the directory. */
  get byHandle(): HandleIndex | undefined {
    return this.#hash.byHandle
  }

  get live(): number {
    return Atomics.load(this.words, Head.INODE_LIVE)
  }

  /**
   * Holds the record of a node id until `unpin`.
   * @returns its index, or −ESTALE when the id was not handed out or is forgotten
   */
  pin(nodeid: number): number {
    const index = nodeid & INDEX_MASK
    if (index === 0 || index > Atomics.load(this.words, Head.INODE_TOP)) return -errno.ESTALE
    const at = this.at(index)
    const generation = (nodeid - index) / INDEX_SPAN
    if (Atomics.load(this.words, at + Rec.GENERATION) !== generation) return -errno.ESTALE
    Atomics.add(this.words, at, 1)
    // from here on it cannot be reused, but that may just have happened
    if (Atomics.load(this.words, at + Rec.GENERATION) === generation) return index
    this.unpin(index)
    return -errno.ESTALE
  }

  unpin(index: number): void {
    const before = Atomics.sub(this.words, this.at(index), 1)
    if (before < 0 && ((before - 1) & PIN_MASK) === 0) this.#free(index)
  }

  /** Holds a record known by its index, whose lookup the caller owns. */
  pinIndex(index: number): void {
    Atomics.add(this.words, this.at(index), 1)
  }

  /**
   * Looks up the inode that the buffer describes and counts one lookup, if a match of what statx
   * tells is proof.
   * @returns its index, or 0
   */
  claim(stat: StatBuffer): number {
    const index = this.#hash.search(stat.words, By.BIRTH, undefined)
    if (index === 0 || !this.#lookups.add(index, false)) return 0
    // the record may have been reused between the search and the count
    const at = this.at(index)
    if (this.sameInode(at, stat.words) && (this.words[at + Rec.FLAGS]! & Flag.TRUSTED) !== 0 && this.sameBirthAt(at, stat.words)) return index
    this.forgetIndex(index, 1)
    return 0
  }

  /**
   * Holds the record of the inode that the buffer describes until `unpin`. Not proof of identity: if
   * none was born when it says, it is one whose inode has lost its number to this one. With the lock,
   * so that no record is missed, and none is freed before it is held.
   * @returns its index, or 0
   */
  pinKnown(stat: StatBuffer): number {
    lock(this.words, Head.INODE_LOCK)
    let index = this.#hash.search(stat.words, By.BORN, undefined)
    if (index === 0) index = this.#hash.search(stat.words, By.NUMBER, undefined)
    if (index !== 0) this.pinIndex(index)
    unlock(this.words, Head.INODE_LOCK)
    return index
  }

  /**
   * Counts one lookup of the inode that the buffer and the handle describe, which becomes known
   * if it was not.
   * @param handle its struct file_handle
   * @param verified both descriptions were taken from one descriptor
   * @returns its index, or −errno
   */
  insertHandle(stat: StatBuffer, handle: Int32Array, verified: boolean): number {
    const w = this.words
    lock(w, Head.INODE_LOCK)
    let index = this.#again(stat, By.HANDLE, handle)
    if (index === 0) index = this.#allocate()
    if (index > 0 && this.created) {
      for (let i = 0, n = 2 + ((handle[0]! + 3) >> 2); i < n; i++) w[this.at(index) + Rec.HANDLE + i] = handle[i]!
      this.#publish(index, stat, Flag.HANDLE | (verified ? Flag.VERIFIED : 0) | (this.bornBefore(stat.words) ? Flag.TRUSTED : 0))
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
    const w = this.words
    lock(w, Head.INODE_LOCK)
    let index = this.#again(stat, By.FD, undefined)
    if (index === 0) index = this.#allocate()
    if (index > 0 && this.created) {
      const named = name !== undefined && this.writeName(index, parent, name, nameAt)
      Atomics.or(w, this.at(index), (fd + 1) << FD_SHIFT | USED)
      Atomics.add(w, Head.PATH_FDS, 1)
      if (!named) Atomics.add(w, Head.KEPT_FDS, 1)
      // an inode number is not used again while a descriptor is open
      const trusted = !named || this.bornBefore(stat.words)
      this.#publish(index, stat, Flag.VERIFIED | (named ? Flag.NAMED : Flag.KEPT) | (trusted ? Flag.TRUSTED : 0))
    }
    unlock(w, Head.INODE_LOCK)
    return index
  }

  /** Under the lock. Counts one lookup of the inode if it is known by now. @returns its index, or 0 */
  #again(stat: StatBuffer, by: number, handle: Int32Array | undefined): number {
    this.created = false
    const index = this.#hash.search(stat.words, by, handle)
    if (index === 0 || !this.#lookups.add(index, true)) return 0
    if (this.bornBefore(stat.words) && this.sameBirthAt(this.at(index), stat.words)) this.setFlags(index, Flag.TRUSTED)
    return index
  }

  /** Under the lock. Fills a new record and lets others find it, with one lookup. */
  #publish(index: number, stat: StatBuffer, flags: number): void {
    const st = stat.words
    const w = this.words
    const at = this.at(index)
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
    this.#hash.link(index)
  }

  /** With `max_size`. */
  space: Space | undefined

  /** Whether the last insertion of this thread made a record. */
  created = false

  /** Makes the root known: node id 1, never forgotten, with a descriptor of its own. */
  insertRoot(stat: StatBuffer, fd: number): void {
    const index = this.insertFd(stat, fd, 0, undefined, 0)
    if (index !== ROOT_INDEX) throw new RangeError('the root must be the first inode')
    Atomics.store(this.words, this.at(index) + Rec.GENERATION, 0)
  }

  /** Under the lock. A record whose GENERATION is −g, where g was its last generation; sets `created`. */
  #allocate(): number {
    const w = this.words
    let index = w[Head.INODE_FREE]!
    if (index !== 0) {
      w[Head.INODE_FREE] = w[this.at(index) + Rec.INO]!
    } else {
      index = w[Head.INODE_TOP]! + 1
      if (index >= this.layout.inodeCapacity) return -errno.ENFILE
      Atomics.store(w, Head.INODE_TOP, index)
    }
    Atomics.add(w, Head.INODE_LIVE, 1)
    this.created = true
    return index
  }

  /** The record names nothing any more: no lookup shall find it. */
  disown(index: number): void {
    lock(this.words, Head.INODE_LOCK)
    this.#hash.unlink(index)
    unlock(this.words, Head.INODE_LOCK)
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
    const w = this.words
    const at = this.at(index)
    this.pinIndex(index)
    lock(w, Head.INODE_LOCK)
    if (this.#lookups.take(index, count)) {
      this.#hash.unlink(index)
      const generation = w[at + Rec.GENERATION]!
      Atomics.store(w, at + Rec.GENERATION, -generation)
      Atomics.or(w, at, DYING)
    }
    unlock(w, Head.INODE_LOCK)
    this.unpin(index)
  }

  /** Frees a dying record if it has no pins; only one of those who try succeeds. */
  #free(index: number): void {
    const w = this.words
    const at = this.at(index)
    let state = 0
    do {
      state = Atomics.load(w, at)
      if (state >= 0 || (state & PIN_MASK) !== 0) return
    } while (Atomics.compareExchange(w, at, state, 0) !== state)
    const fd = fdOf(state)
    if (fd >= 0) {
      Atomics.sub(w, Head.PATH_FDS, 1)
      this.closeFd(at, fd)
    }
    if ((w[at + Rec.FLAGS]! & Flag.KEPT) !== 0) Atomics.sub(w, Head.KEPT_FDS, 1)
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
    const top = Atomics.load(this.words, Head.INODE_TOP)
    for (let index = ROOT_INDEX + 1; index <= top; index++) {
      if (Atomics.load(this.words, this.at(index) + Rec.COUNT) !== 0) this.forgetIndex(index, Number.MAX_SAFE_INTEGER)
    }
  }

  /** Records ever used: each index from 1 to here may be a live one. */
  get top(): number {
    return Atomics.load(this.words, Head.INODE_TOP)
  }

  /** Node id of a record that nobody holds, or 0 when it is not live. */
  liveNodeid(index: number): number {
    const generation = Atomics.load(this.words, this.at(index) + Rec.GENERATION)
    return generation > 0 || index === ROOT_INDEX ? generation * INDEX_SPAN + index : 0
  }

  /** Closes the descriptor of the root. No thread uses the table any more. */
  closeRoot(): void {
    const at = this.at(ROOT_INDEX)
    const fd = fdOf(this.words[at]!)
    this.words[at] = 0
    if (fd >= 0) close(fd)
  }

  /** Lookups of a record, for tests. */
  lookups(nodeid: number): number {
    const index = this.pin(nodeid)
    if (index < 0) return 0
    const count = this.#lookups.of(index)
    this.unpin(index)
    return count
  }
}
