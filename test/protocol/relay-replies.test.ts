/** Replies of a device, good and bad: what is believed, what costs the request, what costs the device. */
import t, { type Test } from 'tap'
import { errno } from '../../lib/errors.js'
import { FuseGetxattrIn, FuseReadIn } from '../../lib/fuse/abi.js'
import { Op } from '../../lib/fuse/opcodes.js'
import { dup } from '../../lib/sys/file.js'
import { close, dup2, Epoll } from '../../lib/sys/io.js'
import { check } from '../../lib/sys/libc.js'
import { args, names, pattern } from '../support/mock-fuse.js'
import type { TakenRequest } from '../support/mock-device.js'
import { Counter, RelayFixture, withRelay, type RelayOptions } from '../support/relay-fixture.js'
import { REPLY_FAULTS, RING_FAULTS } from '../support/scripted-device.js'

const MODES: RelayOptions[] = [{ indirectDesc: true, eventIdx: true }, { indirectDesc: false, eventIdx: false }]
const read = (size: number): Uint8Array => args(FuseReadIn.SIZE, { [FuseReadIn.size]: size })

/** Requests that a fault is tried on: small and large replies, one with a fixed part. */
const VICTIMS: [string, number, Uint8Array][] = [
  ['READ of 4096', Op.READ, read(4096)],
  ['READ of 64 KiB', Op.READ, read(65536)],
  ['LOOKUP', Op.LOOKUP, names('file')],
  ['GETXATTR', Op.GETXATTR, args(FuseGetxattrIn.SIZE, { [FuseGetxattrIn.size]: 100 }, names('user.x'))],
]

function good(t: Test, relay: RelayFixture, name: string): void {
  const data = pattern(4096)
  const request = relay.roundOut(Op.READ, read(4096))
  relay.device.answer(request, { payload: data })
  const [reply] = relay.complete()
  t.match(reply, { error: 0, unique: request.unique }, `${name}: the next request works`)
  t.strictSame(Buffer.from(reply!.payload), Buffer.from(data), 'with its data')
}

for (const [fault, apply] of Object.entries(REPLY_FAULTS)) {
  t.test(`${fault}: EIO for that request alone`, async t => {
    for (const mode of MODES) {
      await withRelay(t, mode, relay => {
        for (const [victim, opcode, body] of VICTIMS) {
          // a neighbour in flight must not notice
          const neighbour = relay.roundOut(Op.STATFS)
          const request = relay.roundOut(opcode, body)
          const bad = relay.count(Counter.BAD_REPLIES)
          apply(relay.device, request)
          t.strictSame(relay.complete(), [{ length: 16, error: -errno.EIO, unique: request.unique, payload: new Uint8Array(0) }], `${victim}: ${fault}`)
          t.equal(relay.count(Counter.BAD_REPLIES), bad + 1)
          t.equal(relay.queue.ring.broken, '', 'the ring is sound')
          relay.device.answer(neighbour, { payload: pattern(80) })
          t.match(relay.complete(), [{ error: 0, unique: neighbour.unique }], 'its neighbour is answered')
          good(t, relay, fault)
        }
      })
    }
  })
}

for (const [fault, apply] of Object.entries(RING_FAULTS)) {
  t.test(`${fault}: the ring is broken, everything in flight is failed once`, async t => {
    for (const mode of MODES) {
      const relay = new RelayFixture(mode)
      try {
        const requests: TakenRequest[] = []
        for (let i = 0; i < 5; i++) requests.push(relay.roundOut(i % 2 === 0 ? Op.STATFS : Op.READ, i % 2 === 0 ? undefined : read(65536)))
        apply(relay.device, requests[2]!)
        const early = relay.complete()
        t.not(relay.queue.ring.broken, '', relay.queue.ring.broken)
        // what came before the flaw was still good
        t.ok(early.every(reply => reply.unique === requests[2]!.unique && reply.error === 0))
        const failed = relay.queue.failInFlight(-errno.EIO)
        const late = relay.fuse.collect()
        t.equal(failed, late.length)
        t.ok(late.every(reply => reply.error === -errno.EIO && reply.length === 16))
        t.strictSame([...early, ...late].map(reply => reply.unique).sort(), requests.map(request => request.unique).sort(), 'each is answered exactly once')
        t.equal(relay.queue.inFlight, 0)
        t.equal(relay.queue.failInFlight(-errno.EIO), 0, 'a second time there is nothing to fail')
        t.strictSame(relay.fuse.collect(), [])
        // a device that comes back to life changes nothing
        for (const request of requests) if (relay.device.pending.includes(request)) relay.device.answer(request)
        t.equal(relay.queue.complete(), 0)
        t.strictSame(relay.fuse.collect(), [])
      } finally {
        relay.close()
      }
    }
  })
}

