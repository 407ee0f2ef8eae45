/** Whether the command was started as a helper of mount(8). */
import { basename } from 'node:path'

/** The word that makes the command a helper; what `install` puts in place says it. */
export const HELPER_COMMAND = 'mount-helper'

/** Where mount(8) looks for its helpers first. */
export const HELPER_DIRECTORY = '/sbin'

/** The arguments of a helper, when the command was started as one, by a name such as mount.fuse.virtiofs-bridge too. */
export function helperArguments(startedAs: string, args: string[]): string[] | undefined {
  if (args[0] === HELPER_COMMAND) return args.slice(1)
  return basename(startedAs).startsWith('mount.') ? args : undefined
}
