/**
 * The near end of a relay: a device whose answers come from a stream. Takes chains off the rings,
 * which are those of a driver that is not trusted, and brings its parts together:
 *
 *   ring ─► NearRequests ─► NearSender ═ stream ═ far end ═ stream ═ NearReceiver ─► ring
 *             │  as many as the far end can hold
 *   hiprio ─► NearSender: goes before everything that waits
 *   NearAnswers ─► LOOKUPs and GETATTRs that need no far end; requests of its own
 *
 * After a rule was broken on either side nothing is taken, sent or received any more (`broken`).
 * Belongs to one thread: a queue worker's, or one of its own (near-thread.ts).
 */
import { errno } from '../errors.js'
import { FuseInHeader, FuseInterruptIn, FuseOutHeader } from '../fuse/abi.js'
import { hasReply, Op } from '../fuse/opcodes.js'
import type { LocalDevice } from '../driver/local-device.js'
import { isBeingKilled } from '../sys/being-killed.js'
import type { Region } from '../sys/memory.js'
import { DeviceRing } from '../virtio/device-ring.js'
import type { RingFeatures } from '../virtio/driver-ring.js'
import type { RingLayout } from '../virtio/split-ring.js'
import { MAX_MESSAGE, type RelayLimits } from './hello.js'
import { NearAnswers } from './near-answers.js'
import { NearReceiver } from './near-receiver.js'
import { countChains, NearRequests, NONE } from './near-requests.js'
import { INTERRUPT_BYTES, NearSender } from './near-sender.js'
import { MAX_PLACES } from './stream-reader.js'

export interface NearStream {
  inFd: number
  outFd: number
  limits: RelayLimits
  /** Whether directories may be listed ahead: not where the device decides for each caller what exists. */
  lookAhead: boolean
}

export class NearDevice implements LocalDevice {
  readonly inFd: number
  readonly outFd: number
  /** Why nothing can come any more, or ''. */
  broken = ''
  readonly #region: Region
  /** hiprio, then the request queues. */
  readonly #rings: DeviceRing[]
  readonly #answers: NearAnswers
  readonly #requests: NearRequests
  readonly #sender: NearSender
  readonly #receiver: NearReceiver

