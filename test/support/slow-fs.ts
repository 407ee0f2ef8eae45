/** A file system on which looking a name up takes as long as the name says: `300 ms`, or no time. */
import { setTimeout as sleep } from 'node:timers/promises'
import { FileSystem, type Attributes, type Entry, type Statistics } from '../../lib/index.js'

const FILE: Attributes = { mode: 0o100644, size: 0 }

export default class SlowFs extends FileSystem {
  override readonly timeouts = { entry: 0, attributes: 0, negative: 0 }
  readonly #nodes = new Map<string, number>()

  override async lookup(_parent: number, name: string): Promise<Entry> {
    const ms = Number(/^(\d+) ms/.exec(name)?.[1] ?? 0)
    if (ms > 0) await sleep(ms)
    const node = this.#nodes.get(name) ?? this.#nodes.size + 2
    this.#nodes.set(name, node)
    return { node, attributes: FILE }
  }

  override getattr(node: number): Attributes {
    return node === 1 ? { mode: 0o040755, nlink: 2 } : FILE
  }

  override statfs(): Statistics {
    return { blocks: 0, bfree: 0, bavail: 0 }
  }
}
