import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, chownSync, mkdirSync, statSync, writeFileSync, lstatSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { errno } from '../../lib/errors.js'
import { FATTR_GID, FATTR_KILL_SUIDGID, FATTR_SIZE, FATTR_UID, FUSE_EXT_GROUPS, FUSE_INIT_FLAGS, FUSE_OPEN_KILL_SUIDGID, FUSE_SETXATTR_ACL_KILL_SGID, FUSE_WRITE_KILL_SUIDGID } from '../../lib/fuse/abi.js'
import { getfsgid, getfsuid, getgroups } from '../../lib/sys/credentials.js'
import { O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY } from '../../lib/sys/file.js'
import { scratch } from '../../lib/sys/memory.js'
import { serve } from '../support/passthrough-fixture.js'
import { ACL_ACCESS, encodeAcl } from '../support/posix-xattrs.js'

const ROOT = 1n
/** A process with these ids and one supplementary group. */
async function as(uid: number, gid: number, group: number): Promise<{ pid: number, end: () => Promise<unknown> }> {
  const child = spawn(process.execPath, ['-e', `process.setgroups([${group}]); process.setgid(${gid}); process.setuid(${uid}); process.stdout.write('.'); setInterval(() => {}, 60000)`])
  await once(child.stdout, 'data')
  return {
    pid: child.pid!,
    end: async () => {
      child.kill('SIGKILL')
      return await once(child, 'exit')
    },
  }
}

const ALL = (1n << 42n) - 1n & ~(1n << 31n)

