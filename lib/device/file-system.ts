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
 * Methods are synchronous, unless the device is made with `async`. They run on the thread of the
 * device's one queue, which serves one request at a time and never returns to its event loop: no
 * promise, timer or callback would ever run there, and two requests are never at work at once.
 * What has to wait does so in the call (`readSync`, `Atomics.wait` for another thread), and
 * everybody waits with it. They must not touch the mount itself.
 *
 * With `async` they run on a thread of their own with an event loop, and may return promises. Any
 * number of requests is at work at once, in no order but that each was asked for by somebody who
 * has the answers to what it builds on. A request costs a change of threads more.
 */
import { FuseError } from './fuse-error.js'
import type {
  Answer, Attributes, Caller, Changes, Created, DirectoryEntry, Entry, Kernel, Opened, OptionalFlag, Statistics, Timeouts, Timestamp,
} from './file-system-values.js'

function notImplemented(): FuseError {
  return new FuseError('ENOSYS')
}

/**
 * Names are strings; bytes that are not UTF-8 are lone surrogates U+DC80 to U+DCFF in them
 * (`bytesToString` and `stringToBytes` convert). The kernel checks permissions unless it was
 * mounted without `default_permissions`, and applies umask.
 *
 * @example
 * const text = Buffer.from('hello')
 *
 * export default class Hello extends FileSystem {
 *   override lookup(_parent: number, name: string): Entry {
 *     if (name !== 'hello.txt') throw new FuseError('ENOENT')
 *     return { node: 2, attributes: { mode: 0o100644, size: text.length } }
 *   }
 *   override getattr(node: number): Attributes {
 *     return node === 1 ? { mode: 0o040755, nlink: 2 } : { mode: 0o100644, size: text.length }
 *   }
 *   override read(_node: number, _handle: number, offset: number, size: number): Uint8Array {
 *     return text.subarray(offset, offset + size)
 *   }
 * }
 */
export abstract class FileSystem {
  /** When nothing changes but through the mount, long ones make it fast. */
  readonly timeouts: Timeouts = { entry: 1, attributes: 1, negative: 0 }
  /** Wanted beyond what the adapter does by itself. */
  readonly flags: readonly OptionalFlag[] = []

  /** A session begins. */
  init(kernel: Kernel): Answer<void>
  init(): void {}

  /** The session has ended: nothing more comes. Every node was forgotten; what is open counts as released. */
  destroy(): Answer<void> {}

  /** The clock of file times, to the millisecond. The adapter asks it where setattr is to set the time now. */
  now(): Timestamp {
    const ms = Date.now()
    const seconds = Math.floor(ms / 1000)
    return { seconds, nanoseconds: (ms - seconds * 1000) * 1_000_000 }
  }

  lookup(parent: number, name: string, caller: Caller): Answer<Entry>
  lookup(): never { throw notImplemented() }

  /** The kernel does not know this node any more: it comes in no request until it is returned again. Never the root. */
  forget(node: number): void
  forget(): void {}

  /** @param handle of the open file that was asked, if one was */
  getattr(node: number, handle: number | undefined, caller: Caller): Answer<Attributes>
  getattr(): never { throw notImplemented() }

  /** All changes or none. @returns the attributes after it */
  setattr(node: number, changes: Changes, handle: number | undefined, caller: Caller): Answer<Attributes>
  setattr(): never { throw notImplemented() }

  readlink(node: number, caller: Caller): Answer<string>
  readlink(): never { throw notImplemented() }

  symlink(parent: number, name: string, target: string, caller: Caller): Answer<Entry>
  symlink(): never { throw notImplemented() }

  /** @param mode with the type: regular file, FIFO, socket, device */
  mknod(parent: number, name: string, mode: number, rdev: number, caller: Caller): Answer<Entry>
  mknod(): never { throw notImplemented() }

  mkdir(parent: number, name: string, mode: number, caller: Caller): Answer<Entry>
  mkdir(): never { throw notImplemented() }

  unlink(parent: number, name: string, caller: Caller): Answer<void>
  unlink(): never { throw notImplemented() }

  rmdir(parent: number, name: string, caller: Caller): Answer<void>
  rmdir(): never { throw notImplemented() }

  /** @param flags RENAME_NOREPLACE 1, RENAME_EXCHANGE 2, RENAME_WHITEOUT 4 */
  rename(parent: number, name: string, newParent: number, newName: string, flags: number, caller: Caller): Answer<void>
  rename(): never { throw notImplemented() }

