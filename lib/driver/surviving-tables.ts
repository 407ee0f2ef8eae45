/**
 * The tables of nodes and of open files, kept where the next process finds them. The tables of this
 * process are what counts; each change is written here as it is made, before the kernel hears of it.
 *
 * An area holds a record for each node and each handle, and the names. A path is a piece of the
 * names, {directory, length, bytes}, that never changes: a node moves by one store. When an area is
 * full another one is written from the tables, and the header's word says from then on that it
 * counts. What a death leaves half done: a node without lookups, which nobody needs; a count that is
 * one too high, since counts go up before the kernel knows and down after; a name that nobody has.
 */
import type { HandleStore, HandleTable } from './handle-table.js'
import { ROOT, type NodeStore, type NodeTable } from './node-table.js'
import { STATE_PAGE, StateWord, type StateMemory } from './state-memory.js'

const NONE = -1
/** Words at the beginning of an area. */
const Area = { NODES: 0, HANDLES: 1, NAME_WORDS: 2, WORDS: 16 } as const
/** Words of a node's record. STAMP: 2 × how often the index was used before, + 1 while it is used. PATH: where in the names, 0 for none. */
const Node = { STAMP: 0, TYPE: 1, INO_LOW: 2, INO_HIGH: 3, GENERATION_LOW: 4, GENERATION_HIGH: 5, LOOKUPS: 6, PATH: 8, WORDS: 10 } as const
/** Words of a handle's record. NODE: the index of its node + 1, 0 for a free one. */
const Handle = { NODE: 0, FLAGS: 1, BITS: 2, WORDS: 4 } as const
const DIRECTORY = 1
const LOCKED = 2
const HOPELESS = 4
/** Words before the bytes of a name. */
const NAME_HEAD = 2
const LEAST_NAME_WORDS = 1 << 12
/** Of a process before this one. */
const OLDER_SESSION = 1

function nameWords(bytes: number): number {
  return NAME_HEAD + Math.ceil(bytes / 4)
}

export class SurvivingTables implements NodeStore, HandleStore {
  readonly #memory: StateMemory
  /** Byte where areas begin. */
  readonly #base: number
  readonly #nodes: NodeTable
  readonly #handles: HandleTable
  // of the area
  #at = 0
  #lengthBytes = 0
  #nodeCount = 0
  #handleCount = 0
  #nodesAt = 0
  #handlesAt = 0
  #namesAt = 0
  #nameWords = 0
  #usedNameWords = 0
  /** A name on its way. */
  readonly #name = new Uint8Array(1024)

  /** Fills the tables, which must be new, with what an earlier process has left. */
  constructor(memory: StateMemory, base: number, nodes: NodeTable, handles: HandleTable) {
    this.#memory = memory
    this.#base = base
    this.#nodes = nodes
    this.#handles = handles
    const page = memory.word(StateWord.AREA)
    if (page !== 0) {
      this.#take(page * STATE_PAGE)
      this.#loadNodes()
      this.#loadHandles()
    } else {
      this.#write(0)
    }
    nodes.store = this
    handles.store = this
    // of nodes that nobody needs any more, directories last
    for (let node = 1; node < nodes.capacity; node++) nodes.releaseIfUnused(node)
  }

