/**
 * A file system in memory, complete: files with holes, directories, symbolic and hard links,
 * devices, extended attributes, renaming with flags, files that live unlinked while they are open.
 *
 *     serveDevice(new URL('./memfs.js', import.meta.url), { data: { bytes: 2 ** 30 } })
 *
 * Nobody else changes it, so the kernel may keep what it knows: the timeouts are long. There is no
 * open() and no release(): the kernel keeps the node of an open file, and that is all it takes.
 */
import { totalmem } from 'node:os'
import {
  FileSystem, FuseError, type Attributes, type Caller, type Changes, type Created, type DirectoryEntry, type Entry, type Opened, type Statistics, type Timestamp,
} from 'virtiofs-bridge'
import { PageBudget, SparseFile } from './sparse-file.js'

const S_IFMT = 0o170000
const S_IFDIR = 0o040000
const S_IFREG = 0o100000
const S_IFLNK = 0o120000
const S_ISGID = 0o2000
const RENAME_NOREPLACE = 1
const RENAME_EXCHANGE = 2
const XATTR_CREATE = 1
const XATTR_REPLACE = 2
const FALLOC_FL_KEEP_SIZE = 1
const FALLOC_FL_PUNCH_HOLE = 2
const FALLOC_FL_ZERO_RANGE = 16
const O_EXCL = 0o200
const O_TRUNC = 0o1000
const PAGE = 4096
/** Most that one copyFileRange copies. */
const COPY_BYTES = 1 << 20

/** An inode. It has the fields of Attributes, so it is what getattr returns. */
class Node implements Attributes {
  nlink = 0
  rdev = 0
  atime: Timestamp
  mtime: Timestamp
  ctime: Timestamp
  readonly entries: Map<string, Node> | undefined
  /** Of a regular file. */
  readonly content: SparseFile | undefined
  /** Of a symbolic link. */
  target = ''
  readonly xattrs = new Map<string, Buffer>()

  constructor(readonly ino: number, public mode: number, public uid: number, public gid: number, now: Timestamp, budget: PageBudget) {
    this.atime = this.mtime = this.ctime = now
    if (this.type === S_IFDIR) this.entries = new Map()
    if (this.type === S_IFREG) this.content = new SparseFile(budget)
  }

  get type(): number {
    return this.mode & S_IFMT
  }

  get size(): number {
    return this.content?.size ?? (this.entries ? this.entries.size * 32 : Buffer.byteLength(this.target))
  }

  get blocks(): number {
    return this.content?.blocks ?? 0
  }
}

/** A list of a directory that is being read: what is removed meanwhile is left out. */
interface Listing { entries: [name: string, node: Node][] }

export default class MemFs extends FileSystem {
  override readonly timeouts = { entry: 3600, attributes: 3600, negative: 3600 }
  override readonly flags = ['CACHE_SYMLINKS'] as const
  readonly #nodes = new Map<number, Node>()
  readonly #listings = new Map<number, Listing>()
  readonly #budget: PageBudget
  #lastNode = 0
  #lastHandle = 0

  /** @param options most that all data together may take; default half of the memory */
  constructor(options?: { bytes?: number }) {
    super()
    this.#budget = new PageBudget(Math.floor((options?.bytes ?? totalmem() / 2) / PAGE))
    const root = this.#newNode(S_IFDIR | 0o755, 0, 0)
    root.nlink = 2
  }

  #newNode(mode: number, uid: number, gid: number): Node {
    const node = new Node(++this.#lastNode, mode, uid, gid, this.now(), this.#budget)
    this.#nodes.set(node.ino, node)
    return node
  }

