/** A file system whose files behave as they are called, for tests of what becomes of that. */
import { setTimeout as sleep } from 'node:timers/promises'
import { FileSystem, FuseError, type Answer, type Attributes, type Caller, type DirectoryEntry, type Entry, type ErrnoName, type Opened, type Statistics } from '../../lib/index.js'

/** Words of the counters that it shares with its test. */
export const Mood = { ABORTED: 0, WAITING: 1, FORGOTTEN: 2, DESTROYED: 3, WORDS: 4 } as const

const FILE: Attributes = { mode: 0o100644, size: 100 }
const NAMES = ['fine', 'EBUSY', 'ELOOP', 'oops', 'senseless', 'promise', 'waits', 'deaf', 'crash']

export default class MoodyFs extends FileSystem {
  override readonly timeouts = { entry: 0, attributes: 0, negative: 0 }
  readonly #counters: Int32Array

  constructor({ counters }: { counters: SharedArrayBuffer }) {
    super()
    this.#counters = new Int32Array(counters)
  }

  override lookup(_parent: number, name: string): Entry {
    const i = NAMES.indexOf(name)
    if (i < 0) throw new FuseError('ENOENT')
    return { node: i + 2, attributes: FILE }
  }

  override getattr(node: number): Attributes {
    return node === 1 ? { mode: 0o040755, nlink: 2 } : FILE
  }

  override forget(): void {
    Atomics.add(this.#counters, Mood.FORGOTTEN, 1)
  }

  override destroy(): void {
    Atomics.add(this.#counters, Mood.DESTROYED, 1)
  }

  /** Without a page cache: a read(2) is a READ, which ends with it. */
  override open(): Opened {
    return { directIo: true }
  }

  override statfs(): Statistics {
    return { blocks: 0, bfree: 0, bavail: 0 }
  }

  override readdir(): Iterable<DirectoryEntry> {
    return []
  }

  override read(node: number, _handle: number, offset: number, size: number, _buffer: Buffer, caller: Caller): Answer<Uint8Array | number> {
    if (offset > 0) return 0
    const name = NAMES[node - 2]!
    switch (name) {
      case 'fine': return Buffer.from('fine')
      case 'oops': return (undefined as unknown as { length: number }).length
      case 'senseless': return size + 1
      case 'promise': return Promise.resolve(Buffer.from('kept'))
      case 'waits': return this.#wait(caller.signal)
      case 'deaf': return sleep(60_000).then(() => 0)
      case 'crash': queueMicrotask(() => { throw new Error('out of mind') })
        return new Promise(() => {})
      default: throw new FuseError(name as ErrnoName)
    }
  }

  async #wait(signal: AbortSignal): Promise<number> {
    Atomics.add(this.#counters, Mood.WAITING, 1)
    signal.addEventListener('abort', () => Atomics.add(this.#counters, Mood.ABORTED, 1))
    await sleep(60_000, undefined, { signal })
    return 0
  }
}