  link(node: number, newParent: number, newName: string, caller: Caller): Answer<Entry>
  link(): never { throw notImplemented() }

  /** @param flags of open(2); O_TRUNC comes as a setattr unless ATOMIC_O_TRUNC is wanted */
  open(node: number, flags: number, caller: Caller): Answer<Opened>
  open(): never { throw notImplemented() }

  create(parent: number, name: string, flags: number, mode: number, caller: Caller): Answer<Created>
  create(): never { throw notImplemented() }

  /** A file without a name in this directory's file system. */
  tmpfile(parent: number, flags: number, mode: number, caller: Caller): Answer<Created>
  tmpfile(): never { throw notImplemented() }

  /**
   * Less than `size` means the end of the file.
   *
   * @param buffer `size` bytes of the reply itself, to read into without a copy; yours until you return
   * @returns the data, or how many bytes were put into `buffer`
   */
  read(node: number, handle: number, offset: number, size: number, buffer: Buffer, caller: Caller): Answer<Uint8Array | number>
  read(): never { throw notImplemented() }

  /** @param data of the request itself; yours until you return: copy what is to stay @returns bytes written */
  write(node: number, handle: number, offset: number, data: Buffer, caller: Caller): Answer<number>
  write(): never { throw notImplemented() }

  /** A descriptor was closed: the last chance to report an error to close(2). */
  flush(node: number, handle: number): Answer<void>
  flush(): never { throw notImplemented() }

  /** The last descriptor of an open file is gone. */
  release(node: number, handle: number): Answer<void>
  release(): never { throw notImplemented() }

  fsync(node: number, handle: number, dataOnly: boolean, caller: Caller): Answer<void>
  fsync(): never { throw notImplemented() }

  opendir(node: number, caller: Caller): Answer<Opened>
  opendir(): never { throw notImplemented() }

  /**
   * The entries behind an offset, without `.` and `..`. As many are taken as fit; those that do
   * not are asked for again. An error after some entries is reported when it comes again.
   *
   * @param offset 0 for the beginning, else of the last entry that was taken
   * @param plus entries are wanted with `entry`
   */
  readdir(node: number, handle: number, offset: number, plus: boolean, caller: Caller): Answer<Iterable<DirectoryEntry>> | AsyncIterable<DirectoryEntry>
  readdir(): never { throw notImplemented() }

  releasedir(node: number, handle: number): Answer<void>
  releasedir(): never { throw notImplemented() }

  fsyncdir(node: number, handle: number, dataOnly: boolean, caller: Caller): Answer<void>
  fsyncdir(): never { throw notImplemented() }

  statfs(node: number, caller: Caller): Answer<Statistics>
  statfs(): never { throw notImplemented() }

  getxattr(node: number, name: string, caller: Caller): Answer<Uint8Array>
  getxattr(): never { throw notImplemented() }

  /** @param flags XATTR_CREATE 1, XATTR_REPLACE 2 */
  setxattr(node: number, name: string, value: Buffer, flags: number, caller: Caller): Answer<void>
  setxattr(): never { throw notImplemented() }

  listxattr(node: number, caller: Caller): Answer<Iterable<string>>
  listxattr(): never { throw notImplemented() }

  removexattr(node: number, name: string, caller: Caller): Answer<void>
  removexattr(): never { throw notImplemented() }

  /** Only called on mounts without `default_permissions`. @param mask of access(2) */
  access(node: number, mask: number, caller: Caller): Answer<void>
  access(): never { throw notImplemented() }

  /** @param mode of fallocate(2) */
  fallocate(node: number, handle: number, offset: number, length: number, mode: number, caller: Caller): Answer<void>
  fallocate(): never { throw notImplemented() }

  /** SEEK_DATA 3 and SEEK_HOLE 4; the kernel does the others. @returns the offset found */
  lseek(node: number, handle: number, offset: number, whence: number, caller: Caller): Answer<number>
  lseek(): never { throw notImplemented() }

  /** @returns bytes copied; fewer is no error */
  copyFileRange(node: number, handle: number, offset: number, toNode: number, toHandle: number, toOffset: number, length: number, caller: Caller): Answer<number>
  copyFileRange(): never { throw notImplemented() }
}
