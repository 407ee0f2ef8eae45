/** Tags: one owner on the machine, and one session for all mounts of a tag. */
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { findMount, FS_TYPE } from '../../lib/mount/mountinfo.js'
import { runtimeDir } from '../../lib/mount/runtime-dir.js'
import { withMount } from '../support/mounts.js'
import { BRIDGE, missing, PEERS } from '../support/peers.js'
import { runToEnd } from '../support/program.js'
import { inScene } from '../support/scene.js'

for (const peer of PEERS) {
  t.test(`${peer}: a second mount of a tag shares the session, which ends with the last of them`, { skip: missing(peer) }, async t => {
    const files = (source: string): void => writeFileSync(join(source, 'a'), 'shared\n')
    await withMount(t, { peer, options: ['tag=one'], files, ...peer === 'virtiofsd-rust' && { backendArgs: ['--tag=one'] } }, async live => {
      const second = join(live.base, 'second')
      mkdirSync(second)
      const shared = await runToEnd([...BRIDGE, 'one', second], { timeoutMs: 10_000 })
      t.match(shared, { exit: { code: 0 }, stderr: '' }, 'TAG DIR2 returns at once')
      t.equal(await readFile(join(second, 'a'), 'utf8'), 'shared\n')
      t.equal(findMount(second)?.minor, live.connection, 'the same superblock')

      t.match(await runToEnd(['umount', live.dir], { timeoutMs: 10_000 }), { exit: { code: 0 } })
      t.equal(await readFile(join(second, 'a'), 'utf8'), 'shared\n', 'the session outlives its first mount')
      t.ok(live.bridge.alive)
      t.match(await runToEnd([...BRIDGE, 'umount', 'one'], { timeoutMs: 20_000 }), { exit: { code: 0 }, stderr: '' })
      t.match(await live.bridge.endsWithin(10_000), { code: 0 }, 'the last unmount ends it')
      const trace = live.trace()
      t.equal(trace.filter(record => record.op === 'INIT').length, 1, 'one INIT')
      t.equal(trace.filter(record => record.op === 'DESTROY').length, 1, 'one DESTROY')
    })
    t.notOk(readdirSync(join(runtimeDir(), 'tags')).includes('one'), 'the tag is free again')
  })
}

t.test('a tag in use is refused, one that nobody chose gives way, one of a dead owner is free', { skip: missing('emulated') }, async t => {
  await withMount(t, { peer: 'emulated', options: ['tag=taken'] }, async live => {
    const second = join(live.base, 'second')
    mkdirSync(second)
    const refused = await runToEnd([...BRIDGE, live.source, second, '-o', 'tag=taken'], { timeoutMs: 10_000 })
    t.match(refused, { exit: { code: 32 }, stderr: 'virtiofs-bridge: tag "taken" is in use\n' })
    t.equal(findMount(second), undefined)
  })
  await withMount(t, { peer: 'emulated' }, async live => {
    const second = join(live.base, 'second')
    mkdirSync(second)
    t.match(await runToEnd([...BRIDGE, live.source, second], { timeoutMs: 10_000 }), { exit: { code: 0 }, stderr: '' }, 'the same directory twice')
    t.not(findMount(second)?.minor, live.connection, 'a device of its own')
    t.match(await runToEnd([...BRIDGE, 'umount', second], { timeoutMs: 10_000 }), { exit: { code: 0 } })
  })
  await withMount(t, { peer: 'emulated', options: ['tag=mortal'], rough: true }, async live => {
    await live.bridge.kill()
    const again = await runToEnd([...BRIDGE, live.source, live.dir, '-o', 'tag=mortal'], { timeoutMs: 10_000 })
    t.match(again, { exit: { code: 0 }, stderr: '' }, 'tag and mount point of a killed bridge are taken over')
    t.equal(findMount(live.dir)?.type, FS_TYPE)
    t.match(await runToEnd([...BRIDGE, 'umount', 'mortal'], { timeoutMs: 10_000 }), { exit: { code: 0 }, stderr: '' })
  })
})

t.test('a tag with a slash names its mount, too', { skip: missing('emulated') }, async t => {
  await inScene(async scene => {
    t.match(await scene.run(scene.source, scene.dir, '-o', 'tag=a/b'), { exit: { code: 0 }, stderr: '' })
    t.match(await scene.run('umount', 'a/b'), { exit: { code: 0 }, stderr: '' })
    t.strictSame(scene.mounts(), [])
  })
})
