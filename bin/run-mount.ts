/** A mount, in the foreground or as a daemon. */
import { openLog } from '../lib/mount/log.js'
import type { MountRequest } from '../lib/mount/mount.js'
import { parseMountOptions } from '../lib/mount/options.js'
import { ExitCode } from './exit-codes.js'
import { mountCommand, terminal } from './mount-command.js'
import type { MountArguments } from './plain-mount.js'

/** @returns the exit code @throws what the mount throws */
export async function runMount(asked: MountArguments, foreground: boolean): Promise<number> {
  if (!foreground) return await (await import('./daemon.js')).startDaemon(asked)
  const { source, mountpoint, options, sloppy = false } = asked
  return await serveMount({ source, mountpoint, options: parseMountOptions(options, { sloppy }) }, () => {}, false)
}

/**
 * Mounts, and serves until the mount ends; or gives a live mount another mount point.
 *
 * @param usable called once the mount is
 * @param background whether that lets go of the terminal
 * @returns the exit code @throws what the mount throws
 */
export async function serveMount(request: MountRequest, usable: () => void, background: boolean): Promise<number> {
  if (await shareLive(request)) return ExitCode.OK
  const { options = {} } = request
  const log = background || options.log !== undefined ? openLog(options.log) : terminal
  if (options.supervise) return await (await import('./supervise-command.js')).superviseCommand(request, usable, log, background)
  return await mountCommand(request, usable, log)
}

/** A source that is a word and not a path is the tag of a live mount, perhaps. @returns whether it was */
async function shareLive({ source, mountpoint, options = {} }: MountRequest): Promise<boolean> {
  if (source.includes('/') || /^(unix|exec|ssh):/.test(source) || options.socket !== undefined) return false
  const { findShared, shareMount } = await import('../lib/mount/share.js')
  const live = await findShared(source, options)
  if (live) await shareMount(live, mountpoint, options)
  return live !== undefined
}
