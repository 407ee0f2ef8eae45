/**
 * A file system in TypeScript: the class that `serveDevice` serves as a virtio-fs device.
 *
 * Methods are the operations of FUSE under their names, in camelCase, with plain values. What is
 * not overridden answers ENOSYS; the kernel remembers that and does without, where it can:
 *
 * - `open`, `opendir`: opening always succeeds, with handle 0, and nothing is released
 * - `create`: `mknod`, then `open`; `flush`, `fsync`, `access`: succeed
 * - `lseek`, `copyFileRange`, `fallocate`, the extended attributes: as on a file system without them
 *
 * Methods are synchronous. They run on the thread of the device's one queue, which serves one
 * request at a time and never returns to its event loop: no promise, timer or callback would ever
 * run there, and two requests are never at work at once. What has to wait does so in the call
 * (`readSync`, `Atomics.wait` for another thread), and everybody waits with it. They must not
 * touch the mount itself.
 */
import { errno } from '../errors.js'
import type { InitFlag } from '../fuse/abi.js'

/** Name of an error number, such as `ENOENT`. */
export type ErrnoName = keyof typeof errno

/**
 * The answer of a method that fails. An answer, not an accident: it has no stack, which would cost
 * four times the rest of it.
 */
export class FuseError extends Error {
  readonly code: ErrnoName
  /** Positive. */
  readonly errno: number

  /** @throws TypeError when there is no such error */
  constructor(code: ErrnoName) {
    const { stackTraceLimit } = Error
    Error.stackTraceLimit = 0
    super(code)
    Error.stackTraceLimit = stackTraceLimit
    if (!Object.hasOwn(errno, code)) throw new TypeError(`${String(code)} is not the name of an error`)
    this.name = 'FuseError'
    this.code = code
    this.errno = errno[code]
  }
}

/** Errors beyond this are not errno numbers (MAX_ERRNO of the reply check in fs/fuse/dev.c). */
const ERROR_LIMIT = 512

/**
 * The errno of a FuseError, 0 for anything else.
 * @internal By its shape: a file system may have got its FuseError from another copy of this package.
 */
export function fuseErrorNumber(error: unknown): number {
  if (!(error instanceof Error) || error.name !== 'FuseError') return 0
  const number = (error as FuseError).errno
  return Number.isInteger(number) && number > 0 && number < ERROR_LIMIT ? number : 0
}

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

function notImplemented(): FuseError {
  return new FuseError('ENOSYS')
}

/**
 * Names are strings; bytes that are not UTF-8 are lone surrogates U+DC80 to U+DCFF in them
 * (`bytesToString` and `stringToBytes` convert). The kernel checks permissions unless it was
 * mounted without `default_permissions`, and applies umask.
 */
export abstract class FileSystem {
  /** When nothing changes but through the mount, long ones make it fast. */
  readonly timeouts: Timeouts = { entry: 1, attributes: 1, negative: 0 }
  /** Wanted beyond what the adapter does by itself. */
  readonly flags: readonly OptionalFlag[] = []

  /** A session begins. */
  init(kernel: Kernel): void
  init(): void {}

  /** The session has ended: nothing more comes. Every node was forgotten; what is open counts as released. */
  destroy(): void {}

  /** The clock of file times, to the millisecond. The adapter asks it where setattr is to set the time now. */
  now(): Timestamp {
    const ms = Date.now()
    const seconds = Math.floor(ms / 1000)
    return { seconds, nanoseconds: (ms - seconds * 1000) * 1_000_000 }
  }

  lookup(parent: number, name: string, caller: Caller): Entry
  lookup(): never { throw notImplemented() }

  /** The kernel does not know this node any more: it comes in no request until it is returned again. Never the root. */
  forget(node: number): void
  forget(): void {}

  /** @param handle of the open file that was asked, if one was */
  getattr(node: number, handle: number | undefined, caller: Caller): Attributes
  getattr(): never { throw notImplemented() }

  /** All changes or none. @returns the attributes after it */
  setattr(node: number, changes: Changes, handle: number | undefined, caller: Caller): Attributes
  setattr(): never { throw notImplemented() }

  readlink(node: number, caller: Caller): string
  readlink(): never { throw notImplemented() }

  symlink(parent: number, name: string, target: string, caller: Caller): Entry
  symlink(): never { throw notImplemented() }

  /** @param mode with the type: regular file, FIFO, socket, device */
  mknod(parent: number, name: string, mode: number, rdev: number, caller: Caller): Entry
  mknod(): never { throw notImplemented() }

