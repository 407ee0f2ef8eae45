/**
 * The nodes that the kernel knows, for a mount that outlives its backend (on_disconnect=wait). The
 * kernel gets numbers of this table's own; each stands for a node id of the present session with
 * the backend, and for the path by which it can be looked up again in the next one.
 *
 * A node is kept while the kernel has lookups of it, or while it is on the path of one that is kept:
 * so the table is as large as what the kernel caches. Adding and finding allocate nothing, but when
 * the table doubles.
 *
 * The number of the node at index n of the arrays below is n + 1, and how often the index was used
 * before: a number that the kernel still has of a file that is gone never means another. Number 1 is
 * the root on both sides.
 */
import { grown } from './grown.js'
import { HashChains } from './hash-chains.js'
import { NameArena } from './name-arena.js'

const NONE = -1
export const ROOT = 0
/** Numbers stay exact as doubles, which traces use. */
const REUSE_MASK = 0xf_ffff

/** Where changes of the table are kept, for a process after this one. */
export interface NodeStore {
  /** A node is new, with no path. */
  described(node: number): void
  /** The kernel's lookups of it are others. */
  counted(node: number): void
  /** It has another path, or none. */
  moved(node: number): void
  /** Its index is free. */
  freed(node: number): void
}

export class NodeTable {
  /** The session with the backend, from 1; a node whose `session` is an older one has to be looked up again. */
  session = 1
  /** Nodes in use. */
  count = 1
  store: NodeStore | null = null
  /** Told the lookups that this session's backend has given of a node that is freed. */
  released: (idLow: number, idHigh: number, lookups: number) => void = () => {}

  // of each node
  idLow: Uint32Array
  idHigh: Uint32Array
  /** In which session the id is good; 0 for none. */
  sessionOf: Int32Array
  inoLow: Uint32Array
  inoHigh: Uint32Array
  generationLow: Uint32Array
  generationHigh: Uint32Array
  /** S_IFMT of its mode. */
  type: Uint32Array
  /** Its directory, or −1 when it has no path: it was removed, or could not be found again. */
  parent: Int32Array
  nameAt: Int32Array
  nameBytes: Int32Array
  /** Lookups that the kernel has of it, and that this session's backend has given. */
  lookups: Float64Array
  sessionLookups: Float64Array
  /** Nodes whose parent it is. */
  #children: Int32Array
  #used: Uint8Array
  /** How often an index was given up. */
  reuse: Uint32Array
  /** Free nodes are linked by its `next`. */
  readonly #byId: HashChains
  readonly #byName: HashChains
  #free = NONE
  readonly #names = new NameArena()

  /** @param capacity nodes to begin with, a power of two */
  constructor(capacity = 256) {
    this.idLow = new Uint32Array(capacity)
    this.idHigh = new Uint32Array(capacity)
    this.sessionOf = new Int32Array(capacity)
    this.inoLow = new Uint32Array(capacity)
    this.inoHigh = new Uint32Array(capacity)
    this.generationLow = new Uint32Array(capacity)
    this.generationHigh = new Uint32Array(capacity)
    this.type = new Uint32Array(capacity)
    this.parent = new Int32Array(capacity)
    this.nameAt = new Int32Array(capacity)
    this.nameBytes = new Int32Array(capacity)
    this.lookups = new Float64Array(capacity)
    this.sessionLookups = new Float64Array(capacity)
    this.#children = new Int32Array(capacity)
    this.#used = new Uint8Array(capacity)
    this.reuse = new Uint32Array(capacity)
    this.#byId = new HashChains(capacity)
    this.#byName = new HashChains(capacity)
    this.#link(1, capacity)
    this.#used[ROOT] = 1
    this.idLow[ROOT] = 1
    this.parent[ROOT] = NONE
    this.#enterId(ROOT)
  }

  get capacity(): number {
    return this.#used.length
  }

  isUsed(node: number): boolean {
    return this.#used[node] === 1
  }

