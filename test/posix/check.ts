/** What a posix check is, and what all of them use. */
import assert from 'node:assert/strict'
import { closeSync, openSync, statSync, lstatSync, type BigIntStats } from 'node:fs'
import { errnoName } from '../../lib/errors.js'
import type { Path } from '../support/posix-call.js'
import type { Feature } from '../support/posix-features.js'
import type { Sys } from '../support/posix-sys.js'

export interface Check {
  /** What holds, in words; with the noun of its group it is unique. */
  name: string
  /** Who says so: a function and clause of POSIX.1-2017, a man page and its section, or a kernel source file. */
  cites: string
  /** Without these the check makes no sense. They are probed where the files really are. */
  needs?: readonly Feature[]
  /**
   * Throws when it does not hold.
   * @param dir a directory of its own, empty, mode 0777
   */
  run(dir: string, sys: Sys): void | Promise<void>
}

export interface Group {
  noun: string
  checks: readonly Check[]
}

/** The group's needs are those of each of its checks. */
export function group(noun: string, checks: readonly Check[], needs: readonly Feature[] = []): Group {
  return { noun, checks: checks.map(check => ({ ...check, needs: [...needs, ...check.needs ?? []] })) }
}

/** Asserts that a call fails with an error of this code. @param code one, or those that the source allows */
export function fails(code: string | readonly string[], call: () => unknown): void {
  const codes = typeof code === 'string' ? [code] : code
  let value: unknown
  try {
    value = call()
  } catch (error) {
    const { code: got, errno } = error as NodeJS.ErrnoException
    // Node has no name for some errors
    const name = got?.startsWith('E') ? got : errnoName(Math.abs(errno ?? 0))
    if (got === undefined) throw error
    assert.ok(codes.includes(name), `expected ${codes.join(' or ')}, got ${name}: ${(error as Error).message}`)
    return
  }
  if (typeof value === 'number' && value > 2) closeSync(value)
  assert.fail(`expected ${codes.join(' or ')}, but the call succeeded`)
}

/** stat(2) with 64-bit fields and nanoseconds. */
export function stat(path: Path): BigIntStats {
  return statSync(path, { bigint: true })
}

export function lstat(path: Path): BigIntStats {
  return lstatSync(path, { bigint: true })
}

/** Permission bits with suid, sgid and sticky. */
export function modeOf(path: Path): number {
  return Number(stat(path).mode) & 0o7777
}

/** Asserts a mode, shown in octal. */
export function hasMode(path: Path, mode: number): void {
  assert.equal(modeOf(path).toString(8), mode.toString(8), `mode of ${String(path)}`)
}

/** Makes an empty file. */
export function touch(path: Path, mode = 0o644): void {
  closeSync(openSync(path, 'wx', mode))
}

/** Lets the clock of file times go on: it advances with the timer tick, of 10 ms at most. */
export function tick(): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 12)
}

/** Asserts which of a file's times a call marks for update, and that the others stay. */
export function marks(path: Path, expected: readonly ('atime' | 'mtime' | 'ctime')[], call: () => void, kept: readonly ('atime' | 'mtime' | 'ctime')[] = []): void {
  const before = lstat(path)
  tick()
  call()
  const after = lstat(path)
  for (const name of expected) assert.ok(after[`${name}Ns`] > before[`${name}Ns`], `${name} of ${String(path)} is not newer`)
  for (const name of kept) assert.equal(after[`${name}Ns`], before[`${name}Ns`], `${name} of ${String(path)} changed`)
}
