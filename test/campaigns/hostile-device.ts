/**
 * A hostile device behind one worker's queues: it answers with wrong lengths, errors and uniques,
 * gives back what it does not have, twice, or with a used index that ran ahead, and scribbles on
 * requests that it has been given.
 *
 * Beside it runs a model, which knows of every request what the kernel has to be told. Each
 * writable buffer is filled with a byte of its request's own, so that a payload from anywhere else
 * is seen. A run is one set of queues, from a seed of its own; it ends when the ring is broken.
 */
import { FuseInHeader, FuseInitOut, FuseOutHeader } from '../../lib/fuse/abi.js'
import { Op, opcodeName } from '../../lib/fuse/opcodes.js'
import { errno } from '../../lib/errors.js'
import { Slot } from '../../lib/driver/memory-plan.js'
import { Waiter } from '../../lib/driver/slot-table.js'
import { rewindScratch, scratchMark } from '../../lib/sys/memory.js'
import { DeviceRing } from '../../lib/virtio/device-ring.js'
import { VirtqUsed, VirtqUsedElem } from '../../lib/virtio/split-ring.js'
import { args, batchForget, forget, names, type Reply } from '../support/mock-fuse.js'
import { RelayFixture } from '../support/relay-fixture.js'
import { ALL_FEATURES } from '../support/ring-pair.js'
import { SeededRandom } from '../support/seeded-random.js'

const QUEUE_SIZE = 16
const BATCHES = 400
const OWN_UNIQUE = 0x20000000
const NAME = names('a name')
const MAX_BACKGROUND = 28
const ERROR_LIMIT = 512

/** What the kernel asks, by opcode; READ and the like with the size they want. */
const ASKED: ((random: SeededRandom) => [opcode: number, body: Uint8Array])[] = [
  () => [Op.LOOKUP, NAME], () => [Op.GETATTR, args(16)], () => [Op.OPEN, args(8)], () => [Op.CREATE, args(16, {}, NAME)], () => [Op.OPENDIR, args(8)],
  random => [Op.READ, args(40, { 16: [1, 100, 4096, 4097, 20_000][random.below(5)]! })],
  random => [Op.READDIRPLUS, args(40, { 16: [0, 500, 4096, 30_000][random.below(4)]! })],
  random => [Op.WRITE, args(40, { 16: 5000 }, new Uint8Array([10, 5000][random.below(2)]!))],
  random => [Op.GETXATTR, args(8, { 0: [0, 64][random.below(2)]! }, NAME)],
  () => [Op.READLINK, new Uint8Array(0)], () => [Op.STATX, args(24)], () => [Op.RENAME2, args(16, {}, names('from', 'to'))], () => [63, args(24)], () => [5000, args(100)],
  () => [Op.INIT, args(64, { 0: 7, 4: 45, 12: 0xffff_ffff, 16: 0xffff_ffff })],
]

export interface HostileReport {
  /** Used entries and replies that were not what a device may give. */
  mutated: number
  requests: number
  runs: number
  /** Rings that were found broken. */
  broken: number
  /** Requests that the model and the driver both failed for their reply. */
  refused: number
  /** Requests that were answered well. */
  good: number
}

/** A request that the device has. */
interface Taken {
  head: number
  unique: bigint
  opcode: number
  room: number
  /** Byte of the region where its buffers lie, and their lengths. */
  inAt: number
  out: [at: number, length: number][]
  slot: number
  fill: number
  abandoned: boolean
}

interface Outcome { error: number, length: number, fill: number, opcode: number }

export class HostileDevice {
  readonly report: HostileReport = { mutated: 0, requests: 0, runs: 0, broken: 0, refused: 0, good: 0 }
  readonly #random: SeededRandom
  readonly #relay: RelayFixture
  readonly #ring: DeviceRing
  readonly #hiprio: DeviceRing
  /** What the kernel waits for. */
  readonly #waiting = new Map<bigint, { opcode: number, room: number }>()
  /** What the device has, and what of it it has not yet given back, in its own opinion. */
  readonly #inRing = new Map<number, Taken>()
  readonly #had: Taken[] = []
  #usedIdx = 0
  #broken = false
  /** The driver may have put a request of its own where the device gives back what it does not have. */
  #uncertain = false

