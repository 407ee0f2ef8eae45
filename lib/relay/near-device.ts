/**
 * The near end of a relay: a device whose answers come from a stream. Takes chains off the rings,
 * sends their bytes from where they lie, and puts each reply where its chain wants it.
 *
 *   ring ─► waiting ─► in the stream, then at the far end ─► reply ─► ring
 *             │  as many as the far end can hold
 *   hiprio ─► urgent: goes before everything that waits
 *   LookAhead ─► requests of its own, and answers to LOOKUPs
 *
 * On the wire a request has a unique of its own, from which its entry follows: replies come in any
 * order, and one that nobody asked for shows. Belongs to one thread.
 */
import { errno } from '../errors.js'
import { FUSE_INIT_FLAGS, FuseAttrOut, FuseEntryOut, FuseInHeader, FuseInitOut, FuseInterruptIn, FuseOutHeader } from '../fuse/abi.js'
import { hasReply, Op, replyPayloadBytes } from '../fuse/opcodes.js'
import type { LocalDevice } from '../driver/local-device.js'
import { SlotFifo } from '../driver/slot-fifo.js'
import { mapAnonymous, unmap, viewRegion, type Region } from '../sys/memory.js'
import { DeviceRing } from '../virtio/device-ring.js'
import type { RingFeatures } from '../virtio/driver-ring.js'
import type { RingLayout } from '../virtio/split-ring.js'
import { AttributeNotes, RelayNote, WANTS_NOTE } from './attribute-notes.js'
import { MAX_MESSAGE, type RelayLimits } from './hello.js'
import { largeBuffers } from './limits.js'
import { LISTINGS, LookAhead } from './look-ahead.js'
import { isChange, isRead } from './request-effects.js'
import { MAX_PLACES, StreamReader } from './stream-reader.js'
import { StreamWriter } from './stream-writer.js'

/** Errors beyond this are no errno numbers. */
const ERROR_LIMIT = 512
/** What is handed to the writer at a time: what is urgent waits behind no more. */
const FEED_BYTES = 1 << 17
/** Replies that are given to the driver at a time. */
const BATCH = 16
const CELL_BYTES = 64
const INTERRUPT_BYTES = FuseInHeader.SIZE + FuseInterruptIn.SIZE
/** Wire uniques: the entry in the low bits, shifted by one since odd ones stand for INTERRUPTs in the kernel. */
const INDEX_BITS = 12
const INDEX_MASK = (1 << INDEX_BITS) - 1
/** Below those that the far end's driver makes itself. */
const HIGH_LIMIT = 0x10000000
const NONE = -1
/** Tokens of the writer from here on are of listings. */
const FORGET_TOKEN = 1 << 20
const LOOKUP_REPLY_BYTES = FuseOutHeader.SIZE + FuseEntryOut.SIZE
const GETATTR_REPLY_BYTES = FuseOutHeader.SIZE + FuseAttrOut.SIZE

