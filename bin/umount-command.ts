/** `virtiofs-bridge umount`. */
import { setTimeout as sleep } from 'node:timers/promises'
import { errno, UsageError } from '../lib/errors.js'
import { unmountError, unmountPath } from '../lib/mount/dev-fuse.js'
import { MNT_DETACH } from '../lib/mount/flags.js'
import { findLiveMount, liveMounts } from '../lib/mount/live-tags.js'
import { findMount, FS_TYPE, readMounts } from '../lib/mount/mountinfo.js'
import { resolveMountpoint } from '../lib/mount/mountpoint.js'
import { abortConnection } from '../lib/sys/abort.js'
import { ExitCode } from './exit-codes.js'
import { noMount } from './no-mount.js'
import { withProgress } from './progress.js'

/** How long the session may take to end once nothing is mounted any more, in milliseconds. */
const END_TIMEOUT_MS = 30_000

/**
 * @param target a mount point, or the tag of a live mount: then everywhere it is mounted
 * @returns the exit code
 */
export async function umountCommand(target: string, { lazy, abort }: { lazy: boolean, abort: boolean }): Promise<number> {
  const { paths, connection, id } = await resolveTarget(target)
  // afterwards the kernel may have given the number of the connection to somebody else
  const last = placesOf(connection).length <= paths.length
  if (abort) abortConnection(connection, paths[0]!)
  for (const path of paths) {
    let error = await withProgress(`unmounting ${path}`, unmountPath(path, lazy ? MNT_DETACH : 0))
    if (error === -errno.EBUSY && abort) error = await unmountPath(path, MNT_DETACH)
    if (error === -errno.EBUSY) throw new UsageError(`${path} is in use (--lazy detaches it now, --abort gives errors to those who use it)`, 'EBUSY')
    if (error < 0) throw unmountError(path, error)
  }
  if (!lazy && last && id !== undefined) await withProgress('waiting for the session to end', untilEnded(id))
  return ExitCode.OK
}

function placesOf(connection: number): string[] {
  return readMounts().filter(entry => entry.type === FS_TYPE && entry.minor === connection).map(entry => entry.mountpoint).reverse()
}

interface Target {
  paths: string[]
  connection: number
  /** Of the session, when it lives. */
  id: string | undefined
}

async function resolveTarget(target: string): Promise<Target> {
  if (target === '') throw new UsageError('the mount point is empty')
  const path = resolveMountpoint(target)
  const entry = findMount(path)
  if (entry?.type === FS_TYPE) {
    return { paths: [path], connection: entry.minor, id: liveMounts().find(live => live.connection === entry.minor)?.id }
  }
  const live = await findLiveMount(target)
  const paths = live ? placesOf(live.connection) : []
  if (!live || paths.length === 0) throw noMount(target)
  return { paths, connection: live.connection, id: live.id }
}

/** The bridge gives its tag back when the session has ended and everything is freed. */
async function untilEnded(id: string): Promise<void> {
  const deadline = performance.now() + END_TIMEOUT_MS
  while (liveMounts().some(live => live.id === id) && performance.now() < deadline) await sleep(5)
}