  private constructor(seed: number, report: HostileReport) {
    this.report = report
    this.#random = new SeededRandom(seed)
    const features = ALL_FEATURES[this.#random.below(ALL_FEATURES.length)]!
    this.#relay = new RelayFixture({ ...features, queueSize: QUEUE_SIZE, largeBuffers: 4, parked: 8, init: { maxBackground: MAX_BACKGROUND } })
    this.#ring = new DeviceRing(this.#relay.region, this.#relay.plan.workers[0]!.ring, features)
    this.#hiprio = new DeviceRing(this.#relay.region, this.#relay.plan.hiprio, features)
  }

  /** One run. @throws Error when the driver did anything but what the model says */
  static run(seed: number, report: HostileReport): void {
    const mark = scratchMark()
    const device = new HostileDevice(seed, report)
    try {
      for (let batch = 0; batch < BATCHES && !device.#broken && !device.#uncertain; batch++) device.#batch()
      device.#end()
    } finally {
      device.#relay.queue.close()
      device.#relay.close()
      rewindScratch(mark)
    }
    report.runs++
  }

  #batch(): void {
    const random = this.#random
    const { queue, hiprio, fuse } = this.#relay
    for (let i = random.below(12); i > 0; i--) this.#ask()
    this.#relay.receiveAll()
    queue.ring.kickNeeded()
    this.#take()
    for (let i = random.below(QUEUE_SIZE); i > 0 && this.#had.length > 0; i--) this.#answer(random.take(this.#had))
    if (random.below(40) === 0) this.#scribble()
    if (random.below(600) === 0) this.#jump(this.#relay.plan.workers[0]!.ring.used)
    const expected = this.#foresee()
    queue.complete()
    if (!this.#uncertain && (queue.ring.broken !== '') !== this.#broken) throw new Error(`the ring is ${queue.ring.broken || 'sound'}, the model says ${this.#broken ? 'broken' : 'sound'}`)
    this.#compare(fuse.collect(), expected)
    this.#serveHiprio()
    hiprio.flush()
    if (hiprio.ring.broken !== '') this.#broken = true
  }

  #ask(): void {
    const random = this.#random
    const { fuse } = this.#relay
    if (random.below(12) === 0) {
      fuse.send(Op.FORGET, forget(1))
      if (random.below(3) === 0) fuse.send(Op.BATCH_FORGET, batchForget([[5, 1], [6, 1], [7, 2]]))
      return
    }
    const [opcode, body] = ASKED[random.below(ASKED.length)]!(random)
    const unique = fuse.send(opcode, body)
    if (unique === undefined) return
    this.#waiting.set(unique, { opcode, room: 0 })
    this.report.requests++
  }

  #take(): void {
    const ring = this.#ring
    const { region, plan } = this.#relay
    for (let head = ring.pop(); head >= 0; head = ring.pop()) {
      const inAt = ring.addresses[0]! - region.address
      const unique = region.view.getBigUint64(inAt + FuseInHeader.unique, true)
      const out: [number, number][] = []
      for (let i = ring.readableCount; i < ring.count; i++) out.push([ring.addresses[i]! - region.address, ring.lengths[i]!])
      const opcode = region.view.getUint32(inAt + FuseInHeader.opcode, true)
      const taken = { head, unique, opcode, room: ring.writableBytes, inAt, out, slot: (inAt - plan.workers[0]!.slots) / Slot.SIZE, fill: Number(unique & 0xffffn) * 37 & 0xff, abandoned: false }
      for (const [at, length] of out) {
        if (at < 0 || at + length > region.lengthBytes) throw new Error(`${opcodeName(opcode)}: a buffer of ${length} bytes at ${at}`)
      }
      // its caller was killed and answered: what the device gives is to be given back
      const known = this.#waiting.get(unique)
      if (known && this.#random.below(20) === 0 && opcode !== Op.INIT) {
        this.#relay.queue.slots.waiter[taken.slot] = Waiter.NOBODY
        this.#waiting.delete(unique)
        taken.abandoned = true
      } else if (known) {
        known.room = taken.room
      } else {
        if (unique >> 32n !== BigInt(OWN_UNIQUE)) throw new Error(`nobody asked for ${opcodeName(opcode)} ${unique}`)
        taken.abandoned = true
      }
      this.#had.push(taken)
      this.#inRing.set(head, taken)
    }
    if (ring.broken !== '') throw new Error(`the driver broke the ring: ${ring.broken}`)
  }

  #someLength(taken: Taken): number {
    const { room } = taken
    const lengths = [0, 1, 15, 16, 17, room - 1, room, room + 1, room + 4096, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff]
    const i = this.#random.below(lengths.length + 1)
    return i < lengths.length ? lengths[i]! : this.#random.below(0xffff_ffff)
  }

