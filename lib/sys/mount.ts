/** mount(2), umount2(2) and the /dev/fuse device. */
import { errno, SyscallError } from '../errors.js'
import { bind, bindAsync, check, result } from './libc.js'
import { close } from './io.js'
import { scratch } from './memory.js'

const c_open = bind('int open(const char *, int, int)')
const c_mount = bindAsync('int mount(const char *, const char *, const char *, uint64_t, const char *)')
const c_umount2 = bindAsync('int umount2(const char *, int)')
const c_umount2Sync = bind('int umount2(const char *, int)')
const c_fcntl = bind('int fcntl(int, int, int)')
const c_ioctl = bind('int ioctl(int, uint64_t, uintptr_t)')

const O_RDWR = 2
const O_NONBLOCK = 0x800
const O_CLOEXEC = 0x80000
/** _IOR(229, 0, uint32_t) */
const FUSE_DEV_IOC_CLONE = 0x8004e500

/**
 * Opens /dev/fuse, non-blocking and close-on-exec: a child that inherited it would keep a dead
 * mount alive.
 *
 * @throws SyscallError ENOENT, ENODEV or ENXIO without FUSE in the kernel; EACCES, EPERM
 */
export function openFuse(path = '/dev/fuse'): number {
  return check(result(c_open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC, 0)), 'open', path)
}

const F_SETFD = 2
const F_SETFL = 4
const FD_CLOEXEC = 1

/** Makes an inherited /dev/fuse like one that `openFuse` has opened. @throws SyscallError */
export function takeOver(fuseFd: number): void {
  closeOnExec(fuseFd)
  check(result(c_fcntl(fuseFd, F_SETFL, O_NONBLOCK)), 'fcntl', 'F_SETFL')
}

/** Keeps a descriptor from children. @throws SyscallError */
export function closeOnExec(fd: number): void {
  check(result(c_fcntl(fd, F_SETFD, FD_CLOEXEC)), 'fcntl', 'F_SETFD')
}

/** A further descriptor of a mounted connection: what is read from it is answered on it. @throws SyscallError */
export function cloneFuse(fuseFd: number): number {
  const fd = openFuse()
  const argument = scratch(4)
  argument.view.setUint32(0, fuseFd, true)
  const error = result(c_ioctl(fd, FUSE_DEV_IOC_CLONE, argument.address))
  if (error < 0) {
    close(fd)
    throw new SyscallError('ioctl', -error, 'FUSE_DEV_IOC_CLONE')
  }
  return fd
}

/** mount(2) on the thread pool. @throws SyscallError */
export async function mountFileSystem(source: string, target: string, type: string, flags: number, data: string): Promise<void> {
  check(await c_mount(source, target, type, flags, data), 'mount', `${type} on ${target}`)
}

const MS_RDONLY = 1
const MS_REMOUNT = 32
const MS_BIND = 4096

/** Makes a mounted tree visible at a second place. @throws SyscallError */
export async function bindMount(source: string, target: string, readonly: boolean): Promise<void> {
  check(await c_mount(source, target, null, MS_BIND, null), 'mount', `${source} on ${target}`)
  // a bind mount takes its flags only from a second call
  if (readonly) check(await c_mount(null, target, null, MS_REMOUNT | MS_BIND | MS_RDONLY, null), 'mount', `${target} read-only`)
}

/** umount2(2) on the thread pool, for it writes back what is dirty and so waits for our own workers. @returns 0 or −errno */
export function unmountFileSystem(target: string, flags: number): Promise<number> {
  return c_umount2(target, flags)
}

/** umount2(2) on the calling thread, for one that has nobody else to ask. @returns 0 or −errno */
export function unmountFileSystemSync(target: string, flags: number): number {
  return result(c_umount2Sync(target, flags))
}

/** Errors of umount2 that mean that there is no such mount any more. */
export function isNotMounted(error: number): boolean {
  return error === -errno.EINVAL || error === -errno.ENOENT
}
