/** Requests that were read while the ring was full: they wait in order, and can be interrupted; FORGETs and INTERRUPTs pass them. */
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { allocateRingRoom, RingRoom } from '../../lib/driver/ring-room.js'
import { errno } from '../../lib/errors.js'
import { FuseBatchForgetIn, FuseForgetOne, FuseInHeader, FuseReadIn, FuseWriteIn } from '../../lib/fuse/abi.js'
import { Op } from '../../lib/fuse/opcodes.js'
import { DYING, DyingRequestQueue, killMortal, MORTAL } from '../support/dying.js'
import { args, batchForget, forget, pattern } from '../support/mock-fuse.js'
import type { TakenRequest } from '../support/mock-device.js'
import { Counter, Received, RelayFixture, withRelay, type RelayOptions } from '../support/relay-fixture.js'
import { SlowDevice } from '../support/scripted-device.js'
import { SeededRandom } from '../support/seeded-random.js'

const read = (size: number): Uint8Array => args(FuseReadIn.SIZE, { [FuseReadIn.size]: size })
const write = (data: Uint8Array): Uint8Array => args(FuseWriteIn.SIZE, { [FuseWriteIn.size]: data.length }, data)
const interrupt = (unique: bigint): Uint8Array => args(8, { 0: Number(unique) })
const FULL: RelayOptions = { queueSize: 4, indirectDesc: false, eventIdx: false, parked: 8, queueClass: DyingRequestQueue }

/** Nodes that messages of the hiprio queue forget. */
function forgotten(messages: readonly TakenRequest[]): number[] {
  return messages.flatMap(message => {
    if (message.opcode === Op.FORGET) return [Number(message.nodeid)]
    if (message.opcode !== Op.BATCH_FORGET) return []
    const bytes = Buffer.from(message.bytes)
    const at = FuseInHeader.SIZE + FuseBatchForgetIn.SIZE
    return Array.from({ length: bytes.readUInt32LE(FuseInHeader.SIZE) }, (_, i) => Number(bytes.readBigUInt64LE(at + i * FuseForgetOne.SIZE)))
  })
}

/** The device takes and gives back all that is on hiprio. */
function drainHiprio(relay: RelayFixture): TakenRequest[] {
  const taken = relay.hiprioDevice.take()
  for (const message of taken) relay.hiprioDevice.giveBack(message, 0)
  relay.hiprio.complete()
  return taken
}

/** Answers whatever the device has, until nothing waits. @returns the uniques in the order in which they came to the device */
function serveAll(relay: RelayFixture): bigint[] {
  const seen: bigint[] = []
  while (relay.queue.inFlight > 0) {
    for (const request of relay.device.take()) {
      seen.push(request.unique)
      relay.device.answer(request, { error: -errno.ENOENT })
    }
    relay.queue.complete()
  }
  return seen
}

t.test('they reach the device in order, and so many that reading has an end', async t => {
  await withRelay(t, FULL, relay => {
    const uniques = Array.from({ length: 12 }, () => relay.fuse.send(Op.STATFS)!)
    t.strictSame(relay.receiveAll(), { count: 9, stopped: Received.FULL }, 'one on the ring, eight wait')
    t.equal(relay.device.take().length, 1)
    t.equal(relay.queue.inFlight, 9)
    t.equal(relay.count(Counter.PARKED), 8)
    t.strictSame(relay.fuse.collect(), [])
    relay.device.answer(relay.device.pending[0]!, { payload: pattern(80) })
    t.match(relay.complete(), [{ unique: uniques[0], error: 0 }])
    t.strictSame(relay.receiveAll(), { count: 1, stopped: Received.FULL }, 'one completion, one more')
    t.strictSame(serveAll(relay), uniques.slice(1, 10))
    relay.receiveAll()
    t.strictSame(serveAll(relay), uniques.slice(10))
    t.strictSame(relay.fuse.collect().map(reply => reply.unique), uniques.slice(1))
  })
})

