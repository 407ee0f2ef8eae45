/** Finds where the notes of two sides differ, and whole trees. */
import * as f from '../../lib/sys/file.js'
import { errnoName } from '../../lib/errors.js'
import { result } from '../../lib/sys/libc.js'
import { calls } from './calls.js'
import { list, type Entry } from './listing.js'
import { agree, type Context } from './rules.js'
import { cString, DATA_BYTES, type Side, type Value } from './side.js'
import { noteStat, noteXattrs, type Stat } from './stat.js'

const O_NOATIME = 0o1000000

export interface Mismatch {
  /** The label of what differs. */
  what: string
  plain: string
  mount: string
  /** In a comparison of trees. */
  path?: string
}

export function show(label: string, value: Value | undefined): string {
  if (value === undefined) return 'nothing'
  if (typeof value === 'bigint') return `${(Number(value / 1000n) / 1e6).toFixed(6)} s`
  if (typeof value === 'string') return JSON.stringify(value.length > 400 ? `${value.slice(0, 400)}…` : value)
  if (value < 0) return `−${errnoName(-value)}`
  return label === 'mode' || label === 'flags' ? `0o${value.toString(8)}` : String(value)
}

/** The first difference of what two sides have noted and read. */
export function compareNotes(plain: Side, mount: Side, context: Context): Mismatch | undefined {
  const count = Math.max(plain.labels.length, mount.labels.length)
  for (let i = 0; i < count; i++) {
    const label = plain.labels[i] ?? mount.labels[i]!
    if (plain.labels[i] === mount.labels[i] && agree(label, plain.values[i]!, mount.values[i]!, context)) continue
    return { what: label, plain: show(label, plain.values[i]), mount: show(label, mount.values[i]) }
  }
  return compareData(plain, mount)
}

function compareData(plain: Side, mount: Side): Mismatch | undefined {
  if (plain.dataBytes !== mount.dataBytes) return { what: 'bytes read', plain: String(plain.dataBytes), mount: String(mount.dataBytes) }
  const a = plain.data.bytes.subarray(0, plain.dataBytes)
  const b = mount.data.bytes.subarray(0, mount.dataBytes)
  if (Buffer.compare(a, b) === 0) return undefined
  const at = a.findIndex((byte, i) => byte !== b[i])
  let end = at
  for (let i = at; i < a.length; i++) if (a[i] !== b[i]) end = i + 1
  const hex = (bytes: Uint8Array): string => `bytes ${at}–${end} of ${a.length}: ${Buffer.from(bytes.subarray(at, at + 16)).toString('hex')}…`
  return { what: 'data', plain: hex(a), mount: hex(b) }
}

/** A walk through both trees at once. Owns two descriptors per level. */
export class TreeComparison {
  readonly #plain: Side
  readonly #mount: Side
  readonly #context: Context
  /** Inodes seen, by the first path they had: hard links must be the same ones on both sides. */
  readonly #plainInodes = new Map<bigint, string>()
  readonly #mountInodes = new Map<bigint, string>()
  readonly dirs: string[] = ['.']
  readonly files: string[] = []

  constructor(plain: Side, mount: Side, context: Context) {
    this.#plain = plain
    this.#mount = mount
    this.#context = context
  }

  /** @returns the first difference */
  run(): Mismatch | undefined {
    return this.#attributes(this.#plain.root, this.#mount.root, '.', '.', undefined, undefined) ?? this.#directory(this.#plain.root, this.#mount.root, '.')
  }

