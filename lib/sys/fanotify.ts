/**
 * fanotify(7) with file handles: what happened to which entry of which directory, on a whole file
 * system. Constants: Linux include/uapi/linux/fanotify.h.
 */
import { bind, result } from './libc.js'

const c_fanotify_init = bind('int fanotify_init(uint32_t, uint32_t)')
const c_fanotify_mark = bind('int fanotify_mark(int, uint32_t, uint64_t, int, uintptr_t)')

export const FAN_MODIFY = 0x2
export const FAN_ATTRIB = 0x4
export const FAN_CLOSE_WRITE = 0x8
export const FAN_MOVED_FROM = 0x40
export const FAN_MOVED_TO = 0x80
export const FAN_CREATE = 0x100
export const FAN_DELETE = 0x200
export const FAN_Q_OVERFLOW = 0x4000
export const FAN_ONDIR = 0x4000_0000

/** fanotify_init. FAN_REPORT_TARGET_FID is of Linux 5.17, the rest of 5.9 or older. */
export const FAN_CLOEXEC = 0x1
export const FAN_NONBLOCK = 0x2
export const FAN_UNLIMITED_QUEUE = 0x10
export const FAN_REPORT_TID = 0x100
export const FAN_REPORT_FID = 0x200
export const FAN_REPORT_DFID_NAME = 0xc00
export const FAN_REPORT_TARGET_FID = 0x1000

export const FAN_MARK_ADD = 0x1
export const FAN_MARK_FILESYSTEM = 0x100

/** struct fanotify_event_metadata. */
export const FanMetadata = { event_len: 0, metadata_len: 6, mask: 8, fd: 16, pid: 20, SIZE: 24 } as const
/** struct fanotify_event_info_fid: what stands before its struct file_handle, behind which DFID_NAME has a name. */
export const FanInfo = { info_type: 0, len: 2, fsid: 4, SIZE: 12 } as const
/** struct file_handle, without its bytes. */
export const FanHandle = { handle_bytes: 0, handle_type: 4, SIZE: 8 } as const
export const FAN_EVENT_INFO_TYPE_FID = 1
export const FAN_EVENT_INFO_TYPE_DFID_NAME = 2
export const FAN_EVENT_INFO_TYPE_DFID = 3

const O_LARGEFILE = 0o100000

/** A group of notifications; the caller owns the descriptor. @returns it or −errno */
export function fanotifyInit(flags: number): number {
  return result(c_fanotify_init(flags, O_LARGEFILE))
}

/** @param target readable descriptor of what is marked @returns 0 or −errno */
export function fanotifyMark(fd: number, flags: number, mask: number, target: number): number {
  return result(c_fanotify_mark(fd, flags, mask, target, 0))
}
