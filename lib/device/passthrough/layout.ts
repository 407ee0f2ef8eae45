/**
 * Where things are in the memory that all workers of one shared directory share.
 *
 * One anonymous mapping, reserved but not populated: a page costs memory from its first use on.
 * It is read and written as 32-bit words; whatever two threads may touch at once goes through
 * `Atomics` or is only touched under a lock.
 */

/** Most descriptors that wait to be closed. */
export const MOST_FREEING = 64

/** Words of the head. */
export const Head = {
  /** Guards inserting and removing inodes: hash, free list, counters. */
  INODE_LOCK: 0,
  /** Guards the free list of open files. */
  HANDLE_LOCK: 1,
  /** Guards the table of mounts. */
  MOUNT_LOCK: 2,
  /** Level of the hash in use; see InodeTable. */
  HASH_LEVEL: 3,
  HASH_USED: 4,
  /** Inode records ever used; the free ones among them are chained. */
  INODE_TOP: 5,
  INODE_FREE: 6,
  INODE_LIVE: 7,
  HANDLE_TOP: 8,
  HANDLE_FREE: 9,
  HANDLE_LIVE: 10,
  /** Next position of the descriptor cache. */
  CACHE_HAND: 11,
  /** O_PATH descriptors in inode records, and those of them that must not be closed early. */
  PATH_FDS: 12,
  KEPT_FDS: 13,
  MOUNT_COUNT: 14,
  /** What INIT negotiated: `Negotiated` bits. */
  NEGOTIATED: 15,
  /** Not 0 once an inode was found that only its name leads to. */
  NAMED: 16,
  /** Guards the backing ids of inodes. */
  BACKING_LOCK: 17,
  /** Level, entries and changes of the index by file handle; see HandleIndex. */
  BY_HANDLE_LEVEL: 18,
  BY_HANDLE_USED: 19,
  BY_HANDLE_MOVES: 20,
  /** With `only`: held while something is named, see NAMING in passthrough.ts. */
  NAMES_LOCK: 21,
  /** With `max_size`: two 64-bit numbers and their lock, see Space. The first word is an even one. */
  SPACE_USED: 22,
  SPACE_ADMITTED: 24,
  SPACE_LOCK: 26,
  /** Minor device number of what shows this directory, where it is mounted; 0 for none. */
  OWN_MINOR: 27,
  /** Descriptors that are to be closed, see Freeing: lock of the list, and how many there are. */
  FREEING_LOCK: 28,
  FREEING_COUNT: 29,
  FREEING_LEFT: 30,
  FREEING_DONE: 31,
  /** Ids of the threads that serve this directory: what they change is no news to the kernel. */
  THREADS: 32,
  THREADS_END: 64,
  FREEING_CLAIMED: 64,
  /** What all of them hold, in MiB. */
  FREEING_MIB: 65,
  /** A descriptor and MiB each. */
  FREEING_LIST: 66,
  WORDS: 66 + 2 * MOST_FREEING,
} as const

/** Bits of Head.NEGOTIATED. */
export const Negotiated = {
  WRITEBACK: 1,
  POSIX_ACL: 2,
  SETXATTR_EXT: 4,
  KILLPRIV_V2: 8,
  SUPP_GROUP: 16,
  /** Files opened for writing only are written past the page cache. */
  DIRECT_WRITES: 32,
  /** The kernel takes backing files. */
  PASSTHROUGH: 64,
} as const

export const RECORD_WORDS = 26
export const HANDLE_WORDS = 12
export const MOUNT_WORDS = 4
export const MOUNT_ROOM = 1024
/** The smallest hash has 2^HASH_FIRST_BITS buckets. */
export const HASH_FIRST_BITS = 14

export interface Layout {
  /** Inode records, index 0 unused. Their number is at most 2^24. */
  inodeCapacity: number
  handleCapacity: number
  cacheCapacity: number
  /** All in words. */
  mountsAt: number
  cacheAt: number
  handlesAt: number
  hashAt: number
  recordsAt: number
  /** Notes of Space, a 64-bit number by inode; 0 without. */
  spaceAt: number
  /** The index by file handle, of the same levels as the hash; 0 without. */
  byHandleAt: number
  words: number
}

/** Hash levels, each twice the one before, end with one of at least twice the capacity. */
export function hashLevels(inodeCapacity: number): number {
  return Math.max(1, Math.ceil(Math.log2(inodeCapacity * 2)) - HASH_FIRST_BITS + 1)
}

/** Word where a level of the hash starts, counted from `hashAt`. */
export function hashLevelAt(level: number): number {
  return (2 ** level - 1) * 2 ** HASH_FIRST_BITS
}

/**
 * @param byHandle with an index of the inodes by file handle
 * @param counted with room for the notes of Space
 */
export function planLayout(inodeCapacity: number, handleCapacity: number, cacheCapacity: number, byHandle = false, counted = false): Layout {
  const page = 1024
  const round = (words: number): number => Math.ceil(words / page) * page
  const mountsAt = round(Head.WORDS)
  const cacheAt = mountsAt + round(MOUNT_ROOM * MOUNT_WORDS)
  const handlesAt = cacheAt + round(cacheCapacity)
  const hashAt = handlesAt + round(handleCapacity * HANDLE_WORDS)
  const hashWords = round(hashLevelAt(hashLevels(inodeCapacity)))
  const recordsAt = hashAt + hashWords
  const recordsEnd = recordsAt + round(inodeCapacity * RECORD_WORDS)
  const byHandleEnd = recordsEnd + (byHandle ? hashWords : 0)
  return {
    inodeCapacity, handleCapacity, cacheCapacity, mountsAt, cacheAt, handlesAt, hashAt, recordsAt,
    byHandleAt: byHandle ? recordsEnd : 0, spaceAt: counted ? byHandleEnd : 0,
    words: byHandleEnd + (counted ? round(inodeCapacity * 2) : 0),
  }
}
