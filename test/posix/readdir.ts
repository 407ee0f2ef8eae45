/** getdents64(2) and readdir(3): entries, offsets, changes meanwhile. */
import assert from 'node:assert/strict'
import { mkdirSync, opendirSync, readdirSync, renameSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { O_DIRECTORY } from '../../lib/sys/file.js'
import type { Dirent } from '../support/posix-files.js'
import type { Sys } from '../support/posix-sys.js'
import { fails, group, lstat, touch } from './check.js'

/** O_RDONLY | O_DIRECTORY; the wrappers add O_CLOEXEC. */
const LIST = O_DIRECTORY

function fill(dir: string, count: number, prefix = 'file-number-'): string[] {
  const names = Array.from({ length: count }, (_, i) => `${prefix}${String(i).padStart(5, '0')}`)
  for (const name of names) writeFileSync(join(dir, name), '')
  return names
}

/** What is left of a listing, without dot and dot-dot. */
function rest(sys: Sys, fd: number, room = 32768): Dirent[] {
  const entries: Dirent[] = []
  for (let some = sys.getdents(fd, room); some.length > 0; some = sys.getdents(fd, room)) entries.push(...some)
  return entries
}

function namesOf(entries: readonly Dirent[]): string[] {
  return entries.map(entry => entry.name).filter(name => name !== '.' && name !== '..').sort()
}

export const readingDirectories = group('readdir', [
  {
    name: 'dot, dot-dot and each name once',
    cites: 'POSIX readdir(): "one entry shall be returned for dot and one … for dot-dot"',
    run(dir, sys) {
      const names = fill(dir, 50)
      const all = sys.withFd(sys.open(dir, LIST), fd => rest(sys, fd).map(entry => entry.name))
      assert.deepEqual([...all].sort(), ['.', '..', ...names].sort())
    },
  },
  {
    name: 'the inode numbers are those of stat',
    cites: 'POSIX readdir(), d_ino: "the file serial number"',
    run(dir, sys) {
      fill(dir, 20)
      mkdirSync(join(dir, 'sub'))
      sys.withFd(sys.open(dir, LIST), fd => {
        for (const { name, ino } of rest(sys, fd)) if (name !== '..') assert.equal(ino, lstat(join(dir, name)).ino, name)
      })
    },
  },
  {
    name: 'd_type tells files, directories, links, FIFOs and sockets apart',
    cites: 'getdents(2), d_type',
    run(dir, sys) {
      touch(join(dir, 'file'))
      mkdirSync(join(dir, 'dir'))
      symlinkSync('x', join(dir, 'link'))
      sys.mknod(join(dir, 'fifo'), sys.S_IFIFO | 0o644)
      sys.mknod(join(dir, 'socket'), sys.S_IFSOCK | 0o644)
      const types = sys.withFd(sys.open(dir, LIST), fd => Object.fromEntries(rest(sys, fd).map(entry => [entry.name, entry.type])))
      assert.deepEqual(types, { '.': sys.DT_DIR, '..': sys.DT_DIR, file: sys.DT_REG, dir: sys.DT_DIR, link: sys.DT_LNK, fifo: sys.DT_FIFO, socket: sys.DT_SOCK })
    },
  },
  {
    name: 'a small buffer gives the same entries, in more calls',
    cites: 'getdents(2), count',
    run(dir, sys) {
      const names = fill(dir, 60)
      const listed = sys.withFd(sys.open(dir, LIST), fd => namesOf(rest(sys, fd, 128)))
      assert.deepEqual(listed, names)
    },
  },
  {
    name: 'a buffer without room for one entry is EINVAL',
    cites: 'getdents(2), EINVAL: "Result buffer is too small"',
    run(dir, sys) {
      touch(join(dir, 'n'.repeat(200)))
      sys.withFd(sys.open(dir, LIST), fd => { fails('EINVAL', () => sys.getdents(fd, 16).length) })
    },
  },
  {
    name: 'a file is ENOTDIR, a closed descriptor EBADF',
    cites: 'getdents(2), ENOTDIR, EBADF',
    run(dir, sys) {
      touch(join(dir, 'f'))
      sys.withFd(sys.open(join(dir, 'f'), sys.O_RDONLY), fd => { fails('ENOTDIR', () => sys.getdents(fd).length) })
      fails('EBADF', () => sys.getdents(-1).length)
    },
  },
  {
    name: 'every d_off leads back to what followed it',
    cites: 'POSIX telldir(), seekdir(); getdents(2), d_off',
    run(dir, sys) {
      fill(dir, 200)
      sys.withFd(sys.open(dir, LIST), fd => {
        const all = rest(sys, fd, 1024)
        for (const i of [0, 1, 2, 17, 100, 150, all.length - 2]) {
          sys.lseek(fd, all[i]!.offset, sys.SEEK_SET)
          assert.equal(sys.getdents(fd, 256)[0]!.name, all[i + 1]!.name, `after entry ${i}`)
        }
        sys.lseek(fd, all.at(-1)!.offset, sys.SEEK_SET)
        assert.deepEqual(sys.getdents(fd), [])
      })
    },
  },
  {
    name: 'd_off of each entry is another',
    cites: 'POSIX telldir(): the location of one entry',
    run(dir, sys) {
      fill(dir, 500)
      const offsets = sys.withFd(sys.open(dir, LIST), fd => rest(sys, fd).map(entry => entry.offset))
      assert.equal(new Set(offsets).size, offsets.length)
    },
  },
  {
    name: 'rewinding shows what was made meanwhile',
    cites: 'POSIX rewinddir(): "refer to the current state of the corresponding directory, as a call to opendir() would have done"',
    run(dir, sys) {
      const names = fill(dir, 5)
      sys.withFd(sys.open(dir, LIST), fd => {
        assert.deepEqual(namesOf(rest(sys, fd)), names)
        touch(join(dir, 'new'))
        unlinkSync(join(dir, names[0]!))
        sys.lseek(fd, 0, sys.SEEK_SET)
        assert.deepEqual(namesOf(rest(sys, fd)), [...names.slice(1), 'new'].sort())
      })
    },
  },
  {
    name: 'removing what was listed loses nothing of the rest',
    cites: 'POSIX readdir(): an entry that is neither added nor removed is returned once; rm -r relies on it',
    run(dir, sys) {
      const names = fill(dir, 400)
      const seen: string[] = []
      sys.withFd(sys.open(dir, LIST), fd => {
        for (let some = sys.getdents(fd, 2048); some.length > 0; some = sys.getdents(fd, 2048)) {
          for (const name of namesOf(some)) {
            seen.push(name)
            unlinkSync(join(dir, name))
          }
        }
      })
      assert.deepEqual(seen.sort(), names)
      assert.deepEqual(readdirSync(dir), [])
    },
  },
  {
    name: 'adding and removing others meanwhile: what stays is listed once',
    cites: 'POSIX readdir()',
    run(dir, sys) {
      const names = fill(dir, 300, 'stays-')
      const others = fill(dir, 100, 'goes-')
      const seen: string[] = []
      sys.withFd(sys.open(dir, LIST), fd => {
        let round = 0
        for (let some = sys.getdents(fd, 1024); some.length > 0; some = sys.getdents(fd, 1024)) {
          seen.push(...namesOf(some))
          const other = others.pop()
          if (other) unlinkSync(join(dir, other))
          if (round++ < 50) touch(join(dir, `comes-${round}`))
        }
      })
      assert.deepEqual(seen.filter(name => name.startsWith('stays-')).sort(), names)
      assert.equal(new Set(seen).size, seen.length, 'a name was listed twice')
    },
  },
  {
    name: 'two descriptors list one directory independently',
    cites: 'POSIX open(): each open file description has an offset of its own',
    run(dir, sys) {
      const names = fill(dir, 100)
      sys.withFd(sys.open(dir, LIST), one => sys.withFd(sys.open(dir, LIST), two => {
        const first = sys.getdents(one, 512)
        const second = rest(sys, two)
        assert.deepEqual(namesOf([...first, ...rest(sys, one)]), names)
        assert.deepEqual(namesOf(second), names)
      }))
    },
  },
  {
    name: 'a renamed directory is listed on',
    cites: 'POSIX rename(); readdir()',
    run(dir, sys) {
      mkdirSync(join(dir, 'd'))
      const names = fill(join(dir, 'd'), 100)
      sys.withFd(sys.open(join(dir, 'd'), LIST), fd => {
        const first = sys.getdents(fd, 512)
        renameSync(join(dir, 'd'), join(dir, 'e'))
        assert.deepEqual(namesOf([...first, ...rest(sys, fd)]), names)
      })
    },
  },
  {
    name: 'listing needs read permission, looking up needs search permission',
    cites: 'POSIX opendir(), EACCES; 4.13 Pathname Resolution',
    needs: ['root'],
    run(dir, sys) {
      mkdirSync(join(dir, 'd'))
      touch(join(dir, 'd', 'f'))
      sys.chmodat(join(dir, 'd'), 0o711)
      sys.as(sys.alice, () => {
        fails('EACCES', () => readdirSync(join(dir, 'd')).length)
        assert.equal(lstat(join(dir, 'd', 'f')).size, 0n)
      })
      sys.chmodat(join(dir, 'd'), 0o744)
      sys.as(sys.alice, () => {
        assert.deepEqual(readdirSync(join(dir, 'd')), ['f'])
        fails('EACCES', () => { lstat(join(dir, 'd', 'f')) })
      })
    },
  },
  {
    name: 'a listing in parts while others list in full',
    cites: 'POSIX readdir()',
    run(dir) {
      const names = fill(dir, 150)
      const stream = opendirSync(dir, { bufferSize: 1 })
      const seen: string[] = []
      for (let entry = stream.readSync(); entry; entry = stream.readSync()) {
        seen.push(entry.name)
        if (seen.length % 50 === 0) assert.deepEqual(readdirSync(dir).sort(), names)
      }
      stream.closeSync()
      assert.deepEqual(seen.sort(), names)
    },
  },
  {
    name: 'what was made by another name is listed at once',
    cites: 'POSIX readdir(); opendir()',
    run(dir) {
      for (let i = 0; i < 20; i++) {
        touch(join(dir, `f${i}`))
        assert.equal(readdirSync(dir).length, i + 1)
      }
      for (let i = 19; i >= 0; i--) {
        unlinkSync(join(dir, `f${i}`))
        assert.equal(readdirSync(dir).length, i)
      }
    },
  },
  {
    name: 'seeking in a directory from its end is allowed or EINVAL, and never loses it',
    cites: 'lseek(2); fs/fuse/dir.c fuse_dir_llseek',
    run(dir, sys) {
      const names = fill(dir, 10)
      sys.withFd(sys.open(dir, LIST), fd => {
        try {
          sys.lseek(fd, 0, sys.SEEK_END)
        } catch (error) {
          assert.equal((error as NodeJS.ErrnoException).code, 'EINVAL')
        }
        sys.lseek(fd, 0, sys.SEEK_SET)
        assert.deepEqual(namesOf(rest(sys, fd)), names)
      })
    },
  },
])
