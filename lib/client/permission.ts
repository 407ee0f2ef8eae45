/**
 * Who may do what, checked as the kernel does for a mount with default_permissions
 * (generic_permission, check_sticky, setattr_prepare of Linux): a device that runs with rights of its
 * own leaves that to whoever is in front of it.
 */
import { errno } from '../errors.js'
import { S_IFDIR, S_IFMT, S_ISGID } from '../sys/file.js'
import type { Attributes } from './attributes.js'

export const MAY_EXEC = 1
export const MAY_WRITE = 2
export const MAY_READ = 4

const S_ISVTX = 0o1000

export interface Caller {
  readonly uid: number
  readonly gid: number
  /** Supplementary groups. */
  readonly groups: readonly number[]
}

export class Permission {
  readonly #caller: Caller
  /** Who stands above the bits (CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_CHOWN, CAP_FSETID). */
  readonly privileged: boolean
  /** False: only the device checks. */
  readonly checked: boolean

  constructor(caller: Caller, checked: boolean) {
    this.#caller = caller
    this.checked = checked
    this.privileged = caller.uid === 0
  }

  /** Whether the bits of a file are needed to know. */
  needsAttributes(mask: number): boolean {
    return this.checked && (!this.privileged || (mask & MAY_EXEC) !== 0)
  }

  inGroup(gid: number): boolean {
    return gid === this.#caller.gid || this.#caller.groups.includes(gid)
  }

  /** @param mask of MAY_READ, MAY_WRITE, MAY_EXEC @returns 0 or −EACCES */
  check(attributes: Attributes, mask: number): number {
    if (!this.checked) return 0
    const { mode } = attributes
    if (this.privileged) {
      // to execute a file somebody must be allowed to
      return (mask & MAY_EXEC) === 0 || (mode & S_IFMT) === S_IFDIR || (mode & 0o111) !== 0 ? 0 : -errno.EACCES
    }
    const shift = attributes.uid === this.#caller.uid ? 6 : this.inGroup(attributes.gid) ? 3 : 0
    return ((mode >> shift) & mask) === mask ? 0 : -errno.EACCES
  }

  /** Whether the owner's rights are there: to change mode, times, attributes. @returns 0 or −EPERM */
  checkOwner(attributes: Attributes): number {
    return !this.checked || this.privileged || attributes.uid === this.#caller.uid ? 0 : -errno.EPERM
  }

  /** Whether an entry may be removed or replaced in a directory that may be written (check_sticky). */
  checkSticky(directory: Attributes, victim: Attributes): number {
    if (!this.checked || this.privileged || (directory.mode & S_ISVTX) === 0) return 0
    return victim.uid === this.#caller.uid || directory.uid === this.#caller.uid ? 0 : -errno.EPERM
  }

  /** chown(2): the owner may give a file to a group of his. @param uid, gid −1 for no change */
  checkChown(attributes: Attributes, uid: number, gid: number): number {
    if (!this.checked || this.privileged) return 0
    if (uid !== -1 && (attributes.uid !== this.#caller.uid || uid !== attributes.uid)) return -errno.EPERM
    if (gid !== -1 && (attributes.uid !== this.#caller.uid || (gid !== attributes.gid && !this.inGroup(gid)))) return -errno.EPERM
    return 0
  }

  /** The mode that chmod(2) sets: without setgid for a group that the caller is not in. */
  chmodMode(attributes: Attributes, mode: number): number {
    return this.checked && !this.privileged && !this.inGroup(attributes.gid) ? mode & ~S_ISGID : mode
  }
}
