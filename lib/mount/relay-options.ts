/**
 * Options of a mount whose device is on another host: what the near end may ask for, and what the
 * far end makes of it. What the far end was started with cannot be changed from here: a command
 * that sshd forces (`command="virtiofs-bridge relay /srv/tree -o ro"`) stays what it is.
 */
import { UsageError } from '../errors.js'
import { optionTable, parseMountOptions, type Key, type MountOptions } from './options.js'

/** How a shared directory is served. Nothing here names a file or a program of the far host. */
export const FORWARDED: readonly Key[] = [
  'cache', 'writeback', 'xattr', 'posixAcl', 'xattrmap', 'translateUid', 'translateGid', 'hide', 'only', 'maxSize', 'allowDirectIo', 'readdirplus', 'readonly',
]

/**
 * @param own those of the far end
 * @param texts what the near end asks for, as for `-o`
 * @throws UsageError for an option that is not for it to choose, or that is set already
 */
export function farOptions(own: MountOptions, texts: readonly string[]): MountOptions {
  const { mountFlags: _, ...asked } = parseMountOptions(texts)
  for (const [key, value] of Object.entries(asked) as [Key, unknown][]) {
    const name = key === 'readonly' ? 'ro' : optionTable.find(row => row.key === key)!.name
    if (!FORWARDED.includes(key)) throw new UsageError(`option ${name} is not for the near end to choose`)
    if (own[key] !== undefined && JSON.stringify(own[key]) !== JSON.stringify(value)) throw new UsageError(`option ${name} is set otherwise at the far end`)
  }
  return { ...asked, ...own }
}
