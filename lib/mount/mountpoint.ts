/** Checks of a mount point before anything is set up. */
import { realpathSync, statSync } from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import { errorLine, systemReason, UsageError } from '../errors.js'
import { MNT_DETACH } from './flags.js'
import { askMount } from './ask-mount.js'
import { unmountError, unmountPath } from './dev-fuse.js'
import { findMount, FS_TYPE } from './mountinfo.js'
import type { MountOptions } from './options.js'
import type { Source } from './source.js'

/**
 * Resolves a mount point without touching what is mounted there, which may be dead, or hang: only
 * when it is no mount of ours may its own last part be a symbolic link.
 */
export function resolveMountpoint(path: string): string {
  const absolute = resolve(path)
  let beside = absolute
  try {
    beside = join(realpathSync(dirname(absolute)), basename(absolute))
    return findMount(beside)?.type === FS_TYPE ? beside : realpathSync(absolute)
  } catch {
    return beside
  }
}

/**
 * Checks that a file system can be mounted here, and clears away a mount of ours whose process has
 * died.
 *
 * @returns the path to mount on, and its st_mode
 * @throws UsageError: empty, missing, not a directory, already mounted
 */
export async function prepareMountpoint(path: string): Promise<{ path: string, mode: number }> {
  if (path === '') throw new UsageError('the mount point is empty')
  const target = resolveMountpoint(path)
  const mounted = findMount(target)
  if (mounted?.type === FS_TYPE) {
    if (await askMount(target) !== 'dead') throw new UsageError(`${path} is already mounted (${mounted.source})`, 'EBUSY')
    const error = await unmountPath(target, MNT_DETACH)
    if (error < 0) throw new UsageError(`mount point ${path}: the mount that is there is dead, and ${errorLine(unmountError(target, error))}`, 'EPERM')
  }
  let stat
  try {
    stat = statSync(target)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    throw new UsageError(code === 'ENOENT' ? `mount point ${path} does not exist` : `mount point ${path}: ${systemReason(error)}`, code ?? 'EIO')
  }
  if (!stat.isDirectory()) throw new UsageError(`mount point ${path} is not a directory`, 'ENOTDIR')
  return { path: target, mode: stat.mode }
}

/**
 * The emulated device knows its own mount when it comes across it. A virtiofsd asks the kernel, which
 * asks that virtiofsd, and nobody is answered any more.
 *
 * @param mountpoint resolved
 * @throws UsageError
 */
export function refuseInsideSource(mountpoint: string, source: Source, { backend }: MountOptions): void {
  if (backend === undefined || source.kind !== 'directory') return
  const root = realpathSync(source.path)
  if (mountpoint !== root && mountpoint.startsWith(root === '/' ? root : `${root}/`)) {
    throw new UsageError(`mount point ${mountpoint} is inside the source: virtiofsd would wait for itself (the emulated device does not: leave out backend=virtiofsd)`)
  }
}
