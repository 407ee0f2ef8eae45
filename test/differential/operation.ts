/** What an operation of the fuzzer is, and the script that a run of them leaves. */
import type { Generator } from './generator.js'
import type { Side } from './side.js'

export type Arg = number | string

/** One step: the name of an operation and its arguments. A script of them can be replayed. */
export type Op = readonly [name: string, ...args: Arg[]]

/** Operations of a group are on or off together, at random for each seed. */
export type Group = 'open' | 'data' | 'names' | 'links' | 'special' | 'attributes' | 'times' | 'directories' | 'xattrs' | 'space' | 'seek' | 'copy' | 'mmap' | 'users' | 'acls' | 'privileges'

export interface Operation {
  group: Group
  /** How often it is chosen, in comparison with others. */
  weight: number
  make: (g: Generator) => readonly Arg[]
  run: (side: Side, ...args: never[]) => void
  /** What a success on the plain side teaches the generator. */
  learn: ((g: Generator, ...args: never[]) => void) | undefined
}

/** Keeps the arguments' types together. */
export function operation<A extends [] | Arg[]>(group: Group, weight: number, make: (g: Generator) => A, run: (side: Side, ...args: A) => void, learn?: (g: Generator, ...args: A) => void): Operation {
  return { group, weight, make, run: run as Operation['run'], learn: learn as Operation['learn'] }
}

function formatArg(arg: Arg): string {
  if (typeof arg === 'number') return String(arg)
  // bytes that are not ASCII stay readable, and what is repeated stays short
  const text = `'${arg.replace(/[\\']/g, '\\$&').replace(/[^\x20-\x7e]/g, byte => `\\x${byte.charCodeAt(0).toString(16).padStart(2, '0')}`)}'`
  const long = /^'(.)\1{60,}'$/.exec(text)
  return long ? `'${long[1]}'.repeat(${arg.length})` : text
}

/** A step as TypeScript. */
export function formatOp([name, ...args]: Op): string {
  return `['${name}'${args.map(arg => `, ${formatArg(arg)}`).join('')}]`
}
