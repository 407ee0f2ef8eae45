/**
 * The memory of a mount with a supervisor, whose process dies at a given store; and a program that
 * works on what is kept there, beside a model of what the kernel knows. Whoever opens the memory then
 * must find what the kernel was told, and of what was under way all or nothing.
 */
import { FuseAttr, FuseEntryOut } from '../../lib/fuse/abi.js'
import { HandleTable } from '../../lib/driver/handle-table.js'
import { KnownNodes } from '../../lib/driver/known-nodes.js'
import { ROOT } from '../../lib/driver/node-table.js'
import { Hand } from '../../lib/driver/requests-in-hand.js'
import { StateMemory } from '../../lib/driver/state-memory.js'
import { SurvivingState } from '../../lib/driver/surviving-state.js'
import type { SeededRandom } from './seeded-random.js'

export class Killed extends Error {}

export class MortalMemory extends StateMemory {
  /** Stores that were made. */
  stores = 0
  #last: number

  /** @param last the store at which the process dies: it is not made */
  constructor(bytes: Uint8Array, last = Infinity) {
    super(Uint8Array.from(bytes).buffer)
    this.#last = last
  }

  #live(): void {
    if (++this.stores > this.#last) throw new Killed()
  }

  override put(index: number, value: number): void {
    this.#live()
    super.put(index, value)
  }

  override putDouble(index: number, value: number): void {
    this.#live()
    super.putDouble(index, value)
  }

  override putBytes(at: number, from: Uint8Array, fromAt: number, length: number): void {
    for (let i = 0; i < length; i++) {
      this.#live()
      super.putBytes(at + i, from, fromAt + i, 1)
    }
  }

  protected override store(index: number, value: number): void {
    this.#live()
    super.store(index, value)
  }

  override ensure(lengthBytes: number): void {
    if (lengthBytes <= this.lengthBytes) return
    this.#live()
    const longer = new Uint8Array(lengthBytes)
    longer.set(this.bytes)
    this.use(longer.buffer)
  }

  override drop(at: number, lengthBytes: number): void {
    this.#live()
    super.drop(at, lengthBytes)
  }
}

const SLOTS = 8
const S_IFREG = 0o100000

interface KernelNode {
  ino: number
  lookups: number
  /** `directory number/name`, '' for none. */
  path: string
}

/** What the kernel has been told, by number. */
export class KernelModel {
  readonly nodes = new Map<number, KernelNode>()
  readonly handles = new Map<number, { node: number, flags: number, locked: boolean }>()
  /** Every number there ever was, with its file. */
  readonly everGiven = new Map<number, number>()

  copy(): KernelModel {
    const copy = new KernelModel()
    for (const [number, node] of this.nodes) copy.nodes.set(number, { ...node })
    for (const [handle, facts] of this.handles) copy.handles.set(handle, { ...facts })
    for (const [number, ino] of this.everGiven) copy.everGiven.set(number, ino)
    return copy
  }
}

/** One process: its tables, over the memory. */
export class Life {
  readonly known = new KnownNodes()
  readonly handles = new HandleTable()
  readonly state: SurvivingState

  constructor(memory: MortalMemory) {
    this.state = new SurvivingState(memory, SLOTS, this.known.table, this.handles)
  }

  /** @returns the kernel's number of a node */
  number(node: number): number {
    return node + 1 + this.known.table.reuse[node]! * 2 ** 32
  }

  node(number: number): number {
    return this.known.table.known(number % 2 ** 32, Math.floor(number / 2 ** 32))
  }

  path(node: number): string {
    const { table } = this.known
    if (table.parent[node] === -1) return ''
    const name = new Uint8Array(1024)
    const length = table.copyName(node, name, 0)
    return `${this.number(table.parent[node]!)}/${Buffer.from(name.subarray(0, length)).toString()}`
  }

  /** A LOOKUP is answered. @returns the number */
  entry(parent: number, name: string, ino: number): number {
    const view = new DataView(new ArrayBuffer(FuseEntryOut.SIZE))
    const bytes = Buffer.from(name)
    view.setUint32(FuseEntryOut.nodeid, ino, true)
    view.setUint32(FuseEntryOut.attr + FuseAttr.ino, ino, true)
    view.setUint32(FuseEntryOut.attr + FuseAttr.mode, S_IFREG, true)
    return this.number(this.known.entry(view, 0, this.node(parent), bytes, 0, bytes.length))
  }
}

const ROOT_NUMBER = 1

/** Does things at random, of which the kernel hears when they are done. */
export class Program {
  readonly life: Life
  readonly random: SeededRandom
  /** What the kernel knows. */
  kernel = new KernelModel()
  /** The kernel as it will be when what is under way is done. */
  next = this.kernel
  /** The request under way that is done as a whole, by its number; 0 for none. */
  request = 0
  #count = 0
  #requests = 0

  constructor(life: Life, random: SeededRandom) {
    this.life = life
    this.random = random
  }

