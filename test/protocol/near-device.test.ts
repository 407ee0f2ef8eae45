/** The near end of a relay on real rings, with the test at the other end of two pipes. */
import t, { type Test } from 'tap'
import { planMemory, Slot } from '../../lib/driver/memory-plan.js'
import { FuseInHeader, FuseOutHeader, FuseReadIn } from '../../lib/fuse/abi.js'
import { Op } from '../../lib/fuse/opcodes.js'
import type { RelayLimits } from '../../lib/relay/hello.js'
import { NearDevice } from '../../lib/relay/near-device.js'
import { close, createPipe, read, write } from '../../lib/sys/io.js'
import { mapAnonymous, unmap, viewRegion } from '../../lib/sys/memory.js'
import { DriverRing, writeDescriptor } from '../../lib/virtio/driver-ring.js'
import { VIRTQ_DESC_F_WRITE } from '../../lib/virtio/split-ring.js'

const FEATURES = { indirectDesc: true, eventIdx: true }
const MIB = 1 << 20

interface Message { opcode: number, length: number, low: number, high: number, pid: number, bytes: Buffer }

/** A driver, and what stands at the far end. */
function makeScene(t: Test, limits: RelayLimits = { requests: 100, large: 100 }) {
  const plan = planMemory({ queues: 1, queueSize: 16, indirectDesc: true, largeBuffers: 16 })
  const region = viewRegion(mapAnonymous(plan.lengthBytes), plan.lengthBytes)
  const worker = plan.workers[0]!
  const ring = new DriverRing(region, worker.ring, FEATURES)
  const hiprio = new DriverRing(region, plan.hiprio, FEATURES)
  const [farIn, outFd] = createPipe()
  const [inFd, farOut] = createPipe()
  const device = new NearDevice(region, [plan.hiprio, worker.ring], FEATURES, { inFd, outFd, limits, lookAhead: true })
  const bounce = viewRegion(mapAnonymous(MIB), MIB)
  t.teardown(() => {
    device.close()
    for (const fd of [farIn, outFd, inFd, farOut]) close(fd)
    unmap(region.address, plan.lengthBytes)
    unmap(bounce.address, MIB)
  })
  const header = (at: number, opcode: number, unique: number, length: number): void => {
    const { view } = region
    view.setUint32(at + FuseInHeader.len, length, true)
    view.setUint32(at + FuseInHeader.opcode, opcode, true)
    view.setUint32(at + FuseInHeader.unique, unique, true)
    view.setUint32(at + FuseInHeader.unique + 4, 0, true)
    view.setUint32(at + FuseInHeader.pid, 4242, true)
  }
  let received = Buffer.alloc(0)
  return {
    device, region, ring,
    slotAt: (slot: number) => worker.slots + slot * Slot.SIZE,
    largeAt: (slot: number) => worker.large + slot * MIB,
    /** A request with room for a reply of so many bytes behind its header. */
    request(slot: number, opcode: number, { inBytes = 0, outBytes = 0 } = {}): void {
      const at = worker.slots + slot * Slot.SIZE
      const large = worker.large + slot * MIB
      header(at, opcode, 2 * slot + 2, FuseInHeader.SIZE + 40 + inBytes)
      if (opcode === Op.READ) region.view.setUint32(at + FuseInHeader.SIZE + FuseReadIn.size, outBytes, true)
      const table = at + Slot.TABLE
      let count = 0
      writeDescriptor(region.view, table, count++, region.address + at, FuseInHeader.SIZE + 40, 0, false)
      if (inBytes > 0) writeDescriptor(region.view, table, count++, region.address + large, inBytes, 0, false)
      writeDescriptor(region.view, table, count++, region.address + at + Slot.OUT, FuseOutHeader.SIZE, VIRTQ_DESC_F_WRITE, outBytes === 0)
      if (outBytes > 0) writeDescriptor(region.view, table, count++, region.address + large, outBytes, VIRTQ_DESC_F_WRITE, true)
      ring.add(table, region.address + table, count, slot)
    },
    /** A message on hiprio. */
    urgent(slot: number, opcode: number, ...words: number[]): void {
      const at = plan.hiprioSlots + slot * 2048
      header(at, opcode, 1000 + slot, FuseInHeader.SIZE + 4 * words.length)
      words.forEach((word, i) => region.view.setUint32(at + FuseInHeader.SIZE + 4 * i, word, true))
      writeDescriptor(region.view, at + 1024, 0, region.address + at, FuseInHeader.SIZE + 4 * words.length, 0, true)
      hiprio.add(at + 1024, region.address + at + 1024, 1, slot)
    },
    /** What has come to the far end, as whole messages. */
    messages(): Message[] {
      const found: Message[] = []
      for (let count = read(farIn, bounce.address, MIB); count > 0; count = read(farIn, bounce.address, MIB)) {
        received = Buffer.concat([received, bounce.bytes.slice(0, count)])
        device.send()
      }
      while (received.length >= 4 && received.length >= received.readUInt32LE(0)) {
        const bytes = received.subarray(0, received.readUInt32LE(0))
        found.push({
          opcode: bytes.readUInt32LE(FuseInHeader.opcode), length: bytes.length, bytes, pid: bytes.readUInt32LE(FuseInHeader.pid),
          low: bytes.readUInt32LE(FuseInHeader.unique), high: bytes.readUInt32LE(FuseInHeader.unique + 4),
        })
        received = received.subarray(bytes.length)
      }
      return found
    },
    /** Replies, cut into parts of so many bytes. */
    reply({ low, high }: Message, payload = Buffer.alloc(0), partBytes = 50_000): void {
      const head = Buffer.alloc(FuseOutHeader.SIZE)
      head.writeUInt32LE(FuseOutHeader.SIZE + payload.length, FuseOutHeader.len)
      head.writeUInt32LE(low, FuseOutHeader.unique)
      head.writeUInt32LE(high, FuseOutHeader.unique + 4)
      const message = Buffer.concat([head, payload])
      for (let at = 0; at < message.length; at += partBytes) {
        const part = message.subarray(at, at + partBytes)
        bounce.bytes.set(part)
        if (write(farOut, bounce.address, part.length) !== part.length) throw new Error('the pipe is full')
        device.pass()
      }
    },
    /** Slots that came back, with the length of each reply. */
    used(): [slot: number, length: number][] {
      const found: [number, number][] = []
      for (let slot = ring.popUsed(); slot >= 0; slot = ring.popUsed()) found.push([slot, ring.usedLength])
      return found
    },
    usedUrgent(): number[] {
      const found: number[] = []
      for (let slot = hiprio.popUsed(); slot >= 0; slot = hiprio.popUsed()) found.push(slot)
      return found
    },
  }
}

