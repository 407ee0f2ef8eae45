/**
 * The writing end of a relay's stream: pieces of memory, in the order in which they are to be sent.
 * What the stream does not take now stays; its memory belongs to the writer until its owner is told.
 */
import { errno } from '../errors.js'
import { writev } from '../sys/io.js'
import { mapAnonymous, unmap, viewRegion, type Region } from '../sys/memory.js'
import { getU64, setU64 } from '../wire/u64.js'

const IOVEC_BYTES = 16
/** Pieces in one system call. */
const BATCH = 64
const NO_TOKEN = -1

export class StreamWriter {
  /** Bytes that wait. */
  queuedBytes = 0
  /** The stream takes no more now: wait until it can be written to. */
  blocked = false
  /** Bytes sent so far. */
  total = 0
  readonly #fd: number
  readonly #capacity: number
  readonly #iov: Region
  readonly #tokens: Int32Array
  readonly #sent: (token: number) => void
  #first = 0
  #end = 0

  /**
   * @param fd not blocking; the caller's
   * @param capacity most pieces that can wait
   * @param sent told of each piece with a token that has left
   */
  constructor(fd: number, capacity: number, sent: (token: number) => void) {
    this.#fd = fd
    this.#capacity = capacity
    this.#sent = sent
    this.#iov = viewRegion(mapAnonymous(IOVEC_BYTES * capacity), IOVEC_BYTES * capacity)
    this.#tokens = new Int32Array(capacity)
  }

  /** How many pieces can be added. */
  get room(): number {
    return this.#capacity - (this.#end - this.#first)
  }

  /** Adds a piece. @param token 0 or more: `sent` is told */
  push(address: number, lengthBytes: number, token = NO_TOKEN): void {
    if (this.#end === this.#capacity) this.#moveToFront()
    setU64(this.#iov.view, this.#end * IOVEC_BYTES, address)
    setU64(this.#iov.view, this.#end * IOVEC_BYTES + 8, lengthBytes)
    this.#tokens[this.#end++] = token
    this.queuedBytes += lengthBytes
  }

  #moveToFront(): void {
    this.#iov.bytes.copyWithin(0, this.#first * IOVEC_BYTES, this.#end * IOVEC_BYTES)
    this.#tokens.copyWithin(0, this.#first, this.#end)
    this.#end -= this.#first
    this.#first = 0
  }

  /** Sends what the stream takes. @returns 0, also when it is blocked, or −errno */
  flush(): number {
    while (this.#first < this.#end) {
      const count = writev(this.#fd, this.#iov.address + this.#first * IOVEC_BYTES, Math.min(BATCH, this.#end - this.#first))
      if (count < 0) {
        this.blocked = count === -errno.EAGAIN
        if (count === -errno.EINTR) continue
        return this.blocked ? 0 : count
      }
      this.#took(count)
    }
    this.blocked = false
    this.#first = this.#end = 0
    return 0
  }

  #took(count: number): void {
    this.total += count
    this.queuedBytes -= count
    while (this.#first < this.#end) {
      const at = this.#first * IOVEC_BYTES
      const length = getU64(this.#iov.view, at + 8)
      if (count < length) {
        setU64(this.#iov.view, at, getU64(this.#iov.view, at) + count)
        setU64(this.#iov.view, at + 8, length - count)
        return
      }
      count -= length
      const token = this.#tokens[this.#first++]!
      if (token !== NO_TOKEN) this.#sent(token)
    }
  }

  /** Nobody reads any more: every piece is given back as if it had been sent. */
  discard(): void {
    while (this.#first < this.#end) {
      const token = this.#tokens[this.#first++]!
      if (token !== NO_TOKEN) this.#sent(token)
    }
    this.#first = this.#end = this.queuedBytes = 0
    this.blocked = false
  }
  close(): void {
    unmap(this.#iov.address, this.#iov.lengthBytes)
  }
}
