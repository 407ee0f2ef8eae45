/** The near end of a relay on real rings, with the test at the other end of two pipes. */
import type { Test } from 'tap'
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

/** Who is being killed: only a thread that cannot run yet stays so. */
export const DYING = 7777

class Device extends NearDevice {
  protected override isBeingKilled(pid: number): boolean {
    return pid === DYING
  }
}

export interface Message { opcode: number, length: number, low: number, high: number, pid: number, bytes: Buffer }

/** A driver, and what stands at the far end. */
export function makeScene(t: Test, limits: RelayLimits = { requests: 100, large: 100 }, lookAhead = true) {
  const plan = planMemory({ queues: 1, queueSize: 16, indirectDesc: true, largeBuffers: 16 })
  const region = viewRegion(mapAnonymous(plan.lengthBytes), plan.lengthBytes)
  const worker = plan.workers[0]!
  const ring = new DriverRing(region, worker.ring, FEATURES)
  const hiprio = new DriverRing(region, plan.hiprio, FEATURES)
  const [farIn, outFd] = createPipe()
  const [inFd, farOut] = createPipe()
  const device = new Device(region, [plan.hiprio, worker.ring], FEATURES, { inFd, outFd, limits, lookAhead })
  const bounce = viewRegion(mapAnonymous(MIB), MIB)
  let closed = false
  const close_ = device.close.bind(device)
  device.close = () => {
    if (!closed) close_()
    closed = true
  }
  t.teardown(() => {
    device.close()
    for (const fd of [farIn, outFd, inFd, farOut]) close(fd)
    unmap(region.address, plan.lengthBytes)
    unmap(bounce.address, MIB)
  })
  const header = (at: number, opcode: number, unique: number, length: number, pid = 4242): void => {
    const { view } = region
    view.setUint32(at + FuseInHeader.len, length, true)
    view.setUint32(at + FuseInHeader.opcode, opcode, true)
    view.setUint32(at + FuseInHeader.unique, unique, true)
    view.setUint32(at + FuseInHeader.unique + 4, 0, true)
    view.setUint32(at + FuseInHeader.pid, pid, true)
  }
  let received = Buffer.alloc(0)
  return {
    device, region, ring,
    slotAt: (slot: number) => worker.slots + slot * Slot.SIZE,
    largeAt: (slot: number) => worker.large + slot * MIB,
    /** A request with room for a reply of so many bytes behind its header. */
    request(slot: number, opcode: number, { inBytes = 0, outBytes = 0, pid = 4242 } = {}): void {
      const at = worker.slots + slot * Slot.SIZE
      const large = worker.large + slot * MIB
      header(at, opcode, 2 * slot + 2, FuseInHeader.SIZE + 40 + inBytes, pid)
      if (opcode === Op.READ) region.view.setUint32(at + FuseInHeader.SIZE + FuseReadIn.size, outBytes, true)
      const table = at + Slot.TABLE
      let count = 0
      writeDescriptor(region.view, table, count++, region.address + at, FuseInHeader.SIZE + 40, 0, false)
      if (inBytes > 0) writeDescriptor(region.view, table, count++, region.address + large, inBytes, 0, false)
      writeDescriptor(region.view, table, count++, region.address + at + Slot.OUT, FuseOutHeader.SIZE, VIRTQ_DESC_F_WRITE, outBytes === 0)
      if (outBytes > 0) writeDescriptor(region.view, table, count++, region.address + large, outBytes, VIRTQ_DESC_F_WRITE, true)
      ring.add(table, region.address + table, count, slot)
    },
    /** A request of any bytes behind its header, whose reply has a fixed part alone. */
    plain(slot: number, opcode: number, nodeid: number, body: Uint8Array, outBytes = 0): void {
      const at = worker.slots + slot * Slot.SIZE
      header(at, opcode, 2 * slot + 2, FuseInHeader.SIZE + body.length)
      region.view.setUint32(at + FuseInHeader.nodeid, nodeid, true)
      region.bytes.set(body, at + FuseInHeader.SIZE)
      writeDescriptor(region.view, at + Slot.TABLE, 0, region.address + at, FuseInHeader.SIZE + body.length, 0, false)
      writeDescriptor(region.view, at + Slot.TABLE, 1, region.address + at + Slot.OUT, FuseOutHeader.SIZE + outBytes, VIRTQ_DESC_F_WRITE, true)
      ring.add(at + Slot.TABLE, region.address + at + Slot.TABLE, 2, slot)
      device.pass()
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
    /** An error. */
    fail({ low, high }: Message, error: number): void {
      const head = Buffer.alloc(FuseOutHeader.SIZE)
      head.writeUInt32LE(FuseOutHeader.SIZE, FuseOutHeader.len)
      head.writeInt32LE(error, FuseOutHeader.error)
      head.writeUInt32LE(low, FuseOutHeader.unique)
      head.writeUInt32LE(high, FuseOutHeader.unique + 4)
      this.raw(head)
    },
    /** Any bytes. */
    raw(message: Buffer): void {
      bounce.bytes.set(message)
      write(farOut, bounce.address, message.length)
      device.pass()
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

