/** mmap(2) and O_DIRECT. */
import assert from 'node:assert/strict'
import { readFileSync, renameSync, unlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fails, group, marks, stat } from './check.js'

const PAGE = 4096

export const mappings = group('mmap', [
  {
    name: 'a private mapping shows the bytes of the file, and zero bytes to the end of the page',
    cites: 'POSIX mmap(), MAP_PRIVATE; mmap(2)',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'abc')
      sys.withFd(sys.open(join(dir, 'f'), sys.O_RDONLY), fd => {
        sys.withMapping(fd, PAGE, sys.PROT_READ, sys.MAP_PRIVATE, bytes => {
          assert.equal(Buffer.from(bytes.subarray(0, 4)).toString('latin1'), 'abc\0')
          assert.ok(bytes.subarray(3).every(byte => byte === 0))
        })
      })
    },
  },
  {
    name: 'what is stored through a private mapping stays private',
    cites: 'POSIX mmap(), MAP_PRIVATE',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'abc')
      sys.withFd(sys.open(join(dir, 'f'), sys.O_RDONLY), fd => {
        sys.withMapping(fd, PAGE, sys.PROT_READ | sys.PROT_WRITE, sys.MAP_PRIVATE, bytes => { bytes[0] = 88 })
      })
      assert.equal(readFileSync(join(dir, 'f'), 'utf8'), 'abc')
    },
  },
  {
    name: 'a shared mapping to store needs a descriptor that may write',
    cites: 'POSIX mmap(), EACCES',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'abc')
      sys.withFd(sys.open(join(dir, 'f'), sys.O_RDONLY), fd => {
        fails('EACCES', () => { sys.withMapping(fd, PAGE, sys.PROT_READ | sys.PROT_WRITE, sys.MAP_SHARED, () => {}) })
      })
      sys.withFd(sys.open(join(dir, 'f'), sys.O_WRONLY), fd => {
        fails('EACCES', () => { sys.withMapping(fd, PAGE, sys.PROT_READ, sys.MAP_PRIVATE, () => {}) })
      })
    },
  },
  {
    name: 'a directory is ENODEV, an odd offset EINVAL',
    cites: 'POSIX mmap(), ENODEV, EINVAL',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'abc')
      sys.withFd(sys.open(dir, sys.O_RDONLY | sys.O_DIRECTORY), fd => { fails('ENODEV', () => { sys.withMapping(fd, PAGE, sys.PROT_READ, sys.MAP_PRIVATE, () => {}) }) })
      sys.withFd(sys.open(join(dir, 'f'), sys.O_RDONLY), fd => { fails('EINVAL', () => { sys.withMapping(fd, PAGE, sys.PROT_READ, sys.MAP_PRIVATE, () => {}, 100) }) })
    },
  },
])

