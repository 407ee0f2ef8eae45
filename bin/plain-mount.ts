/**
 * The most common command line, `SOURCE MOUNTPOINT [-o OPTIONS] [-f]`, without the parser for all the
 * others, whose loading costs more than Node's own start (native-notes/performance.md).
 */
import { parseArgs } from 'node:util'
import { COMMAND_NAMES } from '../lib/mount/command-names.js'
import { helperArguments } from './helper-arguments.js'

/** A mount as it was asked for. */
export interface MountArguments {
  source: string
  mountpoint: string
  /** Each a comma-separated list. */
  options: string[]
  /** Options that are not known are left out. */
  sloppy?: boolean
}

/** @returns undefined when it is anything else, right or wrong. A source that has the name of a command is written ./NAME. */
export function plainMount(args: string[]): MountArguments & { foreground: boolean } | undefined {
  let parsed
  try {
    parsed = parseArgs({ args, allowPositionals: true, options: { o: { type: 'string', short: 'o', multiple: true }, foreground: { type: 'boolean', short: 'f' } } })
  } catch {
    return undefined
  }
  const [source, mountpoint, ...more] = parsed.positionals
  if (source === undefined || mountpoint === undefined || more.length > 0 || COMMAND_NAMES.includes(source)) return undefined
  return { source, mountpoint, options: parsed.values.o ?? [], foreground: parsed.values.foreground ?? false }
}

/**
 * @param startedAs the command's own name
 * @returns undefined when it is anything else
 */
export function backgroundMount(startedAs: string, args: string[]): MountArguments | undefined {
  if (helperArguments(startedAs, args)) return undefined
  const plain = plainMount(args)
  return plain?.foreground ? undefined : plain
}
