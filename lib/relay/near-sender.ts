/**
 * What the near end sends, in which order, and from where.
 *
 * - What is urgent (hiprio) goes before everything that waits, then what the listings ask for, then
 *   requests as they came. What the far end has no room for waits; the writer is handed so little at
 *   a time that what is urgent waits behind no more than that.
 * - Bytes go out from where they lie in the driver's memory, but for a header that was checked: of
 *   that a copy is sent, with the unique of the wire and without the pid.
 * - A chain of hiprio is given back when its bytes have left, one of a request when its reply is there.
 *
 * Belongs to the near end's thread.
 */
import { FuseInHeader, FuseInterruptIn } from '../fuse/abi.js'
import { SlotFifo } from '../driver/slot-fifo.js'
import { mapAnonymous, unmap, viewRegion, type Region } from '../sys/memory.js'
import type { DeviceRing } from '../virtio/device-ring.js'
import { WANTS_NOTE } from './attribute-notes.js'
import { LISTINGS, type LookAhead } from './look-ahead.js'
import type { NearRequests } from './near-requests.js'
import { MAX_PLACES } from './stream-reader.js'
import { StreamWriter } from './stream-writer.js'

/** fuse_in_header and fuse_interrupt_in. */
export const INTERRUPT_BYTES = FuseInHeader.SIZE + FuseInterruptIn.SIZE
/** What is handed to the writer at a time. */
const FEED_BYTES = 1 << 17
const PIECES = 1024
const CELL_BYTES = 64
/** Tokens of the writer from here on are of listings. */
const FORGET_TOKEN = 1 << 20

export class NearSender {
  readonly #region: Region
  readonly #requests: NearRequests
  readonly #ahead: LookAhead
  readonly #wantsNotes: boolean
  readonly #writer: StreamWriter
  /** Headers as they go out: of each entry, then of each chain of hiprio. */
  readonly #cells: Region
  /** Entries that wait, in order. */
  readonly #waiting: SlotFifo
  /** Heads of the chains of hiprio that wait, and what is to be sent for each. */
  readonly #urgent: SlotFifo
  readonly #urgentAddress: Float64Array
  readonly #urgentBytes: Float64Array
  /** Listings with a request that waits; with a message, plus LISTINGS. */
  readonly #ownWaiting = new SlotFifo(2 * LISTINGS)
  readonly #ownBytes = new Float64Array(2 * LISTINGS)
  readonly #ownAddress = new Float64Array(2 * LISTINGS)
  /** Nobody reads what is sent; the end of what is received says why. */
  #ended = false

  /**
   * @param outFd not blocking; the caller's
   * @param hiprio ring whose chains come back when they have left
   * @param hiprioSize chains of it
   * @param wantsNotes whether the far end is asked for them
   */
  constructor(outFd: number, region: Region, hiprio: DeviceRing, hiprioSize: number, requests: NearRequests, ahead: LookAhead, wantsNotes: boolean) {
    this.#region = region
    this.#requests = requests
    this.#ahead = ahead
    this.#wantsNotes = wantsNotes
    this.#writer = new StreamWriter(outFd, PIECES, token => token < FORGET_TOKEN ? hiprio.push(token, 0) : ahead.forgotten(token - FORGET_TOKEN))
    const cellsBytes = CELL_BYTES * (requests.count + hiprioSize)
    // not scratch memory of the thread: there is another near end for each link
    this.#cells = viewRegion(mapAnonymous(cellsBytes), cellsBytes)
    this.#waiting = new SlotFifo(requests.count)
    this.#urgent = new SlotFifo(hiprioSize)
    this.#urgentAddress = new Float64Array(hiprioSize)
    this.#urgentBytes = new Float64Array(hiprioSize)
  }

  /** Whether the stream has to be written to before more can be sent. */
  get blocked(): boolean {
    return this.#writer.blocked
  }

  /** A request waits. */
  queue(entry: number): void {
    this.#waiting.push(entry)
  }

