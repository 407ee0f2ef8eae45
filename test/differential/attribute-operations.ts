/** Operations on attributes: modes, owners, times, extended attributes, ACLs. */
import * as f from '../../lib/sys/file.js'
import { calls } from './calls.js'
import type { Generator } from './generator.js'
import { users } from './name-operations.js'
import { operation, type Operation } from './operation.js'
import { argument, cString, patternAt, type Side } from './side.js'
import { noteStat, noteXattrs } from './stat.js'
import { ACL_ACCESS, ACL_DEFAULT, encodeAcl } from '../support/posix-xattrs.js'

const UTIME_NOW = 0x3fff_ffff
const UTIME_OMIT = 0x3fff_fffe
const XATTR_ROOM = 65536
/** Seconds that are long past, so that a time that is not updated shows. */
const SECONDS = [0, 1, 1_000_000_000, 1_234_567_890, 4_000_000_000, -1, -86400] as const
const ATTRIBUTES = ['user.a', 'user.b', 'user.c', `user.${'n'.repeat(250)}`, `user.${'n'.repeat(251)}`, 'user.', 'user', 'unknown.x', 'system.none', ''] as const
const TRUSTED = ['trusted.t', 'security.s']
const ACLS = [
  ['u::rwx', 'g::r-x', 'o::r--'],
  ['u::rw-', 'u:61001:rwx', 'g::r--', 'm::rwx', 'o::---'],
  ['u::rwx', 'g::---', 'g:62001:rw-', 'm::r-x', 'o::r-x'],
  ['u::r--', 'g::r--'],
] as const

function nanoseconds(g: Generator): number {
  return g.chance(15) ? UTIME_NOW : g.chance(15) ? UTIME_OMIT : g.chance(3) ? 1_000_000_000 : g.below(1_000_000_000)
}

function setTimes(atime: number, atimeNs: number, mtime: number, mtimeNs: number): number {
  argument.view.setBigInt64(0, BigInt(atime), true)
  argument.view.setBigInt64(8, BigInt(atimeNs), true)
  argument.view.setBigInt64(16, BigInt(mtime), true)
  argument.view.setBigInt64(24, BigInt(mtimeNs), true)
  return argument.address
}

const UNCHANGED = 0xffff_ffff

function id(g: Generator, which: 'uid' | 'gid'): number {
  return g.chance(25) ? UNCHANGED : g.pick(users)[which]
}

/** A user and a group, either of which may be left as it is. */
function owner(g: Generator): [uid: number, gid: number] {
  const uid = id(g, 'uid')
  const gid = id(g, 'gid')
  return uid === UNCHANGED && gid === UNCHANGED && g.lacks('chown of neither') ? [uid, g.pick(users).gid] : [uid, gid]
}

function attribute(g: Generator): string {
  if (g.chance(85)) return ATTRIBUTES[g.below(3)]!
  return g.chance(80) || g.lacks('trusted attributes') ? g.pick(ATTRIBUTES) : g.pick(TRUSTED)
}

function valueSize(g: Generator): number {
  return g.chance(90) ? g.below(100) : g.pick([0, 1000, 2000, 4000])
}

function take(side: Side, value: number): void {
  side.dataBytes = Math.max(0, side.ret(value))
}

