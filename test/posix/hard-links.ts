/** link(2): one inode under several names. */
import assert from 'node:assert/strict'
import { linkSync, mkdirSync, readFileSync, renameSync, rmdirSync, symlinkSync, unlinkSync, writeFileSync, appendFileSync, chmodSync } from 'node:fs'
import { join } from 'node:path'
import { fails, group, hasMode, lstat, marks, stat, touch } from './check.js'

export const hardLinks = group('hard-links', [
  {
    name: 'both names have one inode and a link count of two',
    cites: 'POSIX link(): "the link count of the file shall be incremented by one"',
    run(dir) {
      touch(join(dir, 'a'))
      linkSync(join(dir, 'a'), join(dir, 'b'))
      assert.equal(stat(join(dir, 'a')).ino, stat(join(dir, 'b')).ino)
      assert.equal(stat(join(dir, 'a')).nlink, 2n)
      assert.equal(stat(join(dir, 'b')).nlink, 2n)
    },
  },
  {
    name: 'data and mode changed under one name are seen under the other',
    cites: 'POSIX link()',
    run(dir) {
      writeFileSync(join(dir, 'a'), 'one')
      linkSync(join(dir, 'a'), join(dir, 'b'))
      appendFileSync(join(dir, 'b'), 'two')
      chmodSync(join(dir, 'b'), 0o604)
      assert.equal(readFileSync(join(dir, 'a'), 'utf8'), 'onetwo')
      hasMode(join(dir, 'a'), 0o604)
      assert.equal(stat(join(dir, 'a')).size, 6n)
    },
  },
  {
    name: 'removing one name leaves the other with a count of one',
    cites: 'POSIX unlink(): "decrement the link count"',
    run(dir) {
      writeFileSync(join(dir, 'a'), 'data')
      linkSync(join(dir, 'a'), join(dir, 'b'))
      unlinkSync(join(dir, 'a'))
      assert.equal(readFileSync(join(dir, 'b'), 'utf8'), 'data')
      assert.equal(stat(join(dir, 'b')).nlink, 1n)
    },
  },
  {
    name: 'link marks ctime of the file, mtime and ctime of the directory',
    cites: 'POSIX link(): "shall mark for update the last file status change timestamp of the file"',
    run(dir) {
      mkdirSync(join(dir, 'd'))
      touch(join(dir, 'a'))
      marks(join(dir, 'a'), ['ctime'], () => {
        marks(join(dir, 'd'), ['mtime', 'ctime'], () => { linkSync(join(dir, 'a'), join(dir, 'd', 'b')) })
      }, ['mtime'])
    },
  },
  {
    name: 'unlink of one of two names marks ctime of the file',
    cites: 'POSIX unlink(): "if the file’s link count is not 0, the last file status change timestamp of the file shall be marked for update"',
    run(dir) {
      touch(join(dir, 'a'))
      linkSync(join(dir, 'a'), join(dir, 'b'))
      marks(join(dir, 'a'), ['ctime'], () => { unlinkSync(join(dir, 'b')) }, ['mtime'])
    },
  },
  {
    name: 'an existing name is EEXIST, also a dangling symbolic link',
    cites: 'POSIX link(), EEXIST',
    run(dir) {
      touch(join(dir, 'a'))
      touch(join(dir, 'b'))
      symlinkSync('nowhere', join(dir, 'link'))
      fails('EEXIST', () => { linkSync(join(dir, 'a'), join(dir, 'b')) })
      fails('EEXIST', () => { linkSync(join(dir, 'a'), join(dir, 'link')) })
      fails('EEXIST', () => { linkSync(join(dir, 'a'), dir) })
    },
  },
  {
    name: 'a directory cannot be linked',
    cites: 'link(2), EPERM: "oldpath is a directory"',
    run(dir) {
      mkdirSync(join(dir, 'd'))
      fails('EPERM', () => { linkSync(join(dir, 'd'), join(dir, 'e')) })
    },
  },
  {
    name: 'a source that is not there is ENOENT, a directory that is a file ENOTDIR',
    cites: 'POSIX link(), ENOENT, ENOTDIR',
    run(dir) {
      touch(join(dir, 'a'))
      fails('ENOENT', () => { linkSync(join(dir, 'none'), join(dir, 'b')) })
      fails('ENOENT', () => { linkSync(join(dir, 'a'), join(dir, 'none', 'b')) })
      fails('ENOTDIR', () => { linkSync(join(dir, 'a'), join(dir, 'a', 'b')) })
    },
  },
  {
    name: 'without AT_SYMLINK_FOLLOW a symbolic link gets a second name',
    cites: 'linkat(2): "By default … does not dereference oldpath if it is a symbolic link"',
    run(dir, sys) {
      touch(join(dir, 'f'))
      symlinkSync('f', join(dir, 'link'))
      sys.linkat(sys.AT_FDCWD, join(dir, 'link'), sys.AT_FDCWD, join(dir, 'other'))
      assert.ok(lstat(join(dir, 'other')).isSymbolicLink())
      assert.equal(lstat(join(dir, 'other')).ino, lstat(join(dir, 'link')).ino)
    },
  },
  {
    name: 'with AT_SYMLINK_FOLLOW its target does',
    cites: 'POSIX linkat(), AT_SYMLINK_FOLLOW',
    run(dir, sys) {
      touch(join(dir, 'f'))
      symlinkSync('f', join(dir, 'link'))
      sys.linkat(sys.AT_FDCWD, join(dir, 'link'), sys.AT_FDCWD, join(dir, 'other'), sys.AT_SYMLINK_FOLLOW)
      assert.equal(lstat(join(dir, 'other')).ino, lstat(join(dir, 'f')).ino)
    },
  },
  {
    name: 'a FIFO can be linked',
    cites: 'link(2)',
    run(dir, sys) {
      sys.mknod(join(dir, 'fifo'), sys.S_IFIFO | 0o644)
      linkSync(join(dir, 'fifo'), join(dir, 'other'))
      assert.equal(stat(join(dir, 'other')).nlink, 2n)
      assert.ok(stat(join(dir, 'other')).isFIFO())
    },
  },
  {
    name: 'a hundred names of one file, each removed again',
    cites: 'link(2); unlink(2)',
    run(dir) {
      touch(join(dir, 'f'))
      for (let i = 0; i < 100; i++) linkSync(join(dir, 'f'), join(dir, `l${i}`))
      assert.equal(stat(join(dir, 'l57')).nlink, 101n)
      for (let i = 0; i < 100; i++) unlinkSync(join(dir, `l${i}`))
      assert.equal(stat(join(dir, 'f')).nlink, 1n)
    },
  },
  {
    name: 'across directories, and found after both were renamed',
    cites: 'link(2); rename(2)',
    run(dir) {
      mkdirSync(join(dir, 'd1'))
      mkdirSync(join(dir, 'd2'))
      writeFileSync(join(dir, 'd1', 'a'), 'x')
      linkSync(join(dir, 'd1', 'a'), join(dir, 'd2', 'b'))
      renameSync(join(dir, 'd1'), join(dir, 'e1'))
      renameSync(join(dir, 'd2'), join(dir, 'e2'))
      assert.equal(stat(join(dir, 'e1', 'a')).ino, stat(join(dir, 'e2', 'b')).ino)
    },
  },
  {
    name: 'a file under a directory of a removed name can still be linked elsewhere',
    cites: 'linkat(2), AT_EMPTY_PATH: needs a link count that is not 0',
    needs: ['root'],
    run(dir, sys) {
      writeFileSync(join(dir, 'a'), 'x')
      sys.withFd(sys.open(join(dir, 'a'), sys.O_RDONLY), fd => {
        linkSync(join(dir, 'a'), join(dir, 'b'))
        unlinkSync(join(dir, 'a'))
        sys.linkat(fd, '', sys.AT_FDCWD, join(dir, 'c'), sys.AT_EMPTY_PATH)
        assert.equal(stat(join(dir, 'c')).nlink, 2n)
      })
    },
  },
  {
    name: 'a file without names cannot be linked again',
    cites: 'fs/namei.c vfs_link(): i_nlink 0 without I_LINKABLE is ENOENT',
    needs: ['root'],
    run(dir, sys) {
      writeFileSync(join(dir, 'a'), 'x')
      sys.withFd(sys.open(join(dir, 'a'), sys.O_RDONLY), fd => {
        unlinkSync(join(dir, 'a'))
        fails('ENOENT', () => { sys.linkat(fd, '', sys.AT_FDCWD, join(dir, 'c'), sys.AT_EMPTY_PATH) })
      })
    },
  },
  {
    name: 'a linked directory entry keeps a directory from being removed',
    cites: 'POSIX rmdir(), ENOTEMPTY',
    run(dir) {
      mkdirSync(join(dir, 'd'))
      touch(join(dir, 'a'))
      linkSync(join(dir, 'a'), join(dir, 'd', 'b'))
      fails(['ENOTEMPTY', 'EEXIST'], () => { rmdirSync(join(dir, 'd')) })
    },
  },
])