  /** Makes room for so many, in a table that is to be filled. */
  reserve(capacity: number): void {
    while (this.#used.length < capacity) this.#grow()
  }

  /** An index as an earlier process has left it; the caller says the rest of what is used. `restored` ends it. */
  restore(node: number, reuse: number, used: boolean): void {
    this.reuse[node] = reuse
    if (!used) return
    this.#used[node] = 1
    this.parent[node] = NONE
    this.count++
  }

  /** All is filled in: ids are those of no session. */
  restored(): void {
    this.#free = NONE
    for (let node = this.#used.length - 1; node > ROOT; node--) if (this.#used[node] === 0) this.#link(node, node + 1)
    this.newSession()
  }

  #link(from: number, to: number): void {
    for (let node = to - 1; node >= from; node--) {
      this.#byId.next[node] = this.#free
      this.#free = node
    }
  }

  /** The node with a number of the kernel's, or −1. */
  known(numberLow: number, numberHigh: number): number {
    const node = numberLow - 1
    return node >= 0 && node < this.#used.length && this.#used[node] === 1 && this.reuse[node] === numberHigh ? node : NONE
  }

  /** Whether its id is good in this session. The root's always is. */
  isCurrent(node: number): boolean {
    return node === ROOT || this.sessionOf[node] === this.session
  }

  #hashId(low: number, high: number): number {
    return Math.imul(low ^ Math.imul(high, 0x9e3779b1), 0x85ebca6b) >>> 7
  }

