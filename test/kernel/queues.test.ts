/** Every combination of queues, ring size and ring features, on real mounts: the same work, the same end. */
import t, { type Test } from 'tap'
import { UsageError } from '../../lib/errors.js'
import { mount } from '../../lib/index.js'
import { Bench, EmulatedTransport, withDevice } from '../support/driver-mount.js'
import { LoadChild } from '../support/load.js'
import { missing } from '../support/peers.js'
import { Recording } from '../support/recording.js'
import { ALL_FEATURES, featureText } from '../support/ring-pair.js'
import { ThreadedDevice } from '../support/threaded-device.js'

const QUEUES = [1, 2, 4]
const SIZES = [4, 16, 128, 1024]
const CALLERS = 16

interface Combination { queues: number, queueSize: number, features: (typeof ALL_FEATURES)[number] }

const combinations: Combination[] = QUEUES.flatMap(queues => SIZES.flatMap(queueSize => ALL_FEATURES.map(features => ({ queues, queueSize, features }))))

const text = ({ queues, queueSize, features }: Combination): string => `${queues} queues of ${queueSize}, ${featureText(features)}`

async function work(t: Test, load: LoadChild, kind: 'emulated' | 'threaded', combination: Combination, seed: number): Promise<void> {
  using bench = new Bench()
  const recording = new Recording(20_000)
  const { handlers, directory } = bench.serve()
  const recorded = recording.wrap(handlers, directory)
  const { queues, queueSize, features } = combination
  const tag = `queues-${process.pid}-${seed}`
  const transport = kind === 'emulated' ? new EmulatedTransport(tag, queues, recorded, features) : new ThreadedDevice({ tag, requestQueues: queues, handlers: recorded, features })
  await withDevice(t, transport, bench.dir, { queues, queueSize }, async ({ fs }) => {
    if (fs.queues !== queues) throw new Error(`${fs.queues} queues`)
    await load.run({ kind: 'everything', dir: bench.dir, callers: CALLERS, rounds: 1, seed })
  })
  const requests = recording.requests()
  const account = recording.account()
  const problems = [
    ...account.wrong,
    ...requests[0]!.op === 'INIT' ? [] : [`${requests[0]!.op} came first`],
    ...requests.at(-1)!.op === 'DESTROY' && requests.at(-1)!.running === 0 ? [] : [`${requests.at(-1)!.op} came last, with ${requests.at(-1)!.running} others`],
    ...account.forgotten > 0 ? [] : ['no FORGET'],
  ]
  if (transport instanceof ThreadedDevice) {
    const sent = transport.rings.slice(1).reduce((sum, ring) => sum + ring.available, 0)
    if (sent !== requests.length) problems.push(`${requests.length} requests, ${sent} on the rings`)
    if (transport.rings.some(ring => ring.available !== ring.used)) problems.push('a chain did not come back')
  }
  t.strictSame(problems, [], `${text(combination)}: ${requests.length} requests, ${account.given} lookups given`)
}

t.test('all combinations', { skip: missing('emulated') }, async t => {
  const load = new LoadChild(CALLERS)
  try {
    for (const [seed, combination] of combinations.entries()) await work(t, load, 'threaded', combination, seed)
  } finally {
    await load.end()
  }
})

t.test('ring sizes that are not possible are refused', async t => {
  using bench = new Bench()
  for (const queueSize of [0, 1, 2, 3, 5, 6, 100, 1000, 1023, 2048, 4096, 65536, -4, 4.5, NaN, Infinity]) {
    await t.rejects(mount({ source: bench.source, mountpoint: bench.dir, options: { queueSize } }), UsageError, `${queueSize}`)
  }
})
