/** A device that answers wrongly under a real mount: a wrong reply costs its request, a broken ring the device. */
import { writeFileSync } from 'node:fs'
import { open, stat, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { Counter, sumCounter } from '../../lib/driver/counters.js'
import { findMount, FS_TYPE } from '../../lib/mount/mountinfo.js'
import { Bench, withDevice } from '../support/driver-mount.js'
import { missing } from '../support/peers.js'
import { within } from '../support/program.js'
import { REPLY_FAULTS, RING_FAULTS, ThreadedDevice } from '../support/threaded-device.js'

const options = { skip: missing('emulated') }

t.test('a wrong reply: EIO for that request, and the mount works on', options, async t => {
  using bench = new Bench()
  writeFileSync(join(bench.source, 'file'), 'x'.repeat(8192))
  const device = new ThreadedDevice({ tag: `bad-${process.pid}`, handlers: bench.serve({ cache: 'never' }).handlers })
  await withDevice(t, device, bench.dir, {}, async ({ fs }) => {
    const file = await open(join(bench.dir, 'file'))
    for (const fault of REPLY_FAULTS) {
      device.fault(fault, 'STATFS')
      await t.rejects(statfs(bench.dir), { code: 'EIO' }, `${fault}: STATFS`)
      await statfs(bench.dir)
      device.fault(fault, 'READ')
      await t.rejects(file.read(Buffer.alloc(4096), 0, 4096, 0), { code: 'EIO' }, `${fault}: READ`)
      t.equal((await file.read(Buffer.alloc(4096), 0, 4096, 4096)).bytesRead, 4096, 'the next one is good')
    }
    await file.close()
    t.equal(sumCounter(fs.counters, Counter.BAD_REPLIES), 2 * REPLY_FAULTS.length)
    t.equal(fs.gone, '', 'the device is not given up for that')
  })
})

for (const [i, fault] of RING_FAULTS.entries()) {
  t.test(`${fault}: everything in flight fails, then ENOTCONN, and it can be unmounted`, options, async t => {
    using bench = new Bench()
    writeFileSync(join(bench.source, 'file'), 'x'.repeat(8192))
    const device = new ThreadedDevice({ tag: `bad-${process.pid}-${i}`, requestQueues: 2, handlers: bench.serve({ cache: 'never' }).handlers })
    await withDevice(t, device, bench.dir, { queues: 2 }, async ({ fs, mount }) => {
      const file = await open(join(bench.dir, 'file'))
      device.hold('READ')
      const reads = Array.from({ length: 3 }, (_, n) => file.read(Buffer.alloc(512), 0, 512, n * 512).then(() => 'read', (error: NodeJS.ErrnoException) => error.code))
      while (device.holding < 3) await sleep(2)
      device.fault(fault, 'STATFS')
      await statfs(bench.dir).catch(() => {})
      t.strictSame(await within(5000, Promise.all(reads)), ['EIO', 'EIO', 'EIO'], 'each is answered')
      for (let tries = 0; fs.gone === '' && tries < 1000; tries++) await sleep(2)
      t.match(fs.gone, 'the device broke a ring: ')
      await t.rejects(statfs(bench.dir), { code: 'ENOTCONN' })
      await t.rejects(stat(join(bench.dir, 'file')), { code: 'ENOTCONN' })
      t.equal(findMount(bench.dir)?.type, FS_TYPE, 'it is still mounted')
      await file.close().catch(() => {})
      t.equal(await within(10_000, mount.unmount().then(() => 'unmounted')), 'unmounted')
      t.equal(findMount(bench.dir), undefined)
    })
  })
}
