/** fallocate(2), and holes: SEEK_DATA and SEEK_HOLE. */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fails, group, marks, stat } from './check.js'

const KIB = 1024

export const fallocating = group('fallocate', [
  {
    name: 'beyond the end it grows the file with zero bytes',
    cites: 'fallocate(2), Allocating disk space',
    run(dir, sys) {
      sys.withFd(sys.open(join(dir, 'f'), sys.O_CREAT | sys.O_RDWR), fd => {
        sys.write(fd, 'abc')
        sys.fallocate(fd, 0, 1000, 9000)
        assert.equal(stat(join(dir, 'f')).size, 10000n)
        const bytes = sys.pread(fd, 20000, 0)
        assert.equal(bytes.subarray(0, 3).toString(), 'abc')
        assert.ok(bytes.subarray(3).every(byte => byte === 0))
      })
    },
  },
  {
    name: 'within the file it changes neither size nor bytes',
    cites: 'fallocate(2)',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'x'.repeat(9000))
      sys.withFd(sys.open(join(dir, 'f'), sys.O_RDWR), fd => { sys.fallocate(fd, 0, 10, 100) })
      assert.equal(readFileSync(join(dir, 'f'), 'utf8'), 'x'.repeat(9000))
    },
  },
  {
    name: 'the space is counted',
    cites: 'fallocate(2); stat(2), st_blocks',
    run(dir, sys) {
      sys.withFd(sys.open(join(dir, 'f'), sys.O_CREAT | sys.O_RDWR), fd => { sys.fallocate(fd, 0, 0, 256 * KIB) })
      assert.ok(stat(join(dir, 'f')).blocks >= BigInt(256 * KIB / 512))
    },
  },
  {
    name: 'FALLOC_FL_KEEP_SIZE allocates behind the end and keeps it',
    cites: 'fallocate(2), FALLOC_FL_KEEP_SIZE',
    run(dir, sys) {
      sys.withFd(sys.open(join(dir, 'f'), sys.O_CREAT | sys.O_RDWR), fd => {
        sys.write(fd, 'abc')
        sys.fallocate(fd, sys.FALLOC_FL_KEEP_SIZE, 0, 64 * KIB)
      })
      assert.equal(stat(join(dir, 'f')).size, 3n)
      assert.ok(stat(join(dir, 'f')).blocks >= BigInt(64 * KIB / 512))
    },
  },
  {
    name: 'posix_fallocate grows a file',
    cites: 'POSIX posix_fallocate()',
    run(dir, sys) {
      sys.withFd(sys.open(join(dir, 'f'), sys.O_CREAT | sys.O_RDWR), fd => {
        sys.posixFallocate(fd, 0, 5000)
        sys.posixFallocate(fd, 0, 100)
      })
      assert.equal(stat(join(dir, 'f')).size, 5000n)
    },
  },
  {
    name: 'a length of nothing or a negative offset is EINVAL',
    cites: 'fallocate(2), EINVAL',
    run(dir, sys) {
      sys.withFd(sys.open(join(dir, 'f'), sys.O_CREAT | sys.O_RDWR), fd => {
        fails('EINVAL', () => { sys.fallocate(fd, 0, 0, 0) })
        fails('EINVAL', () => { sys.fallocate(fd, 0, -1, 10) })
        fails('EINVAL', () => { sys.fallocate(fd, 0, 0, -10) })
      })
    },
  },
  {
    name: 'a descriptor opened read-only is EBADF, a directory and a FIFO too',
    cites: 'fallocate(2), EBADF, EISDIR, ESPIPE',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), '')
      sys.mknod(join(dir, 'p'), sys.S_IFIFO | 0o644)
      sys.withFd(sys.open(join(dir, 'f'), sys.O_RDONLY), fd => { fails('EBADF', () => { sys.fallocate(fd, 0, 0, 10) }) })
      sys.withFd(sys.open(dir, sys.O_RDONLY | sys.O_DIRECTORY), fd => { fails(['EBADF', 'EISDIR'], () => { sys.fallocate(fd, 0, 0, 10) }) })
      sys.withFd(sys.open(join(dir, 'p'), sys.O_RDWR), fd => { fails('ESPIPE', () => { sys.fallocate(fd, 0, 0, 10) }) })
    },
  },
  {
    name: 'marks mtime and ctime when the size changes',
    cites: 'fallocate(2); POSIX posix_fallocate()',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), '')
      sys.withFd(sys.open(join(dir, 'f'), sys.O_RDWR), fd => { marks(join(dir, 'f'), ['mtime', 'ctime'], () => { sys.fallocate(fd, 0, 0, 4096) }) })
    },
  },
  {
    name: 'a punched hole reads as zero bytes, and the size stays',
    cites: 'fallocate(2), FALLOC_FL_PUNCH_HOLE',
    needs: ['punch_hole'],
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), Buffer.alloc(64 * KIB, 'x'))
      sys.withFd(sys.open(join(dir, 'f'), sys.O_RDWR), fd => { sys.fallocate(fd, sys.FALLOC_FL_PUNCH_HOLE | sys.FALLOC_FL_KEEP_SIZE, 10_000, 30_000) })
      const bytes = readFileSync(join(dir, 'f'))
      assert.equal(bytes.length, 64 * KIB)
      assert.ok(bytes.every((byte, at) => byte === (at >= 10_000 && at < 40_000 ? 0 : 120)))
    },
  },
  {
    name: 'a punched hole is seen at once by a mapping and another descriptor',
    cites: 'fallocate(2); mmap(2)',
    needs: ['punch_hole'],
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), Buffer.alloc(16 * KIB, 'x'))
      sys.withFd(sys.open(join(dir, 'f'), sys.O_RDWR), fd => sys.withFd(sys.open(join(dir, 'f'), sys.O_RDONLY), other => {
        sys.withMapping(fd, 16 * KIB, sys.PROT_READ, sys.MAP_PRIVATE, bytes => {
          assert.equal(bytes[5000], 120)
          sys.fallocate(fd, sys.FALLOC_FL_PUNCH_HOLE | sys.FALLOC_FL_KEEP_SIZE, 4096, 4096)
          assert.equal(bytes[5000], 0)
        })
        assert.equal(sys.pread(other, 1, 5000)[0], 0)
      }))
    },
  },
  {
    name: 'PUNCH_HOLE without KEEP_SIZE is EOPNOTSUPP or EINVAL, flags that are unknown too',
    cites: 'fallocate(2), FALLOC_FL_PUNCH_HOLE: "must be ORed with FALLOC_FL_KEEP_SIZE"',
    run(dir, sys) {
      sys.withFd(sys.open(join(dir, 'f'), sys.O_CREAT | sys.O_RDWR), fd => {
        fails(['ENOTSUP', 'EINVAL'], () => { sys.fallocate(fd, sys.FALLOC_FL_PUNCH_HOLE, 0, 10) })
        fails(['ENOTSUP', 'EINVAL'], () => { sys.fallocate(fd, 0x4000, 0, 10) })
      })
    },
  },
  {
    name: 'a zeroed range reads as zero bytes, and grows the file unless told otherwise',
    cites: 'fallocate(2), FALLOC_FL_ZERO_RANGE',
    needs: ['zero_range'],
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), Buffer.alloc(8192, 'x'))
      sys.withFd(sys.open(join(dir, 'f'), sys.O_RDWR), fd => {
        sys.fallocate(fd, sys.FALLOC_FL_ZERO_RANGE | sys.FALLOC_FL_KEEP_SIZE, 100, 20_000)
        assert.equal(stat(join(dir, 'f')).size, 8192n)
        assert.ok(sys.pread(fd, 9000, 100).every(byte => byte === 0))
        sys.fallocate(fd, sys.FALLOC_FL_ZERO_RANGE, 50, 20_000)
        assert.equal(stat(join(dir, 'f')).size, 20_050n)
        assert.equal(sys.pread(fd, 50, 0).toString(), 'x'.repeat(50))
      })
    },
  },
  {
    name: 'more than there is is ENOSPC or EFBIG, and changes nothing',
    cites: 'fallocate(2), ENOSPC, EFBIG',
    run(dir, sys) {
      sys.withFd(sys.open(join(dir, 'f'), sys.O_CREAT | sys.O_RDWR), fd => {
        sys.write(fd, 'abc')
        fails(['ENOSPC', 'EFBIG'], () => { sys.fallocate(fd, 0, 0, 1n << 46n) })
        fails('EFBIG', () => { sys.fallocate(fd, 0, (1n << 63n) - 10n, 100) })
      })
      assert.equal(readFileSync(join(dir, 'f'), 'utf8'), 'abc')
    },
  },
], ['fallocate'])

