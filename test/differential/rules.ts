/**
 * What may differ between a mount and a plain directory, and why: values that need not be equal,
 * and operations that are not mixed. What is not here must be the same.
 */
import type { Group } from './operation.js'
import type { Value } from './side.js'

export interface Context {
  /** Whether two times, in nanoseconds, can be of the same step. */
  sameMoment: (a: bigint, b: bigint) => boolean
}

interface Row {
  reason: string
  /** Without one anything is allowed. */
  same?: (plain: Value, mount: Value, context: Context) => boolean
}

function moment(plain: Value, mount: Value, context: Context): boolean {
  return typeof plain === 'bigint' && typeof mount === 'bigint' && context.sameMoment(plain, mount)
}

const PIPES = 'what is written to a FIFO marks its inode, which FUSE leaves to servers (S_NOCMTIME), and they do not see it'

/** By noted label. */
const rows: Readonly<Record<string, Row>> = {
  mtime: { reason: 'the steps of the two sides are made one after the other', same: moment },
  ctime: { reason: 'the steps of the two sides are made one after the other', same: moment },
  btime: { reason: 'the steps of the two sides are made one after the other', same: moment },
  'atime just set': { reason: 'a time of now is set on the two sides one after the other', same: moment },
  'pipe mtime': { reason: PIPES },
  'pipe ctime': { reason: PIPES },
  atime: { reason: 'reads from the kernel\'s pages do not reach the server, and FUSE keeps no atime of its own' },
  blksize: { reason: 'st_blksize is the transfer that FUSE prefers (fuse_fillattr), not the backing file system\'s' },
  blocks: { reason: 'blocks are allocated when data is written back, and at mmap reads of tmpfs' },
}

/** Whether two noted values are as good as equal. */
export function agree(label: string, plain: Value, mount: Value, context: Context): boolean {
  if (plain === mount) return true
  const row = rows[label]
  return row !== undefined && (row.same?.(plain, mount, context) ?? true)
}

/** Groups of operations that are not mixed. */
export const exclusions: readonly { group: Group, without: readonly Group[], reason: string }[] = [
  { group: 'mmap', without: ['seek'], reason: 'a page that a mapping has touched is data for tmpfs; through a mount only the mount\'s own page is' },
]

/**
 * Modes that are not set while several users act: sgid without execution by the group stays with a
 * write by a member of the group, and a WRITE does not say the supplementary groups of its caller.
 */
export function isMemberOnly(mode: number): boolean {
  return (mode & 0o2010) === 0o2000
}

/** Operations that virtiofsd is not asked for. */
export const virtiofsdLacks: Readonly<Record<string, string>> = {
  tmpfile: 'it does not answer TMPFILE',
}
