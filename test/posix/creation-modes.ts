/** umask(2), set-group-ID directories, and the suid and sgid bits that writing and chown take away. */
import assert from 'node:assert/strict'
import { mkdirSync, renameSync, unlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Sys } from '../support/posix-sys.js'
import { fails, group, hasMode, marks, modeOf, stat, touch } from './check.js'

function withUmask(sys: Sys, mask: number, use: () => void): void {
  const before = sys.umask(mask)
  try {
    use()
  } finally {
    sys.umask(before)
  }
}

export const umasks = group('umask', [
  {
    name: 'its bits are off in a new file, directory and FIFO',
    cites: 'POSIX umask(); open(), mkdir(), mkfifo()',
    run(dir, sys) {
      for (const mask of [0, 0o022, 0o077, 0o027, 0o777]) {
        const at = (name: string): string => join(dir, `${name}${mask}`)
        withUmask(sys, mask, () => {
          touch(at('f'), 0o777)
          sys.mkdirat(sys.AT_FDCWD, at('d'), 0o777)
          sys.mknod(at('p'), sys.S_IFIFO | 0o777)
          sys.mknod(at('n'), sys.S_IFREG | 0o777)
        })
        for (const name of ['f', 'd', 'p', 'n']) hasMode(at(name), 0o777 & ~mask)
      }
    },
  },
  {
    name: 'chmod does not know it',
    cites: 'POSIX umask(): it is for open(), creat(), mkdir(), mkfifo(), mknod() …',
    run(dir, sys) {
      touch(join(dir, 'f'))
      withUmask(sys, 0o077, () => { sys.chmodat(join(dir, 'f'), 0o666) })
      hasMode(join(dir, 'f'), 0o666)
    },
  },
  {
    name: 'suid, sgid and sticky of a new file are kept',
    cites: 'open(2), mode: S_ISUID, S_ISGID, S_ISVTX',
    run(dir) {
      touch(join(dir, 'f'), 0o6755)
      hasMode(join(dir, 'f'), 0o6755)
      touch(join(dir, 'g'), 0o1644)
      hasMode(join(dir, 'g'), 0o1644)
    },
  },
  {
    name: 'an existing file keeps its mode when it is opened with O_CREAT',
    cites: 'POSIX open(), O_CREAT: "If the file exists, this flag has no effect"',
    run(dir, sys) {
      touch(join(dir, 'f'), 0o604)
      withUmask(sys, 0, () => { sys.close(sys.open(join(dir, 'f'), sys.O_CREAT | sys.O_RDWR, 0o777)) })
      hasMode(join(dir, 'f'), 0o604)
    },
  },
])

export const setgidDirectories = group('setgid-directories', [
  {
    name: 'what is made in one gets its group',
    cites: 'mkdir(2), open(2): "mounted with BSD group semantics or … set-group-ID bit" of the parent; inode(7), S_ISGID',
    run(dir, sys) {
      mkdirSync(join(dir, 'd'))
      sys.chown(join(dir, 'd'), -1, sys.STAFF)
      sys.chmodat(join(dir, 'd'), 0o2777)
      sys.as(sys.alice, () => {
        touch(join(dir, 'd', 'f'))
        mkdirSync(join(dir, 'd', 'e'))
        sys.mknod(join(dir, 'd', 'p'), sys.S_IFIFO | 0o644)
        sys.symlinkat('x', sys.AT_FDCWD, join(dir, 'd', 'l'))
      })
      for (const name of ['f', 'e', 'p']) assert.deepEqual([stat(join(dir, 'd', name)).uid, stat(join(dir, 'd', name)).gid], [BigInt(sys.alice.uid), BigInt(sys.STAFF)], name)
      assert.equal(sys.statx(join(dir, 'd', 'l'), sys.STATX_BASIC_STATS).gid, sys.STAFF)
    },
  },
  {
    name: 'a directory made in one is one too, a file is not',
    cites: 'inode(7), S_ISGID: "newly created subdirectories … inherit the set-group-ID bit"',
    run(dir, sys) {
      mkdirSync(join(dir, 'd'))
      sys.chown(join(dir, 'd'), -1, sys.STAFF)
      sys.chmodat(join(dir, 'd'), 0o2777)
      mkdirSync(join(dir, 'd', 'e'))
      mkdirSync(join(dir, 'd', 'e', 'deeper'))
      touch(join(dir, 'd', 'f'), 0o755)
      hasMode(join(dir, 'd', 'e'), 0o2755)
      hasMode(join(dir, 'd', 'e', 'deeper'), 0o2755)
      hasMode(join(dir, 'd', 'f'), 0o755)
      assert.equal(stat(join(dir, 'd', 'e', 'deeper')).gid, BigInt(sys.STAFF))
    },
  },
  {
    name: 'who is not in the group cannot make a set-group-ID program in one',
    cites: 'fs/inode.c mode_strip_sgid; CVE-2018-13405',
    run(dir, sys) {
      mkdirSync(join(dir, 'd'))
      sys.chown(join(dir, 'd'), -1, sys.STAFF)
      sys.chmodat(join(dir, 'd'), 0o2777)
      sys.as(sys.alice, () => {
        touch(join(dir, 'd', 'f'), 0o2755)
        sys.mknod(join(dir, 'd', 'n'), sys.S_IFREG | 0o2755)
      })
      for (const name of ['f', 'n']) hasMode(join(dir, 'd', name), 0o755)
      sys.as({ ...sys.alice, groups: [sys.STAFF] }, () => { touch(join(dir, 'd', 'member'), 0o2755) })
      hasMode(join(dir, 'd', 'member'), 0o2755)
    },
  },
  {
    name: 'moving into one changes no group',
    cites: 'rename(2); POSIX rename()',
    run(dir, sys) {
      mkdirSync(join(dir, 'd'))
      sys.chown(join(dir, 'd'), -1, sys.STAFF)
      sys.chmodat(join(dir, 'd'), 0o2777)
      sys.as(sys.alice, () => {
        touch(join(dir, 'f'))
        renameSync(join(dir, 'f'), join(dir, 'd', 'f'))
      })
      assert.equal(stat(join(dir, 'd', 'f')).gid, BigInt(sys.alice.gid))
    },
  },
], ['root'])

