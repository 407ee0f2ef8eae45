/** What is said of a mount that there is not. */
import { resolve } from 'node:path'
import { UsageError } from '../lib/errors.js'
import { FS_TYPE, readMounts } from '../lib/mount/mountinfo.js'

/** @param target what was given as a mount point or a tag. Nothing is touched: what it is in may hang */
export function noMount(target: string): UsageError {
  const path = resolve(target)
  const ours = readMounts().filter(({ type }) => type === FS_TYPE)
  const around = ours.findLast(({ mountpoint }) => path.startsWith(`${mountpoint}/`))
  const of = ours.findLast(({ source }) => source === path)
  const hint = around ? `it is in the mount ${around.mountpoint}` : of ? `${path} is mounted on ${of.mountpoint}` : ''
  return new UsageError(`${target} is not a mount of virtiofs-bridge${hint === '' ? '' : ` (${hint})`}`, 'ENOENT')
}
