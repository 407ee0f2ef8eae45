/** mkdir(2) and rmdir(2). */
import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readdirSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fails, group, hasMode, lstat, marks, stat, touch } from './check.js'

export const directories = group('directories', [
  {
    name: 'mkdir makes an empty directory of two links',
    cites: 'POSIX mkdir(); inode(7), st_nlink',
    run(dir) {
      const links = stat(dir).nlink
      mkdirSync(join(dir, 'd'))
      assert.ok(stat(join(dir, 'd')).isDirectory())
      assert.deepEqual(readdirSync(join(dir, 'd')), [])
      // file systems that do not count subdirectories say 1
      assert.ok([1n, 2n].includes(stat(join(dir, 'd')).nlink))
      if (links > 1n) assert.equal(stat(dir).nlink, links + 1n)
    },
  },
  {
    name: 'rmdir takes the link of the parent back',
    cites: 'POSIX rmdir()',
    run(dir, sys) {
      const links = stat(dir).nlink
      for (let i = 0; i < 5; i++) mkdirSync(join(dir, `d${i}`))
      for (let i = 0; i < 5; i++) sys.rmdir(join(dir, `d${i}`))
      assert.equal(stat(dir).nlink, links)
      assert.deepEqual(readdirSync(dir), [])
    },
  },
  {
    name: 'the mode asked for, with the sticky bit and without suid',
    cites: 'mkdir(2), mode: permission bits and S_ISVTX; mode & ~umask & 01777',
    run(dir, sys) {
      sys.mkdirat(sys.AT_FDCWD, join(dir, 'd'), 0o1751)
      hasMode(join(dir, 'd'), 0o1751)
      sys.mkdirat(sys.AT_FDCWD, join(dir, 'e'), 0o4700)
      hasMode(join(dir, 'e'), 0o700)
    },
  },
  {
    name: 'an existing name is EEXIST, whatever it is',
    cites: 'POSIX mkdir(), EEXIST: also a symbolic link, dangling or not',
    run(dir, sys) {
      touch(join(dir, 'file'))
      mkdirSync(join(dir, 'dir'))
      symlinkSync('nowhere', join(dir, 'dangling'))
      symlinkSync('dir', join(dir, 'link'))
      sys.mknod(join(dir, 'fifo'), sys.S_IFIFO | 0o644)
      for (const name of ['file', 'dir', 'dangling', 'link', 'fifo', '.', '..']) fails('EEXIST', () => { sys.mkdirat(sys.AT_FDCWD, `${dir}/${name}`, 0o755) })
      assert.equal(existsSync(join(dir, 'nowhere')), false)
    },
  },
  {
    name: 'a parent that is not there is ENOENT, one that is a file ENOTDIR',
    cites: 'POSIX mkdir(), ENOENT, ENOTDIR',
    run(dir, sys) {
      touch(join(dir, 'f'))
      fails('ENOENT', () => { sys.mkdirat(sys.AT_FDCWD, join(dir, 'none', 'd'), 0o755) })
      fails('ENOTDIR', () => { sys.mkdirat(sys.AT_FDCWD, join(dir, 'f', 'd'), 0o755) })
    },
  },
  {
    name: 'an empty name is ENOENT, a trailing slash is allowed',
    cites: 'path_resolution(7), "Empty pathname"; POSIX 4.13 Pathname Resolution',
    run(dir, sys) {
      fails('ENOENT', () => { sys.mkdirat(sys.AT_FDCWD, '', 0o755) })
      sys.mkdirat(sys.AT_FDCWD, `${dir}/d/`, 0o755)
      assert.ok(stat(join(dir, 'd')).isDirectory())
      sys.rmdir(`${dir}/d//`)
      assert.equal(existsSync(join(dir, 'd')), false)
    },
  },
  {
    name: 'mkdir marks mtime and ctime of the parent',
    cites: 'POSIX mkdir(): "the last data modification and last file status change timestamps of the directory that contains the new entry"',
    run(dir) {
      marks(dir, ['mtime', 'ctime'], () => { mkdirSync(join(dir, 'd')) })
    },
  },
  {
    name: 'rmdir marks mtime and ctime of the parent',
    cites: 'POSIX rmdir()',
    run(dir, sys) {
      mkdirSync(join(dir, 'd'))
      marks(dir, ['mtime', 'ctime'], () => { sys.rmdir(join(dir, 'd')) })
    },
  },
  {
    name: 'a directory with entries is ENOTEMPTY',
    cites: 'POSIX rmdir(), EEXIST or ENOTEMPTY',
    run(dir, sys) {
      mkdirSync(join(dir, 'd'))
      writeFileSync(join(dir, 'd', '.hidden'), '')
      fails(['ENOTEMPTY', 'EEXIST'], () => { sys.rmdir(join(dir, 'd')) })
      unlinkSync(join(dir, 'd', '.hidden'))
      mkdirSync(join(dir, 'd', 'e'))
      fails(['ENOTEMPTY', 'EEXIST'], () => { sys.rmdir(join(dir, 'd')) })
      sys.rmdir(join(dir, 'd', 'e'))
      sys.rmdir(join(dir, 'd'))
    },
  },
  {
    name: 'rmdir of what is no directory, of nothing, of dot and dot-dot',
    cites: 'POSIX rmdir(), ENOTDIR, ENOENT, EINVAL for dot; rmdir(2), ENOTEMPTY for dot-dot',
    run(dir, sys) {
      touch(join(dir, 'f'))
      mkdirSync(join(dir, 'd'))
      fails('ENOTDIR', () => { sys.rmdir(join(dir, 'f')) })
      fails('ENOENT', () => { sys.rmdir(join(dir, 'none')) })
      fails('EINVAL', () => { sys.rmdir(`${dir}/d/.`) })
      fails('ENOTEMPTY', () => { sys.rmdir(`${dir}/d/..`) })
    },
  },
  {
    name: 'the working directory can be removed, and then nothing can be made in it',
    cites: 'rmdir(2); getcwd(2), ENOENT',
    run(dir, sys) {
      const before = process.cwd()
      mkdirSync(join(dir, 'd'))
      process.chdir(join(dir, 'd'))
      try {
        sys.rmdir(join(dir, 'd'))
        fails('ENOENT', () => { mkdirSync('e') })
        fails('ENOENT', () => sys.open('f', sys.O_CREAT | sys.O_WRONLY))
        assert.deepEqual(readdirSync('.'), [])
      } finally {
        process.chdir(before)
      }
    },
  },
  {
    name: 'dot and dot-dot lead to the directory and its parent',
    cites: 'POSIX 4.13 Pathname Resolution',
    run(dir) {
      mkdirSync(join(dir, 'd'))
      assert.equal(stat(`${dir}/d/.`).ino, stat(join(dir, 'd')).ino)
      assert.equal(stat(`${dir}/d/..`).ino, stat(dir).ino)
    },
  },
  {
    name: 'fifty levels deep, each reached and removed',
    cites: 'POSIX mkdir(), rmdir(); limits.h, PATH_MAX',
    run(dir, sys) {
      const paths: string[] = []
      for (let i = 0, path = dir; i < 50; i++) paths.push(path = join(path, `level${i}`))
      for (const path of paths) mkdirSync(path)
      writeFileSync(join(paths.at(-1)!, 'leaf'), 'deep')
      assert.equal(stat(join(paths.at(-1)!, 'leaf')).size, 4n)
      unlinkSync(join(paths.at(-1)!, 'leaf'))
      for (const path of paths.reverse()) sys.rmdir(path)
      assert.deepEqual(readdirSync(dir), [])
    },
  },
  {
    name: 'a directory made again has another inode or newer times',
    cites: 'POSIX mkdir(): the timestamps of the new directory are marked for update',
    run(dir, sys) {
      mkdirSync(join(dir, 'd'))
      const first = lstat(join(dir, 'd'))
      sys.rmdir(join(dir, 'd'))
      mkdirSync(join(dir, 'd'))
      const second = lstat(join(dir, 'd'))
      assert.ok(second.ino !== first.ino || second.ctimeNs >= first.ctimeNs)
      assert.deepEqual(readdirSync(join(dir, 'd')), [])
    },
  },
])
