/** mknod(2): FIFOs, sockets, devices; and programs. */
import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, copyFileSync, unlinkSync, writeFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { join } from 'node:path'
import { fails, group, hasMode, lstat, marks, stat, touch } from './check.js'

export const specialFiles = group('special-files', [
  {
    name: 'mknod makes a regular file, empty, with its mode',
    cites: 'mknod(2), S_IFREG',
    run(dir, sys) {
      sys.mknod(join(dir, 'f'), sys.S_IFREG | 0o640)
      assert.ok(stat(join(dir, 'f')).isFile())
      assert.equal(stat(join(dir, 'f')).size, 0n)
      hasMode(join(dir, 'f'), 0o640)
    },
  },
  {
    name: 'a mode without a type is a regular file',
    cites: 'mknod(2): "zero file type is equivalent to type S_IFREG"',
    run(dir, sys) {
      sys.mknod(join(dir, 'f'), 0o600)
      assert.ok(stat(join(dir, 'f')).isFile())
    },
  },
  {
    name: 'a FIFO is one, and has no size',
    cites: 'POSIX mkfifo()',
    run(dir, sys) {
      sys.mknod(join(dir, 'fifo'), sys.S_IFIFO | 0o644)
      assert.ok(stat(join(dir, 'fifo')).isFIFO())
      assert.equal(stat(join(dir, 'fifo')).size, 0n)
      hasMode(join(dir, 'fifo'), 0o644)
    },
  },
  {
    name: 'a FIFO carries bytes from its writer to its reader',
    cites: 'fifo(7)',
    run(dir, sys) {
      sys.mknod(join(dir, 'fifo'), sys.S_IFIFO | 0o644)
      sys.withFd(sys.open(join(dir, 'fifo'), sys.O_RDONLY | sys.O_NONBLOCK), reader => {
        sys.withFd(sys.open(join(dir, 'fifo'), sys.O_WRONLY | sys.O_NONBLOCK), writer => {
          sys.write(writer, 'through')
          assert.equal(sys.read(reader, 100).toString(), 'through')
        })
        assert.equal(sys.read(reader, 100).length, 0)
      })
    },
  },
  {
    name: 'a FIFO without a reader is ENXIO for a writer that does not wait',
    cites: 'POSIX open(), ENXIO',
    run(dir, sys) {
      sys.mknod(join(dir, 'fifo'), sys.S_IFIFO | 0o644)
      fails('ENXIO', () => sys.open(join(dir, 'fifo'), sys.O_WRONLY | sys.O_NONBLOCK))
    },
  },
  {
    name: 'lseek on a FIFO is ESPIPE',
    cites: 'POSIX lseek(), ESPIPE',
    run(dir, sys) {
      sys.mknod(join(dir, 'fifo'), sys.S_IFIFO | 0o644)
      sys.withFd(sys.open(join(dir, 'fifo'), sys.O_RDONLY | sys.O_NONBLOCK), fd => { fails('ESPIPE', () => { sys.lseek(fd, 0, sys.SEEK_SET) }) })
    },
  },
  {
    name: 'two names of one FIFO are one pipe',
    cites: 'fifo(7); POSIX link()',
    run(dir, sys) {
      sys.mknod(join(dir, 'one'), sys.S_IFIFO | 0o644)
      sys.linkat(sys.AT_FDCWD, join(dir, 'one'), sys.AT_FDCWD, join(dir, 'two'))
      sys.withFd(sys.open(join(dir, 'one'), sys.O_RDONLY | sys.O_NONBLOCK), reader => sys.withFd(sys.open(join(dir, 'two'), sys.O_WRONLY | sys.O_NONBLOCK), writer => {
        sys.write(writer, 'x')
        assert.equal(sys.read(reader, 9).toString(), 'x')
      }))
    },
  },
  {
    name: 'an existing name is EEXIST, also a dangling link',
    cites: 'POSIX mknod(), EEXIST',
    run(dir, sys) {
      touch(join(dir, 'f'))
      sys.symlinkat('none', sys.AT_FDCWD, join(dir, 'l'))
      for (const name of ['f', 'l']) fails('EEXIST', () => { sys.mknod(join(dir, name), sys.S_IFIFO | 0o644) })
    },
  },
  {
    name: 'a directory cannot be made with mknod',
    cites: 'mknod(2), EPERM; fs/namei.c may_mknod',
    run(dir, sys) {
      fails('EPERM', () => { sys.mknod(join(dir, 'd'), 0o040755) })
      fails('EINVAL', () => { sys.mknod(join(dir, 'l'), 0o120777) })
    },
  },
  {
    name: 'mknod marks mtime and ctime of its directory',
    cites: 'POSIX mknod()',
    run(dir, sys) {
      marks(dir, ['mtime', 'ctime'], () => { sys.mknod(join(dir, 'fifo'), sys.S_IFIFO | 0o644) })
    },
  },
  {
    name: 'a socket made by mknod is one, and cannot be opened',
    cites: 'mknod(2), S_IFSOCK; open(2), ENXIO',
    run(dir, sys) {
      sys.mknod(join(dir, 's'), sys.S_IFSOCK | 0o644)
      assert.ok(stat(join(dir, 's')).isSocket())
      fails('ENXIO', () => sys.open(join(dir, 's'), sys.O_RDONLY))
    },
  },
  {
    name: 'a bound socket is found by who connects',
    cites: 'unix(7), pathname sockets',
    async run(dir) {
      const server = createServer(socket => socket.end('hello')).listen(join(dir, 's'))
      await once(server, 'listening')
      assert.ok(stat(join(dir, 's')).isSocket())
      const client = connect(join(dir, 's'))
      const [chunk] = await once(client, 'data') as [Buffer]
      assert.equal(chunk.toString(), 'hello')
      client.destroy()
      server.close()
      await once(server, 'close')
    },
  },
  {
    name: 'binding to an existing name is EADDRINUSE',
    cites: 'bind(2), EADDRINUSE',
    async run(dir) {
      touch(join(dir, 's'))
      const server = createServer().listen(join(dir, 's'))
      const [error] = await once(server, 'error') as [NodeJS.ErrnoException]
      assert.equal(error.code, 'EADDRINUSE')
    },
  },
  {
    name: 'device numbers are kept',
    cites: 'mknod(2), dev; makedev(3)',
    needs: ['root'],
    run(dir, sys) {
      sys.mknod(join(dir, 'c'), sys.S_IFCHR | 0o600, 0x103)
      sys.mknod(join(dir, 'b'), sys.S_IFBLK | 0o600, 0x7_02)
      assert.deepEqual([lstat(join(dir, 'c')).rdev, lstat(join(dir, 'b')).rdev], [0x103n, 0x702n])
      assert.ok(lstat(join(dir, 'c')).isCharacterDevice() && lstat(join(dir, 'b')).isBlockDevice())
    },
  },
  {
    name: 'large device numbers are kept',
    cites: 'makedev(3); fs/fuse/dir.c new_encode_dev',
    needs: ['root'],
    run(dir, sys) {
      // minor 0x45678 of major 0x123
      sys.mknod(join(dir, 'c'), sys.S_IFCHR | 0o600, 0x45612378)
      assert.equal(lstat(join(dir, 'c')).rdev, 0x45612378n)
    },
  },
  {
    name: 'a device that is made works',
    cites: 'null(4)',
    needs: ['root', 'device_nodes'],
    run(dir, sys) {
      sys.mknod(join(dir, 'null'), sys.S_IFCHR | 0o666, 0x103)
      sys.withFd(sys.open(join(dir, 'null'), sys.O_RDWR), fd => {
        assert.equal(sys.write(fd, 'gone'), 4)
        assert.equal(sys.read(fd, 4).length, 0)
      })
    },
  },
  {
    name: 'only root makes devices; everyone FIFOs',
    cites: 'mknod(2), EPERM',
    needs: ['root'],
    run(dir, sys) {
      sys.as(sys.alice, () => {
        fails('EPERM', () => { sys.mknod(join(dir, 'c'), sys.S_IFCHR | 0o600, 0x103) })
        sys.mknod(join(dir, 'fifo'), sys.S_IFIFO | 0o600)
      })
      assert.equal(stat(join(dir, 'fifo')).uid, BigInt(sys.alice.uid))
    },
  },
  {
    name: 'a script and a binary can be run',
    cites: 'execve(2)',
    needs: ['exec'],
    run(dir) {
      writeFileSync(join(dir, 'script'), '#!/bin/sh\necho "ran $1"\n', { mode: 0o755 })
      assert.equal(execFileSync(join(dir, 'script'), ['it']).toString(), 'ran it\n')
      copyFileSync('/bin/true', join(dir, 'true'))
      chmodSync(join(dir, 'true'), 0o755)
      assert.equal(execFileSync(join(dir, 'true')).length, 0)
    },
  },
  {
    name: 'without an x bit nothing can be run, not even by root',
    cites: 'execve(2), EACCES; access(2), X_OK',
    needs: ['exec'],
    run(dir, sys) {
      writeFileSync(join(dir, 'script'), '#!/bin/sh\n', { mode: 0o644 })
      fails('EACCES', () => execFileSync(join(dir, 'script')).length)
      fails('EACCES', () => { sys.access(join(dir, 'script'), 1) })
    },
  },
  {
    name: 'a running program cannot be written, and can be removed',
    cites: 'open(2), ETXTBSY',
    needs: ['exec'],
    async run(dir, sys) {
      copyFileSync('/bin/sleep', join(dir, 'sleep'))
      chmodSync(join(dir, 'sleep'), 0o755)
      const child = spawn(join(dir, 'sleep'), ['30'], { stdio: 'ignore' })
      const ended = once(child, 'exit')
      await once(child, 'spawn')
      try {
        fails('ETXTBSY', () => sys.open(join(dir, 'sleep'), sys.O_WRONLY))
        unlinkSync(join(dir, 'sleep'))
      } finally {
        child.kill()
        await ended
      }
    },
  },
])
