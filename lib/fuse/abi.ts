/**
 * The FUSE wire protocol.
 *
 * Source: Linux `include/uapi/linux/fuse.h`, protocol 7.45 (Linux 6.18), under its BSD-2-Clause
 * alternative; names are kept so that a search finds them there. 7.45 because it is the newest
 * that /dev/fuse of a supported kernel speaks; older peers use prefixes of the same structures.
 */
import { defineStruct } from '../wire/struct.js'

export const FUSE_KERNEL_VERSION = 7
export const FUSE_KERNEL_MINOR_VERSION = 45
export const FUSE_ROOT_ID = 1

export const FuseInHeader = defineStruct('fuse_in_header', 40, {
  len: 'u32', opcode: 'u32', unique: 'u64', nodeid: 'u64',
  uid: 'u32', gid: 'u32', pid: 'u32', total_extlen: 'u16', padding: 'u16',
})

/** FUSE_UNIQUE_RESEND, in the upper half of a unique: the request is sent again, and is answered by this unique. */
export const UNIQUE_RESEND_HIGH = 0x8000_0000

export const FuseOutHeader = defineStruct('fuse_out_header', 16, { len: 'u32', error: 'i32', unique: 'u64' })

export const FuseAttr = defineStruct('fuse_attr', 88, {
  ino: 'u64', size: 'u64', blocks: 'u64', atime: 'u64', mtime: 'u64', ctime: 'u64',
  atimensec: 'u32', mtimensec: 'u32', ctimensec: 'u32',
  mode: 'u32', nlink: 'u32', uid: 'u32', gid: 'u32', rdev: 'u32', blksize: 'u32', flags: 'u32',
})

/** fuse_attr.flags */
export const FUSE_ATTR_SUBMOUNT = 1 << 0
export const FUSE_ATTR_DAX = 1 << 1

export const FuseSxTime = defineStruct('fuse_sx_time', 16, { tv_sec: 'i64', tv_nsec: 'u32', __reserved: 'i32' })

export const FuseStatx = defineStruct('fuse_statx', 256, {
  mask: 'u32', blksize: 'u32', attributes: 'u64', nlink: 'u32', uid: 'u32', gid: 'u32', mode: 'u16', __spare0: 'bytes:2',
  ino: 'u64', size: 'u64', blocks: 'u64', attributes_mask: 'u64',
  atime: 'bytes:16', btime: 'bytes:16', ctime: 'bytes:16', mtime: 'bytes:16',
  rdev_major: 'u32', rdev_minor: 'u32', dev_major: 'u32', dev_minor: 'u32', __spare2: 'bytes:112',
})

export const FuseKstatfs = defineStruct('fuse_kstatfs', 80, {
  blocks: 'u64', bfree: 'u64', bavail: 'u64', files: 'u64', ffree: 'u64',
  bsize: 'u32', namelen: 'u32', frsize: 'u32', padding: 'u32', spare: 'bytes:24',
})

export const FuseEntryOut = defineStruct('fuse_entry_out', 128, {
  nodeid: 'u64', generation: 'u64', entry_valid: 'u64', attr_valid: 'u64',
  entry_valid_nsec: 'u32', attr_valid_nsec: 'u32', attr: 'bytes:88',
})

export const FuseAttrOut = defineStruct('fuse_attr_out', 104, {
  attr_valid: 'u64', attr_valid_nsec: 'u32', dummy: 'u32', attr: 'bytes:88',
})

export const FuseStatxIn = defineStruct('fuse_statx_in', 24, {
  getattr_flags: 'u32', reserved: 'u32', fh: 'u64', sx_flags: 'u32', sx_mask: 'u32',
})

export const FuseStatxOut = defineStruct('fuse_statx_out', 288, {
  attr_valid: 'u64', attr_valid_nsec: 'u32', flags: 'u32', spare: 'bytes:16', stat: 'bytes:256',
})

export const FuseForgetIn = defineStruct('fuse_forget_in', 8, { nlookup: 'u64' })
export const FuseForgetOne = defineStruct('fuse_forget_one', 16, { nodeid: 'u64', nlookup: 'u64' })
export const FuseBatchForgetIn = defineStruct('fuse_batch_forget_in', 8, { count: 'u32', dummy: 'u32' })

