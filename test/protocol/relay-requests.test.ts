/** Requests from /dev/fuse to the ring: bytes, shapes of chains, which buffers they use; and the replies back. */
import t from 'tap'
import { errno } from '../../lib/errors.js'
import { FuseGetxattrIn, FuseInHeader, FuseIoctlIn, FuseReadIn, FuseSetxattrIn, FuseWriteIn } from '../../lib/fuse/abi.js'
import { hasReply, Op, opcodeRows, replyFixedBytes } from '../../lib/fuse/opcodes.js'
import { MAX_WRITE, REQUEST_HEAD_BYTES, Slot } from '../../lib/driver/memory-plan.js'
import { args, names, pattern } from '../support/mock-fuse.js'
import type { TakenRequest } from '../support/mock-device.js'
import { Counter, Received, withRelay, type RelayFixture, type RelayOptions } from '../support/relay-fixture.js'
import { SlowDevice } from '../support/scripted-device.js'
import { SeededRandom } from '../support/seeded-random.js'

const PAGE = 4096
const LARGE = 8
const MODES: RelayOptions[] = [
  { indirectDesc: true, eventIdx: true }, { indirectDesc: true, eventIdx: false },
  { indirectDesc: false, eventIdx: true }, { indirectDesc: false, eventIdx: false },
]
const read = (size: number): Uint8Array => args(FuseReadIn.SIZE, { [FuseReadIn.size]: size })
const write = (data: Uint8Array): Uint8Array => args(FuseWriteIn.SIZE, { [FuseWriteIn.size]: data.length }, data)
const lengths = (buffers: { length: number }[]): number[] => buffers.map(buffer => buffer.length)

/** Sends a request, gets it to the device and checks that not a byte differs. */
function out(relay: RelayFixture, opcode: number, body: Uint8Array): TakenRequest {
  const unique = relay.fuse.send(opcode, body, { nodeid: 0x1_2345_6789n, uid: 7, gid: 8, pid: 9 })
  const before = relay.count(Counter.REQUESTS)
  relay.receiveAll()
  const request = relay.device.takeOne()
  const header = Buffer.from(request.bytes)
  if (relay.count(Counter.REQUESTS) !== before + 1) throw new Error('not counted')
  if (request.unique !== unique || request.opcode !== opcode || request.nodeid !== 0x1_2345_6789n) throw new Error('header')
  if (header.readUInt32LE(FuseInHeader.uid) !== 7 || header.readUInt32LE(FuseInHeader.gid) !== 8 || header.readUInt32LE(FuseInHeader.pid) !== 9) throw new Error('caller')
  if (header.readUInt32LE(FuseInHeader.len) !== header.length || header.length !== FuseInHeader.SIZE + body.length) throw new Error('length')
  if (!header.subarray(FuseInHeader.SIZE).equals(body)) throw new Error('body')
  return request
}

/** Answers, and checks that the kernel gets exactly that. */
function back(relay: RelayFixture, request: TakenRequest, payload: Uint8Array): void {
  relay.device.answer(request, { payload })
  const replies = relay.complete()
  if (replies.length !== 1 || replies[0]!.unique !== request.unique || replies[0]!.error !== 0) throw new Error(`replies ${replies.length}`)
  if (!Buffer.from(replies[0]!.payload).equals(payload)) throw new Error('payload')
}

t.test('every opcode with a reply: sent and answered byte for byte, in all modes of the ring', async t => {
  for (const mode of MODES) {
    await withRelay(t, { ...mode, largeBuffers: LARGE }, relay => {
      for (const row of opcodeRows) {
        if (!hasReply(row.opcode) || row.opcode === Op.INIT || row.opcode === Op.DESTROY) continue
        const body = Buffer.concat([args(row.inBytes, row.payload === 'sized' ? { [row.sizeAt]: 300 } : {}), names(...['a', 'second name'].slice(0, row.names))])
        const request = out(relay, row.opcode, body)
        t.strictSame(lengths(request.readable), [FuseInHeader.SIZE + body.length], `${row.name}: one readable descriptor`)
        const payload = row.payload === 'page' ? PAGE : row.payload === 'sized' ? 300 : 0
        const fixed = replyFixedBytes(row.opcode)
        t.strictSame(lengths(request.writable), payload === 0 ? [fixed] : [fixed, payload], `${row.name}: room for its reply and no more`)
        t.equal(relay.queue.slots.freeLargeCount, LARGE, `${row.name} is small`)
        back(relay, request, pattern(request.room - 16, row.opcode))
      }
    })
  }
})

