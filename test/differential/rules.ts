/**
 * What may differ between a mount and a plain directory, and why: values that need not be equal,
 * and operations that are not mixed. What is not here must be the same.
 */
import type { Group } from './operation.js'
import type { Value } from './side.js'

export interface Context {
  /** Whether two times, in nanoseconds, can be of the same step. */
  sameMoment: (a: bigint, b: bigint) => boolean
  /** The mount has a write-back cache. */
  writeback: boolean
  /** The directory behind the mount is compared, not the mount. */
  behind: boolean
}

interface Row {
  reason: string
  /** Without one anything is allowed. */
  same?: (plain: Value, mount: Value, context: Context) => boolean
}

function moment(plain: Value, mount: Value, context: Context): boolean {
  return typeof plain === 'bigint' && typeof mount === 'bigint' && context.sameMoment(plain, mount)
}

function later(plain: Value, mount: Value): boolean {
  return typeof plain === 'bigint' && typeof mount === 'bigint' && mount >= plain
}

const TURNS = 'the steps of the two sides are made one after the other'
const PIPES = 'what is written to a FIFO marks its inode, which FUSE leaves to servers (S_NOCMTIME), and they do not see it'

/** By noted label. */
const rows: Readonly<Record<string, Row>> = {
  mtime: {
    reason: `${TURNS}; and of cached writes the kernel may send mtime before the last data, which the server then marks as new`,
    same: (plain, mount, context) => moment(plain, mount, context) || context.writeback && context.behind && later(plain, mount),
  },
  ctime: {
    reason: `${TURNS}; and nobody can set a ctime: behind a write-back cache it is when data was written back, and the kernel learns that when it meets the inode again`,
    same: (plain, mount, context) => moment(plain, mount, context) || context.writeback && later(plain, mount),
  },
  btime: { reason: TURNS, same: moment },
  'atime just set': { reason: TURNS, same: moment },
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

/** What virtiofsd is not asked for: operations, groups of them, and what generators look for by these names. */
export const virtiofsdLacks: Readonly<Record<string, string>> = {
  tmpfile: 'it does not answer TMPFILE',
  birth: 'it does not answer STATX',
  'trusted attributes': 'it gives up CAP_SYS_ADMIN unless started with --modcaps=+sys_admin',
  'whiteouts of users': 'it renames as root, to whom the whiteout then belongs',
  truncate: 'it opens and calls ftruncate, which marks times also when the size stays',
  'chown of neither': 'it does nothing for a SETATTR of nothing, so that ctime stays',
  mknod: 'it opens by file handle, and that of an open FIFO which has no name any more is stale: ESTALE',
  O_PATH: 'it opens by file handle, and that of a file which has no name and is open with O_PATH alone is stale: ESTALE',
  privileges: 'it leaves suid and sgid to the kernel unless started with --killpriv-v2, and the kernel then only looks at writes that it caches',
}

export const virtiofsdUncachedLacks: typeof virtiofsdLacks = {
  ...virtiofsdLacks,
  mapread: 'without a cache it opens for direct I/O alone: ENODEV',
  mapwrite: 'without a cache it opens for direct I/O alone: ENODEV',
}

/** What the kernel does otherwise with the write-back cache: ext4 marks times for every truncate, tmpfs when it drops pages allocated beyond the end. */
export const writebackLacks: typeof virtiofsdLacks = {
  truncate: 'the kernel keeps mtime itself then, and truncate(2) marks it only when the size changes (fuse_do_setattr)',
}
