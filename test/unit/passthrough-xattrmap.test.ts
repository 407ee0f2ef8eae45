/** Names of attributes, translated by virtiofsd's rules; examples from its doc/xattr-mapping.md. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { XattrMap } from '../../lib/device/passthrough/xattr-map.js'
import { NameBuffer } from '../../lib/device/passthrough/names.js'
import { errno, UsageError } from '../../lib/errors.js'
import { FATTR_MODE, FATTR_MTIME, FATTR_SIZE, FATTR_UID } from '../../lib/fuse/abi.js'
import { O_RDWR, O_TRUNC } from '../../lib/sys/file.js'
import { serve } from '../support/passthrough-fixture.js'
import { listxattr, setxattr } from '../support/posix-xattrs.js'

const ROOT = 1n
const { EPERM, EOPNOTSUPP, ENODATA, ERANGE } = errno

/** What the server calls it, or −errno. */
function toServer(rules: string, name: string): string | number {
  const buffer = new NameBuffer(4096)
  buffer.memory.bytes.set(Buffer.from(`${name}\0`))
  buffer.length = Buffer.byteLength(name)
  const refused = new XattrMap(rules).toServer(buffer)
  if (refused !== 0) return refused
  const end = buffer.memory.bytes.indexOf(0)
  return end === buffer.length ? Buffer.from(buffer.memory.bytes.subarray(0, end)).toString() : 'length and NUL differ'
}

function toClient(rules: string, names: string[]): string[] {
  const bytes = Buffer.from(names.map(name => `${name}\0`).join(''))
  const kept = new XattrMap(rules).toClient(bytes, 0, bytes.length)
  return bytes.subarray(0, kept).toString().split('\0').slice(0, -1)
}

function refused(rules: string): string {
  try {
    new XattrMap(rules)
    return 'accepted'
  } catch (error) {
    return error instanceof UsageError ? error.message : `not a UsageError: ${String(error)}`
  }
}

t.test('the rules', async t => {
  const all = ':prefix:all::user.virtiofs.::bad:all:::'
  for (const rules of [all, ':map::user.virtiofs.:', ' :prefix:all::user.virtiofs.:\n\t/bad/all///\n']) {
    t.equal(toServer(rules, 'security.x'), 'user.virtiofs.security.x', rules)
    t.equal(toServer(rules, 'user.virtiofs.a'), 'user.virtiofs.user.virtiofs.a', 'even what has the prefix')
    t.strictSame(toClient(rules, ['user.virtiofs.security.x', 'security.selinux', 'user.virtiofs.', 'user.virtiofs.u']), ['security.x', 'u'])
  }
  const some = '/prefix/all/trusted./user.virtiofs./ /bad/server//trusted./ /bad/client/user.virtiofs.// /ok/all///'
  for (const rules of [some, '/map/trusted./user.virtiofs./', some.replaceAll('/', '\u{1f600}')]) {
    t.equal(toServer(rules, 'trusted.x'), 'user.virtiofs.trusted.x', rules)
    t.equal(toServer(rules, 'user.virtiofs.trusted.x'), -EPERM)
    t.equal(toServer(rules, 'user.x'), 'user.x')
    t.strictSame(toClient(rules, ['user.x', 'user.virtiofs.trusted.x', 'trusted.hidden', 'security.y']), ['user.x', 'trusted.x', 'security.y'])
  }
  const hiding = '/bad/all/security./security./ /unsupported/all/system./system./ /ok/all///'
  t.equal(toServer(hiding, 'security.x'), -EPERM)
  t.equal(toServer(hiding, 'system.x'), -EOPNOTSUPP)
  t.equal(toServer(hiding, 'securit'), 'securit')
  t.strictSame(toClient(hiding, ['security.x', 'a', 'system.y', 'b']), ['a', 'b'])
  t.strictSame(toClient(hiding, ['security.x']), [], 'nothing is left')
  t.equal(toServer(':ok:client:user.:::bad:all:::', 'user.x'), 'user.x', 'the first that matches')
  t.equal(toServer(':bad:server:::/prefix/client/é/ü/ :ok:client:::', 'éa'), 'üéa', 'a separator for each rule, any characters')
  t.strictSame(toClient(':ok:server::a::bad:server::::ok:client:::', ['ab', 'b']), ['ab'])
  t.equal(toServer(':map::user.:', 'x'.repeat(5000 - 910)), `user.${'x'.repeat(4090)}`)
  t.equal(toServer(':map::user.:', 'x'.repeat(4091)), -ERANGE)
})

