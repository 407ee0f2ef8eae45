/**
 * The beginning of a relay's stream: one hello each way, then FUSE messages, which frame
 * themselves (fuse_in_header.len, fuse_out_header.len). The near end, which has the mount, speaks
 * first. native-notes/relay.md describes the whole protocol.
 */
import { ProtocolError } from '../errors.js'
import { defineStruct } from '../wire/struct.js'
import { MAX_WRITE } from '../driver/memory-plan.js'
import { checkIdentity, type FarIdentity } from './far-identity.js'

/** The fixed part; `text_bytes` bytes of JSON follow. */
export const RelayHello = defineStruct('relay_hello', 32, {
  magic: 'bytes:8', version: 'u32', text_bytes: 'u32', requests: 'u32', large_requests: 'u32', max_message: 'u32', flags: 'u32',
})

/** Begins with no ASCII character, which no banner does, and ends with a line end, which a translated stream would not keep. */
const MAGIC = Buffer.from('\x89VFBRLY\n', 'latin1')

/** Changes with every change that the other end has to know. */
export const RELAY_VERSION = 2

/** The largest message: the data of the largest request, with its headers and extensions. */
export const MAX_MESSAGE = MAX_WRITE + 4096
/** A message has at least so much: fuse_out_header. */
export const MIN_MESSAGE = 16
const MAX_TEXT = 65536
const SESSION = /^[0-9a-f]{32}$/

/** What an end can hold; the near end keeps to what the far end says. */
export interface RelayLimits {
  /** Requests in flight. */
  requests: number
  /** Large buffers for what is in flight (`largeBuffers` in limits.ts). */
  large: number
}

/** The text of the near end's hello. */
export interface NearText {
  /** Options of the mount that concern the device, as for `-o`. */
  options: string[]
  /** Of a session that outlives its links: a secret that only its ends know, in hexadecimal. */
  session?: string
  /** The far end of its link before: it must have ended before this one answers. */
  before?: FarIdentity
}

/** That of the far end's: a device, or why there is none. */
export interface FarText {
  tag?: string
  /** Names of its features, for people. */
  features?: string[]
  /** What it cannot do there, one line each. */
  notices?: string[]
  /** With a session: who it is, for the next link. */
  process?: FarIdentity
  /** Its clock, in milliseconds as Date.now() has it. */
  nowMs?: number
  error?: string
  /** Code of that error, as in lib/errors.ts. */
  code?: string
}

export interface Hello {
  limits: RelayLimits
  text: unknown
}

export function encodeHello({ limits, text }: Hello): Uint8Array {
  const body = Buffer.from(JSON.stringify(text))
  if (body.length > MAX_TEXT) throw new RangeError(`a hello of ${body.length} bytes`)
  const hello = Buffer.alloc(RelayHello.SIZE + body.length)
  MAGIC.copy(hello, RelayHello.magic)
  hello.writeUInt32LE(RELAY_VERSION, RelayHello.version)
  hello.writeUInt32LE(body.length, RelayHello.text_bytes)
  hello.writeUInt32LE(limits.requests, RelayHello.requests)
  hello.writeUInt32LE(limits.large, RelayHello.large_requests)
  hello.writeUInt32LE(MAX_MESSAGE, RelayHello.max_message)
  body.copy(hello, RelayHello.SIZE)
  return hello
}

/** How many bytes of a stream's beginning are as they should be. */
export function magicBytes(bytes: Uint8Array): number {
  let count = 0
  while (count < MAGIC.length && bytes[count] === MAGIC[count]) count++
  return count
}

export const MAGIC_BYTES = MAGIC.length

/**
 * Checks the fixed part.
 *
 * @param bytes `RelayHello.SIZE` of them, that begin with the magic
 * @param end whose it is, for messages
 * @returns its limits, and how many bytes of text follow
 * @throws ProtocolError
 */
export function decodeHello(bytes: Uint8Array, end: string): { limits: RelayLimits, textBytes: number } {
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
  const version = view.readUInt32LE(RelayHello.version)
  if (version !== RELAY_VERSION) throw new ProtocolError(`hello of the ${end} end`, 'version', version, `${RELAY_VERSION} (both ends need the same version of virtiofs-bridge)`)
  const check = (field: string, value: number, good: boolean, expected: string): number => {
    if (!good) throw new ProtocolError(`hello of the ${end} end`, field, value, expected)
    return value
  }
  const textBytes = view.readUInt32LE(RelayHello.text_bytes)
  check('text_bytes', textBytes, textBytes >= 2 && textBytes <= MAX_TEXT, `2 to ${MAX_TEXT}`)
  const requests = view.readUInt32LE(RelayHello.requests)
  check('requests', requests, requests >= 1 && requests <= 65536, '1 to 65536')
  const large = view.readUInt32LE(RelayHello.large_requests)
  // one WRITE may need two
  check('large_requests', large, large >= 2 && large <= 65536, '2 to 65536')
  const maxMessage = view.readUInt32LE(RelayHello.max_message)
  check('max_message', maxMessage, maxMessage === MAX_MESSAGE, String(MAX_MESSAGE))
  const flags = view.readUInt32LE(RelayHello.flags)
  check('flags', flags, flags === 0, '0')
  return { limits: { requests, large }, textBytes }
}

/** @throws ProtocolError when it is not an object in JSON */
export function decodeText(bytes: Uint8Array, end: string): Record<string, unknown> {
  const text = Buffer.from(bytes).toString()
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>
  } catch {
    // told below
  }
  throw new ProtocolError(`hello of the ${end} end`, 'text', JSON.stringify(text.slice(0, 60)), 'an object in JSON')
}

/** @throws ProtocolError */
function strings(value: unknown, field: string, end: string): string[] {
  if (value === undefined) return []
  if (Array.isArray(value) && value.every(item => typeof item === 'string')) return value
  throw new ProtocolError(`hello of the ${end} end`, field, JSON.stringify(value).slice(0, 60), 'a list of strings')
}

/** @throws ProtocolError */
export function checkNearText(text: Record<string, unknown>): NearText {
  const { session, before } = text
  if (session !== undefined && !(typeof session === 'string' && SESSION.test(session))) {
    throw new ProtocolError('hello of the near end', 'session', JSON.stringify(session).slice(0, 60), '32 hexadecimal digits')
  }
  return {
    options: strings(text['options'], 'options', 'near'),
    ...session !== undefined && { session, ...before !== undefined && { before: checkIdentity(before, 'near') } },
  }
}

/** @throws ProtocolError */
export function checkFarText(text: Record<string, unknown>): FarText {
  const optional = (field: 'tag' | 'error' | 'code'): object => {
    const value = text[field]
    if (value === undefined) return {}
    if (typeof value !== 'string') throw new ProtocolError('hello of the far end', field, JSON.stringify(value).slice(0, 60), 'a string')
    return { [field]: printable(value) }
  }
  return {
    ...optional('tag'), ...optional('error'), ...optional('code'),
    ...text['process'] !== undefined && { process: checkIdentity(text['process'], 'far') },
    ...Number.isFinite(text['nowMs']) && { nowMs: text['nowMs'] as number },
    features: strings(text['features'], 'features', 'far').map(printable), notices: strings(text['notices'], 'notices', 'far').map(printable),
  }
}

/** What came from another host, on one line and with nothing that a terminal would act on. */
export function printable(text: string): string {
  return text.replace(/[\0-\x1f\x7f-\x9f]+/g, ' ').trim()
}
