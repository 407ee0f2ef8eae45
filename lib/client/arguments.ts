/** Arguments of node:fs as it takes them: paths, flags, modes, times, encodings. */
import { constants } from 'node:fs'
import { isDate } from 'node:util/types'
import { fileURLToPath } from 'node:url'
import { bytesToString, stringToBytes } from '../device/byte-string.js'
import type { Time } from './attributes.js'
import { invalidType, invalidValue, outOfRange } from './fs-error.js'

/** A path in the tree of a device: absolute, or relative to its root, which is the same. */
export type PathLike = string | Buffer | URL | Uint8Array
export type TimeLike = string | number | bigint | Date
export type Mode = string | number
export type OpenFlags = string | number

/** A path as it was given, in two forms. */
export interface Path {
  /** As the tree has names: bytes that are no UTF-8 are lone surrogates. */
  readonly text: string
  /** For error messages. */
  readonly shown: string
}

const UNPAIRED = /[\ud800-\udfff]/u

/** @throws TypeError as node:fs does */
export function pathOf(path: PathLike, name = 'path'): Path {
  if (typeof path === 'string') {
    if (path.includes('\0')) throw invalidValue(name, path, 'must be a string, Uint8Array, or URL without null bytes')
    // as its UTF-8 has it
    const text = UNPAIRED.test(path) ? Buffer.from(path).toString() : path
    return { text, shown: text }
  }
  if (path instanceof Uint8Array) {
    if (path.includes(0)) throw invalidValue(name, path, 'must be a string, Uint8Array, or URL without null bytes')
    const bytes = Buffer.from(path.buffer, path.byteOffset, path.byteLength)
    return { text: bytesToString(bytes), shown: bytes.toString() }
  }
  if (path instanceof URL) return pathOf(fileURLToPath(path), name)
  throw invalidType(name, 'of type string or an instance of Buffer or URL', path)
}

/** A name or path of the tree in the encoding that was asked for. */
export function encodeName(text: string, encoding: BufferEncoding | 'buffer' | null | undefined): string | Buffer {
  if ((encoding === undefined || encoding === null || encoding === 'utf8' || encoding === 'utf-8') && !UNPAIRED.test(text)) return text
  const bytes = stringToBytes(text)
  return encoding === 'buffer' ? bytes : bytes.toString(encoding ?? 'utf8')
}

export type EncodingOption = BufferEncoding | 'buffer' | null | undefined

/** The options object of a call that takes an encoding instead of it. */
export function optionsOf<T extends object>(options: T | string | null | undefined, defaults: T): T {
  if (options === null || options === undefined || typeof options === 'function') return defaults
  if (typeof options === 'string') {
    checkEncoding(options)
    return { ...defaults, encoding: options }
  }
  if (typeof options !== 'object') throw invalidType('options', 'of type string or an instance of Object', options)
  const { encoding, signal } = options as { encoding?: unknown, signal?: unknown }
  if (typeof encoding === 'string') checkEncoding(encoding)
  if (signal !== undefined && !(typeof signal === 'object' && signal !== null && 'aborted' in signal)) throw invalidType('options.signal', 'an instance of AbortSignal', signal)
  return { ...defaults, ...options }
}

function checkEncoding(encoding: string): void {
  if (encoding !== 'buffer' && !Buffer.isEncoding(encoding)) throw invalidValue('encoding', encoding, 'is invalid encoding')
}

const { O_APPEND, O_CREAT, O_EXCL, O_RDONLY, O_RDWR, O_SYNC, O_TRUNC, O_WRONLY } = constants
const FLAGS: Record<string, number> = {
  r: O_RDONLY, rs: O_RDONLY | O_SYNC, 'r+': O_RDWR, 'rs+': O_RDWR | O_SYNC,
  w: O_TRUNC | O_CREAT | O_WRONLY, wx: O_TRUNC | O_CREAT | O_WRONLY | O_EXCL,
  'w+': O_TRUNC | O_CREAT | O_RDWR, 'wx+': O_TRUNC | O_CREAT | O_RDWR | O_EXCL,
  a: O_APPEND | O_CREAT | O_WRONLY, ax: O_APPEND | O_CREAT | O_WRONLY | O_EXCL, as: O_APPEND | O_CREAT | O_WRONLY | O_SYNC,
  'a+': O_APPEND | O_CREAT | O_RDWR, 'ax+': O_APPEND | O_CREAT | O_RDWR | O_EXCL, 'as+': O_APPEND | O_CREAT | O_RDWR | O_SYNC,
}
/** The same by their other spellings. */
const SPELLINGS: Record<string, string> = { sr: 'rs', 'sr+': 'rs+', xw: 'wx', 'xw+': 'wx+', xa: 'ax', 'xa+': 'ax+', sa: 'as', 'sa+': 'as+' }

