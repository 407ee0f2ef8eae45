/** `max_size`: what a tree may take, and attempts to take more. */
import { execFileSync } from 'node:child_process'
import { linkSync, mkdirSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { Head } from '../../lib/device/passthrough/layout.js'
import type { PassthroughShared } from '../../lib/device/passthrough/shared.js'
import { errno, UsageError } from '../../lib/errors.js'
import { FATTR_SIZE, FuseKstatfs } from '../../lib/fuse/abi.js'
import { O_CREAT, O_RDWR, O_TRUNC } from '../../lib/sys/file.js'
import { viewRegion } from '../../lib/sys/memory.js'
import type { Entry, FuseClient, Opened } from '../support/fuse-client.js'
import { serve } from '../support/passthrough-fixture.js'

const ROOT = 1n
const MIB = 1 << 20
const KIB = 1024
const KEEP_SIZE = 1
const PUNCH_HOLE = 2
const { ENOSPC } = errno
/** What the metadata of a file may take beside its contents. */
const SLACK = 64 * KIB

function sums({ address, lengthBytes }: PassthroughShared): { used: number, admitted: number } {
  const { view } = viewRegion(address, lengthBytes)
  return { used: view.getFloat64(Head.SPACE_USED * 4, true) * 512, admitted: view.getFloat64(Head.SPACE_ADMITTED * 4, true) }
}

function du(root: string): number {
  return Number(execFileSync('du', ['-sk', root], { encoding: 'utf8' }).split('\t')[0]) * KIB
}

function make(c: FuseClient, name: string): Entry & Opened {
  return c.create(ROOT, name, O_RDWR | O_CREAT)
}

/** Writes until it is refused. @returns bytes written */
function fill(c: FuseClient, { nodeid, fh }: Entry & Opened, from = 0, part = 64 * KIB): number {
  for (let at = from; at < from + 64 * MIB; at += part) {
    const done = c.write(nodeid, fh, BigInt(at), Buffer.alloc(part, 1))
    if (done === -ENOSPC) return at - from
    if (done !== part) throw new Error(`wrote ${done}`)
  }
  throw new Error('never refused')
}

t.test('written, removed, written again', async t => {
  const { client: c, shared, root } = serve(t, { maxSize: 4 * MIB })
  for (let round = 0; round < 3; round++) {
    const file = make(c, 'file')
    const written = fill(c, file)
    t.ok(written > 4 * MIB - 2 * SLACK - 64 * KIB && written <= 4 * MIB, `${written} bytes`)
    t.equal(c.write(file.nodeid, file.fh, 0n, Buffer.alloc(64 * KIB, 2)), 64 * KIB, 'what is there can be overwritten')
    t.ok(Math.abs(sums(shared).used - du(root)) <= SLACK, 'as du counts')
    t.equal(c.unlink(ROOT, 'file'), 0)
    const other = make(c, 'other')
    t.ok(fill(c, other) <= SLACK + 64 * KIB, 'a file that is open takes its room without a name')
    t.equal(c.release(file.nodeid, file.fh), 0)
    c.forget(file.nodeid, 1)
    t.ok(fill(c, other, MIB) > 3 * MIB, 'and gives it back when it is forgotten')
    c.release(other.nodeid, other.fh)
    t.equal(c.unlink(ROOT, 'other'), 0)
    c.forget(other.nodeid, 1)
    t.ok(Math.abs(sums(shared).used - du(root)) <= SLACK)
    t.equal(sums(shared).admitted, 0, 'nothing is left admitted')
  }
})

t.test('what was there before', async t => {
  const { client: before, root } = serve(t)
  before.destroy()
  mkdirSync(join(root, 'a/b/c'), { recursive: true })
  writeFileSync(join(root, 'a/b/c/file'), Buffer.alloc(MIB, 1))
  linkSync(join(root, 'a/b/c/file'), join(root, 'second name'))
  truncateSync(join(root, 'a/b/c/file'), MIB)
  writeFileSync(join(root, 'sparse'), '')
  truncateSync(join(root, 'sparse'), 2 ** 40)
  const { client: c, shared } = serve(t, { root, maxSize: 2 * MIB })
  t.ok(Math.abs(sums(shared).used - du(root)) <= SLACK, 'each file once, and holes not at all')
  const file = make(c, 'file')
  const written = fill(c, file)
  t.ok(written > MIB - 3 * SLACK && written <= MIB)
  const old = c.lookup(ROOT, 'second name')
  t.equal(c.unlink(ROOT, 'second name'), 0)
  t.ok(fill(c, file, 8 * MIB) <= SLACK, 'one of two names gives nothing back')
  const again = c.walk('a/b/c/file')
  t.equal(again.nodeid, old.nodeid)
  t.equal(c.unlink(c.walk('a/b/c').nodeid, 'file'), 0)
  c.forget(old.nodeid, 2)
  t.ok(fill(c, file, 16 * MIB) > MIB - 3 * SLACK, 'the last one does')
})

t.test('holes, truncation, allocation', async t => {
  const { client: c, shared, root } = serve(t, { maxSize: 4 * MIB })
  const file = make(c, 'file')
  const set = (size: number): number => c.setattr(file.nodeid, FATTR_SIZE, { size: BigInt(size) }).error
  t.equal(set(2 ** 40), 0, 'a hole takes nothing')
  t.equal(c.write(file.nodeid, file.fh, BigInt(2 ** 39), Buffer.from('x')), 1)
  t.equal(c.fallocate(file.nodeid, file.fh, 0n, BigInt(8 * MIB), 0), -ENOSPC)
  t.equal(c.fallocate(file.nodeid, file.fh, 0n, BigInt(8 * MIB), KEEP_SIZE), -ENOSPC)
  t.equal(c.fallocate(file.nodeid, file.fh, 0n, BigInt(2 * MIB), 0), 0)
  t.ok(sums(shared).used >= 2 * MIB)
  t.equal(c.fallocate(file.nodeid, file.fh, BigInt(4 * MIB), BigInt(3 * MIB), 0), -ENOSPC)
  t.equal(c.fallocate(file.nodeid, file.fh, 0n, BigInt(2 * MIB), KEEP_SIZE | PUNCH_HOLE), 0)
  t.ok(sums(shared).used < MIB, 'a punched hole gives back')
  t.equal(set(0), 0)
  t.equal(c.fallocate(file.nodeid, file.fh, 0n, BigInt(3.5 * MIB), 0), 0)
  t.ok(fill(c, file, 0, MIB / 2) >= 3.5 * MIB - MIB / 2, 'what was allocated can be written, to the last')
  t.equal(set(0), 0)
  t.ok(sums(shared).used < MIB, 'truncation gives back')
  fill(c, file)
  const again = c.open(file.nodeid, O_RDWR | O_TRUNC)
  t.equal(again.error, 0)
  t.ok(sums(shared).used < MIB, 'and O_TRUNC')
  t.ok(Math.abs(sums(shared).used - du(root)) <= SLACK)
  t.equal(sums(shared).admitted, 0)
})

t.test('copies', async t => {
  const { client: c, shared, root } = serve(t, { maxSize: 4 * MIB })
  const from = make(c, 'from')
  for (let at = 0; at < 1.5 * MIB; at += MIB / 2) c.write(from.nodeid, from.fh, BigInt(at), Buffer.alloc(MIB / 2, 3))
  let copied = 0
  for (let i = 0; i < 20; i++) {
    const to = make(c, `to${i}`)
    let done = 0
    for (let at = 0n; at < BigInt(1.5 * MIB); at += BigInt(done)) {
      done = c.copyFileRange([from.nodeid, from.fh, at], [to.nodeid, to.fh, at], BigInt(8 * MIB))
      if (done <= 0) break
      copied += done
    }
    if (done === -ENOSPC) break
    t.ok(done > 0)
  }
  t.ok(copied > 0 && copied <= 2.5 * MIB, `${copied} bytes copied`)
  t.ok(sums(shared).used <= 4 * MIB + SLACK)
  t.ok(Math.abs(sums(shared).used - du(root)) <= SLACK)
})

t.test('files without a name, renamed over, linked', async t => {
  const { client: c, shared, root } = serve(t, { maxSize: 4 * MIB })
  const start = sums(shared).used
  const tmp = c.tmpfile(ROOT, O_RDWR)
  c.write(tmp.nodeid, tmp.fh, 0n, Buffer.alloc(MIB, 1))
  c.release(tmp.nodeid, tmp.fh)
  c.forget(tmp.nodeid, 1)
  t.ok(Math.abs(sums(shared).used - start) <= SLACK, 'an O_TMPFILE that is forgotten')
  const kept = c.tmpfile(ROOT, O_RDWR)
  c.write(kept.nodeid, kept.fh, 0n, Buffer.alloc(MIB, 1))
  t.equal(c.link(kept.nodeid, ROOT, 'named').error, 0)
  c.release(kept.nodeid, kept.fh)
  c.forget(kept.nodeid, 2)
  t.ok(sums(shared).used >= start + MIB, 'one that has got a name stays')
  const other = make(c, 'other')
  c.write(other.nodeid, other.fh, 0n, Buffer.alloc(MIB, 1))
  c.release(other.nodeid, other.fh)
  const named = c.lookup(ROOT, 'named')
  t.equal(c.rename(ROOT, 'other', ROOT, 'named'), 0)
  c.forget(named.nodeid, 1)
  t.ok(sums(shared).used < start + MIB + SLACK, 'what was renamed over')
  t.ok(Math.abs(sums(shared).used - du(root)) <= SLACK)
})

t.test('when it is full nothing is made', async t => {
  const { client: c, shared, root } = serve(t, { maxSize: MIB })
  const file = make(c, 'file')
  fill(c, file, 0, 4 * KIB)
  let made = 0
  for (const [name, call] of [
    ['mkdir', (i: number) => c.mkdir(ROOT, `d${i}`).error], ['symlink', (i: number) => c.symlink(ROOT, `s${i}`, 'x'.repeat(3000)).error],
    ['setxattr', (i: number) => c.setxattr(file.nodeid, `user.a${i}`, Buffer.alloc(3000))],
  ] as const) {
    let error = 0
    for (let i = 0; i < 2000 && error === 0; i++, made++) error = call(i)
    t.ok(error === -ENOSPC || error === -errno.EOPNOTSUPP, `${name}: ${error}`)
  }
  t.ok(du(root) <= MIB + SLACK, `${made} were made`)
  t.equal(sums(shared).admitted, 0)
  t.equal(c.unlink(ROOT, 'file'), 0, 'but removed')
  c.release(file.nodeid, file.fh)
  c.forget(file.nodeid, 1)
  t.equal(c.mkdir(ROOT, 'now').error, 0)
})

t.test('statfs', async t => {
  const { client: c } = serve(t, { maxSize: 8 * MIB })
  const free = (): { free: number, total: number } => {
    const { view } = c.statfs(ROOT)
    const unit = view.getUint32(FuseKstatfs.frsize, true)
    return { free: Number(view.getBigUint64(FuseKstatfs.bavail, true)) * unit, total: Number(view.getBigUint64(FuseKstatfs.blocks, true)) * unit }
  }
  t.ok(free().total <= 8 * MIB + 64 * KIB && free().free >= 8 * MIB - SLACK)
  const file = make(c, 'file')
  c.write(file.nodeid, file.fh, 0n, Buffer.alloc(MIB, 1))
  t.ok(Math.abs(free().free - 7 * MIB) <= SLACK)
})

t.test('options', async t => {
  t.throws(() => serve(t, { maxSize: 0 }), UsageError)
  t.throws(() => serve(t, { maxSize: 1.5 }), UsageError)
  t.throws(() => serve(t, { maxSize: MIB, direct: true }), UsageError)
})
