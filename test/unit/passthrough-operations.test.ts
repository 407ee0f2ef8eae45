import { chmodSync, existsSync, linkSync, lstatSync, mkdirSync, mkdtempSync, readFileSync, readlinkSync, statSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { errno } from '../../lib/errors.js'
import {
  FATTR_ATIME, FATTR_ATIME_NOW, FATTR_GID, FATTR_MODE, FATTR_MTIME, FATTR_SIZE, FATTR_UID, FOPEN_CACHE_DIR, FOPEN_DIRECT_IO, FOPEN_KEEP_CACHE,
  FUSE_FSYNC_FDATASYNC, FUSE_INIT_FLAGS, FuseKstatfs, FuseReadIn, FuseStatx, FuseStatxOut, FUSE_WRITE_CACHE, type InitFlag,
} from '../../lib/fuse/abi.js'
import { Op } from '../../lib/fuse/opcodes.js'
import { MAY_BLOCK } from '../../lib/device/handlers.js'
import { O_APPEND, O_DIRECT, O_EXCL, O_RDONLY, O_RDWR, O_SYNC, O_TRUNC, O_WRONLY } from '../../lib/sys/file.js'
import { serve } from '../support/passthrough-fixture.js'

const ROOT = 1n
const bit = (flag: InitFlag): bigint => 1n << BigInt(FUSE_INIT_FLAGS[flag])

t.test('operations', async t => {
  const { root, client: c } = serve(t)
  const path = (name: string): string => join(root, name)

  t.test('LOOKUP and GETATTR tell what stat tells', async t => {
    writeFileSync(path('file'), 'twelve bytes')
    utimesSync(path('file'), 1.5, 2.25)
    const entry = c.lookup(ROOT, 'file')
    const real = statSync(path('file'), { bigint: true })
    t.equal(entry.error, 0)
    t.equal(entry.entryValid, 1n)
    t.equal(entry.attr.ino, real.ino)
    t.equal(entry.attr.size, 12n)
    t.equal(entry.attr.blocks, real.blocks)
    t.equal(BigInt(entry.attr.mode), real.mode)
    t.equal(BigInt(entry.attr.nlink), real.nlink)
    t.equal(entry.attr.atime * 1_000_000_000n + BigInt(entry.attr.atimensec), real.atimeNs)
    t.equal(entry.attr.mtime * 1_000_000_000n + BigInt(entry.attr.mtimensec), real.mtimeNs)
    t.equal(entry.attr.ctime * 1_000_000_000n + BigInt(entry.attr.ctimensec), real.ctimeNs)
    const got = c.getattr(entry.nodeid)
    t.equal(got.valid, 1n)
    t.same(got.attr, entry.attr)
    t.equal(c.lookup(ROOT, 'none').error, -errno.ENOENT)
    t.equal(c.lookup(entry.nodeid, 'below').error, -errno.ENOTDIR)
    t.equal(c.getattr(ROOT).attr.mode & 0o170000, 0o040000)
  })

  t.test('CREATE, WRITE, READ, RELEASE', async t => {
    const f = c.create(ROOT, 'made', O_RDWR, 0o640)
    t.equal(f.error, 0)
    t.equal(f.attr.mode, 0o100640)
    t.equal(c.write(f.nodeid, f.fh, 3n, Buffer.from('world')), 5)
    t.same(c.read(f.nodeid, f.fh, 0n, 100).data, Buffer.from('\0\0\0world'))
    t.equal(c.read(f.nodeid, f.fh, 8n, 100).data.length, 0, 'end of file')
    t.equal(c.create(ROOT, 'made', O_RDWR | O_EXCL).error, -errno.EEXIST)
    const again = c.create(ROOT, 'made', O_RDWR | O_TRUNC)
    t.equal(again.error, 0)
    t.equal(again.nodeid, f.nodeid)
    t.equal(again.attr.size, 0n, 'O_TRUNC of a file that was there')
    t.equal(c.release(f.nodeid, again.fh), 0)
    t.equal(c.flush(f.nodeid, f.fh), 0)
    t.equal(c.fsync(f.nodeid, f.fh), 0)
    t.equal(c.fsync(f.nodeid, f.fh, FUSE_FSYNC_FDATASYNC), 0)
    t.equal(c.release(f.nodeid, f.fh), 0)
    t.equal(c.release(f.nodeid, f.fh), -errno.EBADF)
    t.equal(c.read(f.nodeid, f.fh, 0n, 1).error, -errno.EBADF)
  })

  t.test('O_APPEND goes to the end wherever that is, but not for pages of the cache', async t => {
    writeFileSync(path('log'), 'one')
    const { nodeid } = c.lookup(ROOT, 'log')
    const { fh } = c.open(nodeid, O_WRONLY | O_APPEND)
    writeFileSync(path('log'), 'one,two', { flag: 'w' })
    t.equal(c.write(nodeid, fh, 3n, Buffer.from(',three'), O_APPEND), 6)
    t.equal(readFileSync(path('log'), 'utf8'), 'one,two,three')
    t.equal(c.write(nodeid, fh, 0n, Buffer.from('ONE'), O_APPEND, FUSE_WRITE_CACHE), 3)
    t.equal(readFileSync(path('log'), 'utf8'), 'ONE,two,three')
    c.release(nodeid, fh)
  })

  t.test('READ and WRITE go by the size that they say', async t => {
    writeFileSync(path('sized'), 'content')
    const { nodeid } = c.lookup(ROOT, 'sized')
    const { fh } = c.open(nodeid, O_RDWR)
    const args = Buffer.alloc(FuseReadIn.SIZE)
    args.writeBigUInt64LE(fh)
    args.writeUInt32LE(3, FuseReadIn.size)
    t.equal(c.call(Op.READ, nodeid, args, { room: 100 }).bytes.toString(), 'con')
    for (const payload of ['ab', 'abcd']) t.equal(c.call(Op.WRITE, nodeid, args, { payload: Buffer.from(payload) }).error, -errno.EINVAL)
    t.equal(readFileSync(path('sized'), 'utf8'), 'content')
    c.release(nodeid, fh)
  })

  t.test('an unlinked file lives on through its handle and its node', async t => {
    const f = c.create(ROOT, 'doomed', O_RDWR)
    c.write(f.nodeid, f.fh, 0n, Buffer.from('still here'))
    t.equal(c.unlink(ROOT, 'doomed'), 0)
    t.equal(existsSync(path('doomed')), false)
    t.equal(c.read(f.nodeid, f.fh, 0n, 10).data.toString(), 'still here')
    t.equal(c.getattr(f.nodeid, f.fh).attr.nlink, 0)
    t.equal(c.setattr(f.nodeid, FATTR_SIZE, { fh: f.fh, size: 5n }).attr.size, 5n)
    c.release(f.nodeid, f.fh)
    t.equal(c.getattr(f.nodeid).attr.nlink, 0, 'also once it is closed')
    t.equal(c.getattr(f.nodeid).attr.size, 5n)
    const next = c.create(ROOT, 'doomed', O_RDWR)
    t.not(next.nodeid, f.nodeid, 'a new file of that name is another')
    c.release(next.nodeid, next.fh)
  })

  t.test('a removed directory still has attributes', async t => {
    const d = c.mkdir(ROOT, 'going')
    t.equal(c.rmdir(ROOT, 'going'), 0)
    t.equal(c.getattr(d.nodeid).attr.nlink, 0)
    t.equal(c.create(d.nodeid, 'x', O_RDWR).error, -errno.ENOENT)
  })

  t.test('SETATTR', async t => {
    writeFileSync(path('attr'), 'x'.repeat(100))
    const { nodeid } = c.lookup(ROOT, 'attr')
    t.equal(c.setattr(nodeid, FATTR_MODE, { mode: 0o100600 }).attr.mode, 0o100600)
    t.equal(c.setattr(nodeid, FATTR_SIZE, { size: 10n }).attr.size, 10n)
    t.equal(c.setattr(nodeid, FATTR_SIZE, { size: 5_000_000_000n }).attr.size, 5_000_000_000n)
    const timed = c.setattr(nodeid, FATTR_ATIME | FATTR_MTIME, { atime: -5n, atimensec: 7, mtime: 4_000_000_000n, mtimensec: 999_999_999 }).attr
    t.same([timed.atime, timed.atimensec, timed.mtime, timed.mtimensec], [-5n, 7, 4_000_000_000n, 999_999_999])
    const before = BigInt(Math.floor(Date.now() / 1000)) - 1n
    const now = c.setattr(nodeid, FATTR_ATIME | FATTR_ATIME_NOW, {}).attr
    t.ok(now.atime >= before)
    t.equal(now.mtime, 4_000_000_000n, 'UTIME_OMIT')
    t.equal(c.setattr(ROOT, FATTR_SIZE, { size: 0n }).error, -errno.EISDIR)
    if (process.getuid!() === 0) {
      const owned = c.setattr(nodeid, FATTR_UID | FATTR_GID, { uid: 1234, gid: 4321 }).attr
      t.same([owned.uid, owned.gid], [1234, 4321])
      t.equal(c.setattr(nodeid, FATTR_GID, { gid: 55 }).attr.uid, 1234, 'the other one stays')
      const all = c.setattr(nodeid, FATTR_SIZE | FATTR_UID | FATTR_MODE | FATTR_MTIME, { size: 3n, uid: 77, mode: 0o104751, mtime: 9n, mtimensec: 8 }).attr
      t.same([all.size, all.uid, all.mode, all.mtime, all.mtimensec], [3n, 77, 0o104751, 9n, 8], 'all at once: what one sets no other takes away')
      t.equal(c.setattr(nodeid, FATTR_SIZE | FATTR_UID | FATTR_MODE, { size: (1n << 62n), uid: 88, mode: 0o100600 }).error, -errno.EFBIG)
      const kept = c.getattr(nodeid).attr
      t.same([kept.uid, kept.mode], [77, 0o104751], 'or nothing')
    }
  })

  t.test('attributes of a symbolic link are its own', async t => {
    writeFileSync(path('target'), '')
    chmodSync(path('target'), 0o600)
    symlinkSync('target', path('pointer'))
    const l = c.lookup(ROOT, 'pointer')
    t.equal(l.attr.mode & 0o170000, 0o120000)
    t.equal(c.readlink(l.nodeid).target, 'target')
    t.equal(c.setattr(l.nodeid, FATTR_MTIME, { mtime: 77n }).attr.mtime, 77n)
    t.equal(lstatSync(path('pointer')).mtimeMs, 77_000)
    t.not(statSync(path('target')).mtimeMs, 77_000)
    t.equal(c.open(l.nodeid, O_RDONLY).error, -errno.ELOOP)
    const target = c.lookup(ROOT, 'target')
    t.equal(c.readlink(target.nodeid).error, -errno.EINVAL)
  })

  t.test('MKDIR, MKNOD, SYMLINK, LINK, RMDIR', async t => {
    const d = c.mkdir(ROOT, 'dir', 0o750)
    t.equal(d.attr.mode, 0o040750)
    t.equal(c.mkdir(ROOT, 'dir').error, -errno.EEXIST)
    const fifo = c.mknod(d.nodeid, 'fifo', 0o010644)
    t.equal(fifo.attr.mode, 0o010644)
    t.equal(c.open(fifo.nodeid, O_RDONLY).error, -errno.ENXIO, 'a FIFO is never opened here')
    const s = c.symlink(d.nodeid, 'sym', '../anywhere/at all')
    t.equal(s.attr.size, 18n)
    t.equal(readlinkSync(path('dir/sym')), '../anywhere/at all')
    const f = c.create(d.nodeid, 'a', O_RDWR)
    const hard = c.link(f.nodeid, ROOT, 'b')
    t.equal(hard.nodeid, f.nodeid, 'hard links share one node')
    t.equal(hard.attr.nlink, 2)
    t.equal(c.link(s.nodeid, ROOT, 'symhard').attr.mode & 0o170000, 0o120000, 'a link to a link')
    t.equal(c.rmdir(ROOT, 'dir'), -errno.ENOTEMPTY)
    t.equal(c.unlink(ROOT, 'dir'), -errno.EISDIR)
    t.equal(c.rmdir(ROOT, 'b'), -errno.ENOTDIR)
    for (const name of ['fifo', 'sym', 'a']) t.equal(c.unlink(d.nodeid, name), 0)
    t.equal(c.rmdir(ROOT, 'dir'), 0)
    t.equal(c.getattr(f.nodeid).attr.nlink, 1)
    c.release(f.nodeid, f.fh)
    if (process.getuid!() === 0) {
      t.equal(c.mknod(ROOT, 'null', 0o020666, 0x103).attr.rdev, 0x103)
      t.equal(lstatSync(path('null')).rdev, statSync('/dev/null').rdev)
      t.equal(c.mknod(ROOT, 'wide', 0o060600, 0x7ff12ff).attr.rdev, 0x7ff12ff, 'a large minor number')
    }
  })

  t.test('hard links made on this side share one node too', async t => {
    writeFileSync(path('h1'), '')
    linkSync(path('h1'), path('h2'))
    t.equal(c.lookup(ROOT, 'h1').nodeid, c.lookup(ROOT, 'h2').nodeid)
  })

  t.test('RENAME and RENAME2', async t => {
    const d = c.mkdir(ROOT, 'to')
    writeFileSync(path('from'), 'from')
    writeFileSync(path('other'), 'other')
    const from = c.lookup(ROOT, 'from')
    t.equal(c.rename(ROOT, 'from', d.nodeid, 'moved'), 0)
    t.equal(c.lookup(d.nodeid, 'moved').nodeid, from.nodeid)
    t.equal(c.rename2(d.nodeid, 'moved', ROOT, 'other', 1), -errno.EEXIST, 'RENAME_NOREPLACE')
    t.equal(c.rename2(d.nodeid, 'moved', ROOT, 'other', 2), 0, 'RENAME_EXCHANGE')
    t.equal(readFileSync(path('other'), 'utf8'), 'from')
    t.equal(readFileSync(path('to/moved'), 'utf8'), 'other')
    const replaced = c.lookup(d.nodeid, 'moved')
    t.equal(c.rename(ROOT, 'other', d.nodeid, 'moved'), 0)
    t.equal(c.getattr(replaced.nodeid).attr.nlink, 0, 'what was replaced can still be asked')
    t.equal(c.rename2(d.nodeid, 'moved', d.nodeid, 'x', 64), -errno.EINVAL)
    if (process.getuid!() === 0) {
      t.equal(c.rename2(d.nodeid, 'moved', d.nodeid, 'y', 4), 0, 'RENAME_WHITEOUT')
      t.equal(lstatSync(path('to/moved')).isCharacterDevice(), true)
    }
  })

  t.test('TMPFILE and giving it a name', async t => {
    const f = c.tmpfile(ROOT, O_RDWR, 0o600)
    t.equal(f.error, 0)
    t.equal(f.attr.nlink, 0)
    t.equal(c.write(f.nodeid, f.fh, 0n, Buffer.from('nameless')), 8)
    const named = c.link(f.nodeid, ROOT, 'named')
    t.equal(named.nodeid, f.nodeid)
    t.equal(readFileSync(path('named'), 'utf8'), 'nameless')
    c.release(f.nodeid, f.fh)
  })

  t.test('FALLOCATE, LSEEK, COPY_FILE_RANGE', async t => {
    const a = c.create(ROOT, 'sparse', O_RDWR)
    t.equal(c.fallocate(a.nodeid, a.fh, 0n, 4096n, 0), 0)
    t.equal(c.getattr(a.nodeid).attr.size, 4096n)
    t.equal(c.setattr(a.nodeid, FATTR_SIZE, { size: 0n }).error, 0)
    c.write(a.nodeid, a.fh, 1n << 20n, Buffer.from('data'))
    t.same(c.lseek(a.nodeid, a.fh, 0n, 3), { error: 0, offset: 1n << 20n }, 'SEEK_DATA')
    t.same(c.lseek(a.nodeid, a.fh, 0n, 4), { error: 0, offset: 0n }, 'SEEK_HOLE')
    t.equal(c.lseek(a.nodeid, a.fh, 1n << 40n, 3).error, -errno.ENXIO)
    const b = c.create(ROOT, 'copy', O_RDWR)
    t.equal(c.copyFileRange([a.nodeid, a.fh, 1n << 20n], [b.nodeid, b.fh, 2n], 100n), 4)
    t.equal(c.copyFileRange([a.nodeid, a.fh, 1n << 20n], [b.nodeid, b.fh, 6n], 100n, Op.COPY_FILE_RANGE_64), 4)
    t.equal(readFileSync(path('copy'), 'latin1'), '\0\0datadata')
    t.equal(c.copyFileRange([a.nodeid, a.fh, 0n], [a.nodeid, b.fh, 0n], 1n), -errno.EBADF, 'the handle of another node')
    c.release(a.nodeid, a.fh)
    c.release(b.nodeid, b.fh)
  })

  t.test('offsets beyond 2^53', async t => {
    const f = c.create(ROOT, 'far', O_RDWR)
    const offset = (1n << 62n) + 1n
    t.equal(c.read(f.nodeid, f.fh, offset, 10).data.length, 0)
    t.equal(c.setattr(f.nodeid, FATTR_SIZE, { size: -1n }).error, -errno.EINVAL)
    c.release(f.nodeid, f.fh)
  })

  t.test('extended attributes', async t => {
    writeFileSync(path('x'), '')
    const { nodeid } = c.lookup(ROOT, 'x')
    t.equal(c.setxattr(nodeid, 'user.one', Buffer.from('value')), 0)
    t.equal(c.setxattr(nodeid, 'user.one', Buffer.from('v'), 1), -errno.EEXIST, 'XATTR_CREATE')
    t.equal(c.setxattr(nodeid, 'user.two', Buffer.from('v'), 2), -errno.ENODATA, 'XATTR_REPLACE')
    t.equal(c.getxattr(nodeid, 'user.one').value.toString(), 'value')
    t.equal(c.getxattr(nodeid, 'user.one', 0).value.readUInt32LE(0), 5)
    t.equal(c.getxattr(nodeid, 'user.one', 2).error, -errno.ERANGE)
    t.equal(c.getxattr(nodeid, 'user.none').error, -errno.ENODATA)
    t.equal(c.listxattr(nodeid).value.toString(), 'user.one\0')
    t.equal(c.listxattr(nodeid, 0).value.readUInt32LE(0), 9)
    t.equal(c.setxattr(nodeid, 'system.posix_acl_access', Buffer.alloc(4)), -errno.EOPNOTSUPP, 'no ACL that nobody enforces')
    t.equal(c.removexattr(nodeid, 'user.one'), 0)
    t.equal(c.listxattr(nodeid).value.length, 0)
    t.equal(c.setxattr(nodeid, 'user.' + 'n'.repeat(260), Buffer.from('v')), -errno.ERANGE)
  })

  t.test('STATFS, ACCESS, SYNCFS, STATX, and what is not there', async t => {
    const statfs = c.statfs(ROOT)
    t.equal(statfs.error, 0)
    t.equal(statfs.view.getUint32(FuseKstatfs.namelen, true), 255)
    t.ok(statfs.view.getBigUint64(FuseKstatfs.blocks, true) > 0n)
    t.equal(c.access(ROOT, 0), 0)
    t.equal(c.access(ROOT, 7), 0)
    t.equal(c.call(Op.SYNCFS, ROOT, Buffer.alloc(8)).error, 0)
    const args = Buffer.alloc(24)
    args.writeUInt32LE(0xfff, 20)
    const statx = c.call(Op.STATX, ROOT, args)
    const real = statSync(root, { bigint: true })
    t.equal(statx.view.getBigUint64(FuseStatxOut.stat + FuseStatx.ino, true), real.ino)
    t.equal(statx.view.getBigUint64(FuseStatxOut.stat + FuseStatx.btime, true), real.birthtimeNs / 1_000_000_000n)
    for (const opcode of [Op.GETLK, Op.SETLK, Op.SETLKW, Op.BMAP, Op.IOCTL, Op.POLL, Op.SETUPMAPPING, Op.REMOVEMAPPING, 54, 63, 4096]) {
      t.equal(c.call(opcode, ROOT, Buffer.alloc(64)).error, -errno.ENOSYS, `opcode ${opcode}`)
    }
    t.equal(c.call(Op.SETATTR, ROOT, Buffer.alloc(40)).error, -errno.EINVAL, 'too short')
    t.equal(c.call(Op.GETATTR, ROOT, Buffer.alloc(16), { room: 50 }).error, -errno.EINVAL, 'no room for the reply')
  })

  t.test('every operation that virtiofsd answers is there', async t => {
    const answered = `LOOKUP GETATTR SETATTR READLINK SYMLINK MKNOD MKDIR UNLINK RMDIR RENAME RENAME2 LINK OPEN READ WRITE STATFS RELEASE
      FSYNC SETXATTR GETXATTR LISTXATTR REMOVEXATTR FLUSH OPENDIR READDIR READDIRPLUS RELEASEDIR FSYNCDIR ACCESS CREATE TMPFILE FALLOCATE LSEEK
      COPY_FILE_RANGE SYNCFS STATX`.split(/\s+/)
    for (const name of answered) {
      const opcode = Op[name as keyof typeof Op]
      t.not(c.call(opcode, 1n << 40n, Buffer.alloc(200, 0x78), { payload: Buffer.from('x') }).error, -errno.ENOSYS, name)
    }
  })

  t.test('FSYNCDIR', async t => {
    const { fh } = c.opendir(ROOT)
    const args = Buffer.alloc(16)
    args.writeBigUInt64LE(fh)
    t.equal(c.call(Op.FSYNCDIR, ROOT, args).error, 0)
    t.equal(c.fsync(ROOT, fh), -errno.EBADF, 'a directory is no file')
    t.equal(c.releasedir(ROOT, fh), 0)
    mkdirSync(path('sub'))
    const sub = c.lookup(ROOT, 'sub')
    t.equal(c.open(sub.nodeid, O_RDONLY).error, -errno.EISDIR)
    t.equal(c.opendir(c.lookup(ROOT, 'file').nodeid).error, -errno.ENOTDIR)
  })
})

t.test('INIT', async t => {
  const { client: c } = serve(t)
  const all = c.init()
  t.equal(all.minor, 45)
  t.equal(all.maxWrite, 1 << 20)
  t.equal(all.maxPages, 256)
  for (const flag of ['ASYNC_READ', 'ATOMIC_O_TRUNC', 'DO_READDIRPLUS', 'READDIRPLUS_AUTO', 'HANDLE_KILLPRIV_V2', 'CREATE_SUPP_GROUP'] as const) t.ok(all.flags & bit(flag), flag)
  for (const flag of ['WRITEBACK_CACHE', 'POSIX_ACL', 'DONT_MASK', 'POSIX_LOCKS', 'FLOCK_LOCKS', 'SUBMOUNTS', 'PASSTHROUGH', 'OVER_IO_URING', 'EXPORT_SUPPORT'] as const) t.notOk(all.flags & bit(flag), flag)
  t.equal(c.init(0n, 31).flags, 0n, 'nothing that was not offered')
  t.equal(c.init(0n, 31).minor, 31)
  t.equal(c.init(0n, 26).error, -errno.EPROTO)
  const offered = bit('DO_READDIRPLUS') | bit('CREATE_SUPP_GROUP')
  t.equal(c.init(offered).flags, bit('DO_READDIRPLUS'), 'flags2 needs INIT_EXT')

  const made = c.create(ROOT, 'f', O_RDWR)
  c.init()
  t.equal(c.getattr(made.nodeid).error, -errno.ESTALE, 'a second INIT ends the first session')
  t.equal(c.read(made.nodeid, made.fh, 0n, 1).error, -errno.EBADF)
})

t.test('cache policies', async t => {
  for (const [cache, seconds, file, dir] of [
    ['auto', 1n, 0, 0],
    ['always', 86400n, FOPEN_KEEP_CACHE, FOPEN_KEEP_CACHE | FOPEN_CACHE_DIR],
    ['metadata', 86400n, FOPEN_DIRECT_IO, FOPEN_KEEP_CACHE | FOPEN_CACHE_DIR],
    ['never', 0n, FOPEN_DIRECT_IO, 0],
  ] as const) {
    t.test(cache, async t => {
      const { root, client: c } = serve(t, { cache })
      writeFileSync(join(root, 'f'), '')
      const entry = c.lookup(ROOT, 'f')
      const asked = FOPEN_DIRECT_IO | FOPEN_KEEP_CACHE | FOPEN_CACHE_DIR
      t.equal(entry.entryValid, seconds)
      t.equal(c.getattr(entry.nodeid).valid, seconds)
      t.equal(c.open(entry.nodeid, O_RDWR).openFlags & asked, file)
      t.equal(c.create(ROOT, 'g', O_RDWR).openFlags & asked, file)
      t.equal(c.opendir(ROOT).openFlags & asked, dir)
    })
  }
})

t.test('writeback', async t => {
  const { root, client: c } = serve(t, { writeback: true })
  writeFileSync(join(root, 'f'), 'content')
  const { nodeid } = c.lookup(ROOT, 'f')
  const { fh } = c.open(nodeid, O_WRONLY | O_APPEND)
  t.equal(c.read(nodeid, fh, 0n, 7).data.toString(), 'content', 'the kernel may read what was opened for writing')
  t.equal(c.write(nodeid, fh, 100n, Buffer.from('at its place'), O_APPEND), 12)
  t.equal(readFileSync(join(root, 'f')).indexOf('at its place'), 100, 'the kernel says where the end is: what stands before it may not be written yet')
  const made = c.create(ROOT, 'g', O_WRONLY)
  t.equal(c.read(made.nodeid, made.fh, 0n, 7).error, 0)
  const { attr } = c.setattr(nodeid, FATTR_ATIME | FATTR_ATIME_NOW | FATTR_MTIME, { atime: 99n, atimensec: 5, mtime: 99n, mtimensec: 5 })
  t.same([attr.atime, attr.atimensec, attr.mtime, attr.mtimensec], [99n, 5, 99n, 5], 'one clock for both times')
})

t.test('readonly', async t => {
  const { root, client: c } = serve(t, { readonly: true })
  writeFileSync(join(root, 'f'), 'content')
  const { nodeid } = c.lookup(ROOT, 'f')
  t.equal(c.open(nodeid, O_RDWR).error, -errno.EROFS)
  t.equal(c.open(nodeid, O_RDONLY | O_TRUNC).error, -errno.EROFS)
  const { fh, error } = c.open(nodeid, O_RDONLY)
  t.equal(error, 0)
  t.equal(c.read(nodeid, fh, 0n, 7).data.toString(), 'content')
  t.equal(c.write(nodeid, fh, 0n, Buffer.from('x')), -errno.EROFS)
  t.equal(c.create(ROOT, 'g', O_RDWR).error, -errno.EROFS)
  t.equal(c.create(ROOT, 'f', O_RDONLY).error, 0, 'what is there can be opened')
  t.equal(c.mkdir(ROOT, 'd').error, -errno.EROFS)
  t.equal(c.unlink(ROOT, 'f'), -errno.EROFS)
  t.equal(c.rename(ROOT, 'f', ROOT, 'g'), -errno.EROFS)
  t.equal(c.setattr(nodeid, FATTR_MODE, { mode: 0o777 }).error, -errno.EROFS)
  t.equal(c.setxattr(nodeid, 'user.a', Buffer.from('b')), -errno.EROFS)
  t.equal(c.access(nodeid, 2), -errno.EROFS)
  t.equal(c.access(nodeid, 4), 0)
  t.equal(c.tmpfile(ROOT, O_RDWR).error, -errno.EROFS)
})

t.test('no xattr', async t => {
  const { client: c } = serve(t, { xattr: false })
  t.equal(c.getxattr(ROOT, 'user.a').error, -errno.ENOSYS)
  t.equal(c.setxattr(ROOT, 'user.a', Buffer.from('b')), -errno.ENOSYS)
  t.equal(c.listxattr(ROOT).error, -errno.ENOSYS)
  t.equal(c.removexattr(ROOT, 'user.a'), -errno.ENOSYS)
})

t.test('offsets beyond 2^53 are exact', { skip: !existsSync('/dev/shm') && 'no tmpfs at /dev/shm' }, async t => {
  const { client: c } = serve(t, { root: mkdtempSync('/dev/shm/passthrough-') })
  const f = c.create(ROOT, 'far', O_RDWR)
  const offset = (1n << 62n) + 1n
  t.equal(c.write(f.nodeid, f.fh, offset, Buffer.from('xy')), 2)
  t.equal(c.getattr(f.nodeid).attr.size, offset + 2n)
  t.equal(c.read(f.nodeid, f.fh, offset + 1n, 10).data.toString(), 'y')
  t.same(c.lseek(f.nodeid, f.fh, offset, 3), { error: 0, offset }, 'SEEK_DATA')
  t.equal(c.setattr(f.nodeid, FATTR_SIZE, { size: offset - 2n }).attr.size, offset - 2n)
})

t.test('a thread that must not wait', async t => {
  const { root, client: c } = serve(t, { allowDirectIo: true })
  const file = join(root, 'f')
  writeFileSync(file, 'x'.repeat(10_000))
  const { nodeid } = c.lookup(ROOT, 'f')
  const { fh } = c.open(nodeid, O_RDWR)
  const direct = c.open(nodeid, O_RDWR | O_DIRECT)
  const synced = c.open(nodeid, O_RDWR | O_SYNC)
  c.mayBlock = false
  t.equal(c.read(nodeid, fh, 0n, 4096).data.length, 4096, 'what was just written is in memory')
  t.equal(c.read(nodeid, fh, 8192n, 4096).data.length, 10_000 - 8192, 'the end of the file')
  t.equal(c.read(nodeid, fh, 20_000n, 4096).data.length, 0)
  t.equal(c.write(nodeid, fh, 0n, Buffer.from('y')), 1)
  t.equal(c.read(nodeid, direct.fh, 0n, 4096).error, MAY_BLOCK)
  t.equal(c.write(nodeid, direct.fh, 0n, Buffer.alloc(4096)), MAY_BLOCK)
  t.equal(c.write(nodeid, synced.fh, 0n, Buffer.from('z')), MAY_BLOCK)
  t.equal(c.read(nodeid, synced.fh, 0n, 1).data.toString(), 'y', 'nothing was done')
  t.equal(c.fsync(nodeid, fh), MAY_BLOCK)
  t.equal(c.fallocate(nodeid, fh, 0n, 4096n, 0), MAY_BLOCK)
  t.equal(c.copyFileRange([nodeid, fh, 0n], [nodeid, fh, 100_000n], 1n), MAY_BLOCK)
  t.equal(c.release(nodeid, fh), 0)
  c.mayBlock = true
  t.equal(c.write(nodeid, synced.fh, 0n, Buffer.from('z')), 1)
})