/** The bits of open(2). @throws TypeError, RangeError */
export function flagsOf(flags: OpenFlags | null | undefined, name = 'flags'): number {
  if (flags === null || flags === undefined) return O_RDONLY
  if (typeof flags === 'number') return integerOf(flags, name, -2147483648, 2147483647)
  const bits = Object.hasOwn(FLAGS, SPELLINGS[flags] ?? flags) ? FLAGS[SPELLINGS[flags] ?? flags] : undefined
  if (bits === undefined) throw invalidValue(name, flags)
  return bits
}

/** @throws TypeError, RangeError */
export function integerOf(value: number, name: string, least = Number.MIN_SAFE_INTEGER, most = Number.MAX_SAFE_INTEGER): number {
  if (typeof value !== 'number') throw invalidType(name, 'of type number', value)
  if (!Number.isInteger(value)) throw outOfRange(name, 'an integer', value)
  if (value < least || value > most) throw outOfRange(name, `>= ${least} && <= ${most}`, value)
  return value
}

/** The bits of chmod(2), given as a number or in octal digits. @throws TypeError, RangeError */
export function modeOf(mode: Mode | null | undefined, name: string, otherwise?: number): number {
  if ((mode === null || mode === undefined) && otherwise !== undefined) return otherwise
  if (typeof mode === 'string') {
    if (!/^[0-7]+$/.test(mode)) throw invalidValue(name, mode, 'must be a 32-bit unsigned integer or an octal string')
    return parseInt(mode, 8)
  }
  return integerOf(mode as number, name, 0, 0xffffffff)
}

/** A user or group id; −1 for no change. @throws TypeError, RangeError */
export function idOf(id: number, name: string): number {
  return integerOf(id, name, -1, 0xffffffff)
}

/** Seconds, a date, or a BigInt of nanoseconds. @throws TypeError */
export function timeOf(time: TimeLike): Time {
  if (typeof time === 'bigint') {
    const nsec = ((time % 1_000_000_000n) + 1_000_000_000n) % 1_000_000_000n
    return { sec: Number((time - nsec) / 1_000_000_000n), nsec: Number(nsec) }
  }
  if (isDate(time)) {
    const ms = time.getTime()
    if (!Number.isNaN(ms)) return { sec: Math.floor(ms / 1000), nsec: (((ms % 1000) + 1000) % 1000) * 1_000_000 }
  }
  return toTimespec(seconds(time))
}

function seconds(time: string | number | Date): number {
  if ((typeof time === 'string' || typeof time === 'number') && Number.isFinite(Number(time))) return Number(time)
  throw invalidType('time', 'an instance of Date or one of type number or string', time)
}

/** Seconds with a fraction, to the nanosecond as far as the number has them. */
function toTimespec(time: number): Time {
  const sec = Math.floor(time)
  return { sec, nsec: Math.floor((time - sec) * 1e9) }
}

/** An offset of a file: a number or BigInt; null or −1 for the handle's own position. @throws TypeError, RangeError */
export function positionOf(position: number | bigint | null | undefined): number | null {
  if (position === null || position === undefined) return null
  if (typeof position !== 'number' && typeof position !== 'bigint') throw invalidType('position', 'of type bigint or an integer', position)
  if (typeof position === 'number' && !Number.isInteger(position)) throw outOfRange('position', 'an integer', position)
  if (position < -1 || position > Number.MAX_SAFE_INTEGER) throw outOfRange('position', `>= -1 && <= ${Number.MAX_SAFE_INTEGER}`, position)
  return position < 0 ? null : Number(position)
}

/** The bytes of what may be written, without a copy for anything but text. @throws TypeError */
export function bytesOf(data: unknown, encoding: BufferEncoding | null | undefined, name = 'data'): Uint8Array {
  if (typeof data === 'string') return Buffer.from(data, encoding ?? 'utf8')
  if (ArrayBuffer.isView(data)) return new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
  throw invalidType(name, 'of type string or an instance of Buffer, TypedArray, or DataView', data)
}
