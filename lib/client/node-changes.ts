/**
 * Changes of what a node is: its mode, its owner, its times and its size, as far as its caller may. All of it is SETATTR,
 * and resolves with 0 or −errno.
 */
import { errno } from '../errors.js'
import { S_IFMT } from '../sys/file.js'
import type { Attributes } from './attributes.js'
import type { Node } from './node.js'
import type { NodeAccess } from './node-access.js'
import type { OpenFile } from './open-file.js'
import type { Changes } from './operations.js'

const PERMISSIONS = 0o7777

export class NodeChanges {
  readonly #access: NodeAccess

  constructor(access: NodeAccess) {
    this.#access = access
  }

  async mode(node: Node, mode: number): Promise<number> {
    const attributes = await this.#attributesFor(node)
    if (typeof attributes === 'number') return attributes
    const error = this.#access.permission.checkOwner(attributes)
    if (error < 0) return error
    // a symbolic link has no mode of its own
    if (node.isSymbolicLink) return -errno.EOPNOTSUPP
    return this.#setattr(node, { mode: (this.#access.permission.chmodMode(attributes, mode) & PERMISSIONS) | (attributes.mode & S_IFMT) }, undefined, false)
  }

  /** @param uid, gid −1 (or 2^32 − 1) for no change */
  async owner(node: Node, uid: number, gid: number): Promise<number> {
    const attributes = await this.#attributesFor(node)
    if (typeof attributes === 'number') return attributes
    const [user, group] = [uid | 0, gid | 0]
    const error = this.#access.permission.checkChown(attributes, user, group)
    if (error < 0) return error
    return this.#setattr(node, { ...(user === -1 ? {} : { uid: uid >>> 0 }), ...(group === -1 ? {} : { gid: gid >>> 0 }) }, undefined, false)
  }

  async times(node: Node, times: Pick<Changes, 'atime' | 'mtime'>): Promise<number> {
    const attributes = await this.#attributesFor(node)
    if (typeof attributes === 'number') return attributes
    const error = this.#access.permission.checkOwner(attributes)
    return error < 0 ? error : this.#setattr(node, times, undefined, false)
  }

  size(node: Node, size: number, file: OpenFile | undefined): Promise<number> {
    return this.#setattr(node, { size }, file, !this.#access.permission.privileged)
  }

  /** Attributes for a decision on rights, which a privileged caller does not need fresh. */
  #attributesFor(node: Node): Promise<Attributes | number> | Attributes {
    return this.#access.permission.privileged ? node.attributes : this.#access.attributes(node)
  }

  async #setattr(node: Node, changes: Changes, file: OpenFile | undefined, killPrivileges: boolean): Promise<number> {
    const attributes = this.#access.setAttributes(node, await this.#access.operations.setattr(node, changes, file, killPrivileges))
    return typeof attributes === 'number' ? attributes : 0
  }
}
