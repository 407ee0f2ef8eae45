/**
 * A file system of a few files in memory, and a device over it that dies: sessions give out ids of
 * their own, the files stay. The same class, with no device around it, says what should come out.
 */
import { errno } from '../../lib/errors.js'
import { FuseCreateIn, FuseInHeader, FuseLinkIn, FuseReadIn, FuseRenameIn, FuseWriteIn } from '../../lib/fuse/abi.js'
import { Op } from '../../lib/fuse/opcodes.js'
import type { TakenRequest } from './mock-device.js'
import { attributes, entry, opened } from './session-fixture.js'

const DIRECTORY = 0o40755
const FILE = 0o100644
const O_EXCL = 0o200
const O_APPEND = 0o2000

export interface Inode {
  ino: number
  mode: number
  nlink: number
  data: Buffer
  entries: Map<string, Inode>
  changedMs: number
}

export class ModelFs {
  readonly root: Inode
  #inos = 100

  constructor() {
    this.root = this.#make(DIRECTORY)
  }

  #make(mode: number): Inode {
    return { ino: this.#inos++, mode, nlink: 1, data: Buffer.alloc(0), entries: new Map(), changedMs: Date.now() }
  }

  add(directory: Inode, name: string, mode: number): Inode | number {
    if (directory.entries.has(name)) return -errno.EEXIST
    const inode = this.#make(mode)
    directory.entries.set(name, inode)
    return inode
  }

  link(inode: Inode, directory: Inode, name: string): Inode | number {
    if (directory.entries.has(name)) return -errno.EEXIST
    directory.entries.set(name, inode)
    inode.nlink++
    inode.changedMs = Date.now()
    return inode
  }

  remove(directory: Inode, name: string): number {
    const inode = directory.entries.get(name)
    if (!inode) return -errno.ENOENT
    if (inode.entries.size > 0) return -errno.ENOTEMPTY
    directory.entries.delete(name)
    inode.nlink--
    inode.changedMs = Date.now()
    return 0
  }

  rename(from: Inode, old: string, to: Inode, name: string): number {
    const inode = from.entries.get(old)
    if (!inode) return -errno.ENOENT
    const other = to.entries.get(name)
    if (other === inode) return 0
    if (other && other.entries.size > 0) return -errno.ENOTEMPTY
    if (other) other.nlink--
    from.entries.delete(old)
    to.entries.set(name, inode)
    inode.changedMs = Date.now()
    return 0
  }

  write(inode: Inode, offset: number, bytes: Buffer): void {
    const size = Math.max(inode.data.length, offset + bytes.length)
    const data = Buffer.alloc(size)
    inode.data.copy(data)
    bytes.copy(data, offset)
    inode.data = data
    inode.changedMs = Date.now()
  }
}

/** One session of a device. */
export class ModelDevice {
  /** What it was told to forget, and what it gave out: by id. */
  readonly lookups = new Map<number, number>()
  readonly #fs: ModelFs
  readonly #ids = new Map<number, Inode>()
  readonly #byInode = new Map<Inode, number>()
  readonly #handles = new Map<number, { inode: Inode, flags: number }>()
  #next: number
  /** As the C virtiofsd: a name whose file it was not asked for cannot be taken away. */
  readonly #picky: boolean

  constructor(fs: ModelFs, firstId: number, picky: boolean) {
    this.#fs = fs
    this.#next = firstId
    this.#picky = picky
    this.#ids.set(1, fs.root)
    this.#byInode.set(fs.root, 1)
  }

