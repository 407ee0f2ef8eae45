/** Many files, many at once, and what is promised to be on disk. */
import assert from 'node:assert/strict'
import { closeSync, mkdirSync, openSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { appendFile, mkdir, open, readFile, readdir, rename, rm, stat as statLater, unlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fails, group, stat, touch } from './check.js'

function count(length: number): number[] {
  return Array.from({ length }, (_, i) => i)
}

export const manyFiles = group('many-files', [
  {
    name: 'a thousand in one directory: each found, listed, removed',
    cites: 'POSIX readdir(), unlink()',
    run(dir) {
      for (const i of count(1000)) touch(join(dir, `file${i}`))
      assert.equal(readdirSync(dir).length, 1000)
      for (const i of [0, 500, 999]) assert.ok(stat(join(dir, `file${i}`)).isFile())
      rmSync(dir, { recursive: true })
      mkdirSync(dir)
      assert.deepEqual(readdirSync(dir), [])
    },
  },
  {
    name: 'two hundred open at once, each with its own contents',
    cites: 'POSIX open(), OPEN_MAX',
    run(dir, sys) {
      const fds = count(200).map(i => sys.open(join(dir, `f${i}`), sys.O_CREAT | sys.O_RDWR))
      fds.forEach((fd, i) => { sys.write(fd, `contents of ${i}`) })
      fds.forEach((fd, i) => { assert.equal(sys.pread(fd, 99, 0).toString(), `contents of ${i}`) })
      for (const fd of fds) sys.close(fd)
    },
  },
  {
    name: 'one file opened two hundred times',
    cites: 'POSIX open()',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), '0'.repeat(200))
      const fds = count(200).map(() => sys.open(join(dir, 'f'), sys.O_RDWR))
      fds.forEach((fd, i) => { sys.pwrite(fd, 'x', i) })
      assert.equal(sys.pread(fds[0]!, 999, 0).toString(), 'x'.repeat(200))
      for (const fd of fds) sys.close(fd)
    },
  },
  {
    name: 'a tree of 300 is listed in full and removed',
    cites: 'POSIX nftw(); rm(1)',
    run(dir) {
      for (const i of count(10)) {
        mkdirSync(join(dir, `d${i}`))
        for (const j of count(5)) {
          mkdirSync(join(dir, `d${i}`, `e${j}`))
          for (const k of count(5)) writeFileSync(join(dir, `d${i}`, `e${j}`, `f${k}`), `${i}${j}${k}`)
        }
      }
      assert.equal(readdirSync(dir, { recursive: true }).length, 10 + 50 + 250)
      rmSync(join(dir, 'd3'), { recursive: true })
      assert.equal(readdirSync(dir, { recursive: true }).length, 9 + 45 + 225)
      assert.equal(readFileSync(join(dir, 'd9', 'e4', 'f2'), 'utf8'), '942')
    },
  },
  {
    name: 'names made and removed in turn, a thousand times',
    cites: 'POSIX open(), rename(), unlink()',
    run(dir, sys) {
      for (const i of count(500)) {
        touch(join(dir, 'a'))
        renameSync(join(dir, 'a'), join(dir, `b${i % 3}`))
      }
      assert.deepEqual(readdirSync(dir).sort(), ['b0', 'b1', 'b2'])
      fails('ENOENT', () => sys.open(join(dir, 'a'), sys.O_RDONLY))
    },
  },
])

