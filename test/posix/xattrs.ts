/** Extended attributes: xattr(7). */
import assert from 'node:assert/strict'
import { mkdirSync, renameSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fails, group, marks, touch } from './check.js'

export const xattrs = group('xattrs', [
  {
    name: 'a value is read back, on a file and on a directory',
    cites: 'setxattr(2); getxattr(2)',
    run(dir, sys) {
      touch(join(dir, 'f'))
      mkdirSync(join(dir, 'd'))
      for (const name of ['f', 'd']) {
        sys.setxattr(join(dir, name), 'user.colour', 'green')
        assert.equal(sys.getxattr(join(dir, name), 'user.colour').toString(), 'green')
      }
    },
  },
  {
    name: 'values of any bytes, and of none',
    cites: 'xattr(7): "may be empty (a value that is zero-length)"',
    run(dir, sys) {
      touch(join(dir, 'f'))
      const bytes = Buffer.from(Array.from({ length: 256 }, (_, i) => i))
      sys.setxattr(join(dir, 'f'), 'user.bytes', bytes)
      sys.setxattr(join(dir, 'f'), 'user.empty', '')
      assert.deepEqual(sys.getxattr(join(dir, 'f'), 'user.bytes'), bytes)
      assert.equal(sys.getxattr(join(dir, 'f'), 'user.empty').length, 0)
      assert.deepEqual(sys.listxattr(join(dir, 'f')).filter(name => name.startsWith('user.')), ['user.bytes', 'user.empty'])
    },
  },
  {
    name: 'an attribute that is not there is ENODATA',
    cites: 'getxattr(2), ENODATA; removexattr(2), ENODATA',
    run(dir, sys) {
      touch(join(dir, 'f'))
      fails('ENODATA', () => sys.getxattr(join(dir, 'f'), 'user.none').length)
      fails('ENODATA', () => { sys.removexattr(join(dir, 'f'), 'user.none') })
    },
  },
  {
    name: 'a file that is not there is ENOENT',
    cites: 'getxattr(2); stat(2), ENOENT',
    run(dir, sys) {
      fails('ENOENT', () => sys.getxattr(join(dir, 'none'), 'user.x').length)
      fails('ENOENT', () => { sys.setxattr(join(dir, 'none'), 'user.x', 'x') })
      fails('ENOENT', () => sys.listxattr(join(dir, 'none')).length)
    },
  },
  {
    name: 'XATTR_CREATE of one that is there is EEXIST, XATTR_REPLACE of one that is not ENODATA',
    cites: 'setxattr(2), XATTR_CREATE, XATTR_REPLACE',
    run(dir, sys) {
      const path = join(dir, 'f')
      touch(path)
      fails('ENODATA', () => { sys.setxattr(path, 'user.x', '1', sys.XATTR_REPLACE) })
      sys.setxattr(path, 'user.x', '2', sys.XATTR_CREATE)
      fails('EEXIST', () => { sys.setxattr(path, 'user.x', '3', sys.XATTR_CREATE) })
      sys.setxattr(path, 'user.x', '4', sys.XATTR_REPLACE)
      assert.equal(sys.getxattr(path, 'user.x').toString(), '4')
      fails('EINVAL', () => { sys.setxattr(path, 'user.x', '5', 0x80) })
    },
  },
  {
    name: 'setting replaces a shorter and a longer value whole',
    cites: 'setxattr(2)',
    run(dir, sys) {
      touch(join(dir, 'f'))
      for (const length of [1, 500, 3, 1000, 0, 10]) {
        sys.setxattr(join(dir, 'f'), 'user.x', 'v'.repeat(length))
        assert.equal(sys.getxattr(join(dir, 'f'), 'user.x').toString(), 'v'.repeat(length))
      }
    },
  },
  {
    name: 'a buffer of no size asks for the size, one too small is ERANGE',
    cites: 'getxattr(2): "If size is specified as zero"; ERANGE',
    run(dir, sys) {
      touch(join(dir, 'f'))
      sys.setxattr(join(dir, 'f'), 'user.x', '0123456789')
      assert.equal(sys.xattrSize(join(dir, 'f'), 'user.x'), 10)
      assert.equal(sys.getxattr(join(dir, 'f'), 'user.x', 10).length, 10)
      fails('ERANGE', () => sys.getxattr(join(dir, 'f'), 'user.x', 9).length)
    },
  },
  {
    name: 'listxattr too: the size, the exact buffer, ERANGE',
    cites: 'listxattr(2)',
    run(dir, sys) {
      touch(join(dir, 'f'))
      sys.setxattr(join(dir, 'f'), 'user.one', '1')
      sys.setxattr(join(dir, 'f'), 'user.three', '3')
      const size = sys.listSize(join(dir, 'f'))
      assert.ok(size >= 'user.one.user.three.'.length)
      assert.equal(sys.listxattr(join(dir, 'f'), size).length, sys.listxattr(join(dir, 'f')).length)
      fails('ERANGE', () => sys.listxattr(join(dir, 'f'), size - 1).length)
    },
  },
  {
    name: 'a removed attribute is gone from the list',
    cites: 'removexattr(2)',
    run(dir, sys) {
      const path = join(dir, 'f')
      touch(path)
      sys.setxattr(path, 'user.a', '1')
      sys.setxattr(path, 'user.b', '2')
      sys.removexattr(path, 'user.a')
      assert.deepEqual(sys.listxattr(path).filter(name => name.startsWith('user.')), ['user.b'])
      fails('ENODATA', () => sys.getxattr(path, 'user.a').length)
    },
  },
  {
    name: 'fifty of one file',
    cites: 'xattr(7); listxattr(2)',
    run(dir, sys) {
      touch(join(dir, 'f'))
      const names = Array.from({ length: 50 }, (_, i) => `user.attribute-${String(i).padStart(2, '0')}`)
      for (const name of names) sys.setxattr(join(dir, 'f'), name, `of ${name}`)
      assert.deepEqual(sys.listxattr(join(dir, 'f')).filter(name => name.startsWith('user.')), names)
      for (const name of names) assert.equal(sys.getxattr(join(dir, 'f'), name).toString(), `of ${name}`)
    },
  },
  {
    name: 'through an open file, also an unlinked one',
    cites: 'fsetxattr(2), fgetxattr(2), flistxattr(2), fremovexattr(2)',
    run(dir, sys) {
      sys.withFd(sys.open(join(dir, 'f'), sys.O_CREAT | sys.O_RDWR), fd => {
        sys.fsetxattr(fd, 'user.x', '1')
        unlinkSync(join(dir, 'f'))
        assert.equal(sys.fgetxattr(fd, 'user.x').toString(), '1')
        sys.fsetxattr(fd, 'user.y', '2')
        sys.fremovexattr(fd, 'user.x')
        assert.deepEqual(sys.flistxattr(fd).filter(name => name.startsWith('user.')), ['user.y'])
      })
    },
  },
  {
    name: 'a descriptor opened read-only is enough, for it is the mode that counts',
    cites: 'xattr(7), Extended user attributes: "the file permission bits"',
    run(dir, sys) {
      touch(join(dir, 'f'))
      sys.withFd(sys.open(join(dir, 'f'), sys.O_RDONLY), fd => { sys.fsetxattr(fd, 'user.x', '1') })
      assert.equal(sys.getxattr(join(dir, 'f'), 'user.x').toString(), '1')
    },
  },
  {
    name: 'a symbolic link, a FIFO and a socket take no user attributes',
    cites: 'xattr(7): "allowed only for regular files and directories"; fs/xattr.c xattr_permission, EPERM',
    run(dir, sys) {
      symlinkSync('nowhere', join(dir, 'l'))
      sys.mknod(join(dir, 'p'), sys.S_IFIFO | 0o666)
      fails('EPERM', () => { sys.lsetxattr(join(dir, 'l'), 'user.x', '1') })
      fails('EPERM', () => { sys.setxattr(join(dir, 'p'), 'user.x', '1') })
      fails('ENODATA', () => sys.lgetxattr(join(dir, 'l'), 'user.x').length)
    },
  },
  {
    name: 'setxattr follows a symbolic link',
    cites: 'setxattr(2), lsetxattr(2)',
    run(dir, sys) {
      touch(join(dir, 'f'))
      symlinkSync('f', join(dir, 'l'))
      sys.setxattr(join(dir, 'l'), 'user.x', 'target')
      assert.equal(sys.getxattr(join(dir, 'f'), 'user.x').toString(), 'target')
    },
  },
  {
    name: 'setting and removing mark ctime and leave mtime',
    cites: 'fs/ext4/xattr.c, mm/shmem.c: inode_set_ctime_current',
    run(dir, sys) {
      const path = join(dir, 'f')
      touch(path)
      marks(path, ['ctime'], () => { sys.setxattr(path, 'user.x', '1') }, ['mtime'])
      marks(path, ['ctime'], () => { sys.removexattr(path, 'user.x') }, ['mtime'])
    },
  },
  {
    name: 'they stay with rename and hard links, and are not those of another file',
    cites: 'xattr(7): "associated with inodes"',
    run(dir, sys) {
      touch(join(dir, 'f'))
      sys.setxattr(join(dir, 'f'), 'user.x', '1')
      sys.linkat(sys.AT_FDCWD, join(dir, 'f'), sys.AT_FDCWD, join(dir, 'g'))
      renameSync(join(dir, 'f'), join(dir, 'h'))
      for (const name of ['g', 'h']) assert.equal(sys.getxattr(join(dir, name), 'user.x').toString(), '1')
      touch(join(dir, 'f'))
      fails('ENODATA', () => sys.getxattr(join(dir, 'f'), 'user.x').length)
    },
  },
  {
    name: 'a name of 255 bytes is allowed, of 256 ERANGE',
    cites: 'xattr(7), XATTR_NAME_MAX; setxattr(2), ERANGE',
    run(dir, sys) {
      touch(join(dir, 'f'))
      const longest = `user.${'n'.repeat(250)}`
      sys.setxattr(join(dir, 'f'), longest, '1')
      assert.equal(sys.getxattr(join(dir, 'f'), longest).toString(), '1')
      fails('ERANGE', () => { sys.setxattr(join(dir, 'f'), `${longest}n`, '1') })
      fails('ERANGE', () => { sys.setxattr(join(dir, 'f'), '', '1') })
    },
  },
  {
    name: 'a value of more than 64 KiB is E2BIG',
    cites: 'xattr(7), XATTR_SIZE_MAX; setxattr(2), E2BIG',
    run(dir, sys) {
      touch(join(dir, 'f'))
      fails('E2BIG', () => { sys.setxattr(join(dir, 'f'), 'user.x', Buffer.alloc(65537)) })
      fails('ENODATA', () => sys.getxattr(join(dir, 'f'), 'user.x').length)
    },
  },
  {
    name: 'a name without a namespace that is known is ENOTSUP',
    cites: 'xattr(7), Extended attribute namespaces; setxattr(2), ENOTSUP',
    run(dir, sys) {
      touch(join(dir, 'f'))
      fails('ENOTSUP', () => { sys.setxattr(join(dir, 'f'), 'nonsense.x', '1') })
      fails('ENOTSUP', () => { sys.setxattr(join(dir, 'f'), 'nonamespace', '1') })
    },
  },
  {
    name: 'user attributes need read permission to read and write permission to set',
    cites: 'xattr(7), Extended user attributes; EACCES',
    needs: ['root'],
    run(dir, sys) {
      const path = join(dir, 'f')
      touch(path)
      sys.setxattr(path, 'user.x', '1')
      sys.as(sys.alice, () => {
        assert.equal(sys.getxattr(path, 'user.x').toString(), '1')
        fails('EACCES', () => { sys.setxattr(path, 'user.x', '2') })
        fails('EACCES', () => { sys.removexattr(path, 'user.x') })
      })
      sys.chmodat(path, 0o600)
      sys.as(sys.alice, () => { fails('EACCES', () => sys.getxattr(path, 'user.x').length) })
    },
  },
  {
    name: 'in a sticky directory’s own attributes only its owner writes',
    cites: 'xattr(7): "write access to user extended attributes for directories with the sticky bit set is restricted to the file owner"',
    needs: ['root'],
    run(dir, sys) {
      mkdirSync(join(dir, 'd'))
      sys.chmodat(join(dir, 'd'), 0o1777)
      sys.as(sys.alice, () => { fails('EPERM', () => { sys.setxattr(join(dir, 'd'), 'user.x', '1') }) })
      sys.setxattr(join(dir, 'd'), 'user.x', '1')
    },
  },
  {
    name: 'trusted attributes are root’s, and hidden from others',
    cites: 'xattr(7), Trusted extended attributes',
    needs: ['root', 'trusted_xattr'],
    run(dir, sys) {
      const path = join(dir, 'f')
      touch(path, 0o666)
      sys.setxattr(path, 'trusted.x', 'secret')
      assert.equal(sys.getxattr(path, 'trusted.x').toString(), 'secret')
      assert.ok(sys.listxattr(path).includes('trusted.x'))
      sys.chmodat(path, 0o666)
      sys.as(sys.alice, () => {
        fails('ENODATA', () => sys.getxattr(path, 'trusted.x').length)
        fails('EPERM', () => { sys.setxattr(path, 'trusted.x', '1') })
      })
    },
  },
  {
    name: 'a security attribute is read back',
    cites: 'xattr(7), Extended security attributes',
    needs: ['root', 'security_xattr'],
    run(dir, sys) {
      touch(join(dir, 'f'))
      sys.setxattr(join(dir, 'f'), 'security.test', 'x')
      assert.equal(sys.getxattr(join(dir, 'f'), 'security.test').toString(), 'x')
      assert.ok(sys.listxattr(join(dir, 'f')).includes('security.test'))
    },
  },
  {
    name: 'a write takes file capabilities away, also one by root',
    cites: 'capabilities(7), File capabilities; security/commoncap.c cap_inode_need_killpriv',
    needs: ['root', 'security_xattr'],
    run(dir, sys) {
      const path = join(dir, 'f')
      writeFileSync(path, 'program', { mode: 0o755 })
      // VFS_CAP_REVISION_2, CAP_NET_RAW permitted
      const capability = Buffer.from('0000000200200000000000000000000000000000', 'hex')
      sys.setxattr(path, 'security.capability', capability)
      assert.deepEqual(sys.getxattr(path, 'security.capability'), capability)
      sys.withFd(sys.open(path, sys.O_WRONLY), fd => { sys.write(fd, 'x') })
      fails('ENODATA', () => sys.getxattr(path, 'security.capability').length)
    },
  },
  {
    name: 'chown takes file capabilities away',
    cites: 'fs/attr.c notify_change, ATTR_KILL_PRIV',
    needs: ['root', 'security_xattr'],
    run(dir, sys) {
      const path = join(dir, 'f')
      writeFileSync(path, 'program', { mode: 0o755 })
      sys.setxattr(path, 'security.capability', Buffer.from('0000000200200000000000000000000000000000', 'hex'))
      sys.chown(path, sys.alice.uid, -1)
      fails('ENODATA', () => sys.getxattr(path, 'security.capability').length)
    },
  },
], ['xattr'])
