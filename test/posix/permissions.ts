/** What other users may and may not: path_resolution(7), access(2), sticky directories. */
import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, renameSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fails, group, stat, touch } from './check.js'

export const permissions = group('permissions', [
  {
    name: 'owner, group and others each have bits of their own',
    cites: 'POSIX 4.5 File Access Permissions',
    run(dir, sys) {
      const path = join(dir, 'f')
      writeFileSync(path, 'x')
      sys.chown(path, sys.alice.uid, sys.STAFF)
      sys.chmodat(path, 0o640)
      sys.as(sys.alice, () => { sys.close(sys.open(path, sys.O_RDWR)) })
      sys.as({ ...sys.bob, groups: [sys.STAFF] }, () => {
        sys.close(sys.open(path, sys.O_RDONLY))
        fails('EACCES', () => sys.open(path, sys.O_WRONLY))
      })
      sys.as(sys.bob, () => { fails('EACCES', () => sys.open(path, sys.O_RDONLY)) })
    },
  },
  {
    name: 'only the bits of the first class that fits count',
    cites: 'POSIX 4.5: the owner is refused what others may',
    run(dir, sys) {
      const path = join(dir, 'f')
      writeFileSync(path, 'x')
      sys.chown(path, sys.alice.uid, sys.alice.gid)
      sys.chmodat(path, 0o077)
      sys.as(sys.alice, () => { fails('EACCES', () => sys.open(path, sys.O_RDONLY)) })
      sys.as(sys.bob, () => { sys.close(sys.open(path, sys.O_RDONLY)) })
      sys.chmodat(path, 0o606)
      sys.as({ ...sys.bob, groups: [sys.alice.gid] }, () => { fails('EACCES', () => sys.open(path, sys.O_RDONLY)) })
    },
  },
  {
    name: 'a new file belongs to who makes it, and to her group',
    cites: 'POSIX open(), O_CREAT: "The user ID of the file shall be set to the effective user ID"',
    run(dir, sys) {
      sys.as(sys.alice, () => {
        touch(join(dir, 'f'))
        mkdirSync(join(dir, 'd'))
        symlinkSync('x', join(dir, 'l'))
        sys.mknod(join(dir, 'fifo'), sys.S_IFIFO | 0o600)
      })
      for (const name of ['f', 'd', 'fifo']) assert.deepEqual([stat(join(dir, name)).uid, stat(join(dir, name)).gid], [BigInt(sys.alice.uid), BigInt(sys.alice.gid)], name)
    },
  },
  {
    name: 'root reads and writes what has no bits at all',
    cites: 'capabilities(7), CAP_DAC_OVERRIDE',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'secret', { mode: 0o600 })
      sys.chown(join(dir, 'f'), sys.alice.uid, sys.alice.gid)
      sys.chmodat(join(dir, 'f'), 0)
      assert.equal(readFileSync(join(dir, 'f'), 'utf8'), 'secret')
      writeFileSync(join(dir, 'f'), 'more')
    },
  },
  {
    name: 'making and removing need write and search permission on the directory',
    cites: 'POSIX open(), unlink(), mkdir(), rmdir(), EACCES',
    run(dir, sys) {
      mkdirSync(join(dir, 'd'))
      touch(join(dir, 'd', 'f'), 0o666)
      mkdirSync(join(dir, 'd', 'e'))
      for (const mode of [0o755, 0o776]) {
        sys.chmodat(join(dir, 'd'), mode)
        sys.as(sys.alice, () => {
          fails('EACCES', () => sys.open(join(dir, 'd', 'new'), sys.O_CREAT | sys.O_WRONLY))
          fails('EACCES', () => { sys.mkdirat(sys.AT_FDCWD, join(dir, 'd', 'new'), 0o755) })
          fails('EACCES', () => { unlinkSync(join(dir, 'd', 'f')) })
          fails('EACCES', () => { sys.rmdir(join(dir, 'd', 'e')) })
          fails('EACCES', () => { sys.symlinkat('x', sys.AT_FDCWD, join(dir, 'd', 'l')) })
          fails('EACCES', () => { sys.mknod(join(dir, 'd', 'p'), sys.S_IFIFO | 0o644) })
        })
      }
    },
  },
  {
    name: 'renaming needs write permission on both directories',
    cites: 'POSIX rename(), EACCES',
    run(dir, sys) {
      mkdirSync(join(dir, 'mine'))
      mkdirSync(join(dir, 'theirs'))
      sys.chmodat(join(dir, 'mine'), 0o777)
      touch(join(dir, 'mine', 'f'), 0o666)
      touch(join(dir, 'theirs', 'g'), 0o666)
      sys.as(sys.alice, () => {
        fails('EACCES', () => { renameSync(join(dir, 'mine', 'f'), join(dir, 'theirs', 'f')) })
        fails('EACCES', () => { renameSync(join(dir, 'theirs', 'g'), join(dir, 'mine', 'g')) })
        renameSync(join(dir, 'mine', 'f'), join(dir, 'mine', 'h'))
      })
    },
  },
  {
    name: 'each component of a path needs search permission',
    cites: 'POSIX 4.13; path_resolution(7), Permissions',
    run(dir, sys) {
      mkdirSync(join(dir, 'a', 'b'), { recursive: true })
      writeFileSync(join(dir, 'a', 'b', 'f'), 'x', { mode: 0o644 })
      sys.chmodat(join(dir, 'a'), 0o700)
      sys.as(sys.alice, () => {
        fails('EACCES', () => sys.open(join(dir, 'a', 'b', 'f'), sys.O_RDONLY))
        fails('EACCES', () => { stat(join(dir, 'a', 'none')) })
      })
      sys.chmodat(join(dir, 'a'), 0o711)
      sys.as(sys.alice, () => { sys.close(sys.open(join(dir, 'a', 'b', 'f'), sys.O_RDONLY)) })
    },
  },
  {
    name: 'a revoked right counts for the next open, an open file stays open',
    cites: 'POSIX open(): access is checked at open',
    run(dir, sys) {
      const path = join(dir, 'f')
      writeFileSync(path, 'still', { mode: 0o644 })
      const fd = sys.as(sys.alice, () => sys.open(path, sys.O_RDONLY))
      sys.chmodat(path, 0o600)
      sys.as(sys.alice, () => {
        fails('EACCES', () => sys.open(path, sys.O_RDONLY))
        assert.equal(sys.withFd(fd, fd => sys.read(fd, 10).toString()), 'still')
      })
    },
  },
  {
    name: 'sticky: only the owner of the file or of the directory removes and renames',
    cites: 'POSIX unlink(), rename(), EPERM or EACCES with S_ISVTX; unlink(2), EPERM',
    run(dir, sys) {
      mkdirSync(join(dir, 't'))
      sys.chmodat(join(dir, 't'), 0o1777)
      sys.as(sys.alice, () => { touch(join(dir, 't', 'f'), 0o666) })
      sys.as(sys.bob, () => {
        fails(['EPERM', 'EACCES'], () => { unlinkSync(join(dir, 't', 'f')) })
        fails(['EPERM', 'EACCES'], () => { renameSync(join(dir, 't', 'f'), join(dir, 't', 'g')) })
        touch(join(dir, 't', 'mine'))
        fails(['EPERM', 'EACCES'], () => { renameSync(join(dir, 't', 'mine'), join(dir, 't', 'f')) })
      })
      sys.as(sys.alice, () => { unlinkSync(join(dir, 't', 'f')) })
      sys.chown(join(dir, 't'), sys.alice.uid, sys.alice.gid)
      sys.as(sys.alice, () => { unlinkSync(join(dir, 't', 'mine')) })
    },
  },
  {
    name: 'sticky: a directory of another user cannot be removed',
    cites: 'rmdir(2), EPERM',
    run(dir, sys) {
      mkdirSync(join(dir, 't'))
      sys.chmodat(join(dir, 't'), 0o1777)
      sys.as(sys.alice, () => { mkdirSync(join(dir, 't', 'd')) })
      sys.as(sys.bob, () => { fails(['EPERM', 'EACCES'], () => { sys.rmdir(join(dir, 't', 'd')) }) })
      sys.as(sys.alice, () => { sys.rmdir(join(dir, 't', 'd')) })
    },
  },
  {
    name: 'access tells for each of read, write and search',
    cites: 'POSIX access(), faccessat() with AT_EACCESS',
    run(dir, sys) {
      const path = join(dir, 'f')
      touch(path)
      sys.chown(path, sys.alice.uid, sys.alice.gid)
      for (let bits = 0; bits < 8; bits++) {
        sys.chmodat(path, bits << 6)
        sys.as(sys.alice, () => {
          for (const want of [1, 2, 4, 6, 7]) {
            if ((bits & want) === want) sys.access(path, want, sys.AT_EACCESS)
            else fails('EACCES', () => { sys.access(path, want, sys.AT_EACCESS) })
          }
        })
      }
    },
  },
  {
    name: 'F_OK needs no right on the file, but on the path',
    cites: 'POSIX access(), F_OK',
    run(dir, sys) {
      mkdirSync(join(dir, 'd'))
      touch(join(dir, 'd', 'f'), 0o600)
      sys.as(sys.alice, () => {
        sys.access(join(dir, 'd', 'f'), 0)
        fails('ENOENT', () => { sys.access(join(dir, 'd', 'none'), 0) })
      })
      sys.chmodat(join(dir, 'd'), 0o700)
      sys.as(sys.alice, () => { fails('EACCES', () => { sys.access(join(dir, 'd', 'f'), 0) }) })
    },
  },
  {
    name: 'truncate needs write permission, times need ownership or it',
    cites: 'POSIX truncate(), EACCES; utimensat(2), EPERM and EACCES',
    run(dir, sys) {
      const path = join(dir, 'f')
      writeFileSync(path, 'abc', { mode: 0o644 })
      const time = { sec: 1, nsec: 0 }
      sys.as(sys.alice, () => {
        fails('EACCES', () => { sys.truncate(path, 0) })
        fails('EPERM', () => { sys.utimens(path, time, time) })
        fails('EACCES', () => { sys.utimensNow(path) })
      })
      sys.chmodat(path, 0o666)
      sys.as(sys.alice, () => {
        sys.utimensNow(path)
        fails('EPERM', () => { sys.utimens(path, time, time) })
        sys.truncate(path, 1)
      })
      assert.equal(stat(path).size, 1n)
    },
  },
  {
    name: 'a file made read-only is written on by who made it',
    cites: 'POSIX open(): the mode "does not affect whether the file is open for reading, for writing, or for both"',
    run(dir, sys) {
      sys.as(sys.alice, () => {
        sys.withFd(sys.open(join(dir, 'f'), sys.O_CREAT | sys.O_EXCL | sys.O_RDWR, 0o400), fd => {
          assert.equal(sys.write(fd, 'abc'), 3)
          sys.ftruncate(fd, 1)
        })
        fails('EACCES', () => sys.open(join(dir, 'f'), sys.O_WRONLY))
        fails('EACCES', () => { sys.truncate(join(dir, 'f'), 0) })
      })
      assert.equal(readFileSync(join(dir, 'f'), 'utf8'), 'a')
    },
  },
  {
    name: 'linking needs write permission on the directory of the new name',
    cites: 'POSIX link(), EACCES',
    run(dir, sys) {
      mkdirSync(join(dir, 'd'))
      sys.as(sys.alice, () => {
        touch(join(dir, 'f'))
        fails('EACCES', () => { sys.linkat(sys.AT_FDCWD, join(dir, 'f'), sys.AT_FDCWD, join(dir, 'd', 'g')) })
        sys.linkat(sys.AT_FDCWD, join(dir, 'f'), sys.AT_FDCWD, join(dir, 'g'))
      })
      assert.equal(stat(join(dir, 'f')).nlink, 2n)
    },
  },
  {
    name: 'readlink and stat need no right on what they look at',
    cites: 'stat(2): "No permissions are required on the file itself"; readlink(2)',
    run(dir, sys) {
      touch(join(dir, 'f'), 0)
      symlinkSync('f', join(dir, 'l'))
      sys.as(sys.alice, () => {
        assert.equal(sys.readlink(join(dir, 'l'), 100).toString(), 'f')
        assert.equal(stat(join(dir, 'l')).size, 0n)
      })
    },
  },
  {
    name: 'each of two users in turn, two hundred times: every file has its maker',
    cites: 'POSIX open(), O_CREAT',
    run(dir, sys) {
      for (let i = 0; i < 200; i++) sys.as(i % 2 ? sys.alice : sys.bob, () => { touch(join(dir, `f${i}`)) })
      for (let i = 0; i < 200; i++) assert.equal(stat(join(dir, `f${i}`)).uid, BigInt((i % 2 ? sys.alice : sys.bob).uid))
    },
  },
], ['root'])
