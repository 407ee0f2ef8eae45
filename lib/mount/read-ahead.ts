/** The kernel's read-ahead of one mount: the window of sequential reading, which must be larger than what a long line holds. */
import { readFileSync, writeFileSync } from 'node:fs'
import { errorLine } from '../errors.js'

/**
 * Sets it, if it is smaller.
 *
 * @param connection number of the FUSE connection, which is the minor of its device
 * @returns '' or why it stays as it is
 */
export function raiseReadAhead(connection: number, kibibytes: number): string {
  const path = `/sys/class/bdi/0:${connection}/read_ahead_kb`
  try {
    if (Number(readFileSync(path, 'utf8')) < kibibytes) writeFileSync(path, String(kibibytes))
    return ''
  } catch (error) {
    return errorLine(error)
  }
}