t.test('FORGETs and INTERRUPTs are read although the ring is full', async t => {
  await withRelay(t, FULL, relay => {
    const [first] = Array.from({ length: 5 }, () => relay.fuse.send(Op.STATFS)!)
    relay.fuse.send(Op.FORGET, forget(3), { nodeid: 7 })
    relay.fuse.send(Op.BATCH_FORGET, batchForget([[8, 1], [9, 1]]))
    relay.fuse.send(Op.INTERRUPT, interrupt(first!))
    t.strictSame(relay.receiveAll(), { count: 8, stopped: Received.NONE })
    const messages = drainHiprio(relay)
    t.equal(messages[0]!.opcode, Op.INTERRUPT)
    t.strictSame(forgotten(messages), [7, 8, 9])
    t.strictSame(relay.fuse.collect(), [], 'the device has it, so it waits for the device')
    serveAll(relay)
    t.equal(relay.fuse.collect().length, 5)
  })
})

t.test('one that still waits is given up when its caller is killed, the others keep their order', async t => {
  await withRelay(t, FULL, relay => {
    const uniques = Array.from({ length: 7 }, (_, i) => relay.fuse.send(i % 2 === 0 ? Op.READ : Op.WRITE, i % 2 === 0 ? read(65536) : write(pattern(9000)), { pid: [1, 3, 6].includes(i) ? DYING : process.pid })!)
    relay.receiveAll()
    const large = relay.queue.slots.freeLargeCount
    for (const i of [3, 6, 1]) {
      relay.fuse.send(Op.INTERRUPT, interrupt(uniques[i]!))
      relay.receiveAll()
      t.strictSame(relay.fuse.collect(), [{ unique: uniques[i], error: -errno.EINTR, length: 16, payload: new Uint8Array(0) }])
    }
    t.equal(relay.queue.slots.freeLargeCount, large + 2, 'the buffers of two WRITEs are free')
    t.strictSame(relay.interrupted, [], 'no other queue is asked')
    t.strictSame(drainHiprio(relay).map(message => message.opcode), [Op.INTERRUPT, Op.INTERRUPT, Op.INTERRUPT])
    t.strictSame(serveAll(relay), [0, 2, 4, 5].map(i => uniques[i]))
    t.equal(relay.fuse.collect().length, 4)
  })
})

t.test('a signal that does not kill ends nothing', async t => {
  await withRelay(t, FULL, relay => {
    const uniques = Array.from({ length: 3 }, () => relay.fuse.send(Op.FSYNC, args(16))!)
    for (const unique of uniques) relay.fuse.send(Op.INTERRUPT, interrupt(unique))
    relay.receiveAll()
    t.strictSame(relay.fuse.collect(), [])
    drainHiprio(relay)
    t.strictSame(serveAll(relay), uniques, 'each is executed')
    t.equal(relay.fuse.collect().length, 3)
    t.equal(relay.queue.wakeMs >= 0, true)
  })
})

t.test('one that kills comes later, of which the kernel does not tell', async t => {
  await withRelay(t, { ...FULL, limitMs: 60_000 }, async relay => {
    const [onRing, waits, other] = [MORTAL, MORTAL, process.pid].map(pid => relay.fuse.send(Op.FSYNC, args(16), { pid })!)
    t.ok(relay.queue.wakeMs > 1000 || relay.queue.wakeMs === -1)
    for (const unique of [onRing!, waits!, other!]) relay.fuse.send(Op.INTERRUPT, interrupt(unique))
    relay.receiveAll()
    relay.queue.lookAtSignalled()
    t.strictSame(relay.fuse.collect(), [])
    using _ = killMortal()
    t.ok(relay.queue.wakeMs > 0 && relay.queue.wakeMs <= 250, 'somebody looks again soon')
    await sleep(relay.queue.wakeMs)
    relay.queue.lookAtSignalled()
    t.match(relay.fuse.collect(), [{ unique: onRing, error: -errno.EINTR }, { unique: waits, error: -errno.EINTR }])
    drainHiprio(relay)
    serveAll(relay)
    t.match(relay.fuse.collect(), [{ unique: other, error: -errno.ENOENT }])
    await sleep(relay.queue.wakeMs)
    relay.queue.lookAtSignalled()
    t.equal(relay.queue.wakeMs, -1, 'nobody is left')
  })
})

