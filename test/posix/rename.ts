/** rename(2) without flags. */
import assert from 'node:assert/strict'
import { existsSync, linkSync, mkdirSync, readdirSync, readFileSync, renameSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fails, group, lstat, marks, stat, touch } from './check.js'

export const renames = group('rename', [
  {
    name: 'the file keeps its inode and contents under its new name',
    cites: 'POSIX rename()',
    run(dir) {
      writeFileSync(join(dir, 'a'), 'data')
      const { ino } = stat(join(dir, 'a'))
      renameSync(join(dir, 'a'), join(dir, 'b'))
      assert.equal(stat(join(dir, 'b')).ino, ino)
      assert.equal(readFileSync(join(dir, 'b'), 'utf8'), 'data')
      assert.equal(existsSync(join(dir, 'a')), false)
    },
  },
  {
    name: 'an existing file is replaced; who has it open keeps the old one',
    cites: 'POSIX rename(): "If the link named by the new argument exists, it shall be removed"',
    run(dir, sys) {
      writeFileSync(join(dir, 'a'), 'new')
      writeFileSync(join(dir, 'b'), 'old')
      sys.withFd(sys.open(join(dir, 'b'), sys.O_RDONLY), fd => {
        renameSync(join(dir, 'a'), join(dir, 'b'))
        assert.equal(readFileSync(join(dir, 'b'), 'utf8'), 'new')
        assert.equal(sys.pread(fd, 10, 0).toString(), 'old')
      })
    },
  },
  {
    name: 'an open file follows its new name',
    cites: 'rename(2): "Open file descriptors for oldpath are also unaffected"',
    run(dir, sys) {
      sys.withFd(sys.open(join(dir, 'a'), sys.O_CREAT | sys.O_RDWR), fd => {
        renameSync(join(dir, 'a'), join(dir, 'b'))
        sys.write(fd, 'late')
        assert.equal(readFileSync(join(dir, 'b'), 'utf8'), 'late')
      })
    },
  },
  {
    name: 'two names of one inode: nothing happens, both stay',
    cites: 'POSIX rename(): "resolve to … different directory entries for the same existing file, … perform no other action"',
    run(dir) {
      touch(join(dir, 'a'))
      linkSync(join(dir, 'a'), join(dir, 'b'))
      renameSync(join(dir, 'a'), join(dir, 'b'))
      assert.deepEqual(readdirSync(dir).sort(), ['a', 'b'])
    },
  },
  {
    name: 'a name to itself',
    cites: 'POSIX rename(): "resolve to the same existing directory entry"',
    run(dir) {
      touch(join(dir, 'a'))
      renameSync(join(dir, 'a'), join(dir, 'a'))
      assert.deepEqual(readdirSync(dir), ['a'])
    },
  },
  {
    name: 'a directory moves with all that is in it, and its .. changes',
    cites: 'POSIX rename()',
    run(dir) {
      mkdirSync(join(dir, 'p1', 'd', 'sub'), { recursive: true })
      mkdirSync(join(dir, 'p2'))
      writeFileSync(join(dir, 'p1', 'd', 'sub', 'f'), 'x')
      renameSync(join(dir, 'p1', 'd'), join(dir, 'p2', 'e'))
      assert.equal(readFileSync(join(dir, 'p2', 'e', 'sub', 'f'), 'utf8'), 'x')
      assert.equal(stat(`${dir}/p2/e/..`).ino, stat(join(dir, 'p2')).ino)
      assert.deepEqual(readdirSync(join(dir, 'p1')), [])
    },
  },
  {
    name: 'link counts of both parents follow a directory that moves',
    cites: 'stat(2), st_nlink of a directory; fs/ext4/namei.c ext4_rename()',
    run(dir) {
      mkdirSync(join(dir, 'p1', 'd'), { recursive: true })
      mkdirSync(join(dir, 'p2'))
      const before = [stat(join(dir, 'p1')).nlink, stat(join(dir, 'p2')).nlink]
      renameSync(join(dir, 'p1', 'd'), join(dir, 'p2', 'd'))
      assert.deepEqual([stat(join(dir, 'p1')).nlink, stat(join(dir, 'p2')).nlink], [before[0]! - 1n, before[1]! + 1n])
    },
  },
  {
    name: 'a directory replaces an empty one',
    cites: 'POSIX rename(): "If new names an existing directory, it shall be required to be an empty directory"',
    run(dir) {
      mkdirSync(join(dir, 'a'))
      touch(join(dir, 'a', 'f'))
      mkdirSync(join(dir, 'b'))
      renameSync(join(dir, 'a'), join(dir, 'b'))
      assert.deepEqual(readdirSync(join(dir, 'b')), ['f'])
    },
  },
  {
    name: 'and none that has entries',
    cites: 'POSIX rename(), EEXIST or ENOTEMPTY',
    run(dir) {
      mkdirSync(join(dir, 'a'))
      mkdirSync(join(dir, 'b'))
      touch(join(dir, 'b', 'f'))
      fails(['ENOTEMPTY', 'EEXIST'], () => { renameSync(join(dir, 'a'), join(dir, 'b')) })
      assert.deepEqual(readdirSync(join(dir, 'b')), ['f'])
    },
  },
  {
    name: 'a file onto a directory is EISDIR, a directory onto a file ENOTDIR',
    cites: 'POSIX rename(), EISDIR, ENOTDIR',
    run(dir) {
      touch(join(dir, 'f'))
      mkdirSync(join(dir, 'd'))
      fails('EISDIR', () => { renameSync(join(dir, 'f'), join(dir, 'd')) })
      fails('ENOTDIR', () => { renameSync(join(dir, 'd'), join(dir, 'f')) })
    },
  },
  {
    name: 'a directory into itself or below itself is EINVAL',
    cites: 'POSIX rename(), EINVAL',
    run(dir) {
      mkdirSync(join(dir, 'd', 'e'), { recursive: true })
      fails('EINVAL', () => { renameSync(join(dir, 'd'), join(dir, 'd', 'x')) })
      fails('EINVAL', () => { renameSync(join(dir, 'd'), join(dir, 'd', 'e', 'x')) })
    },
  },
  {
    name: 'onto an ancestor is ENOTEMPTY',
    cites: 'POSIX rename(), EEXIST or ENOTEMPTY; fs/namei.c do_renameat2()',
    run(dir) {
      mkdirSync(join(dir, 'd', 'e'), { recursive: true })
      fails(['ENOTEMPTY', 'EEXIST'], () => { renameSync(join(dir, 'd', 'e'), join(dir, 'd')) })
    },
  },
  {
    name: 'dot and dot-dot cannot be renamed',
    cites: 'POSIX rename(), EINVAL or EBUSY: "the last component … is dot or dot-dot"',
    run(dir) {
      mkdirSync(join(dir, 'd'))
      fails(['EINVAL', 'EBUSY'], () => { renameSync(`${dir}/d/.`, join(dir, 'x')) })
      fails(['EINVAL', 'EBUSY', 'ENOTEMPTY'], () => { renameSync(`${dir}/d/..`, join(dir, 'x')) })
    },
  },
  {
    name: 'what is not there is ENOENT',
    cites: 'POSIX rename(), ENOENT',
    run(dir) {
      touch(join(dir, 'f'))
      fails('ENOENT', () => { renameSync(join(dir, 'none'), join(dir, 'x')) })
      fails('ENOENT', () => { renameSync(join(dir, 'f'), join(dir, 'none', 'x')) })
      fails('ENOTDIR', () => { renameSync(join(dir, 'f'), join(dir, 'f', 'x')) })
    },
  },
  {
    name: 'a symbolic link itself is renamed, and itself replaced',
    cites: 'POSIX rename(): "If … names a symbolic link, rename() shall operate on the symbolic link itself"',
    run(dir) {
      writeFileSync(join(dir, 'f'), 'target')
      symlinkSync('f', join(dir, 'l'))
      renameSync(join(dir, 'l'), join(dir, 'm'))
      assert.ok(lstat(join(dir, 'm')).isSymbolicLink())
      writeFileSync(join(dir, 'g'), 'new')
      renameSync(join(dir, 'g'), join(dir, 'm'))
      assert.ok(lstat(join(dir, 'm')).isFile())
      assert.equal(readFileSync(join(dir, 'f'), 'utf8'), 'target')
    },
  },
  {
    name: 'marks mtime and ctime of both directories',
    cites: 'POSIX rename(): "shall mark for update the last data modification and last file status change timestamps of the parent directory of each file"',
    run(dir) {
      mkdirSync(join(dir, 'a'))
      mkdirSync(join(dir, 'b'))
      touch(join(dir, 'a', 'f'))
      marks(join(dir, 'a'), ['mtime', 'ctime'], () => {
        marks(join(dir, 'b'), ['mtime', 'ctime'], () => { renameSync(join(dir, 'a', 'f'), join(dir, 'b', 'f')) })
      })
    },
  },
  {
    name: 'marks ctime of the file and leaves its mtime',
    cites: 'rename(2); fs/ext4/namei.c and mm/shmem.c: the inode’s ctime is set',
    run(dir) {
      touch(join(dir, 'a'))
      marks(join(dir, 'a'), [], () => { renameSync(join(dir, 'a'), join(dir, 'b')); renameSync(join(dir, 'b'), join(dir, 'a')) }, ['mtime'])
      marks(join(dir, 'a'), ['ctime'], () => { renameSync(join(dir, 'a'), join(dir, 'b')); renameSync(join(dir, 'b'), join(dir, 'a')) })
    },
  },
  {
    name: 'a replaced file with another name loses one link',
    cites: 'POSIX rename()',
    run(dir) {
      touch(join(dir, 'a'))
      touch(join(dir, 'b'))
      linkSync(join(dir, 'b'), join(dir, 'keep'))
      renameSync(join(dir, 'a'), join(dir, 'b'))
      assert.equal(stat(join(dir, 'keep')).nlink, 1n)
    },
  },
  {
    name: 'the old name can be used again at once',
    cites: 'rename(2)',
    run(dir) {
      for (let i = 0; i < 30; i++) {
        writeFileSync(join(dir, 'tmp'), `version ${i}`)
        renameSync(join(dir, 'tmp'), join(dir, 'file'))
        assert.equal(readFileSync(join(dir, 'file'), 'utf8'), `version ${i}`)
        fails('ENOENT', () => statSync(join(dir, 'tmp')))
      }
    },
  },
  {
    name: 'a directory with a trailing slash, a file with one not',
    cites: 'POSIX rename(), ENOTDIR; path_resolution(7)',
    run(dir) {
      mkdirSync(join(dir, 'd'))
      touch(join(dir, 'f'))
      renameSync(`${dir}/d/`, `${dir}/e/`)
      assert.ok(statSync(join(dir, 'e')).isDirectory())
      fails('ENOTDIR', () => { renameSync(join(dir, 'f'), `${dir}/g/`) })
    },
  },
  {
    name: 'without write permission on a directory that moves to another parent is EACCES',
    cites: 'rename(2), EACCES: "oldpath is a directory and does not allow write permission (needed to update the .. entry)"',
    needs: ['root'],
    run(dir, sys) {
      sys.as(sys.alice, () => {
        mkdirSync(join(dir, 'p1'))
        mkdirSync(join(dir, 'p2'))
        mkdirSync(join(dir, 'p1', 'd'), 0o555)
        fails('EACCES', () => { renameSync(join(dir, 'p1', 'd'), join(dir, 'p2', 'd')) })
        renameSync(join(dir, 'p1', 'd'), join(dir, 'p1', 'e'))
      })
    },
  },
])