/** A program of alice with both bits, writable for everyone. */
function program(dir: string, sys: Sys, mode = 0o6777): string {
  const path = join(dir, 'program')
  writeFileSync(path, 'program')
  sys.chown(path, sys.alice.uid, sys.alice.gid)
  sys.chmodat(path, mode)
  return path
}

const STATX_MODE = 0x2

/** Changes of a file's data, by name. */
function changes(sys: Sys): [string, (path: string) => void][] {
  const on = (flags: number, change: (fd: number) => void) => (path: string): void => { sys.withFd(sys.open(path, flags), change) }
  return [
    ['write', on(sys.O_WRONLY, fd => { sys.write(fd, 'x') })],
    ['ftruncate', on(sys.O_WRONLY, fd => { sys.ftruncate(fd, 1) })],
    ['truncate', path => { sys.truncate(path, 1) }],
    ['O_TRUNC', on(sys.O_WRONLY | sys.O_TRUNC, () => {})],
    ['fallocate', on(sys.O_WRONLY, fd => { sys.fallocate(fd, 0, 0, 8192) })],
    ['copy_file_range', on(sys.O_RDWR, fd => { sys.copyFileRange(fd, 0, fd, 4096, 7) })],
  ]
}

export const suidClearing = group('suid-clearing', [
  {
    name: 'a write by another user takes suid and sgid away',
    cites: 'POSIX write(): "the S_ISUID and S_ISGID bits of the file mode may be cleared"; mm/filemap.c file_remove_privs',
    run(dir, sys) {
      const path = program(dir, sys)
      sys.as(sys.bob, () => { sys.withFd(sys.open(path, sys.O_WRONLY), fd => { sys.write(fd, 'x') }) })
      hasMode(path, 0o777)
    },
  },
  {
    name: 'also one by its owner, and at an offset',
    cites: 'fs/inode.c setattr_should_drop_suidgid',
    run(dir, sys) {
      const path = program(dir, sys)
      sys.as(sys.alice, () => { sys.withFd(sys.open(path, sys.O_WRONLY), fd => { sys.pwrite(fd, 'x', 100) }) })
      hasMode(path, 0o777)
    },
  },
  {
    name: 'a write by root leaves them',
    cites: 'fs/inode.c setattr_should_drop_suidgid: CAP_FSETID',
    run(dir, sys) {
      const path = program(dir, sys)
      sys.withFd(sys.open(path, sys.O_WRONLY), fd => { sys.write(fd, 'x') })
      hasMode(path, 0o6777)
    },
  },
  {
    name: 'fstat sees it at once, on the descriptor that wrote',
    cites: 'POSIX write(), fstat()',
    run(dir, sys) {
      const path = program(dir, sys)
      sys.as(sys.bob, () => {
        sys.withFd(sys.open(path, sys.O_WRONLY), fd => {
          sys.write(fd, 'x')
          assert.equal(sys.statx('', sys.STATX_BASIC_STATS, sys.AT_EMPTY_PATH, fd).mode & 0o7777, 0o777)
        })
      })
    },
  },
  {
    name: 'truncate and ftruncate take them away',
    cites: 'POSIX truncate(), ftruncate(): "may clear the S_ISUID and S_ISGID bits"; fs/open.c do_truncate',
    run(dir, sys) {
      let path = program(dir, sys)
      sys.as(sys.bob, () => { sys.truncate(path, 2) })
      hasMode(path, 0o777)
      path = program(dir, sys)
      sys.as(sys.bob, () => { sys.withFd(sys.open(path, sys.O_WRONLY), fd => { sys.ftruncate(fd, 1) }) })
      hasMode(path, 0o777)
    },
  },
  {
    name: 'O_TRUNC takes them away',
    cites: 'POSIX open(), O_TRUNC; fs/namei.c handle_truncate',
    run(dir, sys) {
      const path = program(dir, sys)
      sys.as(sys.bob, () => { sys.close(sys.open(path, sys.O_WRONLY | sys.O_TRUNC)) })
      hasMode(path, 0o777)
    },
  },
  {
    name: 'fallocate takes them away',
    cites: 'fs/ext4/extents.c, mm/shmem.c: file_modified in fallocate',
    needs: ['fallocate'],
    run(dir, sys) {
      const path = program(dir, sys)
      sys.as(sys.bob, () => { sys.withFd(sys.open(path, sys.O_WRONLY), fd => { sys.fallocate(fd, 0, 0, 8192) }) })
      hasMode(path, 0o777)
    },
  },
  {
    name: 'fallocate and copy_file_range by root leave them',
    cites: 'fs/inode.c setattr_should_drop_suidgid: CAP_FSETID',
    needs: ['fallocate'],
    run(dir, sys) {
      const path = program(dir, sys)
      sys.withFd(sys.open(path, sys.O_RDWR), fd => {
        sys.fallocate(fd, 0, 0, 8192)
        hasMode(path, 0o6777)
        sys.copyFileRange(fd, 0, fd, 4096, 7)
      })
      hasMode(path, 0o6777)
    },
  },
  {
    name: 'copy_file_range by another user takes them away',
    cites: 'fs/read_write.c generic_copy_file_range; fs/fuse/file.c: file_modified',
    run(dir, sys) {
      const path = program(dir, sys)
      sys.as(sys.bob, () => { sys.withFd(sys.open(path, sys.O_RDWR), fd => { sys.copyFileRange(fd, 0, fd, 4096, 7) }) })
      hasMode(path, 0o777)
    },
  },
  {
    name: 'chown that changes nothing takes them away and marks ctime',
    cites: 'chown(2): "the S_ISUID and S_ISGID mode bits are cleared"; fs/open.c chown_common',
    run(dir, sys) {
      const path = program(dir, sys)
      marks(path, ['ctime'], () => { sys.chown(path, -1, -1) }, ['mtime'])
      hasMode(path, 0o777)
    },
  },
  {
    name: 'a look at the mode alone sees that at once',
    cites: 'statx(2), STATX_MODE; fs/fuse/file.c fuse_write_update_attr',
    needs: ['fallocate'],
    run(dir, sys) {
      for (const [name, change] of changes(sys)) {
        const path = program(dir, sys)
        const modeAlone = (): string => (sys.statx(path, STATX_MODE).mode & 0o7777).toString(8)
        assert.equal(modeAlone(), '6777')
        sys.as(sys.bob, () => { change(path) })
        assert.equal(modeAlone(), '777', name)
        unlinkSync(path)
      }
    },
  },
  {
    name: 'sgid without group x goes with a change by who is not in the group',
    cites: 'fs/attr.c setattr_should_drop_sgid',
    needs: ['fallocate'],
    run(dir, sys) {
      for (const [name, change] of changes(sys)) {
        const path = program(dir, sys, 0o6767)
        sys.as(sys.bob, () => { change(path) })
        assert.equal(modeOf(path).toString(8), '767', name)
        unlinkSync(path)
      }
    },
  },
  {
    name: 'sgid without group x goes where the group is root\'s, too',
    cites: 'fs/attr.c setattr_should_drop_sgid',
    needs: ['fallocate'],
    run(dir, sys) {
      for (const [name, change] of changes(sys)) {
        const path = program(dir, sys, 0o2767)
        sys.chown(path, -1, 0)
        sys.as(sys.bob, () => { change(path) })
        assert.equal(modeOf(path).toString(8), '767', name)
        unlinkSync(path)
      }
    },
  },
  {
    name: 'sgid without group x stays with a change by a member, by gid or by a supplementary group',
    cites: 'fs/attr.c setattr_should_drop_sgid',
    needs: ['fallocate'],
    run(dir, sys) {
      for (const member of [{ ...sys.bob, gid: sys.alice.gid }, { ...sys.bob, groups: [sys.STAFF, sys.alice.gid] }]) {
        for (const [name, change] of changes(sys)) {
          const path = program(dir, sys, 0o2767)
          sys.as(member, () => { change(path) })
          assert.equal(modeOf(path).toString(8), '2767', `${name} of ${JSON.stringify(member)}`)
          unlinkSync(path)
        }
      }
    },
  },
  {
    name: 'sgid without group x goes when an owner who is not in the group gives the file to another',
    cites: 'fs/open.c chown_common; fs/attr.c setattr_should_drop_sgid',
    run(dir, sys) {
      const path = program(dir, sys, 0o2767)
      sys.chown(path, -1, sys.STAFF)
      sys.chmodat(path, 0o2767)
      sys.as(sys.alice, () => { sys.chown(path, -1, sys.alice.gid) })
      hasMode(path, 0o767)
    },
  },
  {
    name: 'chown takes them away, also by root',
    cites: 'chown(2): "the S_ISUID and S_ISGID mode bits are cleared" of an executable file; Linux: for root too',
    run(dir, sys) {
      const path = program(dir, sys)
      sys.chown(path, sys.bob.uid, -1)
      hasMode(path, 0o777)
      sys.chmodat(path, 0o6777)
      sys.chown(path, -1, sys.bob.gid)
      hasMode(path, 0o777)
    },
  },
  {
    name: 'chown by the owner to her own ids takes them away',
    cites: 'chown(2)',
    run(dir, sys) {
      const path = program(dir, sys)
      sys.as(sys.alice, () => { sys.chown(path, -1, sys.alice.gid) })
      hasMode(path, 0o777)
    },
  },
  {
    name: 'chown leaves sgid of a file that is not executable, and of a directory',
    cites: 'chown(2): S_ISGID without S_IXGRP is mandatory locking; fs/attr.c setattr_should_drop_sgid',
    run(dir, sys) {
      mkdirSync(join(dir, 'd'))
      sys.chmodat(join(dir, 'd'), 0o2755)
      sys.chown(join(dir, 'd'), sys.bob.uid, sys.bob.gid)
      hasMode(join(dir, 'd'), 0o2755)
      const path = program(dir, sys, 0o2745)
      sys.chown(path, sys.bob.uid, -1)
      hasMode(path, 0o2745)
    },
  },
  {
    name: 'reading, renaming, linking and setting times leave them',
    cites: 'POSIX read(), rename(), link(), utimensat()',
    run(dir, sys) {
      const path = program(dir, sys)
      sys.as(sys.alice, () => {
        sys.withFd(sys.open(path, sys.O_RDONLY), fd => { sys.read(fd, 10) })
        sys.utimensNow(path)
        renameSync(path, join(dir, 'other'))
        sys.linkat(sys.AT_FDCWD, join(dir, 'other'), sys.AT_FDCWD, path)
      })
      hasMode(path, 0o6777)
    },
  },
  {
    name: 'a write of nothing leaves them',
    cites: 'POSIX write(): cleared "upon successful completion, if nbyte is greater than 0"',
    run(dir, sys) {
      const path = program(dir, sys)
      sys.as(sys.bob, () => { sys.withFd(sys.open(path, sys.O_WRONLY), fd => { sys.write(fd, '') }) })
      hasMode(path, 0o6777)
    },
  },
  {
    name: 'a write after one through a shared mapping takes them away',
    cites: 'POSIX write(); mm/filemap.c file_remove_privs',
    run(dir, sys) {
      const path = program(dir, sys)
      sys.as(sys.bob, () => {
        sys.withFd(sys.open(path, sys.O_RDWR), fd => {
          sys.withMapping(fd, 7, sys.PROT_READ | sys.PROT_WRITE, sys.MAP_SHARED, (bytes, sync) => {
            bytes[0] = 80
            sync()
          })
          sys.write(fd, 'x')
        })
      })
      hasMode(path, 0o777)
    },
  },
  {
    name: 'suid cannot be set by who is not the owner',
    cites: 'POSIX chmod(), EPERM',
    run(dir, sys) {
      const path = program(dir, sys, 0o777)
      sys.as(sys.bob, () => { fails('EPERM', () => { sys.chmodat(path, 0o4777) }) })
    },
  },
], ['root'])