export const sharedMappings = group('shared-mappings', [
  {
    name: 'what is stored through a shared one is in the file after msync',
    cites: 'POSIX msync(), MS_SYNC',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'x'.repeat(3 * PAGE))
      sys.withFd(sys.open(join(dir, 'f'), sys.O_RDWR), fd => {
        sys.withMapping(fd, 3 * PAGE, sys.PROT_READ | sys.PROT_WRITE, sys.MAP_SHARED, (bytes, sync) => {
          bytes.set(Buffer.from('STORED'), PAGE + 10)
          sync()
          assert.equal(sys.pread(fd, 8, PAGE + 9).toString(), 'xSTOREDx')
        })
      })
      assert.equal(readFileSync(join(dir, 'f'), 'utf8').indexOf('STORED'), PAGE + 10)
    },
  },
  {
    name: 'and also without it, when the mapping and the descriptor are gone',
    cites: 'POSIX munmap(); mmap(2), MAP_SHARED',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'x'.repeat(2 * PAGE))
      sys.withFd(sys.open(join(dir, 'f'), sys.O_RDWR), fd => {
        sys.withMapping(fd, 2 * PAGE, sys.PROT_READ | sys.PROT_WRITE, sys.MAP_SHARED, bytes => { bytes[PAGE] = 89 })
      })
      assert.equal(readFileSync(join(dir, 'f'))[PAGE], 89)
    },
  },
  {
    name: 'a write is seen in a shared mapping',
    cites: 'POSIX mmap(), MAP_SHARED; mm/filemap.c: one page cache',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'x'.repeat(2 * PAGE))
      sys.withFd(sys.open(join(dir, 'f'), sys.O_RDWR), fd => {
        sys.withMapping(fd, 2 * PAGE, sys.PROT_READ | sys.PROT_WRITE, sys.MAP_SHARED, bytes => {
          assert.equal(bytes[PAGE + 5], 120)
          sys.pwrite(fd, 'WRITTEN', PAGE + 5)
          assert.equal(Buffer.from(bytes.subarray(PAGE + 5, PAGE + 12)).toString(), 'WRITTEN')
        })
      })
    },
  },
  {
    name: 'a write through a descriptor that cannot read is seen in a mapping, and keeps what is stored around it',
    cites: 'POSIX mmap(), MAP_SHARED; fs/fuse/file.c fuse_direct_io: writes back and invalidates the pages',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'x'.repeat(2 * PAGE))
      sys.withFd(sys.open(join(dir, 'f'), sys.O_RDWR), reader => sys.withFd(sys.open(join(dir, 'f'), sys.O_WRONLY), writer => {
        sys.withMapping(reader, 2 * PAGE, sys.PROT_READ | sys.PROT_WRITE, sys.MAP_SHARED, bytes => {
          bytes[PAGE + 4] = 65
          sys.pwrite(writer, 'WRITTEN', PAGE + 5)
          bytes[PAGE + 12] = 66
          assert.equal(Buffer.from(bytes.subarray(PAGE + 3, PAGE + 14)).toString(), 'xAWRITTENBx')
          assert.equal(sys.pread(reader, 11, PAGE + 3).toString(), 'xAWRITTENBx')
        })
      }))
      assert.equal(readFileSync(join(dir, 'f'), 'latin1').slice(PAGE + 3, PAGE + 14), 'xAWRITTENBx')
    },
  },
  {
    name: 'two shared mappings of one file see each other',
    cites: 'POSIX mmap(), MAP_SHARED',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'x'.repeat(PAGE))
      sys.withFd(sys.open(join(dir, 'f'), sys.O_RDWR), one => sys.withFd(sys.open(join(dir, 'f'), sys.O_RDWR), two => {
        sys.withMapping(one, PAGE, sys.PROT_READ | sys.PROT_WRITE, sys.MAP_SHARED, a => sys.withMapping(two, PAGE, sys.PROT_READ | sys.PROT_WRITE, sys.MAP_SHARED, b => {
          a[7] = 1
          assert.equal(b[7], 1)
        }))
      }))
    },
  },
  {
    name: 'a store behind the end within the last page is not in the file',
    cites: 'POSIX mmap(): "any modified portions of the last page … beyond its end … shall not be written out"',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'abc')
      sys.withFd(sys.open(join(dir, 'f'), sys.O_RDWR), fd => {
        sys.withMapping(fd, PAGE, sys.PROT_READ | sys.PROT_WRITE, sys.MAP_SHARED, (bytes, sync) => {
          bytes[1] = 66
          bytes[100] = 67
          sync()
        })
      })
      assert.equal(readFileSync(join(dir, 'f'), 'utf8'), 'aBc')
    },
  },
  {
    name: 'a mapping outlives its descriptor and the name of its file',
    cites: 'POSIX mmap(): a reference of its own to the file; close()',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'x'.repeat(2 * PAGE))
      const fd = sys.open(join(dir, 'f'), sys.O_RDWR)
      sys.withMapping(fd, 2 * PAGE, sys.PROT_READ | sys.PROT_WRITE, sys.MAP_SHARED, (bytes, sync) => {
        sys.close(fd)
        unlinkSync(join(dir, 'f'))
        bytes[PAGE] = 5
        sync()
        assert.deepEqual([bytes[0], bytes[PAGE]], [120, 5])
      })
    },
  },
  {
    name: 'storing marks mtime and ctime by msync at the latest',
    cites: 'POSIX mmap(): "the last data modification and last file status change timestamps … shall be marked for update"',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'x'.repeat(PAGE))
      sys.withFd(sys.open(join(dir, 'f'), sys.O_RDWR), fd => {
        sys.withMapping(fd, PAGE, sys.PROT_READ | sys.PROT_WRITE, sys.MAP_SHARED, (bytes, sync) => {
          marks(join(dir, 'f'), ['mtime', 'ctime'], () => {
            bytes[0] = 1
            sync()
          })
        })
      })
    },
  },
  {
    name: 'a file grown under a mapping is mapped as far as it goes',
    cites: 'mmap(2); POSIX ftruncate()',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'abc')
      sys.withFd(sys.open(join(dir, 'f'), sys.O_RDWR), fd => {
        sys.withMapping(fd, 4 * PAGE, sys.PROT_READ | sys.PROT_WRITE, sys.MAP_SHARED, bytes => {
          assert.equal(bytes[0], 97)
          sys.ftruncate(fd, 4 * PAGE)
          sys.pwrite(fd, 'far', 3 * PAGE)
          assert.equal(Buffer.from(bytes.subarray(3 * PAGE, 3 * PAGE + 3)).toString(), 'far')
          bytes[2 * PAGE] = 7
        })
        assert.equal(sys.pread(fd, 1, 2 * PAGE)[0], 7)
      })
      assert.equal(stat(join(dir, 'f')).size, BigInt(4 * PAGE))
    },
  },
  {
    name: '2 MiB stored page by page are all there',
    cites: 'POSIX mmap(), msync()',
    run(dir, sys) {
      const length = 2 << 20
      sys.withFd(sys.open(join(dir, 'f'), sys.O_CREAT | sys.O_RDWR), fd => {
        sys.ftruncate(fd, length)
        sys.withMapping(fd, length, sys.PROT_READ | sys.PROT_WRITE, sys.MAP_SHARED, bytes => {
          for (let page = 0; page < length / PAGE; page++) bytes[page * PAGE + page] = page & 0xff
        })
        sys.fsync(fd)
      })
      renameSync(join(dir, 'f'), join(dir, 'g'))
      const bytes = readFileSync(join(dir, 'g'))
      for (let page = 0; page < length / PAGE; page++) assert.equal(bytes[page * PAGE + page], page & 0xff)
    },
  },
])

