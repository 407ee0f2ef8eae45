/** A thread of the emulated device's pool that fails takes a request with it: the device is gone then, and nobody waits for ever. */
import { mkdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { Bench, EmulatedTransport, withDevice } from '../support/driver-mount.js'
import { missing } from '../support/peers.js'
import { within } from '../support/program.js'

t.test('a thread of the pool fails', { skip: missing('emulated') }, async t => {
  const bench = new Bench()
  try {
    const handlers = { ...bench.serve().handlers, module: new URL('../support/failing-pool.js', import.meta.url).href }
    const transport = new EmulatedTransport(`pool-${process.pid}`, 1, handlers)
    await withDevice(t, transport, bench.dir, { timeoutMs: 3000 }, async ({ fs }) => {
      await transport.poolReady()
      const code = (error: NodeJS.ErrnoException): string | undefined => error.code
      t.equal(await within(10_000, mkdir(join(bench.dir, 'd')).catch(code)), 'EIO')
      t.match(fs.gone, /a thread of the pool failed: a mistake/)
      t.equal(await within(10_000, stat(join(bench.dir, 'e')).catch(code)), 'ENOTCONN')
    })
  } finally {
    bench[Symbol.dispose]()
  }
})
