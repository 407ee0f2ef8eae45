/**
 * Translation of attribute names between the mount (client) and the shared tree (server).
 *
 * The language of the rules is virtiofsd's. Source: virtiofsd 1.13 doc/xattr-mapping.md and
 * src/passthrough/xattrmap.rs. A rule is `:type:scope:key:prepend:` or `:map:key:prepend:`, with
 * any character as the separator of a rule and white space between rules. The first rule that
 * matches decides: in a name from the client `key` is compared, in one from the server `prepend`.
 * virtiofsd aborts when no rule matches; here rules that leave a name open are refused when they
 * are read.
 */
import { errno, UsageError } from '../../errors.js'
import type { NameBuffer } from './names.js'

const CLIENT = 1
const SERVER = 2
const SCOPES: Readonly<Record<string, number>> = { client: CLIENT, server: SERVER, all: CLIENT | SERVER }
const TYPES = ['prefix', 'ok', 'bad', 'unsupported', 'map'] as const

type RuleType = typeof TYPES[number]

interface Rule {
  readonly type: Exclude<RuleType, 'map'>
  readonly scope: number
  readonly key: Uint8Array
  readonly prepend: Uint8Array
}

const encoder = new TextEncoder()

function refuse(text: string, why: string): never {
  throw new UsageError(`option xattrmap=${text}: ${why}`)
}

function isSpace(character: string | undefined): boolean {
  return character !== undefined && ' \t\n\f\r'.includes(character)
}

/** @throws UsageError that says which rule is wrong */
function parseRules(text: string): Rule[] {
  const characters = [...text.trim()]
  const rules: Rule[] = []
  let at = 0
  for (let number = 1; at < characters.length; number++) {
    while (isSpace(characters[at])) at++
    const separator = characters[at++]
    const field = (): string => {
      const end = characters.indexOf(separator!, at)
      if (end < 0) refuse(text, `rule ${number} is incomplete`)
      const value = characters.slice(at, end).join('')
      at = end + 1
      return value
    }
    const type = field() as RuleType
    if (!TYPES.includes(type)) refuse(text, `rule ${number} has type "${type}", expected ${TYPES.join(', ')}`)
    const scopeName = type === 'map' ? 'all' : field()
    if (!Object.hasOwn(SCOPES, scopeName)) refuse(text, `rule ${number} has scope "${scopeName}", expected client, server, all`)
    const scope = SCOPES[scopeName]!
    const key = encoder.encode(field())
    const prepend = encoder.encode(field())
    if (type !== 'map') {
      rules.push({ type, scope, key, prepend })
      continue
    }
    if (at < characters.length) refuse(text, `rule ${number}: a map rule must be the last one`)
    rules.push(...expandMap(key, prepend))
  }
  return rules
}

/** What `:map:key:prepend:` stands for. */
function expandMap(key: Uint8Array, prepend: Uint8Array): Rule[] {
  const empty = new Uint8Array(0)
  const rest = { scope: CLIENT | SERVER, key: empty, prepend: empty }
  const rules: Rule[] = [{ type: 'prefix', scope: CLIENT | SERVER, key, prepend }]
  if (key.length === 0) return [...rules, { type: 'bad', ...rest }]
  // neither side may reach past the map: the server's unprefixed names, the client's prefixed ones
  return [...rules, { type: 'bad', scope: CLIENT | SERVER, key: prepend, prepend: key }, { type: 'ok', ...rest }]
}

function startsWith(bytes: Uint8Array, at: number, lengthBytes: number, prefix: Uint8Array): boolean {
  if (prefix.length > lengthBytes) return false
  for (let i = 0; i < prefix.length; i++) if (bytes[at + i] !== prefix[i]) return false
  return true
}

/** The rules of a mount, in one worker. */
export class XattrMap {
  readonly #client: readonly Rule[]
  readonly #server: readonly Rule[]
  /** What `security.capability` is called on the server, NUL-terminated, if it has another name there. */
  readonly capability: Uint8Array | undefined

  /** @throws UsageError */
  constructor(text: string) {
    const rules = parseRules(text)
    if (rules.length === 0) refuse(text, 'no rules')
    this.#client = rules.filter(rule => (rule.scope & CLIENT) !== 0)
    this.#server = rules.filter(rule => (rule.scope & SERVER) !== 0)
    const open = !this.#client.some(rule => rule.key.length === 0) ? 'the client' : !this.#server.some(rule => rule.prepend.length === 0) ? 'the server' : undefined
    if (open !== undefined) refuse(text, `some names of ${open} match no rule; end with :bad:all::: or :ok:all:::`)
    const name = encoder.encode('security.capability')
    const rule = this.#client.find(candidate => startsWith(name, 0, name.length, candidate.key))!
    this.capability = rule.type === 'prefix' && rule.prepend.length > 0 ? Uint8Array.of(...rule.prepend, ...name, 0) : undefined
  }

  /**
   * Turns a name of the client into what the server calls it, in place.
   * @returns 0, −EPERM, −EOPNOTSUPP, or −ERANGE when it gets too long
   */
  toServer(name: NameBuffer): number {
    for (const rule of this.#client) {
      if (!startsWith(name.memory.bytes, 0, name.length, rule.key)) continue
      switch (rule.type) {
        case 'ok': return 0
        case 'bad': return -errno.EPERM
        case 'unsupported': return -errno.EOPNOTSUPP
        case 'prefix': return name.prepend(rule.prepend) ? 0 : -errno.ERANGE
      }
    }
    return -errno.EOPNOTSUPP
  }

  /**
   * Turns a list of names of the server into what the client may see of it, in place.
   * @param bytes NUL-terminated names
   * @returns the new length
   */
  toClient(bytes: Uint8Array, at: number, lengthBytes: number): number {
    let kept = at
    const end = at + lengthBytes
    for (let start = at; start < end;) {
      let stop = start
      while (stop < end && bytes[stop] !== 0) stop++
      const from = this.#shownFrom(bytes, start, stop)
      if (from < stop) {
        bytes.copyWithin(kept, from, stop)
        kept += stop - from
        bytes[kept++] = 0
      }
      start = stop + 1
    }
    return kept - at
  }

  /** Where the client's name starts in the server's; `stop` when it is hidden. */
  #shownFrom(bytes: Uint8Array, start: number, stop: number): number {
    for (const rule of this.#server) {
      if (!startsWith(bytes, start, stop - start, rule.prepend)) continue
      if (rule.type === 'ok') return start
      return rule.type === 'prefix' ? start + rule.prepend.length : stop
    }
    return stop
  }
}
