/**
 * Being another user for the length of a callback.
 *
 * The raw system calls change the credentials of the calling thread alone, and node:fs's
 * synchronous calls run on it: a process of its own per check would cost more than all checks.
 * The saved uid stays 0, which is the way back. What the thread pool does stays root's.
 */
import { check, syscall } from '../../lib/sys/libc.js'
import { argument } from './posix-call.js'

const numbers = process.arch === 'arm64' ? { setresuid: 147, setresgid: 149, setgroups: 159 } : { setresuid: 117, setresgid: 119, setgroups: 116 }
const UNCHANGED = 0xffff_ffff

export interface User {
  uid: number
  gid: number
  /** Supplementary groups; default none. */
  groups?: readonly number[]
}

function setGroups(groups: readonly number[]): void {
  groups.forEach((gid, i) => { argument.view.setUint32(i * 4, gid, true) })
  check(syscall(numbers.setgroups, groups.length, argument.address), 'setgroups')
}

/** Runs a callback with the ids, groups and (lack of) capabilities of a user. It must be synchronous. */
export function as<T>(user: User, use: () => T): T {
  const before = process.getgroups!()
  setGroups(user.groups ?? [])
  check(syscall(numbers.setresgid, user.gid, user.gid, 0), 'setresgid')
  check(syscall(numbers.setresuid, user.uid, user.uid, 0), 'setresuid')
  try {
    return use()
  } finally {
    check(syscall(numbers.setresuid, 0, 0, UNCHANGED), 'setresuid')
    check(syscall(numbers.setresgid, 0, 0, UNCHANGED), 'setresgid')
    setGroups(before)
  }
}

/** Users of the checks: nobody that a system has. */
export const alice: User = { uid: 61001, gid: 62001 }
export const bob: User = { uid: 61002, gid: 62002 }
/** A group that one of them may be a member of. */
export const STAFF = 62100