t.test('unknown opcodes travel as well, with room for a page', async t => {
  await withRelay(t, {}, relay => {
    for (const opcode of [54, 63, 64, 255, 4096, 0x10000 + Op.DESTROY, 0x10000 + Op.INIT, 0xffff_ffff]) {
      const request = out(relay, opcode, pattern(77))
      t.strictSame(lengths(request.writable), [16, PAGE])
      back(relay, request, pattern(PAGE, opcode & 0xff))
    }
    t.equal(relay.destroyed, 0)
    t.strictSame(relay.inits, [])
  })
})

t.test('a request of 81 to 1024 bytes is contiguous in its slot, a longer one takes a large buffer', async t => {
  await withRelay(t, { largeBuffers: LARGE }, relay => {
    for (const length of [40, 41, 79, 80, 81, 82, 1023, 1024]) {
      const request = out(relay, Op.LOOKUP, pattern(length - FuseInHeader.SIZE))
      t.strictSame(lengths(request.readable), [length], `${length} bytes`)
      t.equal(relay.queue.slots.freeLargeCount, LARGE)
      back(relay, request, pattern(128))
    }
    for (const length of [1025, 4096, 70_000]) {
      const request = out(relay, Op.SYMLINK, pattern(length - FuseInHeader.SIZE))
      t.strictSame(lengths(request.readable), [REQUEST_HEAD_BYTES, length - REQUEST_HEAD_BYTES], `${length} bytes`)
      t.equal(relay.queue.slots.freeLargeCount, LARGE - 1)
      back(relay, request, pattern(128))
      t.equal(relay.queue.slots.freeLargeCount, LARGE, 'given back with the reply')
    }
  })
})

t.test('the payload of a WRITE lies on a page, in a large buffer', async t => {
  await withRelay(t, { largeBuffers: LARGE }, relay => {
    for (const length of [1, 8, 512, 943, 944, 945, 4096, 65536, 131072]) {
      const request = out(relay, Op.WRITE, write(pattern(length, length)))
      t.strictSame(lengths(request.readable), [REQUEST_HEAD_BYTES, length])
      t.equal(request.readable[1]!.address % PAGE, 0, `${length} bytes: page-aligned`)
      t.equal(relay.queue.slots.freeLargeCount, LARGE - 1)
      back(relay, request, pattern(8))
    }
    const empty = out(relay, Op.WRITE, write(pattern(0)))
    t.strictSame(lengths(empty.readable), [REQUEST_HEAD_BYTES])
    t.equal(relay.queue.slots.freeLargeCount, LARGE, 'none for nothing')
    back(relay, empty, pattern(8))
    t.equal(relay.count(Counter.BYTES_WRITTEN), 1 + 8 + 512 + 943 + 944 + 945 + 4096 + 65536 + 131072)
  })
})

t.test('the largest WRITE and the largest READ', async t => {
  await withRelay(t, { largeBuffers: LARGE }, relay => {
    const data = pattern(MAX_WRITE)
    try {
      relay.fuse.send(Op.GETATTR, args(16))
      relay.fuse.send(Op.WRITE, write(data))
    } catch (error) {
      relay.receiveAll()
      back(relay, relay.device.takeOne(), pattern(104))
      t.pass(`skipped: no socket buffer for 1 MiB without CAP_NET_ADMIN (${String(error)})`, { skip: true })
      return
    }
    relay.receiveAll()
    const [getattr, request] = relay.device.take() as [TakenRequest, TakenRequest]
    back(relay, getattr, pattern(104))
    t.strictSame(lengths(request.readable), [REQUEST_HEAD_BYTES, MAX_WRITE])
    t.ok(Buffer.from(request.bytes).subarray(REQUEST_HEAD_BYTES).equals(data))
    back(relay, request, pattern(8))
    const large = out(relay, Op.READ, read(MAX_WRITE))
    t.strictSame(lengths(large.writable), [16, MAX_WRITE])
    back(relay, large, data)
    t.equal(relay.count(Counter.BYTES_READ), MAX_WRITE)
    t.equal(relay.count(Counter.BYTES_WRITTEN), MAX_WRITE)
  })
})

