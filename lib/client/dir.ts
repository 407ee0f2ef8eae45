/** fs.Dir over an open directory of a device. */
import { S_IFDIR } from '../sys/file.js'
import type { EncodingOption } from './arguments.js'
import { encodeName } from './arguments.js'
import { Dirent } from './dirent.js'
import type { DirectoryEntry, DirectoryReader } from './directory-reader.js'
import { fsError, nodeError, unwrap } from './fs-error.js'
import type { OpenFile } from './open-file.js'
import type { Tree } from './tree.js'
import { typeOf } from './attributes.js'

/** Opens a directory for a `Dir`. */
export type OpenReader = (path: string) => Promise<{ file: OpenFile, reader: DirectoryReader } | number>

export class Dir {
  /** As it was given. */
  readonly path: string
  readonly #tree: Tree
  readonly #encoding: EncodingOption
  readonly #openReader: OpenReader | undefined
  /** Directories below that are still to be read. */
  readonly #below: string[] = []
  #current: { path: string, file: OpenFile, reader: DirectoryReader } | undefined
  #entries: DirectoryEntry[] = []
  #next = 0
  #turn: Promise<unknown> = Promise.resolve()
  #closed = false

  /** @param openReader of the directories below, when those are read too @internal */
  constructor(tree: Tree, path: string, file: OpenFile, reader: DirectoryReader, encoding: EncodingOption, openReader?: OpenReader) {
    this.path = path
    this.#tree = tree
    this.#encoding = encoding
    this.#openReader = openReader
    this.#current = { path, file, reader }
  }

  /** The next entry; null at the end. @throws FsError */
  read(): Promise<Dirent | null> {
    const turn = this.#turn.then(() => this.#read())
    this.#turn = turn.catch(() => {})
    return turn
  }

  async #read(): Promise<Dirent | null> {
    if (this.#closed) throw closedError()
    for (;;) {
      while (this.#next >= this.#entries.length) {
        if (!this.#current) return null
        this.#entries = unwrap<DirectoryEntry[]>(await this.#current.reader.next(), 'scandir', this.#current.path)
        this.#next = 0
        if (this.#entries.length === 0) await this.#goBelow()
      }
      const entry = this.#entries[this.#next++]!
      if (entry.name === '.' || entry.name === '..') continue
      return await this.#dirent(entry)
    }
  }

  async #dirent(entry: DirectoryEntry): Promise<Dirent> {
    const { path } = this.#current!
    const type = await entryType(this.#tree, path, entry)
    if (this.#openReader && type === S_IFDIR) this.#below.push(join(path, entry.name))
    return new Dirent(encodeName(entry.name, this.#encoding), type, path)
  }

  /** On to the next directory below. */
  async #goBelow(): Promise<void> {
    this.#current!.file.drop()
    this.#current = undefined
    const path = this.#below.shift()
    if (path === undefined) return
    const opened = unwrap(await this.#openReader!(path), 'opendir', path)
    this.#current = { path, ...opened }
  }

  /** @throws ERR_DIR_CLOSED when it is closed already */
  async close(): Promise<void> {
    if (this.#closed) throw closedError()
    this.#closed = true
    await this.#turn
    this.#current?.file.drop()
    this.#current = undefined
  }

  /** Entries to the end, or until the loop is left; then it is closed. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Dirent, void> {
    try {
      for (let entry = await this.read(); entry !== null; entry = await this.read()) yield entry
    } finally {
      if (!this.#closed) await this.close()
    }
  }

  entries(): AsyncGenerator<Dirent, void> {
    return this[Symbol.asyncIterator]()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#closed) await this.close()
  }
}

function closedError(): Error {
  return nodeError('ERR_DIR_CLOSED', 'Directory handle was closed')
}

/** A name in a directory, as a path. */
export function join(directory: string, name: string): string {
  return directory.endsWith('/') ? directory + name : `${directory}/${name}`
}

/** Type of an entry, asked for where the device left it out. */
export async function entryType(tree: Tree, directory: string, entry: DirectoryEntry): Promise<number> {
  if (entry.type !== 0) return entry.type
  const path = join(directory, entry.name)
  const attributes = await tree.stat(path, false)
  if (typeof attributes === 'number') throw fsError(attributes, 'lstat', path)
  return typeOf(attributes)
}
