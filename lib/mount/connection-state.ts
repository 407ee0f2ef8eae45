/**
 * Whether the superblock of a FUSE connection still exists. read() on /dev/fuse says ENODEV for an
 * abort and for an unmount alike; and after an unmount the kernel gives the number of the
 * connection to the next mount of anybody, so the table of mounts does not tell either. A
 * notification does: the kernel takes one for the root inode, which lives as long as the
 * superblock, and says ENOENT for an inode that it does not have (Linux fs/fuse/inode.c,
 * fuse_reverse_inval_inode).
 */
import { errno } from '../errors.js'
import { FUSE_NOTIFY_INVAL_INODE, FuseNotifyInvalInodeOut, FuseOutHeader } from '../fuse/abi.js'
import { write } from '../sys/io.js'
import { scratch } from '../sys/memory.js'
import { setU64 } from '../wire/u64.js'

const LENGTH_BYTES = FuseOutHeader.SIZE + FuseNotifyInvalInodeOut.SIZE
const ROOT_ID = 1
const ATTEMPTS = 10
const message = scratch(LENGTH_BYTES)

/** @param fuseFd a descriptor of the connection, mounted once */
export function isConnectionMounted(fuseFd: number): boolean {
  const { view, address } = message
  view.setUint32(FuseOutHeader.len, LENGTH_BYTES, true)
  view.setInt32(FuseOutHeader.error, FUSE_NOTIFY_INVAL_INODE, true)
  setU64(view, FuseOutHeader.unique, 0)
  setU64(view, FuseOutHeader.SIZE + FuseNotifyInvalInodeOut.ino, ROOT_ID)
  // a negative offset: the attributes only, nothing of the data
  view.setBigInt64(FuseOutHeader.SIZE + FuseNotifyInvalInodeOut.off, -1n, true)
  setU64(view, FuseOutHeader.SIZE + FuseNotifyInvalInodeOut.len, 0)
  let written = write(fuseFd, address, LENGTH_BYTES)
  // these say nothing: whoever took them for an unmount would wait for its end for ever
  for (let i = 0; i < ATTEMPTS && (written === -errno.EINTR || written === -errno.EAGAIN || written === -errno.ENOMEM); i++) written = write(fuseFd, address, LENGTH_BYTES)
  return written === LENGTH_BYTES
}
