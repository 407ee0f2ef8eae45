/**
 * What is known of nodes and names, asked for again when its time is over: LOOKUP, GETATTR, READLINK
 * with their timeouts, and the check of permissions on top of them.
 */
import { errno } from '../errors.js'
import { S_IFREG } from '../sys/file.js'
import { typeOf, type Attributes } from './attributes.js'
import type { AttributesReply } from './entry-reply.js'
import type { EntryReply, Node, NodeTable } from './node.js'
import type { OpenFile } from './open-file.js'
import type { Operations } from './operations.js'
import type { Permission } from './permission.js'

export class NodeAccess {
  /** Targets of links may be kept (CACHE_SYMLINKS). */
  readonly #keepLinks: boolean

  constructor(readonly operations: Operations, readonly table: NodeTable, readonly permission: Permission) {
    this.#keepLinks = operations.session.has('CACHE_SYMLINKS')
  }

  /** The node of a name, held, or −errno. */
  async child(directory: Node, name: string, signal?: AbortSignal): Promise<Node | number> {
    const known = this.table.known(directory, name)
    if (known === null) return -errno.ENOENT
    if (known !== undefined) {
      known.hold()
      return known
    }
    const { version } = this.table
    const reply = await this.operations.lookup(directory, name, signal)
    if (typeof reply === 'number') {
      this.table.expire(directory, name)
      return reply
    }
    return this.accept(directory, name, reply, version) ?? -errno.ENOENT
  }

  /**
   * Takes a reply that a name led to into the table.
   *
   * @param version `NodeTable.version` when it was asked for: what this client did there since makes it worthless for others
   * @returns the node, held; undefined when there is none
   */
  accept(directory: Node, name: string, reply: EntryReply, version: number): Node | undefined {
    const keepMs = directory.changedAt <= version ? reply.entryMs : 0
    if (reply.nodeidLow === 0 && reply.nodeidHigh === 0) {
      this.table.keep(directory, name, undefined, keepMs)
      return undefined
    }
    const node = this.table.take(reply)
    node.update(reply.attributes, reply.attrMs, version)
    this.table.keep(directory, name, node, keepMs)
    return node
  }

  /** Takes in what made a name. @param type of the file it must be then @returns 0 or −errno */
  async made(directory: Node, name: string, type: number, send: () => Promise<EntryReply | number>): Promise<number> {
    const reply = await send()
    directory.changed()
    if (typeof reply === 'number') {
      this.table.expire(directory, name)
      return reply
    }
    const node = this.accept(directory, name, reply, this.table.version)
    if (node === undefined) return -errno.EIO
    const wrong = typeOf(reply.attributes) !== type
    node.drop()
    return wrong ? -errno.EIO : 0
  }

  /** Attributes of a node, as fresh as the device wants them. Only of a regular file is the handle named, as the kernel does. @param force ask the device in any case */
  async attributes(node: Node, file?: OpenFile, signal?: AbortSignal, force = false): Promise<Attributes | number> {
    if (!force && node.attributesGood && !node.atimeOld) return node.attributes
    const { version } = this.table
    return this.#updated(node, await this.operations.getattr(node, typeOf(node.attributes) === S_IFREG ? file : undefined, signal), version)
  }

  /** The same for stat(2), with the time of birth where the device knows it. */
  stat(node: Node, file?: OpenFile, signal?: AbortSignal): Promise<Attributes | number> {
    return this.attributes(node, file, signal, node.attributes.birthtime === undefined && this.operations.hasStatx)
  }

  #updated(node: Node, reply: AttributesReply | number, version: number): Attributes | number {
    if (typeof reply === 'number') return reply
    // a node that has become another file (fuse_stale_inode)
    if (((reply.attributes.mode ^ node.attributes.mode) & 0o170000) !== 0) return -errno.EIO
    node.update(reply.attributes, reply.attrMs, version)
    return reply.attributes
  }

  /** After SETATTR: its reply is the newest there is. */
  setAttributes(node: Node, reply: AttributesReply | number): Attributes | number {
    node.changed()
    return this.#updated(node, reply, this.table.version)
  }

  /** The target of a link. */
  async readlink(node: Node, signal?: AbortSignal): Promise<Buffer | number> {
    if (node.link !== undefined) return node.link
    const target = await this.operations.readlink(node, signal)
    if (typeof target === 'number') return target
    // d_path and readlink(2) end at a NUL
    const end = target.indexOf(0)
    const link = end < 0 ? target : target.subarray(0, end)
    if (this.#keepLinks) node.link = link
    return link
  }

  /** Whether the caller may read, write or search a node. @returns 0 or −errno */
  async check(node: Node, mask: number, signal?: AbortSignal): Promise<number> {
    if (!this.permission.needsAttributes(mask)) return 0
    // privileged callers may enter any directory
    if (this.permission.privileged && node.isDirectory) return 0
    const attributes = await this.attributes(node, undefined, signal)
    if (typeof attributes === 'number') return attributes
    const error = this.permission.check(attributes, mask)
    if (error === 0 || !node.attributesGood) return error
    // what is known may be old: the kernel asks once more, too
    const fresh = await this.attributes(node, undefined, signal, true)
    return typeof fresh === 'number' ? fresh : this.permission.check(fresh, mask)
  }
}
