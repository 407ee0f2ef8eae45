/** A mount, in the foreground or as a daemon. */
import { parseArgs } from 'node:util'
import type { MountRequest } from '../lib/mount/mount.js'
import { parseMountOptions } from '../lib/mount/options.js'
import { ExitCode } from './exit-codes.js'
import { withProgress } from './progress.js'

/** @returns the exit code @throws what the mount throws */
export async function runMount(request: MountRequest, foreground: boolean): Promise<number> {
  const { source, mountpoint, options = {} } = request
  // a word and not a path: the tag of a live mount, perhaps
  if (!source.includes('/') && !/^(unix|exec|ssh):/.test(source) && options.socket === undefined) {
    const { findShared, shareMount } = await import('../lib/mount/share.js')
    const live = await findShared(source, options)
    if (live) {
      await shareMount(live, mountpoint, options)
      return ExitCode.OK
    }
  }
  if (!foreground) return await withProgress(`mounting ${source}`, (await import('./daemon.js')).startDaemon(request))
  const { mountCommand, terminal } = await import('./mount-command.js')
  const log = options.log === undefined ? terminal : (await import('../lib/mount/log.js')).openLog(options.log)
  if (options.supervise) return await (await import('./supervise-command.js')).superviseCommand(request, () => {}, log, false)
  return await mountCommand(request, () => {}, log)
}

/**
 * The most common command line, `SOURCE MOUNTPOINT [-o OPTIONS] [-f]`, without the parser for all the
 * others, whose loading costs more than Node's own start (native-notes/performance.md).
 *
 * @returns undefined when it is anything else, right or wrong
 */
export function parsePlainMount(args: string[]): { request: MountRequest, foreground: boolean } | undefined {
  let parsed
  try {
    parsed = parseArgs({ args, allowPositionals: true, options: { o: { type: 'string', short: 'o', multiple: true }, foreground: { type: 'boolean', short: 'f' } } })
  } catch {
    return undefined
  }
  const [source, mountpoint, ...more] = parsed.positionals
  if (source === undefined || mountpoint === undefined || more.length > 0 || COMMANDS.has(source)) return undefined
  return { request: { source, mountpoint, options: parseMountOptions(parsed.values.o ?? []) }, foreground: parsed.values.foreground ?? false }
}

/** The names of the table of commands, which is not loaded for this. A source of such a name is written ./NAME. */
const COMMANDS = new Set(['mount', 'umount', 'status', 'stats', 'replace', 'trace', 'probe', 'relay', 'doctor', 'install', 'uninstall', 'completion', 'help'])
