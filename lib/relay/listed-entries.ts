/**
 * What one READDIRPLUS has brought of a directory: its entries where the reply was read to, found by
 * name. Each entry is a lookup (FUSE), which is either taken over by one LOOKUP or given back, so:
 *
 * - An entry whose id is not 0 has a lookup that nobody took over; 0 is one that was taken over, or
 *   never was one (`.`, `..`, and what the device did not look up).
 * - `forget` gives all of those back in one BATCH_FORGET, made in place: the entries are gone, and
 *   the memory is not to be used again before that message has left.
 *
 * A reply that makes no sense is good as far as it does. Whether the entries are still true is not
 * known here (look-ahead.ts). Belongs to the near end's thread.
 */
import { direntSize, FuseBatchForgetIn, FuseDirent, FuseDirentplus, FuseEntryOut, FuseForgetOne, FuseInHeader } from '../fuse/abi.js'
import { Op } from '../fuse/opcodes.js'
import type { Region } from '../sys/memory.js'
import { MOST_VALID_US, validUs } from './valid-time.js'

/** What is held of a directory: about 390 entries with names of ten bytes. */
export const LISTING_BYTES = 1 << 16
/** Cells of the hash table: more than twice what can be held. */
const HASH_CELLS = 1024
const ALIGNMENT = 8
/** LOOKUPs that cost more one by one than a whole listing does. */
const USEFUL_HITS = 4
const DOT = 0x2e

export class ListedEntries {
  readonly #memory: Region
  readonly #start: number
  /** Bytes that hold entries, how many can be found, and how many were taken over. */
  #bytes = 0
  #count = 0
  #hits = 0
  /** Where an entry starts, in units of ALIGNMENT, + 1; 0 for none. */
  readonly #hash = new Uint16Array(HASH_CELLS)

  /** @param start byte of the memory, from which LISTING_BYTES are for the reply */
  constructor(memory: Region, start: number) {
    this.#memory = memory
    this.#start = start
  }

  /** Whether it has saved more than it cost. */
  get useful(): boolean {
    return this.#hits >= USEFUL_HITS || this.#hits * 4 > this.#count
  }

  clear(): void {
    this.#bytes = this.#count = this.#hits = 0
  }

  /** Notes the entries of a reply. @returns how long the device allows them to be remembered, in microseconds */
  index(payloadBytes: number): number {
    const { view, bytes } = this.#memory
    const start = this.#start
    const end = start + payloadBytes
    this.#hash.fill(0)
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
        while (this.#hash[cell] !== 0) cell = (cell + 1) % HASH_CELLS
        this.#hash[cell] = (at - start) / ALIGNMENT + 1
        this.#count++
      }
      at += direntSize(FuseDirentplus.SIZE, nameBytes)
    }
    this.#bytes = at - start
    return lifeUs
  }

  /** @returns byte of the memory where the entry with this name is, or −1 */
  find(bytes: Uint8Array, nameAt: number, nameBytes: number): number {
    const own = this.#memory
    for (let cell = hashOf(bytes, nameAt, nameBytes); ; cell = (cell + 1) % HASH_CELLS) {
      const unit = this.#hash[cell]!
      if (unit === 0) return -1
      const entry = this.#start + (unit - 1) * ALIGNMENT
      if (own.view.getUint32(entry + FuseEntryOut.SIZE + FuseDirent.namelen, true) !== nameBytes) continue
      const name = entry + FuseDirentplus.SIZE
      let same = 0
      while (same < nameBytes && own.bytes[name + same] === bytes[nameAt + same]) same++
      if (same === nameBytes) return entry
    }
  }

  /** Copies the fuse_entry_out of an entry, and with it its lookup, which must not have been taken over. */
  takeOver(entry: number, bytes: Uint8Array, to: number): void {
    const own = this.#memory
    bytes.set(own.bytes.subarray(entry, entry + FuseEntryOut.SIZE), to)
    own.view.setUint32(entry + FuseEntryOut.nodeid, 0, true)
    own.view.setUint32(entry + FuseEntryOut.nodeid + 4, 0, true)
    this.#hits++
  }

  /** Makes the BATCH_FORGET of the lookups that nobody took over, where the entries were. @returns its length, or 0 when there are none */
  forget(): number {
    const { view, bytes } = this.#memory
    const start = this.#start
    const end = start + this.#bytes
    const first = start + FuseInHeader.SIZE + FuseBatchForgetIn.SIZE
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
    if (count === 0) return 0
    const length = first - start + count * FuseForgetOne.SIZE
    bytes.fill(0, start, first)
    view.setUint32(start + FuseInHeader.len, length, true)
    view.setUint32(start + FuseInHeader.opcode, Op.BATCH_FORGET, true)
    view.setUint32(start + FuseInHeader.SIZE + FuseBatchForgetIn.count, count, true)
    return length
  }
}

function hashOf(bytes: Uint8Array, at: number, lengthBytes: number): number {
  let hash = 0x811c9dc5
  for (let i = 0; i < lengthBytes; i++) hash = Math.imul(hash ^ bytes[at + i]!, 0x01000193)
  return (hash ^ hash >>> 15) & (HASH_CELLS - 1)
}