  #answer(taken: Taken): void {
    const random = this.#random
    const { view, bytes } = this.#relay.region
    for (const [at, length] of taken.out) {
      if (taken.abandoned && random.below(2) === 0) this.#noise(at, length)
      else bytes.fill(taken.fill, at, at + length)
    }
    const out = taken.out[0]![0]
    const fails = random.below(3) === 0
    let used = fails ? FuseOutHeader.SIZE : random.between(FuseOutHeader.SIZE, taken.room)
    let length = used
    let error = fails ? -random.between(1, 133) : 0
    let { head, unique } = taken
    let mutations = random.below(4) === 0 ? 0 : random.between(1, 2)
    if (mutations > 0) this.report.mutated++
    let twice = false
    let written = true
    for (; mutations > 0; mutations--) {
      switch (random.below(10)) {
        case 0: case 1: used = this.#someLength(taken); break
        case 2: case 3: length = this.#someLength(taken); break
        case 4: used = length = this.#someLength(taken); break
        case 5: error = [1, 2, -511, -512, -513, -1000, 0x7fff_ffff, -0x8000_0000, -errno.EIO][random.below(9)]!; break
        case 6: unique = [0n, unique + 2n, unique - 2n, unique | 1n << 63n, unique << 32n, BigInt(random.below(2 ** 32))][random.below(6)]!; break
        case 7: written = false; break
        case 8: this.#words(); break
        case 9:
          if (random.below(80) > 0) break
          if (random.below(2) === 0) twice = true
          else head = [taken.head ^ 1, QUEUE_SIZE, taken.head + 65536, 0xffff_ffff, random.below(2 ** 32), random.below(QUEUE_SIZE)][random.below(6)]!
      }
    }
    if (written) {
      view.setUint32(out + FuseOutHeader.len, length, true)
      view.setInt32(out + FuseOutHeader.error, error, true)
      view.setBigUint64(out + FuseOutHeader.unique, BigInt.asUintN(64, unique), true)
    } else {
      for (let i = 0; i < FuseOutHeader.SIZE; i += 4) view.setUint32(out + i, 0, true)
    }
    this.#ring.push(head, used)
    if (twice) this.#ring.push(head, used)
  }

  #noise(at: number, length: number): void {
    const { view } = this.#relay.region
    for (let i = at & ~3; i + 4 <= at + length; i += 4) view.setUint32(i, [0, 1, 7, 24, 128, 0xffff_ffff, this.#random.below(2 ** 32)][this.#random.below(7)]!, true)
  }

  /** Flags and event words may say anything. */
  #words(): void {
    const { view } = this.#relay.region
    const { used, availEvent } = this.#relay.plan.workers[0]!.ring
    view.setUint16(used + VirtqUsed.flags, this.#random.below(0x10000), true)
    view.setUint16(availEvent, this.#random.below(0x10000), true)
  }

  /** Requests that it has are the device's to change: nothing may be read there again. */
  #scribble(): void {
    for (const taken of this.#had) {
      this.#noise(taken.inAt, 512)
      this.#noise(taken.inAt + Slot.TABLE, 64)
      this.#noise(taken.out[0]![0], FuseOutHeader.SIZE)
    }
    this.report.mutated += this.#had.length
  }

  #jump(used: number): void {
    const { view } = this.#relay.region
    const idx = view.getUint16(used + VirtqUsed.idx, true)
    view.setUint16(used + VirtqUsed.idx, idx + [1, 2, QUEUE_SIZE, QUEUE_SIZE + 1, 1000, -1][this.#random.below(6)]!, true)
    this.report.mutated++
  }

  /** What `complete` has to make of what is in the used ring, and of the ring. */
  #foresee(): Map<bigint, Outcome> {
    const { view } = this.#relay.region
    const { queue, plan } = this.#relay
    const { used } = plan.workers[0]!.ring
    const outcomes = new Map<bigint, Outcome>()
    const { slots } = queue
    const idx = view.getUint16(used + VirtqUsed.idx, true)
    const inRing = this.#inRing
    let own = false
    if (((idx - this.#usedIdx) & 0xffff) > inRing.size) this.#broken = true
    while (this.#usedIdx !== idx && !this.#broken) {
      const at = used + VirtqUsed.SIZE + VirtqUsedElem.SIZE * (this.#usedIdx & (QUEUE_SIZE - 1))
      const taken = inRing.get(view.getUint32(at + VirtqUsedElem.id, true))
      const length = view.getUint32(at + VirtqUsedElem.len, true)
      if (taken === undefined) {
        if (own) this.#uncertain = true
        else this.#broken = true
        break
      }
      this.#usedIdx = (this.#usedIdx + 1) & 0xffff
      inRing.delete(taken.head)
      const still = this.#had.indexOf(taken)
      if (still >= 0) this.#had.splice(still, 1)
      if (slots.waiter[taken.slot] !== Waiter.KERNEL) {
        own = true
        continue
      }
      const out = taken.out[0]![0]
      const error = view.getInt32(out + FuseOutHeader.error, true)
      const sound = length >= FuseOutHeader.SIZE && length <= taken.room && view.getUint32(out + FuseOutHeader.len, true) === length
        && view.getBigUint64(out + FuseOutHeader.unique, true) === taken.unique && error <= 0 && error > -ERROR_LIMIT
        && (error === 0 || length === FuseOutHeader.SIZE)
      outcomes.set(taken.unique, sound ? { error, length, fill: taken.fill, opcode: taken.opcode } : { error: -errno.EIO, length: FuseOutHeader.SIZE, fill: -1, opcode: taken.opcode })
      if (sound) this.report.good++
      else this.report.refused++
    }
    return outcomes
  }

  #compare(replies: readonly Reply[], expected: Map<bigint, Outcome>): void {
    for (const reply of replies) {
      const what = `the reply to ${reply.unique}`
      const outcome = expected.get(reply.unique)
      if (!outcome && !this.#uncertain) throw new Error(`${what}: nobody expects it`)
      if (!this.#waiting.delete(reply.unique)) throw new Error(`${what} comes twice, or after its caller has gone`)
      expected.delete(reply.unique)
      // behind the entry of which the model does not know what became of it
      if (!outcome) continue
      if (reply.error !== outcome.error || reply.length !== outcome.length) throw new Error(`${what}: error ${reply.error} and ${reply.length} bytes, expected ${outcome.error} and ${outcome.length}`)
      if (outcome.opcode === Op.INIT) checkInit(reply)
      else if (reply.payload.some(byte => byte !== outcome.fill)) throw new Error(`${what} has bytes that are not of its own buffers`)
    }
    if (expected.size > 0 && !this.#uncertain) throw new Error(`${expected.size} replies are missing, the first is to ${[...expected.keys()][0]}`)
  }

  #serveHiprio(): void {
    const random = this.#random
    const ring = this.#hiprio
    const { region, hiprio, plan } = this.#relay
    for (let head = ring.pop(); head >= 0; head = ring.pop()) {
      if (region.view.getUint32(ring.addresses[0]! - region.address + FuseInHeader.len, true) !== ring.readableBytes) throw new Error('a message of the hiprio queue has not the length of its chain')
      if (random.below(4) === 0) this.report.mutated++
      if (random.below(8) > 0) ring.push(random.below(3000) === 0 ? random.below(2 ** 32) : head, random.below(2) === 0 ? 0 : random.below(2 ** 32))
    }
    if (ring.broken !== '') throw new Error(`the driver broke the hiprio ring: ${ring.broken}`)
    if (random.below(1500) === 0) this.#jump(plan.hiprio.used)
    hiprio.complete()
  }

  /** As the worker does when the device is gone: each caller that is left is told so, once, and nothing moves afterwards. */
  #end(): void {
    const { queue, hiprio, fuse } = this.#relay
    if (this.#broken) this.report.broken++
    queue.complete()
    // without the model: only who is answered counts
    for (const reply of fuse.collect()) if (!this.#waiting.delete(reply.unique)) throw new Error(`at the end, ${reply.unique} is answered that nobody waits for`)
    queue.connected = false
    hiprio.disconnect()
    queue.failInFlight(-errno.EIO)
    this.#ask()
    this.#relay.receiveAll()
    for (const reply of fuse.collect()) {
      if (reply.error !== -errno.EIO && reply.error !== -errno.ENOTCONN) throw new Error(`after the end, ${reply.unique} is answered ${reply.error}`)
      if (!this.#waiting.delete(reply.unique)) throw new Error(`after the end, ${reply.unique} is answered that nobody waits for`)
    }
    if (this.#waiting.size > 0) throw new Error(`${this.#waiting.size} callers wait for ever, the first of ${[...this.#waiting.keys()][0]}`)
    for (const taken of this.#had) this.#ring.push(taken.head, FuseOutHeader.SIZE)
    queue.complete()
    if (fuse.collect().length > 0) throw new Error('a device that is gone is still heard')
  }
}

/** What the kernel would believe must be what the mount can bear. */
function checkInit({ payload, error }: Reply): void {
  if (error !== 0 || payload.length < FuseInitOut.time_gran) return
  const view = new DataView(payload.buffer, payload.byteOffset, payload.length)
  if (view.getUint32(FuseInitOut.max_write, true) > 1 << 20) throw new Error('INIT: max_write is beyond the buffers')
  const background = view.getUint16(FuseInitOut.max_background, true)
  if (background === 0 || background > MAX_BACKGROUND) throw new Error(`INIT: max_background is ${background}`)
  if (payload.length >= FuseInitOut.SIZE && view.getUint16(FuseInitOut.max_pages, true) > 256) throw new Error('INIT: max_pages is beyond the buffers')
  if (view.getUint32(FuseInitOut.flags, true) & (1 << 7 | 1 << 8 | 1 << 9)) throw new Error('INIT: splice flags are let through')
}