t.test('READ: up to a page in the slot, more in a large buffer, both page-aligned', async t => {
  await withRelay(t, { largeBuffers: LARGE }, relay => {
    for (const [size, large] of [[0, 0], [1, 0], [4095, 0], [4096, 0], [4097, 1], [65536, 1], [200_000, 1]] as const) {
      const request = out(relay, Op.READ, read(size))
      t.strictSame(lengths(request.writable), size === 0 ? [16] : [16, size], `READ of ${size}`)
      if (size > 0) t.equal(request.writable[1]!.address % PAGE, 0, 'page-aligned')
      t.equal(relay.queue.slots.freeLargeCount, LARGE - large)
      back(relay, request, pattern(size))
    }
    t.equal(relay.count(Counter.BYTES_READ), 1 + 4095 + 4096 + 4097 + 65536 + 200_000)
  })
})

t.test('a READ that no buffer holds is answered EIO, and costs nothing', async t => {
  await withRelay(t, {}, relay => {
    for (const size of [MAX_WRITE + 1, 0xffff_ffff]) {
      const unique = relay.fuse.send(Op.READ, read(size))
      t.match(relay.receiveAll(), { count: 1 })
      t.strictSame(relay.device.take(), [])
      t.match(relay.fuse.collect(), [{ unique, error: -errno.EIO, length: 16 }])
    }
    // and when it brought a large request, that buffer is free again too
    const unique = relay.fuse.send(Op.IOCTL, args(FuseIoctlIn.SIZE, { [FuseIoctlIn.out_size]: 0x7fff_ffff }, pattern(5000)))
    relay.receiveAll()
    t.match(relay.fuse.collect(), [{ unique, error: -errno.EIO }])
  })
})

t.test('xattrs: the length asked for by size 0, a value of 64 KiB', async t => {
  await withRelay(t, { largeBuffers: LARGE }, relay => {
    for (const opcode of [Op.GETXATTR, Op.LISTXATTR]) {
      const name = opcode === Op.GETXATTR ? names('user.x') : new Uint8Array(0)
      const probe = out(relay, opcode, args(FuseGetxattrIn.SIZE, {}, name))
      t.equal(probe.room, 16 + 8, 'size 0: fuse_getxattr_out fits')
      back(relay, probe, pattern(8))
      for (const size of [1, 8, 9, 4096, 65536]) {
        const request = out(relay, opcode, args(FuseGetxattrIn.SIZE, { [FuseGetxattrIn.size]: size }, name))
        t.equal(request.room, 16 + Math.max(8, size))
        t.equal(relay.queue.slots.freeLargeCount, size > PAGE ? LARGE - 1 : LARGE)
        back(relay, request, pattern(size))
      }
    }
    const value = pattern(65536)
    const set = out(relay, Op.SETXATTR, args(FuseSetxattrIn.SIZE, { [FuseSetxattrIn.size]: value.length }, names('user.large'), value))
    t.equal(relay.queue.slots.freeLargeCount, LARGE - 1)
    t.strictSame(lengths(set.writable), [16])
    back(relay, set, new Uint8Array(0))
  })
})

t.test('a request that needs a large buffer for both ways', async t => {
  await withRelay(t, { largeBuffers: LARGE }, relay => {
    const request = out(relay, Op.IOCTL, args(FuseIoctlIn.SIZE, { [FuseIoctlIn.out_size]: 10_000 }, pattern(12_000)))
    t.strictSame([lengths(request.readable), lengths(request.writable)], [[REQUEST_HEAD_BYTES, FuseInHeader.SIZE + 32 + 12_000 - REQUEST_HEAD_BYTES], [32, 10_000]])
    t.not(request.readable[1]!.address, request.writable[1]!.address)
    t.equal(relay.queue.slots.freeLargeCount, LARGE - 2)
    back(relay, request, pattern(16 + 10_000))
  })
})

