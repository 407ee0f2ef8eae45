/**
 * One sequence of calls on two file systems of the same shape: node:fs/promises on a plain directory,
 * and a connected device. What each call gives, a value or an error with all its fields, must be the
 * same on both.
 */
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import * as nodeFs from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Stats, type BigIntStats } from 'node:fs'
import { isDeepStrictEqual } from 'node:util'
import type { Test } from 'tap'
import { connect, ConnectedFs, type ConnectOptions } from '../../lib/index.js'
import { findPeer, type ClientPeer } from './client-peers.js'

/** What both are, for calls that both have. */
// eslint-disable-next-line @typescript-eslint/no-explicit-any
export type AnyFs = any

const bigIntStats = Object.getPrototypeOf(await nodeFs.stat('/', { bigint: true })) as object

export class Subject {
  readonly log: [name: string, outcome: unknown][] = []

  /**
   * @param root what stands before every path
   * @param host the same directory on the host, for what is there from the beginning
   */
  constructor(readonly fs: AnyFs, readonly root: string, readonly host: string) {}

  /** A path of the tree. */
  at(path: string): string {
    return `${this.root}${path}`
  }

  /** Makes a call, and writes down what it gives. @returns it, or undefined when it failed */
  async call<T>(name: string, operation: () => Promise<T>): Promise<T | undefined> {
    try {
      const value = await operation()
      this.log.push([name, this.#plain(value)])
      return value
    } catch (error) {
      this.log.push([name, this.#plainError(error as NodeJS.ErrnoException)])
      return undefined
    }
  }

  #plainError(error: NodeJS.ErrnoException & { dest?: string }): object {
    const { name, code, errno, syscall, path, dest, message } = error
    // messages of node's own checks name types in words that change between its versions
    const own = code?.startsWith('ERR_') ?? false
    return { failed: name, code, errno, syscall, path: this.#strip(path), dest: this.#strip(dest), ...(own ? {} : { message: this.#strip(message) }) }
  }

  #strip(text: string | undefined): string | undefined {
    return text?.replaceAll(this.root, '')
  }

  #plain(value: unknown): unknown {
    if (typeof value === 'string') return this.#strip(value)
    if (Buffer.isBuffer(value)) return { bytes: this.#strip(value.toString('latin1')) }
    if (Array.isArray(value)) return value.map(each => this.#plain(each))
    if (value instanceof Stats || (typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === bigIntStats)) return this.#plainStats(value as Stats | BigIntStats)
    if (typeof value === 'object' && value !== null && 'isDirectory' in value && 'name' in value) {
      const entry = value as import('node:fs').Dirent
      return { name: this.#plain(entry.name), parentPath: this.#strip(entry.parentPath), type: typeOf(entry) }
    }
    if (typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype) {
      return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, this.#plain(each)]))
    }
    if (typeof value === 'object' && value !== null) return value.constructor.name
    return value
  }

  /** What does not depend on the file system below, nor on when it was made. */
  #plainStats(stats: Stats | BigIntStats): object {
    const directory = stats.isDirectory()
    const { mode, uid, gid, nlink, rdev } = stats
    return { stats: stats instanceof Stats ? 'Stats' : 'BigIntStats', type: typeOf(stats), mode, uid, gid, rdev, nlink, ...(directory ? {} : { size: stats.size, blocks: stats.blocks }) }
  }
}

interface Typed { isFile(): boolean, isDirectory(): boolean, isSymbolicLink(): boolean, isFIFO(): boolean, isSocket(): boolean, isBlockDevice(): boolean, isCharacterDevice(): boolean }

function typeOf(what: Typed): string {
  return (['isFile', 'isDirectory', 'isSymbolicLink', 'isFIFO', 'isSocket', 'isBlockDevice', 'isCharacterDevice'] as const).filter(name => what[name]()).join(' ')
}

/**
 * A connected device over a new directory, for as long as `body` takes.
 * @param parent where that directory is made
 */
export async function withConnected(t: Test, peer: ClientPeer, options: ConnectOptions, body: (fs: ConnectedFs, shared: string, base: string) => Promise<void>, parent = tmpdir()): Promise<void> {
  const base = mkdtempSync(join(parent, 'vfc-'))
  const shared = join(base, 'shared')
  mkdirSync(shared)
  let fs: ConnectedFs | undefined
  try {
    fs = await connect(shared, { ...findPeer(peer), ...options })
    await body(fs, shared, base)
    t.equal(fs.gone, '', 'the device is still there')
  } finally {
    await fs?.close()
    rmSync(base, { recursive: true, force: true })
  }
}

type Sequence = (subject: Subject) => Promise<unknown>

/** What node:fs/promises gave, which is the same for every peer. */
const expected = new Map<Sequence, Subject['log']>()

/** Where fsync(2) costs nothing: the sequences call it some thousand times. */
const MEMORY = '/dev/shm'

/** Runs sequences on both, and compares what they gave: each in a directory of its own. */
export async function compareAll(t: Test, peer: ClientPeer, cases: Record<string, Sequence>, options: ConnectOptions = {}): Promise<void> {
  await withConnected(t, peer, { xattr: true, ...options }, async (fs, shared, base) => {
    for (const [i, [name, run]] of Object.entries(cases).entries()) {
      const [plainRoot, sharedRoot] = [join(base, `plain${i}`), join(shared, `case${i}`)]
      if (!expected.has(run)) {
        mkdirSync(plainRoot)
        const plain = new Subject(nodeFs, plainRoot, plainRoot)
        await run(plain)
        expected.set(run, plain.log)
      }
      mkdirSync(sharedRoot)
      const connected = new Subject(fs, `/case${i}`, sharedRoot)
      await run(connected)
      const plainLog = expected.get(run)!
      const different = plainLog.map(([name, expected], i) => ({ name, expected, got: connected.log[i]?.[1] })).filter(({ expected, got }) => !isDeepStrictEqual(expected, got))
      t.strictSame(different, [], `${name}: ${plainLog.length} calls give the same`)
      t.equal(connected.log.length, plainLog.length, 'as many calls')
    }
  }, existsSync(MEMORY) ? MEMORY : tmpdir())
}
