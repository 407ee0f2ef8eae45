/** A thread of a device that hangs in a system call: what it may use stays. */
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { FINISH } from '../../lib/device/pool-protocol.js'
import { SharedQueue } from '../../lib/device/shared-queue.js'
import { ThreadsStuckError } from '../../lib/device/threads-stuck.js'
import { planMemory } from '../../lib/driver/memory-plan.js'
import { EmulatedTransport } from '../../lib/driver/emulated-transport.js'
import { mapAnonymous, unmap } from '../../lib/sys/memory.js'
import { until } from '../support/until.js'

t.test('what a thread of the pool uses is closed after its end', async t => {
  const gate = new SharedArrayBuffer(8)
  const words = new Int32Array(gate)
  let closed = false
  const transport = new EmulatedTransport('stuck', 1, { module: new URL('../support/gated-handlers.js', import.meta.url).href, data: gate, close: () => { closed = true } })
  const plan = planMemory({ queues: 1, queueSize: 16, indirectDesc: true, largeBuffers: 2, parked: 1, notifyBufBytes: 0 })
  const address = mapAnonymous(plan.lengthBytes)
  t.teardown(() => unmap(address, plan.lengthBytes))
  const [backend] = await transport.start({ memfd: -1, address, plan, wakeFds: [-1], sleepFlags: new SharedArrayBuffer(4), windowFd: -1, workers: true })
  await transport.poolReady()
  const jobs = new SharedQueue((backend as { pool: { jobs: SharedArrayBuffer } }).pool.jobs)
  jobs.push(FINISH, 0)
  jobs.wake(1)
  await until(() => Atomics.load(words, 0) === 1, 10_000)
  await t.rejects(transport.stop(), ThreadsStuckError)
  await transport.close()
  t.notOk(closed)
  Atomics.store(words, 1, 1)
  Atomics.notify(words, 1)
  for (let i = 0; i < 1000 && !closed; i++) await sleep(10)
  t.ok(closed)
})