  #node(id: number): Node {
    const node = this.#nodes.get(id)
    if (node === undefined) throw new FuseError('ESTALE')
    return node
  }

  #directory(id: number): Node & { entries: Map<string, Node> } {
    const node = this.#node(id)
    if (node.entries === undefined) throw new FuseError('ENOTDIR')
    return node as Node & { entries: Map<string, Node> }
  }

  #file(id: number): SparseFile {
    const node = this.#node(id)
    if (node.content === undefined) throw new FuseError(node.entries ? 'EISDIR' : 'EINVAL')
    return node.content
  }

  #child(parent: Node, name: string): Node {
    const node = parent.entries!.get(name)
    if (node === undefined) throw new FuseError('ENOENT')
    return node
  }

  #entry(node: Node): Entry {
    return { node: node.ino, attributes: node }
  }

  /** Gives a node a name, or one more. */
  #attach(parent: Node, name: string, node: Node): void {
    parent.entries!.set(name, node)
    node.nlink += node.entries && node.nlink === 0 ? 2 : 1
    if (node.entries) parent.nlink++
    this.#touch(parent, node)
  }

  /** Takes a name away. The node stays as long as the kernel knows it. */
  #detach(parent: Node, name: string, node: Node): void {
    parent.entries!.delete(name)
    node.nlink -= node.entries ? 2 : 1
    if (node.entries) parent.nlink--
    this.#touch(parent, node)
  }

  /** A directory has changed, and the inode that it was about. */
  #touch(parent: Node, node: Node): void {
    parent.mtime = parent.ctime = node.ctime = this.now()
  }

  #make(parentId: number, name: string, mode: number, caller: Caller): Node {
    const parent = this.#directory(parentId)
    if (parent.entries.has(name)) throw new FuseError('EEXIST')
    if (parent.nlink === 0) throw new FuseError('ENOENT')
    const node = this.#unnamed(parent, mode, caller)
    this.#attach(parent, name, node)
    // all of one moment
    node.atime = node.mtime = node.ctime
    return node
  }

  /** In a directory with setgid all is of its group, and directories have setgid too. */
  #unnamed(parent: Node, mode: number, { uid, gid }: Caller): Node {
    const inherits = (parent.mode & S_ISGID) !== 0
    return this.#newNode(inherits && (mode & S_IFMT) === S_IFDIR ? mode | S_ISGID : mode, uid, inherits ? parent.gid : gid)
  }

  override lookup(parent: number, name: string): Entry {
    return this.#entry(this.#child(this.#directory(parent), name))
  }

  override forget(id: number): void {
    const node = this.#nodes.get(id)
    if (node?.nlink !== 0) return
    node.content?.truncate(0)
    this.#nodes.delete(id)
  }

  override getattr(id: number): Attributes {
    return this.#node(id)
  }

  override setattr(id: number, changes: Changes): Attributes {
    const node = this.#node(id)
    const now = this.now()
    if (changes.size !== undefined) {
      this.#file(id).truncate(changes.size)
      node.mtime = now
    }
    if (changes.mode !== undefined) node.mode = node.type | changes.mode
    node.uid = changes.uid ?? node.uid
    node.gid = changes.gid ?? node.gid
    node.atime = changes.atime ?? node.atime
    node.mtime = changes.mtime ?? node.mtime
    node.ctime = changes.ctime ?? now
    return node
  }

  override mknod(parent: number, name: string, mode: number, rdev: number, caller: Caller): Entry {
    const node = this.#make(parent, name, mode, caller)
    node.rdev = rdev
    return this.#entry(node)
  }

  override mkdir(parent: number, name: string, mode: number, caller: Caller): Entry {
    return this.#entry(this.#make(parent, name, S_IFDIR | mode, caller))
  }

  override symlink(parent: number, name: string, target: string, caller: Caller): Entry {
    const node = this.#make(parent, name, S_IFLNK | 0o777, caller)
    node.target = target
    return this.#entry(node)
  }

  override readlink(id: number): string {
    const node = this.#node(id)
    node.atime = this.now()
    return node.target
  }

  override create(parent: number, name: string, flags: number, mode: number, caller: Caller): Created {
    const existing = this.#directory(parent).entries.get(name)
    if (existing === undefined) return this.#entry(this.#make(parent, name, S_IFREG | mode, caller))
    if ((flags & O_EXCL) !== 0) throw new FuseError('EEXIST')
    if ((flags & O_TRUNC) !== 0) this.setattr(existing.ino, { size: 0 })
    return this.#entry(existing)
  }

  override tmpfile(parent: number, _flags: number, mode: number, caller: Caller): Created {
    return this.#entry(this.#unnamed(this.#directory(parent), S_IFREG | mode, caller))
  }

  override link(id: number, newParent: number, newName: string): Entry {
    const node = this.#node(id)
    const parent = this.#directory(newParent)
    if (node.entries) throw new FuseError('EPERM')
    if (parent.entries.has(newName)) throw new FuseError('EEXIST')
    this.#attach(parent, newName, node)
    return this.#entry(node)
  }

  override unlink(parentId: number, name: string): void {
    const parent = this.#directory(parentId)
    const node = this.#child(parent, name)
    if (node.entries) throw new FuseError('EISDIR')
    this.#detach(parent, name, node)
  }

  override rmdir(parentId: number, name: string): void {
    const parent = this.#directory(parentId)
    const node = this.#child(parent, name)
    if (!node.entries) throw new FuseError('ENOTDIR')
    if (node.entries.size > 0) throw new FuseError('ENOTEMPTY')
    this.#detach(parent, name, node)
  }

  override rename(parentId: number, name: string, newParentId: number, newName: string, flags: number): void {
    const parent = this.#directory(parentId)
    const newParent = this.#directory(newParentId)
    if ((flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE)) !== 0) throw new FuseError('EINVAL')
    const node = this.#child(parent, name)
    const other = newParent.entries.get(newName)
    if ((flags & RENAME_NOREPLACE) !== 0 && other) throw new FuseError('EEXIST')
    if ((flags & RENAME_EXCHANGE) !== 0 && !other) throw new FuseError('ENOENT')
    if (node === other) return
    const exchanges = (flags & RENAME_EXCHANGE) !== 0
    if (other && !exchanges) {
      if (other.entries && !node.entries) throw new FuseError('EISDIR')
      if (!other.entries && node.entries) throw new FuseError('ENOTDIR')
      if (other.entries && other.entries.size > 0) throw new FuseError('ENOTEMPTY')
    }
    if (other) this.#detach(newParent, newName, other)
    this.#detach(parent, name, node)
    this.#attach(newParent, newName, node)
    if (other && exchanges) this.#attach(parent, name, other)
  }

  override read(id: number, _handle: number, offset: number, _size: number, buffer: Buffer): number {
    this.#node(id).atime = this.now()
    return this.#file(id).read(buffer, offset)
  }

  override write(id: number, _handle: number, offset: number, data: Buffer): number {
    const node = this.#node(id)
    this.#file(id).write(data, offset)
    node.mtime = node.ctime = this.now()
    return data.length
  }

  override opendir(): Opened {
    this.#listings.set(++this.#lastHandle, { entries: [] })
    return { handle: this.#lastHandle }
  }

  override releasedir(_id: number, handle: number): void {
    this.#listings.delete(handle)
  }

  /** Offsets are positions in a list that is made when reading begins: no entry is skipped when others go. */
  override * readdir(id: number, handle: number, offset: number): Iterable<DirectoryEntry> {
    const directory = this.#directory(id)
    const listing = this.#listings.get(handle)
    if (listing === undefined) throw new FuseError('EBADF')
    if (offset === 0) {
      listing.entries = [...directory.entries]
      directory.atime = this.now()
    }
    for (let i = offset; i < listing.entries.length; i++) {
      const [name, node] = listing.entries[i]!
      if (directory.entries.get(name) === node) yield { name, offset: i + 1, entry: this.#entry(node) }
    }
  }

  override statfs(): Statistics {
    const { most, used } = this.#budget
    return { blocks: most, bfree: most - used, bavail: most - used, files: this.#nodes.size + 1e6, ffree: 1e6 }
  }

  #xattrs(id: number, name: string): Map<string, Buffer> {
    if (!/^(user|trusted|security)\../su.test(name)) throw new FuseError('EOPNOTSUPP')
    return this.#node(id).xattrs
  }

  override getxattr(id: number, name: string): Buffer {
    const value = this.#xattrs(id, name).get(name)
    if (value === undefined) throw new FuseError('ENODATA')
    return value
  }

  override setxattr(id: number, name: string, value: Buffer, flags: number): void {
    const xattrs = this.#xattrs(id, name)
    if ((flags & XATTR_CREATE) !== 0 && xattrs.has(name)) throw new FuseError('EEXIST')
    if ((flags & XATTR_REPLACE) !== 0 && !xattrs.has(name)) throw new FuseError('ENODATA')
    xattrs.set(name, value)
    this.#node(id).ctime = this.now()
  }

  override listxattr(id: number): Iterable<string> {
    return this.#node(id).xattrs.keys()
  }

  override removexattr(id: number, name: string): void {
    if (!this.#xattrs(id, name).delete(name)) throw new FuseError('ENODATA')
    this.#node(id).ctime = this.now()
  }

  override fallocate(id: number, _handle: number, offset: number, length: number, mode: number): void {
    const file = this.#file(id)
    if ((mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) !== 0) throw new FuseError('EOPNOTSUPP')
    const end = offset + length
    if ((mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) !== 0) file.punch(offset, end)
    if ((mode & FALLOC_FL_PUNCH_HOLE) === 0) file.allocate(offset, length)
    if ((mode & FALLOC_FL_KEEP_SIZE) === 0 && end > file.size) file.size = end
    this.setattr(id, { mtime: this.now() })
  }

  override lseek(id: number, _handle: number, offset: number, whence: number): number {
    return this.#file(id).seek(offset, whence)
  }

  override copyFileRange(id: number, handle: number, offset: number, toId: number, toHandle: number, toOffset: number, length: number): number {
    const part = Buffer.alloc(Math.min(length, COPY_BYTES))
    const count = this.read(id, handle, offset, part.length, part)
    return this.write(toId, toHandle, toOffset, part.subarray(0, count))
  }
}
