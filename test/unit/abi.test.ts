/**
 * Sizes of the FUSE structures, as numbers taken from a C compiler over include/uapi/linux/fuse.h
 * (7.38 of Linux 6.1; STATX, COPY_FILE_RANGE_64 and supplementary groups from 7.45): a second
 * source beside the declarations, which check themselves only against what is written beside them.
 */
import t from 'tap'
import * as abi from '../../lib/fuse/abi.js'
import { structName } from '../../lib/wire/struct.js'

const SIZES: Record<string, number> = {
  fuse_access_in: 8,
  fuse_attr: 88,
  fuse_attr_out: 104,
  fuse_batch_forget_in: 8,
  fuse_bmap_in: 16,
  fuse_bmap_out: 8,
  fuse_copy_file_range_in: 56,
  fuse_copy_file_range_out: 8,
  fuse_create_in: 16,
  fuse_dirent: 24,
  fuse_direntplus: 152,
  fuse_entry_out: 128,
  fuse_ext_header: 8,
  fuse_fallocate_in: 32,
  fuse_file_lock: 24,
  fuse_flush_in: 24,
  fuse_forget_in: 8,
  fuse_forget_one: 16,
  fuse_fsync_in: 16,
  fuse_getattr_in: 16,
  fuse_getxattr_in: 8,
  fuse_getxattr_out: 8,
  fuse_in_header: 40,
  fuse_init_in: 64,
  fuse_init_out: 64,
  fuse_interrupt_in: 8,
  fuse_ioctl_in: 32,
  fuse_ioctl_out: 16,
  fuse_kstatfs: 80,
  fuse_link_in: 8,
  fuse_lk_in: 48,
  fuse_lk_out: 24,
  fuse_lseek_in: 24,
  fuse_lseek_out: 8,
  fuse_mkdir_in: 8,
  fuse_mknod_in: 16,
  fuse_notify_delete_out: 24,
  fuse_notify_inval_entry_out: 16,
  fuse_notify_inval_inode_out: 24,
  fuse_open_in: 8,
  fuse_open_out: 16,
  fuse_out_header: 16,
  fuse_poll_in: 24,
  fuse_poll_out: 8,
  fuse_read_in: 40,
  fuse_release_in: 24,
  fuse_rename2_in: 16,
  fuse_rename_in: 8,
  fuse_secctx: 8,
  fuse_secctx_header: 8,
  fuse_setattr_in: 88,
  fuse_setxattr_in: 16,
  fuse_statfs_out: 80,
  fuse_statx: 256,
  fuse_statx_in: 24,
  fuse_statx_out: 288,
  fuse_supp_groups: 4,
  fuse_sx_time: 16,
  fuse_syncfs_in: 8,
  fuse_write_in: 40,
  fuse_write_out: 8,
}

t.test('every structure has its size', async t => {
  const declared: Record<string, number> = {}
  for (const value of Object.values(abi)) if (typeof value === 'object' && 'SIZE' in value) declared[structName(value)] = value.SIZE
  t.strictSame(declared, SIZES)
})

t.test('offsets of what the data path reads', async t => {
  t.match(abi.FuseInHeader, { len: 0, opcode: 4, unique: 8, nodeid: 16, uid: 24, gid: 28, pid: 32, total_extlen: 36 })
  t.match(abi.FuseOutHeader, { len: 0, error: 4, unique: 8 })
  t.match(abi.FuseInitIn, { major: 0, minor: 4, max_readahead: 8, flags: 12, flags2: 16 })
  t.match(abi.FuseInitOut, {
    major: 0, minor: 4, max_readahead: 8, flags: 12, max_background: 16, congestion_threshold: 18, max_write: 20, time_gran: 24,
    max_pages: 28, map_alignment: 30, flags2: 32, max_stack_depth: 36, request_timeout: 40,
  })
  t.match(abi.FuseReadIn, { fh: 0, offset: 8, size: 16 })
  t.match(abi.FuseWriteIn, { fh: 0, offset: 8, size: 16, write_flags: 20, lock_owner: 24, flags: 32 })
  t.match(abi.FuseIoctlIn, { in_size: 24, out_size: 28 })
  t.match(abi.FuseForgetOne, { nodeid: 0, nlookup: 8 })
  t.match(abi.FuseStatx, { mode: 28, ino: 32, atime: 64, mtime: 112, rdev_major: 128, __spare2: 144 })
  t.match(abi.FuseSetattrIn, { valid: 0, fh: 8, size: 16, atime: 32, ctimensec: 64, mode: 68, uid: 76, gid: 80 })
})

t.test('directory entries are padded to 8 bytes', async t => {
  for (let name = 1; name <= 255; name++) {
    const size = abi.direntSize(abi.FuseDirent.SIZE, name)
    if (size % 8 !== 0 || size < 24 + name || size >= 32 + name) return t.fail(`a name of ${name} bytes takes ${size}`)
  }
  t.equal(abi.direntSize(abi.FuseDirent.SIZE, 8), 32)
  t.equal(abi.direntSize(abi.FuseDirentplus.SIZE, 9), 168)
})

t.test('INIT flags: one bit each, all below 64', async t => {
  const bits = Object.values(abi.FUSE_INIT_FLAGS)
  t.equal(new Set(bits).size, bits.length)
  t.ok(bits.every(bit => bit >= 0 && bit < 64))
  // of those that the bridge acts upon, by number
  t.match(abi.FUSE_INIT_FLAGS, {
    SPLICE_WRITE: 7, SPLICE_MOVE: 8, SPLICE_READ: 9, WRITEBACK_CACHE: 16, MAX_PAGES: 22, MAP_ALIGNMENT: 26, SUBMOUNTS: 27,
    INIT_EXT: 30, SECURITY_CTX: 32, HAS_INODE_DAX: 33, PASSTHROUGH: 37, HAS_RESEND: 39, ALLOW_IDMAP: 40, OVER_IO_URING: 41, REQUEST_TIMEOUT: 42,
  })
})
