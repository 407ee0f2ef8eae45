/** The hiprio queue: FORGETs alone and in batches, parked and sent later in order; INTERRUPTs first. */
import t from 'tap'
import { FuseBatchForgetIn, FuseForgetOne, FuseInHeader } from '../../lib/fuse/abi.js'
import { Op } from '../../lib/fuse/opcodes.js'
import { HiprioSlot } from '../../lib/driver/memory-plan.js'
import { ALL_FEATURES } from '../support/ring-pair.js'
import { args, batchForget, forget } from '../support/mock-fuse.js'
import type { TakenRequest } from '../support/mock-device.js'
import { Counter, RelayFixture, withRelay } from '../support/relay-fixture.js'
import { SeededRandom } from '../support/seeded-random.js'

/** FORGETs in one message of the hiprio queue, as the device reads them. */
function decode(request: TakenRequest): [nodeid: number, nlookup: number][] {
  const bytes = Buffer.from(request.bytes)
  if (request.writable.length > 0) throw new Error('a message of hiprio has no reply')
  if (request.readable.length !== 1) throw new Error('one descriptor')
  if (bytes.readUInt32LE(FuseInHeader.len) !== bytes.length) throw new Error(`length ${bytes.readUInt32LE(FuseInHeader.len)} of ${bytes.length} bytes`)
  if (request.opcode === Op.FORGET) {
    if (bytes.length !== 48) throw new Error(`FORGET of ${bytes.length} bytes`)
    return [[Number(request.nodeid), Number(bytes.readBigUInt64LE(FuseInHeader.SIZE))]]
  }
  if (request.opcode !== Op.BATCH_FORGET) throw new Error(`opcode ${request.opcode}`)
  const count = bytes.readUInt32LE(FuseInHeader.SIZE + FuseBatchForgetIn.count)
  const head = FuseInHeader.SIZE + FuseBatchForgetIn.SIZE
  if (bytes.length !== head + count * FuseForgetOne.SIZE) throw new Error(`BATCH_FORGET of ${count} in ${bytes.length} bytes`)
  return Array.from({ length: count }, (_, i) => [
    Number(bytes.readBigUInt64LE(head + i * FuseForgetOne.SIZE + FuseForgetOne.nodeid)), Number(bytes.readBigUInt64LE(head + i * FuseForgetOne.SIZE + FuseForgetOne.nlookup)),
  ])
}

/** The device takes everything and gives it back. */
function takeAll(relay: RelayFixture): TakenRequest[] {
  const taken = relay.hiprioDevice.take()
  for (const request of taken) relay.hiprioDevice.giveBack(request, 0)
  relay.hiprio.complete()
  return taken
}

t.test('one FORGET travels as one, with all 64 bits', async t => {
  await withRelay(t, {}, relay => {
    relay.fuse.send(Op.FORGET, forget(0x1_0000_0003), { nodeid: 0x12_3456_789a })
    relay.receiveAll()
    const [request] = takeAll(relay)
    t.equal(request!.opcode, Op.FORGET)
    t.not(request!.unique, 0n)
    t.strictSame(decode(request!), [[0x12_3456_789a, 0x1_0000_0003]])
    t.strictSame(relay.fuse.collect(), [], 'nobody is answered')
    t.equal(relay.count(Counter.FORGETS), 1)
    t.strictSame(relay.device.take(), [], 'nothing on the request queue')
    t.equal(relay.hiprioNotified, 1)
  })
})

t.test('several FORGETs travel as a batch, in order', async t => {
  await withRelay(t, {}, relay => {
    for (let i = 1; i <= 5; i++) relay.fuse.send(Op.FORGET, forget(i), { nodeid: 100 + i })
    relay.receiveAll()
    const taken = takeAll(relay)
    t.equal(taken.length, 1)
    t.strictSame(decode(taken[0]!), [[101, 1], [102, 2], [103, 3], [104, 4], [105, 5]])
    t.equal(relay.count(Counter.FORGETS), 5)
    t.equal(relay.hiprioNotified, 1, 'one notice for all')
  })
})

