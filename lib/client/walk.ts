/**
 * Path walking as a kernel does it (fs/namei.c of Linux): component by component from the root of the
 * tree, symbolic links followed inside it, at most 40 of them, and `..` never out of it.
 *
 * A walk holds every directory it stands in, until it is closed: none may be forgotten while a
 * request about it is on its way.
 */
import { errno } from '../errors.js'
import { bytesToString } from '../device/byte-string.js'
import { MAY_EXEC } from './permission.js'
import type { Node } from './node.js'
import type { NodeAccess } from './node-access.js'

/** MAXSYMLINKS */
const MAX_LINKS = 40
/** PATH_MAX with its NUL. */
export const MAX_PATH_BYTES = 4095
/** FUSE_NAME_MAX; a device may allow less. */
const MAX_NAME_BYTES = 1024

const SEVERAL_SLASHES = /\/+/

/** What the last component of a path is. */
export const enum Last {
  NAME,
  /** `.`, or nothing but slashes. */
  DOT,
  DOT_DOT,
}

export class Walk {
  /** What the path ends with. */
  last = Last.DOT
  /** The last name, in `directory`. */
  name = ''
  /** The path ends with a slash: only a directory fits. */
  slash = false
  readonly #access: NodeAccess
  readonly #lookUp: boolean
  readonly #signal: AbortSignal | undefined
  readonly #maxPathBytes: number
  /** From the root to where the walk stands; all held. */
  readonly #stack: Node[]
  readonly #names: string[] = []
  /** Components that are left, the next one at the end. */
  #left: string[] = []
  #links = 0

  /** @param lookUp believe no name that was looked up before @param maxPathBytes of a path, with no NUL */
  constructor(access: NodeAccess, lookUp = false, signal?: AbortSignal, maxPathBytes = MAX_PATH_BYTES) {
    this.#maxPathBytes = maxPathBytes
    this.#access = access
    this.#lookUp = lookUp
    this.#signal = signal
    access.table.root.hold()
    this.#stack = [access.table.root]
  }

  /** Where the walk stands: after `toParent` the directory of the last name. */
  get node(): Node {
    return this.#stack.at(-1)!
  }

  get directory(): Node {
    return this.node
  }

  /** Absolute path of where the walk stands, with no link in it. */
  get path(): string {
    return '/' + this.#names.join('/')
  }

  /** The node of a name where the walk stands, held, or −errno. */
  child(name: string): Promise<Node | number> {
    if (this.#lookUp) this.#access.table.expire(this.node, name)
    return this.#access.child(this.node, name, this.#signal)
  }

  close(): void {
    for (const node of this.#stack.splice(0)) node.drop()
  }

  #push(path: string): number {
    const most = this.#maxPathBytes
    if (path.length > most || (path.length > most / 3 && Buffer.byteLength(path) > most)) return -errno.ENAMETOOLONG
    if (path === '') return -errno.ENOENT
    const components = path.split(SEVERAL_SLASHES)
    if (components[0] === '') this.#toRoot()
    // nothing behind the last slash
    const slash = components.at(-1) === ''
    if (this.#left.length === 0) this.slash ||= slash
    for (let i = components.length - 1; i >= 0; i--) if (components[i] !== '') this.#left.push(components[i]!)
    return 0
  }

  #toRoot(): void {
    for (const node of this.#stack.splice(1)) node.drop()
    this.#names.length = 0
  }

  #up(): void {
    if (this.#stack.length === 1) return
    this.#stack.pop()!.drop()
    this.#names.pop()
  }

  /**
   * Walks to the directory that the last name of a path is in, and leaves `last`, `name` and `slash`.
   * @returns 0 or −errno
   */
  async toParent(path: string): Promise<number> {
    const error = this.#push(path)
    return error < 0 ? error : this.#run()
  }

  /**
   * Walks to the end of a path.
   *
   * @param follow whether a symbolic link at the end is followed; before a slash it always is
   * @returns 0 or −errno
   */
  async toNode(path: string, follow: boolean): Promise<number> {
    const error = await this.toParent(path)
    return error < 0 ? error : this.finish(follow)
  }

  /** Goes on from the parent to the last name. @returns 0 or −errno: −ENOENT when it is not there */
  async finish(follow: boolean): Promise<number> {
    while (this.last === Last.NAME) {
      const node = await this.child(this.name)
      if (typeof node === 'number') return node
      const error = await this.enter(node, follow)
      if (error <= 0) return error
    }
    return 0
  }

  /**
   * Steps onto the node of the last name.
   *
   * @param node held; the walk's from now on
   * @returns 0 when the walk stands on it; 1 when it was a link that was followed, to the parent of where it leads; −errno
   */
  async enter(node: Node, follow: boolean): Promise<number> {
    if (node.isSymbolicLink && (follow || this.slash)) {
      const error = await this.#followLink(node)
      return error < 0 ? error : 1
    }
    this.#stack.push(node)
    this.#names.push(this.name)
    return this.slash && !node.isDirectory ? -errno.ENOTDIR : 0
  }

  /** Reads a link and walks to the parent of where it leads. Drops it. */
  async #followLink(node: Node): Promise<number> {
    const target = ++this.#links > MAX_LINKS ? -errno.ELOOP : await this.#access.readlink(node, this.#signal)
    node.drop()
    if (typeof target === 'number') return target
    const error = this.#push(bytesToString(target))
    return error < 0 ? error : this.#run()
  }

  /** Walks through all components that are left but the last. */
  async #run(): Promise<number> {
    for (;;) {
      const name = this.#left.pop()
      if (name === undefined) {
        this.last = Last.DOT
        return 0
      }
      const isLast = this.#left.length === 0
      if (!this.node.isDirectory) return -errno.ENOTDIR
      const error = await this.#mayEnter()
      if (error < 0) return error
      if (name === '.' || name === '..') {
        if (name === '..') this.#up()
        if (!isLast) continue
        this.last = name === '.' ? Last.DOT : Last.DOT_DOT
        return 0
      }
      if (name.length > MAX_NAME_BYTES || Buffer.byteLength(name) > MAX_NAME_BYTES) return -errno.ENAMETOOLONG
      this.name = name
      this.last = Last.NAME
      if (isLast) return 0
      const stepped = await this.#step(name)
      if (stepped < 0) return stepped
    }
  }

  /** Whether names may be looked up where the walk stands. */
  #mayEnter(): Promise<number> | number {
    return this.node.isDirectory ? this.#access.check(this.node, MAY_EXEC, this.#signal) : -errno.ENOTDIR
  }

  /** One component in the middle of a path: a directory, or a link to one. */
  async #step(name: string): Promise<number> {
    const node = await this.child(name)
    if (typeof node === 'number') return node
    if (node.isSymbolicLink) {
      const target = ++this.#links > MAX_LINKS ? -errno.ELOOP : await this.#access.readlink(node, this.#signal)
      node.drop()
      return typeof target === 'number' ? target : this.#push(bytesToString(target))
    }
    this.#stack.push(node)
    this.#names.push(name)
    return node.isDirectory ? 0 : -errno.ENOTDIR
  }
}
