/** O_TMPFILE: files without a name. */
import assert from 'node:assert/strict'
import { fstatSync, mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fails, group, hasMode, marks, stat, touch } from './check.js'

export const tmpfiles = group('o_tmpfile', [
  {
    name: 'a file that can be written and read and is in no directory',
    cites: 'open(2), O_TMPFILE: "an unnamed temporary regular file"',
    run(dir, sys) {
      sys.withFd(sys.open(dir, sys.O_TMPFILE | sys.O_RDWR, 0o600), fd => {
        sys.write(fd, 'nameless')
        assert.equal(sys.pread(fd, 99, 0).toString(), 'nameless')
        assert.equal(fstatSync(fd).nlink, 0)
        assert.equal(fstatSync(fd).size, 8)
        assert.deepEqual(readdirSync(dir), [])
      })
    },
  },
  {
    name: 'it has the mode asked for, without the umask’s bits',
    cites: 'open(2), mode: O_CREAT and O_TMPFILE',
    run(dir, sys) {
      sys.withFd(sys.open(dir, sys.O_TMPFILE | sys.O_RDWR, 0o666), fd => { assert.equal(fstatSync(fd).mode & 0o7777, 0o644) })
    },
  },
  {
    name: 'linkat gives it a name',
    cites: 'open(2), O_TMPFILE, the example with linkat and /proc/self/fd',
    run(dir, sys) {
      sys.withFd(sys.open(dir, sys.O_TMPFILE | sys.O_RDWR, 0o640), fd => {
        sys.write(fd, 'named now')
        sys.linkat(sys.AT_FDCWD, `/proc/self/fd/${fd}`, sys.AT_FDCWD, join(dir, 'f'), sys.AT_SYMLINK_FOLLOW)
        assert.equal(fstatSync(fd).nlink, 1)
        assert.equal(fstatSync(fd, { bigint: true }).ino, stat(join(dir, 'f')).ino)
      })
      assert.equal(readFileSync(join(dir, 'f'), 'utf8'), 'named now')
      hasMode(join(dir, 'f'), 0o640)
    },
  },
  {
    name: 'a name that is taken stays what it is',
    cites: 'linkat(2), EEXIST',
    run(dir, sys) {
      touch(join(dir, 'f'))
      sys.withFd(sys.open(dir, sys.O_TMPFILE | sys.O_RDWR), fd => {
        fails('EEXIST', () => { sys.linkat(sys.AT_FDCWD, `/proc/self/fd/${fd}`, sys.AT_FDCWD, join(dir, 'f'), sys.AT_SYMLINK_FOLLOW) })
      })
    },
  },
  {
    name: 'with O_EXCL it can never be linked',
    cites: 'open(2), O_TMPFILE with O_EXCL: "prevents a temporary file from being linked"',
    run(dir, sys) {
      sys.withFd(sys.open(dir, sys.O_TMPFILE | sys.O_RDWR | sys.O_EXCL), fd => {
        fails('ENOENT', () => { sys.linkat(sys.AT_FDCWD, `/proc/self/fd/${fd}`, sys.AT_FDCWD, join(dir, 'f'), sys.AT_SYMLINK_FOLLOW) })
      })
    },
  },
  {
    name: 'for writing alone it is made, for reading alone EINVAL, in a file ENOTDIR, where nothing is ENOENT',
    cites: 'open(2), O_TMPFILE, EINVAL; ENOTDIR; ENOENT',
    run(dir, sys) {
      touch(join(dir, 'f'))
      sys.close(sys.open(dir, sys.O_TMPFILE | sys.O_WRONLY))
      fails('EINVAL', () => sys.open(dir, sys.O_TMPFILE | sys.O_RDONLY))
      fails('ENOTDIR', () => sys.open(join(dir, 'f'), sys.O_TMPFILE | sys.O_RDWR))
      fails('ENOENT', () => sys.open(join(dir, 'none'), sys.O_TMPFILE | sys.O_RDWR))
    },
  },
  {
    name: 'it belongs to its maker, who must be allowed to write the directory',
    cites: 'open(2), O_TMPFILE; fs/namei.c vfs_tmpfile',
    needs: ['root'],
    run(dir, sys) {
      mkdirSync(join(dir, 'd'))
      sys.as(sys.alice, () => {
        sys.withFd(sys.open(dir, sys.O_TMPFILE | sys.O_RDWR), fd => { assert.equal(fstatSync(fd).uid, sys.alice.uid) })
        fails('EACCES', () => sys.open(join(dir, 'd'), sys.O_TMPFILE | sys.O_RDWR))
      })
    },
  },
  {
    name: 'making one marks no time of the directory, linking it does',
    cites: 'open(2), O_TMPFILE; POSIX link()',
    run(dir, sys) {
      let fd = -1
      marks(dir, [], () => { fd = sys.open(dir, sys.O_TMPFILE | sys.O_RDWR) }, ['mtime', 'ctime'])
      marks(dir, ['mtime', 'ctime'], () => { sys.linkat(sys.AT_FDCWD, `/proc/self/fd/${fd}`, sys.AT_FDCWD, join(dir, 'f'), sys.AT_SYMLINK_FOLLOW) })
      sys.close(fd)
    },
  },
  {
    name: 'a hundred at once are a hundred files',
    cites: 'open(2), O_TMPFILE',
    run(dir, sys) {
      const fds = Array.from({ length: 100 }, () => sys.open(dir, sys.O_TMPFILE | sys.O_RDWR))
      fds.forEach((fd, i) => { sys.write(fd, `number ${i}`) })
      fds.forEach((fd, i) => { assert.equal(sys.pread(fd, 99, 0).toString(), `number ${i}`) })
      for (const fd of fds) sys.close(fd)
    },
  },
], ['o_tmpfile'])