t.test('BATCH_FORGET is taken apart wherever its elements lie, and made up again', async t => {
  await withRelay(t, {}, relay => {
    // 2 end in the head of 80 bytes, 61 fill the small buffer of 1024, 62 need the large one
    for (const count of [1, 2, 3, 4, 60, 61, 62, 124, 125, 500, 3000]) {
      const pairs = Array.from({ length: count }, (_, i): [number, number] => [i + 2, (i % 7) + 1])
      relay.fuse.send(Op.BATCH_FORGET, batchForget(pairs))
      relay.receiveAll()
      const taken = takeAll(relay)
      t.strictSame(taken.flatMap(decode), pairs, `${count}`)
      t.equal(taken.length, Math.ceil(count / 124), 'as many as fit a buffer each')
      t.ok(taken.every(request => request.bytes.length <= HiprioSlot.MESSAGE_BYTES))
    }
    t.equal(new Set(relay.fuse.replies).size, 0)
  })
})

t.test('an empty BATCH_FORGET sends nothing', async t => {
  await withRelay(t, {}, relay => {
    relay.fuse.send(Op.BATCH_FORGET, batchForget([]))
    relay.receiveAll()
    t.strictSame(takeAll(relay), [])
    t.equal(relay.hiprioNotified, 0)
  })
})

t.test('100,000 FORGETs, ring size 4, a device that takes them at random: none is lost, none overtakes', async t => {
  for (const features of ALL_FEATURES) {
    await withRelay(t, { queueSize: 4, ...features }, relay => {
      const random = new SeededRandom(4)
      const total = 100_000
      let sent = 0
      const got: number[] = []
      let mostParked = 0
      let full = 0
      while (got.length < total) {
        for (let n = random.below(8); n > 0 && sent < total; n--) {
          if (random.below(3) === 0) {
            if (relay.fuse.send(Op.FORGET, forget(1), { nodeid: sent + 1 }) !== undefined) sent++
          } else {
            const count = Math.min(random.between(1, 400), total - sent)
            if (relay.fuse.send(Op.BATCH_FORGET, batchForget(Array.from({ length: count }, (_, i) => [sent + 1 + i, 1]))) !== undefined) sent += count
          }
        }
        relay.receiveAll()
        mostParked = Math.max(mostParked, relay.hiprio.parked)
        if (relay.hiprio.parked > 0 && (relay.hiprio.ring.freeCount > 0 || relay.hiprio.freeSlots > 0)) throw new Error('parked although there is room')
        if (relay.hiprio.ring.freeCount === 0) full++
        // the chains of a ring are taken in order; given back in any
        for (const request of relay.hiprioDevice.take(random.below(3))) for (const [nodeid] of decode(request)) got.push(nodeid)
        for (let n = random.below(4); n > 0 && relay.hiprioDevice.pending.length > 0; n--) {
          relay.hiprioDevice.giveBack(relay.hiprioDevice.pending[random.below(relay.hiprioDevice.pending.length)]!, 0)
        }
        relay.hiprio.complete()
      }
      for (const request of [...relay.hiprioDevice.pending]) relay.hiprioDevice.giveBack(request, 0)
      relay.hiprio.complete()
      t.ok(got.every((nodeid, i) => nodeid === i + 1), 'all, in the order they were sent')
      t.equal(got.length, total)
      t.ok(mostParked > 0 && full > 0, `at most ${mostParked} were parked`)
      t.equal(relay.count(Counter.FORGETS), total)
    })
  }
})

