/** What the methods of a file system are given and return. */
import type { InitFlag } from '../fuse/abi.js'

/** What a method returns; the promise only with `async`. */
export type Answer<T> = T | Promise<T>

/** Since 1970: seconds, rounded down, and the nanoseconds beyond them. */
export interface Timestamp {
  readonly seconds: number
  readonly nanoseconds: number
}

/** What stat(2) says of a file. Whole numbers from 0. */
export interface Attributes {
  /** Type and permissions: `S_IFREG | 0o644`. */
  readonly mode: number
  /** Default: the node id. */
  readonly ino?: number | undefined
  /** Bytes; default 0. */
  readonly size?: number | undefined
  /** Of 512 bytes; default: what the size needs. */
  readonly blocks?: number | undefined
  /** Names; default 1. */
  readonly nlink?: number | undefined
  readonly uid?: number | undefined
  readonly gid?: number | undefined
  /** As mknod was given it. */
  readonly rdev?: number | undefined
  /** Default 4096. */
  readonly blksize?: number | undefined
  /** Default 1970, as for the other two. */
  readonly atime?: Timestamp | undefined
  readonly mtime?: Timestamp | undefined
  readonly ctime?: Timestamp | undefined
  /** Seconds that the kernel may rely on this; default: the file system's. */
  readonly timeout?: number | undefined
}

/**
 * A name's file. Each time that one is returned the kernel knows the node once more; `forget` is
 * called when it knows it no longer.
 */
export interface Entry {
  /** Of your choice, from 2 to 2^53 − 1, and the same for all names of one file. The root is 1. */
  readonly node: number
  /** To be changed when a node id is used again for another file while handles of NFS may be about. */
  readonly generation?: number | undefined
  readonly attributes: Attributes
  /** Seconds that the kernel may rely on the name; default: the file system's. */
  readonly timeout?: number | undefined
}

export interface Opened {
  /** Of your choice, up to 2^53 − 1; given to the methods on the open file. Default 0. */
  readonly handle?: number | undefined
  /** What the kernel has of the file's data is still good. */
  readonly keepCache?: boolean | undefined
  /** Every read and write comes here: the kernel keeps no data. */
  readonly directIo?: boolean | undefined
  /** For a directory: the kernel may keep its list. */
  readonly cacheDirectory?: boolean | undefined
  readonly nonSeekable?: boolean | undefined
  /** No `flush` at close. */
  readonly noFlush?: boolean | undefined
}

export type Created = Entry & Opened

/** What setattr is to change: what is there. */
export interface Changes {
  readonly mode?: number
  readonly uid?: number
  readonly gid?: number
  readonly size?: number
  readonly atime?: Timestamp
  readonly mtime?: Timestamp
  readonly ctime?: Timestamp
}

export interface DirectoryEntry {
  readonly name: string
  /** Where to go on behind this entry: from 1 to 2^53 − 3. It must stay good while entries come and go. */
  readonly offset: number
  /** Inode number; default: that of `entry`. */
  readonly ino?: number | undefined
  /** Its type, `S_IFDIR`; permissions do no harm. Default: that of `entry`. */
  readonly mode?: number | undefined
  /** When asked for with `plus`: saves the kernel a lookup. */
  readonly entry?: Entry | undefined
}

export interface Statistics {
  /** In units of `frsize`. */
  readonly blocks: number
  readonly bfree: number
  readonly bavail: number
  readonly files?: number | undefined
  readonly ffree?: number | undefined
  /** Default 4096. */
  readonly bsize?: number | undefined
  /** Default: `bsize`. */
  readonly frsize?: number | undefined
}

/** Who asks. */
export interface Caller {
  readonly uid: number
  readonly gid: number
  readonly pid: number
  /** When something is made: the supplementary group that matters, if one does. */
  readonly groups: readonly number[]
  /** With `async`: aborted when nobody waits for the answer any more. What then rejects with its reason is answered EINTR. */
  readonly signal: AbortSignal
}

export interface Kernel {
  /** Of the FUSE protocol. */
  readonly major: number
  readonly minor: number
  /** What it offers. */
  readonly flags: readonly InitFlag[]
}

/** Seconds that the kernel may rely on what it was told; fractions are possible. */
export interface Timeouts {
  /** That a name is this file. */
  readonly entry: number
  readonly attributes: number
  /** That a name does not exist. */
  readonly negative: number
}

/** FUSE_INIT flags that change what a file system is asked to do. */
export type OptionalFlag = 'ATOMIC_O_TRUNC' | 'CACHE_SYMLINKS' | 'HANDLE_KILLPRIV' | 'WRITEBACK_CACHE'
