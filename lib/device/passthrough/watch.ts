/**
 * Watching the file systems that a shared tree lies on: one fanotify group, one mark for each file
 * system. A mark is for the whole of it, since there is none for a tree.
 */
import { release } from 'node:os'
import { errno, errnoName, UsageError } from '../../errors.js'
import {
  FAN_ATTRIB, FAN_CLOEXEC, FAN_CLOSE_WRITE, FAN_CREATE, FAN_DELETE, FAN_MARK_ADD, FAN_MARK_FILESYSTEM, FAN_MODIFY, FAN_MOVED_FROM, FAN_MOVED_TO,
  FAN_NONBLOCK, FAN_ONDIR, FAN_REPORT_DFID_NAME, FAN_REPORT_FID, FAN_REPORT_TARGET_FID, FAN_REPORT_TID, FAN_UNLIMITED_QUEUE, fanotifyInit, fanotifyMark,
} from '../../sys/fanotify.js'
import { close } from '../../sys/io.js'

/** URL of the thread that reads the descriptor. */
export const WATCH_THREAD = new URL('./watch-thread.js', import.meta.url).href

/** Events that change what names there are in a directory. */
export const ENTRY_EVENTS = FAN_CREATE | FAN_DELETE | FAN_MOVED_FROM | FAN_MOVED_TO
/** Events that change data. A store to a mapping is only heard of when the file is closed. */
export const DATA_EVENTS = FAN_MODIFY | FAN_CLOSE_WRITE

const EVENTS = ENTRY_EVENTS | DATA_EVENTS | FAN_ATTRIB | FAN_ONDIR
const INIT = FAN_CLOEXEC | FAN_NONBLOCK | FAN_REPORT_TID | FAN_REPORT_FID | FAN_REPORT_DFID_NAME | FAN_REPORT_TARGET_FID

/**
 * The kernel's FUSE client has FUSE_NOTIFY_INC_EPOCH, which repairs a queue that overflowed, from
 * Linux 6.16 on. On older ones the queue must not overflow.
 */
function queueFlag(): number {
  const [major = 0, minor = 0] = release().split('.').map(Number)
  return major > 6 || (major === 6 && minor >= 16) ? 0 : FAN_UNLIMITED_QUEUE
}

/**
 * Starts watching.
 * @param mountFd readable descriptor on the file system of the shared directory, or negative when
 * that has no file handles
 * @returns the fanotify descriptor, which the caller owns
 * @throws UsageError when that cannot be done here
 */
export function openWatch(mountFd: number, root: string): number {
  const fd = fanotifyInit(INIT | queueFlag())
  if (fd === -errno.EPERM) throw new UsageError('cache=coherent: only root (CAP_SYS_ADMIN) may watch a file system', 'EPERM')
  if (fd === -errno.EINVAL) throw new UsageError('cache=coherent: needs Linux 5.17 or later', 'ENOSYS')
  if (fd < 0) throw new UsageError(`cache=coherent: fanotify_init: ${errnoName(-fd)}`, errnoName(-fd))
  const failed = mountFd < 0 ? -errno.EOPNOTSUPP : watchMount(fd, mountFd)
  if (failed === 0) return fd
  close(fd)
  const why = mountFd < 0 ? 'no file handles' : `fanotify_mark: ${errnoName(-failed)}`
  throw new UsageError(`cache=coherent: the file system of ${root} cannot be watched (${why})`, errnoName(-failed))
}

/**
 * Watches one more file system.
 * @param mountFd readable descriptor on it
 * @returns 0 or −errno
 */
export function watchMount(fanotifyFd: number, mountFd: number): number {
  return fanotifyMark(fanotifyFd, FAN_MARK_ADD | FAN_MARK_FILESYSTEM, EVENTS, mountFd)
}
