/** Options of what serves a directory, on real mounts: the emulated device, and a virtiofsd that is started for it. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { type LiveMount, withMount } from '../support/mounts.js'
import { missing, peerPath } from '../support/peers.js'
import { getxattr, listxattr, removexattr, setxattr } from '../support/posix-xattrs.js'

/** Runs a check on both, with the same options. */
function onBoth(name: string, options: readonly string[], files: (source: string) => void, body: (t: Test, live: LiveMount) => Promise<void>): void {
  t.test(`emulated: ${name}`, { skip: missing('emulated') }, async t => {
    await withMount(t, { peer: 'emulated', options, files }, live => body(t, live))
  })
  t.test(`backend=virtiofsd: ${name}`, { skip: missing('virtiofsd-rust') }, async t => {
    const backend = ['backend=virtiofsd', `virtiofsd=${peerPath('virtiofsd-rust')}`]
    await withMount(t, { peer: 'emulated', options: [...backend, ...options], files }, live => body(t, live))
  })
}

onBoth('xattrmap', ['xattrmap=:unsupported:client:user.no.:::bad:client:user.bad.:::map::user.virtiofs.:'], source => {
  writeFileSync(join(source, 'file'), '')
  setxattr(join(source, 'file'), 'user.host', 'own')
}, async (t, { dir, source }) => {
  const file = join(dir, 'file')
  setxattr(file, 'user.a', 'one')
  setxattr(file, 'trusted.b', 'two')
  t.strictSame(listxattr(file).sort(), ['trusted.b', 'user.a'])
  t.equal(getxattr(file, 'user.a').toString(), 'one')
  t.strictSame(listxattr(join(source, 'file')).filter(name => name.startsWith('user.')).sort(), ['user.host', 'user.virtiofs.trusted.b', 'user.virtiofs.user.a'])
  t.equal(getxattr(join(source, 'file'), 'user.virtiofs.user.a').toString(), 'one')
  t.throws(() => getxattr(file, 'user.host'), { code: 'ENODATA' })
  t.throws(() => getxattr(file, 'user.bad.x'), { code: 'ENODATA' })
  t.throws(() => setxattr(file, 'user.bad.x', '1'), { code: 'EPERM' })
  t.throws(() => setxattr(file, 'user.no.x', '1'), { code: 'ENOTSUP' })
  removexattr(file, 'user.a')
  t.strictSame(listxattr(file), ['trusted.b'])
})
