/**
 * Directories that are listed ahead at the near end: who looks up one name after the other, as git
 * and make do, waits for the line once for a directory and not once for a name.
 *
 *     FREE ─► OPENING ─► READING ─► READY ─► FORGETTING ─► FREE
 *
 * A second LOOKUP in a directory makes this end send OPENDIR, READDIRPLUS and RELEASEDIR of its own.
 * What is listed answers LOOKUPs as the device would have, under these rules:
 *
 * - Nothing is told longer than the device allows: entry_valid and attr_valid count from the moment
 *   at which OPENDIR was sent, and a LOOKUP is told what is left of them.
 * - What this mount changes is seen at once: a listing is good only while no request that can change
 *   anything was under way since then. What a read does to access times counts for its file alone.
 * - Each entry of READDIRPLUS is a lookup (FUSE). One LOOKUP takes it over; those that nobody wanted
 *   are forgotten when the listing goes.
 * - A name that is not listed is asked for: a directory may compare names otherwise than we do.
 *
 * Belongs to the near end's thread.
 */
import { errno } from '../errors.js'
import {
  direntSize, FuseBatchForgetIn, FuseDirent, FuseDirentplus, FuseEntryOut, FuseForgetOne, FuseInHeader, FuseOpenIn, FuseOpenOut, FuseReadIn, FuseReleaseIn,
} from '../fuse/abi.js'
import { Op, OPCODE_LIMIT } from '../fuse/opcodes.js'
import { elapsedUs, microseconds, secondsRead } from '../sys/clock.js'
import { mapAnonymous, unmap, viewRegion, type Region } from '../sys/memory.js'
import { MOST_VALID_US, shorten, validUs } from './valid-time.js'

/** Directories that are listed at a time. */
export const LISTINGS = 16
/** What a listing holds: about 390 entries with names of ten bytes. */
const LISTING_BYTES = 1 << 16
/** For the requests of a listing, one at a time. */
const MESSAGE_BYTES = 128
const MESSAGES_AT = LISTINGS * LISTING_BYTES
const MEMORY_BYTES = MESSAGES_AT + LISTINGS * MESSAGE_BYTES
/** Cells of a listing's hash table: more than twice what it can hold. */
const HASH_CELLS = 1024
const ALIGNMENT = 8
const O_TRUNC = 0o1000
const O_DIRECTORY = 0o200000
/** LOOKUPs further apart than this are of no row. */
const ROW_US = 1_000_000
const DIRECTORIES = 64
/** LOOKUPs in a directory that make it listed; more where listings were of little use. */
const FIRST_THRESHOLD = 2
const MOST_THRESHOLD = 512
/** LOOKUPs that cost more one by one than a whole listing does. */
const USEFUL_HITS = 4
const TOUCHED_BITS = 12
const DOT = 0x2e

const enum State { FREE, OPENING, READING, READY, FORGETTING }

/** Requests that change nothing that a LOOKUP tells, but for access times. */
const harmless = new Uint8Array(OPCODE_LIMIT)
for (const opcode of [
  Op.INIT, Op.LOOKUP, Op.GETATTR, Op.READLINK, Op.OPEN, Op.READ, Op.STATFS, Op.RELEASE, Op.GETXATTR, Op.LISTXATTR, Op.OPENDIR, Op.READDIR, Op.READDIRPLUS,
  Op.RELEASEDIR, Op.GETLK, Op.SETLK, Op.SETLKW, Op.ACCESS, Op.POLL, Op.LSEEK, Op.STATX,
]) harmless[opcode] = 1

/** Whether the request at `view[at]` can change what a LOOKUP tells. */
export function isChange(opcode: number, view: DataView, at: number): boolean {
  if (opcode === Op.OPEN) return (view.getUint32(at + FuseInHeader.SIZE + FuseOpenIn.flags, true) & O_TRUNC) !== 0
  return opcode >= OPCODE_LIMIT || harmless[opcode] === 0
}