t.test('FLUSH is not given up: what a close() gives back has to come to the device', async t => {
  await withRelay(t, FULL, relay => {
    relay.fuse.send(Op.STATFS)
    const flush = relay.fuse.send(Op.FLUSH, args(24), { pid: DYING })!
    relay.fuse.send(Op.INTERRUPT, interrupt(flush))
    relay.receiveAll()
    t.strictSame(relay.fuse.collect(), [])
    drainHiprio(relay)
    t.ok(serveAll(relay).includes(flush))
    t.equal(relay.fuse.collect().length, 2)
  })
})

t.test('requests are left to another queue that has room', async t => {
  const words = allocateRingRoom(3)
  const others = [1, 2].map(index => new RingRoom(words, index))
  await withRelay(t, { ...FULL, ringRoom: words }, relay => {
    for (let i = 0; i < 12; i++) relay.fuse.send(Op.STATFS)
    t.strictSame(relay.receiveAll(), { count: 1, stopped: Received.FULL })
    others[0]!.tell(false)
    t.strictSame(relay.receiveAll(), { count: 0, stopped: Received.FULL }, 'one other is full, one is not')
    t.strictSame(others.map(other => other.elsewhere()), [true, false], 'each looks at the others only')
    others[1]!.tell(false)
    t.notOk(others[0]!.elsewhere(), 'now all are')
    t.strictSame(relay.receiveAll(), { count: 8, stopped: Received.FULL }, 'and the last one reads on')
    others[0]!.tell(true)
    relay.device.answer(relay.device.takeOne(), { payload: pattern(80) })
    relay.complete()
    t.strictSame(relay.receiveAll(), { count: 0, stopped: Received.FULL }, 'again not')
    t.notOk(others[0]!.elsewhere(), 'nor has it room itself while requests wait')
    serveAll(relay)
    t.strictSame(relay.receiveAll(), { count: 1, stopped: Received.FULL })
    serveAll(relay)
    while (relay.receiveAll().count > 0) serveAll(relay)
    t.ok(others[0]!.elsewhere(), 'and says so when it has')
    relay.fuse.collect()
    t.equal(relay.fuse.replies.length, 12)
  })
})

t.test('a device that is gone: those that wait are answered too', async t => {
  const relay = new RelayFixture(FULL)
  try {
    const uniques = Array.from({ length: 6 }, () => relay.fuse.send(Op.STATFS)!)
    relay.receiveAll()
    t.equal(relay.queue.failInFlight(-errno.EIO), 6)
    t.strictSame(relay.fuse.collect().map(reply => [reply.unique, reply.error]), uniques.map(unique => [unique, -errno.EIO]))
    t.equal(relay.queue.inFlight, 0)
    t.equal(relay.queue.failInFlight(-errno.EIO), 0)
  } finally {
    relay.close()
  }
})

t.test('large buffers: requests that wait never take the last one, so that the oldest can always go on', async t => {
  await withRelay(t, { ...FULL, largeBuffers: 3, parked: 32 }, relay => {
    relay.fuse.send(Op.STATFS)
    relay.fuse.send(Op.READ, read(65536))
    for (let i = 0; i < 6; i++) relay.fuse.send(Op.WRITE, write(pattern(100, i)))
    t.strictSame(relay.receiveAll(), { count: 4, stopped: Received.FULL }, 'STATFS, READ and two WRITEs')
    t.equal(relay.queue.slots.freeLargeCount, 1)
    for (let answered = 0; answered < 8; relay.receiveAll()) {
      const request = relay.device.takeOne()
      relay.device.answer(request, { payload: pattern(request.room - 16) })
      answered += relay.complete().length
    }
    t.equal(relay.fuse.replies.length, 8)
  })
})

