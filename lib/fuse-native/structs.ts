/**
 * Structures of C that the addon and libfuse share with us, on x86-64.
 * Sources: fuse-native 2.2.6 fuse-native.c; libfuse 2.9 include/fuse_common.h; glibc 2.36 bits/struct_stat.h,
 * bits/statvfs.h; libuv of Node 20 (uv_async_t).
 */
import { defineStruct } from '../wire/struct.js'

/** Of one thread of libfuse: the call that it waits for. Pointers are u64. */
export const FuseThreadLocals = defineStruct('fuse_thread_locals_t', 360, {
  self: 'u64', op: 'u32', padding: 'u32', op_fn: 'u64',
  path: 'u64', dest: 'u64', linkname: 'u64', info: 'u64', buf: 'u64', offset: 'i64', len: 'u64', mode: 'u32', padding2: 'u32', dev: 'u64', uid: 'u32', gid: 'u32',
  atime: 'i64', mtime: 'i64', res: 'i32', padding3: 'u32',
  name: 'u64', value: 'u64', list: 'u64', size: 'u64', position: 'u32', flags: 'u32',
  stat: 'u64', statvfs: 'u64', readdir_filler: 'u64', fuse: 'u64', sem: 'bytes:32', async: 'bytes:128',
})

/** The beginning of the addon's struct of a mount. */
export const FuseThread = defineStruct('fuse_thread_t', 16, { env: 'u64', thread: 'u64' })

export const FuseFileInfo = defineStruct('fuse_file_info', 40, { flags: 'u32', padding: 'u32', fh_old: 'u64', writepage: 'i32', bits: 'u32', fh: 'u64', lock_owner: 'u64' })

export const Stat = defineStruct('stat', 144, {
  st_dev: 'u64', st_ino: 'u64', st_nlink: 'u64', st_mode: 'u32', st_uid: 'u32', st_gid: 'u32', padding: 'u32', st_rdev: 'u64', st_size: 'i64', st_blksize: 'i64', st_blocks: 'i64',
  st_atime: 'i64', st_atimensec: 'i64', st_mtime: 'i64', st_mtimensec: 'i64', st_ctime: 'i64', st_ctimensec: 'i64', reserved: 'bytes:24',
})

export const Statvfs = defineStruct('statvfs', 112, {
  f_bsize: 'u64', f_frsize: 'u64', f_blocks: 'u64', f_bfree: 'u64', f_bavail: 'u64', f_files: 'u64', f_ffree: 'u64', f_favail: 'u64', f_fsid: 'u64', f_flag: 'u64', f_namemax: 'u64',
  spare: 'bytes:24',
})
