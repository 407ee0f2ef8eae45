/**
 * One of the two directories that are compared: its open files, and what the step just made has
 * found there. A side notes results as labelled values and leaves data in its own buffer; nothing
 * is judged here.
 *
 * Paths are strings of one character per byte. `@3/x` is `x` in the directory open in slot 3.
 */
import { AT_FDCWD, O_CLOEXEC, O_DIRECTORY, O_RDONLY } from '../../lib/sys/file.js'
import { check, result } from '../../lib/sys/libc.js'
import { mapAnonymous, viewRegion, type Region } from '../../lib/sys/memory.js'
import { calls } from './calls.js'

export type Value = number | string | bigint

/** Files that can be open at once. */
export const SLOTS = 8
/** The largest transfer of a step. */
export const DATA_BYTES = 2 << 20
const PATH_ROOM = 16384
const PATH_SLOTS = 4

export function region(lengthBytes: number): Region {
  return viewRegion(mapAnonymous(lengthBytes), lengthBytes)
}

const paths = region(PATH_ROOM * PATH_SLOTS)
const pathBytes = Buffer.from(paths.bytes.buffer)
let nextPath = 0

/** The address of the NUL-terminated bytes of a path, good for the next three calls of this. */
export function cString(path: string): number {
  const at = PATH_ROOM * nextPath
  nextPath = (nextPath + 1) % PATH_SLOTS
  if (path.length >= PATH_ROOM) throw new RangeError(`a path of ${path.length} bytes`)
  pathBytes.write(path, at, 'latin1')
  pathBytes[at + path.length] = 0
  return paths.address + at
}

/** Memory for the structures of the call being made; shared by the sides. */
export const argument: Region = region(8192)

/** Bytes to write: every part of them is different. */
export const pattern: Region = region(DATA_BYTES)
for (let i = 0, x = 1; i < DATA_BYTES / 4; i++) {
  x ^= x << 13
  x ^= x >>> 17
  x ^= x << 5
  pattern.view.setInt32(i * 4, x, true)
}

/** The address of some bytes of the pattern. */
export function patternAt(choice: number, lengthBytes: number): number {
  return pattern.address + choice * 521 % (DATA_BYTES - lengthBytes + 1)
}

export class Side {
  readonly name: string
  /** What getcwd says of the case's own directory. */
  readonly path: string
  readonly root: number
  readonly fds = new Int32Array(SLOTS).fill(-1)
  readonly data: Region = region(DATA_BYTES)
  /** Bytes of `data` that the step has read. */
  dataBytes = 0
  readonly labels: string[] = []
  readonly values: Value[] = []

  readonly #leader: Side | undefined
  readonly #decisions: number[] = []
  #decided = 0

  /**
   * @param root the directory that relative paths start at, below `path`
   * @param leader the side whose decisions this one follows
   */
  constructor(name: string, path: string, root: string, leader?: Side) {
    this.#leader = leader
    this.name = name
    this.path = path
    this.root = check(result(calls.openat(AT_FDCWD, cString(root), O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0)), 'open', root)
  }

  note(label: string, value: Value): void {
    this.labels.push(label)
    this.values.push(value)
  }

  /** Notes the return value of a call just made. @returns it, or −errno */
  ret(value: number, label = 'ret'): number {
    const done = result(value)
    this.note(label, done)
    return done
  }

  /** Begins a step. */
  clear(): void {
    this.labels.length = 0
    this.values.length = 0
    this.dataBytes = 0
    if (this.#leader === undefined) this.#decisions.length = 0
    this.#decided = 0
  }

  /**
   * A number that the plain side finds before a step decides for both: asking the mount would
   * refresh what the kernel knows of it, and hide what is stale.
   */
  decide(find: (side: Side) => number): number {
    if (this.#leader !== undefined) return this.#leader.#decisions[this.#decided++]!
    const found = find(this)
    this.#decisions.push(found)
    return found
  }

  fd(slot: number): number {
    return this.fds[slot]!
  }

  /** The directory that a path starts at. */
  dir(path: string): number {
    return path[0] === '@' ? this.fds[path.charCodeAt(1) - 48]! : AT_FDCWD
  }

  /** The path from there on, as an address. */
  at(path: string): number {
    return cString(path[0] === '@' ? path.slice(3) : path)
  }

  /** Puts a descriptor into a slot, closing what was there; notes 0 for any descriptor. */
  open(slot: number, value: number): number {
    const fd = result(value)
    this.note('ret', Math.min(fd, 0))
    if (fd < 0) return fd
    this.closeSlot(slot)
    this.fds[slot] = fd
    return fd
  }

  closeSlot(slot: number): void {
    const fd = this.fds[slot]!
    if (fd >= 0) this.ret(calls.close(fd), 'close')
    this.fds[slot] = -1
  }

  /** Ends it: what is open is closed. */
  end(): void {
    for (let slot = 0; slot < SLOTS; slot++) this.closeSlot(slot)
    calls.close(this.root)
  }
}
