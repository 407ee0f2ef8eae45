/** open(2): of what is there, of what it makes, and of a file with no name. Resolves with the open file or −errno. */
import { errno } from '../errors.js'
import { O_ACCMODE, O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_RDONLY, O_TMPFILE, O_TRUNC, O_WRONLY, S_IFDIR, S_IFLNK, S_IFREG } from '../sys/file.js'
import { typeOf } from './attributes.js'
import type { Node } from './node.js'
import type { NodeAccess } from './node-access.js'
import type { NodeChanges } from './node-changes.js'
import { OpenFile } from './open-file.js'
import { MAY_EXEC, MAY_READ, MAY_WRITE } from './permission.js'
import { Last, type Walk } from './walk.js'

const O_NOCTTY = 0o400
/** What the kernel keeps from the device (fuse_send_open). */
const NOT_FOR_DEVICE = O_CREAT | O_EXCL | O_NOCTTY
const TMPFILE_BIT = O_TMPFILE & ~O_DIRECTORY
const PERMISSIONS = 0o7777

export class Opener {
  readonly #access: NodeAccess
  readonly #changes: NodeChanges
  /** umask(2) of new files. */
  readonly #umask: () => number

  constructor(access: NodeAccess, changes: NodeChanges, umask: () => number) {
    this.#access = access
    this.#changes = changes
    this.#umask = umask
  }

  /** open(2). @param flags O_* @param mode of a new file */
  async path(walk: Walk, path: string, flags: number, mode: number, signal?: AbortSignal): Promise<OpenFile | number> {
    if ((flags & TMPFILE_BIT) !== 0) return this.#temporary(walk, path, flags, mode)
    if ((flags & O_CREAT) !== 0) return this.#orCreate(walk, path, flags, mode, signal)
    const error = await walk.toNode(path, (flags & O_NOFOLLOW) === 0)
    return error < 0 ? error : this.node(walk.node, flags, signal)
  }

  async #orCreate(walk: Walk, path: string, flags: number, mode: number, signal?: AbortSignal): Promise<OpenFile | number> {
    let error = await walk.toParent(path)
    if (error < 0) return error
    for (;;) {
      if (walk.last !== Last.NAME) return (flags & O_EXCL) !== 0 ? -errno.EEXIST : -errno.EISDIR
      if (walk.slash) return -errno.EISDIR
      const node = await walk.child(walk.name)
      if (node === -errno.ENOENT) return this.#create(walk, flags, mode, signal)
      if (typeof node === 'number') return node
      if ((flags & O_EXCL) !== 0) {
        node.drop()
        return -errno.EEXIST
      }
      error = await walk.enter(node, (flags & O_NOFOLLOW) === 0)
      if (error < 0) return error
      if (error === 0) return walk.node.isDirectory ? -errno.EISDIR : this.node(walk.node, flags, signal)
    }
  }

  async #create(walk: Walk, flags: number, mode: number, signal?: AbortSignal): Promise<OpenFile | number> {
    const { directory, name } = walk
    const error = await this.#access.check(directory, MAY_WRITE | MAY_EXEC, signal)
    if (error < 0) return error
    const umask = this.#umask()
    const fileMode = S_IFREG | (mode & ~umask & PERMISSIONS)
    const reply = await this.#access.operations.create(directory, name, flags & ~O_NOCTTY, fileMode, umask, (flags & O_TRUNC) !== 0 && !this.#access.permission.privileged, signal)
    if (reply === -errno.ENOSYS) return this.#createAndOpen(walk, flags, fileMode, umask, signal)
    directory.changed()
    if (typeof reply === 'number') {
      this.#access.table.expire(directory, name)
      return reply
    }
    const node = this.#access.accept(directory, name, reply.entry, this.#access.table.version)
    if (node === undefined) return -errno.EIO
    const file = new OpenFile(this.#access.operations, node, flags & ~NOT_FOR_DEVICE, reply.opened)
    node.drop()
    return file
  }

  /** For a device without CREATE. */
  async #createAndOpen(walk: Walk, flags: number, mode: number, umask: number, signal?: AbortSignal): Promise<OpenFile | number> {
    const error = await this.#access.made(walk.directory, walk.name, S_IFREG, () => this.#access.operations.mknod(walk.directory, walk.name, mode, 0, umask))
    if (error < 0) return error
    const node = await walk.child(walk.name)
    if (typeof node === 'number') return node
    const file = await this.#atDevice(node, flags, signal)
    node.drop()
    return file
  }

  async #temporary(walk: Walk, path: string, flags: number, mode: number): Promise<OpenFile | number> {
    if ((flags & O_ACCMODE) === O_RDONLY) return -errno.EINVAL
    let error = await walk.toNode(path, true)
    if (error < 0) return error
    if (!walk.node.isDirectory) return -errno.ENOTDIR
    error = await this.#access.check(walk.node, MAY_WRITE | MAY_EXEC)
    if (error < 0) return error
    const umask = this.#umask()
    const reply = await this.#access.operations.tmpfile(walk.node, flags, S_IFREG | (mode & ~umask & PERMISSIONS), umask)
    if (typeof reply === 'number') return reply
    const node = this.#access.table.take(reply.entry)
    const file = new OpenFile(this.#access.operations, node, flags & ~NOT_FOR_DEVICE, reply.opened)
    node.drop()
    return file
  }

  /** Opens what is there (may_open of Linux). */
  async node(node: Node, flags: number, signal?: AbortSignal): Promise<OpenFile | number> {
    const access = flags & O_ACCMODE
    const writes = access !== O_RDONLY || (flags & O_TRUNC) !== 0
    switch (typeOf(node.attributes)) {
      case S_IFLNK: return -errno.ELOOP
      case S_IFDIR:
        if (writes) return -errno.EISDIR
        break
      case S_IFREG:
        if ((flags & O_DIRECTORY) !== 0) return -errno.ENOTDIR
        break
      default:
        // pipes, sockets and devices are not the device's to serve
        return (flags & O_DIRECTORY) !== 0 ? -errno.ENOTDIR : -errno.ENXIO
    }
    const error = await this.#access.check(node, (access === O_WRONLY ? 0 : MAY_READ) | (writes ? MAY_WRITE : 0), signal)
    return error < 0 ? error : this.#atDevice(node, flags, signal)
  }

  async #atDevice(node: Node, flags: number, signal?: AbortSignal): Promise<OpenFile | number> {
    const truncates = (flags & O_TRUNC) !== 0 && !node.isDirectory
    const atomic = this.#access.operations.session.has('ATOMIC_O_TRUNC')
    const sent = flags & ~(atomic ? NOT_FOR_DEVICE : NOT_FOR_DEVICE | O_TRUNC)
    const opened = await this.#access.operations.open(node, sent, truncates && !this.#access.permission.privileged, signal)
    if (typeof opened === 'number') return opened
    const file = new OpenFile(this.#access.operations, node, flags & ~(NOT_FOR_DEVICE | O_TRUNC), opened)
    if (!truncates) return file
    node.changed()
    const error = atomic ? 0 : await this.#changes.size(node, 0, file)
    if (error === 0) return file
    file.drop()
    return error
  }
}