  #take(at: number): void {
    const memory = this.#memory
    this.#at = at
    this.#nodeCount = memory.word(at / 4 + Area.NODES)
    this.#handleCount = memory.word(at / 4 + Area.HANDLES)
    this.#nameWords = memory.word(at / 4 + Area.NAME_WORDS)
    this.#lay()
  }

  /** Where the parts of an area are. */
  #lay(): void {
    this.#nodesAt = this.#at / 4 + Area.WORDS
    this.#handlesAt = this.#nodesAt + this.#nodeCount * Node.WORDS
    this.#namesAt = this.#handlesAt + this.#handleCount * Handle.WORDS
    this.#lengthBytes = Math.ceil(4 * (this.#namesAt + this.#nameWords - this.#at / 4) / STATE_PAGE) * STATE_PAGE
    // none is at 0, which stands for none
    this.#usedNameWords = 1
  }

  #node(node: number): number {
    return this.#nodesAt + node * Node.WORDS
  }

  #handle(handle: number): number {
    return this.#handlesAt + handle * Handle.WORDS
  }

  described(node: number): void {
    if (node >= this.#nodeCount) return this.#write(0)
    const stamp = this.#stamp(node, 1)
    // one that is found again is the same file
    if (this.#memory.word(this.#node(node) + Node.STAMP) === stamp) return
    this.#putNode(node)
    this.#memory.commit(this.#node(node) + Node.STAMP, stamp)
  }

  #putNode(node: number): void {
    const memory = this.#memory
    const nodes = this.#nodes
    const at = this.#node(node)
    memory.put(at + Node.TYPE, nodes.type[node]!)
    memory.put(at + Node.INO_LOW, nodes.inoLow[node]!)
    memory.put(at + Node.INO_HIGH, nodes.inoHigh[node]!)
    memory.put(at + Node.GENERATION_LOW, nodes.generationLow[node]!)
    memory.put(at + Node.GENERATION_HIGH, nodes.generationHigh[node]!)
    memory.putDouble((at + Node.LOOKUPS) / 2, nodes.lookups[node]!)
    memory.put(at + Node.PATH, 0)
  }

  #stamp(node: number, used: 0 | 1): number {
    return (2 * this.#nodes.reuse[node]! + used) >>> 0
  }

  counted(node: number): void {
    this.#memory.putDouble((this.#node(node) + Node.LOOKUPS) / 2, this.#nodes.lookups[node]!)
  }

  moved(node: number): void {
    if (this.#nodes.parent[node] === NONE) return this.#memory.commit(this.#node(node) + Node.PATH, 0)
    if (this.#hasRoom(nameWords(this.#nodes.nameBytes[node]!))) this.#memory.commit(this.#node(node) + Node.PATH, this.#putName(node))
    else this.#write(0)
  }

  #hasRoom(words: number): boolean {
    return this.#usedNameWords + words <= this.#nameWords
  }

  /** @returns where in the names it is */
  #putName(node: number): number {
    const memory = this.#memory
    const path = this.#usedNameWords
    const length = this.#nodes.copyName(node, this.#name, 0)
    memory.put(this.#namesAt + path, this.#nodes.parent[node]!)
    memory.put(this.#namesAt + path + 1, length)
    memory.putBytes(4 * (this.#namesAt + path + NAME_HEAD), this.#name, 0, length)
    this.#usedNameWords += nameWords(length)
    return path
  }

  freed(node: number): void {
    this.#memory.commit(this.#node(node) + Node.STAMP, this.#stamp(node, 0))
  }

  changed(handle: number): void {
    if (handle >= this.#handleCount) return this.#write(0)
    this.#putHandle(handle)
    this.#memory.commit(this.#handle(handle) + Handle.NODE, this.#handles.node[handle]! + 1)
  }

  #putHandle(handle: number): void {
    const { flags, directory, locked, session } = this.#handles
    const at = this.#handle(handle)
    this.#memory.put(at + Handle.FLAGS, flags[handle]!)
    this.#memory.put(at + Handle.BITS, (directory[handle] === 1 ? DIRECTORY : 0) | (locked[handle] === 1 ? LOCKED : 0) | (session[handle] === 0 ? HOPELESS : 0))
  }

  removed(handle: number): void {
    this.#memory.commit(this.#handle(handle) + Handle.NODE, 0)
  }

  /** Makes room for paths that are to change together. */
  prepare(names: number, nameBytes: number): void {
    const words = names * nameWords(nameBytes)
    if (!this.#hasRoom(words)) this.#write(words)
  }

  /** Writes another area, from the tables, which then counts. @param spare words of names beyond what there is */
  #write(spare: number): void {
    const memory = this.#memory
    const nodes = this.#nodes
    const handles = this.#handles
    const before = { at: this.#at, lengthBytes: this.#lengthBytes }
    let words = spare
    for (let node = 1; node < nodes.capacity; node++) if (nodes.isUsed(node) && nodes.parent[node] !== NONE) words += nameWords(nodes.nameBytes[node]!)
    this.#nodeCount = nodes.capacity
    this.#handleCount = handles.capacity
    this.#nameWords = LEAST_NAME_WORDS
    while (this.#nameWords < 2 * words) this.#nameWords *= 2
    this.#at = this.#base
    this.#lay()
    if (before.at !== 0 && this.#base + this.#lengthBytes > before.at) {
      this.#at = before.at + before.lengthBytes
      this.#lay()
    }
    memory.ensure(this.#at + this.#lengthBytes)
    memory.put(this.#at / 4 + Area.NODES, this.#nodeCount)
    memory.put(this.#at / 4 + Area.HANDLES, this.#handleCount)
    memory.put(this.#at / 4 + Area.NAME_WORDS, this.#nameWords)
    for (let node = 1; node < this.#nodeCount; node++) {
      const used = nodes.isUsed(node)
      if (used) this.#putNode(node)
      if (used && nodes.parent[node] !== NONE) memory.put(this.#node(node) + Node.PATH, this.#putName(node))
      memory.put(this.#node(node) + Node.STAMP, this.#stamp(node, used ? 1 : 0))
    }
    for (let handle = 1; handle < this.#handleCount; handle++) {
      const used = handles.node[handle] !== NONE
      if (used) this.#putHandle(handle)
      memory.put(this.#handle(handle) + Handle.NODE, used ? handles.node[handle]! + 1 : 0)
    }
    // what was to be committed to the old one is in the tables
    memory.forget(this.#base / 4)
    memory.commitNow(StateWord.AREA, this.#at / STATE_PAGE)
    if (before.at !== 0) memory.drop(before.at, before.lengthBytes)
  }

  #loadNodes(): void {
    const memory = this.#memory
    const nodes = this.#nodes
    nodes.reserve(this.#nodeCount)
    for (let node = 1; node < this.#nodeCount; node++) {
      const at = this.#node(node)
      const stamp = memory.word(at + Node.STAMP)
      nodes.restore(node, stamp >>> 1, (stamp & 1) === 1)
      if ((stamp & 1) === 0) continue
      nodes.type[node] = memory.word(at + Node.TYPE)
      nodes.inoLow[node] = memory.word(at + Node.INO_LOW)
      nodes.inoHigh[node] = memory.word(at + Node.INO_HIGH)
      nodes.generationLow[node] = memory.word(at + Node.GENERATION_LOW)
      nodes.generationHigh[node] = memory.word(at + Node.GENERATION_HIGH)
      nodes.lookups[node] = memory.double((at + Node.LOOKUPS) / 2)
    }
    for (let node = 1; node < this.#nodeCount; node++) this.#loadPath(node)
    nodes.restored()
  }

  #loadPath(node: number): void {
    const memory = this.#memory
    const path = memory.word(this.#node(node) + Node.PATH)
    if (path === 0 || !this.#nodes.isUsed(node)) return
    const parent = memory.word(this.#namesAt + path)
    const length = memory.word(this.#namesAt + path + 1)
    this.#usedNameWords = Math.max(this.#usedNameWords, path + nameWords(length))
    if (parent === ROOT || this.#nodes.isUsed(parent)) this.#nodes.setPath(node, parent, memory.bytes, 4 * (this.#namesAt + path + NAME_HEAD), length)
  }

  #loadHandles(): void {
    const memory = this.#memory
    const handles = this.#handles
    handles.reserve(this.#handleCount)
    for (let handle = 1; handle < this.#handleCount; handle++) {
      const at = this.#handle(handle)
      const node = memory.word(at + Handle.NODE) - 1
      if (node < 0 || (node !== ROOT && !this.#nodes.isUsed(node))) continue
      const bits = memory.word(at + Handle.BITS)
      const lost = (bits & (LOCKED | HOPELESS)) !== 0
      handles.restore(handle, node, lost ? 0 : OLDER_SESSION, memory.word(at + Handle.FLAGS), (bits & DIRECTORY) !== 0)
    }
    handles.restored()
  }
}