export const FuseGetattrIn = defineStruct('fuse_getattr_in', 16, { getattr_flags: 'u32', dummy: 'u32', fh: 'u64' })
export const FUSE_GETATTR_FH = 1 << 0

export const FuseSetattrIn = defineStruct('fuse_setattr_in', 88, {
  valid: 'u32', padding: 'u32', fh: 'u64', size: 'u64', lock_owner: 'u64',
  atime: 'u64', mtime: 'u64', ctime: 'u64', atimensec: 'u32', mtimensec: 'u32', ctimensec: 'u32',
  mode: 'u32', unused4: 'u32', uid: 'u32', gid: 'u32', unused5: 'u32',
})
export const FATTR_MODE = 1 << 0
export const FATTR_UID = 1 << 1
export const FATTR_GID = 1 << 2
export const FATTR_SIZE = 1 << 3
export const FATTR_ATIME = 1 << 4
export const FATTR_MTIME = 1 << 5
export const FATTR_FH = 1 << 6
export const FATTR_ATIME_NOW = 1 << 7
export const FATTR_MTIME_NOW = 1 << 8
export const FATTR_LOCKOWNER = 1 << 9
export const FATTR_CTIME = 1 << 10
export const FATTR_KILL_SUIDGID = 1 << 11

export const FuseMknodIn = defineStruct('fuse_mknod_in', 16, { mode: 'u32', rdev: 'u32', umask: 'u32', padding: 'u32' })
export const FuseMkdirIn = defineStruct('fuse_mkdir_in', 8, { mode: 'u32', umask: 'u32' })
export const FuseRenameIn = defineStruct('fuse_rename_in', 8, { newdir: 'u64' })
export const FuseRename2In = defineStruct('fuse_rename2_in', 16, { newdir: 'u64', flags: 'u32', padding: 'u32' })
export const FuseLinkIn = defineStruct('fuse_link_in', 8, { oldnodeid: 'u64' })
export const FuseOpenIn = defineStruct('fuse_open_in', 8, { flags: 'u32', open_flags: 'u32' })
/** fuse_open_in.open_flags and fuse_create_in.open_flags */
export const FUSE_OPEN_KILL_SUIDGID = 1 << 0
export const FuseCreateIn = defineStruct('fuse_create_in', 16, { flags: 'u32', mode: 'u32', umask: 'u32', open_flags: 'u32' })
export const FuseOpenOut = defineStruct('fuse_open_out', 16, { fh: 'u64', open_flags: 'u32', backing_id: 'i32' })
/** fuse_open_out.open_flags */
export const FOPEN_DIRECT_IO = 1 << 0
export const FOPEN_KEEP_CACHE = 1 << 1
export const FOPEN_NONSEEKABLE = 1 << 2
export const FOPEN_CACHE_DIR = 1 << 3
export const FOPEN_STREAM = 1 << 4
export const FOPEN_NOFLUSH = 1 << 5
export const FOPEN_PARALLEL_DIRECT_WRITES = 1 << 6
export const FOPEN_PASSTHROUGH = 1 << 7

export const FuseReleaseIn = defineStruct('fuse_release_in', 24, { fh: 'u64', flags: 'u32', release_flags: 'u32', lock_owner: 'u64' })
export const FUSE_RELEASE_FLUSH = 1 << 0
export const FUSE_RELEASE_FLOCK_UNLOCK = 1 << 1
export const FuseFlushIn = defineStruct('fuse_flush_in', 24, { fh: 'u64', unused: 'u32', padding: 'u32', lock_owner: 'u64' })

export const FuseReadIn = defineStruct('fuse_read_in', 40, {
  fh: 'u64', offset: 'u64', size: 'u32', read_flags: 'u32', lock_owner: 'u64', flags: 'u32', padding: 'u32',
})
export const FuseWriteIn = defineStruct('fuse_write_in', 40, {
  fh: 'u64', offset: 'u64', size: 'u32', write_flags: 'u32', lock_owner: 'u64', flags: 'u32', padding: 'u32',
})
export const FUSE_WRITE_CACHE = 1 << 0
export const FUSE_WRITE_LOCKOWNER = 1 << 1
export const FUSE_WRITE_KILL_SUIDGID = 1 << 2
export const FuseWriteOut = defineStruct('fuse_write_out', 8, { size: 'u32', padding: 'u32' })
export const FuseStatfsOut = defineStruct('fuse_statfs_out', 80, { st: 'bytes:80' })
export const FuseFsyncIn = defineStruct('fuse_fsync_in', 16, { fh: 'u64', fsync_flags: 'u32', padding: 'u32' })
export const FUSE_FSYNC_FDATASYNC = 1 << 0

