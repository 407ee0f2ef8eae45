/**
 * The open files and directories of a mount that outlives its backend: the kernel gets numbers from 1
 * on, each stands for a handle of the present session and for how to open it again in the next one.
 * Adding and finding allocate nothing, but when the table doubles.
 */
import { grown } from './grown.js'

const FREE = -1

/** Where changes of the table are kept, for a process after this one. */
export interface HandleStore {
  /** A handle is new, or something of it is. */
  changed(handle: number): void
  removed(handle: number): void
}

export class HandleTable {
  store: HandleStore | null = null
  /** The node that it is open on, −1 for a free entry. */
  node: Int32Array
  /** The handle at the backend, in the session `session`; 0 when it cannot be opened again. */
  low: Uint32Array
  high: Uint32Array
  session: Int32Array
  /** Flags of open(2). */
  flags: Uint32Array
  directory: Uint8Array
  /** Somebody has a lock by it, which is lost with the session. */
  locked: Uint8Array
  count = 0
  #next: Int32Array
  #free = FREE

  constructor(capacity = 64) {
    this.node = new Int32Array(capacity).fill(FREE)
    this.low = new Uint32Array(capacity)
    this.high = new Uint32Array(capacity)
    this.session = new Int32Array(capacity)
    this.flags = new Uint32Array(capacity)
    this.directory = new Uint8Array(capacity)
    this.locked = new Uint8Array(capacity)
    this.#next = new Int32Array(capacity)
    this.#link(1, capacity)
  }

  #link(from: number, to: number): void {
    for (let i = to - 1; i >= from; i--) {
      this.#next[i] = this.#free
      this.#free = i
    }
  }

  add(node: number, low: number, high: number, session: number, flags: number, directory: boolean): number {
    if (this.#free === FREE) this.#grow()
    const handle = this.#free
    this.#free = this.#next[handle]!
    this.node[handle] = node
    this.low[handle] = low
    this.high[handle] = high
    this.session[handle] = session
    this.flags[handle] = flags
    this.directory[handle] = directory ? 1 : 0
    this.locked[handle] = 0
    this.count++
    if (this.store !== null) this.store.changed(handle)
    return handle
  }

  /** The handle with a number of the kernel's, or −1. */
  known(numberLow: number, numberHigh: number): number {
    return numberHigh === 0 && numberLow > 0 && numberLow < this.node.length && this.node[numberLow] !== FREE ? numberLow : FREE
  }

  remove(handle: number): void {
    if (this.node[handle] === FREE) return
    this.node[handle] = FREE
    this.#next[handle] = this.#free
    this.#free = handle
    this.count--
    if (this.store !== null) this.store.removed(handle)
  }

  /** Somebody has a lock by it. */
  lock(handle: number): void {
    this.locked[handle] = 1
    if (this.store !== null) this.store.changed(handle)
  }

  /** It cannot be opened again: whoever has it gets ESTALE. */
  giveUp(handle: number): void {
    this.session[handle] = 0
    if (this.store !== null) this.store.changed(handle)
  }

  get capacity(): number {
    return this.node.length
  }

  /** Makes room for so many, in a table that is to be filled. */
  reserve(capacity: number): void {
    while (this.node.length < capacity) this.#grow()
  }

  /** A handle that an earlier process has given out. `restored` ends it. @param session an old one, or 0 when it cannot be opened again */
  restore(handle: number, node: number, session: number, flags: number, directory: boolean): void {
    this.node[handle] = node
    this.session[handle] = session
    this.flags[handle] = flags
    this.directory[handle] = directory ? 1 : 0
    this.count++
  }

  restored(): void {
    this.#free = FREE
    for (let handle = this.node.length - 1; handle > 0; handle--) if (this.node[handle] === FREE) this.#link(handle, handle + 1)
  }

  /** The session ends: a file with a lock cannot be had again as it was. */
  newSession(): void {
    for (let handle = 0; handle < this.node.length; handle++) if (this.locked[handle] === 1) this.session[handle] = 0
  }

  #grow(): void {
    const from = this.node.length
    const to = 2 * from
    const node = new Int32Array(to).fill(FREE)
    node.set(this.node)
    this.node = node
    this.low = grown(to, this.low)
    this.high = grown(to, this.high)
    this.session = grown(to, this.session)
    this.flags = grown(to, this.flags)
    this.directory = grown(to, this.directory)
    this.locked = grown(to, this.locked)
    this.#next = grown(to, this.#next)
    this.#link(from, to)
  }
}
