/**
 * The requests that the near end has taken and not answered: what is known of each, by entry, and
 * how many the far end has.
 *
 *     FREE ─► WAITING ─► SENT ─► FREE
 *
 * - What a decision rests on, and where a reply goes, is kept here: the driver can change its chains
 *   at any time.
 * - The far end never has more than its hello allows (`fits` before `send`), so what is sent always
 *   finds a place there.
 * - On the wire a request has a unique of its own, from which its entry follows: replies come in any
 *   order, and one that nobody asked for shows.
 * - A request leaves with its chain on the ring that it came from (`giveBack`).
 *
 * The last entries are of listings (look-ahead.ts): they have no chain, and no other one has their
 * number. Belongs to the near end's thread.
 */
import { FuseInHeader, FuseOutHeader } from '../fuse/abi.js'
import { Op, replyPayloadBytes } from '../fuse/opcodes.js'
import type { Region } from '../sys/memory.js'
import type { DeviceRing } from '../virtio/device-ring.js'
import type { RingLayout } from '../virtio/split-ring.js'
import type { RelayLimits } from './hello.js'
import { largeBuffers } from './limits.js'
import { LISTINGS } from './look-ahead.js'
import type { NearAnswers } from './near-answers.js'
import { isChange, isRead } from './request-effects.js'
import { MAX_PLACES } from './stream-reader.js'

/** No entry. */
export const NONE = -1
/** Wire uniques: the entry in the low bits, shifted by one since odd ones stand for INTERRUPTs in the kernel. */
const INDEX_BITS = 12
const INDEX_MASK = (1 << INDEX_BITS) - 1
/** Below those that the far end's driver makes itself. */
const HIGH_LIMIT = 0x10000000

/** What can become of an entry. */
const enum State { FREE, WAITING, SENT }

/**
 * @param layouts hiprio, then the request queues
 * @returns how many requests the driver can have
 * @throws RangeError when that is more than a unique can tell
 */
export function countChains(layouts: readonly RingLayout[]): number {
  const chains = layouts.slice(1).reduce((sum, ring) => sum + ring.size, 0)
  const entries = chains + LISTINGS
  if (entries > INDEX_MASK) throw new RangeError(`${entries} requests in flight, at most ${INDEX_MASK} are possible`)
  return chains
}

export class NearRequests {
  readonly count: number
  /** Entries from here on are of listings. */
  readonly ownFrom: number

  // by entry, valid while it is not free
  readonly opcode: Uint16Array
  readonly wireLow: Uint32Array
  readonly wireHigh: Uint32Array
  /** Large buffers of the far end that it takes. */
  readonly large: Uint8Array
  /** Of a change that is alone: which one it is; else 0. */
  readonly alone: Float64Array
  /** Parts that are read, and behind them those that are written; MAX_PLACES for each entry. */
  readonly readable: Uint8Array
  readonly writableBytes: Float64Array
  readonly addresses: Float64Array
  readonly lengths: Float64Array
  readonly #state: Uint8Array
  readonly #ring: Uint8Array
  readonly #head: Uint16Array
  readonly #uniqueLow: Uint32Array
  readonly #uniqueHigh: Uint32Array
  readonly #changes: Uint8Array

  readonly #region: Region
  readonly #rings: readonly DeviceRing[]
  readonly #limits: RelayLimits
  readonly #answers: NearAnswers
  readonly #free: Int32Array
  #freeCount: number
  #inFlight = 0
  #largeInFlight = 0
  #sequence = 0

  /**
   * @param rings hiprio, then the request queues
   * @param chains what countChains says
   * @param answers is told of changes and reads
   */
  constructor(region: Region, rings: readonly DeviceRing[], chains: number, limits: RelayLimits, answers: NearAnswers) {
    const entries = chains + LISTINGS
    this.#region = region
    this.#rings = rings
    this.#limits = limits
    this.#answers = answers
    this.count = entries
    this.ownFrom = chains
    this.opcode = new Uint16Array(entries)
    this.wireLow = new Uint32Array(entries)
    this.wireHigh = new Uint32Array(entries)
    this.large = new Uint8Array(entries)
    this.alone = new Float64Array(entries)
    this.readable = new Uint8Array(entries)
    this.writableBytes = new Float64Array(entries)
    this.addresses = new Float64Array(entries * MAX_PLACES)
    this.lengths = new Float64Array(entries * MAX_PLACES)
    this.#state = new Uint8Array(entries)
    this.#ring = new Uint8Array(entries)
    this.#head = new Uint16Array(entries)
    this.#uniqueLow = new Uint32Array(entries)
    this.#uniqueHigh = new Uint32Array(entries)
    this.#changes = new Uint8Array(entries)
    this.#free = Int32Array.from({ length: chains }, (_, i) => chains - 1 - i)
    this.#freeCount = chains
  }

  /** Whether the driver has as many under way as its rings have room for: a further one is none of a sound driver. */
  get full(): boolean {
    return this.#freeCount === 0
  }

