/** `virtiofs-bridge umount`. */
import { setTimeout as sleep } from 'node:timers/promises'
import { writeFileSync } from 'node:fs'
import { errno, UsageError } from '../lib/errors.js'
import { unmountError, unmountPath } from '../lib/mount/dev-fuse.js'
import { findMount, FS_TYPE, readMounts } from '../lib/mount/mountinfo.js'
import { resolveMountpoint } from '../lib/mount/mountpoint.js'
import { MNT_DETACH } from '../lib/mount/flags.js'
import { ExitCode } from './exit-codes.js'

/** @returns the exit code */
export async function umountCommand(mountpoint: string, { lazy, abort }: { lazy: boolean, abort: boolean }): Promise<number> {
  const path = resolveMountpoint(mountpoint)
  const entry = findMount(path)
  if (entry?.type !== FS_TYPE) throw new UsageError(`${mountpoint} is not a mount of virtiofs-bridge`, 'ENOENT')
  if (abort) {
    try {
      writeFileSync(`/sys/fs/fuse/connections/${entry.minor}/abort`, '1')
    } catch (error) {
      throw new UsageError(`cannot abort ${mountpoint}: ${(error as Error).message}`, 'EPERM')
    }
  }
  let error = await unmountPath(path, lazy ? MNT_DETACH : 0)
  if (error === -errno.EBUSY && abort) error = await unmountPath(path, MNT_DETACH)
  if (error < 0) throw unmountError(mountpoint, error)
  if (!lazy) await untilGone(entry.minor)
  return ExitCode.OK
}

/** The connection disappears when the bridge has closed it, which is the end of its session. */
async function untilGone(connection: number): Promise<void> {
  const deadline = performance.now() + 30_000
  while (readMounts().some(entry => entry.type === FS_TYPE && entry.minor === connection) && performance.now() < deadline) await sleep(5)
}
