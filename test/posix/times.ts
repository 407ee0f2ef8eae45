/** Timestamps: utimensat(2), futimens(2), and which call marks which. */
import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, readSync, openSync, closeSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fails, group, lstat, marks, stat, tick, touch } from './check.js'

const SECOND = 1_000_000_000n

export const times = group('times', [
  {
    name: 'both times are set with their nanoseconds',
    cites: 'POSIX utimensat()',
    run(dir, sys) {
      touch(join(dir, 'f'))
      sys.utimens(join(dir, 'f'), { sec: 1_000_000_000, nsec: 123_456_789 }, { sec: 1_100_000_000, nsec: 987_654_321 })
      assert.equal(stat(join(dir, 'f')).atimeNs, 1_000_000_000_123_456_789n)
      assert.equal(stat(join(dir, 'f')).mtimeNs, 1_100_000_000_987_654_321n)
    },
  },
  {
    name: 'setting times marks ctime',
    cites: 'POSIX utimensat(): "shall mark the last file status change timestamp for update"',
    run(dir, sys) {
      touch(join(dir, 'f'))
      marks(join(dir, 'f'), ['ctime'], () => { sys.utimens(join(dir, 'f'), { sec: 1, nsec: 0 }, { sec: 2, nsec: 0 }) })
    },
  },
  {
    name: 'UTIME_OMIT leaves a time as it is',
    cites: 'POSIX utimensat(), UTIME_OMIT',
    run(dir, sys) {
      const path = join(dir, 'f')
      touch(path)
      sys.utimens(path, { sec: 10, nsec: 1 }, { sec: 20, nsec: 2 })
      sys.utimens(path, { sec: 0, nsec: sys.UTIME_OMIT }, { sec: 30, nsec: 3 })
      assert.equal(stat(path).atimeNs, 10n * SECOND + 1n)
      assert.equal(stat(path).mtimeNs, 30n * SECOND + 3n)
      sys.utimens(path, { sec: 40, nsec: 4 }, { sec: 0, nsec: sys.UTIME_OMIT })
      assert.equal(stat(path).atimeNs, 40n * SECOND + 4n)
      assert.equal(stat(path).mtimeNs, 30n * SECOND + 3n)
    },
  },
  {
    name: 'UTIME_OMIT twice changes nothing, not even ctime',
    cites: 'utimensat(2), UTIME_OMIT: "If both … the file’s status change time is not updated"; fs/utimes.c',
    run(dir, sys) {
      touch(join(dir, 'f'))
      const omit = { sec: 0, nsec: sys.UTIME_OMIT }
      marks(join(dir, 'f'), [], () => { sys.utimens(join(dir, 'f'), omit, omit) }, ['atime', 'mtime', 'ctime'])
    },
  },
  {
    name: 'UTIME_NOW is the present, for one of the two',
    cites: 'POSIX utimensat(), UTIME_NOW',
    run(dir, sys) {
      const path = join(dir, 'f')
      touch(path)
      sys.utimens(path, { sec: 10, nsec: 0 }, { sec: 20, nsec: 0 })
      sys.utimens(path, { sec: 0, nsec: sys.UTIME_NOW }, { sec: 30, nsec: 0 })
      const { atimeMs, mtimeNs } = stat(path)
      assert.ok(Math.abs(Number(atimeMs) - Date.now()) < 5000, `atime is ${atimeMs}`)
      assert.equal(mtimeNs, 30n * SECOND)
      sys.utimens(path, { sec: 40, nsec: 0 }, { sec: 0, nsec: sys.UTIME_NOW })
      assert.ok(Math.abs(Number(stat(path).mtimeMs) - Date.now()) < 5000)
      assert.equal(stat(path).atimeNs, 40n * SECOND)
    },
  },
  {
    name: 'no times at all is now for both, and they are equal',
    cites: 'utimensat(2), times NULL',
    run(dir, sys) {
      touch(join(dir, 'f'))
      sys.utimens(join(dir, 'f'), { sec: 10, nsec: 0 }, { sec: 20, nsec: 0 })
      sys.utimensNow(join(dir, 'f'))
      const { atimeNs, mtimeNs, mtimeMs } = stat(join(dir, 'f'))
      assert.equal(atimeNs, mtimeNs)
      assert.ok(Math.abs(Number(mtimeMs) - Date.now()) < 5000)
    },
  },
  {
    name: 'futimens sets the times of an open file, also one opened read-only',
    cites: 'POSIX futimens()',
    run(dir, sys) {
      touch(join(dir, 'f'))
      sys.withFd(sys.open(join(dir, 'f'), sys.O_RDONLY), fd => { sys.futimens(fd, { sec: 5, nsec: 6 }, { sec: 7, nsec: 8 }) })
      assert.equal(stat(join(dir, 'f')).atimeNs, 5n * SECOND + 6n)
      assert.equal(stat(join(dir, 'f')).mtimeNs, 7n * SECOND + 8n)
    },
  },
  {
    name: 'AT_SYMLINK_NOFOLLOW sets those of the symbolic link itself',
    cites: 'POSIX utimensat(), AT_SYMLINK_NOFOLLOW',
    run(dir, sys) {
      touch(join(dir, 'f'))
      symlinkSync('f', join(dir, 'link'))
      const { mtimeNs } = stat(join(dir, 'f'))
      sys.utimens(join(dir, 'link'), { sec: 5, nsec: 6 }, { sec: 7, nsec: 8 }, sys.AT_SYMLINK_NOFOLLOW)
      assert.equal(lstat(join(dir, 'link')).mtimeNs, 7n * SECOND + 8n)
      assert.equal(stat(join(dir, 'f')).mtimeNs, mtimeNs)
      sys.utimens(join(dir, 'link'), { sec: 15, nsec: 0 }, { sec: 17, nsec: 0 })
      assert.equal(stat(join(dir, 'f')).mtimeNs, 17n * SECOND)
    },
  },
  {
    name: 'times of a directory and of a FIFO',
    cites: 'utimensat(2)',
    run(dir, sys) {
      mkdirSync(join(dir, 'd'))
      sys.mknod(join(dir, 'fifo'), sys.S_IFIFO | 0o644)
      for (const name of ['d', 'fifo']) {
        sys.utimens(join(dir, name), { sec: 5, nsec: 6 }, { sec: 7, nsec: 8 })
        assert.equal(stat(join(dir, name)).mtimeNs, 7n * SECOND + 8n)
      }
    },
  },
  {
    name: 'times before 1970',
    cites: 'utimensat(2); struct timespec has a signed time_t',
    run(dir, sys) {
      touch(join(dir, 'f'))
      sys.utimens(join(dir, 'f'), { sec: -86400, nsec: 0 }, { sec: -1, nsec: 500_000_000 })
      const { atimeNs, mtimeNs } = sys.statx(join(dir, 'f'), sys.STATX_BASIC_STATS)
      assert.equal(atimeNs, -86400n * SECOND)
      assert.equal(mtimeNs, -SECOND / 2n)
    },
  },
  {
    name: 'times after 2038',
    cites: 'utimensat(2); fs/ext4/ext4.h EXT4_EPOCH_BITS',
    run(dir, sys) {
      touch(join(dir, 'f'))
      sys.utimens(join(dir, 'f'), { sec: 4_102_444_800, nsec: 1 }, { sec: 2 ** 31, nsec: 999_999_999 })
      assert.equal(stat(join(dir, 'f')).atimeNs, 4_102_444_800n * SECOND + 1n)
      assert.equal(stat(join(dir, 'f')).mtimeNs, 2n ** 31n * SECOND + 999_999_999n)
    },
  },
  {
    name: 'nanoseconds out of range are EINVAL',
    cites: 'POSIX utimensat(), EINVAL',
    run(dir, sys) {
      touch(join(dir, 'f'))
      fails('EINVAL', () => { sys.utimens(join(dir, 'f'), { sec: 1, nsec: 1_000_000_000 }, { sec: 1, nsec: 0 }) })
      fails('EINVAL', () => { sys.utimens(join(dir, 'f'), { sec: 1, nsec: 0 }, { sec: 1, nsec: -1 }) })
    },
  },
  {
    name: 'a name that is not there is ENOENT',
    cites: 'POSIX utimensat(), ENOENT',
    run(dir, sys) {
      fails('ENOENT', () => { sys.utimens(join(dir, 'none'), { sec: 1, nsec: 0 }, { sec: 1, nsec: 0 }) })
    },
  },
  {
    name: 'set times survive reading, listing and the closing of other descriptors',
    cites: 'POSIX close()',
    run(dir, sys) {
      const path = join(dir, 'f')
      const fd = sys.open(path, sys.O_CREAT | sys.O_RDWR)
      sys.write(fd, 'abc')
      sys.utimens(path, { sec: 2_000_000_000, nsec: 0 }, { sec: 20, nsec: 2 })
      readFileSync(path)
      sys.close(fd)
      assert.equal(stat(path).mtimeNs, 20n * SECOND + 2n)
    },
  },
  {
    name: 'a write after the times were set makes mtime new again',
    cites: 'POSIX write()',
    run(dir, sys) {
      const path = join(dir, 'f')
      sys.withFd(sys.open(path, sys.O_CREAT | sys.O_RDWR), fd => {
        sys.futimens(fd, { sec: 1, nsec: 0 }, { sec: 1, nsec: 0 })
        sys.write(fd, 'abc')
      })
      assert.ok(stat(path).mtimeNs > SECOND * 1000n)
    },
  },
  {
    name: 'reading an old file marks atime',
    cites: 'POSIX read(): "shall mark for update the last data access timestamp"; mount(8), relatime',
    needs: ['atime'],
    run(dir, sys) {
      const path = join(dir, 'f')
      writeFileSync(path, 'abc')
      sys.utimens(path, { sec: 1, nsec: 0 }, { sec: 2, nsec: 0 })
      const fd = openSync(path, 'r')
      readSync(fd, Buffer.alloc(3))
      closeSync(fd)
      assert.ok(stat(path).atimeNs > SECOND)
    },
  },
  {
    name: 'neither stat, open nor access marks a time',
    cites: 'POSIX fstat(), open(), access(): none marks a timestamp',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'abc')
      marks(join(dir, 'f'), [], () => {
        sys.close(sys.open(join(dir, 'f'), sys.O_RDWR))
        sys.access(join(dir, 'f'), 4)
        stat(join(dir, 'f'))
      }, ['atime', 'mtime', 'ctime'])
    },
  },
  {
    name: 'times have more than one value within a second',
    cites: 'stat(2), st_mtim: nanoseconds',
    run(dir) {
      const seen = new Set<bigint>()
      for (let i = 0; i < 4; i++) {
        writeFileSync(join(dir, 'f'), 'abc')
        seen.add(stat(join(dir, 'f')).mtimeNs)
        tick()
      }
      assert.equal(seen.size, 4)
    },
  },
])
