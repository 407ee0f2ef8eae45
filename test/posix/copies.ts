/** Copies in the kernel: copy_file_range(2), sendfile(2), splice(2). */
import assert from 'node:assert/strict'
import { closeSync, copyFileSync, openSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Sys } from '../support/posix-sys.js'
import { fails, group, hasMode, marks } from './check.js'

/** Bytes that differ from page to page. */
function pattern(length: number): Buffer {
  return Buffer.from(Array.from({ length }, (_, i) => (i * 7 + (i >> 8)) & 0xff))
}

function withTwo(dir: string, sys: Sys, from: Buffer | string, to: Buffer | string, use: (from: number, to: number) => void): void {
  writeFileSync(join(dir, 'from'), from)
  writeFileSync(join(dir, 'to'), to)
  sys.withFd(sys.open(join(dir, 'from'), sys.O_RDWR), one => sys.withFd(sys.open(join(dir, 'to'), sys.O_RDWR), two => { use(one, two) }))
}

/** Copies all, however many calls it takes. */
function copyAll(sys: Sys, from: number, to: number, length: number): void {
  for (let done = 0; done < length;) {
    const { copied } = sys.copyFileRange(from, undefined, to, undefined, length - done)
    assert.ok(copied > 0)
    done += copied
  }
}

export const copyFileRange = group('copy_file_range', [
  {
    name: 'a range goes to another place of another file',
    cites: 'copy_file_range(2)',
    run(dir, sys) {
      const bytes = pattern(50_000)
      withTwo(dir, sys, bytes, 'head', (from, to) => {
        const { copied, fromOffset, toOffset } = sys.copyFileRange(from, 1000, to, 4, 30_000)
        assert.deepEqual([copied, fromOffset, toOffset], [30_000, 31_000, 30_004])
        assert.equal(sys.lseek(from, 0, sys.SEEK_CUR), 0n)
      })
      const result = readFileSync(join(dir, 'to'))
      assert.equal(result.subarray(0, 4).toString(), 'head')
      assert.ok(result.subarray(4).equals(bytes.subarray(1000, 31_000)))
    },
  },
  {
    name: 'without offsets it uses and moves those of the files',
    cites: 'copy_file_range(2): "If off_in is NULL … the file offset … is adjusted"',
    run(dir, sys) {
      withTwo(dir, sys, 'abcdefghij', '', (from, to) => {
        sys.lseek(from, 2, sys.SEEK_SET)
        assert.equal(sys.copyFileRange(from, undefined, to, undefined, 4).copied, 4)
        assert.equal(sys.lseek(from, 0, sys.SEEK_CUR), 6n)
        assert.equal(sys.lseek(to, 0, sys.SEEK_CUR), 4n)
      })
      assert.equal(readFileSync(join(dir, 'to'), 'utf8'), 'cdef')
    },
  },
  {
    name: 'it stops at the end, and there is nothing behind it',
    cites: 'copy_file_range(2): "If the file offset of fd_in is at or past the end of file, no bytes are copied"',
    run(dir, sys) {
      withTwo(dir, sys, 'abcdef', '', (from, to) => {
        assert.equal(sys.copyFileRange(from, 4, to, 0, 100).copied, 2)
        assert.equal(sys.copyFileRange(from, 6, to, 2, 100).copied, 0)
        assert.equal(sys.copyFileRange(from, 60, to, 2, 100).copied, 0)
      })
      assert.equal(readFileSync(join(dir, 'to'), 'utf8'), 'ef')
    },
  },
  {
    name: '3 MiB, whatever was cached of both',
    cites: 'copy_file_range(2)',
    run(dir, sys) {
      const bytes = pattern(3 << 20)
      withTwo(dir, sys, bytes, Buffer.alloc(4 << 20, 9), (from, to) => {
        sys.pread(from, 1 << 20, 0)
        sys.pread(to, 4 << 20, 0)
        copyAll(sys, from, to, bytes.length)
        assert.ok(sys.pread(to, 3 << 20, 0).equals(bytes))
        assert.equal(sys.pread(to, 1, 3 << 20)[0], 9)
      })
    },
  },
  {
    name: 'what was just written, and not synced, is copied',
    cites: 'copy_file_range(2); POSIX write()',
    run(dir, sys) {
      withTwo(dir, sys, 'old old old', 'xxxxxxxxxxx', (from, to) => {
        sys.pwrite(from, 'NEW', 4)
        sys.pwrite(to, 'YY', 9)
        sys.copyFileRange(from, 0, to, 0, 7)
        assert.equal(sys.pread(to, 99, 0).toString(), 'old NEWxxYY')
      })
    },
  },
  {
    name: 'within one file',
    cites: 'copy_file_range(2): "fd_in and fd_out can refer to the same file"',
    run(dir, sys) {
      const bytes = pattern(20_000)
      writeFileSync(join(dir, 'f'), bytes)
      sys.withFd(sys.open(join(dir, 'f'), sys.O_RDWR), fd => { assert.equal(sys.copyFileRange(fd, 0, fd, 10_000, 5000).copied, 5000) })
      assert.ok(readFileSync(join(dir, 'f')).equals(Buffer.concat([bytes.subarray(0, 10_000), bytes.subarray(0, 5000), bytes.subarray(15_000)])))
    },
  },
  {
    name: 'ranges of one file that overlap are EINVAL, flags too',
    cites: 'copy_file_range(2), EINVAL',
    run(dir, sys) {
      withTwo(dir, sys, 'abcdef', '', (from, to) => {
        fails('EINVAL', () => sys.copyFileRange(from, 0, from, 2, 4).copied)
        fails('EINVAL', () => sys.copyFileRange(from, 0, to, 0, 4, 1).copied)
      })
    },
  },
  {
    name: 'descriptors of the wrong kind',
    cites: 'copy_file_range(2), EBADF, EISDIR, EINVAL',
    run(dir, sys) {
      withTwo(dir, sys, 'abc', '', (from, to) => {
        sys.withFd(sys.open(join(dir, 'to'), sys.O_RDONLY), readOnly => { fails('EBADF', () => sys.copyFileRange(from, 0, readOnly, 0, 3).copied) })
        sys.withFd(sys.open(join(dir, 'to'), sys.O_WRONLY | sys.O_APPEND), append => { fails('EBADF', () => sys.copyFileRange(from, 0, append, 0, 3).copied) })
        sys.withFd(sys.open(join(dir, 'from'), sys.O_WRONLY), writeOnly => { fails('EBADF', () => sys.copyFileRange(writeOnly, 0, to, 0, 3).copied) })
        sys.withFd(sys.open(dir, sys.O_RDONLY | sys.O_DIRECTORY), directory => { fails('EISDIR', () => sys.copyFileRange(directory, 0, to, 0, 3).copied) })
      })
    },
  },
  {
    name: 'marks mtime and ctime of the copy, and takes its suid away',
    cites: 'fs/read_write.c generic_copy_file_checks, file_modified',
    needs: ['root'],
    run(dir, sys) {
      withTwo(dir, sys, 'abc', 'xyz', () => {
        sys.chmodat(join(dir, 'from'), 0o644)
        sys.chmodat(join(dir, 'to'), 0o4777)
        sys.as(sys.alice, () => {
          sys.withFd(sys.open(join(dir, 'from'), sys.O_RDONLY), from => sys.withFd(sys.open(join(dir, 'to'), sys.O_WRONLY), to => {
            marks(join(dir, 'to'), ['mtime', 'ctime'], () => { sys.copyFileRange(from, 0, to, 0, 3) })
          }))
        })
      })
      hasMode(join(dir, 'to'), 0o777)
      assert.equal(readFileSync(join(dir, 'to'), 'utf8'), 'abc')
    },
  },
  {
    name: 'to and from another file system it copies or is EXDEV',
    cites: 'copy_file_range(2), EXDEV',
    run(dir, sys) {
      writeFileSync(join(dir, 'to'), '')
      const from = openSync(process.execPath, 'r')
      try {
        sys.withFd(sys.open(join(dir, 'to'), sys.O_RDWR), to => {
          let copied = 0
          try {
            copied = sys.copyFileRange(from, 0, to, 0, 100).copied
          } catch (error) {
            assert.equal((error as NodeJS.ErrnoException).code, 'EXDEV')
          }
          assert.equal(statSync(join(dir, 'to')).size, copied)
        })
      } finally {
        closeSync(from)
      }
    },
  },
  {
    name: 'cp copies contents and mode',
    cites: 'cp(1); uv_fs_copyfile: copy_file_range or sendfile',
    run(dir) {
      const bytes = pattern(200_000)
      writeFileSync(join(dir, 'a'), bytes, { mode: 0o750 })
      copyFileSync(join(dir, 'a'), join(dir, 'b'))
      assert.ok(readFileSync(join(dir, 'b')).equals(bytes))
      hasMode(join(dir, 'b'), 0o750)
      fails('EEXIST', () => { copyFileSync(join(dir, 'a'), join(dir, 'b'), 1) })
    },
  },
])

