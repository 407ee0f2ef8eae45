/** `direct`: the kernel accesses the files of the emulated device itself, where it can. */
import { createHash, randomBytes } from 'node:crypto'
import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { open, readFile, stat, unlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { mount } from '../../lib/index.js'
import { type LiveMount, withMount } from '../support/mounts.js'
import { missing } from '../support/peers.js'

const skip = missing('emulated')
const sha = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex')

/** READs and WRITEs that the device saw, and whether the kernel can do without them. */
function relayed(live: LiveMount): { data: number, possible: boolean, releases: number } {
  const trace = live.trace()
  const flags = trace.find(record => record.event === 'init')!.flags as string[]
  const count = (...ops: string[]): number => trace.filter(record => ops.includes(record.op!)).length
  return { data: count('READ', 'WRITE'), possible: flags.includes('PASSTHROUGH'), releases: count('RELEASE') }
}

for (const queues of [1, 4]) {
  t.test(`data does not pass the device, with ${queues} queues`, { skip }, async t => {
    await withMount(t, { peer: 'emulated', options: ['direct', `queues=${queues}`] }, async live => {
      const { dir, source } = live
      const data = randomBytes(3 << 20)
      await writeFile(join(dir, 'f'), data)
      t.equal(sha(readFileSync(join(source, 'f'))), sha(data))
      t.equal(sha(await readFile(join(dir, 'f'))), sha(data))
      const one = await open(join(dir, 'f'), 'r+')
      const two = await open(join(dir, 'f'), 'r')
      const three = await open(join(dir, 'f'), 'a')
      await one.write('ONE', 5)
      await three.write('END')
      t.equal((await two.read(Buffer.alloc(3), 0, 3, 5)).buffer.toString(), 'ONE', 'opens see each other')
      t.equal((await stat(join(dir, 'f'))).size, data.length + 3, 'and sizes')
      writeFileSync(join(source, 'f'), 'HOST', { flag: 'r+' })
      t.equal((await two.read(Buffer.alloc(4), 0, 4, 0)).buffer.toString(), 'HOST', 'and the other side, at once')
      await one.close()
      await unlink(join(dir, 'f'))
      t.equal((await two.read(Buffer.alloc(3), 0, 3, 5)).buffer.toString(), 'ONE', 'an unlinked file too')
      await two.close()
      await three.close()
      await Promise.all(Array.from({ length: 40 }, async (_, i) => {
        const path = join(dir, `n${i % 5}`)
        for (let k = 0; k < 20; k++) await writeFile(path, `${i}`, { flag: 'a' })
      }))
      let bytes = 0
      for (let i = 0; i < 5; i++) bytes += (await stat(join(dir, `n${i}`))).size
      t.equal(bytes, 20 * (10 + 60), 'every append of many is there')
      t.equal(await live.unmount(), 0)
      const { data: passed, possible, releases } = relayed(live)
      t.ok(releases >= 800, `${releases} opens`)
      if (possible) t.equal(passed, 0)
      else t.comment('this kernel has no FUSE passthrough')
    })
  })
}

t.test('where the kernel cannot, the device serves the data', { skip }, async t => {
  await withMount(t, {
    peer: 'emulated', options: ['direct'],
    files: source => {
      for (const name of ['lower', 'upper', 'work']) mkdirSync(join(source, '..', name))
      writeFileSync(join(source, '..', 'lower', 'f'), 'from below')
      // overlayfs is a stacked file system: ELOOP
      execFileSync('mount', ['-t', 'tmpfs', 'none', join(source, '..', 'work')])
      for (const name of ['upper', 'work']) mkdirSync(join(source, '..', 'work', name))
      const at = (name: string): string => join(source, '..', name)
      execFileSync('mount', ['-t', 'overlay', 'none', '-o', `lowerdir=${at('lower')},upperdir=${at('work/upper')},workdir=${at('work/work')}`, source])
    },
    // overlayfs has no file handles, and a notice says so
    rough: true,
  }, async live => {
    t.equal(await readFile(join(live.dir, 'f'), 'utf8'), 'from below')
    await writeFile(join(live.dir, 'f'), 'from above')
    t.equal(readFileSync(join(live.source, 'f'), 'utf8'), 'from above')
    t.equal(await live.unmount(), 0)
    execFileSync('umount', ['-l', live.source])
    execFileSync('umount', ['-l', join(live.base, 'work')])
    t.ok(relayed(live).data > 0)
  })
})

t.test('what it does not go with is refused', async t => {
  const refused = (source: string, options: object): Promise<unknown> => t.rejects(mount({ source, mountpoint: t.testdir(), options: { direct: true, ...options } }), { name: 'UsageError', message: /option direct/ })
  await refused(t.testdir(), { writeback: true })
  await refused(t.testdir(), { backend: 'virtiofsd' })
  await refused('unix:/nowhere', {})
})