t.test('requests go out as they lie, replies come back in any order', async t => {
  const scene = makeScene(t)
  const { device, region } = scene
  for (let slot = 0; slot < 4; slot++) scene.request(slot, Op.STATFS)
  t.ok(device.pass() >= 4)
  const messages = scene.messages()
  t.strictSame(messages.map(({ opcode, length, pid }) => [opcode, length, pid]), Array(4).fill([Op.STATFS, 80, 0]), 'without the pid')
  t.equal(new Set(messages.map(({ low, high }) => `${high}:${low}`)).size, 4, 'each with a unique of its own')
  t.strictSame(scene.used(), [])
  for (const i of [2, 0, 3, 1]) scene.reply(messages[i]!)
  t.strictSame(scene.used(), [[2, 16], [0, 16], [3, 16], [1, 16]])
  t.equal(region.view.getUint32(scene.slotAt(3) + Slot.OUT + FuseOutHeader.unique, true), 8, 'with the unique of the driver')
  t.equal(device.broken, '')
})

t.test('data of both directions, in parts', async t => {
  const scene = makeScene(t)
  const { device, region } = scene
  const data = Buffer.alloc(700_001, 'some data to be written ')
  region.bytes.set(data, scene.largeAt(0))
  scene.request(0, Op.WRITE, { inBytes: data.length })
  scene.request(1, Op.READ, { outBytes: MIB })
  device.pass()
  t.ok(device.blocked, 'a pipe does not hold all of it')
  const [written, reading] = scene.messages()
  t.ok(written!.bytes.subarray(80).equals(data))
  t.notOk(device.blocked)
  const answer = Buffer.alloc(MIB - 5, 'what was read ')
  for (const partBytes of [1, 15, 17, 65_000]) {
    scene.reply(reading!, partBytes < 1000 ? answer.subarray(0, 300) : answer, partBytes)
    const length = partBytes < 1000 ? 300 : answer.length
    t.strictSame(scene.used(), [[1, 16 + length]], `in parts of ${partBytes}`)
    t.ok(Buffer.from(region.bytes.subarray(scene.largeAt(1), scene.largeAt(1) + length)).equals(answer.subarray(0, length)))
    scene.request(1, Op.READ, { outBytes: MIB })
    device.pass()
    Object.assign(reading!, scene.messages()[0])
  }
  t.equal(device.broken, '')
})

