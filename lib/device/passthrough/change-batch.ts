/**
 * Changes of the shared tree, collected and sent together: however often a file was written, it is
 * invalidated once.
 *
 * Entries go before inodes. The kernel takes the lock of the directory for an entry, and so waits
 * for a listing of it that is under way: what that puts into the cache of the directory is dropped
 * by the invalidation of its inode (native-notes/notifications.md).
 */
import { FUSE_EXPIRE_ONLY } from '../../fuse/abi.js'
import type { NotificationSender } from '../notification-sender.js'

interface Entry {
  parent: number
  name: Buffer
  /** The name may still lead to the same inode. */
  expireOnly: boolean
  /** Node id of a directory that was removed, or 0. */
  removed: number
}

export class ChangeBatch {
  /** By parent and name. */
  readonly #entries = new Map<string, Entry>()
  /** Node id → whether the data is not what it was either. */
  readonly #inodes = new Map<number, boolean>()

  get size(): number {
    return this.#entries.size + this.#inodes.size
  }

  /** An entry is not what it was. @param removed node id of the directory that it was and that is removed, or 0 */
  entry(parent: number, name: Uint8Array, expireOnly: boolean, removed: number): void {
    // a record may be forgotten meanwhile: the kernel then knows nothing of it
    if (parent === 0) return
    // the name lies in the buffer that the events are read into
    const copy = Buffer.from(name)
    const key = `${parent}/${copy.toString('latin1')}`
    const known = this.#entries.get(key)
    if (!known) {
      this.#entries.set(key, { parent, name: copy, expireOnly, removed })
      return
    }
    known.expireOnly &&= expireOnly
    if (removed !== 0) known.removed = removed
  }

  /** An inode is not what it was. @param data nor are its contents */
  inode(nodeid: number, data: boolean): void {
    if (nodeid === 0) return
    this.#inodes.set(nodeid, data || (this.#inodes.get(nodeid) ?? false))
  }

  clear(): void {
    this.#entries.clear()
    this.#inodes.clear()
  }

  /** Sends until nothing is left or the driver has given no more buffers. @returns whether nothing is left */
  send(sender: NotificationSender): boolean {
    for (const [key, { parent, name, expireOnly, removed }] of this.#entries) {
      const sent = removed !== 0 ? sender.removed(parent, removed, name) : sender.entry(parent, name, expireOnly ? FUSE_EXPIRE_ONLY : 0)
      if (!sent) return false
      this.#entries.delete(key)
    }
    for (const [nodeid, data] of this.#inodes) {
      if (!sender.inode(nodeid, data)) return false
      this.#inodes.delete(nodeid)
    }
    return true
  }
}
