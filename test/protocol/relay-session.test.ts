/** Beginning and end of a session: INIT adapted both ways, DESTROY, queues that are stopped, a device that is gone. */
import t from 'tap'
import { errno } from '../../lib/errors.js'
import { FuseInHeader, FuseInitIn, FuseInitOut, FuseReadIn, FuseWriteIn } from '../../lib/fuse/abi.js'
import { initFlagNames, initFlagWords } from '../../lib/fuse/init.js'
import { Op } from '../../lib/fuse/opcodes.js'
import { allocateRingRoom, RingRoom } from '../../lib/driver/ring-room.js'
import { RequestQueue } from '../../lib/driver/request-queue.js'
import { args, pattern } from '../support/mock-fuse.js'
import { Counter, Received, RelayFixture, withRelay } from '../support/relay-fixture.js'

function init(flags: Parameters<typeof initFlagWords>[0]): Uint8Array {
  const [low, high] = initFlagWords([...flags, 'INIT_EXT'])
  return args(FuseInitIn.SIZE, { [FuseInitIn.major]: 7, [FuseInitIn.minor]: 45, [FuseInitIn.max_readahead]: 131072, [FuseInitIn.flags]: low, [FuseInitIn.flags2]: high })
}

function initOut(fields: Record<number, number> = {}): Buffer {
  const [low, high] = initFlagWords(['INIT_EXT', 'ASYNC_READ', 'SPLICE_READ', 'PASSTHROUGH', 'SECURITY_CTX'])
  const out = Buffer.from(args(FuseInitOut.SIZE, { [FuseInitOut.major]: 7, [FuseInitOut.minor]: 38, [FuseInitOut.max_write]: 8 << 20, [FuseInitOut.flags]: low, [FuseInitOut.flags2]: high, ...fields }))
  out.writeUInt16LE(512, FuseInitOut.max_pages)
  out.writeUInt16LE(1000, FuseInitOut.max_background)
  return out
}

t.test('INIT: the device does not see what is not for it, the kernel not what the bridge cannot hold', async t => {
  await withRelay(t, { init: { maxWrite: 1 << 20, maxBackground: 28 } }, relay => {
    const request = relay.roundOut(Op.INIT, init(['ASYNC_READ', 'SPLICE_READ', 'PASSTHROUGH', 'SECURITY_CTX', 'SUBMOUNTS']))
    const bytes = Buffer.from(request.bytes)
    t.equal(bytes.length, 104)
    const seen = FuseInHeader.SIZE + FuseInitIn.flags
    t.strictSame(initFlagNames(bytes.readUInt32LE(seen), bytes.readUInt32LE(seen + 4)), ['ASYNC_READ', 'INIT_EXT', 'SECURITY_CTX'])
    t.equal(bytes.readUInt32LE(FuseInHeader.SIZE + FuseInitIn.max_readahead), 131072)
    relay.device.answer(request, { payload: initOut() })
    const [reply] = relay.complete()
    t.match(reply, { error: 0, length: 80, unique: request.unique })
    const got = Buffer.from(reply!.payload)
    t.strictSame(initFlagNames(got.readUInt32LE(FuseInitOut.flags), got.readUInt32LE(FuseInitOut.flags2)), ['ASYNC_READ', 'INIT_EXT', 'SECURITY_CTX'])
    t.strictSame([got.readUInt32LE(FuseInitOut.max_write), got.readUInt16LE(FuseInitOut.max_pages), got.readUInt16LE(FuseInitOut.max_background)], [1 << 20, 256, 28])
    t.strictSame(relay.inits, [0])
    t.strictSame(relay.queue.offered, [bytes.readUInt32LE(seen), bytes.readUInt32LE(seen + 4)], 'what was offered can be told afterwards')
  })
})

t.test('INIT refused, then a second INIT: each is relayed', async t => {
  await withRelay(t, {}, relay => {
    relay.device.answer(relay.roundOut(Op.INIT, init([])), { error: -errno.EPROTO })
    t.match(relay.complete(), [{ error: -errno.EPROTO, length: 16 }])
    relay.device.answer(relay.roundOut(Op.INIT, init([])), { payload: initOut() })
    t.match(relay.complete(), [{ error: 0, length: 80 }])
    t.strictSame(relay.inits, [-errno.EPROTO, 0])
  })
})

t.test('an INIT answered with nonsense is EIO', async t => {
  await withRelay(t, {}, relay => {
    const request = relay.roundOut(Op.INIT, init([]))
    relay.device.answer(request, { payload: initOut(), unique: request.unique + 1n })
    t.match(relay.complete(), [{ error: -errno.EIO, unique: request.unique }])
  })
})

