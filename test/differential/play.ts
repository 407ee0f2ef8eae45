/** Plays scripts on two directories at once, step by step, in one process that serves neither. */
import { chmodSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { errnoName } from '../../lib/errors.js'
import * as f from '../../lib/sys/file.js'
import { result } from '../../lib/sys/libc.js'
import { calls } from './calls.js'
import { compareNotes, removeContents, TreeComparison, type Mismatch } from './compare.js'
import { Generator, type Abilities } from './generator.js'
import { become } from './name-operations.js'
import type { Context } from './rules.js'
import type { Op, Operation } from './operation.js'
import { operations } from './operations.js'
import { cString, Side } from './side.js'

export interface Places {
  plain: string
  mount: string
  /** Where the files of the mount really are. */
  backing: string | undefined
}

export interface Difference extends Mismatch {
  /** How many steps had been made, the one that differs being the last. */
  steps: number
}

/** Directories between a place and the directory of a script, for paths that climb out of it. */
const NESTED = 'p/q/r/s'
/** File systems stamp with the time of the last tick, which comes late on a busy virtual machine. */
const TICK_MS = 400
const TREE_EVERY = 400

/** A fresh directory on each side, and the steps made there so far. */
export class Pair {
  readonly #plain: Side
  readonly #mount: Side
  readonly #backing: Side | undefined
  readonly #places: Places
  readonly #name: string
  readonly #context: Context
  /** When each step began, by Date.now. */
  readonly #begun: number[] = []
  #user = 0
  dirs: string[] = []
  files: string[] = []

  /** @param writeback the mount has a write-back cache */
  constructor(places: Places, name: string, writeback: boolean) {
    this.#places = places
    this.#name = name
    this.#begun.push(Date.now())
    for (const place of [places.plain, places.mount]) makeRoot(join(place, name))
    this.#plain = this.#side('plain', places.plain)
    this.#mount = this.#side('mount', places.mount, this.#plain)
    this.#backing = places.backing === undefined ? undefined : this.#side('backing', places.backing, this.#plain)
    this.#context = { sameMoment: (a, b) => this.#sameMoment(a, b), writeback, behind: false }
    calls.umask(0o22)
  }

  #side(name: string, place: string, leader?: Side): Side {
    return new Side(name, join(place, this.#name), join(place, this.#name, NESTED), leader)
  }

  get steps(): number {
    return this.#begun.length - 1
  }

  /** The return value that the plain side noted last, for what follows from a success. */
  get succeeded(): boolean {
    const value = this.#plain.values[0]
    return typeof value === 'number' && value >= 0
  }

  /** Whether the earlier time can be of the step in which the later one was stamped. */
  #sameMoment(a: bigint, b: bigint): boolean {
    const earlier = Number((a < b ? a : b) / 1000n) / 1000
    const later = Number((a < b ? b : a) / 1000n) / 1000
    if (later > Date.now() + TICK_MS || earlier < this.#begun[0]! - TICK_MS) return false
    let low = 0
    let high = this.#begun.length - 1
    while (low < high) {
      const middle = (low + high + 1) >> 1
      if (this.#begun[middle]! <= later) low = middle
      else high = middle - 1
    }
    return earlier >= this.#begun[low]! - TICK_MS
  }

  /** Makes one step on both sides. */
  step([name, ...args]: Op): Difference | undefined {
    const { run } = operations[name] as Operation
    this.#begun.push(Date.now())
    if (name === 'as' || name === 'umask') {
      // of the process, and so of both sides
      run(this.#plain, ...args as never[])
      if (name === 'as') this.#user = args[0] as number
      return undefined
    }
    this.#run(this.#plain, run, args)
    this.#run(this.#mount, run, args)
    return this.#found(compareNotes(this.#plain, this.#mount, this.#context))
  }

  #run(side: Side, run: Operation['run'], args: readonly unknown[]): void {
    side.clear()
    const failed = result(calls.fchdir(side.root))
    if (failed < 0) side.note('cwd', failed)
    else run(side, ...args as never[])
  }

  #found(mismatch: Mismatch | undefined): Difference | undefined {
    return mismatch && { steps: this.steps, ...mismatch }
  }

  /** Compares the trees through the mount; and, once everything is written back, where they really are. */
  tree(): Difference | undefined {
    become(0)
    try {
      const through = new TreeComparison(this.#plain, this.#mount, this.#context)
      const mismatch = through.run()
      this.dirs = through.dirs
      this.files = through.files
      return this.#found(mismatch)
    } finally {
      become(this.#user)
    }
  }

  /** Compares with what the server has really stored. */
  stored(): Difference | undefined {
    if (!this.#backing) return undefined
    become(0)
    try {
      const failed = result(calls.syncfs(this.#mount.root))
      if (failed < 0) return this.#found({ what: 'syncfs', plain: '0', mount: errnoName(-failed) })
      const mismatch = new TreeComparison(this.#plain, this.#backing, { ...this.#context, behind: true }).run()
      return this.#found(mismatch && { ...mismatch, what: `stored ${mismatch.what}` })
    } finally {
      become(this.#user)
    }
  }

  /** Closes and removes everything. */
  end(): void {
    become(0)
    process.chdir('/')
    for (const side of [this.#plain, this.#mount, ...this.#backing ? [this.#backing] : []]) side.end()
    for (const place of [this.#places.plain, this.#places.mount]) {
      const fd = result(calls.openat(f.AT_FDCWD, cString(place), f.O_RDONLY | f.O_DIRECTORY | f.O_CLOEXEC, 0))
      removeContents(fd)
      calls.close(fd)
    }
  }
}

function makeRoot(path: string): void {
  mkdirSync(path)
  chmodSync(path, 0o755)
  mkdirSync(join(path, NESTED), { recursive: true })
  for (let at = NESTED; at !== ''; at = at.slice(0, Math.max(0, at.lastIndexOf('/')))) chmodSync(join(path, at), at === NESTED ? 0o777 : 0o755)
}

export interface Watch {
  /** Called before each step. */
  before: (step: number, op: Op) => void
}

/** Plays the steps of a seed until one differs. @returns the script so far and the difference, if any */
export function playSeed(pair: Pair, seed: number, steps: number, abilities: Abilities, watch: Watch): { script: Op[], difference: Difference | undefined } {
  const generator = new Generator(seed, abilities, operations)
  const script: Op[] = []
  for (let i = 1; i <= steps; i++) {
    const op = generator.next()
    script.push(op)
    watch.before(i, op)
    const difference = pair.step(op)
    if (difference) return { script, difference }
    if (pair.succeeded) operations[op[0]]!.learn?.(generator, ...op.slice(1) as never[])
    if (i % TREE_EVERY !== 0 && i !== steps) continue
    const wrong = pair.tree() ?? pair.stored()
    if (wrong) return { script, difference: wrong }
    generator.known(pair.dirs, pair.files)
  }
  return { script, difference: undefined }
}

/** Plays a script; the trees are compared at its end. */
export function playScript(pair: Pair, script: readonly Op[], watch: Watch): Difference | undefined {
  for (const [i, op] of script.entries()) {
    watch.before(i + 1, op)
    const difference = pair.step(op)
    if (difference) return difference
  }
  return pair.tree() ?? pair.stored()
}
