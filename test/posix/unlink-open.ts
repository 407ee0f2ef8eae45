/** Files and directories that are removed while somebody has them open. */
import assert from 'node:assert/strict'
import { closeSync, existsSync, fchmodSync, fstatSync, mkdirSync, openSync, readdirSync, readFileSync, renameSync, rmdirSync, unlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fails, group, touch } from './check.js'

export const unlinkOpen = group('unlink-open', [
  {
    name: 'an unlinked open file is read and written on',
    cites: 'POSIX unlink(): "the removal of the file contents shall be postponed until all references to the file are closed"',
    run(dir, sys) {
      sys.withFd(sys.open(join(dir, 'f'), sys.O_CREAT | sys.O_RDWR), fd => {
        sys.write(fd, 'before')
        unlinkSync(join(dir, 'f'))
        sys.write(fd, ' after')
        assert.equal(sys.pread(fd, 100, 0).toString(), 'before after')
        assert.equal(existsSync(join(dir, 'f')), false)
      })
    },
  },
  {
    name: 'fstat says no links',
    cites: 'POSIX unlink(); fstat(2), st_nlink',
    run(dir) {
      touch(join(dir, 'f'))
      const fd = openSync(join(dir, 'f'), 'r+')
      unlinkSync(join(dir, 'f'))
      assert.equal(fstatSync(fd).nlink, 0)
      closeSync(fd)
    },
  },
  {
    name: 'no name is left in the directory, and the directory can be removed',
    cites: 'POSIX unlink(); rmdir()',
    run(dir) {
      mkdirSync(join(dir, 'd'))
      const fd = openSync(join(dir, 'd', 'f'), 'wx+')
      unlinkSync(join(dir, 'd', 'f'))
      assert.deepEqual(readdirSync(join(dir, 'd')), [])
      rmdirSync(join(dir, 'd'))
      assert.equal(fstatSync(fd).size, 0)
      closeSync(fd)
    },
  },
  {
    name: 'truncate, chmod and times through the descriptor',
    cites: 'ftruncate(2); fchmod(2); futimens(3)',
    run(dir, sys) {
      sys.withFd(sys.open(join(dir, 'f'), sys.O_CREAT | sys.O_RDWR), fd => {
        sys.write(fd, 'abcdef')
        unlinkSync(join(dir, 'f'))
        sys.ftruncate(fd, 3)
        fchmodSync(fd, 0o611)
        sys.futimens(fd, { sec: 3, nsec: 4 }, { sec: 5, nsec: 6 })
        const { size, mode, mtimeNs } = fstatSync(fd, { bigint: true })
        assert.deepEqual([size, Number(mode) & 0o777, mtimeNs], [3n, 0o611, 5_000_000_006n])
      })
    },
  },
  {
    name: 'a file of the same name is another one',
    cites: 'POSIX unlink()',
    run(dir, sys) {
      sys.withFd(sys.open(join(dir, 'f'), sys.O_CREAT | sys.O_RDWR), fd => {
        sys.write(fd, 'old')
        unlinkSync(join(dir, 'f'))
        writeFileSync(join(dir, 'f'), 'new one')
        assert.equal(sys.pread(fd, 100, 0).toString(), 'old')
        assert.equal(readFileSync(join(dir, 'f'), 'utf8'), 'new one')
      })
    },
  },
  {
    name: 'it can be opened again through /proc/self/fd',
    cites: 'proc(5), /proc/pid/fd',
    run(dir, sys) {
      sys.withFd(sys.open(join(dir, 'f'), sys.O_CREAT | sys.O_RDWR), fd => {
        sys.write(fd, 'still here')
        unlinkSync(join(dir, 'f'))
        sys.withFd(sys.open(`/proc/self/fd/${fd}`, sys.O_RDONLY), again => {
          assert.equal(sys.read(again, 100).toString(), 'still here')
        })
      })
    },
  },
  {
    name: 'a removed directory that is open lists nothing and takes nothing',
    cites: 'getdents(2), ENOENT; POSIX rmdir(): "the dot and dot-dot entries … removed … and no new entries may be created"',
    run(dir, sys) {
      mkdirSync(join(dir, 'd'))
      sys.withFd(sys.open(join(dir, 'd'), sys.O_RDONLY | sys.O_DIRECTORY), fd => {
        rmdirSync(join(dir, 'd'))
        fails('ENOENT', () => sys.getdents(fd).length)
        fails('ENOENT', () => sys.openat(fd, 'f', sys.O_CREAT | sys.O_WRONLY, 0o644))
        fails('ENOENT', () => { sys.mkdirat(fd, 'e', 0o755) })
      })
    },
  },
  {
    name: 'a replaced file is still read by who had it open',
    cites: 'rename(2): "If newpath exists but the operation fails … open file descriptors … unaffected"',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'x'.repeat(100_000))
      sys.withFd(sys.open(join(dir, 'f'), sys.O_RDONLY), fd => {
        writeFileSync(join(dir, 'g'), 'short')
        renameSync(join(dir, 'g'), join(dir, 'f'))
        assert.equal(sys.pread(fd, 10, 99_995).length, 5)
        assert.equal(fstatSync(fd).nlink, 0)
      })
    },
  },
  {
    name: 'unlinked between two opens: the second fails, the first goes on',
    cites: 'POSIX unlink(), open() ENOENT',
    run(dir, sys) {
      sys.withFd(sys.open(join(dir, 'f'), sys.O_CREAT | sys.O_RDWR), fd => {
        unlinkSync(join(dir, 'f'))
        fails('ENOENT', () => sys.open(join(dir, 'f'), sys.O_RDONLY))
        assert.equal(sys.write(fd, 'x'), 1)
      })
    },
  },
  {
    name: 'unlink of what is not there, of a directory, under a file',
    cites: 'POSIX unlink(), ENOENT, ENOTDIR; unlink(2), EISDIR',
    run(dir, sys) {
      mkdirSync(join(dir, 'd'))
      touch(join(dir, 'f'))
      fails('ENOENT', () => { sys.unlinkat(sys.AT_FDCWD, join(dir, 'none')) })
      fails(['EISDIR', 'EPERM'], () => { sys.unlinkat(sys.AT_FDCWD, join(dir, 'd')) })
      fails('ENOTDIR', () => { sys.unlinkat(sys.AT_FDCWD, join(dir, 'f', 'g')) })
      fails('ENOTDIR', () => { sys.unlinkat(sys.AT_FDCWD, `${dir}/f/`) })
    },
  },
])
