/** The system calls that both sides are driven with: raw, so that a step allocates little. */
import { bind } from '../../lib/sys/libc.js'

export const calls = {
  openat: bind('int openat(int, uintptr_t, int, uint32_t)'),
  close: bind('int close(int)'),
  dup2: bind('int dup3(int, int, int)'),
  fcntl: bind('int fcntl(int, int, int)'),
  fchdir: bind('int fchdir(int)'),
  getcwd: bind('uintptr_t getcwd(uintptr_t, size_t)'),
  read: bind('int64_t read(int, uintptr_t, size_t)'),
  write: bind('int64_t write(int, uintptr_t, size_t)'),
  pread: bind('int64_t pread(int, uintptr_t, size_t, int64_t)'),
  pwrite: bind('int64_t pwrite(int, uintptr_t, size_t, int64_t)'),
  preadv2: bind('int64_t preadv2(int, uintptr_t, int, int64_t, int)'),
  pwritev2: bind('int64_t pwritev2(int, uintptr_t, int, int64_t, int)'),
  lseek: bind('int64_t lseek(int, int64_t, int)'),
  ftruncate: bind('int ftruncate(int, int64_t)'),
  truncate: bind('int truncate(uintptr_t, int64_t)'),
  fallocate: bind('int fallocate(int, int, int64_t, int64_t)'),
  copyFileRange: bind('int64_t copy_file_range(int, uintptr_t, int, uintptr_t, size_t, uint32_t)'),
  sendfile: bind('int64_t sendfile(int, int, uintptr_t, size_t)'),
  fsync: bind('int fsync(int)'),
  fdatasync: bind('int fdatasync(int)'),
  syncfs: bind('int syncfs(int)'),
  mmap: bind('uintptr_t mmap(uintptr_t, size_t, int, int, int, int64_t)'),
  munmap: bind('int munmap(uintptr_t, size_t)'),
  msync: bind('int msync(uintptr_t, size_t, int)'),
  memcpy: bind('uintptr_t memcpy(uintptr_t, uintptr_t, size_t)'),
  mknodat: bind('int mknodat(int, uintptr_t, uint32_t, uint64_t)'),
  mkdirat: bind('int mkdirat(int, uintptr_t, uint32_t)'),
  unlinkat: bind('int unlinkat(int, uintptr_t, int)'),
  renameat2: bind('int renameat2(int, uintptr_t, int, uintptr_t, uint32_t)'),
  linkat: bind('int linkat(int, uintptr_t, int, uintptr_t, int)'),
  symlinkat: bind('int symlinkat(uintptr_t, int, uintptr_t)'),
  readlinkat: bind('int64_t readlinkat(int, uintptr_t, uintptr_t, size_t)'),
  fchmod: bind('int fchmod(int, uint32_t)'),
  fchmodat: bind('int fchmodat(int, uintptr_t, uint32_t, int)'),
  fchownat: bind('int fchownat(int, uintptr_t, uint32_t, uint32_t, int)'),
  utimensat: bind('int utimensat(int, uintptr_t, uintptr_t, int)'),
  futimens: bind('int futimens(int, uintptr_t)'),
  faccessat: bind('int faccessat(int, uintptr_t, int, int)'),
  statx: bind('int statx(int, uintptr_t, int, uint32_t, uintptr_t)'),
  statfs: bind('int statfs(uintptr_t, uintptr_t)'),
  getdents64: bind('int64_t getdents64(int, uintptr_t, size_t)'),
  umask: bind('uint32_t umask(uint32_t)'),
  setxattr: bind('int setxattr(uintptr_t, uintptr_t, uintptr_t, size_t, int)'),
  lsetxattr: bind('int lsetxattr(uintptr_t, uintptr_t, uintptr_t, size_t, int)'),
  fsetxattr: bind('int fsetxattr(int, uintptr_t, uintptr_t, size_t, int)'),
  lgetxattr: bind('int64_t lgetxattr(uintptr_t, uintptr_t, uintptr_t, size_t)'),
  getxattr: bind('int64_t getxattr(uintptr_t, uintptr_t, uintptr_t, size_t)'),
  fgetxattr: bind('int64_t fgetxattr(int, uintptr_t, uintptr_t, size_t)'),
  llistxattr: bind('int64_t llistxattr(uintptr_t, uintptr_t, size_t)'),
  listxattr: bind('int64_t listxattr(uintptr_t, uintptr_t, size_t)'),
  flistxattr: bind('int64_t flistxattr(int, uintptr_t, size_t)'),
  lremovexattr: bind('int lremovexattr(uintptr_t, uintptr_t)'),
  fremovexattr: bind('int fremovexattr(int, uintptr_t)'),
} as const

export const PROT_READ = 1
export const PROT_WRITE = 2
export const MAP_SHARED = 1
export const MAP_PRIVATE = 2
export const MS_SYNC = 4
export const F_GETFL = 3
export const F_SETFL = 4
export const SEEK_SET = 0
export const SEEK_CUR = 1
export const SEEK_END = 2
export const SEEK_DATA = 3
export const SEEK_HOLE = 4
