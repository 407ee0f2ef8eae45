/** Where a virtiofsd is. */
import { accessSync, constants } from 'node:fs'
import { delimiter, resolve } from 'node:path'
import { UsageError } from '../errors.js'

const USUAL_PLACES = ['/usr/libexec/virtiofsd', '/usr/lib/virtiofsd', '/usr/lib/qemu/virtiofsd']

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

/** The programs of this name in $PATH, the first that would be run first. */
export function programs(name: string): string[] {
  return (process.env['PATH'] ?? '').split(delimiter).filter(dir => dir !== '').map(dir => resolve(dir, name)).filter(isExecutable)
}

/** Those in $PATH and the usual places, in the order in which they are looked for. */
export function allVirtiofsds(): string[] {
  return [...new Set([...programs('virtiofsd'), ...USUAL_PLACES.filter(isExecutable)])]
}

/** @param given named by the caller; else $VIRTIOFSD counts @returns a path from the root @throws UsageError when there is none */
export function findVirtiofsd(given: string | undefined): string {
  const named = given ?? process.env['VIRTIOFSD']
  if (named !== undefined) {
    if (!isExecutable(named)) throw new UsageError(`virtiofsd ${named}${given === undefined ? ' (of $VIRTIOFSD)' : ''} is not an executable file`, 'ENOENT')
    return resolve(named)
  }
  const [found] = allVirtiofsds()
  if (found === undefined) throw new UsageError('no virtiofsd found (package virtiofsd, or -o virtiofsd=PATH)', 'ENOENT')
  return found
}
