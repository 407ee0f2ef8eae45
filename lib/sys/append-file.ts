/** Files of a user's own that are appended to: logs and traces. */
import { openSync } from 'node:fs'
import { systemReason, UsageError } from '../errors.js'

/**
 * @param option that names it
 * @returns a descriptor
 * @throws UsageError when it cannot be opened
 */
export function openToAppend(path: string, option: string): number {
  try {
    return openSync(path, 'a', 0o600)
  } catch (error) {
    throw new UsageError(`option ${option}=${path}: ${systemReason(error)}`, (error as NodeJS.ErrnoException).code ?? 'EIO')
  }
}