t.test('DESTROY: unwritten, with a header, with nonsense: it came back', async t => {
  for (const answer of [{ unwritten: true }, {}, { error: -errno.ENOSYS }, { unwritten: true, used: 16 }, { unique: 77n }, { used: 5000 }]) {
    for (const indirectDesc of [false, true]) {
      await withRelay(t, { queueSize: 4, indirectDesc }, relay => {
        relay.device.answer(relay.roundOut(Op.STATFS), { payload: pattern(80) })
        relay.complete()
        relay.queue.sendDestroy()
        t.equal(relay.queue.inFlight, 1)
        const request = relay.device.takeOne()
        t.match(request, { opcode: Op.DESTROY, nodeid: 0n, room: 16 })
        t.equal(request.bytes.length, FuseInHeader.SIZE)
        t.not(request.unique, 0n)
        t.equal(relay.destroyed, 0)
        relay.device.answer(request, answer)
        t.strictSame(relay.complete(), [], 'the kernel did not ask')
        t.equal(relay.destroyed, 1, JSON.stringify({ ...answer, unique: undefined }))
        t.equal(relay.count(Counter.BAD_REPLIES), 0)
      })
    }
  }
})

t.test('a DESTROY from the kernel is a request like any other', async t => {
  await withRelay(t, {}, relay => {
    const request = relay.roundOut(Op.DESTROY)
    relay.device.answer(request)
    t.match(relay.complete(), [{ unique: request.unique, error: 0, length: 16 }])
  })
})

t.test('a stopped queue answers ENOTCONN, and reads on', async t => {
  await withRelay(t, { queueSize: 4, largeBuffers: 2 }, relay => {
    relay.queue.connected = false
    const uniques = []
    for (let i = 0; i < 20; i++) {
      uniques.push(relay.fuse.send([Op.STATFS, Op.READ, Op.WRITE][i % 3]!, [new Uint8Array(0), args(FuseReadIn.SIZE, { [FuseReadIn.size]: 65536 }), args(FuseWriteIn.SIZE, {}, pattern(5000))][i % 3]!))
    }
    t.strictSame(relay.receiveAll(), { count: 20, stopped: Received.NONE })
    t.strictSame(relay.fuse.collect().map(reply => [reply.unique, reply.error]), uniques.map(unique => [unique, -errno.ENOTCONN]))
    t.strictSame(relay.device.take(), [])
  })
})

t.test('a connection that is gone', async t => {
  const relay = new RelayFixture()
  try {
    const queue = new RequestQueue(relay.region, relay.plan.workers[0]!, relay.features, -1, relay.counters, relay.hiprio,
      { maxWrite: 1 << 20, maxBackground: 28, defaultPermissions: true, passthrough: false }, { initAnswered() {}, destroyed() {}, interrupted() {} }, null, new RingRoom(allocateRingRoom(1), 0))
    t.equal(queue.receive(), Received.UNMOUNTED)
    t.equal(queue.receive(), Received.UNMOUNTED, 'as often as it is asked')
  } finally {
    relay.close()
  }
})

t.test('a device that is gone: each request in flight is answered once, its buffers are not used again', async t => {
  for (const indirectDesc of [false, true]) {
    const relay = new RelayFixture({ indirectDesc, queueSize: 64, largeBuffers: 8 })
    try {
      const uniques = []
      for (let i = 0; i < 6; i++) uniques.push(relay.fuse.send([Op.STATFS, Op.READ, Op.WRITE][i % 3]!, [new Uint8Array(0), args(FuseReadIn.SIZE, { [FuseReadIn.size]: 65536 }), args(FuseWriteIn.SIZE, {}, pattern(100))][i % 3]!))
      relay.receiveAll()
      const taken = relay.device.take()
      relay.device.answer(taken[1]!, { payload: pattern(65536) })
      t.match(relay.complete(), [{ unique: uniques[1], error: 0 }], 'what it answered before is good')
      t.equal(relay.queue.failInFlight(-errno.EIO), 5)
      t.strictSame(relay.fuse.collect().map(reply => reply.unique).sort(), uniques.filter((_, i) => i !== 1).sort())
      const free = relay.queue.slots.freeSlotCount
      for (const request of [...relay.device.pending]) relay.device.answer(request, { payload: pattern(request.room - 16) })
      t.strictSame(relay.complete(), [], 'what it says afterwards nobody hears')
      t.equal(relay.queue.slots.freeSlotCount, free)
      t.equal(relay.queue.failInFlight(-errno.EIO), 0)
      t.strictSame(relay.fuse.collect(), [], 'and a second failure answers nobody')
      t.not(relay.queue.ring.broken, '')
    } finally {
      relay.close()
    }
  }
})

