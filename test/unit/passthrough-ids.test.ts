/** User and group ids, translated by virtiofsd's rules. */
import { chmodSync, chownSync, lstatSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { TranslatedIds } from '../../lib/device/passthrough/id-map.js'
import { errno, UsageError } from '../../lib/errors.js'
import { FATTR_GID, FATTR_MODE, FATTR_UID, FuseStatx, FuseStatxOut } from '../../lib/fuse/abi.js'
import { Op } from '../../lib/fuse/opcodes.js'
import { O_RDWR } from '../../lib/sys/file.js'
import { openDescriptors, serve } from '../support/passthrough-fixture.js'

const ROOT = 1n
const MAX = 4294967295
const { EPERM } = errno

function refused(...rules: string[]): string {
  try {
    new TranslatedIds('translate_uid', rules)
    return 'accepted'
  } catch (error) {
    return error instanceof UsageError ? error.message : `not a UsageError: ${String(error)}`
  }
}

t.test('ends of ranges', async t => {
  const ids = new TranslatedIds('translate_uid', ['map:1000:5000:10', 'guest:20:30:1', 'host:40:50:2', 'squash-guest:100:7:3', 'squash-host:200:8:2', 'forbid-guest:300:2'])
  const make = (guest: number[]): number[] => guest.map(id => ids.make(id))
  t.strictSame(make([999, 1000, 1009, 1010, 5000]), [999, 5000, 5009, 1010, 5000])
  t.strictSame(make([19, 20, 21, 30]), [19, 30, 21, 30])
  t.strictSame(make([40, 50]), [40, 50], 'a rule of the host says nothing of the guest')
  t.strictSame(make([99, 100, 102, 103]), [99, 7, 7, 103])
  t.strictSame(make([299, 300, 301, 302]), [299, -EPERM, -EPERM, 302])
  t.strictSame([299, 300, 301, 302].map(id => ids.assign(id)), [299, -EPERM, -EPERM, 302])
  const show = (host: number[]): number[] => host.map(id => ids.show(id))
  t.strictSame(show([4999, 5000, 5009, 5010, 1000]), [4999, 1000, 1009, 5010, 1000])
  t.strictSame(show([39, 40, 41, 42]), [39, 50, 51, 42])
  t.strictSame(show([30, 20, 7, 100]), [30, 20, 7, 100], 'a rule of the guest says nothing of the host')
  t.strictSame(show([199, 200, 201, 202]), [199, 8, 8, 202])
  t.strictSame(show([300, 301]), [300, 301], 'forbidden to make, not to see')
  const all = new TranslatedIds('translate_uid', [`squash-guest:0:5:${MAX}`, `map:${MAX - 1}:0:0`, `host:${MAX - 1}:${MAX - 1}:1`, 'forbid-guest:5:0'])
  t.strictSame([0, 5, MAX - 1].map(id => all.make(id)), [5, 5, 5], 'everybody, and empty ranges')
  t.equal(all.make(MAX), MAX, 'what is no id stays none')
  t.equal(all.show(MAX - 1), MAX - 1)
})

t.test('the language', async t => {
  t.equal(new TranslatedIds('translate_uid', ['MAP/1/2/+3']).make(3), 4, 'any separator and case')
  t.equal(new TranslatedIds('translate_uid', ['squash-guest\u{1f600}1\u{1f600}9\u{1f600}1']).make(1), 9)
  t.match(refused(''), /translate_uid=: expected TYPE:BASE:TARGET:COUNT/)
  t.match(refused('map'), /expected TYPE/)
  t.match(refused('1:2:3'), /type "1" is none of map, guest, host, squash-guest, squash-host, forbid-guest/)
  t.match(refused(':1:2:3'), /type "" is none/)
  t.match(refused('constructor:1:2:3'), /is none of/)
  t.match(refused('map:1:2'), /expected 3 numbers after map/)
  t.match(refused('map:1:2:3:4'), /expected 3 numbers/)
  t.match(refused('forbid-guest:1:2:3'), /expected 2 numbers after forbid-guest/)
  for (const bad of ['-1', '', ' 1', '1.5', '0x1', '4294967296', '1e3', 'x']) t.match(refused(`map:${bad}:0:1`), /is not a number below 2\^32/, bad)
  t.equal(refused(`map:0:0:${MAX}`), 'accepted')
  t.match(refused(`guest:1:0:${MAX}`), /the range goes beyond the largest id/)
  t.match(refused(`forbid-guest:${MAX}:1`), /the range goes beyond/)
  t.equal(refused(`guest:0:${MAX - 10}:10`), 'accepted')
  t.match(refused(`guest:0:${MAX - 10}:11`), /the target goes beyond the largest id/)
  t.equal(refused(`squash-guest:0:${MAX - 1}:11`), 'accepted')
  t.match(refused(`squash-host:0:${MAX}:1`), /the target goes beyond/)
  t.match(refused('guest:0:5:10', 'guest:9:100:1'), /guest:9:100:1: overlaps another rule/)
  t.equal(refused('guest:0:5:10', 'guest:10:100:1', 'host:0:1:100'), 'accepted', 'side by side, and each direction for itself')
  t.match(refused('map:0:10:5', 'host:14:0:1'), /overlaps/)
  t.match(refused('forbid-guest:3:4', 'squash-guest:0:0:4'), /overlaps/)
})

t.test('on files', { skip: process.getuid!() !== 0 && 'needs root' }, async t => {
  const { root, client: c } = serve(t, {
    translateUid: ['map:1000:5000:10', 'forbid-guest:3000:1', 'squash-guest:9:0:1'], translateGid: ['map:1000:6000:10', 'forbid-guest:3000:1'],
  })
  chmodSync(root, 0o777)
  t.afterEach(() => {
    c.uid = c.gid = 0
    c.groups = undefined
  })
  const onHost = (name: string): number[] => [lstatSync(join(root, name)).uid, lstatSync(join(root, name)).gid]

  t.test('what is made', async t => {
    c.uid = 1001
    c.gid = 1002
    const made = { file: c.create(ROOT, 'file', O_RDWR), dir: c.mkdir(ROOT, 'dir'), fifo: c.mknod(ROOT, 'fifo', 0o010644), link: c.symlink(ROOT, 'link', 'x') }
    for (const [name, { error, attr }] of Object.entries(made)) {
      t.strictSame([error, attr.uid, attr.gid], [0, 1001, 1002], name)
      t.strictSame(onHost(name), [5001, 6002])
    }
    t.equal(c.tmpfile(ROOT, O_RDWR).attr.uid, 1001)
    c.uid = 9
    t.strictSame([c.mkdir(ROOT, 'squashed').error, ...onHost('squashed')], [0, 0, 6002], 'root there, without its groups')
    c.gid = 0
    c.groups = [1007]
    chownSync(join(root, 'dir'), 1, 6007)
    chmodSync(join(root, 'dir'), 0o770)
    c.uid = 1005
    t.equal(c.mkdir(made.dir.nodeid, 'by-group').error, 0, 'the supplementary group too')
    c.groups = [1008]
    t.equal(c.mkdir(made.dir.nodeid, 'not').error, -errno.EACCES)
  })

  t.test('who may not', async t => {
    const before = openDescriptors()
    for (const [uid, gid, groups] of [[3000, 0], [0, 3000], [3000, 3000], [1, 1, [3000]]] as [number, number, number[]?][]) {
      Object.assign(c, { uid, gid, groups })
      const made = [c.create(ROOT, 'no', O_RDWR), c.mkdir(ROOT, 'no'), c.mknod(ROOT, 'no', 0o100644), c.symlink(ROOT, 'no', 'x'), c.tmpfile(ROOT, O_RDWR)]
      // SYMLINK and TMPFILE become the caller as all others do
      t.strictSame(made.map(entry => entry.error), new Array(5).fill(-EPERM), `${uid} ${gid} ${groups}`)
      t.equal(c.access(ROOT, 4), -EPERM)
    }
    c.groups = undefined
    c.uid = 0xffffffff
    t.equal(c.mkdir(ROOT, 'nobody').error, -errno.EOVERFLOW)
    t.ok(openDescriptors() <= before)
    c.uid = c.gid = 0
    t.equal(c.lookup(ROOT, 'no').error, -errno.ENOENT)
  })

  t.test('attributes, wherever they are sent', async t => {
    writeFileSync(join(root, 'theirs'), '')
    chownSync(join(root, 'theirs'), 5009, 6009)
    const { nodeid, attr } = c.lookup(ROOT, 'theirs')
    t.strictSame([attr.uid, attr.gid], [1009, 1009])
    const { fh } = c.open(nodeid, O_RDWR)
    for (const got of [c.getattr(nodeid).attr, c.getattr(nodeid, fh).attr, c.list(ROOT, true).find(entry => entry.name.toString() === 'theirs')!.attr!, c.link(nodeid, ROOT, 'again').attr]) {
      t.strictSame([got.uid, got.gid], [1009, 1009])
    }
    const args = Buffer.alloc(24)
    args.writeUInt32LE(0xfff, 20)
    const { view, error } = c.call(Op.STATX, nodeid, args)
    const at = FuseStatxOut.stat
    t.strictSame([error, view.getUint32(at + FuseStatx.uid, true), view.getUint32(at + FuseStatx.gid, true)], [0, 1009, 1009])

    const changed = c.setattr(nodeid, FATTR_UID | FATTR_GID, { uid: 1000, gid: 1001 })
    t.strictSame([changed.error, changed.attr.uid, changed.attr.gid, ...onHost('theirs')], [0, 1000, 1001, 5000, 6001])
    t.equal(c.setattr(nodeid, FATTR_GID, { gid: 1010, fh }).error, 0)
    t.strictSame(onHost('theirs'), [5000, 1010], 'one alone')
    const mode = lstatSync(join(root, 'theirs')).mode
    t.equal(c.setattr(nodeid, FATTR_MODE | FATTR_UID, { mode: 0o700, uid: 3000 }).error, -EPERM)
    t.equal(c.setattr(nodeid, FATTR_GID, { gid: 3000 }).error, -EPERM)
    t.strictSame([lstatSync(join(root, 'theirs')).mode, ...onHost('theirs')], [mode, 5000, 1010], 'and nothing of it was done')
  })
})

t.test('not with ACLs, whose ids would stay', async t => {
  t.throws(() => serve(t, { translateUid: ['map:0:1:1'], posixAcl: true }), UsageError)
})
