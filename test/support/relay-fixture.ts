/**
 * One worker's queues in one thread: a request queue and the hiprio queue between a mock of
 * /dev/fuse and mock devices, over memory as a mount has it.
 */
import type { Test } from 'tap'
import { allocateCounters, Counter, workerCounters } from '../../lib/driver/counters.js'
import { HiprioQueue } from '../../lib/driver/hiprio-queue.js'
import { planMemory, type MemoryPlan } from '../../lib/driver/memory-plan.js'
import { allocateRingRoom, RingRoom } from '../../lib/driver/ring-room.js'
import { Received, RequestQueue } from '../../lib/driver/request-queue.js'
import type { InitPolicy } from '../../lib/fuse/init.js'
import { mapAnonymous, unmap, viewRegion, type Region } from '../../lib/sys/memory.js'
import type { RingFeatures } from '../../lib/virtio/driver-ring.js'
import { MockDevice } from './mock-device.js'
import { MockFuse, type Reply } from './mock-fuse.js'

export interface RelayOptions {
  queueSize?: number
  largeBuffers?: number
  /** Requests that may wait for the ring. */
  parked?: number
  /** Words of all workers, of which this is the first. */
  ringRoom?: SharedArrayBuffer
  indirectDesc?: boolean
  eventIdx?: boolean
  init?: Partial<InitPolicy>
  /** Deadline of a request in milliseconds. */
  limitMs?: number
  /** The class to test, when it is one that knows something else of its callers. */
  queueClass?: typeof RequestQueue
}

export class RelayFixture {
  readonly fuse = new MockFuse()
  readonly region: Region
  readonly plan: MemoryPlan
  readonly features: RingFeatures
  readonly counters: Float64Array
  readonly hiprio: HiprioQueue
  readonly queue: RequestQueue
  readonly device: MockDevice
  readonly hiprioDevice: MockDevice
  /** [error] of every answer to INIT that was reported. */
  readonly inits: number[] = []
  destroyed = 0
  /** Uniques of interrupted requests that another queue may have. */
  readonly interrupted: bigint[] = []
  hiprioNotified = 0

  constructor(options: RelayOptions = {}) {
    this.features = { indirectDesc: options.indirectDesc ?? true, eventIdx: options.eventIdx ?? true }
    this.plan = planMemory({ queues: 1, queueSize: options.queueSize ?? 64, indirectDesc: this.features.indirectDesc, largeBuffers: options.largeBuffers ?? 8, parked: options.parked ?? 0 })
    this.region = viewRegion(mapAnonymous(this.plan.lengthBytes), this.plan.lengthBytes)
    this.counters = workerCounters(allocateCounters(1), 0)
    this.hiprio = new HiprioQueue(this.region, this.plan, this.features, this.counters, () => { this.hiprioNotified++ })
    const init = { maxWrite: 1 << 20, maxBackground: 28, defaultPermissions: true, passthrough: false, ...options.init }
    this.queue = new (options.queueClass ?? RequestQueue)(this.region, this.plan.workers[0]!, this.features, this.fuse.fd, this.counters, this.hiprio, init, {
      initAnswered: error => { this.inits.push(error) },
      destroyed: () => { this.destroyed++ },
      interrupted: (low, high) => { this.interrupted.push((BigInt(high) << 32n) | BigInt(low)) },
    }, null, new RingRoom(options.ringRoom ?? allocateRingRoom(1), 0), options.limitMs)
    this.device = new MockDevice(this.region, this.plan.workers[0]!.ring, this.features)
    this.hiprioDevice = new MockDevice(this.region, this.plan.hiprio, this.features)
  }

  /** Reads requests until there is none, or no room. @returns what stopped it, and how many were read */
  receiveAll(): { stopped: Received, count: number } {
    let count = 0
    for (;;) {
      const received = this.queue.receive()
      if (received !== Received.ONE) {
        this.hiprio.flush()
        return { stopped: received, count }
      }
      count++
    }
  }

  /** Ends what the device has given back. @returns the replies that reached the kernel */
  complete(): Reply[] {
    this.queue.complete()
    return this.fuse.collect()
  }

  /** Sends one request and gets it to the device. */
  roundOut(opcode: number, body?: Uint8Array): ReturnType<MockDevice['takeOne']> {
    this.fuse.send(opcode, body)
    this.receiveAll()
    return this.device.takeOne()
  }

  count(counter: number): number {
    return this.counters[counter]!
  }

  /** Every buffer and descriptor is free and nothing is in flight. */
  assertIdle(t: Test): void {
    const worker = this.plan.workers[0]!
    t.strictSame({
      inFlight: this.queue.inFlight, ring: this.queue.ring.freeCount, slots: this.queue.slots.freeSlotCount, large: this.queue.slots.freeLargeCount,
      hiprioRing: this.hiprio.ring.freeCount, hiprioSlots: this.hiprio.freeSlots, parked: this.hiprio.parked, waiting: this.fuse.collect().length,
    }, {
      inFlight: 0, ring: worker.ring.size, slots: worker.slotCount, large: worker.largeCount,
      hiprioRing: this.plan.hiprio.size, hiprioSlots: this.plan.hiprio.size, parked: 0, waiting: 0,
    }, 'everything is free again')
  }

  close(): void {
    this.fuse.close()
    unmap(this.region.address, this.plan.lengthBytes)
  }
}

/** Runs a test on a fixture and checks afterwards that nothing is in use. */
export async function withRelay(t: Test, options: RelayOptions, body: (relay: RelayFixture) => void | Promise<void>): Promise<void> {
  const relay = new RelayFixture(options)
  try {
    await body(relay)
    relay.assertIdle(t)
  } finally {
    relay.close()
  }
}

export { Counter, Received }