  /** A request that waits is given up. */
  forget(entry: number): void {
    for (let place = 0; place < this.#waiting.length; place++) if (this.#waiting.at(place) === entry) return this.#waiting.remove(place)
  }

  /** A message on hiprio waits. */
  queueUrgent(head: number, address: number, lengthBytes: number): void {
    this.#urgent.push(head)
    this.#urgentAddress[head] = address
    this.#urgentBytes[head] = lengthBytes
  }

  /** The INTERRUPT on hiprio at byte `at` of the region waits, for an entry that was sent: the far end knows its unique on the wire. */
  queueInterrupt(head: number, at: number, entry: number): void {
    const cell = CELL_BYTES * (this.#requests.count + head)
    this.#copyHead(cell, at, INTERRUPT_BYTES)
    this.#requests.writeWireUnique(entry, this.#cells.view, cell + FuseInHeader.SIZE + FuseInterruptIn.unique)
    this.queueUrgent(head, this.#cells.address + cell, INTERRUPT_BYTES)
  }

  /** A listing's request waits. @param large buffers of the far end that it takes */
  queueOwn(listing: number, address: number, lengthBytes: number, large: number): void {
    this.#requests.large[this.#requests.ownFrom + listing] = large
    this.#addOwn(listing, address, lengthBytes)
  }

  /** A listing's message without reply waits: the listing is told when it has left. */
  queueForget(listing: number, address: number, lengthBytes: number): void {
    this.#addOwn(LISTINGS + listing, address, lengthBytes)
  }

  #addOwn(what: number, address: number, lengthBytes: number): void {
    this.#ownAddress[what] = address
    this.#ownBytes[what] = lengthBytes
    this.#ownWaiting.push(what)
  }

  /** Sends what the far end and the stream have room for. */
  send(): void {
    for (;;) {
      this.#feed()
      if (this.#writer.queuedBytes === 0) return
      const error = this.#writer.flush()
      if (error < 0) {
        // what the far end has still said is worth more than that it hears nothing any more
        this.#writer.discard()
        this.#ended = true
        return
      }
      if (this.#writer.blocked) return
    }
  }

  #feed(): void {
    const writer = this.#writer
    if (this.#ended) return
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
      if (!this.#requests.fits(entry)) return
      this.#waiting.shift()
      this.#feedRequest(entry)
    }
  }

  /** Hands over the oldest message of the listings. @returns whether there was room for it */
  #feedOwn(): boolean {
    const what = this.#ownWaiting.at(0)
    const address = this.#ownAddress[what]!
    if (what >= LISTINGS) {
      this.#writer.push(address, this.#ownBytes[what]!, FORGET_TOKEN + what - LISTINGS)
    } else {
      const entry = this.#requests.ownFrom + what
      if (!this.#requests.fits(entry)) return false
      const { memory } = this.#ahead
      this.#requests.send(entry, memory.view, address - memory.address + FuseInHeader.unique)
      this.#writer.push(address, this.#ownBytes[what]!)
    }
    this.#ownWaiting.shift()
    return true
  }

  #feedRequest(entry: number): void {
    const requests = this.#requests
    const { view, address } = this.#cells
    const cell = CELL_BYTES * entry
    const first = entry * MAX_PLACES
    this.#copyHead(cell, requests.requestAt(entry), FuseInHeader.SIZE)
    requests.send(entry, view, cell + FuseInHeader.unique)
    if (requests.alone[entry] !== 0 && this.#wantsNotes) view.setUint16(cell + FuseInHeader.padding, WANTS_NOTE, true)
    this.#writer.push(address + cell, FuseInHeader.SIZE)
    for (let i = 0; i < requests.readable[entry]!; i++) {
      const skip = i === 0 ? FuseInHeader.SIZE : 0
      const length = requests.lengths[first + i]! - skip
      if (length > 0) this.#writer.push(requests.addresses[first + i]! + skip, length)
    }
  }

  /** Copies the beginning of a message, without the pid: it means nothing on another host. */
  #copyHead(cell: number, at: number, lengthBytes: number): void {
    this.#cells.bytes.set(this.#region.bytes.subarray(at, at + lengthBytes), cell)
    this.#cells.view.setUint32(cell + FuseInHeader.pid, 0, true)
  }

  close(): void {
    this.#writer.close()
    unmap(this.#cells.address, this.#cells.lengthBytes)
  }
}
