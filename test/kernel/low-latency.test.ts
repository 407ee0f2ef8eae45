/** -o low_latency asks the power management to keep CPUs awake while requests come, and only then. */
import { closeSync, existsSync, openSync, readSync, statfsSync } from 'node:fs'
import t from 'tap'
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

t.test('CPUs are kept awake while requests come', { skip: missing('emulated') || !existsSync(DEVICE) && `no ${DEVICE}` || latencyUs() === 0 && 'something else keeps them awake' }, async t => {
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
