/** File systems mounted inside the shared directory. */
import { existsSync, linkSync, lstatSync, mkdirSync, readdirSync, readFileSync, renameSync, statfsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { withMount } from '../support/mounts.js'
import { missing, peerPath } from '../support/peers.js'
import { run, runToEnd } from '../support/program.js'
import { eventually, inScene } from '../support/scene.js'
import { packageRoot } from '../support/vhost-user-session.js'

t.test('a file system inside the shared directory', { skip: missing('emulated') }, async t => {
  let source = ''
  try {
    await withMount(t, { peer: 'emulated', options: ['cache=never', 'queues=2'], files: directory => {
      source = directory
      for (const sub of ['sub', 'other']) mkdirSync(join(source, sub))
      writeFileSync(join(source, 'sub/covered'), 'covered')
      writeFileSync(join(source, 'file'), '')
    } }, async ({ dir }) => {
      t.equal(readFileSync(join(dir, 'sub/covered'), 'utf8'), 'covered')
      await run(['mount', '-t', 'tmpfs', '-o', 'size=3M,mode=755', 'tmpfs', join(source, 'sub')])
      t.strictSame(readdirSync(join(dir, 'sub')), [], 'what is mounted while it is served is seen')
      writeFileSync(join(dir, 'sub/a'), 'on the tmpfs')
      mkdirSync(join(dir, 'sub/d'))
      t.equal(readFileSync(join(source, 'sub/a'), 'utf8'), 'on the tmpfs')
      t.throws(() => renameSync(join(dir, 'sub/a'), join(dir, 'a')), { code: 'EXDEV' })
      t.throws(() => linkSync(join(dir, 'file'), join(dir, 'sub/link')), { code: 'EXDEV' })
      t.equal(statfsSync(join(source, 'sub')).blocks * statfsSync(join(source, 'sub')).bsize, 3 << 20)
      t.throws(() => writeFileSync(join(dir, 'sub/big'), Buffer.alloc(4 << 20)), { code: 'ENOSPC' })
      t.strictSame(readdirSync(join(dir, 'sub/d/..')).sort(), ['a', 'big', 'd'])
      t.ok(lstatSync(join(dir, 'sub/d/../../file')).isFile(), 'and out of it again')
      await run(['umount', '-l', join(source, 'sub')])
      t.strictSame(readdirSync(join(dir, 'sub')), ['covered'], 'what is unmounted is gone')
    })
  } finally {
    await run(['umount', '-l', join(source, 'sub')]).catch(() => '')
  }
})

t.test('mounted inside the shared directory', { skip: missing('emulated') }, async t => {
  for (const options of ['cache=never', ...existsSync(join(packageRoot(), 'node_modules/fuse-native')) && process.arch === 'x64' ? ['via=fuse-native'] : []]) {
    await inScene(async scene => {
      const inside = join(scene.source, 'inside')
      mkdirSync(inside)
      writeFileSync(join(scene.source, 'a'), 'a')
      t.match(await scene.run(scene.source, inside, '-o', options), { exit: { code: 0 } }, options)
      // a process of its own, which can be left behind
      const tried = await runToEnd(['sh', '-c', 'ls && cat a && ls -d inside', 'sh'], { cwd: inside, timeoutMs: 20_000 })
      t.match(tried, { stdout: 'a\ninside\na', stderr: /inside.*Resource deadlock avoided/ }, 'the device does not wait for itself')
      if (options === 'cache=never') {
        mkdirSync(join(inside, 'b'))
        t.match(await runToEnd(['mount', '--bind', inside, join(scene.source, 'b')]), { exit: { code: 0 } })
        t.match(await runToEnd(['ls', '-d', join(inside, 'b')], { timeoutMs: 20_000 }), { stderr: /Resource deadlock avoided/ }, 'at any place')
        t.match(await runToEnd(['umount', join(scene.source, 'b')]), { exit: { code: 0 } })
        t.match(await runToEnd(['ls', '-d', join(inside, 'b')], { timeoutMs: 20_000 }), { exit: { code: 0 } })
      }
      t.match(await scene.run('umount', inside), { exit: { code: 0 }, stderr: '' })
      t.ok(await eventually(() => scene.leftovers().length === 0))
    })
  }
})

t.test('a virtiofsd of ours, mounted inside the shared directory', { skip: missing('virtiofsd-rust') }, async t => {
  await inScene(async scene => {
    const inside = join(scene.source, 'inside')
    mkdirSync(inside)
    const options = ['-o', `backend=virtiofsd,sandbox=none,virtiofsd=${peerPath('virtiofsd-rust')}`]
    t.match(await scene.run(scene.source, inside, ...options), { exit: { code: 1 }, stderr: /^virtiofs-bridge: mount point .*inside is inside the source: virtiofsd would wait for itself .*\n$/ })
    t.strictSame(scene.leftovers(), [])
  })
})