t.test('ring size 4, 64 callers, a device that answers slowly and out of order: nothing lost, no FORGET reordered', async t => {
  for (const [i, mode] of [{ indirectDesc: true, eventIdx: true }, { indirectDesc: false, eventIdx: false }, { indirectDesc: false, eventIdx: true }].entries()) {
    await withRelay(t, { ...mode, queueSize: 4, parked: 24, largeBuffers: 4, queueClass: DyingRequestQueue }, relay => {
      const random = new SeededRandom(64 + i)
      const waiting = new Map<bigint, 'waits' | 'interrupted'>()
      const dying = new Set<bigint>()
      const slow = new SlowDevice(relay.device, random, request => relay.device.answer(request, { error: -errno.ENOENT }))
      let forgets = 0
      const seen: number[] = []
      let answered = 0
      let sent = 0
      let eintr = 0
      let mostParked = 0
      const total = 4000
      for (let turn = 0; answered < total || seen.length < forgets; turn++) {
        if (turn > 200_000) throw new Error(`stuck: ${answered} answered, ${relay.queue.inFlight} in flight, ${seen.length} of ${forgets} FORGETs`)
        // /dev/fuse gives what does not wait for an answer before requests
        if (waiting.size > 0 && random.below(4) === 0) {
          const unique = [...waiting.keys()][random.below(waiting.size)]!
          if (relay.fuse.send(Op.INTERRUPT, interrupt(unique), { unique: 1n }) !== undefined) waiting.set(unique, 'interrupted')
        }
        for (let n = random.below(3); n > 0; n--) if (relay.fuse.send(Op.FORGET, forget(1), { nodeid: forgets + 1, unique: 1n }) !== undefined) forgets++
        while (sent < total && waiting.size < 64 && random.below(3) > 0) {
          const pid = random.below(2) === 0 ? DYING : process.pid
          const unique = relay.fuse.send(...([[Op.STATFS, new Uint8Array(0)], [Op.READ, read(random.below(20_000))], [Op.WRITE, write(pattern(random.below(6000)))]] as [number, Uint8Array][])[random.below(3)]!, { pid })
          if (unique === undefined) break
          if (pid === DYING) dying.add(unique)
          waiting.set(unique, 'waits')
          sent++
        }
        if (random.below(2) === 0) relay.receiveAll()
        mostParked = Math.max(mostParked, relay.hiprio.parked)
        slow.turn()
        seen.push(...forgotten(relay.hiprioDevice.take(random.below(2))))
        if (random.below(3) === 0) for (const message of relay.hiprioDevice.pending.splice(0)) relay.hiprioDevice.ring.push(message.head, 0)
        relay.hiprio.complete()
        for (const reply of relay.complete()) {
          const state = waiting.get(reply.unique)
          if (state === undefined) throw new Error(`a second answer to ${reply.unique}`)
          if (reply.error === -errno.EINTR) {
            if (state !== 'interrupted' || !dying.has(reply.unique)) throw new Error('EINTR for nothing')
            eintr++
          } else if (reply.error !== -errno.ENOENT) {
            throw new Error(`error ${reply.error}`)
          }
          waiting.delete(reply.unique)
          answered++
        }
      }
      for (const message of [...relay.hiprioDevice.pending]) relay.hiprioDevice.giveBack(message, 0)
      relay.hiprio.complete()
      t.ok(seen.every((nodeid, at) => nodeid === at + 1), `${seen.length} FORGETs, in order`)
      t.ok(mostParked > 4, `as many as ${mostParked} waited for hiprio`)
      t.ok(eintr > 10 && relay.count(Counter.PARKED) > total / 4, `${relay.count(Counter.PARKED)} requests waited for the ring, ${eintr} were given up`)
    })
  }
})