export const directIo = group('o_direct', [
  {
    name: 'aligned writes are read back, cached and not',
    cites: 'open(2), O_DIRECT',
    run(dir, sys) {
      const bytes = Buffer.alloc(16 * PAGE, 'direct')
      sys.withFd(sys.open(join(dir, 'f'), sys.O_CREAT | sys.O_RDWR | sys.O_DIRECT), fd => {
        assert.equal(sys.pwrite(fd, bytes, 0), bytes.length)
        assert.ok(sys.pread(fd, bytes.length, 0).equals(bytes))
      })
      assert.ok(readFileSync(join(dir, 'f')).equals(bytes))
    },
  },
  {
    name: 'a direct read sees what was written through the cache, and the other way round',
    cites: 'open(2), O_DIRECT; mm/filemap.c generic_file_direct_write invalidates',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), Buffer.alloc(4 * PAGE, 'a'))
      sys.withFd(sys.open(join(dir, 'f'), sys.O_RDWR | sys.O_DIRECT), direct => sys.withFd(sys.open(join(dir, 'f'), sys.O_RDWR), cached => {
        sys.pwrite(cached, 'b'.repeat(PAGE), PAGE)
        assert.equal(sys.pread(direct, PAGE, PAGE).toString(), 'b'.repeat(PAGE))
        assert.equal(sys.pread(cached, 1, 2 * PAGE).toString(), 'a')
        sys.pwrite(direct, 'c'.repeat(PAGE), 2 * PAGE)
        assert.equal(sys.pread(cached, 2, 2 * PAGE).toString(), 'cc')
      }))
    },
  },
  {
    name: 'an aligned read at the end is short',
    cites: 'POSIX read(); open(2), O_DIRECT',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'x'.repeat(PAGE + 10))
      sys.withFd(sys.open(join(dir, 'f'), sys.O_RDONLY | sys.O_DIRECT), fd => {
        assert.equal(sys.pread(fd, PAGE, PAGE).length, 10)
        assert.equal(sys.pread(fd, PAGE, 2 * PAGE).length, 0)
      })
    },
  },
  {
    name: 'direct writes with O_APPEND go to the end',
    cites: 'open(2), O_DIRECT, O_APPEND',
    run(dir, sys) {
      sys.withFd(sys.open(join(dir, 'f'), sys.O_CREAT | sys.O_WRONLY | sys.O_DIRECT | sys.O_APPEND), fd => {
        for (const letter of 'abc') assert.equal(sys.write(fd, letter.repeat(PAGE)), PAGE)
      })
      assert.equal(readFileSync(join(dir, 'f'), 'utf8'), 'a'.repeat(PAGE) + 'b'.repeat(PAGE) + 'c'.repeat(PAGE))
    },
  },
  {
    name: '2 MiB in one call',
    cites: 'open(2), O_DIRECT',
    run(dir, sys) {
      const bytes = Buffer.alloc(2 << 20)
      for (let at = 0; at < bytes.length; at += 4) bytes.writeUInt32LE(at, at)
      sys.withFd(sys.open(join(dir, 'f'), sys.O_CREAT | sys.O_RDWR | sys.O_DIRECT), fd => {
        assert.equal(sys.pwrite(fd, bytes, 0), bytes.length)
        assert.ok(sys.pread(fd, bytes.length, 0).equals(bytes))
      })
    },
  },
  {
    name: 'F_SETFL sets and clears O_DIRECT',
    cites: 'fcntl(2), F_SETFL: "O_APPEND, O_ASYNC, O_DIRECT, O_NOATIME, and O_NONBLOCK"',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'x'.repeat(PAGE))
      sys.withFd(sys.open(join(dir, 'f'), sys.O_RDWR), fd => {
        sys.fcntl(fd, sys.F_SETFL, sys.O_DIRECT)
        assert.equal(sys.pread(fd, PAGE, 0).length, PAGE)
        sys.fcntl(fd, sys.F_SETFL, 0)
        sys.pwrite(fd, 'odd', 1)
      })
      assert.equal(readFileSync(join(dir, 'f'), 'utf8').slice(0, 5), 'xoddx')
    },
  },
], ['o_direct'])
