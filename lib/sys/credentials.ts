/**
 * Credentials of the calling thread alone.
 *
 * The C library applies setuid(2) and its kin to all threads of the process; these are the raw
 * system calls, which the kernel applies to one. A worker that creates a file for somebody takes
 * that user's fsuid and fsgid for the length of the call and nobody else notices.
 */
import { syscall } from './libc.js'
import { scratch, type Region } from './memory.js'

interface Numbers { setfsuid: number, setfsgid: number, setgroups: number, getgroups: number, umask: number, unshare: number, capget: number, capset: number, geteuid: number, getegid: number }

const numbers: Numbers = process.arch === 'arm64'
  ? { setfsuid: 151, setfsgid: 152, setgroups: 159, getgroups: 158, umask: 166, unshare: 97, capget: 90, capset: 91, geteuid: 175, getegid: 177 }
  : { setfsuid: 122, setfsgid: 123, setgroups: 116, getgroups: 115, umask: 95, unshare: 272, capget: 125, capset: 126, geteuid: 107, getegid: 108 }

const CLONE_FS = 0x200
const UNCHANGED = 0xffff_ffff

export const CAP_DAC_OVERRIDE = 1
export const CAP_DAC_READ_SEARCH = 2
export const CAP_FSETID = 4
export const CAP_SETGID = 6
export const CAP_SETUID = 7
export const CAP_SYS_ADMIN = 21
export const CAP_MKNOD = 27

/** Sets the fsuid; never fails, so that only a second call tells whether it had an effect. @returns the one before */
export function setfsuid(uid: number): number {
  return syscall(numbers.setfsuid, uid)
}

export function setfsgid(gid: number): number {
  return syscall(numbers.setfsgid, gid)
}

/** The fsuid of this thread. */
export function getfsuid(): number {
  return setfsuid(UNCHANGED)
}

export function getfsgid(): number {
  return setfsgid(UNCHANGED)
}

/** @param address of an array of u32 */
export function setgroups(count: number, address: number): number {
  return syscall(numbers.setgroups, count, address)
}

/** @returns how many there are, or −errno */
export function getgroups(room: number, address: number): number {
  return syscall(numbers.getgroups, room, address)
}

/**
 * Gives this thread a umask (and working directory) of its own. Needed once per thread before
 * `setUmask`.
 */
export function unshareFs(): number {
  return syscall(numbers.unshare, CLONE_FS)
}

/** @returns the umask before */
export function setUmask(mask: number): number {
  return syscall(numbers.umask, mask)
}

export function effectiveUid(): number {
  return syscall(numbers.geteuid)
}

export function effectiveGid(): number {
  return syscall(numbers.getegid)
}

const CAPABILITY_VERSION_3 = 0x20080522
const HEADER_BYTES = 8
/** Two struct __user_cap_data_struct of effective, permitted, inheritable. */
const DATA_BYTES = 24

/** The effective capabilities of one thread; one instance per thread, below capability 32 only. */
export class Capabilities {
  #memory: Region = scratch(HEADER_BYTES + DATA_BYTES)

  #load(): number {
    this.#memory.view.setUint32(0, CAPABILITY_VERSION_3, true)
    this.#memory.view.setInt32(4, 0, true)
    return syscall(numbers.capget, this.#memory.address, this.#memory.address + HEADER_BYTES)
  }

  #store(effective: number): number {
    this.#memory.view.setUint32(HEADER_BYTES, effective >>> 0, true)
    return syscall(numbers.capset, this.#memory.address, this.#memory.address + HEADER_BYTES)
  }

  /** Whether the capability is in the effective set. */
  has(capability: number): boolean {
    return this.#load() === 0 && (this.#memory.view.getUint32(HEADER_BYTES, true) >>> capability & 1) === 1
  }

  /** Takes one out of the effective set. @returns whether it was there, which `raise` needs to be told */
  drop(capability: number): boolean {
    if (this.#load() < 0) return false
    const effective = this.#memory.view.getUint32(HEADER_BYTES, true)
    if ((effective >>> capability & 1) === 0) return false
    return this.#store(effective & ~(1 << capability)) === 0
  }

  /** After `drop`, with nothing changed in between: puts it back. */
  restore(capability: number): boolean {
    return this.#store(this.#memory.view.getUint32(HEADER_BYTES, true) | 1 << capability) === 0
  }

  /** Puts one of the permitted set back into the effective set. */
  raise(capability: number): boolean {
    if (this.#load() < 0) return false
    const effective = this.#memory.view.getUint32(HEADER_BYTES, true)
    return this.#store(effective | 1 << capability) === 0
  }
}