export const splicing = group('sendfile-splice', [
  {
    name: 'sendfile from one file to another, at its offset and at a given one',
    cites: 'sendfile(2)',
    run(dir, sys) {
      const bytes = pattern(40_000)
      withTwo(dir, sys, bytes, '', (from, to) => {
        assert.deepEqual(sys.sendfile(to, from, 10_000, 20_000), { sent: 20_000, offset: 30_000 })
        assert.equal(sys.lseek(from, 0, sys.SEEK_CUR), 0n)
        assert.equal(sys.sendfile(to, from, undefined, 100).sent, 100)
        assert.equal(sys.lseek(from, 0, sys.SEEK_CUR), 100n)
      })
      assert.ok(readFileSync(join(dir, 'to')).equals(Buffer.concat([bytes.subarray(10_000, 30_000), bytes.subarray(0, 100)])))
    },
  },
  {
    name: 'sendfile stops at the end',
    cites: 'sendfile(2)',
    run(dir, sys) {
      withTwo(dir, sys, 'abcdef', '', (from, to) => {
        assert.equal(sys.sendfile(to, from, 2, 100).sent, 4)
        assert.equal(sys.sendfile(to, from, 6, 100).sent, 0)
      })
    },
  },
  {
    name: 'sendfile of a large file into a pipe',
    cites: 'sendfile(2); pipe(7)',
    run(dir, sys) {
      const bytes = pattern(32_768)
      writeFileSync(join(dir, 'f'), bytes)
      const [reader, writer] = sys.pipe()
      sys.withFd(reader, reader => sys.withFd(writer, writer => {
        sys.withFd(sys.open(join(dir, 'f'), sys.O_RDONLY), fd => { assert.equal(sys.sendfile(writer, fd, 0, 32_768).sent, 32_768) })
        assert.ok(sys.read(reader, 65_536).equals(bytes))
      }))
    },
  },
  {
    name: 'splice from a file into a pipe',
    cites: 'splice(2)',
    run(dir, sys) {
      const bytes = pattern(20_000)
      writeFileSync(join(dir, 'f'), bytes)
      const [reader, writer] = sys.pipe()
      sys.withFd(reader, reader => sys.withFd(writer, writer => {
        sys.withFd(sys.open(join(dir, 'f'), sys.O_RDONLY), fd => {
          const moved = sys.splice(fd, 5000, writer, undefined, 10_000)
          assert.ok(moved > 0)
          assert.ok(sys.read(reader, 65_536).equals(bytes.subarray(5000, 5000 + moved)))
        })
      }))
    },
  },
  {
    name: 'splice from a pipe into a file, at an offset',
    cites: 'splice(2); fs/splice.c iter_file_splice_write',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'head')
      const [reader, writer] = sys.pipe()
      sys.withFd(reader, reader => sys.withFd(writer, writer => {
        sys.write(writer, 'from the pipe')
        sys.withFd(sys.open(join(dir, 'f'), sys.O_RDWR), fd => {
          assert.equal(sys.splice(reader, undefined, fd, 4, 100), 13)
          assert.equal(sys.pread(fd, 99, 0).toString(), 'headfrom the pipe')
        })
      }))
    },
  },
  {
    name: 'splice into a file opened with O_APPEND is EINVAL',
    cites: 'splice(2), EINVAL: "The target file is opened in append mode"',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), '')
      const [reader, writer] = sys.pipe()
      sys.withFd(reader, reader => sys.withFd(writer, writer => {
        sys.write(writer, 'x')
        sys.withFd(sys.open(join(dir, 'f'), sys.O_WRONLY | sys.O_APPEND), fd => { fails('EINVAL', () => sys.splice(reader, undefined, fd, undefined, 1)) })
      }))
    },
  },
])
