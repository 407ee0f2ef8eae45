/**
 * The calls of a file system by path, as open(2), rename(2) and the like make them: every method
 * resolves with a value or −errno, in the order in which Linux finds errors.
 */
import { errno } from '../errors.js'
import { RENAME_EXCHANGE, RENAME_NOREPLACE } from '../sys/dir.js'
import { O_DIRECTORY, O_RDONLY, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from '../sys/file.js'
import { typeOf, type Attributes, type FileSystemStatistics } from './attributes.js'
import type { Node, NodeTable } from './node.js'
import { NodeAccess } from './node-access.js'
import { NodeChanges } from './node-changes.js'
import type { OpenFile } from './open-file.js'
import { Opener } from './opener.js'
import type { Changes, Operations } from './operations.js'
import { MAY_EXEC, MAY_READ, MAY_WRITE, type Permission } from './permission.js'
import { Last, MAX_PATH_BYTES, Walk } from './walk.js'

const MAX_LINK_BYTES = 4095

export class Tree {
  readonly access: NodeAccess
  readonly changes: NodeChanges
  readonly opener: Opener
  readonly operations: Operations
  readonly table: NodeTable
  readonly permission: Permission
  /** Bytes of the longest path, without its NUL; more than that is ENAMETOOLONG. */
  maxPathBytes = MAX_PATH_BYTES
  /** umask(2) of new files. */
  readonly #umask: () => number

  constructor(operations: Operations, table: NodeTable, permission: Permission, umask: () => number) {
    this.access = new NodeAccess(operations, table, permission)
    this.changes = new NodeChanges(this.access)
    this.opener = new Opener(this.access, this.changes, umask)
    this.operations = operations
    this.table = table
    this.permission = permission
    this.#umask = umask
  }

  /**
   * Runs a call on a walk. A device that does not know a node any more (ESTALE) may know its path:
   * the call is made once more, and every name looked up (retry_estale of Linux).
   */
  async #walking<T>(use: (walk: Walk) => Promise<T | number>, signal?: AbortSignal): Promise<T | number> {
    const result = await this.#walkOnce(use, false, signal)
    return result === -errno.ESTALE ? this.#walkOnce(use, true, signal) : result
  }

  async #walkOnce<T>(use: (walk: Walk) => Promise<T | number>, lookUp: boolean, signal?: AbortSignal): Promise<T | number> {
    const walk = new Walk(this.access, lookUp, signal, this.maxPathBytes)
    try {
      return await use(walk)
    } finally {
      walk.close()
    }
  }

  /** The node of a path, held for as long as `use` takes. */
  withNode<T>(path: string, follow: boolean, use: (node: Node, walk: Walk) => Promise<T | number> | T | number, signal?: AbortSignal): Promise<T | number> {
    return this.#walking(async walk => {
      const error = await walk.toNode(path, follow)
      return error < 0 ? error : use(walk.node, walk)
    }, signal)
  }

  #withParent<T>(path: string, use: (walk: Walk) => Promise<T | number>): Promise<T | number> {
    return this.#walking(async walk => {
      const error = await walk.toParent(path)
      return error < 0 ? error : use(walk)
    })
  }

  stat(path: string, follow: boolean, signal?: AbortSignal): Promise<Attributes | number> {
    return this.withNode(path, follow, node => this.access.stat(node, undefined, signal), signal)
  }

  /** @param mask of access(2): 0 asks whether the file is there */
  mayAccess(path: string, mask: number): Promise<number> {
    return this.withNode(path, true, async node => {
      const error = await this.access.check(node, mask)
      return error < 0 || this.permission.checked || mask === 0 ? error : this.operations.access(node, mask)
    })
  }

  readlink(path: string): Promise<Buffer | number> {
    return this.withNode(path, false, node => node.isSymbolicLink ? this.access.readlink(node) : -errno.EINVAL)
  }

  /** The absolute path in the tree, without links. */
  realpath(path: string): Promise<string | number> {
    return this.withNode(path, true, (_, walk) => walk.path)
  }

  statfs(path: string): Promise<FileSystemStatistics | number> {
    return this.withNode(path, true, node => this.operations.statfs(node))
  }

  chmod(path: string, mode: number, follow = true): Promise<number> {
    return this.withNode(path, follow, node => this.changes.mode(node, mode))
  }

  chown(path: string, uid: number, gid: number, follow: boolean): Promise<number> {
    return this.withNode(path, follow, node => this.changes.owner(node, uid, gid))
  }

  utimes(path: string, times: Pick<Changes, 'atime' | 'mtime'>, follow: boolean): Promise<number> {
    return this.withNode(path, follow, node => this.changes.times(node, times))
  }

  truncate(path: string, size: number): Promise<number> {
    return this.withNode(path, true, async node => {
      if (node.isDirectory) return -errno.EISDIR
      if (typeOf(node.attributes) !== S_IFREG) return -errno.EINVAL
      const error = await this.access.check(node, MAY_WRITE)
      return error < 0 ? error : this.changes.size(node, size, undefined)
    })
  }

  /** Whether a name may be made in a directory, and is not there. @returns 0 or −errno */
  async #mayCreate(walk: Walk, isDirectory: boolean): Promise<number> {
    if (walk.last !== Last.NAME) return -errno.EEXIST
    // a privileged caller gets EEXIST from the device, without a question before
    if (!this.permission.privileged || (walk.slash && !isDirectory) || this.table.known(walk.directory, walk.name)) {
      const node = await walk.child(walk.name)
      if (typeof node !== 'number') {
        node.drop()
        return -errno.EEXIST
      }
      if (node !== -errno.ENOENT) return node
    }
    if (walk.slash && !isDirectory) return -errno.ENOENT
    return this.access.check(walk.directory, MAY_WRITE | MAY_EXEC)
  }

  mkdir(path: string, mode: number): Promise<number> {
    return this.#withParent(path, async walk => {
      const error = await this.#mayCreate(walk, true)
      if (error < 0) return error
      const umask = this.#umask()
      return this.access.made(walk.directory, walk.name, S_IFDIR, () => this.operations.mkdir(walk.directory, walk.name, mode & ~umask & 0o1777, umask))
    })
  }

  /** @param mode with the type of file */
  mknod(path: string, mode: number, rdev: number): Promise<number> {
    return this.#withParent(path, async walk => {
      const error = await this.#mayCreate(walk, false)
      if (error < 0) return error
      const umask = this.#umask()
      return this.access.made(walk.directory, walk.name, mode & S_IFMT, () => this.operations.mknod(walk.directory, walk.name, mode & ~umask, rdev, umask))
    })
  }

  symlink(target: string, path: string): Promise<number> {
    if (target === '') return Promise.resolve(-errno.ENOENT)
    if (Buffer.byteLength(target) > MAX_LINK_BYTES) return Promise.resolve(-errno.ENAMETOOLONG)
    return this.#withParent(path, async walk => {
      const error = await this.#mayCreate(walk, false)
      return error < 0 ? error : this.access.made(walk.directory, walk.name, S_IFLNK, () => this.operations.symlink(walk.directory, walk.name, target))
    })
  }

  link(path: string, newPath: string): Promise<number> {
    return this.withNode<number>(path, false, node => this.linkNode(node, newPath))
  }

  /** linkat(2) with AT_EMPTY_PATH. */
  linkNode(node: Node, newPath: string): Promise<number> {
    return this.#withParent(newPath, async walk => {
      const error = await this.#mayCreate(walk, false)
      if (error < 0) return error
      if (node.isDirectory) return -errno.EPERM
      const reply = await this.operations.link(node, walk.directory, walk.name)
      node.changed()
      return this.access.made(walk.directory, walk.name, typeOf(node.attributes), () => Promise.resolve(reply))
    })
  }

  /**
   * Removes the last name. It is looked up before, as by the kernel: a device may know no name that
   * was not (the C virtiofsd does not).
   */
  async #remove(walk: Walk, isDirectory: boolean): Promise<number> {
    const { directory, name } = walk
    const node = await walk.child(name)
    if (typeof node === 'number') return node
    try {
      const error = await this.mayDelete(directory, node)
      if (error < 0) return error
      if (isDirectory ? !node.isDirectory : walk.slash && !node.isDirectory) return -errno.ENOTDIR
      if (!isDirectory && node.isDirectory) return -errno.EISDIR
      const removed = await (isDirectory ? this.operations.rmdir(directory, name) : this.operations.unlink(directory, name))
      node.changed()
      this.#nameChanged(directory, name)
      return removed
    } finally {
      node.drop()
    }
  }

  /** may_delete of Linux: write permission for the directory, and the sticky bit. */
  async mayDelete(directory: Node, victim: Node): Promise<number> {
    const error = await this.access.check(directory, MAY_WRITE | MAY_EXEC)
    return error < 0 ? error : this.permission.checkSticky(directory.attributes, victim.attributes)
  }

  /** A name is gone, or leads elsewhere. */
  #nameChanged(directory: Node, name: string): void {
    directory.changed()
    this.table.expire(directory, name)
  }

  unlink(path: string): Promise<number> {
    return this.#withParent(path, async walk => walk.last === Last.NAME ? this.#remove(walk, false) : -errno.EISDIR)
  }

  rmdir(path: string): Promise<number> {
    return this.#withParent(path, async walk => {
      if (walk.last === Last.DOT_DOT) return -errno.ENOTEMPTY
      if (walk.last === Last.DOT) return walk.node === this.table.root && !path.includes('.') ? -errno.EBUSY : -errno.EINVAL
      return this.#remove(walk, true)
    })
  }

  /** @param flags RENAME_NOREPLACE, RENAME_EXCHANGE … */
  rename(path: string, newPath: string, flags: number): Promise<number> {
    return this.#withParent(path, from => this.#withParent(newPath, async to => {
      if (from.last !== Last.NAME) return -errno.EBUSY
      if (to.last !== Last.NAME) return flags & RENAME_NOREPLACE ? -errno.EEXIST : -errno.EBUSY
      const node = await from.child(from.name)
      if (typeof node === 'number') return node
      const target = await to.child(to.name)
      try {
        if (target === -errno.ENOENT ? flags & RENAME_EXCHANGE : typeof target === 'number') return target as number
        return await this.#rename(from, node, to, typeof target === 'number' ? undefined : target, flags)
      } finally {
        node.drop()
        if (typeof target !== 'number') target.drop()
      }
    }))
  }

  async #rename(from: Walk, node: Node, to: Walk, target: Node | undefined, flags: number): Promise<number> {
    if (target && flags & RENAME_NOREPLACE) return -errno.EEXIST
    if (!node.isDirectory && (from.slash || (to.slash && !(flags & RENAME_EXCHANGE)))) return -errno.ENOTDIR
    const error = await this.mayDelete(from.directory, node)
      || (target ? await this.mayDelete(to.directory, target) : await this.access.check(to.directory, MAY_WRITE | MAY_EXEC))
    if (error < 0) return error
    const renamed = await this.operations.rename(from.directory, from.name, to.directory, to.name, flags)
    node.changed()
    target?.changed()
    this.#nameChanged(from.directory, from.name)
    this.#nameChanged(to.directory, to.name)
    return renamed
  }

  /** open(2). @param flags O_* @param mode of a new file */
  open(path: string, flags: number, mode: number, signal?: AbortSignal): Promise<OpenFile | number> {
    return this.#walking(walk => this.opener.path(walk, path, flags, mode, signal), signal)
  }

  /** Opens a directory for reading its entries. */
  opendir(path: string): Promise<OpenFile | number> {
    return this.open(path, O_RDONLY | O_DIRECTORY, 0)
  }

  getxattr(path: string, name: string, follow: boolean): Promise<Buffer | number> {
    return this.withNode(path, follow, async node => {
      const error = await this.#mayXattr(node, name, MAY_READ)
      return error < 0 ? error : this.operations.getxattr(node, name)
    })
  }

  setxattr(path: string, name: string, value: Uint8Array, flags: number, follow: boolean): Promise<number> {
    return this.withNode(path, follow, async node => {
      const error = await this.#mayXattr(node, name, MAY_WRITE)
      if (error < 0) return error
      const set = await this.operations.setxattr(node, name, value, flags)
      node.changed()
      return set
    })
  }

  removexattr(path: string, name: string, follow: boolean): Promise<number> {
    return this.withNode(path, follow, async node => {
      const error = await this.#mayXattr(node, name, MAY_WRITE)
      if (error < 0) return error
      const removed = await this.operations.removexattr(node, name)
      node.changed()
      return removed
    })
  }

  listxattr(path: string, follow: boolean): Promise<Buffer | number> {
    return this.withNode(path, follow, node => this.operations.listxattr(node))
  }

  /** xattr_permission of Linux. */
  async #mayXattr(node: Node, name: string, mask: number): Promise<number> {
    if (Buffer.byteLength(name) > 255 || name === '') return -errno.ERANGE
    if (name.startsWith('security.') || name.startsWith('system.')) return 0
    if (name.startsWith('trusted.')) return this.permission.privileged ? 0 : mask === MAY_WRITE ? -errno.EPERM : -errno.ENODATA
    if (name.startsWith('user.')) {
      const type = typeOf(node.attributes)
      if (type !== S_IFREG && type !== S_IFDIR) return mask === MAY_WRITE ? -errno.EPERM : -errno.ENODATA
    }
    return this.access.check(node, mask)
  }
}

