/** statfs(2) and statx(2). */
import assert from 'node:assert/strict'
import { mkdirSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fails, group, lstat, stat, tick, touch } from './check.js'

export const fileSystemStatistics = group('statfs', [
  {
    name: 'there are blocks, and no more are free than there are',
    cites: 'statfs(2); POSIX fstatvfs()',
    run(dir, sys) {
      const { bsize, frsize, blocks, bfree, bavail } = sys.statfs(dir)
      assert.ok(bsize > 0n && frsize > 0n && blocks > 0n)
      assert.ok(bfree <= blocks && bavail <= bfree)
    },
  },
  {
    name: 'there are no more free inodes than inodes',
    cites: 'statfs(2), f_files, f_ffree',
    run(dir, sys) {
      const { files, ffree } = sys.statfs(dir)
      assert.ok(ffree <= files)
    },
  },
  {
    name: 'names may have 255 bytes',
    cites: 'statfs(2), f_namelen; POSIX pathconf(), _PC_NAME_MAX',
    run(dir, sys) {
      assert.equal(sys.statfs(dir).namelen, 255n)
      assert.equal(sys.nameMax(dir), 255)
    },
  },
  {
    name: 'every file and directory says the same',
    cites: 'statfs(2): "any file within the mounted filesystem"',
    run(dir, sys) {
      mkdirSync(join(dir, 'd'))
      touch(join(dir, 'd', 'f'))
      const of = (path: string): bigint[] => {
        const { type, bsize, blocks, namelen } = sys.statfs(path)
        return [type, bsize, blocks, namelen]
      }
      assert.deepEqual(of(join(dir, 'd', 'f')), of(dir))
    },
  },
  {
    name: 'what is not there is ENOENT',
    cites: 'statfs(2), ENOENT',
    run(dir, sys) {
      fails('ENOENT', () => { sys.statfs(join(dir, 'none')) })
    },
  },
  {
    name: 'space that is allocated is no longer free',
    cites: 'statfs(2), f_bfree; fallocate(2)',
    needs: ['fallocate'],
    run(dir, sys) {
      // others use the file system meanwhile: large enough to be seen, tried more than once
      const grows = (): boolean => sys.withFd(sys.open(join(dir, 'f'), sys.O_CREAT | sys.O_RDWR | sys.O_TRUNC), fd => {
        const before = sys.statfs(dir)
        sys.fallocate(fd, 0, 0, 64 << 20)
        return (before.bfree - sys.statfs(dir).bfree) * before.frsize >= BigInt(32 << 20)
      })
      assert.ok(grows() || grows() || grows())
    },
  },
])

