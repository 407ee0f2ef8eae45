import { closeSync, mkdirSync, openSync, renameSync, unlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { errno } from '../../lib/errors.js'
import { FOPEN_NOFLUSH } from '../../lib/fuse/abi.js'
import { O_RDONLY, O_RDWR } from '../../lib/sys/file.js'
import { openDescriptors, serve } from '../support/passthrough-fixture.js'

const ROOT = 1n

/** Opens files until there are no descriptors left. @returns them */
function useUp(): number[] {
  const taken: number[] = []
  try {
    for (;;) taken.push(openSync('/dev/null', 'r'))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EMFILE') throw error
  }
  return taken
}

for (const fileHandles of [true, false]) {
  t.test(`no descriptors left, ${fileHandles ? 'with' : 'without'} file handles`, async t => {
    const { root, client: c } = serve(t, { limits: { fileHandles } })
    mkdirSync(join(root, 'd'))
    for (let i = 0; i < 300; i++) writeFileSync(join(root, 'd', `f${i}`), '')
    const dir = c.lookup(ROOT, 'd').nodeid
    const open = c.opendir(dir)
    for (let i = 0; i < 50; i++) c.getattr(c.lookup(dir, `f${i}`).nodeid)
    const before = openDescriptors()
    let taken = useUp()

    const file = c.lookup(dir, 'f10').nodeid
    const opened = c.open(file, O_RDONLY)
    t.equal(opened.error, 0, 'the cache made room')
    t.ok(openDescriptors() <= before + taken.length + 1)
    taken = [...taken, ...useUp()]

    // now there is nothing to make room with
    while (true) {
      const more = c.open(file, O_RDONLY)
      if (more.error === 0) continue
      t.equal(more.error, -errno.EMFILE, 'said as it is')
      break
    }
    t.equal(c.create(dir, 'new', O_RDWR).error, -errno.EMFILE)
    t.equal(c.opendir(dir).error, -errno.EMFILE)
    const entries = c.readdir(dir, open.fh, 0n, 1 << 20, true).entries
    t.equal(entries.length, 302, 'every entry is listed')
    if (fileHandles) t.equal(entries.filter(e => e.nodeid !== 0n).length, 300, 'and known, which takes no descriptor')
    for (const name of ['f297', 'f298', 'f299']) {
      const fresh = c.lookup(dir, name)
      if (fileHandles) t.equal(fresh.error, 0, 'a lookup takes none')
      t.ok([0, -errno.EMFILE].includes(fresh.error || c.getattr(fresh.nodeid).error), 'nothing but EMFILE')
    }
    t.equal(c.getattr(file, opened.fh).error, 0)

    for (const fd of taken) closeSync(fd)
    t.equal(c.create(dir, 'new', O_RDWR).error, 0, 'and everything works again')
    t.equal(c.getattr(c.lookup(dir, 'f299').nodeid).error, 0)
  })
}

t.test('what happens on this side to files that are open there', async t => {
  const { root, client: c } = serve(t)
  writeFileSync(join(root, 'removed'), 'one')
  writeFileSync(join(root, 'replaced'), 'two')
  writeFileSync(join(root, 'new'), 'three')
  const removed = c.lookup(ROOT, 'removed').nodeid
  const replaced = c.lookup(ROOT, 'replaced').nodeid
  const a = c.open(removed, O_RDWR)
  const b = c.open(replaced, O_RDWR)
  unlinkSync(join(root, 'removed'))
  renameSync(join(root, 'new'), join(root, 'replaced'))
  t.equal(c.getattr(removed).attr.nlink, 0, 'attributes without the handle')
  t.equal(c.getattr(removed, a.fh).attr.nlink, 0)
  t.equal(c.read(replaced, b.fh, 0n, 10).data.toString(), 'two')
  t.equal(c.lookup(ROOT, 'removed').error, -errno.ENOENT)
  const now = c.lookup(ROOT, 'replaced')
  t.not(now.nodeid, replaced)
  t.equal(now.attr.size, 5n)
  t.equal(c.write(removed, a.fh, 0n, Buffer.from('ONE')), 3)
  t.equal(c.open(removed, O_RDWR).error, 0, 'as long as it is open it can be opened')
  c.release(removed, a.fh)
})

t.test('FLUSH is asked for only where it can do something', async t => {
  const { root, client: c } = serve(t)
  writeFileSync(join(root, 'f'), '')
  const { nodeid } = c.lookup(ROOT, 'f')
  t.ok(c.open(nodeid, O_RDONLY).openFlags & FOPEN_NOFLUSH)
  const { fh } = c.open(nodeid, O_RDWR)
  t.equal(c.flush(nodeid, fh), 0, 'and is answered')
})