t.test('no more in flight than the far end takes', async t => {
  const scene = makeScene(t, { requests: 3, large: 2 })
  const { device } = scene
  for (let slot = 0; slot < 5; slot++) scene.request(slot, Op.STATFS)
  device.pass()
  const first = scene.messages()
  t.equal(first.length, 3)
  scene.reply(first[1]!)
  t.equal(scene.messages().length, 1, 'the next one goes when there is room')
  t.strictSame(scene.used(), [[1, 16]])

  const large = makeScene(t, { requests: 16, large: 2 })
  for (let slot = 0; slot < 4; slot++) large.request(slot, Op.READ, { outBytes: MIB })
  large.device.pass()
  const [one, ...rest] = large.messages()
  t.equal(rest.length, 1, 'a large reply needs a large buffer')
  large.reply(one!, Buffer.alloc(10))
  t.equal(large.messages().length, 1)
})

t.test('FORGETs and INTERRUPTs overtake what waits', async t => {
  const scene = makeScene(t, { requests: 2, large: 4 })
  const { device, region } = scene
  for (let slot = 0; slot < 5; slot++) scene.request(slot, Op.STATFS)
  device.pass()
  const sent = scene.messages()
  t.equal(sent.length, 2)
  scene.urgent(0, Op.FORGET, 1, 0)
  // of one that is at the far end, of one that waits here, of one that nobody knows
  scene.urgent(1, Op.INTERRUPT, 2 * 1 + 2, 0)
  scene.urgent(2, Op.INTERRUPT, 2 * 3 + 2, 0)
  scene.urgent(3, Op.INTERRUPT, 4444, 0)
  device.pass()
  const urgent = scene.messages()
  t.strictSame(urgent.map(({ opcode }) => opcode), [Op.FORGET, Op.INTERRUPT])
  t.strictSame([urgent[1]!.bytes.readUInt32LE(40), urgent[1]!.bytes.readUInt32LE(44)], [sent[1]!.low, sent[1]!.high], 'by its unique on the wire')
  t.strictSame(scene.usedUrgent().sort(), [0, 1, 2, 3], 'all buffers came back')
  t.strictSame(scene.used(), [[3, 16]], 'the one that waited is given up at once')
  t.equal(region.view.getInt32(scene.slotAt(3) + Slot.OUT + FuseOutHeader.error, true), -4, 'EINTR')
  scene.reply(sent[0]!)
  scene.reply(sent[1]!)
  t.equal(scene.messages().length, 2, 'and never sent')
  t.equal(device.broken, '')
})

t.test('a reply that nobody asked for, and one that comes twice', async t => {
  for (const wrong of [(message: Message) => ({ ...message, low: message.low + 2 }), (message: Message) => ({ ...message, high: message.high + 1 })]) {
    const scene = makeScene(t)
    scene.request(0, Op.STATFS)
    scene.device.pass()
    scene.reply(wrong(scene.messages()[0]!))
    t.match(scene.device.broken, /fuse_out_header.unique is .*, expected that of a request in flight/)
    t.strictSame(scene.used(), [])
  }
  const scene = makeScene(t)
  scene.request(0, Op.STATFS)
  scene.device.pass()
  const [message] = scene.messages()
  scene.reply(message!)
  scene.reply(message!)
  t.match(scene.device.broken, /fuse_out_header.unique/)
  t.strictSame(scene.used(), [[0, 16]])
})
