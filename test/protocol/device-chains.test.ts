/**
 * The emulated device against drivers that lay their chains out in odd ways, and against broken
 * ones: handlers always see the same request, a bad one is an error or a broken queue, never an
 * exception, and nothing outside the chain is touched.
 */
import t, { type Test } from 'tap'
import { EmulatedQueue } from '../../lib/device/emulated-queue.js'
import { NO_REPLY, type DeviceRequest, type Handlers } from '../../lib/device/handlers.js'
import { allocateInterrupts, Interrupts } from '../../lib/device/interrupts.js'
import { errno } from '../../lib/errors.js'
import { FuseInHeader, FuseOutHeader } from '../../lib/fuse/abi.js'
import { Op } from '../../lib/fuse/opcodes.js'
import { mapAnonymous, unmap, viewRegion, type Region } from '../../lib/sys/memory.js'
import { layoutRing, VIRTQ_DESC_F_INDIRECT, VIRTQ_DESC_F_NEXT, VIRTQ_DESC_F_WRITE, type RingLayout } from '../../lib/virtio/split-ring.js'
import { getU64 } from '../../lib/wire/u64.js'
import { pattern } from '../support/mock-fuse.js'
import { SeededRandom } from '../support/seeded-random.js'

const SIZE = 64
const REGION_BYTES = 8 << 20
const TABLE_AT = 16384
/** Buffers of chains are cut from here to the end. */
const DATA_AT = 65536
const GUARD = 0xc3

/** What a handler saw, copied. */
interface Seen { opcode: number, unique: bigint, nodeid: number, args: Buffer, payload: Buffer, room: number }

/** Descriptors of a chain: [length, writable]. */
type Piece = readonly [length: number, writable: boolean]

class OddDriver implements Handlers {
  readonly region: Region
  readonly layout: RingLayout
  readonly queue: EmulatedQueue
  readonly seen: Seen[] = []
  readonly interrupts = allocateInterrupts()
  /** What `handle` writes and returns. */
  result: Uint8Array | number = 0
  /** Somebody else than `run` has used the ring. */
  offered = false
  #availIdx = 0
  #usedIdx = 0

  constructor() {
    this.region = viewRegion(mapAnonymous(REGION_BYTES), REGION_BYTES)
    this.layout = layoutRing(SIZE, 0)
    this.queue = new EmulatedQueue(this.region, this.layout, { indirectDesc: true, eventIdx: false }, this, this.interrupts)
  }

  handle(request: DeviceRequest): number {
    const memory = (view: DataView, at: number, bytes: number): Buffer => Buffer.from(Buffer.from(view.buffer, view.byteOffset + at, bytes))
    this.seen.push({
      opcode: request.opcode, unique: (BigInt(request.uniqueHigh) << 32n) | BigInt(request.uniqueLow), nodeid: request.nodeid,
      args: memory(request.args, request.argsAt, request.argsBytes), room: request.replyBytes,
      payload: Buffer.concat(this.#iovecs(request.payloadIov, request.payloadIovCount)),
    })
    if (typeof this.result === 'number') return this.result
    if (this.result.length > request.replyBytes) return -errno.ERANGE
    if (request.opcode === Op.READ) {
      let done = 0
      for (const buffer of this.#iovecs(request.replyIov, request.replyIovCount, false)) {
        buffer.set(this.result.subarray(done, done + buffer.length))
        done += Math.min(buffer.length, this.result.length - done)
      }
    } else {
      new Uint8Array(request.reply.buffer, request.reply.byteOffset + request.replyAt, this.result.length).set(this.result)
    }
    return this.result.length
  }

  /** The memory that an array of struct iovec describes: all of it lies in the region. */
  #iovecs(address: number, count: number, copy = true): Buffer[] {
    if (count === 0) return []
    const iov = viewRegion(address, count * 16).view
    return Array.from({ length: count }, (_, i) => {
      const at = getU64(iov, 16 * i) - this.region.address
      const length = getU64(iov, 16 * i + 8)
      if (at < 0 || at + length > REGION_BYTES) throw new Error(`iovec ${i}: ${length} bytes at ${at}`)
      const buffer = Buffer.from(this.region.view.buffer, at, length)
      return copy ? Buffer.from(buffer) : buffer
    })
  }

