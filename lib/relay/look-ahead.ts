/**
 * Directories that are listed ahead at the near end: who looks up one name after the other, as git
 * and make do, waits for the line once for a directory and not once for a name.
 *
 *     FREE ─► OPENING ─► READING ─► READY ─► FORGETTING ─► FREE
 *
 * A row of LOOKUPs in a directory (lookup-rows.ts) makes this end send OPENDIR, READDIRPLUS and RELEASEDIR of its own.
 * What is listed answers LOOKUPs as the device would have, under these rules:
 *
 * - Nothing is told longer than the device allows: entry_valid and attr_valid count from the moment
 *   at which OPENDIR was sent, and a LOOKUP is told what is left of them.
 * - What this mount changes is seen at once: a listing is good only while no request that can change
 *   anything was under way since then. What a read does to access times counts for its file alone.
 * - Each entry of READDIRPLUS is a lookup, which is taken over or given back (listed-entries.ts).
 * - A name that is not listed is asked for: a directory may compare names otherwise than we do.
 *
 * Belongs to the near end's thread.
 */
import { errno } from '../errors.js'
import { FuseEntryOut, FuseInHeader, FuseOpenIn, FuseOpenOut, FuseReadIn, FuseReleaseIn } from '../fuse/abi.js'
import { Op } from '../fuse/opcodes.js'
import { elapsedUs, microseconds, secondsRead } from '../sys/clock.js'
import { O_DIRECTORY } from '../sys/file.js'
import { mapAnonymous, unmap, viewRegion, type Region } from '../sys/memory.js'
import { ListedEntries, LISTING_BYTES } from './listed-entries.js'
import { LookupRows } from './lookup-rows.js'
import { MOST_VALID_US, shorten } from './valid-time.js'

/** Directories that are listed at a time. */
export const LISTINGS = 16
/** For the requests of a listing, one at a time. */
const MESSAGE_BYTES = 128
const MESSAGES_AT = LISTINGS * LISTING_BYTES
const MEMORY_BYTES = MESSAGES_AT + LISTINGS * MESSAGE_BYTES
const TOUCHED_BITS = 12

const enum State { FREE, OPENING, READING, READY, FORGETTING }

/** What sends for it. */
export interface AheadSender {
  /** Sends the request of a listing: so many bytes at `address`, its unique still to be written. `answered` is called. @param large buffers that its reply needs */
  request(listing: number, address: number, lengthBytes: number, large: number): void
  /** Sends a message without reply; `forgotten` is called when it has left. */
  message(listing: number, address: number, lengthBytes: number): void
}

export class LookAhead {
  readonly memory: Region
  /** The device knows READDIRPLUS, and allows something to be remembered. */
  enabled = false
  readonly #sender: AheadSender
  /** Requests under way that can change something, and how many there were. */
  #changing = 0
  #changes = 0
  #live = 0

  // by listing
  readonly #state = new Uint8Array(LISTINGS)
  readonly #busy = new Uint8Array(LISTINGS)
  readonly #parentLow = new Uint32Array(LISTINGS)
  readonly #parentHigh = new Uint32Array(LISTINGS)
  readonly #startUs = new Float64Array(LISTINGS)
  readonly #startSeconds = new Float64Array(LISTINGS)
  readonly #lifeUs = new Float64Array(LISTINGS)
  readonly #seen = new Float64Array(LISTINGS)
  readonly #threshold = new Uint16Array(LISTINGS)
  readonly #entries: ListedEntries[]

  readonly #rows = new LookupRows()
  /** Files that were read while there are listings, by a hash of their number. */
  readonly #touched = new Uint8Array(1 << TOUCHED_BITS)
  #anyTouched = false

  constructor(sender: AheadSender) {
    this.#sender = sender
    this.memory = viewRegion(mapAnonymous(MEMORY_BYTES), MEMORY_BYTES)
    this.#entries = Array.from({ length: LISTINGS }, (_, i) => new ListedEntries(this.memory, i * LISTING_BYTES))
  }