  /** Takes the chain that a ring took last, the request at byte `at` of the region. @returns its entry */
  add(index: number, head: number, opcode: number, at: number): number {
    const { view } = this.#region
    const ring = this.#rings[index]!
    const entry = this.#free[--this.#freeCount]!
    const changes = isChange(opcode, view, at)
    this.opcode[entry] = opcode
    this.#changes[entry] = changes ? 1 : 0
    this.alone[entry] = changes ? this.#answers.changeBegins(opcode) : 0
    if (!changes && isRead(opcode)) this.#answers.read(at + FuseInHeader.nodeid)
    if (opcode === Op.DESTROY) this.#answers.destroyed()
    this.#state[entry] = State.WAITING
    this.#ring[entry] = index
    this.#head[entry] = head
    this.#uniqueLow[entry] = view.getUint32(at + FuseInHeader.unique, true)
    this.#uniqueHigh[entry] = view.getUint32(at + FuseInHeader.unique + 4, true)
    this.readable[entry] = ring.readableCount
    this.writableBytes[entry] = ring.writableBytes
    this.large[entry] = largeBuffers(opcode, ring.readableBytes, replyPayloadBytes(opcode, view, at))
    for (let i = 0; i < ring.count; i++) {
      this.addresses[entry * MAX_PLACES + i] = ring.addresses[i]!
      this.lengths[entry * MAX_PLACES + i] = ring.lengths[i]!
    }
    return entry
  }

  /** @returns the entry that the driver gave this unique, or NONE */
  find(low: number, high: number): number {
    for (let entry = 0; entry < this.count; entry++) {
      if (this.#state[entry] !== State.FREE && this.#uniqueLow[entry] === low && this.#uniqueHigh[entry] === high) return entry
    }
    return NONE
  }

  /** @returns the entry that has been sent with this unique on the wire, or NONE */
  findSent(low: number, high: number): number {
    const entry = (low >>> 1) & INDEX_MASK
    return entry < this.count && this.#state[entry] === State.SENT && this.wireLow[entry] === low && this.wireHigh[entry] === high ? entry : NONE
  }

  isWaiting(entry: number): boolean {
    return this.#state[entry] === State.WAITING
  }

  /** Whether the far end can hold it. */
  fits(entry: number): boolean {
    return this.#inFlight < this.#limits.requests && this.#largeInFlight + this.large[entry]! <= this.#limits.large
  }

  /** Counts a request that is sent, and gives it a unique, which goes to `view[at]`. */
  send(entry: number, view: DataView, at: number): void {
    this.#state[entry] = State.SENT
    this.#inFlight++
    this.#largeInFlight += this.large[entry]!
    this.#sequence++
    this.wireLow[entry] = ((this.#sequence << (INDEX_BITS + 1)) | (entry << 1)) >>> 0
    // never 0, which is that of notifications
    this.wireHigh[entry] = 1 + (Math.floor(this.#sequence / 2 ** (31 - INDEX_BITS)) % (HIGH_LIMIT - 1))
    this.writeWireUnique(entry, view, at)
  }

  writeWireUnique(entry: number, view: DataView, at: number): void {
    view.setUint32(at, this.wireLow[entry]!, true)
    view.setUint32(at + 4, this.wireHigh[entry]!, true)
  }

  /** @returns byte of the region where the fuse_in_header of a request is */
  requestAt(entry: number): number {
    return this.addresses[entry * MAX_PLACES]! - this.#region.address
  }

  /** @returns byte of the region where its fuse_out_header goes */
  replyAt(entry: number): number {
    return this.addresses[entry * MAX_PLACES + this.readable[entry]!]! - this.#region.address
  }

  /** Writes the header of a reply, with the unique that the driver knows. */
  writeHeader(entry: number, lengthBytes: number, error: number): void {
    const { view } = this.#region
    const at = this.replyAt(entry)
    view.setUint32(at + FuseOutHeader.len, lengthBytes, true)
    view.setInt32(at + FuseOutHeader.error, error, true)
    view.setUint32(at + FuseOutHeader.unique, this.#uniqueLow[entry]!, true)
    view.setUint32(at + FuseOutHeader.unique + 4, this.#uniqueHigh[entry]!, true)
  }

  /** Answers a request that was not sent. */
  fail(entry: number, error: number): void {
    this.writeHeader(entry, FuseOutHeader.SIZE, error)
    this.giveBack(entry, FuseOutHeader.SIZE)
  }

  /** The reply of a request is where its chain wants it. */
  giveBack(entry: number, replyBytes: number): void {
    this.#rings[this.#ring[entry]!]!.push(this.#head[entry]!, replyBytes)
    if (this.#state[entry] === State.SENT) this.#countEnd(entry)
    if (this.#changes[entry] === 1) this.#answers.changeEnded(this.opcode[entry]!)
    this.#state[entry] = State.FREE
    this.#free[this.#freeCount++] = entry
  }

  /** The reply of a listing's request has come. */
  ownEnded(entry: number): void {
    this.#countEnd(entry)
    this.#state[entry] = State.FREE
  }

  #countEnd(entry: number): void {
    this.#inFlight--
    this.#largeInFlight -= this.large[entry]!
  }
}