export const holes = group('holes', [
  {
    name: 'SEEK_DATA and SEEK_HOLE find the data between two holes',
    cites: 'lseek(2), Seeking file data and holes',
    needs: ['seek_hole'],
    run(dir, sys) {
      sys.withFd(sys.open(join(dir, 'f'), sys.O_CREAT | sys.O_RDWR), fd => {
        sys.pwrite(fd, Buffer.alloc(64 * KIB, 1), 256 * KIB)
        sys.ftruncate(fd, 1024 * KIB)
        sys.fsync(fd)
        assert.equal(sys.lseek(fd, 0, sys.SEEK_HOLE), 0n)
        assert.equal(sys.lseek(fd, 0, sys.SEEK_DATA), BigInt(256 * KIB))
        assert.equal(sys.lseek(fd, 300 * KIB, sys.SEEK_DATA), BigInt(300 * KIB))
        assert.equal(sys.lseek(fd, 256 * KIB, sys.SEEK_HOLE), BigInt(320 * KIB))
      })
    },
  },
  {
    name: 'no data behind the place is ENXIO, also at and behind the end',
    cites: 'lseek(2), ENXIO',
    needs: ['seek_hole'],
    run(dir, sys) {
      sys.withFd(sys.open(join(dir, 'f'), sys.O_CREAT | sys.O_RDWR), fd => {
        sys.pwrite(fd, 'x', 0)
        sys.ftruncate(fd, 256 * KIB)
        sys.fsync(fd)
        fails('ENXIO', () => { sys.lseek(fd, 128 * KIB, sys.SEEK_DATA) })
        for (const at of [256 * KIB, 300 * KIB]) {
          fails('ENXIO', () => { sys.lseek(fd, at, sys.SEEK_DATA) })
          fails('ENXIO', () => { sys.lseek(fd, at, sys.SEEK_HOLE) })
        }
      })
    },
  },
  {
    name: 'the end of a file without holes counts as one',
    cites: 'lseek(2): "there is an implicit hole at the end of any file"',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), Buffer.alloc(10_000, 1))
      sys.withFd(sys.open(join(dir, 'f'), sys.O_RDWR), fd => {
        sys.fsync(fd)
        assert.equal(sys.lseek(fd, 5, sys.SEEK_HOLE), 10_000n)
        assert.equal(sys.lseek(fd, 5, sys.SEEK_DATA), 5n)
        assert.equal(sys.lseek(fd, 0, sys.SEEK_CUR), 5n)
      })
    },
  },
  {
    name: 'a hole takes no space',
    cites: 'lseek(2); stat(2), st_blocks',
    run(dir, sys) {
      sys.withFd(sys.open(join(dir, 'f'), sys.O_CREAT | sys.O_RDWR), fd => {
        sys.ftruncate(fd, 1 << 30)
        sys.pwrite(fd, 'x', 500 << 20)
        sys.fsync(fd)
      })
      assert.equal(stat(join(dir, 'f')).size, 1n << 30n)
      assert.ok(stat(join(dir, 'f')).blocks < 2048n)
    },
  },
  {
    name: 'punching gives space back',
    cites: 'fallocate(2), Deallocating file space',
    needs: ['punch_hole'],
    run(dir, sys) {
      sys.withFd(sys.open(join(dir, 'f'), sys.O_CREAT | sys.O_RDWR), fd => {
        sys.write(fd, Buffer.alloc(1 << 20, 1))
        sys.fsync(fd)
        const before = stat(join(dir, 'f')).blocks
        sys.fallocate(fd, sys.FALLOC_FL_PUNCH_HOLE | sys.FALLOC_FL_KEEP_SIZE, 0, 1 << 19)
        assert.ok(stat(join(dir, 'f')).blocks <= before - 1000n)
      })
    },
  },
  {
    name: 'a place before the file is EINVAL or ENXIO, one that overflows EOVERFLOW or EINVAL',
    cites: 'lseek(2), EINVAL, EOVERFLOW',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'abc')
      sys.withFd(sys.open(join(dir, 'f'), sys.O_RDONLY), fd => {
        fails('EINVAL', () => { sys.lseek(fd, -1, sys.SEEK_SET) })
        fails(['EINVAL', 'ENXIO'], () => { sys.lseek(fd, -1, sys.SEEK_DATA) })
        fails(['EINVAL', 'EOVERFLOW'], () => { sys.lseek(fd, (1n << 63n) - 1n, sys.SEEK_END) })
        fails('EINVAL', () => { sys.lseek(fd, 0, 99) })
      })
    },
  },
])
