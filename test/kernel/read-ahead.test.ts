/** The kernel's read-ahead: what the mount sets, and what is asked of the device then. */
import { readFileSync, writeFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { mount } from '../../lib/index.js'
import { withMount, type LiveMount } from '../support/mounts.js'
import { missing } from '../support/peers.js'
import { eventually } from '../support/scene.js'

const BYTES = 4 << 20
const CHUNK = 16 << 10

/** Reads a file from its begin to its end in small pieces. @returns the length of the largest READ that this made */
async function largestRead(live: LiveMount): Promise<number> {
  const file = await open(join(live.dir, 'file'))
  const buffer = Buffer.alloc(CHUNK)
  for (let at = 0; at < BYTES; at += CHUNK) await file.read(buffer, 0, CHUNK, at)
  await file.close()
  await live.unmount()
  return Math.max(...live.trace().filter(({ op }) => op === 'READ').map(({ bytes }) => bytes!))
}

const files = (source: string): void => writeFileSync(join(source, 'file'), Buffer.alloc(BYTES, 'x'))

for (const [options, kib] of [[[], 512], [['readahead=64K'], 64], [['readahead=2M'], 2048]] as const) {
  t.test(`${options[0] ?? 'by default'}: ${kib} KiB`, { skip: missing('emulated') }, async t => {
    await withMount(t, { peer: 'emulated', options, files }, async live => {
      t.ok(await eventually(() => Number(readFileSync(`/sys/class/bdi/0:${live.connection}/read_ahead_kb`, 'latin1')) === kib), 'set')
      const most = Math.min(kib, 1024) * 1024
      const largest = await largestRead(live)
      t.ok(largest > 16 + most / 2 && largest <= 16 + most, `READs of up to ${largest} bytes`)
    })
  })
}

t.test('not through fuse-native', async t => {
  await t.rejects(mount({ source: '/', mountpoint: '/', options: { via: 'fuse-native', readahead: 65536 } }), { message: /readahead.*fuse-native/ })
})
