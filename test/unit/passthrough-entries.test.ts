import { mkdirSync, mkdtempSync, rmSync, symlinkSync, unlinkSync, writeFileSync, existsSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { errno } from '../../lib/errors.js'
import { InodeTable } from '../../lib/device/passthrough/inode-table.js'
import { O_RDWR } from '../../lib/sys/file.js'
import { viewRegion } from '../../lib/sys/memory.js'
import { serve } from '../support/passthrough-fixture.js'

const ROOT = 1n
const DT_DIR = 4
const DT_REG = 8
const DT_LNK = 10

const places = ['/tmp', '/dev/shm'].filter(existsSync)

for (const place of places) {
  t.test(`directories on ${place}`, async t => {
    const { root, client: c, shared } = serve(t, { root: mkdtempSync(join(place, 'passthrough-')) })
    const table = new InodeTable(new Int32Array(viewRegion(shared.address, shared.lengthBytes).view.buffer), shared.address, shared.layout)
    mkdirSync(join(root, 'd'))
    const dir = c.lookup(ROOT, 'd').nodeid
    const expected = new Set(['.', '..'])
    for (let i = 0; i < 500; i++) {
      const name = `${'n'.repeat(i % 250)}${i}`
      writeFileSync(join(root, 'd', name), '')
      expected.add(name)
    }

    for (const plus of [false, true]) {
      for (const size of [600, 4096, 32768, 1 << 20]) {
        t.test(`${plus ? 'READDIRPLUS' : 'READDIR'} of ${size} bytes`, async t => {
          const all = c.list(dir, plus, size)
          t.equal(all.length, 502, 'each entry once')
          t.same(new Set(all.map(e => e.name.toString())), expected)
          const special = all.filter(e => e.name.toString() === '.' || e.name.toString() === '..')
          t.same(special.map(e => [e.type, e.nodeid]), [[DT_DIR, 0n], [DT_DIR, 0n]], 'no lookup of . and ..')
          if (plus) {
            for (const e of all) {
              if (e.nodeid === 0n) continue
              if (e.attr!.ino !== e.ino || e.type !== DT_REG) t.fail('attributes of another file')
            }
            for (const [nodeid, count] of c.lookups) if (table.lookups(Number(nodeid)) !== count) t.fail('lookups of an entry that did not fit')
          }
        })
      }
    }

    t.test('types', async t => {
      symlinkSync('x', join(root, 'link'))
      const types = new Map(c.list(ROOT, true).map(e => [e.name.toString(), e.type]))
      t.equal(types.get('link'), DT_LNK)
      t.equal(types.get('d'), DT_DIR)
    })

    t.test('offsets stay good while entries go', async t => {
      for (const plus of [false, true]) {
        mkdirSync(join(root, 'rm'))
        for (let i = 0; i < 1000; i++) writeFileSync(join(root, 'rm', `f${i}`), '')
        const rm = c.lookup(ROOT, 'rm').nodeid
        const { fh } = c.opendir(rm)
        const seen = new Set<string>()
        let twice = 0
        for (let offset = 0n; ;) {
          const { entries } = c.readdir(rm, fh, offset, 4096, plus)
          if (entries.length === 0) break
          for (const e of entries) {
            const name = e.name.toString()
            if (seen.has(name)) twice++
            seen.add(name)
            // removed at once: what follows must neither be skipped nor come again
            if (name.startsWith('f')) c.unlink(rm, name)
          }
          offset = entries.at(-1)!.off
        }
        t.equal(seen.size, 1002)
        t.equal(twice, 0)
        c.releasedir(rm, fh)
        t.equal(c.rmdir(ROOT, 'rm'), 0, 'empty')
      }
    })

    t.test('any offset can be gone back to', async t => {
      const { fh } = c.opendir(dir)
      const first = c.readdir(dir, fh, 0n, 4096).entries
      const second = c.readdir(dir, fh, first.at(-1)!.off, 4096).entries
      c.readdir(dir, fh, second.at(-1)!.off, 4096)
      t.same(c.readdir(dir, fh, first.at(-1)!.off, 4096).entries, second)
      t.same(c.readdir(dir, fh, 0n, 4096).entries, first)
      const middle = first[Math.floor(first.length / 2)]!
      t.same(c.readdir(dir, fh, middle.off, 4096).entries[0], first[Math.floor(first.length / 2) + 1])
      writeFileSync(join(root, 'd', 'later'), '')
      t.ok(c.list(dir).some(e => e.name.toString() === 'later'))
      unlinkSync(join(root, 'd', 'later'))
      t.equal(c.readdir(dir, fh, 0n, 8).error, -errno.EINVAL, 'room for nothing')
      t.equal(c.readdir(dir, fh, 0n, 4096).entries.length, first.length, 'and on')
      c.releasedir(dir, fh)
    })

    t.test('an open directory that is gone', async t => {
      const gone = c.mkdir(ROOT, 'gone')
      const { fh } = c.opendir(gone.nodeid)
      t.equal(c.rmdir(ROOT, 'gone'), 0)
      t.same(c.readdir(gone.nodeid, fh, 0n, 4096).entries.map(e => e.name.toString()).filter(n => n !== '.' && n !== '..'), [])
      t.equal(c.releasedir(gone.nodeid, fh), 0)
    })
  })
}

t.test('an entry that vanishes while it is listed is listed all the same', async t => {
  const { root, client: c } = serve(t)
  const made = c.create(ROOT, 'stays', O_RDWR)
  writeFileSync(join(root, 'goes'), '')
  const { fh } = c.opendir(ROOT)
  t.equal(c.readdir(ROOT, fh, 0n, 4096, true).entries.length, 4)
  c.release(made.nodeid, made.fh)
  rmSync(join(root, 'goes'))
  t.equal(c.list(ROOT, true).length, 3)
})