  #give(inode: Inode): number {
    let id = this.#byInode.get(inode)
    if (id === undefined) {
      id = this.#next++
      this.#ids.set(id, inode)
      this.#byInode.set(inode, id)
    }
    this.lookups.set(id, (this.lookups.get(id) ?? 0) + 1)
    return id
  }

  #entry(inode: Inode): Buffer {
    return entry({ id: this.#give(inode), ino: inode.ino, mode: inode.mode, size: inode.data.length, changedMs: inode.changedMs })
  }

  forget(id: number, count: number): void {
    const left = (this.lookups.get(id) ?? 0) - count
    if (left < 0) throw new Error(`${-left} lookups of ${id} too many were given back`)
    this.lookups.set(id, left)
    if (left > 0) return
    this.#byInode.delete(this.#ids.get(id)!)
    this.#ids.delete(id)
  }

  /** Carries a request out. @returns the payload of its reply, or −errno @throws Error for an id or a handle that was never given */
  execute({ opcode, nodeid, bytes: raw }: TakenRequest): Uint8Array | number {
    const bytes = Buffer.from(raw)
    const inode = this.#known(Number(nodeid))
    const arg = FuseInHeader.SIZE
    const text = (at: number): string[] => bytes.toString('latin1', arg + at).split('\0')
    const fs = this.#fs
    const made = (result: Inode | number): Uint8Array | number => typeof result === 'number' ? result : this.#entry(result)
    const done = (error: number): Uint8Array | number => error === 0 ? new Uint8Array(0) : error
    switch (opcode) {
      case Op.LOOKUP: {
        const child = inode.entries.get(text(0)[0]!)
        return child ? this.#entry(child) : -errno.ENOENT
      }
      case Op.GETATTR: return attributes({ id: 1, ino: inode.ino, mode: inode.mode, size: inode.data.length })
      case Op.STATFS: return new Uint8Array(80)
      case Op.MKDIR: return made(fs.add(inode, text(8)[0]!, DIRECTORY))
      case Op.LINK: return made(fs.link(this.#known(Number(bytes.readBigUInt64LE(arg + FuseLinkIn.oldnodeid))), inode, text(8)[0]!))
      case Op.UNLINK: case Op.RMDIR: return done(this.#knows(inode, text(0)[0]!) ? fs.remove(inode, text(0)[0]!) : -errno.EIO)
      case Op.RENAME: {
        const [old, name] = text(8) as [string, string]
        const to = this.#known(Number(bytes.readBigUInt64LE(arg + FuseRenameIn.newdir)))
        return done(this.#knows(inode, old) ? fs.rename(inode, old, to, name) : -errno.EIO)
      }
      case Op.CREATE: {
        const name = text(FuseCreateIn.SIZE)[0]!
        const flags = bytes.readUInt32LE(arg)
        const there = inode.entries.get(name)
        const file = there && (flags & O_EXCL) === 0 ? there : fs.add(inode, name, FILE)
        return typeof file === 'number' ? file : Buffer.concat([this.#entry(file), opened(this.#open(file, flags))])
      }
      case Op.OPEN: return opened(this.#open(inode, bytes.readUInt32LE(arg)))
      case Op.RELEASE: return done(this.#handles.delete(Number(bytes.readBigUInt64LE(arg))) ? 0 : -errno.EBADF)
      case Op.READ: {
        const { inode: file } = this.#handle(bytes)
        const offset = Number(bytes.readBigUInt64LE(arg + FuseReadIn.offset))
        return file.data.subarray(offset, offset + bytes.readUInt32LE(arg + FuseReadIn.size))
      }
      case Op.WRITE: {
        const { inode: file, flags } = this.#handle(bytes)
        const data = bytes.subarray(arg + FuseWriteIn.SIZE)
        fs.write(file, flags & O_APPEND ? file.data.length : Number(bytes.readBigUInt64LE(arg + FuseWriteIn.offset)), data)
        const out = Buffer.alloc(8)
        out.writeUInt32LE(data.length)
        return out
      }
      default: throw new Error(`opcode ${opcode}`)
    }
  }

  #known(id: number): Inode {
    const inode = this.#ids.get(id)
    if (!inode) throw new Error(`id ${id} was not given in this session`)
    return inode
  }

  #knows(directory: Inode, name: string): boolean {
    const inode = directory.entries.get(name)
    return !this.#picky || (inode !== undefined && this.#byInode.has(inode))
  }

  #open(inode: Inode, flags: number): number {
    const fh = this.#next++
    this.#handles.set(fh, { inode, flags })
    return fh
  }

  #handle(bytes: Buffer): { inode: Inode, flags: number } {
    const handle = this.#handles.get(Number(bytes.readBigUInt64LE(FuseInHeader.SIZE)))
    if (!handle) throw new Error('a handle that was not given in this session')
    return handle
  }
}
