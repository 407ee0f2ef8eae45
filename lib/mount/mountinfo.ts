/** The kernel's table of mounts. Source: proc_pid_mountinfo(5). */
import { readFileSync } from 'node:fs'

export interface MountEntry {
  /** major:minor of the file system; the minor of a FUSE mount is its connection number. */
  major: number
  minor: number
  mountpoint: string
  type: string
  source: string
  /** Of the superblock, comma-separated. */
  superOptions: string
}

/** File system type of our mounts. */
export const FS_TYPE = 'fuse.virtiofs-bridge'

function unescape(field: string): string {
  return field.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(parseInt(octal, 8)))
}

/**
 * The mounts of a table of the kernel, in its order: what is mounted on another comes after it.
 * @param text in latin1, which keeps the bytes of names that are not UTF-8 apart; then names are decoded one by one
 */
export function parseMounts(text: string): MountEntry[] {
  return text.split('\n').filter(line => line !== '').map(line => {
    const fields = line.split(' ')
    const [major, minor] = fields[2]!.split(':')
    const rest = fields.slice(fields.indexOf('-', 6) + 1)
    const decode = (field: string): string => Buffer.from(unescape(field), 'latin1').toString('utf8')
    return { major: Number(major), minor: Number(minor), mountpoint: decode(fields[4]!), type: rest[0]!, source: decode(rest[1] ?? ''), superOptions: rest[2] ?? '' }
  })
}

/** @param pid of a process in the mount namespace that is meant */
export function readMounts(pid: number | 'self' = 'self'): MountEntry[] {
  return parseMounts(readFileSync(`/proc/${pid}/mountinfo`, 'latin1'))
}

/** The topmost mount at exactly this path. */
export function findMount(mountpoint: string, mounts: readonly MountEntry[] = readMounts()): MountEntry | undefined {
  return mounts.findLast(entry => entry.mountpoint === mountpoint)
}
