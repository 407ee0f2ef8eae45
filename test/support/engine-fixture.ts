/** A client's request engine in one thread: between callers of the test and mock devices, over memory as a session has it. */
import type { Test } from 'tap'
import type { Decode, Reference } from '../../lib/client/engine-request.js'
import { RequestEngine, type SendOptions } from '../../lib/client/request-engine.js'
import { allocateCounters, workerCounters } from '../../lib/driver/counters.js'
import { HiprioQueue } from '../../lib/driver/hiprio-queue.js'
import { planMemory, type MemoryPlan } from '../../lib/driver/memory-plan.js'
import { FuseInHeader } from '../../lib/fuse/abi.js'
import { Op } from '../../lib/fuse/opcodes.js'
import { mapAnonymous, unmap, viewRegion, type Region } from '../../lib/sys/memory.js'
import type { RingFeatures } from '../../lib/virtio/driver-ring.js'
import { MockDevice } from './mock-device.js'

export interface EngineFixtureOptions {
  queueSize?: number
  largeBuffers?: number
  maxOutstanding?: number
  features?: RingFeatures
  uniqueEnd?: readonly [low: number, high: number]
  /** INIT was not sent yet. */
  fresh?: boolean
}

export const IDENTITY = { uid: 1001, gid: 1002, pid: 4711 }

/** Counts who holds it. */
export class CountedReference implements Reference {
  held = 0
  hold(): void { this.held++ }
  drop(): void { this.held-- }
}

export class EngineFixture {
  readonly region: Region
  readonly plan: MemoryPlan
  readonly features: RingFeatures
  readonly counters = workerCounters(allocateCounters(1), 0)
  readonly engine: RequestEngine
  readonly device: MockDevice
  readonly hiprioDevice: MockDevice
  notified = 0
  readonly broken: string[] = []

  constructor(options: EngineFixtureOptions = {}) {
    this.features = options.features ?? { indirectDesc: true, eventIdx: true }
    this.plan = planMemory({ queues: 1, queueSize: options.queueSize ?? 64, indirectDesc: this.features.indirectDesc, largeBuffers: options.largeBuffers ?? 8 })
    this.region = viewRegion(mapAnonymous(this.plan.lengthBytes), this.plan.lengthBytes)
    const hiprio = new HiprioQueue(this.region, this.plan, this.features, this.counters, () => {})
    this.engine = new RequestEngine(this.region, this.plan.workers[0]!, this.features, hiprio, {
      identity: IDENTITY, maxOutstanding: options.maxOutstanding ?? 1000, counters: this.counters, trace: null,
      notify: () => { this.notified++ },
      broken: reason => {
        this.broken.push(reason)
        this.engine.abort()
      },
      ...(options.uniqueEnd ? { uniqueEnd: options.uniqueEnd } : {}),
    })
    this.device = new MockDevice(this.region, this.plan.workers[0]!.ring, this.features)
    this.hiprioDevice = new MockDevice(this.region, this.plan.hiprio, this.features)
    if (!options.fresh) this.engine.initialised()
  }

  /** Writes the arguments of the next request. @returns their length */
  args(bytes: Uint8Array): number {
    new Uint8Array(this.engine.staging.buffer).set(bytes, FuseInHeader.SIZE)
    return bytes.length
  }

  /** Sends a request about node 1. @returns 0 or −errno, unless `decode` says otherwise */
  send(opcode: number, args = new Uint8Array(0), options: SendOptions = {}, decode: Decode<number> = () => 0): Promise<number> {
    return this.engine.send(opcode, 1, 0, this.args(args), decode, options)
  }

  /** A request without arguments and without payload in its reply. */
  unlink(options: SendOptions = {}): Promise<number> {
    return this.send(Op.UNLINK, Buffer.from('name\0'), options)
  }

  /** FORGETs and INTERRUPTs that the device has got since the last time, which it gives back. */
  async hiprio(): Promise<{ opcode: number, bytes: Buffer }[]> {
    await Promise.resolve()
    const taken = this.hiprioDevice.take()
    for (const request of taken) this.hiprioDevice.giveBack(request, 0)
    return taken.map(({ opcode, bytes }) => ({ opcode, bytes: Buffer.from(bytes) }))
  }

  assertIdle(t: Test): void {
    const worker = this.plan.workers[0]!
    this.engine.called()
    const { engine } = this
    t.strictSame({
      live: engine.live, ring: engine.ring.freeCount, slots: engine.slots.freeSlotCount, large: engine.slots.freeLargeCount, parked: engine.hiprio.parked, hiprio: engine.hiprio.freeSlots,
    }, { live: 0, ring: worker.ring.size, slots: worker.slotCount, large: worker.largeCount, parked: 0, hiprio: this.plan.hiprio.size }, 'everything is free again')
  }

  close(): void {
    this.engine.abort()
    unmap(this.region.address, this.plan.lengthBytes)
  }
}

/** Runs a test on a fixture, and checks afterwards that nothing is in use unless the device went. */
export async function withEngine(t: Test, options: EngineFixtureOptions, body: (fixture: EngineFixture) => Promise<void>): Promise<void> {
  const fixture = new EngineFixture(options)
  try {
    await body(fixture)
    if (fixture.engine.ring.broken === '') fixture.assertIdle(t)
  } finally {
    fixture.close()
  }
}

/** Whether a promise has been settled by now. */
export async function settled(promise: Promise<unknown>): Promise<boolean> {
  const none = Symbol('none')
  const first = await Promise.race([promise, Promise.resolve().then(() => Promise.resolve()).then(() => none)])
  return first !== none
}