t.test('READLINK: a target of a whole page', async t => {
  await withRelay(t, {}, relay => {
    const request = out(relay, Op.READLINK, new Uint8Array(0))
    t.strictSame(lengths(request.writable), [16, PAGE])
    back(relay, request, pattern(PAGE))
    back(relay, out(relay, Op.READLINK, new Uint8Array(0)), pattern(5))
  })
})

t.test('one request at a time touches the memory of one', async t => {
  await withRelay(t, {}, relay => {
    const addresses = new Set<number>()
    for (let i = 0; i < 200; i++) {
      const request = out(relay, i % 2 === 0 ? Op.STATFS : Op.READ, i % 2 === 0 ? new Uint8Array(0) : read(PAGE))
      for (const buffer of [...request.readable, ...request.writable]) addresses.add(buffer.address)
      back(relay, request, pattern(80))
    }
    t.equal(addresses.size, 3, 'request, reply, page')
  })
})

t.test('a thousand requests at random, answered slowly and out of order', async t => {
  for (const [i, mode] of MODES.entries()) {
    for (const queueSize of [4, 16, 128]) {
      await withRelay(t, { ...mode, queueSize, largeBuffers: 4 }, relay => {
        const random = new SeededRandom(1000 * i + queueSize)
        /** What each request sent, and what it is to get. */
        const sent = new Map<bigint, { body: Uint8Array, reply: Uint8Array, error: number }>()
        const slow = new SlowDevice(relay.device, random, request => {
          const expected = sent.get(request.unique)
          if (!expected || !Buffer.from(request.bytes).subarray(FuseInHeader.SIZE).equals(expected.body)) throw new Error(`request ${request.unique} arrived changed`)
          relay.device.answer(request, expected.error === 0 ? { payload: expected.reply } : { error: expected.error })
        })
        let waiting: (() => bigint | undefined) | undefined
        let made = 0
        let answered = 0
        const make = (): (() => bigint | undefined) => {
          const size = random.below(3) === 0 ? random.below(20_000) : random.below(600)
          const [opcode, body, room] = [
            [Op.READ, read(size), size], [Op.WRITE, write(pattern(size, made)), 8], [Op.GETATTR, args(16), 104],
            [Op.SYMLINK, pattern(size, made), 128], [Op.READLINK, new Uint8Array(0), PAGE],
          ][random.below(5)] as [number, Uint8Array, number]
          const error = random.below(6) === 0 ? -random.between(1, 511) : 0
          const reply = pattern(opcode === Op.READ || opcode === Op.READLINK ? random.between(0, room) : room, made + 3)
          return () => {
            const unique = relay.fuse.send(opcode, body)
            if (unique !== undefined) sent.set(unique, { body, reply, error })
            return unique
          }
        }
        for (let turn = 0; answered < 1000; turn++) {
          if (turn > 100_000) throw new Error(`stuck with ${answered} answered, ${relay.queue.inFlight} in flight`)
          while (made < 1000 && random.below(3) > 0) {
            waiting ??= make()
            if (waiting() === undefined) break
            waiting = undefined
            made++
          }
          if (random.below(2) === 0) relay.receiveAll()
          slow.turn()
          for (const reply of relay.complete()) {
            const expected = sent.get(reply.unique)
            if (!expected) throw new Error(`a reply to ${reply.unique}, which does not wait`)
            if (reply.error !== expected.error || !Buffer.from(reply.payload).equals(expected.error === 0 ? expected.reply : Buffer.alloc(0))) throw new Error(`the reply to ${reply.unique} is not its own`)
            sent.delete(reply.unique)
            answered++
          }
        }
        t.equal(sent.size, 0, `${queueSize} entries, seed ${random.seed}`)
        t.equal(relay.count(Counter.BAD_REPLIES) + relay.count(Counter.DROPPED_REPLIES), 0)
        t.equal(relay.receiveAll().stopped, Received.NONE)
      })
    }
  }
})

t.test('the slot holds the longest small request', async t => t.equal(Slot.IN_BYTES, 1024))