  /** A request that can change something is on its way: what was listed, or is being listed, is worth nothing. */
  changeBegins(): void {
    this.#changing++
    this.#changes++
    if (this.#live > 0) for (let i = 0; i < LISTINGS; i++) if (this.#state[i] === State.READY) this.#retire(i)
  }

  changeEnded(): void {
    this.#changing--
  }

  /** The file with the id at `view[at]` is being read, or was. */
  touch(view: DataView, at: number): void {
    if (this.#live === 0) return
    this.#anyTouched = true
    this.#touched[this.#touchedCell(view.getUint32(at, true), view.getUint32(at + 4, true))] = 1
  }

  #touchedCell(low: number, high: number): number {
    return Math.imul(low ^ high, 0x9e3779b1) >>> (32 - TOUCHED_BITS)
  }

  /**
   * Answers the LOOKUP at byte `at` of a region, or makes its directory be listed.
   *
   * @param to byte of the region for a fuse_entry_out
   * @returns whether it was answered
   */
  lookup({ view, bytes }: Region, at: number, lengthBytes: number, to: number): boolean {
    const low = view.getUint32(at + FuseInHeader.nodeid, true)
    const high = view.getUint32(at + FuseInHeader.nodeid + 4, true)
    const nameAt = at + FuseInHeader.SIZE
    const nameBytes = lengthBytes - FuseInHeader.SIZE - 1
    if (nameBytes < 1 || view.getUint16(at + FuseInHeader.total_extlen, true) !== 0) return false
    let listed = false
    for (let i = 0; i < LISTINGS; i++) {
      if (this.#state[i] === State.FREE || this.#state[i] === State.FORGETTING || this.#parentLow[i] !== low || this.#parentHigh[i] !== high) continue
      if (this.#state[i] === State.READY) {
        if (!this.#isGood(i)) {
          this.#retire(i)
          continue
        }
        const entry = this.#entries[i]!.find(bytes, nameAt, nameBytes)
        if (entry >= 0 && this.#answer(i, entry, view, bytes, to)) return true
      }
      listed = true
    }
    if (!listed) this.#note(view, at, low, high)
    return false
  }

  #isGood(i: number): boolean {
    if (this.#seen[i] !== this.#changes) return false
    const ageUs = elapsedUs(this.#startUs[i]!, microseconds())
    return ageUs < this.#lifeUs[i]! && secondsRead() - this.#startSeconds[i]! <= MOST_VALID_US / 1e6
  }

  /** Hands an entry over. @returns false when that cannot be: somebody has it already, or its file was read */
  #answer(i: number, entry: number, view: DataView, bytes: Uint8Array, to: number): boolean {
    const own = this.memory.view
    const low = own.getUint32(entry + FuseEntryOut.nodeid, true)
    const high = own.getUint32(entry + FuseEntryOut.nodeid + 4, true)
    if ((low === 0 && high === 0) || this.#touched[this.#touchedCell(low, high)] !== 0) return false
    this.#entries[i]!.takeOver(entry, bytes, to)
    const ageUs = elapsedUs(this.#startUs[i]!, microseconds())
    shorten(view, to + FuseEntryOut.entry_valid, to + FuseEntryOut.entry_valid_nsec, ageUs)
    shorten(view, to + FuseEntryOut.attr_valid, to + FuseEntryOut.attr_valid_nsec, ageUs)
    return true
  }

  /** A LOOKUP that goes to the device, the header at `view[at]`. Perhaps others in its directory follow. */
  #note(view: DataView, at: number, low: number, high: number): void {
    const nowUs = microseconds()
    if (!this.#rows.add(low, high, nowUs) || this.#changing > 0) return
    const i = this.#free()
    if (i >= 0) this.#begin(i, view, at, low, high, nowUs)
  }

  /** @returns a listing that can be used, or −1; the oldest one makes room for the next time */
  #free(): number {
    let oldest = -1
    for (let i = 0; i < LISTINGS; i++) {
      if (this.#state[i] === State.FREE && this.#busy[i] === 0) return i
      if (this.#state[i] === State.READY && (oldest < 0 || this.#startSeconds[i]! < this.#startSeconds[oldest]!)) oldest = i
    }
    if (oldest >= 0) this.#retire(oldest)
    return -1
  }

  #begin(i: number, view: DataView, at: number, low: number, high: number, nowUs: number): void {
    this.#state[i] = State.OPENING
    this.#live++
    this.#parentLow[i] = low
    this.#parentHigh[i] = high
    this.#threshold[i] = this.#rows.listed(low, high)
    this.#startUs[i] = nowUs
    this.#startSeconds[i] = secondsRead()
    this.#seen[i] = this.#changes
    this.#lifeUs[i] = 0
    this.#entries[i]!.clear()
    const arg = this.#header(i, Op.OPENDIR, FuseOpenIn.SIZE)
    const own = this.memory.view
    // of who looked up: the device may care
    own.setUint32(arg - FuseInHeader.SIZE + FuseInHeader.uid, view.getUint32(at + FuseInHeader.uid, true), true)
    own.setUint32(arg - FuseInHeader.SIZE + FuseInHeader.gid, view.getUint32(at + FuseInHeader.gid, true), true)
    own.setUint32(arg + FuseOpenIn.flags, O_DIRECTORY, true)
    this.#request(i, 0)
  }

  /** Writes the header of a listing's next request; uid and gid stay those of the first. @returns byte where its arguments go, zeroed */
  #header(i: number, opcode: number, argsBytes: number): number {
    const { view, bytes } = this.memory
    const at = MESSAGES_AT + i * MESSAGE_BYTES
    bytes.fill(0, at + FuseInHeader.SIZE, at + MESSAGE_BYTES)
    view.setUint32(at + FuseInHeader.len, FuseInHeader.SIZE + argsBytes, true)
    view.setUint32(at + FuseInHeader.opcode, opcode, true)
    view.setUint32(at + FuseInHeader.nodeid, this.#parentLow[i]!, true)
    view.setUint32(at + FuseInHeader.nodeid + 4, this.#parentHigh[i]!, true)
    return at + FuseInHeader.SIZE
  }

  #request(i: number, large: number): void {
    this.#busy[i] = 1
    const at = MESSAGES_AT + i * MESSAGE_BYTES
    this.#sender.request(i, this.memory.address + at, this.memory.view.getUint32(at + FuseInHeader.len, true), large)
  }

  /** Most bytes that the reply to a listing's request may have behind its header. */
  room(i: number): number {
    return this.#state[i] === State.READING ? LISTING_BYTES : this.#state[i] === State.OPENING ? FuseOpenOut.SIZE : 0
  }

  /** Where they go. */
  placeOf(i: number): number {
    return this.memory.address + i * LISTING_BYTES
  }

  /** The reply to a listing's request. @param error 0 or −errno */
  answered(i: number, error: number, payloadBytes: number): void {
    this.#busy[i] = 0
    switch (this.#state[i]) {
      case State.OPENING:
        if (error === 0 && payloadBytes === FuseOpenOut.SIZE) this.#read(i)
        else this.#useless(i, error)
        break
      case State.READING:
        this.#state[i] = State.READY
        if (error === 0) this.#listed(i, payloadBytes)
        this.#close(i)
        if (!this.#isGood(i)) this.#retire(i)
        break
    }
  }

  #read(i: number): void {
    const { view } = this.memory
    const opened = i * LISTING_BYTES + FuseOpenOut.fh
    const arg = this.#header(i, Op.READDIRPLUS, FuseReadIn.SIZE)
    view.setUint32(arg + FuseReadIn.fh, view.getUint32(opened, true), true)
    view.setUint32(arg + FuseReadIn.fh + 4, view.getUint32(opened + 4, true), true)
    view.setUint32(arg + FuseReadIn.size, LISTING_BYTES, true)
    view.setUint32(arg + FuseReadIn.flags, O_DIRECTORY, true)
    this.#state[i] = State.READING
    this.#request(i, 1)
  }

  #close(i: number): void {
    const { view } = this.memory
    const fh = MESSAGES_AT + i * MESSAGE_BYTES + FuseInHeader.SIZE + FuseReadIn.fh
    const low = view.getUint32(fh, true)
    const high = view.getUint32(fh + 4, true)
    const arg = this.#header(i, Op.RELEASEDIR, FuseReleaseIn.SIZE)
    view.setUint32(arg + FuseReleaseIn.fh, low, true)
    view.setUint32(arg + FuseReleaseIn.fh + 4, high, true)
    view.setUint32(arg + FuseReleaseIn.flags, O_DIRECTORY, true)
    this.#request(i, 0)
  }

  #useless(i: number, error: number): void {
    if (error === -errno.ENOSYS) this.enabled = false
    this.#rows.refuse(this.#parentLow[i]!, this.#parentHigh[i]!)
    this.#end(i)
  }

  #end(i: number): void {
    this.#state[i] = State.FREE
    if (--this.#live > 0 || !this.#anyTouched) return
    this.#touched.fill(0)
    this.#anyTouched = false
  }

  #listed(i: number, payloadBytes: number): void {
    this.#lifeUs[i] = this.#entries[i]!.index(payloadBytes)
    // a device that allows nothing to be remembered
    if (this.#lifeUs[i] === 0) this.enabled = false
  }

  /** Gives the lookups back that nobody took over. */
  #retire(i: number): void {
    const entries = this.#entries[i]!
    this.#rows.judge(this.#parentLow[i]!, this.#parentHigh[i]!, this.#threshold[i]!, entries.useful)
    const length = entries.forget()
    if (length === 0) return this.#end(i)
    this.#state[i] = State.FORGETTING
    this.#sender.message(i, this.placeOf(i), length)
  }

  /** What a listing sent to be forgotten has left. */
  forgotten(i: number): void {
    this.#end(i)
  }

  close(): void {
    unmap(this.memory.address, MEMORY_BYTES)
  }
}
