/** Extended attributes and POSIX ACLs in their kernel encoding. Each call throws SyscallError. */
import { bind } from '../../lib/sys/libc.js'
import { c, data, done, type Path } from './posix-call.js'

const c_setxattr = bind('int setxattr(uintptr_t, uintptr_t, uintptr_t, size_t, int)')
const c_lsetxattr = bind('int lsetxattr(uintptr_t, uintptr_t, uintptr_t, size_t, int)')
const c_fsetxattr = bind('int fsetxattr(int, uintptr_t, uintptr_t, size_t, int)')
const c_getxattr = bind('int64_t getxattr(uintptr_t, uintptr_t, uintptr_t, size_t)')
const c_lgetxattr = bind('int64_t lgetxattr(uintptr_t, uintptr_t, uintptr_t, size_t)')
const c_fgetxattr = bind('int64_t fgetxattr(int, uintptr_t, uintptr_t, size_t)')
const c_listxattr = bind('int64_t listxattr(uintptr_t, uintptr_t, size_t)')
const c_flistxattr = bind('int64_t flistxattr(int, uintptr_t, size_t)')
const c_removexattr = bind('int removexattr(uintptr_t, uintptr_t)')
const c_fremovexattr = bind('int fremovexattr(int, uintptr_t)')

export const XATTR_CREATE = 1
export const XATTR_REPLACE = 2
const ROOM = 1 << 17

function put(value: string | Uint8Array): number {
  const bytes = typeof value === 'string' ? Buffer.from(value) : value
  data.bytes.set(bytes)
  return bytes.length
}

export function setxattr(path: Path, name: string, value: string | Uint8Array, flags = 0): void {
  const length = put(value)
  done('setxattr', c_setxattr(c(path), c(name), data.address, length, flags))
}

export function lsetxattr(path: Path, name: string, value: string | Uint8Array, flags = 0): void {
  const length = put(value)
  done('lsetxattr', c_lsetxattr(c(path), c(name), data.address, length, flags))
}

export function fsetxattr(fd: number, name: string, value: string | Uint8Array, flags = 0): void {
  const length = put(value)
  done('fsetxattr', c_fsetxattr(fd, c(name), data.address, length, flags))
}

/** @param room bytes of the buffer; 0 asks for the size alone, and then the size is what comes back */
export function getxattr(path: Path, name: string, room = ROOM): Buffer {
  const length = done('getxattr', c_getxattr(c(path), c(name), data.address, room))
  return Buffer.from(data.bytes.subarray(0, length))
}

/** The size of a value, asked for with no buffer. */
export function xattrSize(path: Path, name: string): number {
  return done('getxattr', c_getxattr(c(path), c(name), 0, 0))
}

export function lgetxattr(path: Path, name: string): Buffer {
  const length = done('lgetxattr', c_lgetxattr(c(path), c(name), data.address, ROOM))
  return Buffer.from(data.bytes.subarray(0, length))
}

export function fgetxattr(fd: number, name: string): Buffer {
  const length = done('fgetxattr', c_fgetxattr(fd, c(name), data.address, ROOM))
  return Buffer.from(data.bytes.subarray(0, length))
}

function names(length: number): string[] {
  return Buffer.from(data.bytes.subarray(0, length)).toString().split('\0').slice(0, -1).sort()
}

export function listxattr(path: Path, room = ROOM): string[] {
  return names(done('listxattr', c_listxattr(c(path), data.address, room)))
}

export function flistxattr(fd: number): string[] {
  return names(done('flistxattr', c_flistxattr(fd, data.address, ROOM)))
}

export function listSize(path: Path): number {
  return done('listxattr', c_listxattr(c(path), 0, 0))
}

export function removexattr(path: Path, name: string): void {
  done('removexattr', c_removexattr(c(path), c(name)))
}

export function fremovexattr(fd: number, name: string): void {
  done('fremovexattr', c_fremovexattr(fd, c(name)))
}

export const ACL_ACCESS = 'system.posix_acl_access'
export const ACL_DEFAULT = 'system.posix_acl_default'

const tags = { user: 2, group: 8, mask: 0x10, other: 0x20, ownerUser: 1, ownerGroup: 4 } as const

/**
 * An ACL as linux/posix_acl_xattr.h has it, from entries such as `u::rw-`, `u:1000:r--`, `m::rwx`,
 * given in the order of their tags.
 */
export function encodeAcl(entries: string[]): Buffer {
  const bytes = Buffer.alloc(4 + entries.length * 8)
  bytes.writeUInt32LE(2, 0)
  entries.forEach((entry, i) => {
    const [kind, id, rights] = entry.split(':') as [string, string, string]
    const tag = kind === 'm' ? tags.mask : kind === 'o' ? tags.other : kind === 'u' ? (id ? tags.user : tags.ownerUser) : id ? tags.group : tags.ownerGroup
    const perm = (rights.includes('r') ? 4 : 0) | (rights.includes('w') ? 2 : 0) | (rights.includes('x') ? 1 : 0)
    bytes.writeUInt16LE(tag, 4 + i * 8)
    bytes.writeUInt16LE(perm, 6 + i * 8)
    bytes.writeUInt32LE(id ? Number(id) : 0xffff_ffff, 8 + i * 8)
  })
  return bytes
}

/** The entries of an encoded ACL, as `encodeAcl` takes them. */
export function decodeAcl(bytes: Buffer): string[] {
  const entries: string[] = []
  for (let at = 4; at < bytes.length; at += 8) {
    const tag = bytes.readUInt16LE(at)
    const perm = bytes.readUInt16LE(at + 2)
    const id = tag === tags.user || tag === tags.group ? String(bytes.readUInt32LE(at + 4)) : ''
    const kind = tag === tags.mask ? 'm' : tag === tags.other ? 'o' : tag === tags.user || tag === tags.ownerUser ? 'u' : 'g'
    entries.push(`${kind}:${id}:${perm & 4 ? 'r' : '-'}${perm & 2 ? 'w' : '-'}${perm & 1 ? 'x' : '-'}`)
  }
  return entries
}
