/** The system calls that posix checks are written with; what Node has, they take from node:fs. */
import * as data from './posix-data.js'
import * as files from './posix-files.js'
import * as locks from './posix-locks.js'
import * as users from './posix-users.js'
import * as xattrs from './posix-xattrs.js'
import * as flags from '../../lib/sys/file.js'

export const sys = {
  ...files, ...data, ...locks, ...users, ...xattrs,
  O_RDONLY: flags.O_RDONLY, O_WRONLY: flags.O_WRONLY, O_RDWR: flags.O_RDWR, O_CREAT: flags.O_CREAT, O_EXCL: flags.O_EXCL, O_TRUNC: flags.O_TRUNC,
  O_APPEND: flags.O_APPEND, O_NONBLOCK: flags.O_NONBLOCK, O_PATH: flags.O_PATH, O_DIRECTORY: flags.O_DIRECTORY, O_NOFOLLOW: flags.O_NOFOLLOW,
  O_DIRECT: flags.O_DIRECT, O_TMPFILE: flags.O_TMPFILE, O_DSYNC: flags.O_DSYNC, O_SYNC: flags.O_SYNC, O_NOATIME: 0o1000000,
  AT_FDCWD: flags.AT_FDCWD, AT_SYMLINK_NOFOLLOW: flags.AT_SYMLINK_NOFOLLOW, AT_SYMLINK_FOLLOW: flags.AT_SYMLINK_FOLLOW,
  AT_EACCESS: flags.AT_EACCESS, AT_REMOVEDIR: flags.AT_REMOVEDIR, AT_EMPTY_PATH: flags.AT_EMPTY_PATH,
  STATX_BASIC_STATS: flags.STATX_BASIC_STATS, STATX_BTIME: flags.STATX_BTIME, STATX_MNT_ID: flags.STATX_MNT_ID,
}

export type Sys = typeof sys