export const fileStatistics = group('statx', [
  {
    name: 'says what stat says',
    cites: 'statx(2); stat(2)',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'abc', { mode: 0o640 })
      const x = sys.statx(join(dir, 'f'), sys.STATX_BASIC_STATS)
      const s = stat(join(dir, 'f'))
      assert.deepEqual([x.ino, x.size, x.blocks, BigInt(x.nlink), BigInt(x.uid), BigInt(x.gid), BigInt(x.mode), x.mtimeNs, x.ctimeNs, BigInt(x.blksize)],
        [s.ino, s.size, s.blocks, s.nlink, s.uid, s.gid, s.mode, s.mtimeNs, s.ctimeNs, s.blksize])
      assert.equal(x.mask & sys.STATX_BASIC_STATS, sys.STATX_BASIC_STATS)
    },
  },
  {
    name: 'AT_EMPTY_PATH is the descriptor itself',
    cites: 'statx(2), AT_EMPTY_PATH',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'abc')
      sys.withFd(sys.open(join(dir, 'f'), sys.O_RDONLY), fd => {
        assert.equal(sys.statx('', sys.STATX_BASIC_STATS, sys.AT_EMPTY_PATH, fd).ino, stat(join(dir, 'f')).ino)
        fails('ENOENT', () => { sys.statx('', sys.STATX_BASIC_STATS, 0, fd) })
      })
    },
  },
  {
    name: 'follows a symbolic link unless told not to',
    cites: 'statx(2), AT_SYMLINK_NOFOLLOW',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'abc')
      symlinkSync('f', join(dir, 'l'))
      assert.equal(sys.statx(join(dir, 'l'), sys.STATX_BASIC_STATS, 0).size, 3n)
      assert.equal(sys.statx(join(dir, 'l'), sys.STATX_BASIC_STATS, sys.AT_SYMLINK_NOFOLLOW).size, 1n)
    },
  },
  {
    name: 'a time of birth that no change moves',
    cites: 'statx(2), stx_btime; fs/fuse/dir.c fuse_do_statx',
    needs: ['btime'],
    run(dir, sys) {
      const path = join(dir, 'f')
      writeFileSync(path, 'abc')
      const before = sys.statx(path, sys.STATX_BASIC_STATS | sys.STATX_BTIME)
      assert.ok(before.mask & sys.STATX_BTIME)
      assert.ok(before.btimeNs > 0n && before.btimeNs <= before.ctimeNs)
      tick()
      writeFileSync(path, 'more')
      sys.utimens(path, { sec: 5, nsec: 0 }, { sec: 6, nsec: 0 })
      const after = sys.statx(path, sys.STATX_BASIC_STATS | sys.STATX_BTIME)
      assert.equal(after.btimeNs, before.btimeNs)
      assert.equal(after.mtimeNs, 6_000_000_000n)
    },
  },
  {
    name: 'blocks count 512 bytes, and what was written is there',
    cites: 'stat(2), st_blocks',
    run(dir, sys) {
      sys.withFd(sys.open(join(dir, 'f'), sys.O_CREAT | sys.O_RDWR), fd => {
        sys.write(fd, Buffer.alloc(100_000, 1))
        sys.fsync(fd)
      })
      const { blocks } = stat(join(dir, 'f'))
      assert.ok(blocks >= 195n && blocks < 1000n, `${blocks} blocks`)
    },
  },
  {
    name: 'one device for all, an inode number for each',
    cites: 'POSIX sys/stat.h: st_ino and st_dev "taken together, uniquely identify the file"',
    run(dir) {
      mkdirSync(join(dir, 'd'))
      for (let i = 0; i < 30; i++) touch(join(dir, i % 2 ? 'd' : '.', `f${i}`))
      const all = Array.from({ length: 30 }, (_, i) => lstat(join(dir, i % 2 ? 'd' : '.', `f${i}`)))
      assert.deepEqual(new Set(all.map(one => one.dev)), new Set([stat(dir).dev]))
      assert.equal(new Set(all.map(one => one.ino)).size, 30)
    },
  },
  {
    name: 'the inode number stays, whatever is done to the file',
    cites: 'POSIX sys/stat.h, st_ino',
    run(dir, sys) {
      const path = join(dir, 'f')
      touch(path)
      const { ino } = stat(path)
      writeFileSync(path, 'abc')
      sys.chmodat(path, 0o600)
      sys.truncate(path, 1)
      sys.utimensNow(path)
      assert.equal(stat(path).ino, ino)
    },
  },
  {
    name: 'a change by one name is seen by fstat at once, and by stat',
    cites: 'POSIX fstat(), stat()',
    run(dir, sys) {
      const path = join(dir, 'f')
      touch(path)
      sys.withFd(sys.open(path, sys.O_RDWR), fd => {
        for (let size = 1; size <= 20; size++) {
          sys.pwrite(fd, 'x', size - 1)
          assert.equal(stat(path).size, BigInt(size))
          assert.equal(sys.statx('', sys.STATX_BASIC_STATS, sys.AT_EMPTY_PATH, fd).size, BigInt(size))
        }
      })
    },
  },
  {
    name: 'the preferred block size is a power of two',
    cites: 'stat(2), st_blksize',
    run(dir) {
      touch(join(dir, 'f'))
      const { blksize } = statSync(join(dir, 'f'))
      assert.ok(blksize >= 512 && (blksize & (blksize - 1)) === 0, `${blksize}`)
    },
  },
])
