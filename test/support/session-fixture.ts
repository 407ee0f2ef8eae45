/** The queue of a mount that waits for its device, in one thread: the device goes and comes back when the test says so. */
import type { Test } from 'tap'
import { SessionQueue } from '../../lib/driver/session-queue.js'
import { FuseAttr, FuseAttrOut, FuseEntryOut, FuseOpenOut } from '../../lib/fuse/abi.js'
import { Op } from '../../lib/fuse/opcodes.js'
import { mapAnonymous, unmap, viewRegion, type Region } from '../../lib/sys/memory.js'
import { MockDevice, type TakenRequest } from './mock-device.js'
import { pattern, type Reply } from './mock-fuse.js'
import { initOut } from './stepped-device.js'
import { RelayFixture, type RelayOptions } from './relay-fixture.js'

export interface FileFacts {
  id: number
  ino?: number
  mode?: number
  generation?: number
  size?: number
  uid?: number
  /** When it was changed, as Date.now() has it. */
  changedMs?: number
}

function writeAttr(bytes: Buffer, at: number, { id, ino = id + 1000, mode = 0o100644, size = 0, uid = 1000, changedMs = 0 }: FileFacts): void {
  bytes.writeBigUInt64LE(BigInt(ino), at + FuseAttr.ino)
  bytes.writeBigUInt64LE(BigInt(size), at + FuseAttr.size)
  bytes.writeUInt32LE(mode, at + FuseAttr.mode)
  bytes.writeUInt32LE(uid, at + FuseAttr.uid)
  bytes.writeBigUInt64LE(BigInt(Math.floor(changedMs / 1000)), at + FuseAttr.ctime)
  bytes.writeUInt32LE(Math.floor(changedMs % 1000 * 1e6), at + FuseAttr.ctimensec)
}

/** A fuse_entry_out. */
export function entry(facts: FileFacts): Buffer {
  const bytes = Buffer.alloc(FuseEntryOut.SIZE)
  bytes.writeBigUInt64LE(BigInt(facts.id), FuseEntryOut.nodeid)
  bytes.writeBigUInt64LE(BigInt(facts.generation ?? 0), FuseEntryOut.generation)
  writeAttr(bytes, FuseEntryOut.attr, facts)
  return bytes
}

/** A fuse_attr_out. */
export function attributes(facts: FileFacts): Buffer {
  const bytes = Buffer.alloc(FuseAttrOut.SIZE)
  writeAttr(bytes, FuseAttrOut.attr, facts)
  return bytes
}

/** A fuse_open_out. */
export function opened(fh: number): Buffer {
  const bytes = Buffer.alloc(FuseOpenOut.SIZE)
  bytes.writeBigUInt64LE(BigInt(fh), FuseOpenOut.fh)
  return bytes
}

/** The node id in a reply that starts with a fuse_entry_out. */
export function numberOf(reply: Reply): bigint {
  return Buffer.from(reply.payload).readBigUInt64LE(FuseEntryOut.nodeid)
}

/** The handle in a reply to OPEN, or to CREATE behind the entry. */
export function handleOf(reply: Reply): bigint {
  return Buffer.from(reply.payload).readBigUInt64LE(reply.payload.length - FuseOpenOut.SIZE + FuseOpenOut.fh)
}

export class SessionFixture extends RelayFixture {
  readonly session: SessionQueue
  /** What the kernel was told of. */
  readonly greeted: number[] = []
  /** Of the present session. */
  present: MockDevice
  #hiprioPresent: MockDevice
  #regions: Region[] = []

  constructor(options: RelayOptions = {}) {
    super({ parked: 64, queueClass: SessionQueue, ...options })
    this.session = this.queue as SessionQueue
    this.present = this.device
    this.#hiprioPresent = this.hiprioDevice
  }

  /** INIT, as at every mount. */
  begin(): void {
    this.fuse.send(Op.INIT, Buffer.alloc(64))
    this.receiveAll()
    this.present.answer(this.present.takeOne(), { payload: initOut() })
    this.complete()
    this.answer(Op.GETATTR, attributes({ id: 1, ino: 99, mode: 0o40755 }))
    this.answer(Op.STATFS, pattern(80))
  }

  /** Sends a request, has it answered, and returns what the kernel gets. */
  ask(opcode: number, body: Uint8Array, nodeid: number | bigint, payload: Uint8Array, error = 0): Reply {
    this.fuse.send(opcode, body, { nodeid })
    this.receiveAll()
    this.present.answer(this.present.takeOne(), error === 0 ? { payload } : { error })
    const [reply] = this.complete()
    return reply!
  }

  /** The device goes. @returns the memory that it had */
  lose(): Region {
    const before = this.#regions.at(-1) ?? this.region
    this.hiprio.disconnect()
    this.session.suspend()
    return before
  }

  /** It comes back and is sent INIT; `goOn` sends the rest. @returns what it was sent */
  comeBack(): TakenRequest {
    const region = viewRegion(mapAnonymous(this.plan.lengthBytes), this.plan.lengthBytes)
    this.#regions.push(region)
    this.hiprio.reset(region, this.plan, this.features)
    this.session.resume(region, this.features)
    this.present = new MockDevice(region, this.plan.workers[0]!.ring, this.features)
    this.#hiprioPresent = new MockDevice(region, this.plan.hiprio, this.features)
    return this.present.takeOne()
  }

  /** It comes back, answers INIT, and is sent the rest. */
  return(): void {
    const init = this.comeBack()
    this.present.answer(init, { payload: initOut() })
    this.complete()
    this.session.goOn()
  }

  /** It goes and comes back. */
  again(): void {
    this.lose()
    this.return()
  }

  /** The one request that the device has been sent, of this kind. @throws Error when it is another */
  sent(opcode: number): TakenRequest {
    const request = this.present.takeOne()
    if (request.opcode !== opcode) throw new Error(`opcode ${request.opcode} came, expected ${opcode}`)
    return request
  }

  /** Answers what the device has been sent. @returns what the kernel gets then */
  answer(opcode: number, payload: Uint8Array, error = 0): Reply[] {
    this.present.answer(this.sent(opcode), error === 0 ? { payload } : { error })
    return this.complete()
  }

  /** Messages on hiprio, which the device takes. */
  takeHiprio(): TakenRequest[] {
    this.hiprio.flush()
    const taken = this.#hiprioPresent.take()
    for (const message of taken) this.#hiprioPresent.giveBack(message, 0)
    this.hiprio.complete()
    return taken
  }

  override assertIdle(t: Test): void {
    const worker = this.plan.workers[0]!
    t.strictSame({
      inFlight: this.queue.inFlight, ring: this.queue.ring.freeCount, slots: this.queue.slots.freeSlotCount, large: this.queue.slots.freeLargeCount, waiting: this.fuse.collect().length,
    }, { inFlight: 0, ring: worker.ring.size, slots: worker.slotCount - 1, large: worker.largeCount, waiting: 0 }, 'everything is free again')
  }

  override close(): void {
    this.queue.close()
    super.close()
    for (const region of this.#regions) unmap(region.address, this.plan.lengthBytes)
  }
}

/** Runs a test on a fixture that has begun its session, and checks afterwards that nothing is in use. */
export async function withSession(t: Test, body: (session: SessionFixture) => void | Promise<void>, options: RelayOptions = {}): Promise<void> {
  const session = new SessionFixture(options)
  try {
    session.begin()
    await body(session)
    session.assertIdle(t)
  } finally {
    session.close()
  }
}

