import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { lstatSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { errno } from '../../lib/errors.js'
import { Op } from '../../lib/fuse/opcodes.js'
import { O_CREAT, O_DIRECTORY, O_NOFOLLOW, O_PATH, O_RDONLY, O_RDWR, O_TMPFILE } from '../../lib/sys/file.js'
import { openDescriptors, serve } from '../support/passthrough-fixture.js'

const ROOT = 1n
const SECRET = 'outside the shared directory'

t.test('confined', async t => {
  const around = mkdtempSync('/tmp/passthrough-')
  t.teardown(() => rmSync(around, { recursive: true, force: true }))
  writeFileSync(join(around, 'secret'), SECRET)
  const root = join(around, 'shared')
  mkdirSync(root)
  const { client: c } = serve(t, { root })

  t.test('names', async t => {
    writeFileSync(join(root, 'f'), '')
    const d = c.mkdir(ROOT, 'd')
    for (const name of ['..', '.', '', 'd/..', '../secret', '/etc/passwd', 'd/', '/', '../shared/f']) {
      const label = JSON.stringify(name)
      t.equal(c.lookup(ROOT, name).error, -errno.EINVAL, `LOOKUP ${label}`)
      t.equal(c.lookup(d.nodeid, name).error, -errno.EINVAL, `LOOKUP ${label} in a directory`)
      t.equal(c.create(ROOT, name, O_RDWR).error, -errno.EINVAL, `CREATE ${label}`)
      t.equal(c.mkdir(ROOT, name).error, -errno.EINVAL, `MKDIR ${label}`)
      t.equal(c.mknod(ROOT, name, 0o100644).error, -errno.EINVAL, `MKNOD ${label}`)
      t.equal(c.symlink(ROOT, name, 'x').error, -errno.EINVAL, `SYMLINK ${label}`)
      t.equal(c.link(c.lookup(ROOT, 'f').nodeid, ROOT, name).error, -errno.EINVAL, `LINK ${label}`)
      t.equal(c.unlink(ROOT, name), -errno.EINVAL, `UNLINK ${label}`)
      t.equal(c.rmdir(ROOT, name), -errno.EINVAL, `RMDIR ${label}`)
      t.equal(c.rename(ROOT, 'f', ROOT, name), -errno.EINVAL, `RENAME to ${label}`)
      t.equal(c.rename(ROOT, name, ROOT, 'g'), -errno.EINVAL, `RENAME from ${label}`)
    }
    t.equal(c.lookup(ROOT, 'x'.repeat(255)).error, -errno.ENOENT)
    t.equal(c.lookup(ROOT, 'x'.repeat(256)).error, -errno.ENAMETOOLONG)
    t.equal(c.mkdir(ROOT, 'x'.repeat(256)).error, -errno.ENAMETOOLONG)
    t.equal(c.call(Op.LOOKUP, ROOT, Buffer.from('no end')).error, -errno.EINVAL, 'a name without a NUL')
    t.equal(c.call(Op.RENAME, ROOT, Buffer.concat([Buffer.from('0100000000000000', 'hex'), Buffer.from('f\0g')])).error, -errno.EINVAL)
    t.equal(c.call(Op.LOOKUP, ROOT, Buffer.alloc(0)).error, -errno.EINVAL)
  })

  t.test('names of any other bytes', async t => {
    for (const bytes of [Buffer.from([0xff, 0xfe, 0x80]), Buffer.from([1, 10, 13, 0x5c, 0x22]), Buffer.from('日本'), Buffer.from('...'), Buffer.from('..a'), Buffer.from(' ')]) {
      const made = c.create(ROOT, bytes, O_RDWR)
      t.equal(made.error, 0)
      c.release(made.nodeid, made.fh)
      t.ok(c.list(ROOT).some(e => e.name.equals(bytes)))
      t.equal(c.lookup(ROOT, bytes).nodeid, made.nodeid)
      t.equal(c.unlink(ROOT, bytes), 0)
    }
  })

  t.test('symbolic links lead nowhere', async t => {
    symlinkSync(around, join(root, 'out'))
    symlinkSync(join(around, 'secret'), join(root, 'leak'))
    symlinkSync('/proc/self/root', join(root, 'magic'))
    const out = c.lookup(ROOT, 'out')
    t.equal(out.attr.mode & 0o170000, 0o120000)
    t.equal(c.lookup(out.nodeid, 'secret').error, -errno.ENOTDIR)
    t.equal(c.opendir(out.nodeid).error, -errno.ENOTDIR)
    t.equal(c.create(out.nodeid, 'planted', O_RDWR).error, -errno.ENOTDIR)
    for (const name of ['leak', 'magic']) {
      const leak = c.lookup(ROOT, name)
      t.equal(c.open(leak.nodeid, O_RDONLY).error, -errno.ELOOP)
      t.equal(c.create(ROOT, name, O_RDWR).error, -errno.ELOOP)
    }
    t.equal(c.setattr(c.lookup(ROOT, 'leak').nodeid, 8, { size: 0n }).error, -errno.EINVAL)
    t.equal(c.setxattr(c.lookup(ROOT, 'leak').nodeid, 'user.a', Buffer.from('b')), -errno.EPERM, 'as on a symbolic link')
  })

  t.test('node ids', async t => {
    const made = c.mkdir(ROOT, 'once')
    c.rmdir(ROOT, 'once')
    c.forget(made.nodeid, 1)
    const made2 = c.mkdir(ROOT, 'twice')
    t.equal(made2.nodeid & 0xffffffn, made.nodeid & 0xffffffn, 'the slot is used again')
    const wrong = [0n, 2n, made.nodeid, made2.nodeid + 1n, made2.nodeid + (1n << 24n), made2.nodeid + (1n << 52n), 0xffffffn, 1n << 24n, (1n << 24n) + 1n, (1n << 63n) - 1n]
    for (const nodeid of wrong) {
      t.ok(c.getattr(nodeid).error < 0, `GETATTR ${nodeid}`)
      t.ok(c.lookup(nodeid, 'f').error < 0)
      t.ok(c.open(nodeid, O_RDONLY).error < 0)
      t.ok(c.opendir(nodeid).error < 0)
      t.ok(c.create(nodeid, 'f', O_RDWR).error < 0)
      t.ok(c.rename(ROOT, 'twice', nodeid, 'x') < 0)
      t.ok(c.link(nodeid, ROOT, 'x').error < 0)
      t.ok(c.statfs(nodeid).error < 0)
      t.ok(c.readlink(nodeid).error < 0)
      t.ok(c.getxattr(nodeid, 'user.a').error < 0)
      c.forget(nodeid, 5)
    }
    t.equal(c.getattr(made2.nodeid).error, 0)
  })

  t.test('file handles', async t => {
    const a = c.create(ROOT, 'a', O_RDWR)
    const b = c.create(ROOT, 'b', O_RDWR)
    const dir = c.opendir(ROOT)
    t.equal(c.read(a.nodeid, b.fh, 0n, 1).error, -errno.EBADF, 'of another node')
    t.equal(c.read(ROOT, dir.fh, 0n, 1).error, -errno.EBADF, 'of a directory')
    t.equal(c.readdir(a.nodeid, a.fh, 0n, 4096).error, -errno.EBADF)
    c.release(a.nodeid, a.fh)
    const again = c.open(a.nodeid, O_RDWR)
    t.equal(again.fh & 0xfffffn, a.fh & 0xfffffn, 'the slot is used again')
    for (const fh of [a.fh, 0n, 1n, 3n, again.fh + 1n, again.fh + (1n << 20n), again.fh + (1n << 50n), 1n << 63n, 0xfffffn, (1n << 64n) - 1n]) {
      t.equal(c.read(a.nodeid, fh, 0n, 1).error, -errno.EBADF, `READ of ${fh}`)
      t.equal(c.write(a.nodeid, fh, 0n, Buffer.from('x')), -errno.EBADF)
      t.equal(c.flush(a.nodeid, fh), -errno.EBADF)
      t.equal(c.release(a.nodeid, fh), -errno.EBADF)
      t.equal(c.getattr(a.nodeid, fh).error, -errno.EBADF)
      t.equal(c.setattr(a.nodeid, 8, { fh, size: 0n }).error, -errno.EBADF)
    }
    t.equal(c.read(a.nodeid, again.fh, 0n, 1).error, 0)
  })

  t.test('flags that would reach further are dropped', async t => {
    writeFileSync(join(root, 'flags'), 'content')
    const { nodeid } = c.lookup(ROOT, 'flags')
    const { fh, error } = c.open(nodeid, O_RDONLY | O_PATH | O_CREAT | O_NOFOLLOW | O_DIRECTORY | O_TMPFILE)
    t.equal(error, 0)
    t.equal(c.read(nodeid, fh, 0n, 7).data.toString(), 'content')
  })

  t.test('names that race with renames', async t => {
    // between statx and name_to_handle_at a name may get another inode: never one of the outside
    mkdirSync(join(root, 'race'))
    const dir = c.lookup(ROOT, 'race').nodeid
    for (let i = 0; i < 300; i++) {
      const name = join(root, 'race/x')
      if (i % 3 === 0) symlinkSync(join(around, 'secret'), name)
      else if (i % 3 === 1) writeFileSync(name, 'inside')
      else mkdirSync(name)
      const entry = c.lookup(dir, 'x')
      renameSync(name, join(root, 'race/y'))
      symlinkSync(around, name)
      const { fh, error } = c.open(entry.nodeid, O_RDONLY)
      if (error === 0) t.equal(c.read(entry.nodeid, fh, 0n, 100).data.toString(), 'inside')
      const below = c.lookup(entry.nodeid, 'secret')
      t.ok(below.error < 0)
      unlinkSync(name)
      rmSync(join(root, 'race/y'), { recursive: true })
      if (error === 0) c.release(entry.nodeid, fh)
    }
  })

  for (const fileHandles of [true, false]) {
    t.test(`while another process changes what names lead to, ${fileHandles ? 'with' : 'without'} file handles`, async t => {
      const shared = mkdtempSync('/tmp/passthrough-')
      const { client: c } = serve(t, { root: shared, limits: { fileHandles } })
      const swapper = spawn(process.execPath, [fileURLToPath(new URL('../support/swap-names.js', import.meta.url)), shared, around], { stdio: ['ignore', 'pipe', 'inherit'] })
      t.teardown(() => swapper.kill('SIGKILL'))
      await once(swapper.stdout, 'data')
      let read = 0
      let made = 0
      const startMs = performance.now()
      const spentMs = (): number => performance.now() - startMs
      // on a busy machine the other process leaves few moments in which it is all there
      for (let i = 0; spentMs() < 1500 || ((read === 0 || made === 0) && spentMs() < 20_000); i++) {
        const x = c.lookup(ROOT, 'x')
        if (x.error === 0) {
          const secret = c.lookup(x.nodeid, 'secret')
          if (secret.error === 0) read += readAll(t, secret)
          const planted = c.create(x.nodeid, `planted${i}`, O_RDWR)
          if (planted.error === 0) {
            made++
            c.release(planted.nodeid, planted.fh)
            c.unlink(x.nodeid, `planted${i}`)
          }
          const listed = c.opendir(x.nodeid)
          if (listed.error === 0) {
            for (const { name } of c.readdir(x.nodeid, listed.fh, 0n, 4096, i % 2 === 0).entries) if (name.toString() === 'shared') t.fail('lists the outside')
            c.releasedir(x.nodeid, listed.fh)
          }
        }
        const f = c.lookup(ROOT, 'f')
        if (f.error === 0) {
          read += readAll(t, f)
          c.link(f.nodeid, ROOT, 'linked')
          c.unlink(ROOT, 'linked')
        }
        const created = c.create(ROOT, 'f', O_RDWR)
        if (created.error === 0) c.release(created.nodeid, created.fh)
        c.rename(ROOT, 'x', ROOT, 'x')
        if (i % 50 === 0) c.forgetAll()
      }
      swapper.kill('SIGKILL')
      t.strictSame(readdirSync(around).sort(), ['secret', 'shared'], 'nothing was made outside')
      t.equal(lstatSync(join(around, 'secret')).nlink, 1, 'or linked')
      t.ok(read > 0 && made > 0, `${read} reads, ${made} files made inside`)

      function readAll(t: Test, { nodeid }: { nodeid: bigint }): number {
        const { fh, error } = c.open(nodeid, O_RDONLY)
        if (error !== 0) return 0
        const { data } = c.read(nodeid, fh, 0n, 100)
        c.release(nodeid, fh)
        if (data.toString() !== 'inside' && data.length > 0) t.fail(`read ${data.toString()}`)
        return 1
      }
    })
  }

  t.test('requests of random bytes', async t => {
    let seed = 12345
    const random = (n: number): number => {
      seed = Math.imul(seed, 1103515245) + 12345 & 0x7fffffff
      return seed % n
    }
    const before = openDescriptors()
    const ids = [0n, 1n, c.lookup(ROOT, 'f').nodeid, c.lookup(ROOT, 'd').nodeid, 12345678901n]
    for (let i = 0; i < 20_000; i++) {
      const opcode = random(60)
      // INIT and DESTROY end the session that the others are about
      if (opcode === Op.INIT || opcode === Op.DESTROY) continue
      const args = Buffer.alloc(random(120))
      for (let k = 0; k < args.length; k++) args[k] = random(4) === 0 ? random(256) : random(3) === 0 ? 0x2e : 0
      const { error } = c.call(opcode, ids[random(ids.length)]!, args, { room: random(3) === 0 ? random(200) : 4096, payload: Buffer.from('x') })
      if (error < -4095 && error !== -0x8000_0000) t.fail(`opcode ${opcode}: ${error}`)
    }
    c.destroy()
    t.ok(openDescriptors() <= before)
    t.equal(c.getattr(ROOT).error, 0)
  })
})