export const concurrency = group('concurrency', [
  {
    name: 'of many who make one name with O_EXCL one succeeds',
    cites: 'POSIX open(), O_EXCL: "The check for the existence of the file and the creation of the file … shall be atomic"',
    async run(dir) {
      for (const round of count(10)) {
        const results = await Promise.allSettled(count(8).map(() => open(join(dir, `f${round}`), 'wx')))
        const made = results.filter(result => result.status === 'fulfilled')
        assert.equal(made.length, 1)
        for (const result of results) if (result.status === 'rejected') assert.equal((result.reason as NodeJS.ErrnoException).code, 'EEXIST')
        await made[0]!.value.close()
      }
    },
  },
  {
    name: 'of many who make or remove one directory one succeeds',
    cites: 'POSIX mkdir(), EEXIST; rmdir(), ENOENT',
    async run(dir, sys) {
      for (const round of count(10)) {
        const made = await Promise.allSettled(count(8).map(() => mkdir(join(dir, `d${round}`))))
        assert.equal(made.filter(result => result.status === 'fulfilled').length, 1)
      }
      assert.equal(readdirSync(dir).length, 10)
      for (const round of count(10)) sys.rmdir(join(dir, `d${round}`))
    },
  },
  {
    name: 'of many who rename one file one succeeds, and it is there once',
    cites: 'POSIX rename()',
    async run(dir) {
      for (const round of count(10)) {
        writeFileSync(join(dir, 'source'), String(round))
        const results = await Promise.allSettled(count(6).map(i => rename(join(dir, 'source'), join(dir, `to${i}`))))
        assert.equal(results.filter(result => result.status === 'fulfilled').length, 1)
        const [name, ...more] = readdirSync(dir)
        assert.deepEqual(more, [])
        assert.equal(readFileSync(join(dir, name!), 'utf8'), String(round))
        rmSync(join(dir, name!))
      }
    },
  },
  {
    name: 'while a file is replaced again and again, its readers see one of its versions',
    cites: 'POSIX rename(): a link of that name "shall remain visible to other processes throughout the renaming operation"',
    async run(dir) {
      const versions = [Buffer.alloc(20_000, 'a'), Buffer.alloc(30_000, 'b')]
      writeFileSync(join(dir, 'f'), versions[0]!)
      let going = true
      const replace = (async () => {
        for (const i of count(50)) {
          await writeFile(join(dir, 'new'), versions[i % 2]!)
          await rename(join(dir, 'new'), join(dir, 'f'))
        }
        going = false
      })()
      const readers = count(2).map(async () => {
        while (going) {
          const bytes = await readFile(join(dir, 'f'))
          assert.ok(versions.some(version => version.equals(bytes)), `${bytes.length} bytes`)
        }
      })
      await Promise.all([replace, ...readers])
    },
  },
  {
    name: 'many who append to one file: nothing lost, no line torn',
    cites: 'open(2), O_APPEND; POSIX write()',
    async run(dir) {
      writeFileSync(join(dir, 'log'), '')
      await Promise.all(count(4).map(async who => {
        for (const i of count(50)) await appendFile(join(dir, 'log'), `${who}:${i}\n`)
      }))
      const lines = readFileSync(join(dir, 'log'), 'utf8').trim().split('\n')
      assert.equal(lines.length, 200)
      for (const who of count(4)) assert.deepEqual(lines.filter(line => line.startsWith(`${who}:`)), count(50).map(i => `${who}:${i}`))
    },
  },
  {
    name: 'writers of parts of one file do not disturb each other',
    cites: 'POSIX write(), 2.9.7 Thread Interactions with Regular File Operations',
    async run(dir) {
      const part = 50_000
      const handle = await open(join(dir, 'f'), 'w+')
      await Promise.all(count(16).map(i => handle.write(Buffer.alloc(part, 65 + i), 0, part, i * part)))
      const bytes = await handle.readFile()
      await handle.close()
      assert.equal(bytes.length, 16 * part)
      for (const i of count(16)) assert.ok(bytes.subarray(i * part, (i + 1) * part).every(byte => byte === 65 + i), `part ${i}`)
    },
  },
  {
    name: 'a tree made by many at once is whole',
    cites: 'POSIX mkdir(), open(), readdir()',
    async run(dir) {
      await Promise.all(count(8).map(async i => {
        await mkdir(join(dir, `d${i}`))
        for (const j of count(20)) await writeFile(join(dir, `d${i}`, `f${j}`), `${i}/${j}`)
      }))
      for (const i of count(8)) {
        assert.equal((await readdir(join(dir, `d${i}`))).length, 20)
        assert.equal(await readFile(join(dir, `d${i}`, 'f19'), 'utf8'), `${i}/19`)
      }
      await Promise.all(count(8).map(i => rm(join(dir, `d${i}`), { recursive: true })))
      assert.deepEqual(readdirSync(dir), [])
    },
  },
  {
    name: 'stat while others write sees sizes that only grow',
    cites: 'POSIX stat(), write()',
    async run(dir) {
      const handle = await open(join(dir, 'f'), 'w')
      let going = true
      const watch = (async () => {
        let last = 0
        while (going) {
          const { size } = await statLater(join(dir, 'f'))
          assert.ok(size >= last, `${size} after ${last}`)
          last = size
        }
      })()
      for (const i of count(200)) await handle.write('x'.repeat(100), i * 100)
      going = false
      await watch
      await handle.close()
      assert.equal(stat(join(dir, 'f')).size, 20_000n)
    },
  },
  {
    name: 'made and removed by two at once: either is there or is not',
    cites: 'POSIX open(), unlink()',
    async run(dir) {
      const path = join(dir, 'f')
      const tolerate = (error: NodeJS.ErrnoException): void => { assert.equal(error.code, 'ENOENT') }
      await Promise.all([
        (async () => { for (const i of count(100)) await writeFile(path, String(i)) })(),
        (async () => { for (const _ of count(100)) await unlink(path).catch(tolerate) })(),
      ])
      assert.ok(readdirSync(dir).length <= 1)
    },
  },
  {
    name: 'renames across two directories in both directions never lose a file',
    cites: 'POSIX rename(); Documentation/filesystems/directory-locking.rst',
    async run(dir) {
      for (const side of ['a', 'b']) {
        mkdirSync(join(dir, side))
        for (const i of count(10)) writeFileSync(join(dir, side, `${side}${i}`), side)
      }
      const move = async (from: string, to: string): Promise<void> => {
        for (const i of count(10)) await rename(join(dir, from, `${from}${i}`), join(dir, to, `${from}${i}`))
      }
      await Promise.all([move('a', 'b'), move('b', 'a')])
      assert.deepEqual(readdirSync(join(dir, 'a')).sort(), count(10).map(i => `b${i}`))
      assert.deepEqual(readdirSync(join(dir, 'b')).sort(), count(10).map(i => `a${i}`))
    },
  },
])

