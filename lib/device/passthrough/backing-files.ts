/**
 * Which inodes the kernel accesses without asking, with `direct`: one backing id per inode, given
 * to it at the first open and taken back with the last release.
 *
 * The kernel insists that all opens of an inode at a time agree: all through the same backing file,
 * or all through the server (fs/fuse/iomode.c). So an inode that was opened the one way is never
 * opened the other way: a mount whose files the kernel cannot take is marked, once and for good,
 * and nothing of it was taken before.
 */
import { errno } from '../../errors.js'
import type { BackingWindow } from '../../sys/backing.js'
import type { InodeTable } from './inode-table.js'
import { Head } from './layout.js'
import { MountKind, type MountTable } from './mount-table.js'
import { lock, unlock } from './spin-lock.js'

/** The file is accessed through the server. */
export const NO_BACKING = 0

export class BackingFiles {
  readonly #words: Int32Array
  readonly #inodes: InodeTable
  readonly #mounts: MountTable
  readonly #window: BackingWindow

  constructor(words: Int32Array, inodes: InodeTable, mounts: MountTable, window: BackingWindow) {
    this.#words = words
    this.#inodes = inodes
    this.#mounts = mounts
    this.#window = window
  }

  /**
   * An open of a pinned inode begins.
   * @param fd the file, opened
   * @returns the backing id to answer with, NO_BACKING, or −errno
   */
  enter(index: number, fd: number): number {
    const mount = this.#inodes.mountId(index)
    lock(this.#words, Head.BACKING_LOCK)
    let id = this.#inodes.backing(index)
    if (id === NO_BACKING && (this.#mounts.kind(mount) & MountKind.NO_BACKING) === 0) {
      id = this.#window.open(fd)
      if (isLasting(id)) {
        this.#mounts.mark(mount, MountKind.NO_BACKING)
        id = NO_BACKING
      }
    }
    if (id > NO_BACKING) this.#inodes.addBacking(index, id, 1)
    unlock(this.#words, Head.BACKING_LOCK)
    return id
  }

  /** An open that got a backing id has ended. */
  leave(index: number): void {
    lock(this.#words, Head.BACKING_LOCK)
    const id = this.#inodes.backing(index)
    if (id !== NO_BACKING && this.#inodes.addBacking(index, id, -1) === 0) this.#window.close(id)
    unlock(this.#words, Head.BACKING_LOCK)
  }
}

/** Errors that every file of the mount gives. */
function isLasting(error: number): boolean {
  return error === -errno.EPERM || error === -errno.ELOOP || error === -errno.EOPNOTSUPP || error === -errno.ENOTTY
}
