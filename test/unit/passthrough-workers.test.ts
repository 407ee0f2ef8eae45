import { Worker } from 'node:worker_threads'
import t from 'tap'
import { HandleTable } from '../../lib/device/passthrough/handle-table.js'
import { InodeTable } from '../../lib/device/passthrough/inode-table.js'
import { Head } from '../../lib/device/passthrough/layout.js'
import { viewRegion } from '../../lib/sys/memory.js'
import type { Load } from '../support/passthrough-load.js'
import { openDescriptors, serve } from '../support/passthrough-fixture.js'

const script = new URL('../support/passthrough-load.js', import.meta.url)

function run(load: Load): Promise<string[]> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(script, { workerData: load })
    let wrong: string[] | undefined
    worker.on('message', (value: string[]) => { wrong = value })
    worker.on('error', reject)
    worker.on('exit', () => wrong ? resolve(wrong) : reject(new Error('ended without a word')))
  })
}

for (const fileHandles of [true, false]) {
  t.test(`workers share one table, ${fileHandles ? 'with' : 'without'} file handles`, async t => {
    const { client, shared } = serve(t, { limits: { fileHandles, cachedDescriptors: 32 } })
    const words = new Int32Array(viewRegion(shared.address, shared.lengthBytes).view.buffer)
    const inodes = new InodeTable(words, shared.address, shared.layout)
    const handles = new HandleTable(words, shared.layout)
    const before = openDescriptors()
    const results = await Promise.all([1, 2, 3].map(seed => run({ shared, seed: seed * 7919, rounds: 8000, names: 40 })))
    for (const wrong of results) t.same(wrong.slice(0, 5), [])
    t.equal(inodes.live, 1, 'everything was given back')
    t.equal(handles.live, 0)
    t.equal(words[Head.HASH_USED], 1)
    t.equal(words[Head.PATH_FDS], 1)
    t.equal(words[Head.KEPT_FDS], 1)
    t.ok(openDescriptors() <= before)
    t.equal(client.getattr(1n).error, 0)
  })
}

t.test('workers that name things one at a time', async t => {
  const { shared } = serve(t, { only: ['*'] })
  const results = await Promise.all([1, 2, 3].map(seed => run({ shared, seed: seed * 104729, rounds: 4000, names: 40 })))
  for (const wrong of results) t.same(wrong.slice(0, 5), [])
})
