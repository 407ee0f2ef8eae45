/** cp of node:fs/promises: files, links and trees of them, within one tree. */
import { posix } from 'node:path'
import type { BigIntStats, Stats } from 'node:fs'
import { errno } from '../errors.js'
import { bytesToString, stringToBytes } from '../device/byte-string.js'
import type { ConnectedFs } from './connected-fs.js'
import { systemError } from './fs-error.js'

export interface CpOptions {
  /** Copy what links point to. */
  dereference?: boolean
  /** With `force: false`: fail when the destination is there. */
  errorOnExist?: boolean
  /** Which to copy: source and destination. */
  filter?: (source: string, destination: string) => boolean | Promise<boolean>
  /** Replace files that are there. Default true. */
  force?: boolean
  /** Of copyFile. */
  mode?: number
  preserveTimestamps?: boolean
  recursive?: boolean
  /** Take links as they are, instead of making them absolute. */
  verbatimSymlinks?: boolean
}

type Defined = Required<Omit<CpOptions, 'filter'>> & Pick<CpOptions, 'filter'>
const OWNER_WRITES = 0o200

/** @throws FsError; ERR_FS_CP_* and ERR_FS_EISDIR as node:fs does */
export async function copyTree(fs: ConnectedFs, source: string, destination: string, options: CpOptions): Promise<void> {
  const { force = true, dereference = false, errorOnExist = false, mode = 0, preserveTimestamps = false, recursive = false, verbatimSymlinks = false } = options
  const copy = new TreeCopy(fs, { force, dereference, errorOnExist, mode, preserveTimestamps, recursive, verbatimSymlinks, ...(options.filter ? { filter: options.filter } : {}) })
  await copy.run(source, destination)
}

function wrong(code: string, message: string, path: string, error: number = errno.EINVAL): Error {
  return systemError(code, message, error, 'cp', path)
}

/** A path for the calls: bytes that are no UTF-8 go as bytes. */
function exact(path: string): string | Buffer {
  return /[\ud800-\udfff]/u.test(path) ? stringToBytes(path) : path
}

const absolute = (path: string): string => posix.resolve('/', path)

/** By their text. */
function isInside(outer: string, inner: string): boolean {
  const [from, to] = [absolute(outer), absolute(inner)]
  return from === to || to.startsWith(from === '/' ? '/' : `${from}/`)
}

function same(a: BigIntStats, b: BigIntStats): boolean {
  return a.ino === b.ino && a.dev === b.dev
}

class TreeCopy {
  readonly #fs: ConnectedFs
  readonly #options: Defined

  constructor(fs: ConnectedFs, options: Defined) {
    this.#fs = fs
    this.#options = options
  }

  async run(source: string, destination: string): Promise<void> {
    const checked = await this.#check(source, destination)
    if (!checked) return
    await this.#checkParents(source, checked.from, destination)
    const parent = posix.dirname(destination)
    if (!await this.#exists(parent)) await this.#fs.mkdir(exact(parent), { recursive: true })
    await this.#copy(checked.to !== null, source, destination)
  }

  async #stat(path: string): Promise<BigIntStats> {
    return this.#options.dereference ? this.#fs.stat(exact(path), { bigint: true }) : this.#fs.lstat(exact(path), { bigint: true })
  }

