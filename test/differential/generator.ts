/**
 * Chooses operations at random. It knows what it has made (roughly: renames leave wrong entries
 * behind, which is fine), so that most operations meet something that exists.
 *
 * Each seed switches some groups of operations off: what is common in one run is absent in
 * another, and more states are reached than by always mixing everything.
 */
import { SeededRandom } from '../support/seeded-random.js'
import type { Group, Op, Operation } from './operation.js'
import { exclusions } from './rules.js'
import { SLOTS } from './side.js'

export type Backing = 'tmpfs' | 'ext4'

/** What the mount and its backing file system can be asked. */
export interface Abilities {
  backing: Backing
  xattrs: boolean
  acls: boolean
  /** Data is cached where the server does not see it: what asks the server for it comes after fdatasync. */
  writeback: boolean
  /** What is left out: see rules.ts. */
  lacks: readonly string[]
}

export const LONG_NAME = 'L'.repeat(255)
const TOO_LONG_NAME = 'M'.repeat(256)
const NAMES = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'sub', 'dir', '.hidden', 'with space', 'new\nline', 'caf\xc3\xa9', '\xff\xfe', '\\', LONG_NAME]
const MAX_DEPTH = 4
const KNOWN = 120

const OPTIONAL: readonly Group[] = ['links', 'special', 'attributes', 'times', 'directories', 'xattrs', 'space', 'seek', 'copy', 'mmap', 'users', 'acls', 'privileges']

export class Generator extends SeededRandom {
  readonly abilities: Abilities
  readonly groups: ReadonlySet<Group>
  /** Paths of directories, `.` being one, and of everything else. */
  dirs: string[] = ['.']
  files: string[] = []
  /** Odd paths, per mille. */
  readonly #odd: number
  readonly #largest: number
  readonly #table: [name: string, operation: Operation][] = []
  readonly #limits: number[] = []
  #sum = 0

  constructor(seed: number, abilities: Abilities, table: Readonly<Record<string, Operation>>) {
    super(Math.imul(seed, 0x9e3779b1) + 0x7f4a7c15)
    this.abilities = abilities
    this.groups = this.#chooseGroups()
    this.#odd = this.pick([0, 30, 100])
    this.#largest = this.pick([5000, 70_000, 300_000, 1 << 20])
    for (const entry of Object.entries(table)) {
      const { group, weight } = entry[1]
      if (!this.groups.has(group) || this.lacks(entry[0])) continue
      this.#table.push(entry)
      this.#limits.push(this.#sum += weight)
    }
  }

  #chooseGroups(): Set<Group> {
    const groups = new Set<Group>(['open', 'data', 'names'])
    for (const group of OPTIONAL) if (this.below(10) < (group === 'users' ? 3 : 7)) groups.add(group)
    if (this.lacks('privileges')) groups.delete('privileges')
    if (!this.abilities.xattrs) groups.delete('xattrs')
    if (!this.abilities.acls) groups.delete('acls')
    for (const { group, without } of exclusions) if (groups.has(group)) for (const other of without) groups.delete(other)
    return groups
  }

  lacks(what: string): boolean {
    return this.abilities.lacks.includes(what)
  }

  next(): Op {
    const at = this.below(this.#sum)
    let i = 0
    while (this.#limits[i]! <= at) i++
    const [name, { make }] = this.#table[i]!
    return [name, ...make(this)]
  }

  pick<T>(from: readonly T[]): T {
    return from[this.below(from.length)]!
  }

  chance(percent: number): boolean {
    return this.below(100) < percent
  }

  slot(): number {
    // some slots are used more, so that files stay open for a while and are used often
    return this.chance(70) ? this.below(3) : this.below(SLOTS)
  }

  /** Bits chosen one by one. */
  bits(from: readonly number[], percent: number): number {
    let bits = 0
    for (const bit of from) if (this.chance(percent)) bits |= bit
    return bits
  }

  name(): string {
    const i = this.below(100)
    if (i < 75) return NAMES[this.below(9)]!
    if (i < 98 || this.#odd === 0) return this.pick(NAMES)
    // any byte but NUL and /
    return i === 98 ? TOO_LONG_NAME : String.fromCharCode(1 + this.below(0x2e), 0x30 + this.below(0xd0))
  }

  /** A name in a known directory. */
  fresh(): string {
    const dir = this.pick(this.dirs)
    return this.#decorate(dir === '.' ? this.name() : `${dir}/${this.name()}`)
  }

  file(): string {
    return this.files.length === 0 || this.chance(15) ? this.any() : this.#decorate(this.pick(this.files))
  }

  dir(): string {
    return this.chance(15) ? this.any() : this.#decorate(this.pick(this.dirs))
  }

  any(): string {
    const i = this.below(10)
    if (i < 5 && this.files.length > 0) return this.#decorate(this.pick(this.files))
    return i < 8 ? this.#decorate(this.pick(this.dirs)) : this.fresh()
  }

  /** For calls that have no form with a directory to start at. */
  absolute(path: string): string {
    return path[0] === '@' ? path.slice(3) : path
  }

  /** What a path may also look like. Never absolute: the sides would meet there. */
  #decorate(path: string): string {
    if (this.below(1000) >= this.#odd) return path
    switch (this.below(12)) {
      case 0: return `${path}/`
      case 1: return `${path}/.`
      case 2: return `${path}/..`
      case 3: return `./${path}`
      case 4: return path.replace('/', '//')
      case 5: return `${this.pick(this.dirs)}/../${path}`
      case 6: return `${path}/${this.name()}`
      case 7: return ''
      case 8: return `${path}///`
      default: return `@${this.slot()}/${this.name()}`
    }
  }

  mode(): number {
    let mode = this.#anyMode()
    if (!this.groups.has('privileges')) mode &= ~0o6000
    return mode
  }

  /** A mode that the umask may take execution by the group out of. */
  newMode(): number {
    return this.groups.has('users') ? this.mode() & ~0o2000 : this.mode()
  }

  #anyMode(): number {
    return this.chance(60) ? this.pick([0o644, 0o755, 0o600, 0o777, 0o666]) : this.chance(50) ? this.below(0o1000) : this.below(0o10000)
  }

  /** How many bytes, often around page and block sizes. */
  length(): number {
    const i = this.below(20)
    if (i < 1) return 0
    if (i < 8) return this.below(300)
    if (i < 14) return Math.min(this.#largest, this.pick([511, 512, 4095, 4096, 4097, 8192, 12288, 65536, 131072]))
    if (i < 19) return this.below(Math.min(this.#largest, 40_000))
    return this.below(this.#largest)
  }

  offset(): number {
    const i = this.below(20)
    if (i < 4) return 0
    if (i < 12) return this.below(Math.min(this.#largest, 20_000))
    if (i < 16) return this.below(this.#largest >>> 12) * 4096 + this.pick([0, 0, 1, 4095])
    return this.below(this.#largest)
  }

  madeFile(path: string): void {
    this.#made(this.files, path)
  }

  madeDir(path: string): void {
    if (path.split('/').length < MAX_DEPTH) this.#made(this.dirs, path)
  }

  #made(list: string[], path: string): void {
    if (path[0] === '@' || path.includes('..')) return
    if (list.length < KNOWN) list.push(path)
    else list[1 + this.below(list.length - 1)] = path
  }

  /** Takes what the plain side really has. */
  known(dirs: string[], files: string[]): void {
    this.dirs = dirs.filter(dir => dir.split('/').length < MAX_DEPTH)
    this.files = files
  }
}
