/**
 * User and group ids between the mount (guest) and the shared tree (host).
 *
 * The language and meaning are virtiofsd's `--translate-uid`. Source: virtiofsd 1.13 README.md,
 * src/soft_idmap. Each direction has its own ranges, of which no two may overlap; an id that is in
 * none stays as it is. A range `base:…:count` is [base, base + count), and neither it nor what it
 * maps to may reach 2^32 − 1, which is no id.
 */
import { errno, UsageError } from '../../errors.js'
import { St } from './stat-words.js'

/** No id; to fchownat it says that an owner stays. */
export const NO_ID = 0xffff_ffff

/** How ids of one kind, users or groups, are translated. */
export interface IdMap {
  /** Id on the host that what a caller makes is to have, or −EPERM. */
  make(guest: number): number
  /** Id on the host for one that is given to a file (chown), or −EPERM. */
  assign(guest: number): number
  /** What the mount shows for an id of the host. */
  show(host: number): number
}

interface Range {
  readonly from: number
  readonly end: number
  /** What `from` becomes, or −EPERM for all of them. */
  readonly to: number
  /** 1 when what follows counts on, 0 when all become the same. */
  readonly step: 0 | 1
}

interface Kind {
  readonly fields: 2 | 3
  readonly step: 0 | 1
  /** Whose ids are the first number's. */
  readonly from: 'guest' | 'host'
}

const KINDS: Readonly<Record<string, Kind>> = {
  map: { fields: 3, step: 1, from: 'guest' },
  guest: { fields: 3, step: 1, from: 'guest' },
  host: { fields: 3, step: 1, from: 'host' },
  'squash-guest': { fields: 3, step: 0, from: 'guest' },
  'squash-host': { fields: 3, step: 0, from: 'host' },
  'forbid-guest': { fields: 2, step: 0, from: 'guest' },
}

function translate(ranges: readonly Range[], id: number): number {
  for (const range of ranges) {
    if (id >= range.from && id < range.end) return range.to + (id - range.from) * range.step
  }
  return id
}

/** Ids that are translated by rules. */
export class TranslatedIds implements IdMap {
  readonly #toHost: Range[] = []
  readonly #toGuest: Range[] = []

  /**
   * @param name of the option, for errors
   * @throws UsageError
   */
  constructor(name: string, rules: readonly string[]) {
    for (const rule of rules) this.#add(rule, why => { throw new UsageError(`${name}=${rule}: ${why}`) })
  }

  #add(rule: string, refuse: (why: string) => never): void {
    // the first character that cannot be of a kind's name separates
    const [, kindName, separator] = /^([\p{Alphabetic}\p{N}_-]*)([^\p{Alphabetic}\p{N}_-])/su.exec(rule) ?? refuse(`expected TYPE:BASE:TARGET:COUNT, of type ${Object.keys(KINDS).join(', ')}`)
    const lower = kindName!.toLowerCase()
    const kind = Object.hasOwn(KINDS, lower) ? KINDS[lower]! : refuse(`type "${kindName}" is none of ${Object.keys(KINDS).join(', ')}`)
    const texts = rule.slice(kindName!.length + separator!.length).split(separator!)
    if (texts.length !== kind.fields) refuse(`expected ${kind.fields} numbers after ${lower}`)
    const numbers = texts.map(text => /^\+?\d+$/.test(text) && Number(text) <= NO_ID ? Number(text) : refuse(`"${text}" is not a number below 2^32`))
    const [from, to, count] = kind.fields === 2 ? [numbers[0]!, -errno.EPERM, numbers[1]!] : numbers as [number, number, number]
    if (from + count > NO_ID) refuse('the range goes beyond the largest id')
    if (count > 0 && to + (count - 1) * kind.step >= NO_ID) refuse('the target goes beyond the largest id')
    put(kind.from === 'guest' ? this.#toHost : this.#toGuest, { from, end: from + count, to, step: kind.step }, refuse)
    if (lower === 'map') put(this.#toGuest, { from: to, end: to + count, to: from, step: kind.step }, refuse)
  }

  make(guest: number): number {
    return translate(this.#toHost, guest)
  }

  assign(guest: number): number {
    return translate(this.#toHost, guest)
  }

  show(host: number): number {
    return translate(this.#toGuest, host)
  }
}

function put(ranges: Range[], range: Range, refuse: (why: string) => never): void {
  if (range.from === range.end) return
  if (ranges.some(other => range.from < other.end && other.from < range.end)) refuse('overlaps another rule')
  ranges.push(range)
}

/** Translation of a mount, in one worker. */
export class Ids {
  constructor(readonly uid: IdMap, readonly gid: IdMap) {}

  /** Translates the owner in a struct statx. */
  show(st: Int32Array): void {
    st[St.uid] = this.uid.show(st[St.uid]! >>> 0)
    st[St.gid] = this.gid.show(st[St.gid]! >>> 0)
  }
}