t.test('a device that goes with every buffer in its hands: what comes later is answered all the same', async t => {
  for (const indirectDesc of [false, true]) {
    const relay = new RelayFixture({ indirectDesc, queueSize: 4, largeBuffers: 2 })
    try {
      for (let i = 0; i < 6; i++) relay.fuse.send(Op.STATFS)
      t.equal(relay.receiveAll().stopped, Received.FULL)
      relay.device.take()
      const failed = relay.queue.failInFlight(-errno.EIO)
      t.strictSame(relay.receiveAll(), { count: 6 - failed, stopped: Received.NONE })
      const late = relay.fuse.send(Op.WRITE, args(FuseWriteIn.SIZE, {}, pattern(100_000)))
      t.strictSame(relay.receiveAll(), { count: 1, stopped: Received.NONE })
      const replies = relay.fuse.collect()
      t.strictSame(replies.map(reply => reply.error), [...Array(failed).fill(-errno.EIO), ...Array(7 - failed).fill(-errno.ENOTCONN)])
      t.equal(replies.at(-1)!.unique, late)
      relay.device.pending.forEach(request => request.writable.forEach(buffer => relay.device.at(buffer).fill(0xff)))
      t.not(relay.region.bytes.at(relay.plan.workers[0]!.slots), 0xff, 'the requests were not read into memory that the device has')
    } finally {
      relay.queue.close()
      relay.close()
    }
  }
})

t.test('a DESTROY in flight when the device goes is answered to nobody', async t => {
  const relay = new RelayFixture()
  try {
    relay.queue.sendDestroy()
    relay.device.take()
    relay.queue.failInFlight(-errno.EIO)
    t.strictSame(relay.fuse.collect(), [])
    t.equal(relay.queue.inFlight, 0)
  } finally {
    relay.close()
  }
})

t.test('an answer to a notification that nobody sent is swallowed', async t => {
  await withRelay(t, {}, relay => {
    relay.fuse.send(Op.NOTIFY_REPLY, args(40))
    t.match(relay.receiveAll(), { count: 1 })
    t.strictSame(relay.device.take(), [])
    t.strictSame(relay.hiprioDevice.take(), [])
    t.strictSame(relay.fuse.collect(), [])
  })
})

t.test('INTERRUPT of a request that is here, and of one that may be elsewhere', async t => {
  await withRelay(t, {}, relay => {
    const request = relay.roundOut(Op.SETLKW, args(48))
    const interrupt = (unique: bigint): void => {
      relay.fuse.send(Op.INTERRUPT, args(8, { 0: Number(unique) }))
      relay.receiveAll()
      for (const message of relay.hiprioDevice.take()) relay.hiprioDevice.giveBack(message, 0)
      relay.hiprio.complete()
    }
    interrupt(request.unique)
    t.strictSame(relay.interrupted, [])
    t.strictSame(relay.fuse.collect(), [], 'its caller lives, so it waits for the device')
    interrupt(request.unique + 1000n)
    t.strictSame(relay.interrupted, [request.unique + 1000n])
    relay.device.answer(request, { error: -errno.EINTR })
    t.match(relay.complete(), [{ unique: request.unique, error: -errno.EINTR }])
    t.equal(relay.count(Counter.INTERRUPTS), 2)
  })
})

t.test('a deadline for requests: from the first that the device has, not for one that waits for a lock', async t => {
  await withRelay(t, { limitMs: 60_000 }, relay => {
    t.equal(relay.queue.leftMs, -1, 'nothing is in flight')
    const lock = relay.roundOut(Op.SETLKW, args(48))
    t.equal(relay.queue.leftMs, -1, 'the owner of a lock takes as long as it likes')
    const request = relay.roundOut(Op.STATFS)
    t.ok(relay.queue.leftMs > 0 && relay.queue.leftMs <= 60_000)
    t.equal(relay.queue.lateOpcode, Op.STATFS)
    relay.device.answer(request, { payload: pattern(80) })
    relay.complete()
    t.equal(relay.queue.leftMs, -1, 'and none when it is answered')
    relay.device.answer(lock)
    relay.complete()
  })
  await withRelay(t, {}, relay => {
    const request = relay.roundOut(Op.STATFS)
    t.equal(relay.queue.leftMs, -1, 'no deadline unless it was asked for')
    relay.device.answer(request, { payload: pattern(80) })
    relay.complete()
  })
})
