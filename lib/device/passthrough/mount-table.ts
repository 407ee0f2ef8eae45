/**
 * One descriptor per mount of the shared tree. open_by_handle_at needs it, since a file handle
 * only says which inode of a file system it means.
 *
 * The table is shared by all workers and only grows; a mount that goes away and comes back has
 * another id. Entry: mount id, descriptor or NO_HANDLES, `MountKind` bits.
 */
import { close } from '../../sys/io.js'
import { Head, MOUNT_ROOM, MOUNT_WORDS, type Layout } from './layout.js'
import { lock, unlock } from './spin-lock.js'

/** Outside the range of −errno, so that a function can return either. */
export const UNKNOWN_MOUNT = -0x1000
export const NO_HANDLES = -0x1001

/** What kind of file system a mount is of. */
export const MountKind = {
  /** On this machine, and closing a file has nothing to do there (no ->flush). */
  LOCAL: 1,
  /** All data is in memory. */
  MEMORY: 2,
  /** The kernel does not take its files as backing files. */
  NO_BACKING: 4,
  /** Changes of the file system are watched. */
  WATCHED: 8,
  /** Different names may be one file's: case is ignored, or there are short names. */
  FOLDS: 16,
} as const

/** statfs.f_type. Source: Linux include/uapi/linux/magic.h, and fs/f2fs. */
const TMPFS = 0x01021994
const RAMFS = 0x858458f6
const EXT = 0xef53
const XFS = 0x58465342
const BTRFS = 0x9123683e
const F2FS = 0xf2f52010
const FOLDING: readonly number[] = [
  0x4d44 /* MSDOS */, 0x2011bab0 /* exFAT */, 0x5346544e /* NTFS */, 0x7366746e /* ntfs3 */, 0x517b /* SMB */, 0xff534d42 /* CIFS */, 0xfe534d42 /* SMB2 */,
  0x4244 /* HFS */, 0x482b /* HFS+ */, 0x9660 /* ISO 9660 */, 0xadff /* AFFS */,
]

/** `MountKind` bits of a statfs.f_type. */
export function mountKind(fsType: number): number {
  switch (fsType >>> 0) {
    case TMPFS: case RAMFS: return MountKind.LOCAL | MountKind.MEMORY
    case EXT: case XFS: case BTRFS: case F2FS: return MountKind.LOCAL
    default: return FOLDING.includes(fsType >>> 0) ? MountKind.FOLDS : 0
  }
}

export class MountTable {
  readonly #words: Int32Array
  readonly #at: number

  constructor(words: Int32Array, layout: Layout) {
    this.#words = words
    this.#at = layout.mountsAt
  }

  /** The descriptor of a mount, NO_HANDLES or UNKNOWN_MOUNT. */
  fd(mountId: number): number {
    const count = Atomics.load(this.#words, Head.MOUNT_COUNT)
    for (let i = 0, at = this.#at; i < count; i++, at += MOUNT_WORDS) {
      if (this.#words[at] === mountId) return this.#words[at + 1]!
    }
    return UNKNOWN_MOUNT
  }

  /** `MountKind` bits of a mount. */
  kind(mountId: number): number {
    const count = Atomics.load(this.#words, Head.MOUNT_COUNT)
    for (let i = 0, at = this.#at; i < count; i++, at += MOUNT_WORDS) {
      if (this.#words[at] === mountId) return this.#words[at + 2]!
    }
    return 0
  }

  /** Whether all mounts that were seen have a `MountKind` bit. */
  all(bit: number): boolean {
    const count = Atomics.load(this.#words, Head.MOUNT_COUNT)
    for (let i = 0, at = this.#at; i < count; i++, at += MOUNT_WORDS) if ((this.#words[at + 2]! & bit) === 0) return false
    return true
  }

  /** Adds a `MountKind` bit to a mount. */
  mark(mountId: number, bit: number): void {
    const count = Atomics.load(this.#words, Head.MOUNT_COUNT)
    for (let i = 0, at = this.#at; i < count; i++, at += MOUNT_WORDS) {
      if (this.#words[at] === mountId) Atomics.or(this.#words, at + 2, bit)
    }
  }

  /**
   * Enters a mount. The table owns the descriptor from then on.
   * @param fd NO_HANDLES when handles do not work there
   * @returns what the table says of that mount now: another thread may have been first
   */
  add(mountId: number, fd: number, kind: number): number {
    lock(this.#words, Head.MOUNT_LOCK)
    let entered = this.fd(mountId)
    if (entered === UNKNOWN_MOUNT) {
      const count = this.#words[Head.MOUNT_COUNT]!
      if (count < MOUNT_ROOM) {
        const at = this.#at + count * MOUNT_WORDS
        this.#words[at] = mountId
        this.#words[at + 1] = fd
        this.#words[at + 2] = kind
        Atomics.store(this.#words, Head.MOUNT_COUNT, count + 1)
        entered = fd
      } else {
        entered = NO_HANDLES
      }
    }
    unlock(this.#words, Head.MOUNT_LOCK)
    if (entered !== fd && fd >= 0) close(fd)
    return entered
  }

  get count(): number {
    return Atomics.load(this.#words, Head.MOUNT_COUNT)
  }

  /** Descriptor of the i-th mount, or NO_HANDLES. */
  fdAt(i: number): number {
    return this.#words[this.#at + i * MOUNT_WORDS + 1]!
  }

  closeAll(): void {
    for (let i = 0; i < this.count; i++) {
      const fd = this.fdAt(i)
      if (fd >= 0) close(fd)
    }
    this.#words[Head.MOUNT_COUNT] = 0
  }
}
