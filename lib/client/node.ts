/**
 * Nodes: what the device has given a node id for, each with the lookups that are owed to it; and
 * names: which node a directory's entry led to, and until when that may be believed.
 *
 *   name ──holds──► node ◄──holds── open file, caller on its way, background request
 *
 * A node is forgotten, with all its lookups in one FORGET, when nobody holds it. Names that were not
 * used for long make room for new ones, leaves first, so that the device may drop its inodes.
 */
import { S_IFDIR, S_IFLNK, S_IFMT } from '../sys/file.js'
import type { Reference } from './engine-request.js'
import type { Attributes } from './attributes.js'

/** What LOOKUP and its like answer. */
export interface EntryReply {
  readonly nodeidLow: number
  readonly nodeidHigh: number
  readonly generation: bigint
  /** Milliseconds that name and attributes are good for. */
  readonly entryMs: number
  readonly attrMs: number
  readonly attributes: Attributes
}

/** A name in a directory. */
class Name {
  older: Name | undefined
  newer: Name | undefined

  constructor(
    readonly directory: Node,
    readonly text: string,
    /** None: the name is known not to be there. */
    readonly node: Node | undefined,
    public untilMs: number,
  ) {}
}

export class Node implements Reference {
  lookups = 0
  attributes: Attributes
  /** `performance.now()` until which `attributes` are good. */
  attributesUntilMs = 0
  /** `NodeTable.version` when this client changed the node last: a reply that was asked for before that is not kept. */
  changedAt = 0
  /** It was read since: its access time is to be asked for again (fuse_invalidate_atime of Linux). */
  atimeOld = false
  /** Target of a symbolic link, once it was read and may be kept (CACHE_SYMLINKS). */
  link: Buffer | undefined
  /** Names in a directory that are known. */
  names: Map<string, Name> | undefined
  #held = 0
  readonly #table: NodeTable

  constructor(table: NodeTable, readonly nodeidLow: number, readonly nodeidHigh: number, readonly generation: bigint, attributes: Attributes) {
    this.#table = table
    this.attributes = attributes
  }

  get isDirectory(): boolean {
    return (this.attributes.mode & S_IFMT) === S_IFDIR
  }

  get isSymbolicLink(): boolean {
    return (this.attributes.mode & S_IFMT) === S_IFLNK
  }

  get attributesGood(): boolean {
    return performance.now() < this.attributesUntilMs
  }

  /** Takes what a reply says about the node; for no time, when the node was changed after it was asked for. @param version then */
  update(attributes: Attributes, attrMs: number, version: number): void {
    // it never changes, and only one of the replies has it
    if (attributes.ino === this.attributes.ino) attributes.birthtime ??= this.attributes.birthtime
    this.attributes = attributes
    this.atimeOld = false
    this.attributesUntilMs = this.changedAt <= version ? performance.now() + attrMs : 0
  }

  /** This client has changed it: what is known of it is to be asked for again. */
  changed(): void {
    this.changedAt = ++this.#table.version
    this.attributesUntilMs = 0
  }

  hold(): void {
    this.#held++
  }

  drop(): void {
    if (--this.#held === 0) this.#table.forget(this)
  }
}

/** Milliseconds of a timeout; one that no number of milliseconds holds never ends. */
export function timeoutMs(sec: number, nsec: number): number {
  return sec * 1000 + nsec / 1e6
}

export interface NodeTableOptions {
  /** Names that are kept at most. */
  maxNames: number
  /** Hands the lookups of a node back to the device. */
  forget(nodeidLow: number, nodeidHigh: number, lookups: number): void
}

const ROOT_ID = 1
/** So many names are looked at for one that is no directory with names of its own. */
const EVICTION_TRIES = 64

export class NodeTable {
  readonly root: Node
  /** Counts what this client changes (fc->attr_version of Linux). */
  version = 0
  readonly #options: NodeTableOptions
  readonly #nodes = new Map<number | bigint, Node>()
  #oldest: Name | undefined
  #newest: Name | undefined
  #count = 0

  /** @param rootAttributes of the root, which is never looked up nor forgotten */
  constructor(options: NodeTableOptions, rootAttributes: Attributes) {
    this.#options = options
    this.root = new Node(this, ROOT_ID, 0, 0n, rootAttributes)
    this.root.hold()
    this.#nodes.set(ROOT_ID, this.root)
  }

