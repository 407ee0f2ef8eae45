/** Calls on directory entries, by descriptor and address. Each returns its result or −errno. */
import { bind, result } from './libc.js'

const c_mkdirat = bind('int mkdirat(int, uintptr_t, uint32_t)')
const c_mknodat = bind('int mknodat(int, uintptr_t, uint32_t, uint64_t)')
const c_symlinkat = bind('int symlinkat(uintptr_t, int, uintptr_t)')
const c_linkat = bind('int linkat(int, uintptr_t, int, uintptr_t, int)')
const c_unlinkat = bind('int unlinkat(int, uintptr_t, int)')
const c_renameat2 = bind('int renameat2(int, uintptr_t, int, uintptr_t, uint32_t)')
const c_getdents64 = bind('int64_t getdents64(int, uintptr_t, size_t)')

export function mkdirat(dirFd: number, name: number, mode: number): number {
  return result(c_mkdirat(dirFd, name, mode))
}

/** @param device as the kernel encodes it in 32 bits (new_encode_dev) */
export function mknodat(dirFd: number, name: number, mode: number, device: number): number {
  return result(c_mknodat(dirFd, name, mode, device))
}

export function symlinkat(target: number, dirFd: number, name: number): number {
  return result(c_symlinkat(target, dirFd, name))
}

export function linkat(oldDirFd: number, oldName: number, dirFd: number, name: number, flags: number): number {
  return result(c_linkat(oldDirFd, oldName, dirFd, name, flags))
}

export function unlinkat(dirFd: number, name: number, flags: number): number {
  return result(c_unlinkat(dirFd, name, flags))
}

export const RENAME_NOREPLACE = 1
export const RENAME_EXCHANGE = 2
export const RENAME_WHITEOUT = 4

export function renameat2(oldDirFd: number, oldName: number, dirFd: number, name: number, flags: number): number {
  return result(c_renameat2(oldDirFd, oldName, dirFd, name, flags))
}

/** @returns bytes of struct linux_dirent64, 0 at the end */
export function getdents64(fd: number, address: number, lengthBytes: number): number {
  return result(c_getdents64(fd, address, lengthBytes))
}

/** struct linux_dirent64: u64 d_ino, s64 d_off, u16 d_reclen, u8 d_type, char d_name[] */
export const LinuxDirent64 = { d_ino: 0, d_off: 8, d_reclen: 16, d_type: 18, d_name: 19 } as const