export const syncing = group('sync', [
  {
    name: 'fsync and fdatasync of a file that was written, and of one opened read-only',
    cites: 'POSIX fsync(), fdatasync()',
    run(dir, sys) {
      sys.withFd(sys.open(join(dir, 'f'), sys.O_CREAT | sys.O_RDWR), fd => {
        sys.write(fd, 'x'.repeat(100_000))
        sys.fdatasync(fd)
        sys.write(fd, 'y')
        sys.fsync(fd)
      })
      sys.withFd(sys.open(join(dir, 'f'), sys.O_RDONLY), fd => {
        sys.fsync(fd)
        sys.fdatasync(fd)
      })
      assert.equal(stat(join(dir, 'f')).size, 100_001n)
    },
  },
  {
    name: 'fsync of a directory makes its entries durable',
    cites: 'fsync(2): "an explicit fsync() on a file descriptor for the directory is also needed"',
    run(dir, sys) {
      touch(join(dir, 'f'))
      sys.withFd(sys.open(dir, sys.O_RDONLY | sys.O_DIRECTORY), fd => {
        sys.fsync(fd)
        sys.fdatasync(fd)
      })
    },
  },
  {
    name: 'fsync of an unlinked file',
    cites: 'POSIX fsync(), unlink()',
    run(dir, sys) {
      sys.withFd(sys.open(join(dir, 'f'), sys.O_CREAT | sys.O_RDWR), fd => {
        sys.write(fd, 'x')
        rmSync(join(dir, 'f'))
        sys.fsync(fd)
        assert.equal(sys.pread(fd, 9, 0).toString(), 'x')
      })
    },
  },
  {
    name: 'fsync of a FIFO is EINVAL, of no descriptor EBADF',
    cites: 'POSIX fsync(), EINVAL, EBADF',
    run(dir, sys) {
      sys.mknod(join(dir, 'p'), sys.S_IFIFO | 0o644)
      sys.withFd(sys.open(join(dir, 'p'), sys.O_RDWR), fd => { fails('EINVAL', () => { sys.fsync(fd) }) })
      fails('EBADF', () => { sys.fsync(-1) })
    },
  },
  {
    name: 'syncfs and sync_file_range',
    cites: 'syncfs(2); sync_file_range(2)',
    run(dir, sys) {
      const fd = openSync(join(dir, 'f'), 'w+')
      sys.write(fd, 'x'.repeat(50_000))
      sys.syncFileRange(fd, 0, 50_000)
      sys.syncfs(fd)
      assert.equal(sys.pread(fd, 60_000, 0).length, 50_000)
      closeSync(fd)
    },
  },
  {
    name: 'O_SYNC, O_DSYNC and RWF_DSYNC write all the same',
    cites: 'open(2), O_SYNC, O_DSYNC; pwritev2(2), RWF_DSYNC, RWF_SYNC',
    run(dir, sys) {
      for (const flag of [sys.O_SYNC, sys.O_DSYNC]) {
        sys.withFd(sys.open(join(dir, `f${flag}`), sys.O_CREAT | sys.O_WRONLY | flag), fd => { assert.equal(sys.write(fd, 'synced'), 6) })
        assert.equal(readFileSync(join(dir, `f${flag}`), 'utf8'), 'synced')
      }
      sys.withFd(sys.open(join(dir, 'g'), sys.O_CREAT | sys.O_WRONLY), fd => {
        sys.pwritev2(fd, ['abc'], 0, sys.RWF_DSYNC)
        sys.pwritev2(fd, ['def'], 3, sys.RWF_SYNC)
      })
      assert.equal(readFileSync(join(dir, 'g'), 'utf8'), 'abcdef')
    },
  },
  {
    name: 'readahead and advice change nothing that is read',
    cites: 'posix_fadvise(2); readahead(2)',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'x'.repeat(300_000))
      sys.withFd(sys.open(join(dir, 'f'), sys.O_RDWR), fd => {
        sys.readahead(fd, 0, 300_000)
        sys.pwrite(fd, 'y', 100_000)
        sys.fadvise(fd, 0, 0, sys.FADV_WILLNEED)
        sys.fsync(fd)
        sys.fadvise(fd, 0, 0, sys.FADV_DONTNEED)
        assert.equal(sys.pread(fd, 3, 99_999).toString(), 'xyx')
      })
    },
  },
])
