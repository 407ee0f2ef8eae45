/**
 * A second mount of a tag that is mounted: one session, one superblock, as the kernel's driver has
 * it (virtio_fs_get_tree, sget_fc). Made as a bind mount, so the session ends, and DESTROY is sent,
 * when the last of them is unmounted.
 */
import { existsSync } from 'node:fs'
import { UsageError } from '../errors.js'
import { bindMount } from '../sys/mount.js'
import { MS_RDONLY } from './flags.js'
import { findLiveMount, type LiveMount } from './live-tags.js'
import { FS_TYPE, readMounts } from './mountinfo.js'
import { prepareMountpoint } from './mountpoint.js'
import type { MountOptions } from './options.js'

/** The live mount that a source names, when it is a tag and nothing else. */
export async function findShared(source: string, options: MountOptions): Promise<LiveMount | undefined> {
  if (source.includes('/') || source.startsWith('unix:') || options.socket !== undefined || existsSync(source)) return undefined
  return await findLiveMount(source)
}

/**
 * Mounts the session of a live mount at one more place.
 *
 * @throws UsageError, SyscallError (EPERM when not root)
 */
export async function shareMount(live: LiveMount, mountpoint: string, options: MountOptions): Promise<void> {
  const target = await prepareMountpoint(mountpoint)
  const existing = readMounts().findLast(entry => entry.type === FS_TYPE && entry.minor === live.connection)
  if (!existing) throw new UsageError(`tag "${live.tag}" is no longer mounted`, 'ENOENT')
  await bindMount(existing.mountpoint, target.path, ((options.mountFlags ?? 0) & MS_RDONLY) !== 0)
}
