/** symlink(2) and readlink(2). */
import assert from 'node:assert/strict'
import { existsSync, lstatSync, mkdirSync, readFileSync, readlinkSync, renameSync, rmdirSync, statSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fails, group, lstat, marks, stat, touch } from './check.js'

export const symlinks = group('symlinks', [
  {
    name: 'the target is read back as it was given, whatever it is',
    cites: 'POSIX symlink(): "shall be treated only as a character string"',
    run(dir) {
      const targets = ['a', '/absolute/none', '../..', 'trailing/', '//double//', 'with space\nand newline', 'ünïcödé', './.']
      targets.forEach((target, i) => {
        symlinkSync(target, join(dir, `l${i}`))
        assert.equal(readlinkSync(join(dir, `l${i}`)), target)
      })
    },
  },
  {
    name: 'bytes that are no UTF-8',
    cites: 'symlink(2)',
    run(dir, sys) {
      const target = Buffer.from([0x61, 0xff, 0xfe, 0x80, 0x2f, 0xc0])
      sys.symlinkat(target, sys.AT_FDCWD, join(dir, 'l'))
      assert.deepEqual(sys.readlink(join(dir, 'l'), 4096), target)
    },
  },
  {
    name: 'size is the length of the target, and lstat does not follow',
    cites: 'POSIX lstat(): "st_size … the length of the pathname contained in the symbolic link"',
    run(dir) {
      symlinkSync('nowhere/at/all', join(dir, 'l'))
      assert.ok(lstat(join(dir, 'l')).isSymbolicLink())
      assert.equal(lstat(join(dir, 'l')).size, 14n)
      fails('ENOENT', () => statSync(join(dir, 'l')))
    },
  },
  {
    name: 'a target of 4095 bytes, none of 4096',
    cites: 'POSIX symlink(), ENAMETOOLONG; symlink(2), PATH_MAX',
    run(dir, sys) {
      const target = 'x/'.repeat(2047) + 'y'
      symlinkSync(target, join(dir, 'l'))
      assert.equal(readlinkSync(join(dir, 'l')), target)
      assert.equal(lstat(join(dir, 'l')).size, 4095n)
      fails('ENAMETOOLONG', () => { sys.symlinkat('x'.repeat(4096), sys.AT_FDCWD, join(dir, 'm')) })
    },
  },
  {
    name: 'an empty target is ENOENT',
    cites: 'symlink(2), ENOENT: "target is the empty string"',
    run(dir, sys) {
      fails('ENOENT', () => { sys.symlinkat('', sys.AT_FDCWD, join(dir, 'l')) })
    },
  },
  {
    name: 'readlink cuts what does not fit',
    cites: 'readlink(2): "will truncate the contents … in case the buffer is too small"',
    run(dir, sys) {
      symlinkSync('abcdefgh', join(dir, 'l'))
      assert.equal(sys.readlink(join(dir, 'l'), 3).toString(), 'abc')
      assert.equal(sys.readlink(join(dir, 'l'), 8).toString(), 'abcdefgh')
    },
  },
  {
    name: 'readlink of what is no symbolic link is EINVAL',
    cites: 'POSIX readlink(), EINVAL',
    run(dir) {
      touch(join(dir, 'f'))
      fails('EINVAL', () => readlinkSync(join(dir, 'f')))
      fails('EINVAL', () => readlinkSync(dir))
      fails('ENOENT', () => readlinkSync(join(dir, 'none')))
    },
  },
  {
    name: 'an existing name is EEXIST',
    cites: 'POSIX symlink(), EEXIST',
    run(dir) {
      touch(join(dir, 'f'))
      fails('EEXIST', () => { symlinkSync('x', join(dir, 'f')) })
      fails('EEXIST', () => { symlinkSync('x', dir) })
    },
  },
  {
    name: 'reading and writing go to the target',
    cites: 'path_resolution(7)',
    run(dir) {
      mkdirSync(join(dir, 'd'))
      symlinkSync('d', join(dir, 'to-d'))
      writeFileSync(join(dir, 'to-d', 'f'), 'text')
      symlinkSync('../d/f', join(dir, 'd', 'to-f'))
      assert.equal(readFileSync(join(dir, 'to-d', 'to-f'), 'utf8'), 'text')
    },
  },
  {
    name: 'a target is looked up anew each time',
    cites: 'path_resolution(7)',
    run(dir) {
      writeFileSync(join(dir, 'a'), 'A')
      writeFileSync(join(dir, 'b'), 'B')
      symlinkSync('a', join(dir, 'l'))
      assert.equal(readFileSync(join(dir, 'l'), 'utf8'), 'A')
      renameSync(join(dir, 'b'), join(dir, 'a'))
      assert.equal(readFileSync(join(dir, 'l'), 'utf8'), 'B')
    },
  },
  {
    name: 'a replaced link leads to the new target',
    cites: 'rename(2): newpath is atomically replaced',
    run(dir) {
      writeFileSync(join(dir, 'a'), 'A')
      writeFileSync(join(dir, 'b'), 'B')
      symlinkSync('a', join(dir, 'l'))
      assert.equal(readFileSync(join(dir, 'l'), 'utf8'), 'A')
      symlinkSync('b', join(dir, 'new'))
      renameSync(join(dir, 'new'), join(dir, 'l'))
      assert.equal(readlinkSync(join(dir, 'l')), 'b')
      assert.equal(readFileSync(join(dir, 'l'), 'utf8'), 'B')
    },
  },
  {
    name: 'unlink removes the link and not the target; rmdir of one to a directory is ENOTDIR',
    cites: 'POSIX unlink(); rmdir(), ENOTDIR',
    run(dir) {
      mkdirSync(join(dir, 'd'))
      symlinkSync('d', join(dir, 'l'))
      fails('ENOTDIR', () => { rmdirSync(join(dir, 'l')) })
      unlinkSync(join(dir, 'l'))
      assert.ok(statSync(join(dir, 'd')).isDirectory())
      assert.equal(existsSync(join(dir, 'l')), false)
    },
  },
  {
    name: 'forty in a row are followed, forty-one are ELOOP',
    cites: 'path_resolution(7): "maximum number of symbolic links … 40"',
    run(dir) {
      touch(join(dir, 'l0'))
      for (let i = 1; i <= 41; i++) symlinkSync(`l${i - 1}`, join(dir, `l${i}`))
      assert.ok(statSync(join(dir, 'l40')).isFile())
      fails('ELOOP', () => statSync(join(dir, 'l41')))
    },
  },
  {
    name: 'symlink marks mtime and ctime of its directory',
    cites: 'POSIX symlink(): "the last data modification and last file status change timestamps of the parent directory shall be marked for update"',
    run(dir) {
      marks(dir, ['mtime', 'ctime'], () => { symlinkSync('x', join(dir, 'l')) })
    },
  },
  {
    name: 'a trailing slash follows it to a directory',
    cites: 'POSIX 4.13 Pathname Resolution',
    run(dir) {
      mkdirSync(join(dir, 'd'))
      touch(join(dir, 'f'))
      symlinkSync('d', join(dir, 'to-d'))
      symlinkSync('f', join(dir, 'to-f'))
      assert.ok(lstatSync(`${dir}/to-d/`).isDirectory())
      fails('ENOTDIR', () => lstatSync(`${dir}/to-f/`))
    },
  },
  {
    name: 'it belongs to who made it',
    cites: 'symlink(2): "owned by the effective user ID"',
    needs: ['root'],
    run(dir, sys) {
      sys.as(sys.alice, () => { symlinkSync('x', join(dir, 'l')) })
      const { uid, gid } = lstat(join(dir, 'l'))
      assert.deepEqual([uid, gid], [BigInt(sys.alice.uid), BigInt(sys.alice.gid)])
    },
  },
  {
    name: '.. behind a link to a directory is that directory’s parent',
    cites: 'POSIX 4.13 Pathname Resolution: dot-dot',
    run(dir) {
      mkdirSync(join(dir, 'x', 'y'), { recursive: true })
      writeFileSync(join(dir, 'x', 'f'), 'inside')
      symlinkSync('x/y', join(dir, 'l'))
      assert.equal(readFileSync(`${dir}/l/../f`, 'utf8'), 'inside')
      assert.equal(stat(`${dir}/l/..`).ino, stat(join(dir, 'x')).ino)
    },
  },
])