  /** Nodes that lookups are owed to, and names that are kept. */
  get size(): { nodes: number, names: number } {
    return { nodes: this.#nodes.size, names: this.#count }
  }

  /** The node of a good reply, whose lookup it counts. Held once for the caller. */
  take(reply: EntryReply): Node {
    const key = keyOf(reply.nodeidLow, reply.nodeidHigh)
    let node = this.#nodes.get(key)
    // another file has got the id: who holds the old one keeps it, with the lookups that it has
    if (node !== undefined && (node.generation !== reply.generation || ((node.attributes.mode ^ reply.attributes.mode) & S_IFMT) !== 0) && node !== this.root) node = undefined
    if (node === undefined) {
      node = new Node(this, reply.nodeidLow, reply.nodeidHigh, reply.generation, reply.attributes)
      this.#nodes.set(key, node)
    }
    node.lookups++
    node.hold()
    return node
  }

  /** Nobody holds it. */
  forget(node: Node): void {
    if (node.names) for (const name of node.names.values()) this.#unlink(name)
    node.names = undefined
    const key = keyOf(node.nodeidLow, node.nodeidHigh)
    if (this.#nodes.get(key) === node) this.#nodes.delete(key)
    if (node.lookups > 0) this.#options.forget(node.nodeidLow, node.nodeidHigh, node.lookups)
    node.lookups = 0
  }

  /** What is known of a name: its node, null when it is known not to be there, undefined for nothing. */
  known(directory: Node, text: string): Node | null | undefined {
    const name = directory.names?.get(text)
    if (name === undefined) return undefined
    if (performance.now() >= name.untilMs) return undefined
    if (name !== this.#newest) {
      this.#takeOut(name)
      this.#append(name)
    }
    return name.node ?? null
  }

  /** Keeps what a name led to; for no time, it is forgotten. @param node none: it is not there */
  keep(directory: Node, text: string, node: Node | undefined, forMs: number): void {
    const old = directory.names?.get(text)
    if (forMs > 0) {
      const name = new Name(directory, text, node, performance.now() + forMs)
      node?.hold()
      directory.names ??= new Map()
      directory.names.set(text, name)
      this.#append(name)
      this.#count++
    } else {
      directory.names?.delete(text)
    }
    // after the new one holds the node, which may be the same
    if (old !== undefined) this.#unlink(old)
    if (this.#count > this.#options.maxNames) this.#evict()
  }

  /** Forgets what is known of a name. */
  expire(directory: Node, text: string): void {
    this.keep(directory, text, undefined, 0)
  }

  /** Forgets all names: nodes that nobody holds otherwise are forgotten with them. */
  expireAll(): void {
    while (this.#oldest) this.#remove(this.#oldest)
  }

  #evict(): void {
    for (let tries = 0; tries < EVICTION_TRIES && this.#oldest; tries++) {
      const name = this.#oldest
      if (name.node?.names === undefined || name.node.names.size === 0) return this.#remove(name)
      // older than the names in it, which are used only through it
      this.#takeOut(name)
      this.#append(name)
    }
    if (this.#oldest) this.#remove(this.#oldest)
  }

  #remove(name: Name): void {
    if (name.directory.names?.get(name.text) === name) name.directory.names.delete(name.text)
    this.#unlink(name)
  }

  /** Of a name that its directory does not have any more. */
  #unlink(name: Name): void {
    this.#takeOut(name)
    this.#count--
    name.node?.drop()
  }

  #append(name: Name): void {
    name.older = this.#newest
    name.newer = undefined
    if (this.#newest) this.#newest.newer = name
    else this.#oldest = name
    this.#newest = name
  }

  #takeOut(name: Name): void {
    if (name.older) name.older.newer = name.newer
    else this.#oldest = name.newer
    if (name.newer) name.newer.older = name.older
    else this.#newest = name.older
    name.older = name.newer = undefined
  }
}

/** A node id as the key of a map. */
function keyOf(low: number, high: number): number | bigint {
  return high < 0x20_0000 ? high * 2 ** 32 + low : (BigInt(high) << 32n) | BigInt(low)
}
