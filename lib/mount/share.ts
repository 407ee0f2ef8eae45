/**
 * A second mount of a tag that is mounted: one session, one superblock, as the kernel's driver has
 * it (virtio_fs_get_tree, sget_fc). Made as a bind mount, so the session ends, and DESTROY is sent,
 * when the last of them is unmounted.
 */
import { existsSync } from 'node:fs'
import { UsageError } from '../errors.js'
import { bindMount } from '../sys/mount.js'
import { COMMAND_NAMES } from './command-names.js'
import { MS_RDONLY } from './flags.js'
import { findLiveMount, type LiveMount } from './live-tags.js'
import { FS_TYPE, readMounts } from './mountinfo.js'
import { nearest } from './nearest.js'
import { prepareMountpoint } from './mountpoint.js'
import type { MountOptions } from './options.js'

/**
 * The live mount that a source names, when it is a tag and nothing else.
 * @throws UsageError when it is nothing, but like a command
 */
export async function findShared(source: string, options: MountOptions): Promise<LiveMount | undefined> {
  if (source.includes('/') || source.startsWith('unix:') || options.socket !== undefined || existsSync(source)) return undefined
  const live = await findLiveMount(source)
  const command = live ? undefined : nearest(source, COMMAND_NAMES)
  if (command !== undefined) throw new UsageError(`source ${source}: no such directory, socket or tag (did you mean the command ${command}?)`, 'ENOENT')
  return live
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
