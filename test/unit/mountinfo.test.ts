/** The table of mounts: escapes, optional fields, names that are not UTF-8, mounts over mounts. */
import t from 'tap'
import { findMount, parseMounts, readMounts } from '../../lib/mount/mountinfo.js'

const LINES = [
  Buffer.from('22 1 0:20 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n'),
  Buffer.from('23 22 0:21 / /proc rw - proc proc rw\n'),
  Buffer.from('36 22 0:52 /sub /mnt/a\\040b\\011c\\012d\\134040 rw,noatime shared:5 master:2 propagate_from:1 unbindable - fuse.virtiofs-bridge /src\\040dir rw,user_id=0\n'),
  Buffer.from('37 22 0:53 / /mnt/- rw - tmpfs none rw\n'),
  Buffer.concat([Buffer.from('38 22 0:54 / /mnt/caf'), Buffer.from([0xff, 0xa0, 0x85]), Buffer.from(' rw - fuse.x src rw\n')]),
  Buffer.from('39 22 259:3 / /mnt/naïve-日本 rw - fuse.virtiofs-bridge tag\\0543 rw\n'),
  Buffer.from('40 22 0:60 / /mnt/twice rw - tmpfs below rw\n'),
  Buffer.from('41 40 0:61 / /mnt/twice rw - fuse.virtiofs-bridge above rw\n'),
  Buffer.from('42 22 0:62 / /mnt/nosource rw - tmpfs  rw\n'),
]

const mounts = parseMounts(Buffer.concat(LINES).toString('latin1'))

t.test('lines', async t => {
  t.equal(mounts.length, LINES.length)
  t.strictSame(mounts[0], { major: 0, minor: 20, mountpoint: '/', type: 'ext4', source: '/dev/sda1', superOptions: 'rw' })
  t.strictSame(mounts[1], { major: 0, minor: 21, mountpoint: '/proc', type: 'proc', source: 'proc', superOptions: 'rw' }, 'no optional field')
  t.strictSame(mounts[2], { major: 0, minor: 52, mountpoint: '/mnt/a b\tc\nd\\040', type: 'fuse.virtiofs-bridge', source: '/src dir', superOptions: 'rw,user_id=0' }, 'four optional fields; an escaped backslash escapes nothing')
  t.match(mounts[3], { mountpoint: '/mnt/-', type: 'tmpfs', source: 'none' })
  t.match(mounts[4], { minor: 54, type: 'fuse.x', source: 'src' }, 'bytes that are not UTF-8 shift nothing')
  t.match(mounts[4]!.mountpoint, /^\/mnt\/caf\ufffd/)
  t.match(mounts[5], { major: 259, mountpoint: '/mnt/naïve-日本', source: 'tag,3' })
  t.match(mounts[8], { type: 'tmpfs', source: '' })
})

t.test('findMount: exactly this path, the topmost', async t => {
  t.match(findMount('/mnt/twice', mounts), { minor: 61, source: 'above' })
  t.match(findMount('/mnt/a b\tc\nd\\040', mounts), { minor: 52 })
  t.equal(findMount('/mnt', mounts), undefined)
  t.equal(findMount('/mnt/twice/', mounts), undefined)
})

t.test('the real table', async t => {
  t.match(findMount('/proc'), { type: 'proc' })
  t.ok(readMounts().every(entry => entry.mountpoint.startsWith('/') && entry.type !== '' && Number.isInteger(entry.minor)))
})