  /** Lays a chain out and has it executed. Buffers are apart from each other by a guard. @returns what came back */
  run(message: Uint8Array, pieces: readonly Piece[], options: { indirect?: boolean, gap?: number } = {}): { used: number, reply: Buffer, guards: boolean } {
    const { view, bytes, address } = this.region
    const gap = options.gap ?? 8
    const total = pieces.reduce((sum, [length]) => sum + length + gap, gap)
    bytes.fill(GUARD, DATA_AT, DATA_AT + total)
    const table = options.indirect ? TABLE_AT : this.layout.desc
    const places: { at: number, length: number, writable: boolean }[] = []
    let at = DATA_AT + gap
    let done = 0
    pieces.forEach(([length, writable], i) => {
      if (!writable) {
        bytes.set(message.subarray(done, done + length), at)
        done += length
      }
      this.descriptor(table, i, address + at, length, (writable ? VIRTQ_DESC_F_WRITE : 0) | (i < pieces.length - 1 ? VIRTQ_DESC_F_NEXT : 0), i + 1)
      places.push({ at, length, writable })
      at += length + gap
    })
    if (options.indirect) this.descriptor(this.layout.desc, 0, address + TABLE_AT, 16 * pieces.length, VIRTQ_DESC_F_INDIRECT, 0)
    this.#offer(0)
    const usedAt = this.layout.used + 4 + 8 * (this.#usedIdx & (SIZE - 1))
    if (view.getUint16(this.layout.used + 2, true) !== ((this.#usedIdx + 1) & 0xffff)) return { used: -1, reply: Buffer.alloc(0), guards: true }
    this.#usedIdx = (this.#usedIdx + 1) & 0xffff
    const used = view.getUint32(usedAt + 4, true)
    const writable = Buffer.concat(places.filter(place => place.writable).map(place => bytes.subarray(place.at, place.at + place.length)))
    let guards = true
    let before = DATA_AT
    for (const place of [...places, { at: DATA_AT + total, length: 0, writable: true }]) {
      for (let i = before; i < place.at; i++) guards &&= bytes[i] === GUARD
      before = place.at + place.length
    }
    // and nothing behind what was used is written
    for (let i = used; i < writable.length; i++) guards &&= writable[i] === GUARD
    return { used, reply: writable.subarray(0, used), guards }
  }

  descriptor(table: number, index: number, address: number, length: number, flags: number, next: number): void {
    const at = table + 16 * index
    const { view } = this.region
    view.setBigUint64(at, BigInt(address), true)
    view.setUint32(at + 8, length, true)
    view.setUint16(at + 12, flags, true)
    view.setUint16(at + 14, next, true)
  }

  /** Makes a chain that the test laid out itself available, and lets the device run. */
  offer(head: number): void {
    this.offered = true
    this.#offer(head)
  }

  #offer(head: number): void {
    const { view } = this.region
    view.setUint16(this.layout.avail + 4 + 2 * (this.#availIdx & (SIZE - 1)), head, true)
    this.#availIdx = (this.#availIdx + 1) & 0xffff
    view.setUint16(this.layout.avail + 2, this.#availIdx, true)
    this.queue.process()
  }

  close(): void {
    this.queue.close()
    unmap(this.region.address, REGION_BYTES)
  }
}

/** One that can be used again: the iovecs of a queue lie in scratch memory, which is not given back. */
let spare: OddDriver | undefined

function withDriver(body: (driver: OddDriver) => void): void {
  const driver = spare ?? new OddDriver()
  spare = undefined
  driver.seen.length = 0
  driver.result = 0
  try {
    body(driver)
  } finally {
    if (driver.offered || driver.queue.broken !== '') driver.close()
    else spare = driver
  }
}

t.teardown(() => spare?.close())

const UNIQUE = 0x1234_5678_9abcn

function message(opcode: number, body: Uint8Array, length = FuseInHeader.SIZE + body.length): Buffer {
  const header = Buffer.alloc(FuseInHeader.SIZE)
  header.writeUInt32LE(length >>> 0, FuseInHeader.len)
  header.writeUInt32LE(opcode >>> 0, FuseInHeader.opcode)
  header.writeBigUInt64LE(UNIQUE, FuseInHeader.unique)
  header.writeBigUInt64LE(77n, FuseInHeader.nodeid)
  return Buffer.concat([header, body])
}

function decode(reply: Buffer): { length: number, error: number, unique: bigint, payload: Buffer } {
  return {
    length: reply.readUInt32LE(FuseOutHeader.len), error: reply.readInt32LE(FuseOutHeader.error), unique: reply.readBigUInt64LE(FuseOutHeader.unique),
    payload: reply.subarray(FuseOutHeader.SIZE),
  }
}

/** Cuts `total` bytes into pieces, some of them empty. */
function cut(random: SeededRandom, total: number, writable: boolean, most: number): Piece[] {
  const pieces: Piece[] = []
  let left = total
  for (let n = random.between(1, most); n > 1 && left > 0; n--) {
    const length = random.below(8) === 0 ? 0 : random.between(1, random.below(2) === 0 ? Math.min(left, 24) : left)
    pieces.push([length, writable])
    left -= length
  }
  if (left > 0) pieces.push([left, writable])
  return pieces
}

t.test('a header, arguments and a reply in one piece each', async t => {
  withDriver(driver => {
    driver.result = pattern(100)
    const body = pattern(60)
    const { used, reply, guards } = driver.run(message(Op.LOOKUP, body), [[100, false], [200, true]])
    t.equal(used, 116)
    t.match(decode(reply), { length: 116, error: 0, unique: UNIQUE })
    t.ok(decode(reply).payload.equals(pattern(100)))
    t.ok(guards)
    t.match(driver.seen, [{ opcode: Op.LOOKUP, unique: UNIQUE, nodeid: 77, room: 184 }])
    t.ok(driver.seen[0]!.args.equals(body))
  })
})

t.test('one byte per descriptor', async t => {
  withDriver(driver => {
    driver.result = pattern(30)
    const bytes = message(Op.GETATTR, pattern(16))
    const { reply, guards } = driver.run(bytes, [...Array.from({ length: 56 }, (): Piece => [1, false]), ...Array.from({ length: 60 }, (): Piece => [1, true])], { indirect: true })
    t.match(decode(reply), { length: 46, error: 0, unique: UNIQUE })
    t.ok(decode(reply).payload.equals(pattern(30)))
    t.ok(driver.seen[0]!.args.equals(pattern(16)))
    t.ok(guards)
  })
})

t.test('random cuts of LOOKUP, WRITE and READ: the same request, the same reply', async t => {
  withDriver(driver => {
    const random = new SeededRandom(99)
    for (let i = 0; i < 4000; i++) {
      const opcode = [Op.LOOKUP, Op.WRITE, Op.READ, Op.SETXATTR, 999][random.below(5)]!
      const body = pattern(random.below(5) === 0 ? random.below(20_000) : random.below(300), i)
      const replyBytes = random.below(5) === 0 ? random.below(9000) : random.below(200)
      const room = FuseOutHeader.SIZE + replyBytes + random.below(40)
      driver.result = random.below(5) === 0 ? -random.between(1, 133) : pattern(replyBytes, i + 1)
      driver.seen.length = 0
      const bytes = message(opcode, body)
      const pieces = [...cut(random, bytes.length, false, 30), ...cut(random, room, true, 30)]
      const what = `${i} (opcode ${opcode}): ${pieces.map(([length, writable]) => (writable ? 'w' : 'r') + length).join(' ')}`
      const { used, reply, guards } = driver.run(bytes, pieces, { indirect: random.below(2) === 0, gap: random.below(9) })
      if (driver.queue.broken !== '') return t.fail(`${what}: ${driver.queue.broken}`)
      const seen = driver.seen[0]
      if (!seen || !Buffer.concat([seen.args, seen.payload]).equals(body) || seen.unique !== UNIQUE || seen.room !== room - 16) return t.fail(`${what}: the request`)
      if (opcode === Op.WRITE && seen.args.length !== Math.min(40, body.length)) return t.fail(`${what}: fuse_write_in alone is contiguous`)
      if (opcode !== Op.WRITE && seen.payload.length !== 0) return t.fail(`${what}: only WRITE has payload`)
      const got = decode(reply)
      const error = typeof driver.result === 'number' ? driver.result : 0
      const payload = typeof driver.result === 'number' ? Buffer.alloc(0) : driver.result
      if (used !== 16 + payload.length || got.length !== used || got.error !== error || got.unique !== UNIQUE || !got.payload.equals(payload)) return t.fail(`${what}: the reply`)
      if (!guards) return t.fail(`${what}: bytes outside the chain were written`)
    }
    t.pass('4,000 chains')
  })
})

function refused(t: Test, name: string, bytes: Buffer, pieces: readonly Piece[], error: number): void {
  withDriver(driver => {
    driver.result = pattern(8)
    const { reply, guards } = driver.run(bytes, pieces)
    t.match(decode(reply), { length: 16, error, unique: UNIQUE }, name)
    t.strictSame(driver.seen, [], 'no handler was asked')
    t.ok(guards)
    t.equal(driver.queue.broken, '', 'the next one is served')
    t.match(decode(driver.run(message(Op.STATFS, Buffer.alloc(0)), [[40, false], [64, true]]).reply), { error: 0 })
  })
}

t.test('truncated and lying requests', async t => {
  refused(t, 'fuse_in_header.len beyond the chain', message(Op.LOOKUP, pattern(10), 51), [[50, false], [64, true]], -errno.EINVAL)
  refused(t, 'of 4 GiB − 1', message(Op.LOOKUP, pattern(10), 0xffff_ffff), [[50, false], [64, true]], -errno.EINVAL)
  refused(t, 'under the header', message(Op.LOOKUP, pattern(10), 39), [[50, false], [64, true]], -errno.EINVAL)
  refused(t, 'of 0', message(Op.LOOKUP, pattern(10), 0), [[50, false], [64, true]], -errno.EINVAL)
  refused(t, 'of 0, header in pieces', message(Op.LOOKUP, pattern(10), 0), [[20, false], [30, false], [7, true], [57, true]], -errno.EINVAL)
  for (const length of [0, 1, 39]) {
    withDriver(driver => {
      const { used } = driver.run(message(Op.LOOKUP, pattern(10)), [[length, false], [64, true]])
      t.equal(used, 0, `${length} readable bytes are no request: nothing is answered`)
      t.strictSame(driver.seen, [])
      t.equal(driver.run(message(Op.LOOKUP, pattern(10)), [[64, true]]).used, 0, 'nor is no readable part')
    })
  }
})

t.test('what lies behind fuse_in_header.len is not part of the request', async t => {
  withDriver(driver => {
    driver.run(message(Op.LOOKUP, pattern(60), 50), [[100, false], [64, true]])
    t.ok(driver.seen[0]!.args.equals(pattern(60).subarray(0, 10)))
    driver.run(message(Op.WRITE, pattern(200), 100), [[90, false], [150, false], [64, true]])
    t.ok(driver.seen[1]!.payload.equals(pattern(200).subarray(40, 60)))
  })
})

t.test('too little room: for the payload, for the header, none at all', async t => {
  withDriver(driver => {
    driver.result = pattern(100)
    t.match(decode(driver.run(message(Op.LOOKUP, pattern(5)), [[45, false], [115, true]]).reply), { length: 16, error: -errno.ERANGE }, 'the handler knows the room')
    t.equal(driver.seen[0]!.room, 99)
    t.match(decode(driver.run(message(Op.LOOKUP, pattern(5)), [[45, false], [16, true]]).reply), { length: 16, error: -errno.ERANGE })
    t.equal(driver.seen[1]!.room, 0)
    for (const room of [15, 8, 1]) {
      const { used, guards } = driver.run(message(Op.LOOKUP, pattern(5)), [[45, false], [room, true]])
      t.equal(used, 0, `${room} bytes hold no header`)
      t.ok(guards)
    }
    t.equal(driver.run(message(Op.LOOKUP, pattern(5)), [[45, false]]).used, 0)
    driver.result = NO_REPLY
    t.equal(driver.run(message(Op.FORGET, pattern(8)), [[48, false]]).used, 0, 'FORGET wants none')
    t.equal(driver.run(message(Op.FORGET, pattern(8)), [[48, false], [64, true]]).used, 0, 'and writes none')
    t.equal(driver.queue.broken, '')
  })
})

t.test('a request that is longer than anything that has to be contiguous', async t => {
  withDriver(driver => {
    const body = pattern((2 << 20) - 40)
    driver.result = 0
    t.match(decode(driver.run(message(Op.SETXATTR, body), [[2 << 20, false], [64, true]]).reply), { error: 0 }, 'in one piece it is taken as it is')
    t.equal(driver.seen.pop()!.args.length, body.length)
    for (const pieces of [[[40, false], [(2 << 20) - 40, false], [64, true]], [[39, false], [(2 << 20) - 39, false], [64, true]], [[1 << 20, false], [1 << 20, false], [64, true]]] as Piece[][]) {
      t.match(decode(driver.run(message(Op.SETXATTR, body), pieces).reply), { error: -errno.EINVAL }, pieces.map(([length]) => length).join(' + '))
      t.strictSame(driver.seen, [])
    }
    // of a WRITE only the head has to be contiguous
    t.match(decode(driver.run(message(Op.WRITE, body), [[39, false], [(1 << 20) - 39, false], [1 << 20, false], [64, true]]).reply), { error: 0 })
    t.ok(driver.seen[0]!.payload.equals(body.subarray(40)))
  })
})

t.test('room for more than the bounce buffer: the handler is told what it can have', async t => {
  withDriver(driver => {
    driver.result = pattern(1 << 20)
    const { reply, guards } = driver.run(message(Op.READDIR, pattern(40)), [[80, false], [8, true], [2 << 20, true]])
    t.ok(driver.seen[0]!.room >= 1 << 20 && driver.seen[0]!.room < 2 << 20)
    t.ok(decode(reply).payload.equals(driver.result as Uint8Array))
    t.ok(guards)
  })
})

t.test('a READ of more than 1 MiB needs no bounce buffer', async t => {
  withDriver(driver => {
    driver.result = pattern(2 << 20)
    const { reply } = driver.run(message(Op.READ, pattern(40)), [[80, false], [7, true], [1 << 20, true], [2 << 20, true]])
    t.equal(driver.seen[0]!.room, 7 + (3 << 20) - 16)
    t.ok(decode(reply).payload.equals(driver.result as Uint8Array))
  })
})

const INTERRUPTS: Piece[][] = [[[48, false]], [[40, false], [8, false]], [[44, false], [4, false]], [[7, false], [38, false], [3, false]], [[40, false], [8, false], [64, true]]]

t.test('what waited for its turn is executed although its caller has had a signal', async t => {
  withDriver(driver => {
    const request = message(Op.FSYNC, Buffer.alloc(16))
    request.writeUInt32LE(process.pid, FuseInHeader.pid)
    new Interrupts(driver.interrupts).post(request.readUInt32LE(FuseInHeader.unique), request.readUInt32LE(FuseInHeader.unique + 4))
    t.equal(decode(driver.run(request, [[56, false], [16, true]]).reply).error, 0)
    t.match(driver.seen, [{ opcode: Op.FSYNC }])
  })
})

t.test('INTERRUPT, wherever its argument lies', async t => {
  for (const pieces of INTERRUPTS) {
    withDriver(driver => {
      const body = Buffer.alloc(8)
      const unique = 0x1234 + INTERRUPTS.indexOf(pieces)
      body.writeUInt32LE(unique, 0)
      body.writeUInt32LE(0xabcd, 4)
      t.equal(driver.run(message(Op.INTERRUPT, body), pieces).used, 0)
      t.ok(new Interrupts(driver.interrupts).has(unique, 0xabcd), pieces.map(([length]) => length).join(' + '))
      t.strictSame(driver.seen, [])
    })
  }
})

t.test('a request at the very end of the memory', async t => {
  for (const [opcode, bytes] of [[Op.INTERRUPT, 40], [Op.INTERRUPT, 48], [Op.STATFS, 40], [Op.WRITE, 40], [Op.LOOKUP, 41]] as const) {
    withDriver(driver => {
      const { region, layout } = driver
      const at = REGION_BYTES - bytes
      region.bytes.set(message(opcode, Buffer.alloc(bytes - 40)), at)
      driver.descriptor(layout.desc, 0, region.address + at, bytes, VIRTQ_DESC_F_NEXT, 1)
      driver.descriptor(layout.desc, 1, region.address + DATA_AT, 64, VIRTQ_DESC_F_WRITE, 0)
      const before = region.view.getUint16(layout.used + 2, true)
      driver.offer(0)
      t.equal(driver.queue.broken, '', `opcode ${opcode}, ${bytes} bytes`)
      t.equal(region.view.getUint16(layout.used + 2, true), (before + 1) & 0xffff)
    })
  }
  withDriver(driver => {
    // 48 bytes, of which the last 8 lie elsewhere
    const { region, layout } = driver
    region.bytes.set(message(Op.INTERRUPT, Buffer.alloc(0), 48), REGION_BYTES - 40)
    driver.descriptor(layout.desc, 0, region.address + REGION_BYTES - 40, 40, VIRTQ_DESC_F_NEXT, 1)
    driver.descriptor(layout.desc, 1, region.address + DATA_AT, 8, 0, 0)
    const before = region.view.getUint16(layout.used + 2, true)
    driver.offer(0)
    t.equal(region.view.getUint16(layout.used + 2, true), (before + 1) & 0xffff, 'an argument behind the end is not looked for there')
  })
})

t.test('chains of more than 4 GiB break the queue', async t => {
  withDriver(driver => {
    const { region, layout } = driver
    // the same memory over and over: 1024 descriptors of 8 MiB
    for (let i = 0; i < 1024; i++) driver.descriptor(DATA_AT, i, region.address, REGION_BYTES, i < 1023 ? VIRTQ_DESC_F_NEXT : 0, i + 1)
    driver.descriptor(layout.desc, 0, region.address + DATA_AT, 16 * 1024, VIRTQ_DESC_F_INDIRECT, 0)
    driver.offer(0)
    t.match(driver.queue.broken, /4 GiB/)
    t.strictSame(driver.seen, [])
  })
})

t.test('requests at random, in chains that are sound: always answered or swallowed, never an exception', async t => {
  withDriver(driver => {
    const random = new SeededRandom(1234)
    const { region, layout } = driver
    const used = (): number => region.view.getUint16(layout.used + 2, true)
    const opcodes = [Op.LOOKUP, Op.WRITE, Op.READ, Op.INTERRUPT, Op.FORGET, Op.BATCH_FORGET, Op.INIT, 500]
    for (let i = 0; i < 20_000; i++) {
      const readable = random.between(0, 4)
      const count = readable + random.between(readable === 0 ? 1 : 0, 4)
      for (let n = 0; n < count; n++) {
        const length = random.below(6) === 0 ? 0 : random.below(96)
        // buffers may overlap, and end where the memory ends
        const at = random.below(3) === 0 ? REGION_BYTES - length : DATA_AT + random.below(2048)
        driver.descriptor(layout.desc, n, region.address + at, length, (n < count - 1 ? VIRTQ_DESC_F_NEXT : 0) | (n < readable ? 0 : VIRTQ_DESC_F_WRITE), n + 1)
        const bytes = message(opcodes[random.below(opcodes.length)]!, pattern(56, i), [random.below(2 ** 32), random.below(200), 40 + random.below(30)][random.below(3)])
        if (n < readable) region.bytes.set(bytes.subarray(0, length), at)
      }
      driver.result = [pattern(random.below(200), i), -random.between(1, 133), NO_REPLY][random.below(3)]!
      const before = used()
      driver.offer(0)
      if (driver.queue.broken !== '' || used() !== ((before + 1) & 0xffff)) return t.fail(`chain ${i}: ${driver.queue.broken}`)
    }
    t.pass('20,000 chains')
  })
})
