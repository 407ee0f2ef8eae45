/** Checks that do not hold through fuse-native, and why: what libfuse 2 cannot say by paths. See native-notes/fuse-native.md. */
import type { Kind } from './mounts.js'

type Exceptions = Kind['exceptions']

function because(reason: string, ...names: string[]): Exceptions {
  return Object.fromEntries(names.map(name => [name, reason]))
}

export const fuseNativeExceptions: Exceptions = {
  ...because('fuse-native passes whole milliseconds',
    'times: both times are set with their nanoseconds', 'times: futimens sets the times of an open file', 'times: AT_SYMLINK_NOFOLLOW sets', 'times: times of a directory and of a FIFO',
    'times: times after 2038', 'times: set times survive', 'unlink-open: truncate, chmod and times'),
  ...because('without the option atomic_o_trunc of libfuse it comes as a truncate of the same size', 'open-flags: O_TRUNC of a file that is empty'),
  ...because('libfuse passes times on only when both are set', 'times: UTIME_OMIT leaves a time as it is'),
  ...because('a path is a file to libfuse: two names of one file are two to the kernel, each with attributes of its own until they time out',
    'hard-links: both names have one inode', 'hard-links: link marks ctime', 'hard-links: unlink of one of two names', 'hard-links: a hundred names of one file',
    'hard-links: a file under a directory of a removed name', 'rename: a replaced file with another name', 'special-files: two names of one FIFO'),
  ...because('callbacks do not know their caller: what is made belongs to who mounted',
    'symlinks: it belongs to who made it', 'rename: without write permission on a directory that moves', 'special-files: only root makes devices',
    'permissions: a new file belongs to who makes it', 'permissions: sticky: only the owner of the file', 'permissions: sticky: a directory of another user',
    'permissions: linking needs write permission', 'permissions: each of two users in turn', 'setgid-directories: what is made in one gets its group',
    'setgid-directories: moving into one changes no group'),
  ...because('FUSE 7.19 has no RENAME2',
    'rename2: RENAME_NOREPLACE of an existing name', 'rename2: RENAME_EXCHANGE swaps two files', 'rename2: RENAME_EXCHANGE of a file and a directory',
    'rename2: RENAME_WHITEOUT leaves', 'rename2: a whiteout belongs'),
  ...because('a directory that was removed has no path, nor has what is open in it', 'unlink-open: no name is left in the directory', 'directories: the working directory can be removed'),
  ...because('there is no callback for fallocate',
    'suid-clearing: fallocate takes them away', 'suid-clearing: a look at the mode alone', 'suid-clearing: sgid without group x stays', 'suid-clearing: fallocate and copy_file_range', 'fallocate: beyond the end', 'fallocate: within the file', 'fallocate: the space is counted',
    'fallocate: FALLOC_FL_KEEP_SIZE', 'fallocate: marks mtime and ctime', 'fallocate: a punched hole', 'fallocate: more than there is', 'holes: punching gives space back',
    'statfs: space that is allocated'),
  ...because('there is none for lseek', 'holes: SEEK_DATA and SEEK_HOLE find', 'holes: no data behind the place'),
  ...because('there is none for O_TMPFILE', 'o_tmpfile: '),
  ...because('there is none for statx', 'statx: a time of birth'),
  ...because('fuse_setattr in fs/fuse/dir.c clears sgid only together with group x', 'suid-clearing: sgid without group x goes'),
  ...because('FUSE_POSIX_ACL is younger than FUSE 7.19',
    'acls: an access ACL is read back', 'acls: the mode shows the mask', 'acls: chmod changes owner', 'acls: an ACL of three entries', 'acls: a named user may', 'acls: the mask limits',
    'acls: a named group may', 'acls: an entry can refuse', 'acls: a new file gets', 'acls: with a default ACL', 'acls: a new directory gets', 'acls: removing the access ACL',
    'acls: only the owner sets one', 'acls: an ACL set by one'),
}

/** Races: they hold when nobody comes in between. */
export const fuseNativeRaces: Exceptions = {
  ...because('libfuse takes two steps to replace a file that is open, and does not know that it is open before the device has answered', 'concurrency: while a file is replaced'),
  ...because('libfuse opens by path what was looked up before; the kernel looks again once', 'concurrency: made and removed by two at once'),
}
