/**
 * Files that were removed while they are open. libfuse 2 knows them by path only, and so renames them
 * to `.fuse_hidden…` until they are closed: the name shows, the directory cannot be removed, and both
 * stay behind when the mount dies. (Its option hard_remove does without, and then every call on such a
 * file fails with ENOENT.) Here such a rename removes the file on the device, where it has been open
 * all the time, and its new name exists between libfuse and us alone.
 */
import { posix } from 'node:path'
import type { Node } from '../client/node.js'

/** hidden_name of libfuse 2.9 lib/fuse.c: a node id and a counter, so no other directory has the same. */
const HIDDEN = /^\.fuse_hidden[0-9a-f]{16}$/

export class HiddenFiles {
  readonly #nodes = new Map<string, Node>()

  /** Whether a rename is libfuse's own. */
  isHiding(from: string, to: string): boolean {
    return HIDDEN.test(posix.basename(to)) && posix.dirname(from) === posix.dirname(to)
  }

  /** The removed file that libfuse calls by this path. */
  find(path: string): Node | undefined {
    // their directory may have another name by now
    return this.#nodes.size === 0 ? undefined : this.#nodes.get(posix.basename(path))
  }

  /** @param node held from now on */
  hide(path: string, node: Node): void {
    node.hold()
    this.#nodes.set(posix.basename(path), node)
  }

  /** The last user has closed it. @returns whether it was one */
  drop(path: string): boolean {
    const node = this.find(path)
    if (!node) return false
    this.#nodes.delete(posix.basename(path))
    node.drop()
    return true
  }

  dropAll(): void {
    for (const node of this.#nodes.values()) node.drop()
    this.#nodes.clear()
  }
}
