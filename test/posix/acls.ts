/** POSIX access control lists: acl(5). */
import assert from 'node:assert/strict'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Sys } from '../support/posix-sys.js'
import { fails, group, hasMode, touch } from './check.js'

const ALICE_READS = (sys: Sys): string[] => ['u::rw-', `u:${sys.alice.uid}:r--`, 'g::---', 'm::r--', 'o::---']

function setAcl(sys: Sys, path: string, entries: string[], which = sys.ACL_ACCESS): void {
  sys.setxattr(path, which, sys.encodeAcl(entries))
}

function aclOf(sys: Sys, path: string, which = sys.ACL_ACCESS): string[] {
  return sys.decodeAcl(sys.getxattr(path, which))
}

export const acls = group('acls', [
  {
    name: 'an access ACL is read back entry by entry',
    cites: 'acl(5), ACL entries; include/uapi/linux/posix_acl_xattr.h',
    run(dir, sys) {
      touch(join(dir, 'f'))
      const entries = ['u::rw-', 'u:1:r-x', 'u:70000:-w-', 'g::r--', 'g:5:rwx', 'm::rwx', 'o::---']
      setAcl(sys, join(dir, 'f'), entries)
      assert.deepEqual(aclOf(sys, join(dir, 'f')), entries)
      assert.ok(sys.listxattr(join(dir, 'f')).includes(sys.ACL_ACCESS))
    },
  },
  {
    name: 'the mode shows the mask as the bits of the group',
    cites: 'acl(5), Correspondence between ACL entries and file permission bits',
    run(dir, sys) {
      touch(join(dir, 'f'))
      setAcl(sys, join(dir, 'f'), ['u::rwx', 'u:1:rwx', 'g::---', 'm::r-x', 'o::--x'])
      hasMode(join(dir, 'f'), 0o751)
    },
  },
  {
    name: 'chmod changes owner, mask and others in it',
    cites: 'acl(5), Correspondence; fs/posix_acl.c posix_acl_chmod',
    run(dir, sys) {
      touch(join(dir, 'f'))
      setAcl(sys, join(dir, 'f'), ['u::rwx', 'u:1:rwx', 'g::r--', 'm::rwx', 'o::---'])
      sys.chmodat(join(dir, 'f'), 0o645)
      assert.deepEqual(aclOf(sys, join(dir, 'f')), ['u::rw-', 'u:1:rwx', 'g::r--', 'm::r--', 'o::r-x'])
      hasMode(join(dir, 'f'), 0o645)
    },
  },
  {
    name: 'an ACL of three entries is the mode and nothing else',
    cites: 'acl(5), minimal ACL; fs/posix_acl.c posix_acl_update_mode',
    run(dir, sys) {
      touch(join(dir, 'f'))
      setAcl(sys, join(dir, 'f'), ['u::rwx', 'g::r-x', 'o::--x'])
      hasMode(join(dir, 'f'), 0o751)
      fails('ENODATA', () => aclOf(sys, join(dir, 'f')).length)
    },
  },
  {
    name: 'a named user may what her entry says, and no more',
    cites: 'acl(5), Access check algorithm',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'for alice')
      setAcl(sys, join(dir, 'f'), ALICE_READS(sys))
      sys.as(sys.alice, () => {
        assert.equal(sys.withFd(sys.open(join(dir, 'f'), sys.O_RDONLY), fd => sys.read(fd, 99).toString()), 'for alice')
        fails('EACCES', () => sys.open(join(dir, 'f'), sys.O_WRONLY))
      })
      sys.as(sys.bob, () => { fails('EACCES', () => sys.open(join(dir, 'f'), sys.O_RDONLY)) })
    },
  },
  {
    name: 'the mask limits named users and groups',
    cites: 'acl(5), Access check algorithm, ACL_MASK',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'x')
      setAcl(sys, join(dir, 'f'), ['u::rw-', `u:${sys.alice.uid}:rw-`, 'g::---', `g:${sys.STAFF}:rw-`, 'm::r--', 'o::---'])
      for (const user of [sys.alice, { ...sys.bob, groups: [sys.STAFF] }]) {
        sys.as(user, () => {
          sys.close(sys.open(join(dir, 'f'), sys.O_RDONLY))
          fails('EACCES', () => sys.open(join(dir, 'f'), sys.O_WRONLY))
        })
      }
    },
  },
  {
    name: 'a named group may what its entry says',
    cites: 'acl(5), Access check algorithm',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'x')
      setAcl(sys, join(dir, 'f'), ['u::rw-', 'g::---', `g:${sys.STAFF}:rw-`, 'm::rw-', 'o::r--'])
      sys.as({ ...sys.bob, groups: [sys.STAFF] }, () => { sys.close(sys.open(join(dir, 'f'), sys.O_RDWR)) })
      sys.as(sys.bob, () => { fails('EACCES', () => sys.open(join(dir, 'f'), sys.O_WRONLY)) })
    },
  },
  {
    name: 'an entry can refuse one user what all others may',
    cites: 'acl(5), Access check algorithm: the first that fits decides',
    run(dir, sys) {
      touch(join(dir, 'f'))
      setAcl(sys, join(dir, 'f'), ['u::rw-', `u:${sys.alice.uid}:---`, 'g::r--', 'm::r--', 'o::r--'])
      sys.as(sys.alice, () => { fails('EACCES', () => sys.open(join(dir, 'f'), sys.O_RDONLY)) })
      sys.as(sys.bob, () => { sys.close(sys.open(join(dir, 'f'), sys.O_RDONLY)) })
    },
  },
  {
    name: 'a default ACL is for directories only',
    cites: 'acl(5), Object creation and default ACLs; fs/posix_acl.c set_posix_acl, EACCES',
    run(dir, sys) {
      touch(join(dir, 'f'))
      fails('EACCES', () => { setAcl(sys, join(dir, 'f'), ['u::rwx', 'g::r-x', 'o::---'], sys.ACL_DEFAULT) })
    },
  },
  {
    name: 'a new file gets the default ACL of its directory, with the mode asked for',
    cites: 'acl(5), Object creation and default ACLs',
    run(dir, sys) {
      mkdirSync(join(dir, 'd'))
      setAcl(sys, join(dir, 'd'), ['u::rwx', `u:${sys.alice.uid}:rwx`, 'g::r-x', 'm::rwx', 'o::---'], sys.ACL_DEFAULT)
      touch(join(dir, 'd', 'f'), 0o640)
      assert.deepEqual(aclOf(sys, join(dir, 'd', 'f')), ['u::rw-', `u:${sys.alice.uid}:rwx`, 'g::r-x', 'm::r--', 'o::---'])
      hasMode(join(dir, 'd', 'f'), 0o640)
    },
  },
  {
    name: 'with a default ACL the umask does not count',
    cites: 'acl(5), Object creation: the umask is used only without a default ACL; umask(2)',
    run(dir, sys) {
      mkdirSync(join(dir, 'd'))
      setAcl(sys, join(dir, 'd'), ['u::rwx', 'g::rwx', 'o::rwx'], sys.ACL_DEFAULT)
      const before = sys.umask(0o077)
      try {
        touch(join(dir, 'd', 'f'), 0o666)
        sys.mkdirat(sys.AT_FDCWD, join(dir, 'd', 'e'), 0o777)
        sys.mknod(join(dir, 'd', 'p'), sys.S_IFIFO | 0o666)
      } finally {
        sys.umask(before)
      }
      hasMode(join(dir, 'd', 'f'), 0o666)
      hasMode(join(dir, 'd', 'e'), 0o777)
      hasMode(join(dir, 'd', 'p'), 0o666)
    },
  },
  {
    name: 'a new directory gets it as its own default too',
    cites: 'acl(5), Object creation and default ACLs',
    run(dir, sys) {
      mkdirSync(join(dir, 'd'))
      const entries = ['u::rwx', `u:${sys.alice.uid}:r-x`, 'g::r-x', 'm::r-x', 'o::---']
      setAcl(sys, join(dir, 'd'), entries, sys.ACL_DEFAULT)
      sys.mkdirat(sys.AT_FDCWD, join(dir, 'd', 'e'), 0o777)
      assert.deepEqual(aclOf(sys, join(dir, 'd', 'e'), sys.ACL_DEFAULT), entries)
      assert.deepEqual(aclOf(sys, join(dir, 'd', 'e')), entries)
    },
  },
  {
    name: 'removing the access ACL leaves the mode, removing the default the rest',
    cites: 'removexattr(2); acl(5)',
    run(dir, sys) {
      mkdirSync(join(dir, 'd'))
      const entries = ['u::rwx', 'u:1:rwx', 'g::r-x', 'm::rwx', 'o::---']
      setAcl(sys, join(dir, 'd'), entries)
      setAcl(sys, join(dir, 'd'), entries, sys.ACL_DEFAULT)
      sys.removexattr(join(dir, 'd'), sys.ACL_DEFAULT)
      fails('ENODATA', () => aclOf(sys, join(dir, 'd'), sys.ACL_DEFAULT).length)
      assert.deepEqual(aclOf(sys, join(dir, 'd')), entries)
      sys.removexattr(join(dir, 'd'), sys.ACL_ACCESS)
      fails('ENODATA', () => aclOf(sys, join(dir, 'd')).length)
      touch(join(dir, 'd', 'f'), 0o644)
      hasMode(join(dir, 'd', 'f'), 0o644)
    },
  },
  {
    name: 'what is no ACL is EINVAL',
    cites: 'acl(5), valid ACL; fs/posix_acl.c posix_acl_valid',
    run(dir, sys) {
      touch(join(dir, 'f'))
      // a version that is unknown
      fails(['EINVAL', 'ENOTSUP'], () => { sys.setxattr(join(dir, 'f'), sys.ACL_ACCESS, 'nonsense') })
      // a named user without a mask
      fails('EINVAL', () => { setAcl(sys, join(dir, 'f'), ['u::rw-', 'u:1:r--', 'g::r--', 'o::---']) })
      // nothing for others
      fails('EINVAL', () => { setAcl(sys, join(dir, 'f'), ['u::rw-', 'g::r--']) })
      hasMode(join(dir, 'f'), 0o644)
    },
  },
  {
    name: 'only the owner sets one',
    cites: 'acl(5); fs/posix_acl.c set_posix_acl, EPERM',
    run(dir, sys) {
      touch(join(dir, 'f'))
      sys.chmodat(join(dir, 'f'), 0o666)
      sys.as(sys.bob, () => { fails('EPERM', () => { setAcl(sys, join(dir, 'f'), ALICE_READS(sys)) }) })
      sys.chown(join(dir, 'f'), sys.alice.uid, sys.alice.gid)
      sys.as(sys.alice, () => { setAcl(sys, join(dir, 'f'), ['u::rw-', `u:${sys.bob.uid}:r--`, 'g::---', 'm::r--', 'o::---']) })
      sys.as(sys.bob, () => { sys.close(sys.open(join(dir, 'f'), sys.O_RDONLY)) })
    },
  },
  {
    name: 'an ACL set by one who is not in the group takes sgid away',
    cites: 'fs/posix_acl.c posix_acl_update_mode; CVE-2016-7097',
    run(dir, sys) {
      touch(join(dir, 'f'))
      sys.chown(join(dir, 'f'), sys.alice.uid, sys.STAFF)
      sys.chmodat(join(dir, 'f'), 0o2755)
      sys.as(sys.alice, () => { setAcl(sys, join(dir, 'f'), ['u::rwx', `u:${sys.bob.uid}:r-x`, 'g::r-x', 'm::r-x', 'o::r-x']) })
      hasMode(join(dir, 'f'), 0o755)
    },
  },
], ['root', 'acl'])
