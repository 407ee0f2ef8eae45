/**
 * The reading end of a relay's stream. What comes is read into a buffer, where headers are looked
 * at; the rest of a message is put where its owner wants it, by the read itself as far as it has
 * not come yet. So the data of a large message is not copied again.
 */
import { errno } from '../errors.js'
import { read, readv } from '../sys/io.js'
import { mapAnonymous, unmap, viewRegion, type Region } from '../sys/memory.js'
import { setU64 } from '../wire/u64.js'

/** The longest message that can be looked at as a whole. */
export const READ_BUFFER_BYTES = 1 << 16
const IOVEC_BYTES = 16
/** Places that the rest of one message may go to. */
export const MAX_PLACES = 16
/** Behind the buffer lie the descriptors of a read into several places. */
const MEMORY_BYTES = READ_BUFFER_BYTES + IOVEC_BYTES * (MAX_PLACES + 1)

export class StreamReader {
  /** What was read and not taken, from `at` on; `buffered` bytes. */
  readonly view: DataView
  readonly bytes: Uint8Array
  at = 0
  /** Bytes of the message that are still to be placed. */
  left = 0
  /** Bytes read so far. */
  total = 0
  readonly #buffer: Region
  readonly #fd: number
  /** The memory that places lie in: of most messages, and of the one at hand. */
  readonly #memory: Region
  #target: Region
  readonly #addresses = new Float64Array(MAX_PLACES)
  readonly #lengths = new Float64Array(MAX_PLACES)
  #count = 0
  #first = 0
  #end = 0

  /** @param fd not blocking; the caller's */
  constructor(fd: number, memory: Region) {
    this.#fd = fd
    this.#memory = this.#target = memory
    this.#buffer = viewRegion(mapAnonymous(MEMORY_BYTES), MEMORY_BYTES)
    this.view = this.#buffer.view
    this.bytes = this.#buffer.bytes
  }

  get buffered(): number {
    return this.#end - this.at
  }

  /** Takes bytes off the buffer. */
  skip(count: number): void {
    this.at += count
  }

  /**
   * The next bytes of the stream go there. Places are filled in order.
   * @param address in the memory given
   * @param memory in this one instead; the same for all places of a message
   */
  place(address: number, lengthBytes: number, memory = this.#memory): void {
    if (lengthBytes === 0) return
    if (this.left === 0) this.#first = this.#count = 0
    this.#target = memory
    this.#addresses[this.#count] = address
    this.#lengths[this.#count++] = lengthBytes
    this.left += lengthBytes
  }

  /** Moves what was read to its places. @returns whether all of them are full */
  settle(): boolean {
    while (this.left > 0 && this.#end > this.at) {
      const count = Math.min(this.#lengths[this.#first]!, this.#end - this.at)
      this.#target.bytes.set(this.#buffer.bytes.subarray(this.at, this.at + count), this.#addresses[this.#first]! - this.#target.address)
      this.at += count
      this.#filled(count)
    }
    return this.left === 0
  }

  /** The first places were filled with so many bytes. */
  #filled(count: number): void {
    this.left -= count
    while (count > 0) {
      const length = this.#lengths[this.#first]!
      const part = Math.min(length, count)
      this.#addresses[this.#first]! += part
      this.#lengths[this.#first] = length - part
      if (part === length) this.#first++
      count -= part
    }
  }

  /**
   * Reads. With places that are not full the buffer must be empty, as it is after `settle`.
   * @returns how many bytes, 0 at the end of the stream, or −errno
   */
  fill(): number {
    if (this.at === this.#end) this.at = this.#end = 0
    const count = this.left > 0 ? this.#readPlaces() : this.#readBuffer()
    if (count > 0) this.total += count
    return count === -errno.EINTR ? -errno.EAGAIN : count
  }

  #readBuffer(): number {
    if (this.at > 0) {
      this.#buffer.bytes.copyWithin(0, this.at, this.#end)
      this.#end -= this.at
      this.at = 0
    }
    const count = read(this.#fd, this.#buffer.address + this.#end, READ_BUFFER_BYTES - this.#end)
    if (count > 0) this.#end += count
    return count
  }

  #readPlaces(): number {
    const { view, address } = this.#buffer
    let at = READ_BUFFER_BYTES
    for (let i = this.#first; i < this.#count; i++, at += IOVEC_BYTES) {
      setU64(view, at, this.#addresses[i]!)
      setU64(view, at + 8, this.#lengths[i]!)
    }
    setU64(view, at, address)
    setU64(view, at + 8, READ_BUFFER_BYTES)
    const count = readv(this.#fd, address + READ_BUFFER_BYTES, this.#count - this.#first + 1)
    if (count <= 0) return count
    const placed = Math.min(count, this.left)
    this.#end = count - placed
    this.#filled(placed)
    return count
  }

  close(): void {
    unmap(this.#buffer.address, MEMORY_BYTES)
  }
}
