/** File systems mounted inside the shared directory. */
import { linkSync, lstatSync, mkdirSync, readdirSync, readFileSync, renameSync, statfsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { withMount } from '../support/mounts.js'
import { missing } from '../support/peers.js'
import { run } from '../support/program.js'

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
