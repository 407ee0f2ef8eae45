import { linkSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, statSync, unlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { errno } from '../../lib/errors.js'
import { Rec, ROOT_INDEX } from '../../lib/device/passthrough/inode-record.js'
import { InodeTable } from '../../lib/device/passthrough/inode-table.js'
import { Head, RECORD_WORDS } from '../../lib/device/passthrough/layout.js'
import { defaultOptions } from '../../lib/device/passthrough/options.js'
import { openPassthrough, type PassthroughShared } from '../../lib/device/passthrough/shared.js'
import { AT_FDCWD, O_RDONLY, O_RDWR, statxPath } from '../../lib/sys/file.js'
import { St, StatBuffer, STAT_MASK } from '../../lib/device/passthrough/stat-buffer.js'
import { Volume } from '../../lib/device/passthrough/volume.js'
import { scratch, viewRegion } from '../../lib/sys/memory.js'
import { openDescriptors, serve } from '../support/passthrough-fixture.js'

const ROOT = 1n

/** The table of a shared directory and the words of its memory. */
function tableOf(shared: PassthroughShared): { table: InodeTable, words: Int32Array } {
  const words = new Int32Array(viewRegion(shared.address, shared.lengthBytes).view.buffer)
  return { table: new InodeTable(words, shared.address, shared.layout), words }
}

t.test('lookups are counted exactly', async t => {
  const { root, client: c, shared } = serve(t)
  const { table, words } = tableOf(shared)
  mkdirSync(join(root, 'd'))
  for (let i = 0; i < 50; i++) writeFileSync(join(root, 'd', `f${i}`), '')
  const d = c.lookup(ROOT, 'd')
  for (let i = 0; i < 3; i++) for (const e of c.list(d.nodeid, true)) if (e.nodeid) t.ok(c.lookups.get(e.nodeid)! > 0)
  linkSync(join(root, 'd/f0'), join(root, 'd/hard'))
  c.lookup(d.nodeid, 'hard')
  c.link(c.lookup(d.nodeid, 'f1').nodeid, d.nodeid, 'another')
  c.create(d.nodeid, 'f2', O_RDWR)
  c.mkdir(d.nodeid, 'sub')
  t.equal(table.live, c.lookups.size + 1, 'the root and what the client knows')
  for (const [nodeid, count] of c.lookups) t.equal(table.lookups(Number(nodeid)), count)

  const one = c.lookup(d.nodeid, 'f3').nodeid
  const held = c.lookups.get(one)!
  c.forget(one, held - 1)
  t.equal(c.getattr(one).error, 0, 'one lookup left')
  c.forget(one, 1)
  t.equal(c.getattr(one).error, -errno.ESTALE)
  c.forget(one, 1)
  t.not(c.lookup(d.nodeid, 'f3').nodeid, one, 'a forgotten id does not come back')

  c.forgetAll()
  t.equal(table.live, 1, 'the root is left')
  t.equal(words[Head.HASH_USED], 1)
  t.equal(words[Head.PATH_FDS], 1)
  c.forget(ROOT, 1000)
  t.equal(c.getattr(ROOT).error, 0, 'the root is never forgotten')
})

t.test('counts beyond 32 bits', async t => {
  const { client: c, shared } = serve(t)
  const { table, words } = tableOf(shared)
  const f = c.create(ROOT, 'f', O_RDWR)
  const index = Number(f.nodeid & 0xffffffn)
  // as after 2^30 − 1 lookups: the next ones go through the carry
  const count = shared.layout.recordsAt + index * RECORD_WORDS + Rec.COUNT
  words[count] = 2 ** 30 - 1
  for (let i = 0; i < 3; i++) c.lookup(ROOT, 'f')
  t.equal(table.lookups(Number(f.nodeid)), 2 ** 30 + 2)
  t.ok(words[count]! < 2 ** 30, 'carried')
  words[count + 1] = 100
  const total = table.lookups(Number(f.nodeid))
  t.ok(total > 2 ** 32)
  c.forget(f.nodeid, total - 5)
  t.equal(table.lookups(Number(f.nodeid)), 5)
  c.forget(f.nodeid, 5)
  t.equal(c.getattr(f.nodeid).error, -errno.ESTALE)
})

t.test('an inode number that is used again is another inode', async t => {
  const { root, client: c } = serve(t)
  let reused = 0
  for (let i = 0; i < 200; i++) {
    const file = join(root, 'victim')
    writeFileSync(file, 'old')
    const before = c.lookup(ROOT, 'victim')
    unlinkSync(file)
    writeFileSync(file, 'new one')
    const after = c.lookup(ROOT, 'victim')
    t.equal(after.attr.size, 7n)
    if (before.attr.ino === after.attr.ino) {
      reused++
      if (before.nodeid === after.nodeid) t.fail('the node id of a file that is gone')
    }
    const opened = c.open(after.nodeid, O_RDONLY)
    t.equal(c.read(after.nodeid, opened.fh, 0n, 100).data.toString(), 'new one')
    c.release(after.nodeid, opened.fh)
    t.equal(c.open(before.nodeid, O_RDONLY).error, -errno.ESTALE)
    unlinkSync(file)
  }
  t.comment(`${reused} of 200 inode numbers were used again at once`)
})

t.test('what is unlinked lives on, also when its inode number was that of a file that is known still', async t => {
  const { root, client: c } = serve(t)
  let reused = 0
  for (let i = 0; i < 20; i++) {
    writeFileSync(join(root, 'before'), 'old')
    const { ino } = statSync(join(root, 'before'))
    const before = c.lookup(ROOT, 'before')
    unlinkSync(join(root, 'before'))
    writeFileSync(join(root, 'after'), 'new')
    if (statSync(join(root, 'after')).ino === ino) reused++
    const after = c.lookup(ROOT, 'after')
    t.equal(c.unlink(ROOT, 'after'), 0)
    t.same([c.getattr(after.nodeid).error, c.getattr(after.nodeid).attr?.nlink], [0, 0])
    c.forget(before.nodeid, 1)
    c.forget(after.nodeid, 1)
  }
  t.comment(`the number was used again ${reused} times`)
})

t.test('a record is held only while it is one of an inode', async t => {
  const { root, client: c, shared } = serve(t)
  const { table } = tableOf(shared)
  const stat = new StatBuffer()
  writeFileSync(join(root, 'f'), '')
  const { nodeid } = c.lookup(ROOT, 'f')
  statxPath(AT_FDCWD, join(root, 'f'), 0, STAT_MASK, stat.address)
  const index = table.pinKnown(stat)
  t.equal(table.nodeid(index), Number(nodeid))
  c.forget(nodeid, 1)
  t.equal(table.pinKnown(stat), 0, 'forgotten, and still held')
  table.unpin(index)
  t.equal(table.live, 1)
})

t.test('30,000 files need few descriptors', async t => {
  const { root, client: c, shared } = serve(t, { limits: { cachedDescriptors: 500 } })
  const { table } = tableOf(shared)
  const before = openDescriptors()
  for (let d = 0; d < 30; d++) {
    const dir = c.mkdir(ROOT, `d${d}`)
    for (let i = 0; i < 1000; i++) writeFileSync(join(root, `d${d}`, `f${i}`), '')
    t.equal(c.list(dir.nodeid, true, 32768).filter(e => e.nodeid !== 0n).length, 1000)
  }
  t.equal(table.live, 30_031)
  t.ok(openDescriptors() - before < 100, 'looking up opens nothing')
  let asked = 0
  for (const nodeid of c.lookups.keys()) if (c.getattr(nodeid).error === 0) asked++
  t.equal(asked, 30_030)
  t.ok(openDescriptors() - before <= 510, `${openDescriptors() - before} descriptors after GETATTR of each`)
  const some = c.lookup(c.lookup(ROOT, 'd7').nodeid, 'f7').nodeid
  const { fh } = c.open(some, O_RDWR)
  t.equal(c.write(some, fh, 0n, Buffer.from('open')), 4)
  c.forgetAll()
  t.equal(table.live, 1)
  c.destroy()
  t.ok(openDescriptors() <= before, 'nothing left open')
})

/** Memory of a mapping that is there, in bytes. Source: proc(5), smaps. */
function residentBytes(address: number): number {
  let inside = false
  for (const line of readFileSync('/proc/self/smaps', 'utf8').split('\n')) {
    const [, from, to] = /^([0-9a-f]+)-([0-9a-f]+) /.exec(line) ?? []
    if (from) inside = parseInt(from, 16) <= address && address < parseInt(to!, 16)
    else if (inside && line.startsWith('Rss:')) return parseInt(line.slice(4), 10) * 1024
  }
  return 0
}

t.test('two million inodes', async t => {
  const { client: c, shared } = serve(t)
  const { table } = tableOf(shared)
  t.ok(shared.layout.inodeCapacity >= 4_000_000, 'room for more')
  const empty = residentBytes(shared.address)
  const stat = new StatBuffer()
  const handle = new Int32Array(12)
  handle[0] = 8
  stat.words[St.mode] = 0o100644
  const COUNT = 2_000_000
  const started = performance.now()
  for (let i = 1; i <= COUNT; i++) {
    stat.words[St.ino] = i
    stat.words[St.mntId] = -1
    handle[2] = i
    if (table.insertHandle(stat, handle, false) < 0) t.fail('no room')
  }
  const seconds = (performance.now() - started) / 1000
  const perInode = (residentBytes(shared.address) - empty) / COUNT
  t.comment(`${perInode.toFixed(1)} bytes per inode, ${(seconds * 1e6 / COUNT).toFixed(2)} µs to learn one`)
  t.equal(table.live, COUNT + 1)
  t.ok(perInode > 90 && perInode < 200, `${perInode} bytes per inode`)
  c.destroy()
  t.equal(table.live, 1)
})

t.test('a full table says so', async t => {
  const { root, client: c } = serve(t, { limits: { inodes: 64 } })
  for (let i = 0; i < 100; i++) writeFileSync(join(root, `f${i}`), '')
  const entries = c.list(ROOT, true)
  t.equal(entries.length, 102, 'every entry is listed')
  t.equal(entries.filter(e => e.nodeid !== 0n).length, 62, 'with a node as far as there are any')
  const without = entries.find(e => e.nodeid === 0n && e.name.toString().startsWith('f'))!
  t.equal(c.lookup(ROOT, without.name).error, -errno.ENFILE)
  t.equal(c.create(ROOT, 'more', O_RDWR).error, -errno.ENFILE)
  c.forgetAll()
  t.equal(c.lookup(ROOT, without.name).error, 0)
})

t.test('the hash grows and shrinks', async t => {
  const { root, client: c, shared } = serve(t)
  const { table, words } = tableOf(shared)
  for (let i = 0; i < 20_000; i++) writeFileSync(join(root, `f${i}`), '')
  c.list(ROOT, true, 65536)
  t.ok(words[Head.HASH_LEVEL]! >= 2)
  const ids = [...c.lookups.keys()]
  // every other one: the rest must still be found behind the holes
  c.batchForget(ids.filter((_, i) => i % 2 === 0).map(id => [id, c.lookups.get(id)!]))
  t.equal(table.live, 10_001)
  const known = new Set(c.lookups.keys())
  let same = 0
  for (let i = 0; i < 20_000; i++) if (known.has(c.lookup(ROOT, `f${i}`).nodeid)) same++
  t.equal(same, 10_000)
  t.equal(table.live, 20_001)
})

for (const fileHandles of [true, false]) {
  t.test(`a small descriptor cache, ${fileHandles ? 'with' : 'without'} file handles`, async t => {
    const { root, client: c, shared } = serve(t, { limits: { cachedDescriptors: 16, fileHandles } })
    const { words } = tableOf(shared)
    const before = openDescriptors()
    const dirs = []
    for (let d = 0; d < 20; d++) {
      mkdirSync(join(root, `d${d}/e`), { recursive: true })
      for (let i = 0; i < 20; i++) writeFileSync(join(root, `d${d}/e/f${i}`), `${d} ${i}`)
      const dir = c.lookup(ROOT, `d${d}`).nodeid
      dirs.push([dir, c.lookup(dir, 'e').nodeid] as const)
      c.list(dirs[d]![1], true)
    }
    t.ok(openDescriptors() - before <= 17, `${openDescriptors() - before} descriptors`)
    let right = 0
    for (let d = 0; d < 20; d++) {
      for (let i = 0; i < 20; i++) {
        const { nodeid, attr } = c.lookup(dirs[d]![1], `f${i}`)
        const { fh } = c.open(nodeid, O_RDONLY)
        if (c.read(nodeid, fh, 0n, 100).data.toString() === `${d} ${i}` && c.getattr(nodeid).attr.ino === attr.ino) right++
        c.release(nodeid, fh)
      }
    }
    t.equal(right, 400)

    const moved = c.lookup(dirs[0]![1], 'f0').nodeid
    t.equal(c.rename(dirs[0]![1], 'f0', dirs[1]![0], 'elsewhere'), 0)
    for (let d = 2; d < 20; d++) c.list(dirs[d]![1], true)
    for (let i = 1; i < 20; i++) c.getattr(c.lookup(dirs[3]![1], `f${i}`).nodeid)
    t.equal(c.getattr(moved).attr.size, 3n, 'renamed through us')

    const there = c.lookup(dirs[5]![1], 'f5').nodeid
    renameSync(join(root, 'd5/e/f5'), join(root, 'd5/g'))
    for (let i = 1; i < 20; i++) c.getattr(c.lookup(dirs[3]![1], `f${i}`).nodeid)
    t.equal(c.getattr(there).error, fileHandles ? 0 : -errno.ESTALE, 'renamed behind our back')
    const found = c.lookup(dirs[5]![0], 'g')
    t.equal(c.getattr(found.nodeid).attr.size, 3n, 'a new lookup finds it')

    const doomed = c.lookup(dirs[6]![1], 'f6').nodeid
    t.equal(c.unlink(dirs[6]![1], 'f6'), 0)
    for (let i = 1; i < 20; i++) c.getattr(c.lookup(dirs[3]![1], `f${i}`).nodeid)
    t.equal(c.getattr(doomed).attr.nlink, 0, 'unlinked through us')
    c.forgetAll()
    t.equal(words[Head.KEPT_FDS], 1, 'the root')
    t.equal(words[Head.PATH_FDS], 1)
    t.ok(openDescriptors() <= before)
  })
}

const orders: Record<string, (volumes: [Volume, Volume], remove: () => void) => void> = {
  'the one that fails ends last': ([one, other], remove) => {
    remove()
    other.removal.end(true)
    one.removal.end(false)
  },
  'the one that fails ends first': ([one, other], remove) => {
    one.removal.end(false)
    remove()
    other.removal.end(true)
  },
  'the host removes it, both fail': ([one, other], remove) => {
    remove()
    one.removal.end(false)
    other.removal.end(false)
  },
}

for (const [order, play] of Object.entries(orders)) {
  t.test(`a last name that two workers remove at once: ${order}`, async t => {
    const { root, client: c, shared } = serve(t, { limits: { cachedDescriptors: 16 } })
    const { words } = tableOf(shared)
    writeFileSync(join(root, 'f'), 'twelve bytes')
    const { nodeid } = c.lookup(ROOT, 'f')
    const name = scratch(2)
    name.bytes[0] = 0x66
    const volumes: [Volume, Volume] = [new Volume(shared), new Volume(shared)]
    for (const volume of volumes) volume.removal.begin(volume.fd(ROOT_INDEX), name.address)
    t.equal(words[Head.KEPT_FDS], 2)
    play(volumes, () => unlinkSync(join(root, 'f')))
    volumes[0].cache.shrink()
    const { error, attr } = c.getattr(nodeid)
    t.equal(error, 0, 'its descriptor is still open')
    t.match(attr, { nlink: 0, size: 12n })
    c.forgetAll()
    t.equal(words[Head.KEPT_FDS], 1)
    t.equal(words[Head.PATH_FDS], 1)
  })
}

t.test('a last name that cannot be removed: its descriptor may be closed early again', async t => {
  const { root, client: c, shared } = serve(t, { limits: { cachedDescriptors: 16 } })
  const { words } = tableOf(shared)
  mkdirSync(join(root, 'd/e'), { recursive: true })
  const { nodeid } = c.lookup(ROOT, 'd')
  t.equal(c.rmdir(ROOT, 'd'), -errno.ENOTEMPTY)
  t.equal(words[Head.KEPT_FDS], 1)
  t.equal(words[Head.PATH_FDS], 2)
  new Volume(shared).cache.shrink()
  t.equal(words[Head.PATH_FDS], 1)
  t.equal(c.getattr(nodeid).error, 0)
})

t.test('names too long to be remembered, without file handles', async t => {
  const { root, client: c, shared } = serve(t, { limits: { cachedDescriptors: 16, fileHandles: false } })
  const { words } = tableOf(shared)
  const long = 'n'.repeat(100)
  for (let i = 0; i < 40; i++) writeFileSync(join(root, `${long}${i}`), '')
  for (let i = 0; i < 40; i++) t.equal(c.lookup(ROOT, `${long}${i}`).error, 0)
  t.equal(words[Head.KEPT_FDS], 41)
  writeFileSync(join(root, 'short'), '')
  const short = c.lookup(ROOT, 'short')
  t.equal(c.rename(ROOT, 'short', ROOT, long), 0)
  t.equal(words[Head.KEPT_FDS], 42, 'kept once its name is too long')
  for (const nodeid of c.lookups.keys()) t.equal(c.getattr(nodeid).error, 0)
  t.equal(c.getattr(short.nodeid).error, 0)
  c.forgetAll()
  t.equal(words[Head.KEPT_FDS], 1)
})

t.test('one line for what cannot be opened', async t => {
  const root = mkdtempSync('/tmp/passthrough-')
  t.teardown(() => rmSync(root, { recursive: true }))
  writeFileSync(join(root, 'file'), '')
  const before = openDescriptors()
  const open = (name: string) => () => openPassthrough({ ...defaultOptions, root: name })
  t.throws(open(join(root, 'file')), { message: `${join(root, 'file')}: not a directory` })
  t.throws(open(join(root, 'none')), { message: `${join(root, 'none')}: no such directory` })
  t.throws(open(''), { code: 'EINVAL' })
  t.throws(() => openPassthrough({ ...defaultOptions, root, posixAcl: true, xattr: false }), { message: 'posix_acl needs xattr' })
  t.equal(openDescriptors(), before)
  t.equal(statSync(root).isDirectory(), true)
  t.equal(readFileSync(join(root, 'file'), 'utf8'), '')
})