/** What can become of an entry. */
const enum State { FREE, WAITING, SENT }

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
  readonly #limits: RelayLimits
  readonly #reader: StreamReader
  readonly #writer: StreamWriter

  // by entry: a request that the driver waits for
  readonly #state: Uint8Array
  readonly #ring: Uint8Array
  readonly #head: Uint16Array
  readonly #wireLow: Uint32Array
  readonly #wireHigh: Uint32Array
  readonly #uniqueLow: Uint32Array
  readonly #uniqueHigh: Uint32Array
  readonly #large: Uint8Array
  readonly #opcode: Uint16Array
  readonly #changes: Uint8Array
  /** Of a change that is alone: which one it is; else 0. */
  readonly #alone: Float64Array
  readonly #readable: Uint8Array
  readonly #writable: Uint8Array
  readonly #writableBytes: Float64Array
  readonly #addresses: Float64Array
  readonly #lengths: Float64Array
  /** Headers as they go out: what the driver may still change is not what was checked. */
  readonly #cells: Region

  readonly #free: Int32Array
  #freeCount: number
  /** Entries that wait, in order. */
  readonly #waiting: SlotFifo
  /** Heads of the chains of hiprio that wait, and what is to be sent for each. */
  readonly #urgent: SlotFifo
  readonly #urgentAddress: Float64Array
  readonly #urgentBytes: Float64Array
  #inFlight = 0
  #largeInFlight = 0
  #sequence = 0
  /** The entry whose reply is being read. */
  #reading = NONE
  #replyBytes = 0
  #replyError = 0

  readonly #ahead: LookAhead
  readonly #notes = new AttributeNotes()
  readonly #mayLookAhead: boolean
  /** Entries from here on are of listings. */
  readonly #ownFrom: number
  /** Listings with a request that waits; with a message, plus LISTINGS. */
  readonly #ownWaiting = new SlotFifo(2 * LISTINGS)
  readonly #ownBytes = new Float64Array(2 * LISTINGS)
  readonly #ownAddress = new Float64Array(2 * LISTINGS)

  /** @throws RangeError when the rings are larger than a unique can tell */
  constructor(region: Region, layouts: readonly RingLayout[], features: RingFeatures, { inFd, outFd, limits, lookAhead }: NearStream) {
    const chains = layouts.slice(1).reduce((sum, ring) => sum + ring.size, 0)
    const entries = chains + LISTINGS
    if (entries > INDEX_MASK) throw new RangeError(`${entries} requests in flight, at most ${INDEX_MASK} are possible`)
    this.inFd = inFd
    this.outFd = outFd
    this.#region = region
    this.#limits = limits
    this.#rings = layouts.map(layout => new DeviceRing(region, layout, features))
    this.#reader = new StreamReader(inFd, region)
    this.#writer = new StreamWriter(outFd, 1024, token => token < FORGET_TOKEN ? this.#urgentSent(token) : this.#ahead.forgotten(token - FORGET_TOKEN))
    this.#mayLookAhead = lookAhead
    this.#ownFrom = chains
    this.#ahead = new LookAhead({
      request: (listing, address, lengthBytes, large) => {
        this.#large[chains + listing] = large
        this.#queueOwn(listing, address, lengthBytes)
      },
      message: (listing, address, lengthBytes) => this.#queueOwn(LISTINGS + listing, address, lengthBytes),
    })
    this.#state = new Uint8Array(entries)
    this.#ring = new Uint8Array(entries)
    this.#head = new Uint16Array(entries)
    this.#wireLow = new Uint32Array(entries)
    this.#wireHigh = new Uint32Array(entries)
    this.#uniqueLow = new Uint32Array(entries)
    this.#uniqueHigh = new Uint32Array(entries)
    this.#large = new Uint8Array(entries)
    this.#opcode = new Uint16Array(entries)
    this.#changes = new Uint8Array(entries)
    this.#alone = new Float64Array(entries)
    this.#readable = new Uint8Array(entries)
    this.#writable = new Uint8Array(entries)
    this.#writableBytes = new Float64Array(entries)
    this.#addresses = new Float64Array(entries * MAX_PLACES)
    this.#lengths = new Float64Array(entries * MAX_PLACES)
    const cellsBytes = CELL_BYTES * (entries + layouts[0]!.size)
    // not scratch memory of the thread: there is another near end for each link
    this.#cells = viewRegion(mapAnonymous(cellsBytes), cellsBytes)
    this.#free = Int32Array.from({ length: chains }, (_, i) => chains - 1 - i)
    this.#freeCount = chains
    this.#waiting = new SlotFifo(entries)
    this.#urgent = new SlotFifo(layouts[0]!.size)
    this.#urgentAddress = new Float64Array(layouts[0]!.size)
    this.#urgentBytes = new Float64Array(layouts[0]!.size)
  }

  /** Whether the stream has to be written to before more can be sent. */
  get blocked(): boolean {
    return this.#writer.blocked
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
    this.send()
    const received = this.#receive()
    // replies have made room at the far end
    if (received > 0) this.send()
    return work + received
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
      if (!this.#isInterrupt(ring)) this.#queueUrgent(head, ring.addresses[0]!, ring.readableBytes)
      else if (!this.#interrupt(head, ring.addresses[0]!)) ring.push(head, 0)
    }
    if (ring.broken !== '') this.broken = `the driver broke a ring: ${ring.broken}`
    return count
  }

  #isInterrupt(ring: DeviceRing): boolean {
    const at = ring.addresses[0]! - this.#region.address
    return ring.readableBytes === INTERRUPT_BYTES && this.#region.view.getUint32(at + FuseInHeader.opcode, true) === Op.INTERRUPT
  }

  /**
   * A request that was not sent is given up at once; of one that was, the far end is told, by its
   * unique on the wire. One that has been answered meanwhile needs nothing.
   *
   * @returns whether a message has to be sent
   */
  #interrupt(head: number, address: number): boolean {
    const { view } = this.#region
    const at = address - this.#region.address
    const unique = at + FuseInHeader.SIZE + FuseInterruptIn.unique
    const low = view.getUint32(unique, true)
    const high = view.getUint32(unique + 4, true)
    const entry = this.#state.findIndex((state, i) => state !== State.FREE && this.#uniqueLow[i] === low && this.#uniqueHigh[i] === high)
    if (entry === NONE) return false
    if (this.#state[entry] === State.WAITING) {
      this.#forgetWaiting(entry)
      this.#answer(entry, -errno.EINTR)
      return false
    }
    const cell = CELL_BYTES * (this.#state.length + head)
    this.#copyHead(cell, at, INTERRUPT_BYTES)
    this.#cells.view.setUint32(cell + FuseInHeader.SIZE + FuseInterruptIn.unique, this.#wireLow[entry]!, true)
    this.#cells.view.setUint32(cell + FuseInHeader.SIZE + FuseInterruptIn.unique + 4, this.#wireHigh[entry]!, true)
    this.#queueUrgent(head, this.#cells.address + cell, INTERRUPT_BYTES)
    return true
  }

  #queueUrgent(head: number, address: number, lengthBytes: number): void {
    this.#urgent.push(head)
    this.#urgentAddress[head] = address
    this.#urgentBytes[head] = lengthBytes
  }

  #forgetWaiting(entry: number): void {
    for (let place = 0; place < this.#waiting.length; place++) if (this.#waiting.at(place) === entry) return this.#waiting.remove(place)
  }

  /** Copies the beginning of a message, without the pid: it means nothing on another host. */
  #copyHead(cell: number, at: number, lengthBytes: number): void {
    this.#cells.bytes.set(this.#region.bytes.subarray(at, at + lengthBytes), cell)
    this.#cells.view.setUint32(cell + FuseInHeader.pid, 0, true)
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
      || ring.readableBytes > MAX_MESSAGE || writable === 0 || ring.lengths[ring.readableCount]! < FuseOutHeader.SIZE || this.#freeCount === 0) {
      this.broken = `the driver broke a ring: chain ${head} is no request (${ring.readableBytes} bytes in ${ring.readableCount} parts, room for ${ring.writableBytes} in ${writable})`
      return false
    }
    const opcode = view.getUint32(at + FuseInHeader.opcode, true)
    if ((opcode === Op.LOOKUP || opcode === Op.GETATTR) && this.#answerHere(ring, opcode, index, head, at)) return true
    const entry = this.#free[--this.#freeCount]!
    this.#opcode[entry] = opcode
    this.#changes[entry] = isChange(opcode, view, at) ? 1 : 0
    this.#alone[entry] = 0
    if (this.#changes[entry] === 1) this.#changeBegins(entry, opcode)
    else if (isRead(opcode)) this.#read(view, at + FuseInHeader.nodeid)
    if (opcode === Op.DESTROY) this.#ahead.enabled = false
    this.#state[entry] = State.WAITING
    this.#ring[entry] = index
    this.#head[entry] = head
    this.#uniqueLow[entry] = view.getUint32(at + FuseInHeader.unique, true)
    this.#uniqueHigh[entry] = view.getUint32(at + FuseInHeader.unique + 4, true)
    this.#readable[entry] = ring.readableCount
    this.#writable[entry] = writable
    this.#writableBytes[entry] = ring.writableBytes
    this.#large[entry] = largeBuffers(opcode, ring.readableBytes, replyPayloadBytes(opcode, view, at))
    for (let i = 0; i < ring.count; i++) {
      this.#addresses[entry * MAX_PLACES + i] = ring.addresses[i]!
      this.#lengths[entry * MAX_PLACES + i] = ring.lengths[i]!
    }
    if (hasReply(opcode)) this.#waiting.push(entry)
    else this.#answer(entry, -errno.EINVAL)
    return true
  }

  #changeBegins(entry: number, opcode: number): void {
    this.#ahead.changeBegins()
    this.#alone[entry] = this.#notes.changeBegins(opcode)
  }

  /** The file or directory with the id at `view[at]` is read: its access time may change. */
  #read(view: DataView, at: number): void {
    this.#ahead.touch(view, at)
    this.#notes.drop(view, at)
  }

  /** Answers a LOOKUP from what was listed ahead, a GETATTR from a note. @returns whether it did */
  #answerHere(ring: DeviceRing, opcode: number, index: number, head: number, at: number): boolean {
    const length = opcode === Op.LOOKUP ? LOOKUP_REPLY_BYTES : GETATTR_REPLY_BYTES
    if (ring.readableCount !== 1 || ring.lengths[1]! < length) return false
    const { view } = this.#region
    const out = ring.addresses[1]! - this.#region.address
    const to = out + FuseOutHeader.SIZE
    if (!(opcode === Op.LOOKUP ? this.#ahead.enabled && this.#ahead.lookup(this.#region, at, ring.readableBytes, to) : this.#notes.answer(this.#region, at, to))) return false
    view.setUint32(out + FuseOutHeader.len, length, true)
    view.setInt32(out + FuseOutHeader.error, 0, true)
    view.setUint32(out + FuseOutHeader.unique, view.getUint32(at + FuseInHeader.unique, true), true)
    view.setUint32(out + FuseOutHeader.unique + 4, view.getUint32(at + FuseInHeader.unique + 4, true), true)
    this.#rings[index]!.push(head, length)
    return true
  }

  #queueOwn(what: number, address: number, lengthBytes: number): void {
    this.#ownAddress[what] = address
    this.#ownBytes[what] = lengthBytes
    this.#ownWaiting.push(what)
  }

  /** Sends the oldest message of the listings. @returns whether there was room for it */
  #feedOwn(): boolean {
    const what = this.#ownWaiting.at(0)
    const address = this.#ownAddress[what]!
    if (what >= LISTINGS) {
      this.#writer.push(address, this.#ownBytes[what]!, FORGET_TOKEN + what - LISTINGS)
    } else {
      const entry = this.#ownFrom + what
      if (this.#inFlight >= this.#limits.requests || this.#largeInFlight + this.#large[entry]! > this.#limits.large) return false
      this.#number(entry)
      const { memory } = this.#ahead
      memory.view.setUint32(address - memory.address + FuseInHeader.unique, this.#wireLow[entry]!, true)
      memory.view.setUint32(address - memory.address + FuseInHeader.unique + 4, this.#wireHigh[entry]!, true)
      this.#writer.push(address, this.#ownBytes[what]!)
    }
    this.#ownWaiting.shift()
    return true
  }

  /** Sends what the far end and the stream have room for. */
  send(): void {
    while (this.broken === '') {
      this.#feed()
      if (this.#writer.queuedBytes === 0) return
      const error = this.#writer.flush()
      if (error < 0) {
        // what the far end has still said is worth more than that it hears nothing any more
        this.#writer.discard()
        this.#outEnded = true
        return
      }
      if (this.#writer.blocked) return
    }
  }

  /** Nobody reads what is sent; the end of what is received says why. */
  #outEnded = false

  #feed(): void {
    const writer = this.#writer
    if (this.#outEnded) return
    while (writer.queuedBytes < FEED_BYTES && writer.room > MAX_PLACES + 1) {
      if (this.#urgent.length > 0) {
        const head = this.#urgent.at(0)
        this.#urgent.shift()
        writer.push(this.#urgentAddress[head]!, this.#urgentBytes[head]!, head)
        continue
      }
      if (this.#ownWaiting.length > 0 && this.#feedOwn()) continue
      if (this.#waiting.length === 0) return
      const entry = this.#waiting.at(0)
      if (this.#inFlight >= this.#limits.requests || this.#largeInFlight + this.#large[entry]! > this.#limits.large) return
      this.#waiting.shift()
      this.#queue(entry)
    }
  }

  /** Counts a request that is sent, and gives it a unique. */
  #number(entry: number): void {
    this.#state[entry] = State.SENT
    this.#inFlight++
    this.#largeInFlight += this.#large[entry]!
    this.#sequence++
    this.#wireLow[entry] = ((this.#sequence << (INDEX_BITS + 1)) | (entry << 1)) >>> 0
    // never 0, which is that of notifications
    this.#wireHigh[entry] = 1 + (Math.floor(this.#sequence / 2 ** (31 - INDEX_BITS)) % (HIGH_LIMIT - 1))
  }

  #queue(entry: number): void {
    this.#number(entry)
    const cell = CELL_BYTES * entry
    const first = entry * MAX_PLACES
    this.#copyHead(cell, this.#addresses[first]! - this.#region.address, FuseInHeader.SIZE)
    this.#cells.view.setUint32(cell + FuseInHeader.unique, this.#wireLow[entry]!, true)
    this.#cells.view.setUint32(cell + FuseInHeader.unique + 4, this.#wireHigh[entry]!, true)
    if (this.#alone[entry] !== 0 && this.#mayLookAhead) this.#cells.view.setUint16(cell + FuseInHeader.padding, WANTS_NOTE, true)
    this.#writer.push(this.#cells.address + cell, FuseInHeader.SIZE)
    for (let i = 0; i < this.#readable[entry]!; i++) {
      const skip = i === 0 ? FuseInHeader.SIZE : 0
      const length = this.#lengths[first + i]! - skip
      if (length > 0) this.#writer.push(this.#addresses[first + i]! + skip, length)
    }
  }

  #urgentSent(head: number): void {
    this.#rings[0]!.push(head, 0)
  }

  /** Reads replies until there are no more now, or enough to tell the driver of. @returns how many */
  #receive(): number {
    let count = 0
    for (;;) {
      while (count < BATCH && this.broken === '' && this.#advance()) count++
      if (this.broken !== '' || count === BATCH) return count
      const read = this.#reader.fill()
      if (read > 0) continue
      if (read === -errno.EAGAIN) return count
      this.#ended(read)
      return count
    }
  }

  #ended(error: number): void {
    const reader = this.#reader
    const missing = reader.left > 0 || reader.buffered > 0
    const part = reader.left > 0 ? `${this.#replyBytes - reader.left} of ${this.#replyBytes} bytes` : `${reader.buffered} bytes`
    this.broken = missing ? `the stream of the far end was cut in the middle of a message (${part})` : error < 0 ? `the stream of the far end failed (errno ${-error})` : 'the far end closed its stream'
  }

  /** Goes on with the reply that is being read. @returns whether one was completed */
  #advance(): boolean {
    const reader = this.#reader
    if (this.#reading === NONE) {
      if (reader.buffered < FuseOutHeader.SIZE) return false
      if (reader.view.getUint32(reader.at + FuseOutHeader.unique, true) === 0 && reader.view.getUint32(reader.at + FuseOutHeader.unique + 4, true) === 0) return this.#noted()
      this.#begin()
      if (this.broken !== '') return false
    }
    if (!reader.settle()) return false
    const entry = this.#reading
    this.#reading = NONE
    if (entry >= this.#ownFrom) {
      this.#countEnd(entry)
      this.#state[entry] = State.FREE
      this.#ahead.answered(entry - this.#ownFrom, this.#replyError, this.#replyBytes - FuseOutHeader.SIZE)
      return true
    }
    if (this.#opcode[entry] === Op.INIT) this.#initAnswered(entry)
    else if (isRead(this.#opcode[entry]!)) this.#read(this.#region.view, this.#addresses[entry * MAX_PLACES]! - this.#region.address + FuseInHeader.nodeid)
    this.#rings[this.#ring[entry]!]!.push(this.#head[entry]!, this.#replyBytes)
    this.#release(entry)
    return true
  }

  /** A note comes. @returns whether it has come as a whole */
  #noted(): boolean {
    const { view, bytes, at, buffered } = this.#reader
    const length = view.getUint32(at + RelayNote.len, true)
    if (length !== RelayNote.SIZE) {
      this.#bad('len', length, `${RelayNote.SIZE} with unique 0`)
      return false
    }
    if (buffered < RelayNote.SIZE) return false
    const low = view.getUint32(at + RelayNote.cause, true)
    const entry = this.#sentEntry(low, view.getUint32(at + RelayNote.cause + 4, true))
    if (entry !== NONE) this.#notes.keep(view, bytes, at, this.#alone[entry]!)
    this.#reader.skip(RelayNote.SIZE)
    return true
  }

  /** @returns the entry with this unique on the wire, or NONE */
  #sentEntry(low: number, high: number): number {
    const entry = (low >>> 1) & INDEX_MASK
    return entry < this.#state.length && this.#state[entry] === State.SENT && this.#wireLow[entry] === low && this.#wireHigh[entry] === high ? entry : NONE
  }

  #initAnswered(entry: number): void {
    if (this.#replyError !== 0 || this.#replyBytes < FuseOutHeader.SIZE + FuseInitOut.flags + 4) return
    const at = this.#addresses[entry * MAX_PLACES + this.#readable[entry]!]! - this.#region.address
    const flags = this.#region.view.getUint32(at + FuseOutHeader.SIZE + FuseInitOut.flags, true)
    this.#ahead.enabled = this.#mayLookAhead && (flags & 1 << FUSE_INIT_FLAGS.DO_READDIRPLUS) !== 0
  }

  /** A header has come: finds its request and says where the rest goes. */
  #begin(): void {
    const { view, at } = this.#reader
    const length = view.getUint32(at + FuseOutHeader.len, true)
    const error = view.getInt32(at + FuseOutHeader.error, true)
    const low = view.getUint32(at + FuseOutHeader.unique, true)
    const high = view.getUint32(at + FuseOutHeader.unique + 4, true)
    const entry = this.#sentEntry(low, high)
    if (entry === NONE) {
      return this.#bad('unique', `0x${high.toString(16)}:${low.toString(16)}`, 'that of a request in flight')
    }
    const own = entry >= this.#ownFrom
    const room = own ? FuseOutHeader.SIZE + this.#ahead.room(entry - this.#ownFrom) : this.#writableBytes[entry]!
    if (length < FuseOutHeader.SIZE || length > room) return this.#bad('len', length, `${FuseOutHeader.SIZE} to ${room}`)
    if (error > 0 || error <= -ERROR_LIMIT) return this.#bad('error', error, `more than ${-ERROR_LIMIT} and at most 0`)
    if (error < 0 && length !== FuseOutHeader.SIZE) return this.#bad('len', length, `${FuseOutHeader.SIZE} with error ${error}`)
    this.#reader.skip(FuseOutHeader.SIZE)
    this.#reading = entry
    this.#replyBytes = length
    this.#replyError = error
    if (own) return this.#reader.place(this.#ahead.placeOf(entry - this.#ownFrom), length - FuseOutHeader.SIZE, this.#ahead.memory)
    this.#writeHeader(entry, length, error)
    let left = length - FuseOutHeader.SIZE
    let skip: number = FuseOutHeader.SIZE
    const from = entry * MAX_PLACES + this.#readable[entry]!
    for (let i = from; left > 0; i++, skip = 0) {
      const part = Math.min(this.#lengths[i]! - skip, left)
      this.#reader.place(this.#addresses[i]! + skip, part)
      left -= part
    }
  }

  #bad(field: string, got: unknown, expected: string): void {
    this.broken = `the far end broke the protocol: fuse_out_header.${field} is ${String(got)}, expected ${expected}`
  }

  #writeHeader(entry: number, length: number, error: number): void {
    const { view } = this.#region
    const at = this.#addresses[entry * MAX_PLACES + this.#readable[entry]!]! - this.#region.address
    view.setUint32(at + FuseOutHeader.len, length, true)
    view.setInt32(at + FuseOutHeader.error, error, true)
    view.setUint32(at + FuseOutHeader.unique, this.#uniqueLow[entry]!, true)
    view.setUint32(at + FuseOutHeader.unique + 4, this.#uniqueHigh[entry]!, true)
  }

  /** Answers a request that was not sent. */
  #answer(entry: number, error: number): void {
    this.#writeHeader(entry, FuseOutHeader.SIZE, error)
    this.#rings[this.#ring[entry]!]!.push(this.#head[entry]!, FuseOutHeader.SIZE)
    this.#release(entry)
  }

  #release(entry: number): void {
    if (this.#state[entry] === State.SENT) this.#countEnd(entry)
    if (this.#changes[entry] === 1) {
      this.#ahead.changeEnded()
      this.#notes.changeEnded(this.#opcode[entry]!)
    }
    this.#state[entry] = State.FREE
    this.#free[this.#freeCount++] = entry
  }

  #countEnd(entry: number): void {
    this.#inFlight--
    this.#largeInFlight -= this.#large[entry]!
  }

  close(): void {
    this.#ahead.close()
    this.#reader.close()
    this.#writer.close()
    unmap(this.#cells.address, this.#cells.lengthBytes)
  }
}

/** On the thread of a queue worker. */
export function createLocalDevice(data: unknown, region: Region, layouts: readonly RingLayout[], features: RingFeatures): LocalDevice {
  return new NearDevice(region, layouts, features, data as NearStream)
}