t.test('rules that cannot be', async t => {
  for (const rules of ['', ' \n ']) t.match(refused(rules), /no rules/)
  t.match(refused(':prefix:all::user.'), /rule 1 is incomplete/)
  t.match(refused(':bad:all::::ok:all::'), /rule 2 is incomplete/)
  t.match(refused(':'), /incomplete/)
  t.match(refused(':suffix:all:::'), /rule 1 has type "suffix"/)
  t.match(refused(':ok:everyone:::'), /rule 1 has scope "everyone"/)
  t.match(refused(':ok:toString:::'), /rule 1 has scope/)
  t.match(refused(':map::a::map::b:'), /rule 1: a map rule must be the last one/)
  t.match(refused(':map::a::ok:all:::'), /rule 1: a map rule must be the last one/)
  t.match(refused(':prefix:all::user.virtiofs.:'), /names of the server match no rule/, 'virtiofsd aborts at the first such name')
  t.match(refused(':prefix:all:trusted.:user.::ok:server:::'), /names of the client match no rule/)
})

t.test('on files', { skip: process.getuid!() !== 0 && 'needs root' }, async t => {
  const { root, client: c } = serve(t, { xattrMap: ':unsupported:client:user.no.:::bad:client:user.bad.:::map::user.virtiofs.:' })
  const file = join(root, 'file')
  writeFileSync(file, 'x')
  setxattr(file, 'user.host', 'secret')
  const { nodeid } = c.lookup(ROOT, 'file')
  const list = (): string[] => c.listxattr(nodeid).value.toString().split('\0').slice(0, -1).sort()

  t.equal(c.setxattr(nodeid, 'trusted.t', Buffer.from('1')), 0)
  t.equal(c.setxattr(nodeid, 'user.u', Buffer.from('22')), 0)
  t.strictSame(listxattr(file).filter(name => name.startsWith('user.')).sort(), ['user.host', 'user.virtiofs.trusted.t', 'user.virtiofs.user.u'])
  t.equal(c.getxattr(nodeid, 'user.u').value.toString(), '22')
  t.equal(c.getxattr(nodeid, 'user.u', 0).error, 0)
  t.strictSame(list(), ['trusted.t', 'user.u'], 'the host\'s own are hidden')
  t.equal(c.getxattr(nodeid, 'user.host').error, -ENODATA)
  t.equal(c.getxattr(nodeid, 'user.no.x').error, -EOPNOTSUPP)
  t.equal(c.getxattr(nodeid, 'user.bad.x').error, -ENODATA, 'a reader finds nothing')
  t.equal(c.setxattr(nodeid, 'user.bad.x', Buffer.from('1')), -EPERM)
  t.equal(c.removexattr(nodeid, 'user.bad.x'), -EPERM)
  t.equal(c.removexattr(nodeid, 'user.no.x'), -EOPNOTSUPP)
  t.equal(c.setxattr(nodeid, 'system.posix_acl_access', Buffer.from('1')), -EOPNOTSUPP, 'an ACL that nobody enforces')
  t.equal(c.setxattr(nodeid, `user.${'n'.repeat(245)}`, Buffer.from('1')), -ERANGE, 'too long for the server')
  t.equal(c.removexattr(nodeid, 'user.u'), 0)
  t.equal(c.removexattr(nodeid, 'user.u'), -ENODATA)
  t.strictSame(list(), ['trusted.t'])
  c.removexattr(nodeid, 'trusted.t')
  t.strictSame(list(), [])

  const capability = Buffer.from('0100000200040000000000000000000000000000', 'hex')
  const { fh } = c.open(nodeid, O_RDWR)
  const changes: [what: string, drops: boolean, change: () => number][] = [
    ['a write', true, () => c.write(nodeid, fh, 0n, Buffer.from('y'))],
    ['a new size', true, () => c.setattr(nodeid, FATTR_SIZE, { size: 3n }).error],
    ['a new owner', true, () => c.setattr(nodeid, FATTR_UID, { uid: 0 }).error],
    ['O_TRUNC', true, () => c.open(nodeid, O_RDWR | O_TRUNC).error],
    ['FALLOCATE', true, () => c.fallocate(nodeid, fh, 0n, 10n, 0)],
    ['COPY_FILE_RANGE', true, () => c.copyFileRange([nodeid, fh, 0n], [nodeid, fh, 5n], 1n)],
    ['a new mode', false, () => c.setattr(nodeid, FATTR_MODE, { mode: 0o700 }).error],
    ['a new time', false, () => c.setattr(nodeid, FATTR_MTIME, { mtime: 5n }).error],
    ['an open', false, () => c.open(nodeid, O_RDWR).error],
    ['a read', false, () => c.read(nodeid, fh, 0n, 1).error],
  ]
  for (const [what, drops, change] of changes) {
    t.equal(c.setxattr(nodeid, 'security.capability', capability), 0)
    t.ok(change() >= 0, what)
    t.equal(c.getxattr(nodeid, 'security.capability').error, drops ? -ENODATA : 0, `${what} ${drops ? 'drops' : 'keeps'} file capabilities under another name`)
  }
})

t.test('without xattr no map', async t => {
  t.throws(() => serve(t, { xattr: false, xattrMap: ':map::user.virtiofs.:' }), UsageError)
})
