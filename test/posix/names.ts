/** Names of files: any bytes, any length that is allowed, and paths up to theirs. */
import assert from 'node:assert/strict'
import { mkdirSync, readdirSync, readFileSync, renameSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fails, group, lstat, stat, touch } from './check.js'

function bytesOf(dir: string, name: Buffer): Buffer {
  return Buffer.concat([Buffer.from(`${dir}/`), name])
}

export const names = group('names', [
  {
    name: 'every byte but NUL and slash',
    cites: 'POSIX 3.170 Filename; path_resolution(7)',
    run(dir) {
      const all: string[] = []
      for (let byte = 1; byte < 256; byte++) {
        if (byte === 0x2f) continue
        const name = Buffer.from([0x61, byte, 0x7a])
        writeFileSync(bytesOf(dir, name), String(byte))
        all.push(name.toString('latin1'))
      }
      assert.deepEqual(readdirSync(dir, { encoding: 'latin1' }).sort(), all.sort())
      for (const name of all) assert.equal(readFileSync(bytesOf(dir, Buffer.from(name, 'latin1')), 'utf8'), String(name.charCodeAt(1)))
    },
  },
  {
    name: 'bytes that are no UTF-8, in a directory’s name too',
    cites: 'POSIX 3.170 Filename',
    run(dir) {
      const name = Buffer.from([0xff, 0xfe, 0xc3, 0x28, 0x80])
      mkdirSync(bytesOf(dir, name))
      writeFileSync(Buffer.concat([bytesOf(dir, name), Buffer.from('/'), name]), 'inside')
      assert.deepEqual(readdirSync(bytesOf(dir, name), { encoding: 'buffer' }), [name])
      renameSync(bytesOf(dir, name), join(dir, 'plain'))
      assert.equal(readFileSync(Buffer.concat([Buffer.from(`${dir}/plain/`), name]), 'utf8'), 'inside')
    },
  },
  {
    name: 'upper and lower case differ, composed and decomposed letters too',
    cites: 'POSIX 4.7 Filename Portability: names are bytes',
    run(dir) {
      const all = ['file', 'File', 'FILE', '\u00e9', 'e\u0301', '\u212b', '\u00c5']
      for (const name of all) writeFileSync(join(dir, name), name)
      for (const name of all) assert.equal(readFileSync(join(dir, name), 'utf8'), name)
      assert.equal(readdirSync(dir).length, all.length)
    },
  },
  {
    name: 'odd but allowed: dots, spaces, a newline, a backslash, a leading dash',
    cites: 'POSIX 3.170 Filename',
    run(dir) {
      const all = ['...', '..a', '. ', ' ', 'a\nb', '\\', '-rf', '*', '~', '%00', '.fuse_hidden0001', 'con', 'a:b']
      for (const name of all) touch(`${dir}/${name}`)
      assert.deepEqual(readdirSync(dir).sort(), [...all].sort())
      for (const name of all) unlinkSync(`${dir}/${name}`)
      assert.deepEqual(readdirSync(dir), [])
    },
  },
  {
    name: 'a name of 255 bytes for each kind of thing',
    cites: 'POSIX limits.h, NAME_MAX; pathname(7)',
    run(dir, sys) {
      const long = (letter: string): string => join(dir, letter.repeat(255))
      touch(long('f'))
      mkdirSync(long('d'))
      symlinkSync('x', long('l'))
      sys.mknod(long('p'), sys.S_IFIFO | 0o644)
      sys.linkat(sys.AT_FDCWD, long('f'), sys.AT_FDCWD, long('h'))
      renameSync(long('f'), long('g'))
      assert.deepEqual(readdirSync(dir).map(name => name[0]).sort(), ['d', 'g', 'h', 'l', 'p'])
      assert.equal(stat(long('g')).nlink, 2n)
    },
  },
  {
    name: 'one of 256 bytes is ENAMETOOLONG, whatever is done with it',
    cites: 'POSIX open(), mkdir(), rename() …, ENAMETOOLONG',
    run(dir, sys) {
      const long = join(dir, 'n'.repeat(256))
      touch(join(dir, 'f'))
      fails('ENAMETOOLONG', () => sys.open(long, sys.O_CREAT | sys.O_WRONLY))
      fails('ENAMETOOLONG', () => { lstat(long) })
      fails('ENAMETOOLONG', () => { mkdirSync(long) })
      fails('ENAMETOOLONG', () => { sys.rmdir(long) })
      fails('ENAMETOOLONG', () => { unlinkSync(long) })
      fails('ENAMETOOLONG', () => { symlinkSync('x', long) })
      fails('ENAMETOOLONG', () => { sys.mknod(long, sys.S_IFIFO | 0o644) })
      fails('ENAMETOOLONG', () => { renameSync(join(dir, 'f'), long) })
      fails('ENAMETOOLONG', () => { renameSync(long, join(dir, 'g')) })
      fails('ENAMETOOLONG', () => { sys.linkat(sys.AT_FDCWD, join(dir, 'f'), sys.AT_FDCWD, long) })
    },
  },
  {
    name: '255 bytes of four-byte letters',
    cites: 'limits.h, NAME_MAX counts bytes',
    run(dir) {
      const name = `${'\u{1F600}'.repeat(63)}abc`
      assert.equal(Buffer.byteLength(name), 255)
      touch(join(dir, name))
      assert.deepEqual(readdirSync(dir), [name])
      fails('ENAMETOOLONG', () => { touch(join(dir, `${name}d`)) })
    },
  },
  {
    name: 'a path of 4095 bytes is reached, one of 4096 is ENAMETOOLONG',
    cites: 'POSIX limits.h, PATH_MAX; path_resolution(7)',
    run(dir, sys) {
      touch(join(dir, 'f'))
      const fill = (length: number): string => `${dir}${'/'.repeat(length - dir.length - 1)}f`
      assert.equal(sys.statx(fill(4095), sys.STATX_BASIC_STATS).size, 0n)
      fails('ENAMETOOLONG', () => { sys.statx(fill(4096), sys.STATX_BASIC_STATS) })
    },
  },
  {
    name: 'a tree deeper than any path, by openat',
    cites: 'openat(2); POSIX 4.13',
    run(dir, sys) {
      const name = 'd'.repeat(200)
      const fds = [sys.open(dir, sys.O_RDONLY | sys.O_DIRECTORY)]
      for (let i = 0; i < 30; i++) {
        sys.mkdirat(fds.at(-1)!, name, 0o755)
        fds.push(sys.openat(fds.at(-1)!, name, sys.O_RDONLY | sys.O_DIRECTORY))
      }
      sys.close(sys.openat(fds.at(-1)!, 'leaf', sys.O_CREAT | sys.O_WRONLY, 0o644))
      sys.unlinkat(fds.at(-1)!, 'leaf')
      for (let i = 29; i >= 0; i--) {
        sys.close(fds.pop()!)
        sys.unlinkat(fds.at(-1)!, name, sys.AT_REMOVEDIR)
      }
      sys.close(fds.pop()!)
      assert.deepEqual(readdirSync(dir), [])
    },
  },
  {
    name: 'many slashes are one, a trailing one wants a directory',
    cites: 'POSIX 4.13 Pathname Resolution',
    run(dir, sys) {
      mkdirSync(join(dir, 'd'))
      writeFileSync(join(dir, 'd', 'f'), 'abc')
      assert.equal(stat(`${dir}//d////f`).size, 3n)
      assert.ok(stat(`${dir}/d///`).isDirectory())
      fails('ENOTDIR', () => { stat(`${dir}/d/f/`) })
      fails(['EISDIR', 'ENOENT', 'ENOTDIR'], () => sys.open(`${dir}/new/`, sys.O_CREAT | sys.O_WRONLY))
    },
  },
  {
    name: 'a name that was not there is found as soon as it is made',
    cites: 'POSIX open(), ENOENT: no negative answer outlives the making of the name',
    run(dir) {
      for (let i = 0; i < 20; i++) {
        fails('ENOENT', () => { lstat(join(dir, `f${i}`)) })
        touch(join(dir, `f${i}`))
        assert.equal(lstat(join(dir, `f${i}`)).size, 0n)
        unlinkSync(join(dir, `f${i}`))
        fails('ENOENT', () => { lstat(join(dir, `f${i}`)) })
      }
    },
  },
  {
    name: 'one name as file, directory and link in turn',
    cites: 'POSIX stat(): what is there now',
    run(dir, sys) {
      const path = join(dir, 'x')
      for (let i = 0; i < 10; i++) {
        touch(path)
        assert.ok(lstat(path).isFile())
        unlinkSync(path)
        mkdirSync(path)
        assert.ok(lstat(path).isDirectory())
        sys.rmdir(path)
        symlinkSync('y', path)
        assert.ok(lstat(path).isSymbolicLink())
        unlinkSync(path)
      }
    },
  },
])
