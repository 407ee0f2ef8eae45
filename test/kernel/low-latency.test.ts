/** -o low_latency asks the power management to keep CPUs awake while requests come, and only then; in a small virtual machine every mount does. */
import { closeSync, existsSync, openSync, readSync, statfsSync } from 'node:fs'
import t from 'tap'
import { keepsCpusAwake } from '../../lib/mount/low-latency.js'
import { withMount } from '../support/mounts.js'
import { missing } from '../support/peers.js'
import { eventually } from '../support/scene.js'

const DEVICE = '/dev/cpu_dma_latency'

/** What all who ask leave a CPU to wake, in microseconds. */
function latencyUs(): number {
  const fd = openSync(DEVICE, 'r')
  try {
    const bytes = Buffer.alloc(4)
    readSync(fd, bytes, 0, 4, null)
    return bytes.readInt32LE()
  } finally {
    closeSync(fd)
  }
}

const skip = missing('emulated') || !existsSync(DEVICE) && `no ${DEVICE}` || latencyUs() === 0 && 'something else keeps them awake'

t.test('CPUs are kept awake while requests come', { skip }, async t => {
  const before = latencyUs()
  await withMount(t, { peer: 'emulated', options: ['low_latency', 'poll=20000'] }, async ({ dir }) => {
    t.ok(await eventually(() => latencyUs() === before), 'not by an idle mount')
    t.ok(await eventually(() => {
      for (let i = 0; i < 200; i++) statfsSync(dir)
      return latencyUs() === 0
    }), 'while requests come')
    t.ok(await eventually(() => latencyUs() === before), 'no longer when they have ended')
    for (let i = 0; i < 200; i++) statfsSync(dir)
  })
  t.equal(latencyUs(), before, 'nor after the unmount')
})

t.test('by default in a small virtual machine', { skip }, async t => {
  for (const [options, awake] of [[['poll=20000'], keepsCpusAwake()], [['poll=20000', 'no_low_latency'], false], [['poll=off'], false]] as const) {
    await withMount(t, { peer: 'emulated', options: [...options] }, async ({ dir }) => {
      let seen = false
      for (let i = 0; i < 2000; i++) {
        statfsSync(dir)
        if (i % 100 === 99) seen ||= latencyUs() === 0
      }
      t.equal(seen, awake, options.join(','))
    })
  }
})

t.test('only there', async t => {
  t.equal(keepsCpusAwake({ cpus: 4, flags: ['fpu'] }), false, 'not on real hardware')
  t.equal(keepsCpusAwake({ cpus: 5, flags: ['hypervisor'] }), false, 'not where CPUs are many')
})
