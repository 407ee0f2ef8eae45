/** Aborting a FUSE connection: every caller gets an error, also one that no signal can reach. */
import { writeFileSync } from 'node:fs'
import { unmountFileSystemSync } from './mount.js'

const MNT_FORCE = 1

/**
 * Synchronous, so that a queue worker that fails can do it while the main thread waits for an
 * answer of that same worker.
 *
 * @param connection number under /sys/fs/fuse/connections
 * @param mountpoint for a system where fusectl is not mounted: umount -f aborts too
 */
export function abortConnection(connection: number, mountpoint: string): void {
  try {
    writeFileSync(`/sys/fs/fuse/connections/${connection}/abort`, '1')
  } catch {
    unmountFileSystemSync(mountpoint, MNT_FORCE)
  }
}
