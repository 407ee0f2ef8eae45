/** The file system of the examples with promises: every method answers in a later turn of the event loop. */
import { setImmediate as turn } from 'node:timers/promises'
import MemFs from '../../examples/memfs.js'
import { FileSystem, type Caller, type DirectoryEntry } from '../../lib/index.js'

type Method = (...args: unknown[]) => unknown

export default class AsyncMemFs extends FileSystem {
  override readonly timeouts = { entry: 1, attributes: 1, negative: 0 }
  readonly inner = new MemFs() as MemFs & Record<string, Method>

  override forget(node: number): void {
    this.inner.forget(node)
  }

  override async * readdir(node: number, handle: number, offset: number, _plus: boolean, _caller: Caller): AsyncIterable<DirectoryEntry> {
    for (const entry of this.inner.readdir(node, handle, offset)) {
      await turn()
      yield entry
    }
  }
}

for (const name of Object.getOwnPropertyNames(MemFs.prototype)) {
  if (name === 'constructor' || Object.hasOwn(AsyncMemFs.prototype, name)) continue
  Object.defineProperty(AsyncMemFs.prototype, name, {
    value: async function later(this: AsyncMemFs, ...args: unknown[]): Promise<unknown> {
      await turn()
      return this.inner[name]!(...args)
    },
  })
}