/** Whether it can change an access time. */
export function isRead(opcode: number): boolean {
  return opcode === Op.READ || opcode === Op.READLINK || opcode === Op.READDIR || opcode === Op.READDIRPLUS
}

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
  readonly #bytes = new Uint32Array(LISTINGS)
  readonly #entries = new Uint32Array(LISTINGS)
  readonly #hits = new Uint32Array(LISTINGS)
  readonly #threshold = new Uint16Array(LISTINGS)
  /** Where an entry starts, in units of ALIGNMENT, + 1; 0 for none. */
  readonly #hash = new Uint16Array(LISTINGS * HASH_CELLS)

  // directories in which names were looked up, by a hash of their number
  readonly #dirLow = new Uint32Array(DIRECTORIES)
  readonly #dirHigh = new Uint32Array(DIRECTORIES)
  readonly #dirLookups = new Uint16Array(DIRECTORIES)
  readonly #dirThreshold = new Uint16Array(DIRECTORIES)
  readonly #dirUs = new Float64Array(DIRECTORIES)

  /** Files that were read while there are listings, by a hash of their number. */
  readonly #touched = new Uint8Array(1 << TOUCHED_BITS)
  #anyTouched = false

  constructor(sender: AheadSender) {
    this.#sender = sender
    this.memory = viewRegion(mapAnonymous(MEMORY_BYTES), MEMORY_BYTES)
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
        const entry = this.#find(i, bytes, nameAt, nameBytes)
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

  /** @returns byte of `memory` where the entry with this name is, or −1 */
  #find(i: number, bytes: Uint8Array, nameAt: number, nameBytes: number): number {
    const own = this.memory
    const first = i * HASH_CELLS
    for (let cell = hashOf(bytes, nameAt, nameBytes); ; cell = (cell + 1) % HASH_CELLS) {
      const unit = this.#hash[first + cell]!
      if (unit === 0) return -1
      const entry = i * LISTING_BYTES + (unit - 1) * ALIGNMENT
      if (own.view.getUint32(entry + FuseEntryOut.SIZE + FuseDirent.namelen, true) !== nameBytes) continue
      const name = entry + FuseDirentplus.SIZE
      let same = 0
      while (same < nameBytes && own.bytes[name + same] === bytes[nameAt + same]) same++
      if (same === nameBytes) return entry
    }
  }

  /** Hands an entry over. @returns false when that cannot be: somebody has it already, or its file was read */
  #answer(i: number, entry: number, view: DataView, bytes: Uint8Array, to: number): boolean {
    const own = this.memory
    const low = own.view.getUint32(entry + FuseEntryOut.nodeid, true)
    const high = own.view.getUint32(entry + FuseEntryOut.nodeid + 4, true)
    if ((low === 0 && high === 0) || this.#touched[this.#touchedCell(low, high)] !== 0) return false
    bytes.set(own.bytes.subarray(entry, entry + FuseEntryOut.SIZE), to)
    const ageUs = elapsedUs(this.#startUs[i]!, microseconds())
    shorten(view, to + FuseEntryOut.entry_valid, to + FuseEntryOut.entry_valid_nsec, ageUs)
    shorten(view, to + FuseEntryOut.attr_valid, to + FuseEntryOut.attr_valid_nsec, ageUs)
    own.view.setUint32(entry + FuseEntryOut.nodeid, 0, true)
    own.view.setUint32(entry + FuseEntryOut.nodeid + 4, 0, true)
    this.#hits[i]!++
    return true
  }

  /** A LOOKUP that goes to the device, the header at `view[at]`. Perhaps others in its directory follow. */
  #note(view: DataView, at: number, low: number, high: number): void {
    const cell = (low ^ low >>> 6 ^ high) & (DIRECTORIES - 1)
    const nowUs = microseconds()
    if (this.#dirLow[cell] !== low || this.#dirHigh[cell] !== high) {
      this.#dirLow[cell] = low
      this.#dirHigh[cell] = high
      this.#dirThreshold[cell] = FIRST_THRESHOLD
      this.#dirLookups[cell] = 0
    } else if (elapsedUs(this.#dirUs[cell]!, nowUs) > ROW_US) {
      this.#dirLookups[cell] = 0
    }
    this.#dirUs[cell] = nowUs
    if (++this.#dirLookups[cell]! < this.#dirThreshold[cell]! || this.#changing > 0) return
    const i = this.#free()
    if (i < 0) return
    this.#dirLookups[cell] = 0
    this.#begin(i, view, at, low, high, this.#dirThreshold[cell]!, nowUs)
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

  #begin(i: number, view: DataView, at: number, low: number, high: number, threshold: number, nowUs: number): void {
    this.#state[i] = State.OPENING
    this.#live++
    this.#parentLow[i] = low
    this.#parentHigh[i] = high
    this.#threshold[i] = threshold
    this.#startUs[i] = nowUs
    this.#startSeconds[i] = secondsRead()
    this.#seen[i] = this.#changes
    this.#bytes[i] = this.#entries[i] = this.#hits[i] = this.#lifeUs[i] = 0
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
        if (error === 0) this.#index(i, payloadBytes)
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

  /** The directory cannot be opened, by this device or by this user: there is no use in trying that often. */
  #useless(i: number, error: number): void {
    if (error === -errno.ENOSYS) this.enabled = false
    this.#remember(i, MOST_THRESHOLD)
    this.#end(i)
  }

  #end(i: number): void {
    this.#state[i] = State.FREE
    if (--this.#live > 0 || !this.#anyTouched) return
    this.#touched.fill(0)
    this.#anyTouched = false
  }

  /** Notes the entries of a reply, and how long they are good. */
  #index(i: number, payloadBytes: number): void {
    const { view, bytes } = this.memory
    const start = i * LISTING_BYTES
    const end = start + payloadBytes
    this.#hash.fill(0, i * HASH_CELLS, (i + 1) * HASH_CELLS)
    let lifeUs = MOST_VALID_US
    let at = start
    while (at + FuseDirentplus.SIZE <= end) {
      const nameBytes = view.getUint32(at + FuseEntryOut.SIZE + FuseDirent.namelen, true)
      if (nameBytes === 0 || nameBytes > end - at || at + direntSize(FuseDirentplus.SIZE, nameBytes) > end) break
      const name = at + FuseDirentplus.SIZE
      const dots = bytes[name] === DOT && (nameBytes === 1 || (nameBytes === 2 && bytes[name + 1] === DOT))
      // . and .. are listed without being looked up
      if (dots) {
        view.setUint32(at + FuseEntryOut.nodeid, 0, true)
        view.setUint32(at + FuseEntryOut.nodeid + 4, 0, true)
      } else if (view.getUint32(at + FuseEntryOut.nodeid, true) !== 0 || view.getUint32(at + FuseEntryOut.nodeid + 4, true) !== 0) {
        lifeUs = Math.min(lifeUs, validUs(view, at + FuseEntryOut.entry_valid, at + FuseEntryOut.entry_valid_nsec), validUs(view, at + FuseEntryOut.attr_valid, at + FuseEntryOut.attr_valid_nsec))
        let cell = hashOf(bytes, name, nameBytes)
        while (this.#hash[i * HASH_CELLS + cell] !== 0) cell = (cell + 1) % HASH_CELLS
        this.#hash[i * HASH_CELLS + cell] = (at - start) / ALIGNMENT + 1
        this.#entries[i]!++
      }
      at += direntSize(FuseDirentplus.SIZE, nameBytes)
    }
    this.#bytes[i] = at - start
    this.#lifeUs[i] = lifeUs
    // a device that allows nothing to be remembered
    if (lifeUs === 0) this.enabled = false
  }

  /** Gives the lookups back that nobody took over, in a BATCH_FORGET that is made in place. */
  #retire(i: number): void {
    const { view } = this.memory
    const start = i * LISTING_BYTES
    const end = start + this.#bytes[i]!
    const first = start + FuseInHeader.SIZE + FuseBatchForgetIn.SIZE
    const useful = this.#hits[i]! >= USEFUL_HITS || this.#hits[i]! * 4 > this.#entries[i]!
    this.#remember(i, useful ? FIRST_THRESHOLD : Math.min(MOST_THRESHOLD, this.#threshold[i]! * 4))
    let count = 0
    // an entry takes more room than what forgets it: nothing is overwritten that is still to be read
    for (let at = start; at < end;) {
      const low = view.getUint32(at + FuseEntryOut.nodeid, true)
      const high = view.getUint32(at + FuseEntryOut.nodeid + 4, true)
      at += direntSize(FuseDirentplus.SIZE, view.getUint32(at + FuseEntryOut.SIZE + FuseDirent.namelen, true))
      if (low === 0 && high === 0) continue
      const one = first + count++ * FuseForgetOne.SIZE
      view.setUint32(one + FuseForgetOne.nodeid, low, true)
      view.setUint32(one + FuseForgetOne.nodeid + 4, high, true)
      view.setUint32(one + FuseForgetOne.nlookup, 1, true)
      view.setUint32(one + FuseForgetOne.nlookup + 4, 0, true)
    }
    if (count === 0) return this.#end(i)
    this.#state[i] = State.FORGETTING
    const length = first - start + count * FuseForgetOne.SIZE
    this.memory.bytes.fill(0, start, first)
    view.setUint32(start + FuseInHeader.len, length, true)
    view.setUint32(start + FuseInHeader.opcode, Op.BATCH_FORGET, true)
    view.setUint32(start + FuseInHeader.SIZE + FuseBatchForgetIn.count, count, true)
    this.#sender.message(i, this.memory.address + start, length)
  }

  /** What a listing sent to be forgotten has left. */
  forgotten(i: number): void {
    this.#end(i)
  }

  /** How many LOOKUPs in the directory of a listing make it listed again. */
  #remember(i: number, threshold: number): void {
    const cell = (this.#parentLow[i]! ^ this.#parentLow[i]! >>> 6 ^ this.#parentHigh[i]!) & (DIRECTORIES - 1)
    if (this.#dirLow[cell] === this.#parentLow[i] && this.#dirHigh[cell] === this.#parentHigh[i]) this.#dirThreshold[cell] = threshold
  }

  close(): void {
    unmap(this.memory.address, MEMORY_BYTES)
  }
}

function hashOf(bytes: Uint8Array, at: number, lengthBytes: number): number {
  let hash = 0x811c9dc5
  for (let i = 0; i < lengthBytes; i++) hash = Math.imul(hash ^ bytes[at + i]!, 0x01000193)
  return (hash ^ hash >>> 15) & (HASH_CELLS - 1)
}
