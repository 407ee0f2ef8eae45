/**
 * Tags in use on this machine, across processes: one locked file each in the runtime directory.
 * The lock is the kernel's, so the tag of a process that has died is free at once, whatever its
 * file says.
 */
import { randomUUID } from 'node:crypto'
import { closeSync, constants, fstatSync, ftruncateSync, mkdirSync, openSync, readdirSync, readFileSync, statSync, unlinkSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { errno, SyscallError } from '../errors.js'
import { TagInUseError } from '../driver/tag-registry.js'
import { flock, LOCK_EX, LOCK_NB, LOCK_SH } from '../sys/lock.js'
import { runtimeDir } from './runtime-dir.js'

/** What the file of a live tag says. */
export interface LiveMount {
  /** Of the session: no other has the same, ever. */
  id: string
  tag: string
  pid: number
  source: string
  mountpoint: string
  /**
   * Number under /sys/fs/fuse/connections; the minor of every mount that shares the session. −1
   * once nothing of it is mounted any more: somebody else may have the number then.
   */
  connection: number
  /** Process id of what replaces the process when it is killed. */
  supervisor?: number
}

function directory(): string {
  const path = join(runtimeDir(), 'tags')
  mkdirSync(path, { recursive: true, mode: 0o700 })
  return path
}

/** No tag makes a path of its own: every byte but letters, digits, - and _ is escaped. */
function fileOf(tag: string): string {
  return join(directory(), Buffer.from(tag).toString('latin1').replace(/[^\w-]/g, c => `%${c.charCodeAt(0).toString(16).padStart(2, '0')}`))
}

const LOOKING_TRIES = 5

/** A tag that this process owns until it is released or the process ends. */
export class LiveTag {
  readonly tag: string
  readonly #path: string
  readonly #fd: number
  #released = false
  #unmounted = false
  #described: LiveMount | undefined
  #lengthBytes = 0

  private constructor(tag: string, path: string, fd: number) {
    this.tag = tag
    this.#path = path
    this.#fd = fd
  }

  /**
   * Takes a tag for this process.
   * @throws TagInUseError (EEXIST) when a live process has it
   */
  static async claim(tag: string): Promise<LiveTag> {
    const path = fileOf(tag)
    for (let tries = 0; ;) {
      const fd = openSync(path, constants.O_RDWR | constants.O_CREAT, 0o600)
      const error = flock(fd, LOCK_EX | LOCK_NB)
      if (error < 0) {
        closeSync(fd)
        if (error !== -errno.EAGAIN && error !== -errno.EINTR) throw new SyscallError('flock', -error, path)
        // somebody who only looks has the lock for a moment
        if (++tries > LOOKING_TRIES) throw new TagInUseError(tag)
        await sleep(2)
        continue
      }
      // the last owner may have removed the file between our open and our lock
      if (sameFile(fd, path)) {
        ftruncateSync(fd, 0)
        return new LiveTag(tag, path, fd)
      }
      closeSync(fd)
    }
  }

  /**
   * The tag of a process before this one.
   * @param fd of its locked file, which is its own from now on
   */
  static inherit(live: LiveMount, fd: number): LiveTag {
    const tag = new LiveTag(live.tag, fileOf(live.tag), fd)
    tag.#described = live
    tag.#lengthBytes = fstatSync(fd).size
    return tag
  }

  /** Of the locked file. */
  get fd(): number {
    return this.#fd
  }

  /** What its file says. */
  get described(): LiveMount {
    return this.#described!
  }

  /** Takes a tag like this one: itself, or the first of TAG-2, TAG-3 … that is free. */
  static async claimLike(tag: string): Promise<LiveTag> {
    for (let n = 1; ; n++) {
      const suffix = n === 1 ? '' : `-${n}`
      try {
        return await LiveTag.claim(cut(tag, 36 - suffix.length) + suffix)
      } catch (error) {
        if (!(error instanceof TagInUseError)) throw error
      }
    }
  }

  /** Says what is mounted, for those who look. @param pid of the process to turn to */
  describe(mount: Omit<LiveMount, 'id' | 'tag' | 'pid'>, pid = process.pid): void {
    this.#described = { id: this.#described?.id ?? randomUUID(), tag: this.tag, pid, ...mount }
    if (this.#unmounted) this.#described.connection = -1
    this.#write(this.#described)
  }

  /** Nothing of it is mounted any more; the session still has to end. */
  unmounted(): void {
    this.#unmounted = true
    if (this.#described && !this.#released) this.#write({ ...this.#described, connection: -1 })
  }

  /** In one piece, and never shorter than before: who looks meanwhile finds the one or the other. */
  #write(live: LiveMount): void {
    const text = JSON.stringify(live).padEnd(this.#lengthBytes)
    this.#lengthBytes = writeSync(this.#fd, text, 0)
  }

  /** Gives the tag back. May be called twice. */
  release(): void {
    if (this.#released) return
    this.#released = true
    try {
      // who cleans up such directories may have taken it away, and another mount have made one since
      if (sameFile(this.#fd, this.#path)) unlinkSync(this.#path)
    } finally {
      closeSync(this.#fd)
    }
  }
}

function cut(tag: string, bytes: number): string {
  const characters = [...tag]
  while (Buffer.byteLength(characters.join('')) > bytes) characters.pop()
  return characters.join('')
}

function sameFile(fd: number, path: string): boolean {
  try {
    const there = statSync(path, { bigint: true })
    const here = fstatSync(fd, { bigint: true })
    return there.ino === here.ino && there.dev === here.dev
  } catch {
    return false
  }
}

/** How long the owner of a tag may take to mount, in milliseconds. */
const START_TIMEOUT_MS = 30_000

/**
 * The live mount of a tag, or undefined; one that is just being mounted is waited for. A file that
 * nobody has locked is left over: it is removed.
 */
export async function findLiveMount(tag: string): Promise<LiveMount | undefined> {
  if (tag === '') return undefined
  const path = fileOf(tag)
  const deadline = performance.now() + START_TIMEOUT_MS
  for (let live = readLive(path); ; live = readLive(path)) {
    if (live !== 'starting') return live
    if (performance.now() > deadline) return undefined
    await sleep(10)
  }
}

/** All live mounts of this user. */
export function liveMounts(): LiveMount[] {
  const dir = directory()
  return readdirSync(dir).map(name => readLive(join(dir, name))).filter(live => live !== undefined && live !== 'starting')
}

function readLive(path: string): LiveMount | 'starting' | undefined {
  let fd
  try {
    fd = openSync(path, 'r')
  } catch {
    return undefined
  }
  try {
    if (flock(fd, LOCK_SH | LOCK_NB) === 0) {
      if (sameFile(fd, path)) unlinkSync(path)
      return undefined
    }
    const text = readFileSync(fd, 'utf8')
    return text === '' ? 'starting' : JSON.parse(text) as LiveMount
  } finally {
    closeSync(fd)
  }
}
