/** Aborting a FUSE connection: every caller gets an error, also one that no signal can reach. */
import { writeFileSync } from 'node:fs'
import { close } from './io.js'
import { bind, result, syscall } from './libc.js'
import { unmountFileSystemSync } from './mount.js'

const MNT_FORCE = 1

// include/uapi/asm-generic/unistd.h (the same on x86-64), include/uapi/linux/mount.h
const SYS_FSOPEN = 430
const SYS_FSCONFIG = 431
const SYS_FSMOUNT = 432
const FSOPEN_CLOEXEC = 1
const FSMOUNT_CLOEXEC = 1
const FSCONFIG_CMD_CREATE = 6

const c_fsopen = bind('int64_t syscall(int64_t, const char *, int64_t)')

/** fusectl in a mount that nobody else sees and that ends with its descriptor. @returns the descriptor, the caller's, or −errno: EPERM without root */
function mountFusectl(): number {
  const context = result(c_fsopen(SYS_FSOPEN, 'fusectl', FSOPEN_CLOEXEC))
  if (context < 0) return context
  const made = syscall(SYS_FSCONFIG, context, FSCONFIG_CMD_CREATE)
  const mount = made < 0 ? made : syscall(SYS_FSMOUNT, context, FSMOUNT_CLOEXEC)
  close(context)
  return mount
}

/** @param connections the root of a fusectl */
function abortThrough(connections: string, connection: number): boolean {
  try {
    writeFileSync(`${connections}/${connection}/abort`, '1')
    return true
  } catch {
    return false
  }
}

/**
 * Synchronous, so that a queue worker that fails can do it while the main thread waits for an
 * answer of that same worker.
 *
 * @param connection number of it in fusectl, which need not be mounted
 * @param mountpoint for who may not mount fusectl: umount -f aborts too, but finds nothing that was detached
 */
export function abortConnection(connection: number, mountpoint: string): void {
  if (abortThrough('/sys/fs/fuse/connections', connection)) return
  const fusectl = mountFusectl()
  const aborted = fusectl >= 0 && abortThrough(`/proc/self/fd/${fusectl}`, connection)
  if (fusectl >= 0) close(fusectl)
  if (!aborted) unmountFileSystemSync(mountpoint, MNT_FORCE)
}
