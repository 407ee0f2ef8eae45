/**
 * The most common command line, `SOURCE MOUNTPOINT [-o OPTIONS] [-f]`, without the parser for all the
 * others, whose loading costs more than Node's own start (native-notes/performance.md).
 */
import { parseArgs } from 'node:util'
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

/** The names of the table of commands, which is not loaded for this. A source of such a name is written ./NAME. */
const COMMANDS = new Set(['mount', 'umount', 'status', 'stats', 'replace', 'trace', 'probe', 'relay', 'doctor', 'install', 'uninstall', 'completion', 'help'])

/** @returns undefined when it is anything else, right or wrong */
export function plainMount(args: string[]): MountArguments & { foreground: boolean } | undefined {
  let parsed
  try {
    parsed = parseArgs({ args, allowPositionals: true, options: { o: { type: 'string', short: 'o', multiple: true }, foreground: { type: 'boolean', short: 'f' } } })
  } catch {
    return undefined
  }
  const [source, mountpoint, ...more] = parsed.positionals
  if (source === undefined || mountpoint === undefined || more.length > 0 || COMMANDS.has(source)) return undefined
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
