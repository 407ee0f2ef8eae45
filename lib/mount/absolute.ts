/**
 * What a request names by paths, from whichever directory: it is used later too, by a process that has
 * gone to / or by another one, and shown to people who are elsewhere.
 */
import { isAbsolute, resolve } from 'node:path'
import type { MountOptions } from './options.js'

/** Options that are paths. */
const PATHS = ['socket', 'virtiofsd', 'traceJson', 'audit'] as const
/** Values of `log` that are no file. */
const LOGS: ReadonlySet<string> = new Set(['syslog', 'journal', 'none'])

/** Nothing stays nothing: resolved, it would be the current directory. */
export function absolutePath(path: string): string {
  return path === '' ? '' : resolve(path)
}

/** A source as it is shown: a path from the root, everything else as it was given. */
export function absoluteSource(source: string, { socket }: MountOptions): string {
  if (source.startsWith('unix:')) return `unix:${absolutePath(source.slice('unix:'.length))}`
  return socket !== undefined || /^(exec|ssh):/.test(source) ? source : absolutePath(source)
}

/** To be called before the first `await`: the caller may go elsewhere. */
export function absoluteOptions(options: MountOptions): MountOptions {
  const paths: MountOptions = {}
  for (const key of PATHS) if (options[key] !== undefined) paths[key] = absolutePath(options[key])
  const named = process.env['VIRTIOFSD']
  if (options.backend !== undefined && options.virtiofsd === undefined && named !== undefined && !isAbsolute(named)) paths.virtiofsd = absolutePath(named)
  if (options.log !== undefined && !LOGS.has(options.log)) paths.log = absolutePath(options.log)
  return { ...options, ...paths }
}