/** The first 8 bytes are all there is unless FUSE_SETXATTR_EXT was negotiated. */
export const FuseSetxattrIn = defineStruct('fuse_setxattr_in', 16, { size: 'u32', flags: 'u32', setxattr_flags: 'u32', padding: 'u32' })
export const FUSE_COMPAT_SETXATTR_IN_SIZE = 8
export const FUSE_SETXATTR_ACL_KILL_SGID = 1 << 0
export const FuseGetxattrIn = defineStruct('fuse_getxattr_in', 8, { size: 'u32', padding: 'u32' })
export const FuseGetxattrOut = defineStruct('fuse_getxattr_out', 8, { size: 'u32', padding: 'u32' })

export const FuseFileLock = defineStruct('fuse_file_lock', 24, { start: 'u64', end: 'u64', type: 'u32', pid: 'u32' })
export const FuseLkIn = defineStruct('fuse_lk_in', 48, { fh: 'u64', owner: 'u64', lk: 'bytes:24', lk_flags: 'u32', padding: 'u32' })
export const FuseLkOut = defineStruct('fuse_lk_out', 24, { lk: 'bytes:24' })
export const FuseAccessIn = defineStruct('fuse_access_in', 8, { mask: 'u32', padding: 'u32' })

export const FuseInitIn = defineStruct('fuse_init_in', 64, {
  major: 'u32', minor: 'u32', max_readahead: 'u32', flags: 'u32', flags2: 'u32', unused: 'bytes:44',
})
export const FuseInitOut = defineStruct('fuse_init_out', 64, {
  major: 'u32', minor: 'u32', max_readahead: 'u32', flags: 'u32',
  max_background: 'u16', congestion_threshold: 'u16', max_write: 'u32', time_gran: 'u32',
  max_pages: 'u16', map_alignment: 'u16', flags2: 'u32', max_stack_depth: 'u32', request_timeout: 'u16', unused: 'bytes:22',
})

export const FuseInterruptIn = defineStruct('fuse_interrupt_in', 8, { unique: 'u64' })
export const FuseBmapIn = defineStruct('fuse_bmap_in', 16, { block: 'u64', blocksize: 'u32', padding: 'u32' })
export const FuseBmapOut = defineStruct('fuse_bmap_out', 8, { block: 'u64' })
export const FuseIoctlIn = defineStruct('fuse_ioctl_in', 32, { fh: 'u64', flags: 'u32', cmd: 'u32', arg: 'u64', in_size: 'u32', out_size: 'u32' })
export const FuseIoctlOut = defineStruct('fuse_ioctl_out', 16, { result: 'i32', flags: 'u32', in_iovs: 'u32', out_iovs: 'u32' })
export const FusePollIn = defineStruct('fuse_poll_in', 24, { fh: 'u64', kh: 'u64', flags: 'u32', events: 'u32' })
export const FusePollOut = defineStruct('fuse_poll_out', 8, { revents: 'u32', padding: 'u32' })
export const FuseFallocateIn = defineStruct('fuse_fallocate_in', 32, { fh: 'u64', offset: 'u64', length: 'u64', mode: 'u32', padding: 'u32' })
export const FuseLseekIn = defineStruct('fuse_lseek_in', 24, { fh: 'u64', offset: 'u64', whence: 'u32', padding: 'u32' })
export const FuseLseekOut = defineStruct('fuse_lseek_out', 8, { offset: 'u64' })
export const FuseCopyFileRangeIn = defineStruct('fuse_copy_file_range_in', 56, {
  fh_in: 'u64', off_in: 'u64', nodeid_out: 'u64', fh_out: 'u64', off_out: 'u64', len: 'u64', flags: 'u64',
})
export const FuseCopyFileRangeOut = defineStruct('fuse_copy_file_range_out', 8, { bytes_copied: 'u64' })
export const FuseSyncfsIn = defineStruct('fuse_syncfs_in', 8, { padding: 'u64' })

