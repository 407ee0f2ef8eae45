/** What a served file system returns, as the kernel gets it; and what makes no sense does not reach it. */
import t from 'tap'
import { errno } from '../../lib/errors.js'
import { FileSystemHandlers } from '../../lib/device/file-system-handlers.js'
import { Op } from '../../lib/fuse/opcodes.js'
import { FileSystem, type Attributes, type Created, type DirectoryEntry, type Entry, type Opened } from '../../lib/index.js'
import { FuseClient } from '../support/fuse-client.js'

const FILE: Attributes = { mode: 0o100640, size: 2 ** 40 + 1, uid: 5, gid: 6, nlink: 3, atime: { seconds: -1, nanoseconds: 5 }, mtime: { seconds: 2 ** 33, nanoseconds: 999_999_999 } }
const TIME = { seconds: 0, nanoseconds: 0 }

/** A file system of methods that the test chooses. */
class Fs extends FileSystem {
  constructor(methods: object) {
    super()
    Object.assign(this, methods)
  }
}

function serve(t: { teardown: (end: () => void) => void }, methods: object): FuseClient {
  const client = new FuseClient(new FileSystemHandlers(new Fs(methods)) as never)
  t.teardown(() => client.close())
  client.init()
  return client
}

t.test('attributes', async t => {
  const c = serve(t, { lookup: (): Entry => ({ node: 2 ** 52 + 1, attributes: FILE }), getattr: (): Attributes => FILE })
  const { attr, nodeid, error } = c.lookup(1n, 'x')
  t.equal(error, 0)
  t.equal(nodeid, 2n ** 52n + 1n)
  t.match(attr, { ino: 2n ** 52n + 1n, size: 2n ** 40n + 1n, mode: 0o100640, uid: 5, gid: 6, nlink: 3, atime: -1n, atimensec: 5, mtime: 2n ** 33n, mtimensec: 999_999_999, blksize: 4096 })
})

t.test('entries that make no sense are EIO, and count no lookup', async t => {
  const bad: unknown[] = [
    undefined, null, 5, {}, { node: 0, attributes: FILE }, { node: 1, attributes: FILE }, { node: 2.5, attributes: FILE }, { node: 2 ** 53, attributes: FILE },
    { node: 2, attributes: undefined }, { node: 2, attributes: { mode: 0o644 } }, { node: 2, attributes: { mode: 0o170000 } }, { node: 2, attributes: { ...FILE, size: -1 } },
    { node: 2, attributes: { ...FILE, uid: 2 ** 32 } }, { node: 2, attributes: { ...FILE, atime: { seconds: 0.5, nanoseconds: 0 } } },
    { node: 2, attributes: { ...FILE, mtime: { ...TIME, nanoseconds: 1e9 } } }, { node: 2, attributes: FILE, timeout: -1 }, { node: 2, attributes: FILE, timeout: NaN },
    { node: 2, attributes: FILE, generation: '1' }, Promise.resolve({ node: 2, attributes: FILE }),
  ]
  const forgotten: number[] = []
  let next: unknown
  const c = serve(t, { lookup: () => next, forget: (node: number) => { forgotten.push(node) } })
  for (next of bad) t.equal(c.lookup(1n, 'x').error, -errno.EIO)
  next = { node: 9, attributes: FILE }
  t.equal(c.lookup(1n, 'x').error, 0)
  t.equal(c.lookup(1n, 'x').error, 0)
  c.forget(9n, 1)
  t.strictSame(forgotten, [])
  c.forget(9n, 1)
  c.forget(2n, 1)
  c.forget(9n, 7)
  t.strictSame(forgotten, [9])
  c.lookup(1n, 'x')
  c.destroy()
  t.strictSame(forgotten, [9, 9], 'the end of a session forgets')
})

t.test('a file that cannot be created counts no lookup', async t => {
  const forgotten: number[] = []
  const c = serve(t, { create: (): Created => ({ node: 3, attributes: FILE, handle: -1 }), forget: (node: number) => { forgotten.push(node) } })
  t.equal(c.create(1n, 'x', 0).error, -errno.EIO)
  c.destroy()
  t.strictSame(forgotten, [])
})

t.test('data', async t => {
  let got: unknown
  const c = serve(t, {
    open: (): Opened => ({ handle: 7, directIo: true }),
    read: (_node: number, _handle: number, offset: number, size: number, buffer: Buffer) => {
      if (got !== 'in place') return got
      buffer.fill(0x61 + offset)
      return size
    },
    write: (_node: number, _handle: number, _offset: number, data: Buffer) => got === 'all' ? data.length : got,
  })
  t.match(c.open(2n, 0), { fh: 7n, openFlags: 1 })
  got = 'in place'
  t.equal(c.read(2n, 7n, 1n, 4).data.toString(), 'bbbb')
  got = Buffer.from('xy')
  t.equal(c.read(2n, 7n, 0n, 4).data.toString(), 'xy')
  for (got of [Buffer.alloc(5), 5, -1, 1.5, 'text', undefined]) t.equal(c.read(2n, 7n, 0n, 4).error, -errno.EIO)
  got = 'all'
  t.equal(c.write(2n, 7n, 0n, Buffer.from('abc')), 3)
  for (got of [4, -1, undefined, 'x']) t.equal(c.write(2n, 7n, 0n, Buffer.from('abc')), -errno.EIO)
  t.equal(c.read(2n, 7n, 2n ** 60n, 4).error, -errno.EOVERFLOW, 'an offset that no number holds')
})

t.test('directories', async t => {
  const entries: DirectoryEntry[] = Array.from({ length: 500 }, (_, i) => ({ name: `entry ${i} \udcff`, offset: i + 1, ino: i + 10, mode: 0o100644 }))
  let list: (offset: number) => Iterable<DirectoryEntry> = offset => entries.slice(offset)
  const c = serve(t, { opendir: () => ({}), releasedir: () => {}, readdir: (_node: number, _handle: number, offset: number) => list(offset) })
  const names = c.list(1n).map(entry => entry.name)
  t.strictSame(names.slice(0, 2).map(String), ['.', '..'])
  t.strictSame(names.slice(2), entries.map(entry => Buffer.concat([Buffer.from(entry.name.slice(0, -1)), Buffer.from([0xff])])), 'names of any bytes, each once')
  for (const bad of ['', '.', '..', 'a/b', 'a\0', 'x'.repeat(256), '\udc10']) {
    list = () => [{ name: bad, offset: 1 }]
    t.equal(c.readdir(1n, 0n, 2n, 4096).error, -errno.EIO, JSON.stringify(bad))
  }
  list = () => [{ name: 'x', offset: 0 }]
  t.equal(c.readdir(1n, 0n, 2n, 4096).error, -errno.EIO)
  list = function* () {
    yield { name: 'good', offset: 1 }
    throw new Error('later')
  }
  t.strictSame(c.readdir(1n, 0n, 2n, 4096).entries.map(entry => String(entry.name)), ['good'], 'what came before an error')
  t.equal(c.call(Op.READDIR, 1n, Buffer.alloc(10)).error, -errno.EINVAL, 'a request that is too short')
})

t.test('attributes of two kinds', async t => {
  const c = serve(t, { getxattr: () => Buffer.from('value'), listxattr: () => ['user.a', 'user.b'] })
  t.equal(c.getxattr(2n, 'user.a').value.toString(), 'value')
  t.equal(c.getxattr(2n, 'user.a', 0).value.readUInt32LE(), 5)
  t.equal(c.getxattr(2n, 'user.a', 4).error, -errno.ERANGE)
  t.equal(c.listxattr(2n).value.toString(), 'user.a\0user.b\0')
})