export const attributeOperations: Record<string, Operation> = {
  stat: operation('open', 8, g => [g.any(), g.chance(50) ? f.AT_SYMLINK_NOFOLLOW : 0, f.STATX_BASIC_STATS | (g.chance(10) && !g.lacks('birth') ? f.STATX_BTIME : 0)], (side, path, flags, mask) => {
    noteStat(side, side.dir(path), side.at(path), flags, mask)
  }),

  fstat: operation('open', 6, g => [g.slot()], (side, slot) => {
    noteStat(side, side.fd(slot), cString(''), f.AT_EMPTY_PATH, f.STATX_BASIC_STATS)
  }),

  statfs: operation('open', 1, g => [g.absolute(g.any())], (side, path) => {
    if (side.ret(calls.statfs(side.at(path), argument.address)) === 0) side.note('namelen', argument.view.getUint32(64, true))
  }),

  access: operation('attributes', 3, g => [g.any(), g.below(8), g.bits([f.AT_EACCESS, f.AT_SYMLINK_NOFOLLOW], 30)], (side, path, mode, flags) => {
    side.ret(calls.faccessat(side.dir(path), side.at(path), mode, flags))
  }),

  chmod: operation('attributes', 4, g => [g.any(), g.mode()], (side, path, mode) => {
    side.ret(calls.fchmodat(side.dir(path), side.at(path), mode, 0))
  }),

  fchmod: operation('attributes', 2, g => [g.slot(), g.mode()], (side, slot, mode) => {
    side.ret(calls.fchmod(side.fd(slot), mode))
  }),

  chown: operation('attributes', 4, g => [g.any(), ...owner(g), g.chance(40) ? f.AT_SYMLINK_NOFOLLOW : 0], (side, path, uid, gid, flags) => {
    side.ret(calls.fchownat(side.dir(path), side.at(path), uid, gid, flags))
  }),

  fchown: operation('attributes', 2, g => [g.slot(), ...owner(g)], (side, slot, uid, gid) => {
    side.ret(calls.fchownat(side.fd(slot), cString(''), uid, gid, f.AT_EMPTY_PATH))
  }),

  utimens: operation('times', 5, g => [g.any(), g.pick(SECONDS), nanoseconds(g), g.pick(SECONDS), nanoseconds(g), g.chance(40) ? f.AT_SYMLINK_NOFOLLOW : 0], (side, path, atime, atimeNs, mtime, mtimeNs, flags) => {
    const dir = side.dir(path)
    const name = side.at(path)
    const failed = side.ret(calls.utimensat(dir, name, setTimes(atime, atimeNs, mtime, mtimeNs), flags))
    noteStat(side, dir, name, flags, f.STATX_BASIC_STATS, failed === 0 && atimeNs !== UTIME_OMIT)
  }),

  utimensnow: operation('times', 1, g => [g.any()], (side, path) => {
    side.ret(calls.utimensat(side.dir(path), side.at(path), 0, 0))
  }),

  futimens: operation('times', 3, g => [g.slot(), g.pick(SECONDS), nanoseconds(g), g.pick(SECONDS), nanoseconds(g)], (side, slot, atime, atimeNs, mtime, mtimeNs) => {
    const failed = side.ret(calls.futimens(side.fd(slot), setTimes(atime, atimeNs, mtime, mtimeNs)))
    noteStat(side, side.fd(slot), cString(''), f.AT_EMPTY_PATH, f.STATX_BASIC_STATS, failed === 0 && atimeNs !== UTIME_OMIT)
  }),

  setxattr: operation('xattrs', 5, g => [g.absolute(g.any()), attribute(g), valueSize(g), g.chance(70) ? 0 : g.below(4), g.below(1000)], (side, path, name, size, flags, choice) => {
    side.ret(calls.lsetxattr(side.at(path), cString(name), patternAt(choice, size), size, flags))
  }),

  fsetxattr: operation('xattrs', 2, g => [g.slot(), attribute(g), valueSize(g), g.chance(70) ? 0 : g.below(4), g.below(1000)], (side, slot, name, size, flags, choice) => {
    side.ret(calls.fsetxattr(side.fd(slot), cString(name), patternAt(choice, size), size, flags))
  }),

  getxattr: operation('xattrs', 3, g => [g.absolute(g.any()), attribute(g), g.chance(60) ? XATTR_ROOM : g.below(120)], (side, path, name, room) => {
    take(side, calls.lgetxattr(side.at(path), cString(name), side.data.address, room))
    if (room === 0) side.dataBytes = 0
  }),

  fgetxattr: operation('xattrs', 1, g => [g.slot(), attribute(g)], (side, slot, name) => {
    take(side, calls.fgetxattr(side.fd(slot), cString(name), side.data.address, XATTR_ROOM))
  }),

  listxattr: operation('xattrs', 2, g => [g.absolute(g.any())], (side, path) => {
    noteXattrs(side, path)
  }),

  sizexattrs: operation('xattrs', 1, g => [g.absolute(g.any()), g.chance(50) ? 0 : g.below(60)], (side, path, room) => {
    side.ret(calls.llistxattr(side.at(path), side.data.address, room))
  }),

  removexattr: operation('xattrs', 3, g => [g.absolute(g.any()), attribute(g)], (side, path, name) => {
    side.ret(calls.lremovexattr(side.at(path), cString(name)))
  }),

  fremovexattr: operation('xattrs', 1, g => [g.slot(), attribute(g)], (side, slot, name) => {
    side.ret(calls.fremovexattr(side.fd(slot), cString(name)))
  }),

  setacl: operation('acls', 4, g => [g.absolute(g.any()), g.below(2), g.below(ACLS.length)], (side, path, isDefault, which) => {
    const acl = encodeAcl([...ACLS[which]!])
    argument.bytes.set(acl, 256)
    side.ret(calls.setxattr(side.at(path), cString(isDefault ? ACL_DEFAULT : ACL_ACCESS), argument.address + 256, acl.length, 0))
  }),

  getacl: operation('acls', 2, g => [g.absolute(g.any()), g.below(2)], (side, path, isDefault) => {
    take(side, calls.getxattr(side.at(path), cString(isDefault ? ACL_DEFAULT : ACL_ACCESS), side.data.address, 4096))
  }),

  removeacl: operation('acls', 1, g => [g.absolute(g.any()), g.below(2)], (side, path, isDefault) => {
    side.ret(calls.lremovexattr(side.at(path), cString(isDefault ? ACL_DEFAULT : ACL_ACCESS)))
  }),
}