export const FuseDirent = defineStruct('fuse_dirent', 24, { ino: 'u64', off: 'u64', namelen: 'u32', type: 'u32' })
export const FuseDirentplus = defineStruct('fuse_direntplus', 152, { entry_out: 'bytes:128', dirent: 'bytes:24' })

/** Size of a directory entry on the wire: header plus name, padded to 8 bytes. */
export function direntSize(headerBytes: number, nameBytes: number): number {
  return (headerBytes + nameBytes + 7) & ~7
}

/** Extensions behind a request, present when fuse_in_header.total_extlen is not 0 (in 8-byte units). */
export const FuseExtHeader = defineStruct('fuse_ext_header', 8, { size: 'u32', type: 'u32' })
export const FUSE_MAX_NR_SECCTX = 31
export const FUSE_EXT_GROUPS = 32
export const FuseSecctxHeader = defineStruct('fuse_secctx_header', 8, { size: 'u32', nr_secctx: 'u32' })
export const FuseSecctx = defineStruct('fuse_secctx', 8, { size: 'u32', padding: 'u32' })
export const FuseSuppGroups = defineStruct('fuse_supp_groups', 4, { nr_groups: 'u32' })

/** Notifications: fuse_out_header.error carries one of these codes and unique is 0. */
export const FUSE_NOTIFY_POLL = 1
export const FUSE_NOTIFY_INVAL_INODE = 2
export const FUSE_NOTIFY_INVAL_ENTRY = 3
export const FUSE_NOTIFY_STORE = 4
export const FUSE_NOTIFY_RETRIEVE = 5
export const FUSE_NOTIFY_DELETE = 6
export const FUSE_NOTIFY_RESEND = 7
export const FUSE_NOTIFY_INC_EPOCH = 8
export const FuseNotifyInvalInodeOut = defineStruct('fuse_notify_inval_inode_out', 24, { ino: 'u64', off: 'i64', len: 'i64' })
export const FuseNotifyInvalEntryOut = defineStruct('fuse_notify_inval_entry_out', 16, { parent: 'u64', namelen: 'u32', flags: 'u32' })
/** fuse_notify_inval_entry_out.flags: the entry is looked up again before it is believed, but stays. */
export const FUSE_EXPIRE_ONLY = 1 << 0
export const FuseNotifyDeleteOut = defineStruct('fuse_notify_delete_out', 24, { parent: 'u64', child: 'u64', namelen: 'u32', padding: 'u32' })

/** INIT flags by bit number; bits from 32 up travel in flags2. */
export const FUSE_INIT_FLAGS = {
  ASYNC_READ: 0, POSIX_LOCKS: 1, FILE_OPS: 2, ATOMIC_O_TRUNC: 3, EXPORT_SUPPORT: 4, BIG_WRITES: 5, DONT_MASK: 6,
  SPLICE_WRITE: 7, SPLICE_MOVE: 8, SPLICE_READ: 9, FLOCK_LOCKS: 10, HAS_IOCTL_DIR: 11, AUTO_INVAL_DATA: 12,
  DO_READDIRPLUS: 13, READDIRPLUS_AUTO: 14, ASYNC_DIO: 15, WRITEBACK_CACHE: 16, NO_OPEN_SUPPORT: 17,
  PARALLEL_DIROPS: 18, HANDLE_KILLPRIV: 19, POSIX_ACL: 20, ABORT_ERROR: 21, MAX_PAGES: 22, CACHE_SYMLINKS: 23,
  NO_OPENDIR_SUPPORT: 24, EXPLICIT_INVAL_DATA: 25, MAP_ALIGNMENT: 26, SUBMOUNTS: 27, HANDLE_KILLPRIV_V2: 28,
  SETXATTR_EXT: 29, INIT_EXT: 30, INIT_RESERVED: 31, SECURITY_CTX: 32, HAS_INODE_DAX: 33, CREATE_SUPP_GROUP: 34,
  HAS_EXPIRE_ONLY: 35, DIRECT_IO_ALLOW_MMAP: 36, PASSTHROUGH: 37, NO_EXPORT_SUPPORT: 38, HAS_RESEND: 39,
  ALLOW_IDMAP: 40, OVER_IO_URING: 41, REQUEST_TIMEOUT: 42,
} as const

export type InitFlag = keyof typeof FUSE_INIT_FLAGS
