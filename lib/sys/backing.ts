/**
 * Backing files of a FUSE connection: files that the kernel reads, writes and maps itself for the
 * server (FUSE passthrough, Linux 6.9). Source: include/uapi/linux/fuse.h, fs/fuse/backing.c.
 */
import { bind, result } from './libc.js'
import { scratch, type Region } from './memory.js'

const c_ioctl = bind('int ioctl(int, uint64_t, uintptr_t)')

/** _IOW(229, 1, struct fuse_backing_map) */
const FUSE_DEV_IOC_BACKING_OPEN = 0x4010e501
/** _IOW(229, 2, uint32_t) */
const FUSE_DEV_IOC_BACKING_CLOSE = 0x4004e502

/** One thread's way to give files to the kernel. */
export class BackingWindow {
  readonly #fuseFd: number
  /** struct fuse_backing_map: i32 fd, u32 flags, u64 padding */
  readonly #map: Region = scratch(16)

  constructor(fuseFd: number) {
    this.#fuseFd = fuseFd
  }

  /**
   * Gives an open file to the kernel, with the credentials of this thread.
   * @returns its id, more than 0, or −errno: EPERM without CAP_SYS_ADMIN, ELOOP on a stacked file
   * system, EOPNOTSUPP for a file that cannot be read and written
   */
  open(fd: number): number {
    this.#map.view.setInt32(0, fd, true)
    return result(c_ioctl(this.#fuseFd, FUSE_DEV_IOC_BACKING_OPEN, this.#map.address))
  }

  /** Forgets an id. Files open through it stay usable. @returns 0 or −errno */
  close(id: number): number {
    this.#map.view.setInt32(0, id, true)
    return result(c_ioctl(this.#fuseFd, FUSE_DEV_IOC_BACKING_CLOSE, this.#map.address))
  }
}