t.test('a full hiprio ring does not hold requests up', async t => {
  await withRelay(t, { queueSize: 4 }, relay => {
    for (let i = 0; i < 10; i++) {
      relay.fuse.send(Op.FORGET, forget(1), { nodeid: i + 1 })
      relay.receiveAll()
    }
    t.equal(relay.hiprio.ring.freeCount, 0)
    t.equal(relay.hiprio.parked, 6)
    const request = relay.roundOut(Op.STATFS)
    relay.device.answer(request, { payload: new Uint8Array(80) })
    t.match(relay.complete(), [{ unique: request.unique, error: 0 }])
    // one completion sends all that is parked as one batch
    const [first] = relay.hiprioDevice.take()
    relay.hiprioDevice.giveBack(first!, 0)
    relay.hiprio.complete()
    t.equal(relay.hiprio.parked, 0)
    const rest = relay.hiprioDevice.take()
    t.strictSame(decode(rest[0]!), Array.from({ length: 6 }, (_, i) => [i + 5, 1]))
    for (const pending of [...relay.hiprioDevice.pending]) relay.hiprioDevice.giveBack(pending, 0)
    relay.hiprio.complete()
  })
})

t.test('INTERRUPTs overtake parked FORGETs', async t => {
  await withRelay(t, { queueSize: 4 }, relay => {
    for (let i = 0; i < 8; i++) {
      relay.fuse.send(Op.FORGET, forget(1), { nodeid: i + 1 })
      relay.receiveAll()
    }
    for (const unique of [0x1_0000_0002, 6]) relay.fuse.send(Op.INTERRUPT, args(8, { 0: unique % 2 ** 32, 4: Math.floor(unique / 2 ** 32) }))
    relay.receiveAll()
    t.equal(relay.hiprio.parked, 6)
    takeAll(relay)
    const taken = takeAll(relay)
    t.strictSame(taken.map(request => request.opcode), [Op.INTERRUPT, Op.INTERRUPT, Op.BATCH_FORGET])
    t.strictSame(taken.slice(0, 2).map(request => Buffer.from(request.bytes).readBigUInt64LE(FuseInHeader.SIZE)), [0x1_0000_0002n, 6n], 'they name the requests, in order')
    t.ok(taken.slice(0, 2).every(request => request.bytes.length === 48 && request.writable.length === 0))
    t.strictSame(decode(taken[2]!), [[5, 1], [6, 1], [7, 1], [8, 1]])
    t.equal(relay.count(Counter.INTERRUPTS), 2)
  })
})

t.test('disconnected: what is parked is dropped, what comes later too, what is with the device comes back', async t => {
  await withRelay(t, { queueSize: 4 }, relay => {
    for (let i = 0; i < 8; i++) {
      relay.fuse.send(Op.FORGET, forget(1), { nodeid: i + 1 })
      relay.receiveAll()
    }
    relay.fuse.send(Op.INTERRUPT, args(8, { 0: 2 }))
    relay.receiveAll()
    t.equal(relay.hiprio.parked, 5)
    relay.hiprio.disconnect()
    t.equal(relay.hiprio.parked, 0)
    relay.fuse.send(Op.FORGET, forget(1), { nodeid: 99 })
    relay.fuse.send(Op.BATCH_FORGET, batchForget([[98, 1], [97, 2]]))
    relay.fuse.send(Op.INTERRUPT, args(8, { 0: 4 }))
    t.match(relay.receiveAll(), { count: 3 }, 'they are read, so that the kernel is rid of them')
    const taken = takeAll(relay)
    t.strictSame(taken.flatMap(decode), [[1, 1], [2, 1], [3, 1], [4, 1]], 'only what was on the ring before')
    t.strictSame(takeAll(relay), [])
    t.strictSame(relay.fuse.collect(), [])
  })
})

t.test('uniques of messages that the relay makes are never those of a request', async t => {
  await withRelay(t, {}, relay => {
    const seen = new Set<bigint>()
    for (let i = 0; i < 1000; i++) {
      relay.fuse.send(i % 3 === 0 ? Op.INTERRUPT : Op.FORGET, args(8, { 0: 2 * i + 2 }), { nodeid: i + 1 })
      relay.receiveAll()
      for (const request of takeAll(relay)) {
        if (request.unique < 2n ** 61n) throw new Error(`unique ${request.unique}`)
        seen.add(request.unique)
      }
    }
    t.equal(seen.size, 1000, 'and each is its own')
  })
})
