/** flock(2) and the record locks of fcntl(2). */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { unlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Sys } from '../support/posix-sys.js'
import { fails, group } from './check.js'

function withTwo(dir: string, sys: Sys, use: (one: number, two: number) => void): void {
  writeFileSync(join(dir, 'f'), 'x'.repeat(100))
  sys.withFd(sys.open(join(dir, 'f'), sys.O_RDWR), one => sys.withFd(sys.open(join(dir, 'f'), sys.O_RDWR), two => { use(one, two) }))
}

export const locks = group('locks', [
  {
    name: 'an exclusive flock keeps other open files out until it is given up',
    cites: 'flock(2), LOCK_EX, LOCK_NB, EWOULDBLOCK',
    run(dir, sys) {
      withTwo(dir, sys, (one, two) => {
        sys.flock(one, sys.LOCK_EX)
        fails('EAGAIN', () => { sys.flock(two, sys.LOCK_EX) })
        fails('EAGAIN', () => { sys.flock(two, sys.LOCK_SH) })
        sys.flock(one, sys.LOCK_UN)
        sys.flock(two, sys.LOCK_EX)
      })
    },
  },
  {
    name: 'shared flocks go together, and turn exclusive when alone',
    cites: 'flock(2), LOCK_SH, converting',
    run(dir, sys) {
      withTwo(dir, sys, (one, two) => {
        sys.flock(one, sys.LOCK_SH)
        sys.flock(two, sys.LOCK_SH)
        fails('EAGAIN', () => { sys.flock(one, sys.LOCK_EX) })
        sys.flock(two, sys.LOCK_UN)
        sys.flock(one, sys.LOCK_EX)
        fails('EAGAIN', () => { sys.flock(two, sys.LOCK_SH) })
      })
    },
  },
  {
    name: 'a flock belongs to the open file: a duplicate has it, closing the last gives it up',
    cites: 'flock(2): "associated with an open file description"',
    run(dir, sys) {
      withTwo(dir, sys, (one, two) => {
        const copy = sys.dup(one)
        sys.flock(one, sys.LOCK_EX)
        sys.flock(copy, sys.LOCK_EX)
        const third = sys.open(join(dir, 'f'), sys.O_RDONLY)
        fails('EAGAIN', () => { sys.flock(third, sys.LOCK_SH) })
        sys.close(third)
        fails('EAGAIN', () => { sys.flock(two, sys.LOCK_SH) })
        sys.flock(copy, sys.LOCK_UN)
        sys.flock(two, sys.LOCK_EX)
        sys.close(copy)
      })
    },
  },
  {
    name: 'closing gives a flock up',
    cites: 'flock(2)',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), '')
      const fd = sys.open(join(dir, 'f'), sys.O_RDONLY)
      sys.flock(fd, sys.LOCK_EX)
      sys.close(fd)
      sys.withFd(sys.open(join(dir, 'f'), sys.O_RDONLY), other => { sys.flock(other, sys.LOCK_EX) })
    },
  },
  {
    name: 'a directory can be locked, and a file opened read-only',
    cites: 'flock(2): "regardless of the mode in which the file was opened"',
    run(dir, sys) {
      sys.withFd(sys.open(dir, sys.O_RDONLY | sys.O_DIRECTORY), one => sys.withFd(sys.open(dir, sys.O_RDONLY | sys.O_DIRECTORY), two => {
        sys.flock(one, sys.LOCK_EX)
        fails('EAGAIN', () => { sys.flock(two, sys.LOCK_SH) })
      }))
    },
  },
  {
    name: 'another process sees a flock',
    cites: 'flock(2); flock(1)',
    run(dir, sys) {
      withTwo(dir, sys, one => {
        const attempt = (): number | null => spawnSync('flock', ['-n', join(dir, 'f'), 'true']).status
        sys.flock(one, sys.LOCK_EX)
        assert.equal(attempt(), 1)
        sys.flock(one, sys.LOCK_UN)
        assert.equal(attempt(), 0)
      })
    },
  },
  {
    name: 'a write lock of an open file keeps others out of its range alone',
    cites: 'fcntl(2), F_OFD_SETLK, EAGAIN',
    run(dir, sys) {
      withTwo(dir, sys, (one, two) => {
        sys.setOfdLock(one, sys.F_WRLCK, 10, 10)
        fails('EAGAIN', () => { sys.setOfdLock(two, sys.F_RDLCK, 19, 1) })
        fails('EAGAIN', () => { sys.setOfdLock(two, sys.F_WRLCK, 0, 0) })
        sys.setOfdLock(two, sys.F_WRLCK, 0, 10)
        sys.setOfdLock(two, sys.F_WRLCK, 20, 0)
      })
    },
  },
  {
    name: 'read locks go together, a write lock over one does not',
    cites: 'POSIX fcntl(), F_RDLCK, F_WRLCK; fcntl(2), open file description locks',
    run(dir, sys) {
      withTwo(dir, sys, (one, two) => {
        sys.setOfdLock(one, sys.F_RDLCK, 0, 50)
        sys.setOfdLock(two, sys.F_RDLCK, 0, 50)
        fails('EAGAIN', () => { sys.setOfdLock(two, sys.F_WRLCK, 49, 1) })
        sys.setOfdLock(one, sys.F_UNLCK, 0, 0)
        sys.setOfdLock(two, sys.F_WRLCK, 49, 1)
      })
    },
  },
  {
    name: 'unlocking the middle splits a lock',
    cites: 'POSIX fcntl(): a lock on part of a range; fs/locks.c posix_lock_inode',
    run(dir, sys) {
      withTwo(dir, sys, (one, two) => {
        sys.setOfdLock(one, sys.F_WRLCK, 0, 30)
        sys.setOfdLock(one, sys.F_UNLCK, 10, 10)
        sys.setOfdLock(two, sys.F_WRLCK, 10, 10)
        fails('EAGAIN', () => { sys.setOfdLock(two, sys.F_WRLCK, 9, 1) })
        fails('EAGAIN', () => { sys.setOfdLock(two, sys.F_WRLCK, 20, 1) })
      })
    },
  },
  {
    name: 'a test tells the lock that is in the way',
    cites: 'POSIX fcntl(), F_GETLK; fcntl(2), F_OFD_GETLK',
    run(dir, sys) {
      withTwo(dir, sys, (one, two) => {
        assert.equal(sys.testOfdLock(two, sys.F_WRLCK).type, sys.F_UNLCK)
        sys.setOfdLock(one, sys.F_WRLCK, 5, 7)
        const found = sys.testOfdLock(two, sys.F_RDLCK)
        assert.deepEqual([found.type, found.start, found.length], [sys.F_WRLCK, 5, 7])
        sys.setLock(one, sys.F_UNLCK)
      })
    },
  },
  {
    name: 'a lock of the process and one of an open file exclude each other, and the process is told',
    cites: 'fcntl(2), open file description locks: "conflict with" traditional ones; F_GETLK, l_pid',
    run(dir, sys) {
      withTwo(dir, sys, (one, two) => {
        sys.setLock(one, sys.F_WRLCK, 0, 10)
        fails('EAGAIN', () => { sys.setOfdLock(two, sys.F_WRLCK, 0, 10) })
        assert.equal(sys.testOfdLock(two, sys.F_WRLCK).pid, process.pid)
      })
    },
  },
  {
    name: 'a process does not lock itself out, and loses its locks with any close of the file',
    cites: 'POSIX fcntl(): "All locks associated with a file for a given process shall be removed when a file descriptor for that file is closed by that process"',
    run(dir, sys) {
      withTwo(dir, sys, (one, two) => {
        sys.setLock(one, sys.F_WRLCK)
        sys.setLock(two, sys.F_WRLCK)
        sys.close(sys.open(join(dir, 'f'), sys.O_RDONLY))
        sys.setOfdLock(two, sys.F_WRLCK)
      })
    },
  },
  {
    name: 'a write lock needs a descriptor that may write, a read lock one that may read',
    cites: 'POSIX fcntl(), EBADF',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), '')
      sys.withFd(sys.open(join(dir, 'f'), sys.O_RDONLY), fd => { fails('EBADF', () => { sys.setLock(fd, sys.F_WRLCK) }) })
      sys.withFd(sys.open(join(dir, 'f'), sys.O_WRONLY), fd => { fails('EBADF', () => { sys.setLock(fd, sys.F_RDLCK) }) })
    },
  },
  {
    name: 'flock and record locks do not know each other',
    cites: 'flock(2), NOTES: no interaction between flock and fcntl locks',
    run(dir, sys) {
      withTwo(dir, sys, (one, two) => {
        sys.flock(one, sys.LOCK_EX)
        sys.setOfdLock(two, sys.F_WRLCK)
      })
    },
  },
  {
    name: 'locks hold on an unlinked file, and not on a new one of its name',
    cites: 'flock(2); POSIX unlink()',
    run(dir, sys) {
      withTwo(dir, sys, (one, two) => {
        sys.flock(one, sys.LOCK_EX)
        unlinkSync(join(dir, 'f'))
        fails('EAGAIN', () => { sys.flock(two, sys.LOCK_EX) })
        sys.withFd(sys.open(join(dir, 'f'), sys.O_CREAT | sys.O_RDWR), other => { sys.flock(other, sys.LOCK_EX) })
      })
    },
  },
])
