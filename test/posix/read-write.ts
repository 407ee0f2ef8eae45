/** read(2), write(2) and their kin on regular files. */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fails, group, marks, stat, touch } from './check.js'

/** Bytes that differ from those of any other position nearby. */
export function pattern(lengthBytes: number, seed = 1): Buffer {
  const bytes = Buffer.alloc(lengthBytes)
  let state = seed >>> 0 || 1
  for (let i = 0; i < lengthBytes; i++) {
    state = Math.imul(state, 1664525) + 1013904223 >>> 0
    bytes[i] = state >>> 24
  }
  return bytes
}

export const readWrite = group('read-write', [
  {
    name: 'what was written is read back, through the same and another descriptor',
    cites: 'POSIX write(): "any subsequent successful read() … shall return the data specified by the write()"',
    run(dir, sys) {
      sys.withFd(sys.open(join(dir, 'f'), sys.O_CREAT | sys.O_RDWR), fd => {
        assert.equal(sys.write(fd, 'hello'), 5)
        assert.equal(sys.pread(fd, 100, 0).toString(), 'hello')
        assert.equal(readFileSync(join(dir, 'f'), 'utf8'), 'hello')
      })
    },
  },
  {
    name: 'read and write move the offset, pread and pwrite do not',
    cites: 'POSIX pread(): "without changing the file offset"',
    run(dir, sys) {
      sys.withFd(sys.open(join(dir, 'f'), sys.O_CREAT | sys.O_RDWR), fd => {
        sys.write(fd, 'abcdef')
        assert.equal(sys.lseek(fd, 0, sys.SEEK_CUR), 6n)
        sys.pwrite(fd, 'XY', 1)
        assert.equal(sys.pread(fd, 3, 0).toString(), 'aXY')
        assert.equal(sys.lseek(fd, 0, sys.SEEK_CUR), 6n)
      })
    },
  },
  {
    name: 'reading at and behind the end gives nothing',
    cites: 'POSIX read(): "at or after end-of-file, 0 shall be returned"',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'abc')
      sys.withFd(sys.open(join(dir, 'f'), sys.O_RDONLY), fd => {
        assert.equal(sys.pread(fd, 10, 3).length, 0)
        assert.equal(sys.pread(fd, 10, 1e9).length, 0)
        assert.equal(sys.pread(fd, 10, 1).toString(), 'bc')
      })
    },
  },
  {
    name: 'bytes between the end and a write behind it are zero',
    cites: 'POSIX lseek(): "subsequent reads of data in the gap shall return bytes with the value 0"',
    run(dir, sys) {
      sys.withFd(sys.open(join(dir, 'f'), sys.O_CREAT | sys.O_RDWR), fd => {
        sys.write(fd, 'a')
        sys.pwrite(fd, 'b', 10_000)
        const bytes = sys.pread(fd, 20_000, 0)
        assert.equal(bytes.length, 10_001)
        assert.ok(bytes.subarray(1, 10_000).every(byte => byte === 0))
        assert.equal(bytes[10_000], 0x62)
      })
    },
  },
  {
    name: '3 MiB in one call, and its parts at odd offsets',
    cites: 'read(2); write(2)',
    run(dir, sys) {
      const bytes = pattern(3 << 20)
      sys.withFd(sys.open(join(dir, 'f'), sys.O_CREAT | sys.O_RDWR), fd => {
        assert.equal(sys.pwrite(fd, bytes, 0), bytes.length)
        assert.ok(sys.pread(fd, bytes.length, 0).equals(bytes))
        for (const [offset, length] of [[1, 4095], [4095, 2], [4097, 1 << 20], [(1 << 20) - 1, 3], [(3 << 20) - 5, 5]] as const) {
          assert.ok(sys.pread(fd, length, offset).equals(bytes.subarray(offset, offset + length)), `${length} bytes at ${offset}`)
        }
      })
    },
  },
  {
    name: 'a large file is read back after its pages were dropped',
    cites: 'posix_fadvise(2), POSIX_FADV_DONTNEED',
    run(dir, sys) {
      const bytes = pattern(2 << 20, 7)
      sys.withFd(sys.open(join(dir, 'f'), sys.O_CREAT | sys.O_RDWR), fd => {
        sys.write(fd, bytes)
        sys.fsync(fd)
        sys.fadvise(fd, 0, 0, sys.FADV_DONTNEED)
        assert.ok(sys.pread(fd, bytes.length, 0).equals(bytes))
      })
    },
  },
  {
    name: 'overwriting a part leaves the rest',
    cites: 'POSIX write()',
    run(dir, sys) {
      const bytes = pattern(20_000)
      writeFileSync(join(dir, 'f'), bytes)
      sys.withFd(sys.open(join(dir, 'f'), sys.O_WRONLY), fd => { sys.pwrite(fd, Buffer.alloc(5000, 0x5a), 4090) })
      bytes.fill(0x5a, 4090, 9090)
      assert.ok(readFileSync(join(dir, 'f')).equals(bytes))
    },
  },
  {
    name: 'a write marks mtime and ctime',
    cites: 'POSIX write(): "shall mark for update the last data modification and last file status change timestamps"',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'abc')
      marks(join(dir, 'f'), ['mtime', 'ctime'], () => {
        sys.withFd(sys.open(join(dir, 'f'), sys.O_WRONLY), fd => { sys.write(fd, 'x') })
      })
    },
  },
  {
    name: 'a write of no bytes changes neither size nor contents',
    cites: 'POSIX write(), nbyte 0',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'abc')
      sys.withFd(sys.open(join(dir, 'f'), sys.O_WRONLY), fd => {
        assert.equal(sys.write(fd, ''), 0)
        assert.equal(sys.pwrite(fd, '', 100), 0)
      })
      assert.equal(readFileSync(join(dir, 'f'), 'utf8'), 'abc')
    },
  },
  {
    name: 'readv and writev gather and scatter in order',
    cites: 'POSIX readv(), writev()',
    run(dir, sys) {
      sys.withFd(sys.open(join(dir, 'f'), sys.O_CREAT | sys.O_RDWR), fd => {
        assert.equal(sys.pwritev2(fd, ['one', '', 'three', 'x'.repeat(5000)], -1), 5008)
        assert.equal(sys.lseek(fd, 0, sys.SEEK_CUR), 5008n)
        assert.equal(sys.preadv2(fd, [2, 1, 5], 0).toString(), 'onethree')
      })
    },
  },
  {
    name: 'the size grows as it is written, seen by fstat and stat alike',
    cites: 'POSIX write(); fstat()',
    run(dir, sys) {
      sys.withFd(sys.open(join(dir, 'f'), sys.O_CREAT | sys.O_WRONLY), fd => {
        for (let i = 1; i <= 20; i++) {
          sys.write(fd, Buffer.alloc(777))
          assert.equal(stat(join(dir, 'f')).size, BigInt(777 * i))
        }
      })
    },
  },
  {
    name: 'a negative offset is EINVAL',
    cites: 'POSIX pread(), EINVAL; lseek(), EINVAL',
    run(dir, sys) {
      sys.withFd(sys.open(join(dir, 'f'), sys.O_CREAT | sys.O_RDWR), fd => {
        fails('EINVAL', () => sys.pread(fd, 1, -1).length)
        fails('EINVAL', () => sys.pwrite(fd, 'x', -1) - 1)
        fails('EINVAL', () => Number(sys.lseek(fd, -1, sys.SEEK_SET)))
      })
    },
  },
  {
    name: 'lseek from start, place and end, also behind the end',
    cites: 'POSIX lseek()',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'abcdef')
      sys.withFd(sys.open(join(dir, 'f'), sys.O_RDONLY), fd => {
        assert.equal(sys.lseek(fd, 2, sys.SEEK_SET), 2n)
        assert.equal(sys.lseek(fd, 2, sys.SEEK_CUR), 4n)
        assert.equal(sys.lseek(fd, -1, sys.SEEK_END), 5n)
        assert.equal(sys.lseek(fd, 100, sys.SEEK_END), 106n)
        assert.equal(sys.read(fd, 1).length, 0)
        assert.equal(stat(join(dir, 'f')).size, 6n)
      })
    },
  },
  {
    name: 'lseek to the end sees what another descriptor appended',
    cites: 'POSIX lseek(), SEEK_END: "the size of the file plus offset"',
    run(dir, sys) {
      touch(join(dir, 'f'))
      sys.withFd(sys.open(join(dir, 'f'), sys.O_RDONLY), reader => {
        sys.withFd(sys.open(join(dir, 'f'), sys.O_WRONLY), fd => { sys.write(fd, 'abcd') })
        assert.equal(sys.lseek(reader, 0, sys.SEEK_END), 4n)
      })
    },
  },
  {
    name: 'a directory cannot be read as a file',
    cites: 'POSIX read(), EISDIR',
    run(dir, sys) {
      sys.withFd(sys.open(dir, sys.O_RDONLY), fd => { fails('EISDIR', () => sys.read(fd, 10).length) })
    },
  },
  {
    name: 'offsets beyond 4 GiB',
    cites: 'lseek(2); large file summit',
    run(dir, sys) {
      sys.withFd(sys.open(join(dir, 'f'), sys.O_CREAT | sys.O_RDWR), fd => {
        for (const offset of [2 ** 31 - 2, 2 ** 32 - 2, 2 ** 40 + 1]) {
          sys.pwrite(fd, 'edge', offset)
          assert.equal(sys.pread(fd, 100, offset).toString().slice(0, 4), 'edge')
          assert.equal(stat(join(dir, 'f')).size, BigInt(offset + 4))
        }
      })
    },
  },
  {
    name: 'two descriptors write one file at interleaved offsets',
    cites: 'POSIX pwrite()',
    run(dir, sys) {
      const path = join(dir, 'f')
      const bytes = pattern(64_000, 3)
      sys.withFd(sys.open(path, sys.O_CREAT | sys.O_RDWR), one => {
        sys.withFd(sys.open(path, sys.O_WRONLY), two => {
          for (let at = 0; at < bytes.length; at += 1000) sys.pwrite(at % 2000 === 0 ? one : two, bytes.subarray(at, at + 1000), at)
          assert.ok(sys.pread(one, bytes.length, 0).equals(bytes))
        })
      })
    },
  },
  {
    name: 'FIONREAD tells how much there is before the end',
    cites: 'fs/ioctl.c file_ioctl(), FIONREAD',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'abcdef')
      sys.withFd(sys.open(join(dir, 'f'), sys.O_RDONLY), fd => {
        sys.lseek(fd, 2, sys.SEEK_SET)
        assert.equal(sys.ioctlInt(fd, 0x541b), 4)
      })
    },
  },
  {
    name: 'poll says that a regular file is ready',
    cites: 'POSIX poll(): "Regular files shall always poll TRUE for reading and writing"',
    run(dir, sys) {
      sys.withFd(sys.open(join(dir, 'f'), sys.O_CREAT | sys.O_RDWR), fd => { assert.equal(sys.pollNow(fd, 5), 5) })
    },
  },
])
