/** open(2): what its flags ask for, and how it fails. */
import assert from 'node:assert/strict'
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fails, group, hasMode, marks, stat, touch } from './check.js'

export const openFlags = group('open-flags', [
  {
    name: 'O_CREAT makes an empty regular file with the mode asked for',
    cites: 'POSIX open(), O_CREAT',
    run(dir, sys) {
      sys.close(sys.open(join(dir, 'f'), sys.O_CREAT | sys.O_WRONLY, 0o640))
      assert.ok(statSync(join(dir, 'f')).isFile())
      assert.equal(statSync(join(dir, 'f')).size, 0)
      hasMode(join(dir, 'f'), 0o640)
    },
  },
  {
    name: 'O_CREAT leaves an existing file and its mode as they are',
    cites: 'POSIX open(), O_CREAT: "If the file exists, this flag has no effect"',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'old', { mode: 0o600 })
      sys.close(sys.open(join(dir, 'f'), sys.O_CREAT | sys.O_WRONLY, 0o777))
      assert.equal(readFileSync(join(dir, 'f'), 'utf8'), 'old')
      hasMode(join(dir, 'f'), 0o600)
    },
  },
  {
    name: 'O_CREAT|O_EXCL of an existing name is EEXIST',
    cites: 'POSIX open(), EEXIST',
    run(dir, sys) {
      touch(join(dir, 'f'))
      mkdirSync(join(dir, 'd'))
      fails('EEXIST', () => sys.open(join(dir, 'f'), sys.O_CREAT | sys.O_EXCL | sys.O_WRONLY))
      fails('EEXIST', () => sys.open(join(dir, 'd'), sys.O_CREAT | sys.O_EXCL | sys.O_WRONLY))
    },
  },
  {
    name: 'O_CREAT|O_EXCL of a dangling symbolic link is EEXIST and makes nothing',
    cites: 'POSIX open(), O_EXCL: "if path names a symbolic link … shall fail"',
    run(dir, sys) {
      symlinkSync('target', join(dir, 'link'))
      fails('EEXIST', () => sys.open(join(dir, 'link'), sys.O_CREAT | sys.O_EXCL | sys.O_WRONLY))
      assert.equal(existsSync(join(dir, 'target')), false)
    },
  },
  {
    name: 'O_CREAT through a dangling symbolic link makes its target',
    cites: 'open(2), O_CREAT; path_resolution(7)',
    run(dir, sys) {
      symlinkSync('target', join(dir, 'link'))
      sys.close(sys.open(join(dir, 'link'), sys.O_CREAT | sys.O_WRONLY))
      assert.ok(statSync(join(dir, 'target')).isFile())
    },
  },
  {
    name: 'O_TRUNC empties a file and keeps its inode',
    cites: 'POSIX open(), O_TRUNC',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'something')
      const { ino } = stat(join(dir, 'f'))
      sys.close(sys.open(join(dir, 'f'), sys.O_WRONLY | sys.O_TRUNC))
      assert.equal(stat(join(dir, 'f')).size, 0n)
      assert.equal(stat(join(dir, 'f')).ino, ino)
    },
  },
  {
    name: 'O_TRUNC marks mtime and ctime',
    cites: 'POSIX open(): "O_TRUNC … shall mark for update the last data modification and last file status change timestamps"',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'something')
      marks(join(dir, 'f'), ['mtime', 'ctime'], () => { sys.close(sys.open(join(dir, 'f'), sys.O_WRONLY | sys.O_TRUNC)) })
    },
  },
  {
    name: 'O_TRUNC of a file that is empty marks them, too',
    cites: 'POSIX open(): as above; make(1) and others rely on it',
    run(dir, sys) {
      touch(join(dir, 'f'))
      marks(join(dir, 'f'), ['mtime', 'ctime'], () => { sys.close(sys.open(join(dir, 'f'), sys.O_WRONLY | sys.O_TRUNC)) })
      marks(join(dir, 'f'), ['mtime', 'ctime'], () => { writeFileSync(join(dir, 'f'), '') })
    },
  },
  {
    name: 'O_TRUNC with O_CREAT of an existing file empties it',
    cites: 'creat(2): "equivalent to O_CREAT|O_WRONLY|O_TRUNC"',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'something', { mode: 0o600 })
      sys.close(sys.creat(join(dir, 'f'), 0o644))
      assert.equal(stat(join(dir, 'f')).size, 0n)
      hasMode(join(dir, 'f'), 0o600)
    },
  },
  {
    name: 'a new file marks mtime and ctime of its directory, and has times of its own',
    cites: 'POSIX open(), O_CREAT: "shall mark for update … the parent directory"',
    run(dir, sys) {
      marks(dir, ['mtime', 'ctime'], () => { sys.close(sys.open(join(dir, 'f'), sys.O_CREAT | sys.O_WRONLY)) })
      const { atimeNs, mtimeNs, ctimeNs } = stat(join(dir, 'f'))
      assert.equal(mtimeNs, ctimeNs)
      assert.equal(atimeNs, ctimeNs)
    },
  },
  {
    name: 'a directory cannot be opened for writing',
    cites: 'POSIX open(), EISDIR',
    run(dir, sys) {
      fails('EISDIR', () => sys.open(dir, sys.O_WRONLY))
      fails('EISDIR', () => sys.open(dir, sys.O_RDWR))
      fails('EISDIR', () => sys.open(dir, sys.O_RDONLY | sys.O_CREAT))
    },
  },
  {
    name: 'O_DIRECTORY of what is none is ENOTDIR',
    cites: 'POSIX open(), O_DIRECTORY, ENOTDIR',
    run(dir, sys) {
      touch(join(dir, 'f'))
      symlinkSync('f', join(dir, 'link'))
      fails('ENOTDIR', () => sys.open(join(dir, 'f'), sys.O_RDONLY | sys.O_DIRECTORY))
      fails('ENOTDIR', () => sys.open(join(dir, 'link'), sys.O_RDONLY | sys.O_DIRECTORY))
      sys.close(sys.open(dir, sys.O_RDONLY | sys.O_DIRECTORY))
    },
  },
  {
    name: 'O_NOFOLLOW of a symbolic link is ELOOP',
    cites: 'POSIX open(), O_NOFOLLOW, ELOOP',
    run(dir, sys) {
      touch(join(dir, 'f'))
      symlinkSync('f', join(dir, 'link'))
      fails('ELOOP', () => sys.open(join(dir, 'link'), sys.O_RDONLY | sys.O_NOFOLLOW))
      sys.close(sys.open(join(dir, 'f'), sys.O_RDONLY | sys.O_NOFOLLOW))
    },
  },
  {
    name: 'a name that is not there is ENOENT',
    cites: 'POSIX open(), ENOENT',
    run(dir, sys) {
      fails('ENOENT', () => sys.open(join(dir, 'none'), sys.O_RDONLY))
      fails('ENOENT', () => sys.open(join(dir, 'none', 'f'), sys.O_CREAT | sys.O_WRONLY))
      fails('ENOENT', () => sys.open('', sys.O_RDONLY))
    },
  },
  {
    name: 'a component that is a file is ENOTDIR',
    cites: 'POSIX open(), ENOTDIR',
    run(dir, sys) {
      touch(join(dir, 'f'))
      fails('ENOTDIR', () => sys.open(join(dir, 'f', 'g'), sys.O_RDONLY))
      fails('ENOTDIR', () => sys.open(`${dir}/f/`, sys.O_RDONLY))
    },
  },
  {
    name: 'a loop of symbolic links is ELOOP',
    cites: 'POSIX open(), ELOOP; path_resolution(7)',
    run(dir, sys) {
      symlinkSync('b', join(dir, 'a'))
      symlinkSync('a', join(dir, 'b'))
      fails('ELOOP', () => sys.open(join(dir, 'a'), sys.O_RDONLY))
    },
  },
  {
    name: 'the access mode is kept: no read of a write-only file, no write of a read-only one',
    cites: 'POSIX read(), EBADF; write(), EBADF',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'x')
      sys.withFd(sys.open(join(dir, 'f'), sys.O_WRONLY), fd => { fails('EBADF', () => sys.read(fd, 1).length - 1) })
      sys.withFd(sys.open(join(dir, 'f'), sys.O_RDONLY), fd => { fails('EBADF', () => sys.write(fd, 'y') - 1) })
    },
  },
  {
    name: 'a file made with mode 0 is open for writing all the same',
    cites: 'open(2), mode: "applies only to future accesses of the newly created file"',
    run(dir, sys) {
      const path = join(dir, 'f')
      const write = (): void => { sys.withFd(sys.open(path, sys.O_CREAT | sys.O_RDWR, 0), fd => { assert.equal(sys.write(fd, 'abc'), 3) }) }
      if (process.geteuid!() === 0) sys.as(sys.alice, write)
      else write()
      hasMode(path, 0)
      assert.equal(stat(path).size, 3n)
    },
  },
  {
    name: 'O_PATH gives a descriptor that cannot read but can be walked from',
    cites: 'open(2), O_PATH',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'x')
      sys.withFd(sys.open(join(dir, 'f'), sys.O_PATH), fd => { fails('EBADF', () => sys.read(fd, 1).length - 1) })
      sys.withFd(sys.open(dir, sys.O_PATH), fd => { sys.close(sys.openat(fd, 'f', sys.O_RDONLY)) })
    },
  },
  {
    name: 'O_PATH|O_NOFOLLOW opens a symbolic link itself',
    cites: 'open(2), O_PATH; fstatat(2), AT_EMPTY_PATH',
    run(dir, sys) {
      symlinkSync('nowhere', join(dir, 'link'))
      sys.withFd(sys.open(join(dir, 'link'), sys.O_PATH | sys.O_NOFOLLOW), fd => {
        assert.equal(sys.statx('', sys.STATX_BASIC_STATS, sys.AT_EMPTY_PATH, fd).mode & 0o170000, 0o120000)
      })
    },
  },
  {
    name: 'openat is relative to its descriptor, also after the directory was renamed',
    cites: 'POSIX openat()',
    run(dir, sys) {
      mkdirSync(join(dir, 'a'))
      writeFileSync(join(dir, 'a', 'f'), 'x')
      sys.withFd(sys.open(join(dir, 'a'), sys.O_RDONLY | sys.O_DIRECTORY), fd => {
        sys.rename2(join(dir, 'a'), join(dir, 'b'), 0)
        sys.close(sys.openat(fd, 'f', sys.O_RDONLY))
        sys.close(sys.openat(fd, 'g', sys.O_CREAT | sys.O_WRONLY, 0o644))
      })
      assert.ok(existsSync(join(dir, 'b', 'g')))
    },
  },
  {
    name: 'F_GETFL tells the flags of the file',
    cites: 'fcntl(2), F_GETFL',
    run(dir, sys) {
      sys.withFd(sys.open(join(dir, 'f'), sys.O_CREAT | sys.O_RDWR | sys.O_APPEND | sys.O_SYNC), fd => {
        const flags = sys.fcntl(fd, sys.F_GETFL)
        assert.equal(flags & 3, sys.O_RDWR)
        assert.equal(flags & sys.O_APPEND, sys.O_APPEND)
        assert.equal(flags & sys.O_SYNC, sys.O_SYNC)
        assert.equal(flags & sys.O_CREAT, 0)
      })
    },
  },
  {
    name: 'O_NOATIME is for the owner of a file alone',
    cites: 'open(2), O_NOATIME, EPERM',
    needs: ['root'],
    run(dir, sys) {
      touch(join(dir, 'f'), 0o644)
      sys.close(sys.open(join(dir, 'f'), sys.O_RDONLY | sys.O_NOATIME))
      sys.as(sys.alice, () => {
        fails('EPERM', () => sys.open(join(dir, 'f'), sys.O_RDONLY | sys.O_NOATIME))
        sys.close(sys.open(join(dir, 'f'), sys.O_RDONLY))
      })
    },
  },
  {
    name: 'what is read through O_NOATIME keeps its access time',
    cites: 'open(2), O_NOATIME: "Do not update the file last access time"',
    needs: ['atime'],
    run(dir, sys) {
      const path = join(dir, 'f')
      writeFileSync(path, 'abc')
      sys.utimens(path, { sec: 1, nsec: 0 }, { sec: 2, nsec: 0 })
      sys.withFd(sys.open(path, sys.O_RDONLY | sys.O_NOATIME), fd => { assert.equal(sys.read(fd, 3).toString(), 'abc') })
      assert.equal(stat(path).atimeNs, 1_000_000_000n)
    },
  },
  {
    name: 'each open has an offset of its own; dup shares it',
    cites: 'POSIX open(): "file offset … shall be set to the beginning"; dup()',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'abcdef')
      const one = openSync(join(dir, 'f'), 'r')
      const two = openSync(join(dir, 'f'), 'r')
      const three = sys.dup(one)
      assert.equal(sys.read(one, 2).toString(), 'ab')
      assert.equal(sys.read(two, 2).toString(), 'ab')
      assert.equal(sys.read(three, 2).toString(), 'cd')
      for (const fd of [one, two, three]) closeSync(fd)
    },
  },
])