  #hashName(parent: number, from: Uint8Array, at: number, length: number): number {
    let hash = Math.imul(parent + 1, 0x9e3779b1)
    for (let i = 0; i < length; i++) hash = Math.imul(hash ^ from[at + i]!, 0x01000193)
    return hash ^ (hash >>> 15)
  }

  /** The node that has an id in this session, or −1. */
  findId(low: number, high: number): number {
    const { next } = this.#byId
    let node = this.#byId.first(this.#hashId(low, high))
    while (node !== NONE && (this.idLow[node] !== low || this.idHigh[node] !== high)) node = next[node]!
    return node
  }

  /** The node at a path, or −1. */
  findName(parent: number, from: Uint8Array, at: number, length: number): number {
    const { next } = this.#byName
    let node = this.#byName.first(this.#hashName(parent, from, at, length))
    while (node !== NONE && !this.#hasName(node, parent, from, at, length)) node = next[node]!
    return node
  }

  #hasName(node: number, parent: number, from: Uint8Array, at: number, length: number): boolean {
    if (this.parent[node] !== parent || this.nameBytes[node] !== length) return false
    const { bytes } = this.#names
    const here = this.nameAt[node]!
    for (let i = 0; i < length; i++) if (bytes[here + i] !== from[at + i]) return false
    return true
  }

  /** A new node with no id and no path; the caller says the rest. */
  add(): number {
    if (this.#free === NONE) this.#grow()
    const node = this.#free
    this.#free = this.#byId.next[node]!
    this.#used[node] = 1
    this.sessionOf[node] = 0
    this.parent[node] = NONE
    this.nameBytes[node] = 0
    this.lookups[node] = 0
    this.sessionLookups[node] = 0
    this.#children[node] = 0
    this.count++
    return node
  }

  /** Gives a node its id in this session. */
  setId(node: number, low: number, high: number): void {
    if (this.sessionOf[node] === this.session) this.#leaveId(node)
    this.idLow[node] = low
    this.idHigh[node] = high
    this.sessionLookups[node] = 0
    this.#enterId(node)
  }

  #enterId(node: number): void {
    this.sessionOf[node] = this.session
    this.#byId.enter(this.#hashId(this.idLow[node]!, this.idHigh[node]!), node)
  }

  #leaveId(node: number): void {
    this.#byId.leave(this.#hashId(this.idLow[node]!, this.idHigh[node]!), node)
    this.sessionOf[node] = 0
  }

  /** Gives a node a path; another node that had it has none any more. The root and a node's own descendants are no place for it. */
  setPath(node: number, parent: number, from: Uint8Array, at: number, length: number): void {
    if (node === ROOT || this.#hasName(node, parent, from, at, length) || this.#isAbove(node, parent)) return
    const other = this.findName(parent, from, at, length)
    // counted before anything is let go: the parent must not be freed in between
    this.#children[parent]!++
    if (other !== NONE) this.clearPath(other)
    this.clearPath(node)
    if (!this.#names.fits(length)) this.#compact(length)
    this.parent[node] = parent
    this.nameAt[node] = this.#names.put(from, at, length)
    this.nameBytes[node] = length
    this.#byName.enter(this.#hashName(parent, from, at, length), node)
    if (this.store !== null) this.store.moved(node)
  }

  #isAbove(node: number, other: number): boolean {
    for (let at = other; at !== NONE; at = this.parent[at]!) if (at === node) return true
    return false
  }

  /** Takes a node's path away. */
  clearPath(node: number): void {
    const parent = this.parent[node]!
    if (parent === NONE) return
    const length = this.nameBytes[node]!
    this.#byName.leave(this.#hashName(parent, this.#names.bytes, this.nameAt[node]!, length), node)
    this.#names.drop(length)
    this.parent[node] = NONE
    this.nameBytes[node] = 0
    this.#children[parent]!--
    if (this.store !== null) this.store.moved(node)
    this.releaseIfUnused(parent)
  }

  /** Copies a node's name, and returns how long it is. */
  copyName(node: number, to: Uint8Array, at: number): number {
    const length = this.nameBytes[node]!
    const from = this.nameAt[node]!
    for (let i = 0; i < length; i++) to[at + i] = this.#names.bytes[from + i]!
    return length
  }

  /** Frees a node, and then its directory, when nobody needs them. */
  releaseIfUnused(node: number): void {
    if (node === ROOT || this.#used[node] === 0 || this.lookups[node]! > 0 || this.#children[node]! > 0) return
    if (this.sessionOf[node] === this.session) {
      if (this.sessionLookups[node]! > 0) this.released(this.idLow[node]!, this.idHigh[node]!, this.sessionLookups[node]!)
      this.#leaveId(node)
    }
    this.#used[node] = 0
    this.reuse[node] = (this.reuse[node]! + 1) & REUSE_MASK
    this.count--
    if (this.store !== null) this.store.freed(node)
    // its directory goes with it, if it was the last
    this.clearPath(node)
    this.#byId.next[node] = this.#free
    this.#free = node
  }

  /** A new session: no id but the root's is good any more. */
  newSession(): void {
    this.session++
    this.#byId.clear()
    this.sessionLookups.fill(0)
    this.idLow[ROOT] = 1
    this.idHigh[ROOT] = 0
    this.#enterId(ROOT)
  }

  /**
   * What has to be looked up first for a node to be current: the node itself or the highest of its
   * directories that is not.
   *
   * @returns −1 when it is current; −2 when it has no path any more
   */
  nextToLookUp(node: number): number {
    let next = NONE
    for (let at = node; !this.isCurrent(at); at = this.parent[at]!) {
      if (this.parent[at] === NONE) return -2
      next = at
    }
    return next
  }

  #compact(length: number): void {
    this.#names.compact(length, move => {
      for (let node = 0; node < this.#used.length; node++) {
        if (this.parent[node] !== NONE && this.#used[node] === 1) this.nameAt[node] = move(this.nameAt[node]!, this.nameBytes[node]!)
      }
    })
  }

  #grow(): void {
    const from = this.#used.length
    const to = 2 * from
    this.idLow = grown(to, this.idLow)
    this.idHigh = grown(to, this.idHigh)
    this.sessionOf = grown(to, this.sessionOf)
    this.inoLow = grown(to, this.inoLow)
    this.inoHigh = grown(to, this.inoHigh)
    this.generationLow = grown(to, this.generationLow)
    this.generationHigh = grown(to, this.generationHigh)
    this.type = grown(to, this.type)
    this.parent = grown(to, this.parent)
    this.nameAt = grown(to, this.nameAt)
    this.nameBytes = grown(to, this.nameBytes)
    this.lookups = grown(to, this.lookups)
    this.sessionLookups = grown(to, this.sessionLookups)
    this.#children = grown(to, this.#children)
    this.#used = grown(to, this.#used)
    this.reuse = grown(to, this.reuse)
    this.#byId.grow(to)
    this.#byName.grow(to)
    for (let node = 0; node < from; node++) {
      if (this.sessionOf[node] === this.session) this.#enterId(node)
      if (this.parent[node] === NONE) continue
      this.#byName.enter(this.#hashName(this.parent[node]!, this.#names.bytes, this.nameAt[node]!, this.nameBytes[node]!), node)
    }
    this.#link(from, to)
  }
}
