/** truncate(2) and ftruncate(2). */
import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fails, group, marks, stat, touch } from './check.js'

export const truncating = group('truncate', [
  {
    name: 'shrinking cuts the end off',
    cites: 'POSIX truncate(): "the extra data shall no longer be available"',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'abcdef')
      sys.truncate(join(dir, 'f'), 3)
      assert.equal(readFileSync(join(dir, 'f'), 'utf8'), 'abc')
    },
  },
  {
    name: 'growing adds zero bytes, also over what was cut off before',
    cites: 'POSIX ftruncate(): "the extended area shall appear as if it were zero-filled"',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'x'.repeat(9000))
      sys.withFd(sys.open(join(dir, 'f'), sys.O_RDWR), fd => {
        sys.ftruncate(fd, 10)
        sys.ftruncate(fd, 9000)
        const bytes = sys.pread(fd, 10_000, 0)
        assert.equal(bytes.length, 9000)
        assert.ok(bytes.subarray(0, 10).every(byte => byte === 0x78))
        assert.ok(bytes.subarray(10).every(byte => byte === 0))
      })
    },
  },
  {
    name: 'an open file sees a truncation by name at once',
    cites: 'POSIX truncate()',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'abcdef')
      sys.withFd(sys.open(join(dir, 'f'), sys.O_RDWR), fd => {
        assert.equal(sys.pread(fd, 10, 0).length, 6)
        sys.truncate(join(dir, 'f'), 2)
        assert.equal(sys.pread(fd, 10, 0).toString(), 'ab')
        assert.equal(sys.lseek(fd, 0, sys.SEEK_END), 2n)
      })
    },
  },
  {
    name: 'the offset stays where it was',
    cites: 'POSIX ftruncate(): "The file offset … shall not be modified"',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'abcdef')
      sys.withFd(sys.open(join(dir, 'f'), sys.O_RDWR), fd => {
        sys.lseek(fd, 5, sys.SEEK_SET)
        sys.ftruncate(fd, 2)
        assert.equal(sys.lseek(fd, 0, sys.SEEK_CUR), 5n)
        sys.write(fd, 'x')
      })
      assert.equal(readFileSync(join(dir, 'f'), 'latin1'), 'ab\0\0\0x')
    },
  },
  {
    name: 'a change of size marks mtime and ctime',
    cites: 'POSIX truncate(): "shall mark for update the last data modification and last file status change timestamps"',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'abcdef')
      marks(join(dir, 'f'), ['mtime', 'ctime'], () => { sys.truncate(join(dir, 'f'), 2) })
      marks(join(dir, 'f'), ['mtime', 'ctime'], () => { sys.truncate(join(dir, 'f'), 200) })
    },
  },
  {
    name: 'ftruncate to the same size marks mtime and ctime',
    cites: 'ftruncate(2); fs/open.c do_truncate(), ATTR_MTIME|ATTR_CTIME with ftruncate',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'abcdef')
      sys.withFd(sys.open(join(dir, 'f'), sys.O_RDWR), fd => {
        marks(join(dir, 'f'), ['mtime', 'ctime'], () => { sys.ftruncate(fd, 6) })
      })
    },
  },
  {
    name: 'ftruncate of a file opened read-only is EINVAL',
    cites: 'ftruncate(2), EBADF or EINVAL',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'abc')
      sys.withFd(sys.open(join(dir, 'f'), sys.O_RDONLY), fd => { fails(['EINVAL', 'EBADF'], () => { sys.ftruncate(fd, 0) }) })
      assert.equal(stat(join(dir, 'f')).size, 3n)
    },
  },
  {
    name: 'a negative length is EINVAL',
    cites: 'POSIX truncate(), EINVAL',
    run(dir, sys) {
      touch(join(dir, 'f'))
      fails('EINVAL', () => { sys.truncate(join(dir, 'f'), -1) })
    },
  },
  {
    name: 'a directory is EISDIR, what is not there ENOENT, under a file ENOTDIR',
    cites: 'POSIX truncate(), EISDIR, ENOENT, ENOTDIR',
    run(dir, sys) {
      mkdirSync(join(dir, 'd'))
      touch(join(dir, 'f'))
      fails('EISDIR', () => { sys.truncate(join(dir, 'd'), 0) })
      fails('ENOENT', () => { sys.truncate(join(dir, 'none'), 0) })
      fails('ENOTDIR', () => { sys.truncate(join(dir, 'f', 'g'), 0) })
    },
  },
  {
    name: 'a symbolic link is followed',
    cites: 'truncate(2); path_resolution(7)',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'abc')
      symlinkSync('f', join(dir, 'link'))
      sys.truncate(join(dir, 'link'), 1)
      assert.equal(stat(join(dir, 'f')).size, 1n)
    },
  },
  {
    name: 'a FIFO cannot be truncated',
    cites: 'truncate(2), EINVAL: "The named file is not a regular file"',
    run(dir, sys) {
      sys.mknod(join(dir, 'fifo'), sys.S_IFIFO | 0o644)
      fails('EINVAL', () => { sys.truncate(join(dir, 'fifo'), 0) })
    },
  },
  {
    name: 'sizes beyond 4 GiB, sparse',
    cites: 'truncate(2), length of off_t',
    run(dir, sys) {
      touch(join(dir, 'f'))
      sys.truncate(join(dir, 'f'), 2 ** 40 + 5)
      assert.equal(stat(join(dir, 'f')).size, 2n ** 40n + 5n)
      assert.ok(stat(join(dir, 'f')).blocks < 1000n)
      sys.truncate(join(dir, 'f'), 1)
      assert.equal(stat(join(dir, 'f')).size, 1n)
    },
  },
  {
    name: 'a size no file system has is EFBIG or EINVAL, and changes nothing',
    cites: 'POSIX truncate(), EFBIG or EINVAL',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'abc')
      try {
        sys.truncate(join(dir, 'f'), 2n ** 63n - 1n)
        sys.truncate(join(dir, 'f'), 3)
      } catch (error) {
        assert.match((error as NodeJS.ErrnoException).code!, /^(EFBIG|EINVAL)$/)
      }
      assert.equal(readFileSync(join(dir, 'f'), 'utf8'), 'abc')
    },
  },
])
