/** Buckets of latencies, percentiles, and what happened between two looks. */
import t from 'tap'
import { between, percentile } from '../../lib/control/interval.js'
import { allocateLatencies, BUCKETS, bucketOf, bucketStart, LatencyRecorder, readLatencies } from '../../lib/driver/latencies.js'
import { allocateCounters, Counter, workerCounters } from '../../lib/driver/counters.js'
import { Op } from '../../lib/fuse/opcodes.js'
import { readStats } from '../../lib/mount/mount-stats.js'

t.test('every latency has one bucket, no more than an eighth wide', async t => {
  let last = -1
  for (let us = 0; us < 2 ** 31; us = us < 5000 ? us + 1 : Math.floor(us * 1.01)) {
    const bucket = bucketOf(us)
    if (bucket < last || bucket >= BUCKETS || bucketStart(bucket) > us || bucketStart(bucket + 1) <= us) t.fail(`${us} µs in bucket ${bucket}, which starts at ${bucketStart(bucket)}`)
    last = bucket
  }
  t.equal(bucketOf(2 ** 31 - 1), BUCKETS - 1, 'the last bucket takes the largest')
  for (let bucket = 8; bucket < BUCKETS; bucket++) {
    if (bucketStart(bucket + 1) - bucketStart(bucket) > bucketStart(bucket) / 8) t.fail(`bucket ${bucket} is too wide`)
  }
})

t.test('counts of several workers, percentiles', async t => {
  const shared = allocateLatencies(2)
  const workers = [new LatencyRecorder(shared, 0), new LatencyRecorder(shared, 1)]
  for (let us = 1; us <= 1000; us++) workers[us % 2]!.record(Op.READ, us)
  workers[0]!.record(Op.WRITE, 5)
  workers[0]!.record(1000, 2 ** 40)
  const found = readLatencies(shared)
  t.strictSame([...found.keys()].sort((a, b) => a - b), [0, Op.READ, Op.WRITE], 'what has no row counts as 0')
  const read = found.get(Op.READ)!
  t.equal(read.count, 1000)
  t.equal(read.sumUs, 500_500)
  for (const [part, us] of [[0.5, 500], [0.9, 900], [0.99, 990], [1, 1000]] as const) {
    const got = percentile(read, part)
    t.ok(got >= us && got < us * 1.125 + 1, `${part}: ${got} for ${us} µs`)
  }
  t.equal(percentile(found.get(Op.WRITE)!, 0.5), 5)
})

t.test('between two looks', async t => {
  const counters = allocateCounters(2)
  const latencies = allocateLatencies(2)
  const recorder = new LatencyRecorder(latencies, 1)
  const mine = workerCounters(counters, 1)
  const add = (opcode: number, us: number): void => {
    mine[Counter.REQUESTS]!++
    mine[Counter.OPCODES + opcode]!++
    recorder.record(opcode, us)
  }
  for (let i = 0; i < 50; i++) add(Op.READ, 10_000)
  mine[Counter.POLLS_WON] = 7
  const before = readStats(counters, 2, latencies)
  for (let i = 0; i < 100; i++) add(Op.READ, 100)
  add(Op.GETATTR, 20)
  mine[Counter.POLLS_WON] = 10
  mine[Counter.POLLS_LOST] = 1
  mine[Counter.IN_FLIGHT] = 3
  mine[Counter.BYTES_READ] = 4096
  const seen = between(before, { ...readStats(counters, 2, latencies), atMs: before.atMs + 2000 })
  t.match(seen, {
    seconds: 2, requestsPerSecond: 50.5, bytesReadPerSecond: 2048, inFlight: 3, pollsWon: 3, pollsLost: 1, pollEfficiency: 0.75,
    opcodes: { READ: { count: 100, perSecond: 50, total: 150, meanUs: 100, p50Us: 103, p99Us: 103, maxUs: 103 }, GETATTR: { count: 1 } },
    totals: { REQUESTS: 151 },
  })
  t.strictSame(seen.histogram, [[16, 1], [64, 100]], 'only what came since')
  t.strictSame(Object.keys(seen.opcodes).sort(), ['GETATTR', 'READ'])
  t.equal(seen.inFlightMean, 0, 'ten milliseconds in two seconds')
  const nothing = between(before, before)
  t.match(nothing, { requestsPerSecond: 0, pollEfficiency: null, opcodes: {}, histogram: [] })
})
