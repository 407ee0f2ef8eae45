/**
 * Names that do not exist for a mount: those that match a pattern of `hide`, and, of what is no
 * directory, those that match none of `only`. A pattern is a glob for one name, in any directory.
 *
 * A verdict costs building a string and matching it; verdicts of the names that come again and
 * again are kept by their bytes.
 */
import { createRequire } from 'node:module'
import type { Minimatch } from 'minimatch'
import { UsageError } from '../../errors.js'
import { bytesToString } from '../byte-string.js'

/** Slots of the verdicts; a name has one place. */
const SLOTS = 2048
/** A slot: length, verdict, bytes. */
const SLOT_BYTES = 256
const BYTES = 2
const LONGEST_KEPT = SLOT_BYTES - BYTES

const HIDDEN = 1
const MISSED = 2

/** Loaded by those who need it: a plain mount starts without. */
function load(): typeof import('minimatch') {
  return createRequire(import.meta.url)('minimatch') as typeof import('minimatch')
}

/** One glob. `*`, `?`, `[…]`, `{…,…}`; a leading dot is a character like any other. */
function compile(option: string, pattern: string): Minimatch {
  if (pattern === '') throw new UsageError(`${option}= needs a pattern`)
  if (pattern.includes('/')) throw new UsageError(`${option}=${pattern}: a pattern is for one name, and cannot have a /`)
  const glob = new (load().Minimatch)(pattern, { dot: true, nonegate: true, nocomment: true, noglobstar: true, platform: 'linux' })
  if (glob.makeRe() === false) throw new UsageError(`${option}=${pattern}: not a pattern`)
  return glob
}

/** @throws UsageError for a text that is no pattern */
export function checkPatterns(patterns: readonly string[], option: string): void {
  for (const pattern of patterns) compile(option, pattern)
}

/** One worker's. */
export class NameFilter {
  readonly #hide: readonly Minimatch[]
  readonly #only: readonly Minimatch[]
  readonly #verdicts = new Uint8Array(SLOTS * SLOT_BYTES)

  /** @throws UsageError */
  constructor(hide: readonly string[], only: readonly string[]) {
    this.#hide = hide.map(pattern => compile('hide', pattern))
    this.#only = only.map(pattern => compile('only', pattern))
  }

  /** Whether the type of a file matters. */
  get asksType(): boolean {
    return this.#only.length > 0
  }

  /** Whether nothing may have the name at `at`, which ends with a NUL. */
  hides(bytes: Uint8Array, at = 0): boolean {
    return (this.#verdict(bytes, at) & HIDDEN) !== 0
  }

  /** Whether only a directory, or nothing, may have it. */
  refuses(bytes: Uint8Array, at = 0): boolean {
    return this.#verdict(bytes, at) !== 0
  }

  #verdict(bytes: Uint8Array, at: number): number {
    let hash = 0x811c9dc5
    let length = 0
    for (; bytes[at + length] !== 0; length++) hash = Math.imul(hash ^ bytes[at + length]!, 0x01000193)
    const verdicts = this.#verdicts
    const slot = ((hash ^ hash >>> 15) & (SLOTS - 1)) * SLOT_BYTES
    if (verdicts[slot] === length) {
      let i = 0
      while (i < length && verdicts[slot + BYTES + i] === bytes[at + i]) i++
      if (i === length) return verdicts[slot + 1]!
    }
    const verdict = this.#match(bytesToString(Buffer.from(bytes.subarray(at, at + length))))
    if (length > LONGEST_KEPT) return verdict
    verdicts[slot] = length
    verdicts[slot + 1] = verdict
    for (let i = 0; i < length; i++) verdicts[slot + BYTES + i] = bytes[at + i]!
    return verdict
  }

  #match(name: string): number {
    const hidden = this.#hide.some(pattern => pattern.match(name)) ? HIDDEN : 0
    const missed = this.#only.length > 0 && !this.#only.some(pattern => pattern.match(name)) ? MISSED : 0
    return hidden | missed
  }
}
