/** Names that do not exist: `hide` and `only`, and attempts to get round them. */
import { existsSync, linkSync, lstatSync, mkdirSync, readdirSync, renameSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { NameFilter } from '../../lib/device/passthrough/name-filter.js'
import { errno, UsageError } from '../../lib/errors.js'
import { Op } from '../../lib/fuse/opcodes.js'
import { O_CREAT, O_EXCL, O_RDONLY, O_RDWR } from '../../lib/sys/file.js'
import { serve } from '../support/passthrough-fixture.js'
import { RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT } from '../../lib/sys/dir.js'

const ROOT = 1n
const { ENOENT, EPERM } = errno

function names(list: { name: Buffer }[]): string[] {
  return list.map(entry => entry.name.toString('latin1')).filter(name => name !== '.' && name !== '..').sort()
}

t.test('patterns', async t => {
  const matches = (pattern: string, name: string | Buffer): boolean => new NameFilter([pattern], []).hides(Buffer.concat([Buffer.from(name), Buffer.alloc(1)]))
  for (const [pattern, yes, no] of [
    ['.git', ['.git'], ['.gi', '.git2', 'x.git', '.GIT', '.git ', '.git\n']],
    ['*.key', ['.key', 'a.key', '.a.key', 'a\nb.key'], ['key', 'a.keys', '.key.', 'a.key\n']],
    ['.*', ['.a', '..a', '...'], ['a.']],
    ['[a-c]?', ['ax', 'c.'], ['a', 'dx', 'abc']],
    ['{id_*,*.pem}', ['id_rsa', 'x.pem'], ['id', 'pem']],
    ['é*', ['é', 'éa'], ['e', '\u0065\u0301']],
    ['!a', ['!a'], ['a', 'b']],
    ['#a', ['#a'], ['a']],
    ['\\*', ['*'], ['a', '\\*']],
    ['**', ['a', '.a'], []],
    ['$(x)', ['$(x)'], ['$x']],
  ] as const) {
    for (const name of yes) t.ok(matches(pattern, name), `${pattern} matches ${JSON.stringify(name)}`)
    for (const name of no) t.notOk(matches(pattern, name), `${pattern} does not match ${JSON.stringify(name)}`)
  }
  const odd = Buffer.from([0x61, 0xff, 0x80, 0x62])
  t.ok(matches('a??b', odd), 'a byte that is no UTF-8 is a character')
  t.ok(matches('*', odd))
  t.notOk(matches('a\ufffd\ufffdb', odd), 'and none that UTF-8 can spell')
  t.notOk(matches('a*c', odd))
  t.ok(matches('*', 'x'.repeat(255)))
  for (const bad of ['', 'a/b', '/']) {
    t.throws(() => new NameFilter([bad], []), UsageError)
    t.throws(() => new NameFilter([], [bad]), UsageError)
  }
})

t.test('many names', async t => {
  // more than there are places for verdicts
  const filter = new NameFilter(['*[13579]'], [])
  for (let round = 0; round < 2; round++) {
    for (let i = 0; i < 10_000; i++) if (filter.hides(Buffer.from(`xx${i}\0`), 1) !== (i % 2 === 1)) return t.fail(`${i}`)
  }
  t.pass()
})

t.test('hide', async t => {
  const { client: c, root } = serve(t, { hide: ['.git', 'secret*'] })
  mkdirSync(join(root, 'd/.git'), { recursive: true })
  mkdirSync(join(root, '.git'))
  writeFileSync(join(root, '.git/config'), 'x')
  writeFileSync(join(root, 'd/secret.txt'), 'x')
  writeFileSync(join(root, 'd/shown'), 'x')
  symlinkSync('.git/config', join(root, 'link'))
  const d = c.lookup(ROOT, 'd').nodeid

  t.equal(c.lookup(ROOT, '.git').error, -ENOENT)
  t.equal(c.lookup(d, '.git').error, -ENOENT)
  t.equal(c.lookup(d, 'secret.txt').error, -ENOENT)
  t.equal(c.lookup(ROOT, '.').error, -errno.EINVAL)
  t.equal(c.lookup(d, '..').error, -errno.EINVAL)
  for (const plus of [false, true]) {
    t.strictSame(names(c.list(ROOT, plus)), ['d', 'link'])
    t.strictSame(names(c.list(d, plus)), ['shown'])
    t.equal(c.list(ROOT, plus).length, 4, 'with . and ..')
  }

  t.test('cannot be made', async t => {
    const shown = c.lookup(d, 'shown').nodeid
    for (const name of ['.git', 'secret', 'secret.new']) {
      for (const parent of [ROOT, d]) {
        t.equal(c.mkdir(parent, name).error, -EPERM)
        t.equal(c.mknod(parent, name, 0o100644).error, -EPERM)
        t.equal(c.symlink(parent, name, 'shown').error, -EPERM)
        t.equal(c.link(shown, parent, name).error, -EPERM)
        for (const flags of [O_RDWR, O_RDWR | O_CREAT | O_EXCL, O_RDONLY]) t.equal(c.create(parent, name, flags).error, -EPERM)
        t.equal(c.rename(d, 'shown', parent, name), -EPERM)
        t.equal(c.rename2(d, 'shown', parent, name, RENAME_NOREPLACE), -EPERM)
        t.equal(c.rename2(d, 'shown', parent, name, RENAME_WHITEOUT), -EPERM)
        t.equal(c.rename2(d, 'shown', parent, name, RENAME_EXCHANGE), -ENOENT)
        t.equal(c.rename(ROOT, 'd', parent, name), -EPERM)
      }
    }
    const tmp = c.tmpfile(ROOT, O_RDWR)
    t.equal(c.link(tmp.nodeid, ROOT, 'secret2').error, -EPERM)
    t.equal(c.link(tmp.nodeid, ROOT, 'public').error, 0)
    t.equal(c.unlink(ROOT, 'public'), 0)
    t.strictSame(readdirSync(root).sort(), ['.git', 'd', 'link'])
    t.strictSame(readdirSync(join(root, 'd')).sort(), ['.git', 'secret.txt', 'shown'])
  })

  t.test('cannot be taken away', async t => {
    t.equal(c.unlink(d, 'secret.txt'), -ENOENT)
    t.equal(c.rmdir(ROOT, '.git'), -ENOENT)
    t.equal(c.rename(d, 'secret.txt', d, 'stolen'), -ENOENT)
    t.equal(c.rename(d, 'secret.txt', d, 'secret2'), -ENOENT)
    t.equal(c.rename2(d, 'secret.txt', d, 'shown', RENAME_EXCHANGE), -ENOENT)
    t.equal(c.rmdir(ROOT, 'd'), -errno.ENOTEMPTY, 'what is hidden in a directory keeps it')
    t.ok(existsSync(join(root, 'd/secret.txt')))
  })

  t.test('a directory takes what is hidden in it along', async t => {
    t.equal(c.rename(ROOT, 'd', ROOT, 'e'), 0)
    t.ok(existsSync(join(root, 'e/secret.txt')))
    t.equal(c.lookup(d, 'secret.txt').error, -ENOENT)
    t.equal(c.rename(ROOT, 'e', ROOT, 'd'), 0)
  })

  t.test('a name that the host gives to what is known', async t => {
    const { nodeid } = c.lookup(d, 'shown')
    renameSync(join(root, 'd/shown'), join(root, 'd/secret.was shown'))
    t.equal(c.lookup(d, 'shown').error, -ENOENT)
    t.equal(c.lookup(d, 'secret.was shown').error, -ENOENT)
    t.equal(c.getattr(nodeid).error, 0, 'who had it before has it')
    linkSync(join(root, 'd/secret.was shown'), join(root, 'd/shown'))
    t.equal(c.lookup(d, 'shown').nodeid, nodeid, 'another name of the same file is another name')
    t.equal(lstatSync(join(root, 'd/shown')).nlink, 2)
  })

  t.equal(c.call(Op.LOOKUP, ROOT, Buffer.from('.git\0more\0')).error, -ENOENT, 'the name ends at the first NUL')
})

t.test('hide with a volume without file handles', async t => {
  const { client: c, root } = serve(t, { hide: ['.git'], limits: { fileHandles: false, cachedDescriptors: 16 } })
  mkdirSync(join(root, 'd'))
  writeFileSync(join(root, 'd/.git'), '')
  for (let i = 0; i < 50; i++) mkdirSync(join(root, `x${i}`))
  const d = c.lookup(ROOT, 'd').nodeid
  for (let i = 0; i < 50; i++) c.lookup(ROOT, `x${i}`)
  t.equal(c.lookup(d, '.git').error, -ENOENT)
  renameSync(join(root, 'd'), join(root, '.git'))
  t.ok(c.lookup(d, 'x').error < 0)
})

t.test('only', async t => {
  const { client: c, root } = serve(t, { only: ['*.txt', 'README'] })
  mkdirSync(join(root, 'dir/sub.txt'), { recursive: true })
  for (const name of ['a.txt', 'b.c', 'README', 'dir/c.txt', 'dir/d.c']) writeFileSync(join(root, name), '')
  symlinkSync('a.txt', join(root, 'link'))
  symlinkSync('b.c', join(root, 'link.txt'))
  const dir = c.lookup(ROOT, 'dir').nodeid
  const a = c.lookup(ROOT, 'a.txt').nodeid
  for (const plus of [false, true]) {
    t.strictSame(names(c.list(ROOT, plus)), ['README', 'a.txt', 'dir', 'link.txt'])
    t.strictSame(names(c.list(dir, plus)), ['c.txt', 'sub.txt'])
  }
  for (const name of ['b.c', 'link', 'nothing']) t.equal(c.lookup(ROOT, name).error, -ENOENT)
  t.equal(c.create(ROOT, 'x.c', O_RDWR).error, -EPERM)
  t.equal(c.create(ROOT, 'b.c', O_RDWR).error, -EPERM)
  t.equal(c.mknod(ROOT, 'x', 0o010644).error, -EPERM)
  t.equal(c.symlink(ROOT, 'x', 'a.txt').error, -EPERM)
  t.equal(c.link(a, ROOT, 'x').error, -EPERM)
  t.equal(c.rename(ROOT, 'a.txt', ROOT, 'x'), -EPERM)
  t.equal(c.rename(ROOT, 'b.c', ROOT, 'b.txt'), -ENOENT)
  t.equal(c.unlink(ROOT, 'b.c'), -ENOENT)
  t.equal(c.rename2(ROOT, 'a.txt', ROOT, 'dir', RENAME_EXCHANGE), -EPERM, 'a file in the place of a directory')
  t.equal(c.rename2(ROOT, 'dir', ROOT, 'a.txt', RENAME_EXCHANGE), -EPERM)
  t.equal(c.rename2(ROOT, 'dir', ROOT, 'b.c', RENAME_EXCHANGE), -ENOENT)
  t.equal(c.rename2(ROOT, 'dir', ROOT, 'dir2', RENAME_WHITEOUT), -EPERM, 'a whiteout in the place of a directory')
  t.equal(c.mkdir(ROOT, 'new').error, 0, 'directories have any name')
  t.equal(c.rename(ROOT, 'new', dir, 'newer'), 0)
  t.equal(c.rmdir(dir, 'newer'), 0)
  t.equal(c.create(ROOT, 'x.txt', O_RDWR).error, 0)
  t.equal(c.rename(ROOT, 'x.txt', dir, 'y.txt'), 0)
  t.equal(c.unlink(dir, 'y.txt'), 0)
  t.strictSame(readdirSync(root).sort(), ['README', 'a.txt', 'b.c', 'dir', 'link', 'link.txt'])
})

t.test('hide and only together', async t => {
  const { client: c, root } = serve(t, { hide: ['.*'], only: ['*.txt'] })
  for (const name of ['.a.txt', 'a.txt', 'a']) writeFileSync(join(root, name), '')
  mkdirSync(join(root, '.dir'))
  t.strictSame(names(c.list(ROOT, true)), ['a.txt'])
  t.equal(c.mkdir(ROOT, '.dir2').error, -EPERM)
  t.equal(c.lookup(ROOT, '.dir').error, -ENOENT)
})

t.test('long listings with little to show', async t => {
  const { client: c, root } = serve(t, { hide: ['x*'] })
  for (let i = 0; i < 3000; i++) writeFileSync(join(root, `x${i}`), '')
  for (let i = 0; i < 20; i++) writeFileSync(join(root, `shown ${i}`), '')
  for (const plus of [false, true]) t.equal(names(c.list(ROOT, plus, 512)).length, 20)
})
