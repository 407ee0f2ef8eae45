/**
 * A mount point of the form /dev/fd/N: whoever started this process has opened /dev/fuse as
 * descriptor N and mounted it, and may have given up the right to do so since. Source: libfuse,
 * lib/mount.c and util/mount.fuse.c (drop_privileges).
 */
import { fstatSync, readFileSync } from 'node:fs'
import { UsageError } from '../errors.js'
import { takeOver } from '../sys/mount.js'
import { type MountEntry, readMounts } from './mountinfo.js'

/** /dev/fuse is a misc device: 10, 229. */
const FUSE_RDEV = 10 << 8 | 229

/** The descriptor that a mount point names. */
export function givenFd(mountpoint: string): number | undefined {
  const match = /^\/dev\/fd\/(\d{1,9})$/.exec(mountpoint)
  return match ? Number(match[1]) : undefined
}

export interface GivenMount {
  fd: number
  /** Where it is mounted, where the kernel tells (fdinfo has fuse_connection from Linux 6.17 on). */
  entry: MountEntry | undefined
  connection: number
  allowOther: boolean
  defaultPermissions: boolean
}

/**
 * Looks at a given descriptor, and makes it close-on-exec and non-blocking.
 *
 * @throws UsageError when it is not a mounted /dev/fuse
 */
export function takeGivenFd(fd: number): GivenMount {
  let rdev
  try {
    ({ rdev } = fstatSync(fd))
  } catch {
    throw new UsageError(`/dev/fd/${fd}: there is no such descriptor`, 'EBADF')
  }
  if (rdev !== FUSE_RDEV) throw new UsageError(`/dev/fd/${fd} is not /dev/fuse`, 'ENODEV')
  takeOver(fd)
  const said = /^fuse_connection:\s*(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1'))
  const connection = said ? Number(said[1]) : -1
  const entry = readMounts().findLast(({ type, major, minor }) => type.startsWith('fuse') && major === 0 && minor === connection)
  const options = entry?.superOptions.split(',') ?? []
  return { fd, entry, connection, allowOther: options.includes('allow_other'), defaultPermissions: options.includes('default_permissions') }
}

/** What cannot be done with it, one line each. */
export function givenNotices({ fd, entry, defaultPermissions }: GivenMount): string[] {
  if (!entry) return [`/dev/fd/${fd}: this kernel does not tell where it is mounted: whoever mounted it has to unmount it`]
  return defaultPermissions ? [] : [`${entry.mountpoint} was mounted without default_permissions: only the device checks permissions`]
}