  mkdir(parent: number, name: string, mode: number, caller: Caller): Entry
  mkdir(): never { throw notImplemented() }

  unlink(parent: number, name: string, caller: Caller): void
  unlink(): never { throw notImplemented() }

  rmdir(parent: number, name: string, caller: Caller): void
  rmdir(): never { throw notImplemented() }

  /** @param flags RENAME_NOREPLACE 1, RENAME_EXCHANGE 2, RENAME_WHITEOUT 4 */
  rename(parent: number, name: string, newParent: number, newName: string, flags: number, caller: Caller): void
  rename(): never { throw notImplemented() }

  link(node: number, newParent: number, newName: string, caller: Caller): Entry
  link(): never { throw notImplemented() }

  /** @param flags of open(2); O_TRUNC comes as a setattr unless ATOMIC_O_TRUNC is wanted */
  open(node: number, flags: number, caller: Caller): Opened
  open(): never { throw notImplemented() }

  create(parent: number, name: string, flags: number, mode: number, caller: Caller): Created
  create(): never { throw notImplemented() }

  /** A file without a name in this directory's file system. */
  tmpfile(parent: number, flags: number, mode: number, caller: Caller): Created
  tmpfile(): never { throw notImplemented() }

  /**
   * Less than `size` means the end of the file.
   *
   * @param buffer `size` bytes of the reply itself, to read into without a copy; yours until you return
   * @returns the data, or how many bytes were put into `buffer`
   */
  read(node: number, handle: number, offset: number, size: number, buffer: Buffer): Uint8Array | number
  read(): never { throw notImplemented() }

  /** @param data of the request itself; yours until you return: copy what is to stay @returns bytes written */
  write(node: number, handle: number, offset: number, data: Buffer): number
  write(): never { throw notImplemented() }

  /** A descriptor was closed: the last chance to report an error to close(2). */
  flush(node: number, handle: number): void
  flush(): never { throw notImplemented() }

  /** The last descriptor of an open file is gone. */
  release(node: number, handle: number): void
  release(): never { throw notImplemented() }

  fsync(node: number, handle: number, dataOnly: boolean): void
  fsync(): never { throw notImplemented() }

  opendir(node: number, caller: Caller): Opened
  opendir(): never { throw notImplemented() }

  /**
   * The entries behind an offset, without `.` and `..`. As many are taken as fit; those that do
   * not are asked for again. An error after some entries is reported when it comes again.
   *
   * @param offset 0 for the beginning, else of the last entry that was taken
   * @param plus entries are wanted with `entry`
   */
  readdir(node: number, handle: number, offset: number, plus: boolean): Iterable<DirectoryEntry>
  readdir(): never { throw notImplemented() }

  releasedir(node: number, handle: number): void
  releasedir(): never { throw notImplemented() }

  fsyncdir(node: number, handle: number, dataOnly: boolean): void
  fsyncdir(): never { throw notImplemented() }

  statfs(node: number, caller: Caller): Statistics
  statfs(): never { throw notImplemented() }

  getxattr(node: number, name: string, caller: Caller): Uint8Array
  getxattr(): never { throw notImplemented() }

  /** @param flags XATTR_CREATE 1, XATTR_REPLACE 2 */
  setxattr(node: number, name: string, value: Buffer, flags: number, caller: Caller): void
  setxattr(): never { throw notImplemented() }

  listxattr(node: number, caller: Caller): Iterable<string>
  listxattr(): never { throw notImplemented() }

  removexattr(node: number, name: string, caller: Caller): void
  removexattr(): never { throw notImplemented() }

  /** Only called on mounts without `default_permissions`. @param mask of access(2) */
  access(node: number, mask: number, caller: Caller): void
  access(): never { throw notImplemented() }

  /** @param mode of fallocate(2) */
  fallocate(node: number, handle: number, offset: number, length: number, mode: number): void
  fallocate(): never { throw notImplemented() }

  /** SEEK_DATA 3 and SEEK_HOLE 4; the kernel does the others. @returns the offset found */
  lseek(node: number, handle: number, offset: number, whence: number): number
  lseek(): never { throw notImplemented() }

  /** @returns bytes copied; fewer is no error */
  copyFileRange(node: number, handle: number, offset: number, toNode: number, toHandle: number, toOffset: number, length: number): number
  copyFileRange(): never { throw notImplemented() }
}
