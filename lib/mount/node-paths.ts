/**
 * Which path a node has, learned from the requests that name it. Who watches from the beginning
 * knows all of them; who comes later learns a path when the kernel looks it up again.
 */
import type { RequestRecord } from '../driver/observation.js'
import { FUSE_ROOT_ID } from '../fuse/abi.js'
import { Op } from '../fuse/opcodes.js'
import { RENAME_EXCHANGE } from '../sys/dir.js'

interface Node {
  parent: number
  name: string
  /** Lookups that the kernel has and has not given back, as far as they were seen. */
  lookups: number
}

/** More directories are above each other in no path that the kernel takes. */
const MAX_DEPTH = 4096

export class NodePaths {
  readonly #nodes = new Map<number, Node>()
  /** By `PARENT/NAME`. */
  readonly #entries = new Map<string, number>()

  /** The path of a node from the root of the mount; `?NODE` stands for what is not known. */
  path(node: number): string {
    const names: string[] = []
    for (let depth = 0; node !== FUSE_ROOT_ID && depth < MAX_DEPTH; depth++) {
      const known = this.#nodes.get(node)
      if (!known) return [`?${node}`, ...names.reverse()].join('/')
      names.push(known.name)
      node = known.parent
    }
    return '/' + names.reverse().join('/')
  }

  /** The path of a name in a node. */
  join(node: number, name: string): string {
    const path = this.path(node)
    return path === '/' ? `/${name}` : `${path}/${name}`
  }

  /** How many nodes are known, for a test that they are forgotten. */
  get size(): number {
    return this.#nodes.size
  }

  /** Takes what a request that succeeded says of names. */
  learn(record: RequestRecord): void {
    const { opcode, node, names = [], child, children, forgotten, other } = record
    if (forgotten) return forgotten.forEach(([gone, count]) => this.#forget(gone, count))
    if (children) return children.forEach(([name, found]) => this.#found(node, name, found))
    switch (opcode) {
      case Op.UNLINK: case Op.RMDIR: this.#entries.delete(`${node}/${names[0]}`); break
      case Op.RENAME: case Op.RENAME2:
        if (other !== undefined && names.length === 2) this.#rename(node, names[0]!, other, names[1]!, ((record.flags ?? 0) & RENAME_EXCHANGE) !== 0)
        break
      default:
        // 0 is a negative entry
        if (child !== undefined && child !== 0 && names[0] !== undefined) this.#found(node, names[0], child)
    }
  }

  #found(parent: number, name: string, node: number): void {
    const known = this.#nodes.get(node)
    if (known) {
      known.lookups++
      if (known.parent === parent && known.name === name) return
      // one of its names is as good as the other, and this one is good now
      this.#unname(node, known)
      known.parent = parent
      known.name = name
    } else {
      this.#nodes.set(node, { parent, name, lookups: 1 })
    }
    this.#entries.set(`${parent}/${name}`, node)
  }

  #unname(node: number, { parent, name }: Node): void {
    if (this.#entries.get(`${parent}/${name}`) === node) this.#entries.delete(`${parent}/${name}`)
  }

  #forget(node: number, count: number): void {
    const known = this.#nodes.get(node)
    if (!known || (known.lookups -= count) > 0) return
    this.#unname(node, known)
    this.#nodes.delete(node)
  }

  #rename(from: number, oldName: string, to: number, newName: string, exchange: boolean): void {
    const moved = this.#entries.get(`${from}/${oldName}`)
    const other = this.#entries.get(`${to}/${newName}`)
    this.#entries.delete(`${from}/${oldName}`)
    this.#entries.delete(`${to}/${newName}`)
    if (moved !== undefined) this.#place(moved, to, newName)
    if (exchange && other !== undefined) this.#place(other, from, oldName)
  }

  #place(node: number, parent: number, name: string): void {
    Object.assign(this.#nodes.get(node)!, { parent, name })
    this.#entries.set(`${parent}/${name}`, node)
  }
}