  async #statOrNone(path: string): Promise<BigIntStats | null> {
    return this.#stat(path).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return null
      throw error
    })
  }

  async #exists(path: string): Promise<boolean> {
    return this.#fs.stat(exact(path)).then(() => true, (error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return false
      throw error
    })
  }

  /** Whether the one may be copied to the other. @returns undefined when it is filtered out */
  async #check(source: string, destination: string): Promise<{ from: BigIntStats, to: BigIntStats | null } | undefined> {
    if (this.#options.filter && !await this.#options.filter(source, destination)) return undefined
    const [from, to] = await Promise.all([this.#stat(source), this.#statOrNone(destination)])
    if (to) {
      if (same(from, to)) throw wrong('ERR_FS_CP_EINVAL', 'Invalid src or dest: src and dest cannot be the same', destination)
      if (from.isDirectory() && !to.isDirectory()) {
        throw wrong('ERR_FS_CP_DIR_TO_NON_DIR', `Cannot overwrite non-directory with directory: ${source}`, destination, errno.EISDIR)
      }
      if (!from.isDirectory() && to.isDirectory()) {
        throw wrong('ERR_FS_CP_NON_DIR_TO_DIR', `Cannot overwrite directory with non-directory: ${source}`, destination, errno.ENOTDIR)
      }
    }
    if (from.isDirectory() && isInside(source, destination)) throw this.#intoItself(source, destination)
    return { from, to }
  }

  #intoItself(source: string, destination: string): Error {
    return wrong('ERR_FS_CP_EINVAL', `Invalid src or dest: cannot copy ${source} to a subdirectory of self`, destination)
  }

  /** A directory must not be copied below itself, by whatever name it goes there. */
  async #checkParents(source: string, from: BigIntStats, destination: string): Promise<void> {
    const top = absolute(posix.dirname(source))
    for (let parent = absolute(posix.dirname(destination)); parent !== top && parent !== '/'; parent = posix.dirname(parent)) {
      const stats = await this.#fs.stat(exact(parent), { bigint: true }).catch((error: NodeJS.ErrnoException) => {
        if (error.code === 'ENOENT') return undefined
        throw error
      })
      if (!stats) return
      if (same(from, stats)) throw this.#intoItself(source, destination)
    }
  }

  async #copy(exists: boolean, source: string, destination: string): Promise<void> {
    const from = this.#options.dereference ? await this.#fs.stat(exact(source)) : await this.#fs.lstat(exact(source))
    if (from.isDirectory()) {
      if (!this.#options.recursive) throw wrong('ERR_FS_EISDIR', `Recursive option not enabled, cannot copy a directory: ${source}`, source, errno.EISDIR)
      return this.#copyDirectory(from, exists, source, destination)
    }
    if (from.isSymbolicLink()) return this.#copyLink(exists, source, destination)
    if (from.isSocket()) throw wrong('ERR_FS_CP_SOCKET', 'Cannot copy a socket file', destination)
    if (from.isFIFO()) throw wrong('ERR_FS_CP_FIFO_PIPE', 'Cannot copy a FIFO pipe', destination)
    await this.#copyFile(from, exists, source, destination)
  }

  async #copyFile(from: Stats, exists: boolean, source: string, destination: string): Promise<void> {
    const { force, errorOnExist, mode, preserveTimestamps } = this.#options
    if (exists) {
      if (!force) {
        if (errorOnExist) throw wrong('ERR_FS_CP_EEXIST', 'Target already exists', destination, errno.EEXIST)
        return
      }
      await this.#fs.unlink(exact(destination))
    }
    await this.#fs.copyFile(exact(source), exact(destination), mode)
    if (preserveTimestamps) {
      if ((from.mode & OWNER_WRITES) === 0) await this.#fs.chmod(exact(destination), (from.mode & 0o7777) | OWNER_WRITES)
      // reading it has changed its times
      const { atime, mtime } = await this.#fs.stat(exact(source))
      await this.#fs.utimes(exact(destination), atime, mtime)
    }
    await this.#fs.chmod(exact(destination), from.mode & 0o7777)
  }

  async #copyDirectory(from: Stats, exists: boolean, source: string, destination: string): Promise<void> {
    if (!exists) await this.#fs.mkdir(exact(destination))
    for await (const entry of await this.#fs.opendir(exact(source), { encoding: 'buffer' as BufferEncoding })) {
      const name = bytesToString(entry.name as unknown as Buffer)
      const [below, target] = [posix.join(source, name), posix.join(destination, name)]
      const checked = await this.#check(below, target)
      if (checked) await this.#copy(checked.to !== null, below, target)
    }
    if (!exists) await this.#fs.chmod(exact(destination), from.mode & 0o7777)
  }

  async #readlink(path: string): Promise<string> {
    return bytesToString(await this.#fs.readlink(exact(path), 'buffer'))
  }

  async #copyLink(exists: boolean, source: string, destination: string): Promise<void> {
    let target = await this.#readlink(source)
    if (!this.#options.verbatimSymlinks && !posix.isAbsolute(target)) target = posix.resolve('/', posix.dirname(source), target)
    if (exists) {
      const old = await this.#readlink(destination).catch((error: NodeJS.ErrnoException) => {
        // no link: making one says EEXIST
        if (error.code === 'EINVAL') return undefined
        throw error
      })
      if (old !== undefined) await this.#replaceLink(source, target, destination, posix.resolve('/', posix.dirname(destination), old))
    }
    await this.#fs.symlink(exact(target), exact(destination))
  }

  /** Removes the link at the destination, unless one of the two leads into the other. */
  async #replaceLink(source: string, target: string, destination: string, old: string): Promise<void> {
    if (isInside(target, old)) throw this.#intoItself(target, destination)
    if ((await this.#fs.stat(exact(source))).isDirectory() && isInside(old, target)) {
      throw wrong('ERR_FS_CP_SYMLINK_TO_SUBDIRECTORY', `Cannot copy symlink to subdirectory of self: cannot overwrite ${old} with ${target}`, destination)
    }
    await this.#fs.unlink(exact(destination))
  }
}