  #open(side: Side, dirFd: number, name: string, flags: number): number {
    side.clear()
    const fd = result(calls.openat(dirFd, cString(name), flags | f.O_CLOEXEC | f.O_NOFOLLOW | O_NOATIME | f.O_NONBLOCK, 0))
    side.note('open', Math.min(fd, 0))
    return fd
  }

  /** Opens the same name on both sides. @returns what a callback finds, or the difference of opening */
  #opened(plainDir: number, mountDir: number, name: string, flags: number, path: string, use: (plainFd: number, mountFd: number) => Mismatch | undefined): Mismatch | undefined {
    const plainFd = this.#open(this.#plain, plainDir, name, flags)
    const mountFd = this.#open(this.#mount, mountDir, name, flags)
    try {
      return this.#notes(path) ?? (plainFd >= 0 ? use(plainFd, mountFd) : undefined)
    } finally {
      if (plainFd >= 0) calls.close(plainFd)
      if (mountFd >= 0) calls.close(mountFd)
    }
  }

  #notes(path: string): Mismatch | undefined {
    const mismatch = compareNotes(this.#plain, this.#mount, this.#context)
    return mismatch && { ...mismatch, path }
  }

  #directory(plainDir: number, mountDir: number, path: string): Mismatch | undefined {
    return this.#opened(plainDir, mountDir, path === '.' ? '.' : path.slice(path.lastIndexOf('/') + 1), f.O_RDONLY | f.O_DIRECTORY, path, (plainFd, mountFd) => {
      const plainEntries = sorted(list(plainFd))
      const mountEntries = sorted(list(mountFd))
      const names = (entries: Entry[]): string => entries.map(({ name, type }) => `${name}:${type}`).join(' ')
      if (names(plainEntries) !== names(mountEntries)) return { what: 'entries', plain: show('', names(plainEntries)), mount: show('', names(mountEntries)), path }
      for (let i = 0; i < plainEntries.length; i++) {
        const { name } = plainEntries[i]!
        const mismatch = this.#entry(plainFd, mountFd, plainEntries[i]!, mountEntries[i]!, path === '.' ? name : `${path}/${name}`)
        if (mismatch) return mismatch
      }
      return undefined
    })
  }

  #entry(plainFd: number, mountFd: number, plainEntry: Entry, mountEntry: Entry, path: string): Mismatch | undefined {
    const { name } = plainEntry
    const mismatch = this.#attributes(plainFd, mountFd, name, path, plainEntry, mountEntry)
    if (mismatch) return mismatch
    if (plainEntry.type === 4) {
      this.dirs.push(path)
      return this.#directory(plainFd, mountFd, path)
    }
    this.files.push(path)
    return plainEntry.type === 8 ? this.#content(plainFd, mountFd, name, path) : undefined
  }

  #attributes(plainDir: number, mountDir: number, name: string, path: string, plainEntry: Entry | undefined, mountEntry: Entry | undefined): Mismatch | undefined {
    this.#inode(this.#plain, plainDir, name, path, plainEntry, this.#plainInodes)
    this.#inode(this.#mount, mountDir, name, path, mountEntry, this.#mountInodes)
    return this.#notes(path)
  }

  #inode(side: Side, dirFd: number, name: string, path: string, entry: Entry | undefined, seen: Map<bigint, string>): void {
    side.clear()
    const stat = noteStat(side, dirFd, cString(name), f.AT_SYMLINK_NOFOLLOW, f.STATX_BASIC_STATS)
    if (typeof stat === 'number') return
    this.#identity(side, stat, path, entry, seen)
    noteXattrs(side, `/proc/self/fd/${dirFd}/${name}`)
    if (stat.type === f.S_IFLNK) side.dataBytes = Math.max(0, side.ret(calls.readlinkat(dirFd, cString(name), side.data.address, 4096)))
  }

  #identity(side: Side, stat: Stat, path: string, entry: Entry | undefined, seen: Map<bigint, string>): void {
    const first = seen.get(stat.ino)
    if (first === undefined) seen.set(stat.ino, path)
    side.note('same inode as', first ?? path)
    if (entry) side.note('d_ino', entry.ino === stat.ino ? 'st_ino' : 'another')
  }

  #content(plainDir: number, mountDir: number, name: string, path: string): Mismatch | undefined {
    return this.#opened(plainDir, mountDir, name, f.O_RDONLY, path, (plainFd, mountFd) => {
      for (let offset = 0; ; offset += DATA_BYTES) {
        const more = this.#part(this.#plain, plainFd, offset)
        this.#part(this.#mount, mountFd, offset)
        const mismatch = this.#notes(path)
        if (mismatch || !more) return mismatch
      }
    })
  }

  #part(side: Side, fd: number, offset: number): boolean {
    side.clear()
    const length = side.ret(calls.pread(fd, side.data.address, DATA_BYTES, offset), 'pread')
    side.dataBytes = Math.max(0, length)
    return length === DATA_BYTES
  }
}

function sorted(entries: Entry[] | number): Entry[] {
  if (typeof entries === 'number') throw new Error(`getdents64: ${errnoName(-entries)}`)
  return entries.sort((a, b) => a.name < b.name ? -1 : 1)
}

/** Removes everything in a directory. */
export function removeContents(dirFd: number): void {
  for (const { name, type } of sorted(list(dirFd))) {
    if (type === 4) {
      const fd = result(calls.openat(dirFd, cString(name), f.O_RDONLY | f.O_DIRECTORY | f.O_CLOEXEC | f.O_NOFOLLOW, 0))
      if (fd >= 0) {
        removeContents(fd)
        calls.close(fd)
      }
    }
    calls.unlinkat(dirFd, cString(name), type === 4 ? f.AT_REMOVEDIR : 0)
  }
}