  #some<K>(map: Map<K, unknown>): K | undefined {
    return [...map.keys()][this.random.below(Math.max(1, map.size))]
  }

  /** One step; the kernel of before stays as it was until it is done. */
  step(mostNodes: number): void {
    const next = this.next = this.kernel.copy()
    const what = this.random.below(12)
    if (what < 5 && next.nodes.size < mostNodes) this.#lookUp(next)
    else if (what < 6) this.#forget(next)
    else if (what < 8) this.#rename(next, false)
    else if (what < 9) this.#rename(next, true)
    else if (what < 10) this.#open(next)
    else if (what < 11) this.#close(next)
    else this.#lock(next)
    this.kernel = next
  }

  #lookUp(next: KernelModel): void {
    const ino = 100 + this.#count++
    const directory = this.random.below(3) === 0 ? this.#some(next.nodes) ?? ROOT_NUMBER : ROOT_NUMBER
    const name = `${'n'.repeat(1 + this.random.below(40))}${ino}`
    const number = this.life.entry(directory, name, ino)
    next.nodes.set(number, { ino, lookups: 1, path: `${directory}/${name}` })
    next.everGiven.set(number, ino)
  }

  #forget(next: KernelModel): void {
    const number = this.#some(next.nodes)
    if (number === undefined || [...next.handles.values()].some(({ node }) => node === number)) return
    const { lookups } = next.nodes.get(number)!
    // a directory is forgotten after what is in it
    if ([...next.nodes.values()].some(({ path }) => path.startsWith(`${number}/`))) return
    next.nodes.delete(number)
    this.life.known.forget(number % 2 ** 32, Math.floor(number / 2 ** 32), lookups)
  }

  /** A RENAME of one onto another, or their exchange, which the device has carried out. */
  #rename(next: KernelModel, exchange: boolean): void {
    const [from, to] = [this.#some(next.nodes), this.#some(next.nodes)]
    if (from === undefined || to === undefined || from === to) return
    const [a, b] = [next.nodes.get(from)!, next.nodes.get(to)!]
    const inside = (number: number): boolean => [...next.nodes.values()].some(({ path }) => path.startsWith(`${number}/`))
    if (a.path === '' || b.path === '' || inside(from) || inside(to)) return
    const { state, known: { table } } = this.life
    const slot = 1
    this.request = 2 + 2 * this.#requests++
    state.hands.take(slot, this.request, 0, 1000)
    state.hands.mark(slot, Hand.SENT)
    state.begin()
    const [nodeA, nodeB] = [this.life.node(from), this.life.node(to)]
    const place = (path: string): [number, Buffer] => [this.life.node(Number(path.split('/')[0])), Buffer.from(path.slice(path.indexOf('/') + 1))]
    const [old, target] = [place(a.path), place(b.path)]
    table.clearPath(nodeB)
    table.setPath(nodeA, target[0], target[1], 0, target[1].length)
    if (exchange) table.setPath(nodeB, old[0], old[1], 0, old[1].length)
    else table.releaseIfUnused(nodeB)
    const [before, after] = [a.path, b.path]
    a.path = after
    b.path = exchange ? before : ''
    state.hands.mark(slot, Hand.DONE)
    state.end()
    // the kernel has its answer
    this.kernel = next
    this.request = 0
    state.hands.over(slot)
  }

  #open(next: KernelModel): void {
    const node = this.#some(next.nodes)
    if (node === undefined) return
    const flags = this.random.below(3)
    next.handles.set(this.life.handles.add(this.life.node(node), 7, 0, 1, flags, false), { node, flags, locked: false })
  }

  #close(next: KernelModel): void {
    const handle = this.#some(next.handles)
    if (handle === undefined) return
    next.handles.delete(handle)
    this.life.handles.remove(handle)
  }

  #lock(next: KernelModel): void {
    const handle = this.#some(next.handles)
    if (handle === undefined) return
    next.handles.get(handle)!.locked = true
    this.life.handles.lock(handle)
  }
}

/** What a new process finds is what the kernel knows. @param request that was under way, or 0 @returns what is wrong */
export function compare(life: Life, before: KernelModel, after: KernelModel, request: number): string[] {
  const wrong: string[] = []
  const { table } = life.known
  // as a whole, or not at all
  const slot = 0
  const hand = request === 0 ? Hand.READ : life.state.hands.take(slot, request, 0x8000_0000, 0)
  const paths = hand === Hand.DONE ? [after] : request === 0 ? [before, after] : [before]
  for (const [number, { ino, lookups }] of before.nodes) {
    // it may be forgotten already
    if (!after.nodes.has(number)) continue
    const node = life.node(number)
    if (node < 0 || table.inoLow[node] !== ino || table.type[node] !== S_IFREG) {
      wrong.push(`${number} is ${node < 0 ? 'not known' : `inode ${table.inoLow[node]}`}, and was inode ${ino}`)
      continue
    }
    if (table.lookups[node]! < lookups || table.lookups[node]! > lookups + 1) wrong.push(`${number} has ${table.lookups[node]} lookups instead of ${lookups}`)
    if (!paths.some(model => model.nodes.get(number)!.path === life.path(node))) wrong.push(`${number} is at "${life.path(node)}" instead of ${paths.map(model => `"${model.nodes.get(number)!.path}"`).join(' or ')} (${hand})`)
  }
  for (const [number, ino] of after.everGiven) {
    const node = life.node(number)
    if (node > ROOT && table.inoLow[node] !== ino) wrong.push(`${number} was inode ${ino} and means ${table.inoLow[node]}`)
  }
  for (const [handle, { node, flags, locked }] of before.handles) {
    if (!after.handles.has(handle)) continue
    if (life.handles.known(handle, 0) !== handle || life.handles.node[handle] !== life.node(node) || life.handles.flags[handle] !== flags) wrong.push(`handle ${handle}`)
    if (locked && life.handles.session[handle] !== 0) wrong.push(`handle ${handle} has a lock`)
  }
  return wrong
}
