/** chmod(2), chown(2) and their kin. */
import assert from 'node:assert/strict'
import { chmodSync, fchmodSync, fchownSync, mkdirSync, openSync, closeSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fails, group, hasMode, lstat, marks, stat, touch } from './check.js'

export const chmodChown = group('chmod-chown', [
  {
    name: 'every one of the 12 bits is kept, on a file and on a directory',
    cites: 'POSIX chmod(): S_ISUID, S_ISGID, S_ISVTX and the file permission bits',
    run(dir) {
      touch(join(dir, 'f'))
      mkdirSync(join(dir, 'd'))
      for (const name of ['f', 'd']) {
        for (let bit = 0; bit < 12; bit++) {
          chmodSync(join(dir, name), 1 << bit | 0o400)
          hasMode(join(dir, name), 1 << bit | 0o400)
        }
      }
    },
  },
  {
    name: 'chmod marks ctime and leaves mtime',
    cites: 'POSIX chmod(): "shall mark for update the last file status change timestamp"',
    run(dir) {
      touch(join(dir, 'f'))
      marks(join(dir, 'f'), ['ctime'], () => { chmodSync(join(dir, 'f'), 0o600) }, ['mtime', 'atime'])
    },
  },
  {
    name: 'fchmod changes an open file, also one opened read-only',
    cites: 'POSIX fchmod()',
    run(dir) {
      touch(join(dir, 'f'))
      const fd = openSync(join(dir, 'f'), 'r')
      fchmodSync(fd, 0o604)
      closeSync(fd)
      hasMode(join(dir, 'f'), 0o604)
    },
  },
  {
    name: 'chmod follows a symbolic link',
    cites: 'POSIX chmod(); path_resolution(7)',
    run(dir) {
      touch(join(dir, 'f'))
      symlinkSync('f', join(dir, 'link'))
      chmodSync(join(dir, 'link'), 0o611)
      hasMode(join(dir, 'f'), 0o611)
      assert.equal(Number(lstat(join(dir, 'link')).mode) & 0o777, 0o777)
    },
  },
  {
    name: 'chmod of a FIFO',
    cites: 'chmod(2)',
    run(dir, sys) {
      sys.mknod(join(dir, 'fifo'), sys.S_IFIFO | 0o644)
      chmodSync(join(dir, 'fifo'), 0o622)
      hasMode(join(dir, 'fifo'), 0o622)
    },
  },
  {
    name: 'chmod of what is not there is ENOENT, under a file ENOTDIR',
    cites: 'POSIX chmod(), ENOENT, ENOTDIR',
    run(dir) {
      touch(join(dir, 'f'))
      fails('ENOENT', () => { chmodSync(join(dir, 'none'), 0o600) })
      fails('ENOTDIR', () => { chmodSync(join(dir, 'f', 'g'), 0o600) })
    },
  },
  {
    name: 'only the owner may chmod',
    cites: 'POSIX chmod(), EPERM',
    needs: ['root'],
    run(dir, sys) {
      touch(join(dir, 'f'), 0o666)
      sys.chown(join(dir, 'f'), sys.alice.uid, sys.alice.gid)
      sys.as(sys.bob, () => { fails('EPERM', () => { chmodSync(join(dir, 'f'), 0o777) }) })
      sys.as(sys.alice, () => { chmodSync(join(dir, 'f'), 0o600) })
      hasMode(join(dir, 'f'), 0o600)
    },
  },
  {
    name: 'S_ISGID is dropped when the owner is not in the group of the file',
    cites: 'POSIX chmod(): "the set-group-ID bit … shall be cleared"',
    needs: ['root'],
    run(dir, sys) {
      touch(join(dir, 'f'))
      sys.chown(join(dir, 'f'), sys.alice.uid, sys.STAFF)
      sys.as(sys.alice, () => { chmodSync(join(dir, 'f'), 0o2755) })
      hasMode(join(dir, 'f'), 0o755)
      sys.as({ ...sys.alice, groups: [sys.STAFF] }, () => { chmodSync(join(dir, 'f'), 0o2755) })
      hasMode(join(dir, 'f'), 0o2755)
    },
  },
  {
    name: 'chown sets user and group, −1 leaves one',
    cites: 'POSIX chown(): "If owner or group is specified as (uid_t)-1 or (gid_t)-1 … the corresponding ID … shall not be changed"',
    needs: ['root'],
    run(dir, sys) {
      const path = join(dir, 'f')
      touch(path)
      sys.chown(path, 61234, 62345)
      sys.chown(path, -1, 5)
      assert.deepEqual([stat(path).uid, stat(path).gid], [61234n, 5n])
      sys.chown(path, 6, -1)
      assert.deepEqual([stat(path).uid, stat(path).gid], [6n, 5n])
    },
  },
  {
    name: 'chown marks ctime and leaves mtime',
    cites: 'POSIX chown(): "shall mark for update the last file status change timestamp"',
    needs: ['root'],
    run(dir, sys) {
      touch(join(dir, 'f'))
      marks(join(dir, 'f'), ['ctime'], () => { sys.chown(join(dir, 'f'), 5, 6) }, ['mtime', 'atime'])
    },
  },
  {
    name: 'ids up to 2³² − 2',
    cites: 'chown(2); uid_t has 32 bits',
    needs: ['root'],
    run(dir, sys) {
      touch(join(dir, 'f'))
      sys.chown(join(dir, 'f'), 0xffff_fffe, 0x8000_0000)
      assert.deepEqual([stat(join(dir, 'f')).uid, stat(join(dir, 'f')).gid], [0xffff_fffen, 0x8000_0000n])
    },
  },
  {
    name: 'lchown changes the symbolic link, chown its target',
    cites: 'POSIX lchown(); chown()',
    needs: ['root'],
    run(dir, sys) {
      touch(join(dir, 'f'))
      symlinkSync('f', join(dir, 'link'))
      sys.chown(join(dir, 'link'), 10, 11, sys.AT_SYMLINK_NOFOLLOW)
      assert.deepEqual([lstat(join(dir, 'link')).uid, stat(join(dir, 'f')).uid], [10n, 0n])
      sys.chown(join(dir, 'link'), 20, 21)
      assert.deepEqual([lstat(join(dir, 'link')).uid, stat(join(dir, 'f')).gid], [10n, 21n])
    },
  },
  {
    name: 'fchown changes an open file',
    cites: 'POSIX fchown()',
    needs: ['root'],
    run(dir) {
      writeFileSync(join(dir, 'f'), 'x')
      const fd = openSync(join(dir, 'f'), 'r')
      fchownSync(fd, 33, 44)
      closeSync(fd)
      assert.deepEqual([stat(join(dir, 'f')).uid, stat(join(dir, 'f')).gid], [33n, 44n])
    },
  },
  {
    name: 'nobody but root gives a file away',
    cites: 'POSIX chown(), EPERM; _POSIX_CHOWN_RESTRICTED',
    needs: ['root'],
    run(dir, sys) {
      touch(join(dir, 'f'))
      sys.chown(join(dir, 'f'), sys.alice.uid, sys.alice.gid)
      sys.as(sys.alice, () => {
        fails('EPERM', () => { sys.chown(join(dir, 'f'), sys.bob.uid, -1) })
        fails('EPERM', () => { sys.chown(join(dir, 'f'), -1, sys.bob.gid) })
        sys.chown(join(dir, 'f'), sys.alice.uid, sys.alice.gid)
      })
    },
  },
  {
    name: 'an owner gives a file to a group that she is in',
    cites: 'POSIX chown(): "to the effective group ID … or one of its supplementary group IDs"',
    needs: ['root'],
    run(dir, sys) {
      touch(join(dir, 'f'))
      sys.chown(join(dir, 'f'), sys.alice.uid, sys.alice.gid)
      sys.as({ ...sys.alice, groups: [sys.STAFF] }, () => { sys.chown(join(dir, 'f'), -1, sys.STAFF) })
      assert.equal(stat(join(dir, 'f')).gid, BigInt(sys.STAFF))
    },
  },
])