t.test('errors: every errno from 1 to 511 is relayed', async t => {
  await withRelay(t, {}, relay => {
    for (let error = 1; error < 512; error++) {
      const request = relay.roundOut(Op.STATFS)
      relay.device.answer(request, { error: -error })
      const [reply] = relay.complete()
      if (reply?.error !== -error || reply.unique !== request.unique || reply.length !== 16) throw new Error(`errno ${error}: ${JSON.stringify(reply?.error)}`)
    }
    t.equal(relay.count(Counter.ERRORS), 511)
    t.equal(relay.count(Counter.BAD_REPLIES), 0)
  })
})

t.test('a header left unwritten does not repeat what an older reply said', async t => {
  await withRelay(t, {}, relay => {
    // buffers are used again last in, first out: the next request has the same reply buffer
    const first = relay.roundOut(Op.OPEN, args(8))
    relay.device.answer(first, { payload: pattern(16) })
    t.match(relay.complete(), [{ error: 0 }])
    relay.fuse.send(Op.OPEN, args(8), { unique: first.unique })
    relay.receiveAll()
    const second = relay.device.takeOne()
    t.equal(second.writable[0]!.address, first.writable[0]!.address)
    relay.device.answer(second, { unwritten: true, used: 32 })
    t.match(relay.complete(), [{ error: -errno.EIO, unique: first.unique }])
  })
})

t.test('shorter replies than asked for: READ at the end of a file, READDIR at the end of a directory', async t => {
  await withRelay(t, {}, relay => {
    for (const size of [1, 4095, 4096, 4097, 131072]) {
      for (const got of [0, 1, size >> 1, size - 1, size]) {
        const request = relay.roundOut(size % 2 === 0 ? Op.READ : Op.READDIR, read(size))
        const data = pattern(got, size)
        relay.device.answer(request, { payload: data })
        const [reply] = relay.complete()
        if (reply?.length !== 16 + got || !Buffer.from(reply.payload).equals(data)) throw new Error(`${got} of ${size} bytes`)
      }
    }
    t.pass('all lengths')
  })
})

t.test('nobody waits for a reply any more: it is dropped and counted', async t => {
  await withRelay(t, {}, relay => {
    const request = relay.roundOut(Op.STATFS)
    relay.device.answer(request, { payload: pattern(80) })
    // the kernel's ENOENT, for which the mock has EPIPE: its end is closed
    relay.fuse.hangUp()
    relay.queue.complete()
    t.equal(relay.count(Counter.DROPPED_REPLIES), 1)
    t.equal(relay.queue.inFlight, 0)
  })
})

t.test('a reply that the kernel refuses, since the device changed it after the check: EIO is tried', async t => {
  await withRelay(t, {}, relay => {
    const request = relay.roundOut(Op.STATFS)
    relay.device.answer(request, { payload: pattern(80) })
    // nothing can be written to an epoll descriptor: EINVAL
    const epoll = new Epoll()
    const kept = check(dup(relay.fuse.fd), 'dup')
    check(dup2(epoll.fd, relay.fuse.fd), 'dup2')
    relay.queue.complete()
    check(dup2(kept, relay.fuse.fd), 'dup2')
    close(kept)
    epoll.close()
    t.equal(relay.count(Counter.BAD_REPLIES), 1)
    t.equal(relay.queue.inFlight, 0)
  })
})
