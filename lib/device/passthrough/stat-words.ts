/** Where things are in a struct statx: apart from what reads one, so that options can be parsed without system calls. */

/** Word offsets in struct statx. Source: Linux include/uapi/linux/stat.h. */
export const St = {
  mask: 0, blksize: 1, nlink: 4, uid: 5, gid: 6, mode: 7, ino: 8, size: 10, blocks: 12,
  atime: 16, atimeNsec: 18, btime: 20, btimeNsec: 22, ctime: 24, ctimeNsec: 26, mtime: 28, mtimeNsec: 30,
  rdevMajor: 32, rdevMinor: 33, devMajor: 34, devMinor: 35, mntId: 36,
} as const