  /** @throws RangeError when the rings are larger than a unique can tell */
  constructor(region: Region, layouts: readonly RingLayout[], features: RingFeatures, { inFd, outFd, limits, lookAhead }: NearStream) {
    const chains = countChains(layouts)
    this.inFd = inFd
    this.outFd = outFd
    this.#region = region
    this.#rings = layouts.map(layout => new DeviceRing(region, layout, features))
    this.#answers = new NearAnswers(region, lookAhead, {
      request: (listing, address, lengthBytes, large) => this.#sender.queueOwn(listing, address, lengthBytes, large),
      message: (listing, address, lengthBytes) => this.#sender.queueForget(listing, address, lengthBytes),
    })
    this.#requests = new NearRequests(region, this.#rings, chains, limits, this.#answers)
    this.#sender = new NearSender(outFd, region, this.#rings[0]!, layouts[0]!.size, this.#requests, this.#answers.ahead, lookAhead)
    this.#receiver = new NearReceiver(inFd, region, this.#requests, this.#answers)
  }

  /** Whether the stream has to be written to before more can be sent. */
  get blocked(): boolean {
    return this.#sender.blocked
  }

  /** Whether the driver has made something available. */
  hasAvailable(): boolean {
    return this.#rings.some(ring => ring.hasAvailable())
  }

  /** Asks the driver for kicks. @returns false when there is something already */
  enableKicks(): boolean {
    let quiet = true
    for (const ring of this.#rings) quiet = ring.enableKicks() && quiet
    return quiet
  }

  disableKicks(): void {
    for (const ring of this.#rings) ring.disableKicks()
  }

  /** Whether the driver wants notice of what came back on a ring. @param ring 0 for hiprio */
  callNeeded(ring: number): boolean {
    return this.#rings[ring]!.callNeeded()
  }

  /** One round: takes what the driver has, sends, receives. @returns how much there was */
  pass(): number {
    if (this.broken !== '') return 0
    let work = this.#takeUrgent()
    for (let i = 1; i < this.#rings.length; i++) work += this.#takeRequests(i)
    if (this.broken !== '') return work
    this.#sender.send()
    const received = this.#receiver.receive()
    this.broken = this.#receiver.broken
    // replies have made room at the far end
    if (received > 0) this.send()
    return work + received
  }

  /** Sends what the far end and the stream have room for. */
  send(): void {
    if (this.broken === '') this.#sender.send()
  }

  #takeUrgent(): number {
    const ring = this.#rings[0]!
    let count = 0
    for (let head = ring.pop(); head >= 0; head = ring.pop(), count++) {
      // FORGET, BATCH_FORGET and INTERRUPT of our driver lie in one piece
      if (ring.count !== 1 || ring.readableBytes < FuseInHeader.SIZE) {
        this.broken = `the driver broke a ring: a message on hiprio has ${ring.count} parts and ${ring.readableBytes} bytes`
        return count
      }
      if (!this.#isInterrupt(ring)) this.#sender.queueUrgent(head, ring.addresses[0]!, ring.readableBytes)
      else if (!this.#interrupt(head, ring.addresses[0]! - this.#region.address)) ring.push(head, 0)
    }
    if (ring.broken !== '') this.broken = `the driver broke a ring: ${ring.broken}`
    return count
  }

  #isInterrupt(ring: DeviceRing): boolean {
    const at = ring.addresses[0]! - this.#region.address
    return ring.readableBytes === INTERRUPT_BYTES && this.#region.view.getUint32(at + FuseInHeader.opcode, true) === Op.INTERRUPT
  }

  /**
   * A request that was not sent is given up when its caller is being killed; of one that was sent,
   * the far end is told. One that has been answered meanwhile needs nothing.
   *
   * @param at byte of the region where the INTERRUPT is
   * @returns whether a message has to be sent
   */
  #interrupt(head: number, at: number): boolean {
    const { view } = this.#region
    const unique = at + FuseInHeader.SIZE + FuseInterruptIn.unique
    const entry = this.#requests.find(view.getUint32(unique, true), view.getUint32(unique + 4, true))
    if (entry === NONE) return false
    if (this.#requests.isWaiting(entry)) {
      // whoever lives on after a signal gets no EINTR from a disk's file system either
      if (!this.isBeingKilled(view.getUint32(this.#requests.requestAt(entry) + FuseInHeader.pid, true))) return false
      this.#sender.forget(entry)
      this.#requests.fail(entry, -errno.EINTR)
      return false
    }
    this.#sender.queueInterrupt(head, at, entry)
    return true
  }

  /** Of the caller of a request, by its number; a method, so that tests can have one who stays so. */
  protected isBeingKilled(pid: number): boolean {
    return isBeingKilled(pid)
  }

  #takeRequests(index: number): number {
    const ring = this.#rings[index]!
    let count = 0
    for (let head = ring.pop(); head >= 0; head = ring.pop(), count++) {
      if (!this.#take(index, head)) return count
    }
    if (ring.broken !== '') this.broken = `the driver broke a ring: ${ring.broken}`
    return count
  }

  #take(index: number, head: number): boolean {
    const ring = this.#rings[index]!
    const { view } = this.#region
    const at = ring.addresses[0]! - this.#region.address
    const writable = ring.count - ring.readableCount
    if (ring.readableCount === 0 || ring.count > MAX_PLACES || ring.lengths[0]! < FuseInHeader.SIZE || view.getUint32(at + FuseInHeader.len, true) !== ring.readableBytes
      || ring.readableBytes > MAX_MESSAGE || writable === 0 || ring.lengths[ring.readableCount]! < FuseOutHeader.SIZE || this.#requests.full) {
      this.broken = `the driver broke a ring: chain ${head} is no request (${ring.readableBytes} bytes in ${ring.readableCount} parts, room for ${ring.writableBytes} in ${writable})`
      return false
    }
    const opcode = view.getUint32(at + FuseInHeader.opcode, true)
    if ((opcode === Op.LOOKUP || opcode === Op.GETATTR) && this.#answers.answer(ring, opcode, head, at)) return true
    const entry = this.#requests.add(index, head, opcode, at)
    if (hasReply(opcode)) this.#sender.queue(entry)
    else this.#requests.fail(entry, -errno.EINVAL)
    return true
  }

  close(): void {
    this.#answers.close()
    this.#receiver.close()
    this.#sender.close()
  }
}

/** On the thread of a queue worker. */
export function createLocalDevice(data: unknown, region: Region, layouts: readonly RingLayout[], features: RingFeatures): LocalDevice {
  return new NearDevice(region, layouts, features, data as NearStream)
}