t.test('as the caller', { skip: process.getuid!() !== 0 && 'needs root' }, async t => {
  const { root, client: c } = serve(t)
  const path = (name: string): string => join(root, name)
  chmodSync(root, 0o777)
  t.afterEach(() => {
    c.uid = c.gid = 0
    c.groups = undefined
    if (getfsuid() !== 0 || getfsgid() !== 0) throw new Error('the thread was not given back')
  })

  t.test('what is created belongs to the caller', async t => {
    c.uid = 1001
    c.gid = 1002
    const file = c.create(ROOT, 'file', O_RDWR, 0o644)
    const others = [c.mkdir(ROOT, 'dir'), c.mknod(ROOT, 'fifo', 0o010644), c.symlink(ROOT, 'link', 'x'), c.tmpfile(ROOT, O_RDWR)]
    for (const { attr, error } of [file, ...others]) t.same([error, attr?.uid, attr?.gid], [0, 1001, 1002])
    t.same([lstatSync(path('link')).uid, lstatSync(path('link')).gid], [1001, 1002])
    c.uid = 0
    t.same([c.mkdir(ROOT, 'rootdir').attr.uid, c.lookup(ROOT, 'rootdir').attr.gid], [0, 1002], 'a root with another group')
    c.uid = 0xffffffff
    t.equal(c.mkdir(ROOT, 'nobody').error, -errno.EOVERFLOW, 'an id without a mapping is not root')
  })

  t.test('where the caller may not write it may not create', async t => {
    mkdirSync(path('private'), 0o700)
    const dir = c.lookup(ROOT, 'private').nodeid
    c.uid = 1001
    c.gid = 1002
    t.equal(c.create(dir, 'x', O_RDWR).error, -errno.EACCES)
    t.equal(c.mkdir(dir, 'x').error, -errno.EACCES)
    t.equal(c.symlink(dir, 'x', 'y').error, -errno.EACCES)
    t.equal(c.access(dir, 2), -errno.EACCES)
    t.equal(c.access(ROOT, 2), 0)
    c.uid = 0
    c.gid = 0
    t.equal(c.access(dir, 2), 0)
    t.equal(c.create(dir, 'x', O_RDWR).error, 0)
  })

  t.test('a file that the kernel did not know of is opened only for those who may', async t => {
    writeFileSync(path('appeared'), 'secret')
    chmodSync(path('appeared'), 0o640)
    chownSync(path('appeared'), 0, 3000)
    const { size } = statSync(path('appeared'))
    c.uid = 1001
    c.gid = 1002
    for (const flags of [O_RDONLY, O_RDWR, O_WRONLY, O_RDWR | O_TRUNC, O_RDONLY | O_TRUNC]) {
      t.equal(c.create(ROOT, 'appeared', flags).error, -errno.ESTALE, 'the kernel is to look it up, and to check')
    }
    c.groups = [3000]
    const opened = c.create(ROOT, 'appeared', O_RDONLY)
    t.equal(opened.error, 0, 'its group may read it')
    c.groups = undefined
    c.release(opened.nodeid, opened.fh)
    t.equal(statSync(path('appeared')).size, size)
    c.uid = c.gid = 0
    const root = c.create(ROOT, 'appeared', O_RDWR | O_TRUNC)
    t.equal(root.error, 0)
    t.equal(statSync(path('appeared')).size, 0)
    c.release(root.nodeid, root.fh)
  })

  t.test('groups of a request that is refused are given back', async t => {
    const groups = scratch(64)
    const before = getgroups(16, groups.address)
    c.uid = 1001
    c.gid = 1002
    const extensions = Buffer.alloc(24)
    extensions.set(Buffer.from(Uint32Array.of(16, FUSE_EXT_GROUPS, 1, 3000, 4, FUSE_EXT_GROUPS).buffer))
    c.extensions = extensions
    t.equal(c.mkdir(ROOT, 'refused').error, -errno.EINVAL)
    c.extensions = undefined
    t.equal(getgroups(16, groups.address), before)
  })

  t.test('setgid directories and the supplementary group', async t => {
    mkdirSync(path('team'))
    chownSync(path('team'), 0, 3000)
    chmodSync(path('team'), 0o2775)
    const dir = c.lookup(ROOT, 'team').nodeid
    c.uid = 1001
    c.gid = 1002
    t.equal(c.create(dir, 'no', O_RDWR).error, -errno.EACCES, 'not in the group')
    c.groups = [3000]
    const file = c.create(dir, 'yes', O_RDWR, 0o2755)
    t.equal(file.error, 0)
    t.same([file.attr.uid, file.attr.gid], [1001, 3000], 'the group of the directory')
    t.equal(file.attr.mode & 0o2000, 0o2000, 'setgid stays for a member')
    const sub = c.mkdir(dir, 'sub', 0o755)
    t.same([sub.attr.gid, sub.attr.mode & 0o2000], [3000, 0o2000])
    c.groups = undefined
    chmodSync(path('team'), 0o2777)
    t.equal(c.create(dir, 'stranger', O_RDWR, 0o2755).attr.mode & 0o2000, 0, 'and goes for a stranger')
    c.groups = new Array(40).fill(1)
    t.equal(c.mkdir(ROOT, 'toomany').error, -errno.EINVAL)
  })

  t.test('a kernel that cannot name the group has checked it', async t => {
    const { root, client: c } = serve(t, { flags: ALL & ~(1n << BigInt(FUSE_INIT_FLAGS.CREATE_SUPP_GROUP)) })
    mkdirSync(join(root, 'team'), 0o770)
    chmodSync(join(root, 'team'), 0o770)
    const dir = c.lookup(ROOT, 'team').nodeid
    c.uid = 1001
    c.gid = 1002
    t.same([c.create(dir, 'x', O_RDWR).attr?.uid, c.lookup(dir, 'x').attr?.gid], [1001, 1002])
    c.uid = c.gid = 0
  })

  t.test('suid and sgid bits', async t => {
    const file = path('suid')
    const fresh = (): bigint => {
      writeFileSync(file, 'x')
      chmodSync(file, 0o6755)
      return c.lookup(ROOT, 'suid').nodeid
    }
    const bits = (): number => statSync(file).mode & 0o6000
    const nodeid = fresh()
    const { fh } = c.open(nodeid, O_RDWR)
    c.write(nodeid, fh, 0n, Buffer.from('y'))
    t.equal(bits(), 0o6000, 'a write of root')
    c.write(nodeid, fh, 0n, Buffer.from('y'), 0, FUSE_WRITE_KILL_SUIDGID)
    t.equal(bits(), 0)
    fresh()
    c.setattr(nodeid, FATTR_SIZE | FATTR_KILL_SUIDGID, { size: 0n })
    t.equal(bits(), 0, 'truncated')
    fresh()
    c.setattr(nodeid, FATTR_SIZE, { size: 0n, fh })
    t.equal(bits(), 0o6000, 'truncated by root')
    c.release(nodeid, c.open(nodeid, O_RDWR | O_TRUNC, FUSE_OPEN_KILL_SUIDGID).fh)
    t.equal(bits(), 0, 'O_TRUNC')
    fresh()
    c.uid = 1001
    c.fallocate(nodeid, fh, 0n, 100n, 0)
    t.equal(bits(), 0, 'FALLOCATE has no flag for it')
    fresh()
    c.copyFileRange([nodeid, fh, 0n], [nodeid, fh, 50n], 1n)
    t.equal(bits(), 0, 'nor has COPY_FILE_RANGE')
    c.uid = 0
    fresh()
    c.fallocate(nodeid, fh, 0n, 100n, 0)
    t.equal(bits(), 0o6000)
    c.setattr(nodeid, FATTR_UID | FATTR_GID, { uid: 5, gid: 6 })
    t.equal(bits(), 0, 'chown')
    fresh()
    c.write(nodeid, fh, 0n, Buffer.from('y'))
    t.equal(bits(), 0o6000, 'CAP_FSETID is back')
  })

  t.test('who is in the group of a file', async t => {
    const file = path('members')
    const changed = (gid: number, pid: number): number => {
      writeFileSync(file, 'x')
      chownSync(file, 0, 3000)
      chmodSync(file, 0o2767)
      c.uid = 1001
      c.gid = gid
      c.pid = pid
      const { nodeid } = c.lookup(ROOT, 'members')
      const { fh } = c.open(nodeid, O_RDWR)
      c.write(nodeid, fh, 0n, Buffer.from('y'), 0, FUSE_WRITE_KILL_SUIDGID)
      c.release(nodeid, fh)
      c.pid = process.pid
      return statSync(file).mode & 0o2000
    }
    const member = await as(1001, 1002, 3000)
    const stranger = await as(1001, 1002, 3001)
    const other = await as(1003, 1002, 3000)
    t.equal(changed(3000, 0), 0o2000, 'by its gid')
    t.equal(changed(1002, member.pid), 0o2000, 'by a supplementary group')
    t.equal(changed(1002, stranger.pid), 0)
    t.equal(changed(1002, other.pid), 0, 'a process of another user is not the caller')
    t.equal(changed(1002, 0), 0, 'a caller of another host')
    t.equal(changed(1002, 0x7fff_fff0), 0, 'a process that is not there')
    for (const { end } of [member, stranger, other]) await end()
    t.equal(changed(1002, member.pid), 0, 'one that has ended')
  })

  t.test('the sgid bit, where an ACL costs it', async t => {
    const { root, client: acl } = serve(t, { posixAcl: true })
    const file = join(root, 'acl')
    writeFileSync(file, '')
    chmodSync(file, 0o2770)
    const { nodeid } = acl.lookup(ROOT, 'acl')
    const set = (value: Buffer): number => acl.setxattr(nodeid, ACL_ACCESS, value, 0, FUSE_SETXATTR_ACL_KILL_SGID)
    t.equal(set(encodeAcl(['u:1:r--'])), -errno.EINVAL)
    t.equal(lstatSync(file).mode & 0o7777, 0o2770, 'an ACL that was refused costs nothing')
    t.equal(set(encodeAcl(['u::rwx', 'u:1:r--', 'g::r--', 'm::r-x', 'o::---'])), 0)
    t.equal(lstatSync(file).mode & 0o7777, 0o750, 'it is gone, and what the ACL makes of the mode stays')
  })

  t.test('umask', async t => {
    t.equal(c.create(ROOT, 'masked', O_RDWR, 0o666, 0o077).attr.mode & 0o777, 0o666, 'the kernel has applied it already')
    const { client: acl } = serve(t, { posixAcl: true })
    t.equal(acl.create(ROOT, 'a', O_RDWR, 0o666, 0o027).attr.mode & 0o777, 0o640)
    t.equal(acl.mkdir(ROOT, 'b', 0o777, 0o027).attr.mode & 0o777, 0o750)
    t.equal(acl.mknod(ROOT, 'c', 0o100666).attr.mode & 0o777, 0o666, 'and no umask left over')
    t.equal(acl.init(0n).error, -errno.EPROTO, 'posix_acl needs the kernel')
  })
})
