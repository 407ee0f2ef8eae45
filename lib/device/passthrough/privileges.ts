/**
 * suid and sgid bits of a file that changes, when its caller may not keep them. The kernel below
 * takes them away from what a thread without CAP_FSETID changes. But whether sgid stays where the
 * group may not execute depends on the groups of who changes it (fs/attr.c
 * setattr_should_drop_sgid), and those are no part of a request: they are asked of /proc, for a file
 * with such a mode alone. A wrong answer would give nobody anything (fs/exec.c bprm_fill_uid).
 */
import { readFileSync } from 'node:fs'
import { CAP_FSETID } from '../../sys/credentials.js'
import { AT_EMPTY_PATH, S_IFMT, S_IFREG, S_ISGID, S_ISUID, statx, STATX_GID, STATX_MODE, STATX_TYPE } from '../../sys/file.js'
import type { DeviceRequest } from '../handlers.js'
import { NO_ID } from './id-map.js'
import { Negotiated } from './layout.js'
import { St } from './stat-words.js'
import type { Volume } from './volume.js'

const S_IXGRP = 0o0010

/**
 * Before a change of a file that the kernel wants to cost these bits.
 * @param fd of the file, O_PATH will do
 * @returns true: after the change `restorePrivileges` must follow, or `volume.caller.restoreFsetid()` where the answer has the attributes
 */
export function dropPrivileges(volume: Volume, request: DeviceRequest, fd: number): boolean {
  const group = groupThatMatters(volume, fd)
  if (group === NO_ID) volume.caller.dropFsetid()
  else volume.caller.dropFsetid(group, (standing(volume, request, group) & MEMBER) !== 0)
  return true
}

/**
 * The same before a change that comes without a flag for it (HANDLE_KILLPRIV_V2): only root may keep
 * the bits. A kernel that maps ids does not say who it is (NO_ID), and sends a SETATTR of nothing
 * before; what it means by that is up to the groups of the caller again.
 */
export function dropUnlessRoot(volume: Volume, request: DeviceRequest, fd: number): boolean {
  if (request.uid === 0 || !volume.negotiated(Negotiated.KILLPRIV_V2)) return false
  if (request.uid !== NO_ID) return dropPrivileges(volume, request, fd)
  const group = groupThatMatters(volume, fd)
  if (group === NO_ID || standing(volume, request, group) !== STRANGER) return false
  volume.caller.dropFsetid(group, false)
  return true
}

/**
 * After such a change. The kernel that left the bits to us knows that size and times have changed,
 * not the mode (fs/fuse/file.c fuse_write_update_attr), and would go on showing it, and executing by
 * it, until it asks again.
 */
export function restorePrivileges(volume: Volume, nodeid: number): void {
  volume.caller.restoreFsetid()
  if ((volume.privileges.mode & (S_ISUID | S_ISGID)) !== 0) volume.attributeNotice?.send(nodeid)
}

/** The group of a file whose sgid bit stays with a change by a member. @returns NO_ID for any other file */
function groupThatMatters(volume: Volume, fd: number): number {
  const { words, address } = volume.privileges
  if (statx(fd, volume.empty, AT_EMPTY_PATH, STATX_TYPE | STATX_MODE | STATX_GID, address) < 0) return NO_ID
  return (words[St.mode]! & (S_IFMT | S_ISGID | S_IXGRP)) === (S_IFREG | S_ISGID) ? words[St.gid]! >>> 0 : NO_ID
}

/** What a caller is to a group. UNKNOWN: from another host, or from a process that ours has no number for. */
const UNKNOWN = 0
const STRANGER = 1
const MEMBER = 2
const CAPABLE = 4

/** @returns UNKNOWN, STRANGER, or what holds of MEMBER and CAPABLE */
function standing({ ids }: Volume, { uid, gid, pid }: DeviceRequest, hostGroup: number): number {
  const group = ids === undefined ? hostGroup : ids.gid.show(hostGroup)
  if (gid === group) return MEMBER
  if (pid === 0) return UNKNOWN
  let status: string
  try {
    status = readFileSync(`/proc/${pid}/status`, 'latin1')
  } catch {
    return UNKNOWN
  }
  // the ids that count for files are the fourth
  const [, fsuid, fsgid] = /^Uid:(?:\t\d+){3}\t(\d+)\nGid:(?:\t\d+){3}\t(\d+)$/m.exec(status) ?? []
  const [, groups] = /^Groups:\t([\d ]*)$/m.exec(status) ?? []
  const [, capabilities] = /^CapEff:\t.*([\da-f]{8})$/m.exec(status) ?? []
  if (fsuid === undefined || fsgid === undefined || groups === undefined || capabilities === undefined) return UNKNOWN
  // others than those of the request are another process's, whose number means another one here
  if (uid !== NO_ID && (Number(fsuid) !== uid || Number(fsgid) !== gid)) return UNKNOWN
  const member = Number(fsgid) === group || groups.split(' ').includes(String(group)) ? MEMBER : 0
  const capable = (parseInt(capabilities, 16) >>> CAP_FSETID & 1) === 1 ? CAPABLE : 0
  return member | capable || STRANGER
}
