/**
 * Names of requests. A name is copied out of the request while it is checked, so that what the
 * kernel gets is what was checked, whoever else can write to the request's memory.
 */
import { errno } from '../../errors.js'
import { scratch, type Region } from '../../sys/memory.js'
import type { DeviceRequest } from '../handlers.js'

const NAME_MAX = 255
const PATH_MAX = 4096
const SLASH = 0x2f
const DOT = 0x2e

/** Room for one name or path, at an address that stays the same. One thread's. */
export class NameBuffer {
  readonly memory: Region
  readonly #bytes: Uint8Array
  readonly address: number
  /** Length of what the last call read, its NUL not counted. */
  length = 0

  constructor(roomBytes = NAME_MAX + 1) {
    this.memory = scratch(roomBytes)
    this.#bytes = this.memory.bytes
    this.address = this.memory.address
  }

  /**
   * Copies a name that must be one component other than `.` and `..`.
   * @param offset where it starts in the request's arguments
   * @returns the offset behind its NUL, or −errno
   */
  readName(request: DeviceRequest, offset: number): number {
    const { args } = request
    const bytes = this.#bytes
    const start = request.argsAt + offset
    const room = request.argsBytes - request.extensionBytes - offset
    for (let i = 0; i < room; i++) {
      const byte = args.getUint8(start + i)
      if (byte === 0) {
        bytes[i] = 0
        this.length = i
        if (i === 0) return -errno.EINVAL
        if (bytes[0] === DOT && (i === 1 || i === 2 && bytes[1] === DOT)) return -errno.EINVAL
        return offset + i + 1
      }
      if (byte === SLASH) return -errno.EINVAL
      if (i === NAME_MAX) return -errno.ENAMETOOLONG
      bytes[i] = byte
    }
    return -errno.EINVAL
  }

  /** Copies any string up to its NUL: the target of a symbolic link, the name of an attribute. */
  readString(request: DeviceRequest, offset: number): number {
    const { args } = request
    const bytes = this.#bytes
    const start = request.argsAt + offset
    const room = request.argsBytes - request.extensionBytes - offset
    for (let i = 0; i < room; i++) {
      const byte = args.getUint8(start + i)
      if (i === bytes.length) return -errno.ENAMETOOLONG
      bytes[i] = byte
      if (byte === 0) {
        this.length = i
        return i === 0 ? -errno.ENOENT : offset + i + 1
      }
    }
    return -errno.EINVAL
  }

  /** Puts bytes before what the last call read. @returns false, having done nothing, when there is no room */
  prepend(prefix: Uint8Array): boolean {
    if (this.length + prefix.length >= this.#bytes.length) return false
    this.#bytes.copyWithin(prefix.length, 0, this.length + 1)
    this.#bytes.set(prefix)
    this.length += prefix.length
    return true
  }

  /** Whether the name is this one. */
  equals(name: string): boolean {
    if (name.length !== this.length) return false
    for (let i = 0; i < name.length; i++) if (this.#bytes[i] !== name.charCodeAt(i)) return false
    return true
  }
}

/** A buffer for the targets of symbolic links. */
export function pathBuffer(): NameBuffer {
  return new NameBuffer(PATH_MAX)
}

const PREFIX = '/proc/self/fd/'
const DIGITS = 10

/**
 * The path of a descriptor under /proc/self/fd, written without making a string. What it names is
 * what the descriptor refers to, with no name on the way.
 */
export class ProcPath {
  readonly #memory: Region
  /** Of the whole path. */
  readonly address: number
  /** Of the digits alone, relative to a descriptor of /proc/self/fd. */
  readonly digits: number

  constructor() {
    this.#memory = scratch(PREFIX.length + DIGITS + 1)
    for (let i = 0; i < PREFIX.length; i++) this.#memory.bytes[i] = PREFIX.charCodeAt(i)
    this.address = this.#memory.address
    this.digits = this.address + PREFIX.length
  }

  set(fd: number): void {
    const bytes = this.#memory.bytes
    let length = 1
    for (let rest = fd; rest >= 10; rest = Math.floor(rest / 10)) length++
    let rest = fd
    for (let i = length - 1; i >= 0; i--) {
      bytes[PREFIX.length + i] = 0x30 + rest % 10
      rest = Math.floor(rest / 10)
    }
    bytes[PREFIX.length + length] = 0
  }
}
