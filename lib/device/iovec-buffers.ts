/**
 * Payload as Buffers: what the iovecs of a request describe is memory outside the JavaScript heap.
 * Views of it are kept, as a queue uses the same few addresses again and again.
 */
import { viewRegion } from '../sys/memory.js'

const IOVEC_BYTES = 16
const HIGH = 0x1_0000_0000
/** More addresses than a queue has buffers: the driver does something unusual. */
const MOST_VIEWS = 1024

export class IovecBuffers {
  readonly #views = new Map<number, Buffer>()

  #at(address: number, lengthBytes: number): Buffer {
    let view = this.#views.get(address)
    if (view === undefined || view.length < lengthBytes) {
      if (this.#views.size === MOST_VIEWS) this.#views.clear()
      view = Buffer.from(viewRegion(address, lengthBytes).view.buffer)
      this.#views.set(address, view)
    }
    return view.subarray(0, lengthBytes)
  }

  #part(iovAddress: number, count: number, i: number): Buffer {
    const iov = this.#at(iovAddress, count * IOVEC_BYTES)
    const at = i * IOVEC_BYTES
    return this.#at(iov.readUInt32LE(at) + iov.readUInt32LE(at + 4) * HIGH, iov.readUInt32LE(at + 8))
  }

  /** What the iovecs describe: in place when it is one piece, else a copy. */
  read(iovAddress: number, count: number): Buffer {
    if (count === 1) return this.#part(iovAddress, 1, 0)
    return Buffer.concat(Array.from({ length: count }, (_, i) => this.#part(iovAddress, count, i)))
  }

  /** Room for `lengthBytes` bytes of a reply: in place when it is one piece, else to be given to `write`. */
  room(iovAddress: number, count: number, lengthBytes: number): Buffer {
    const part = count === 1 ? this.#part(iovAddress, 1, 0) : undefined
    return part !== undefined && part.length >= lengthBytes ? part.subarray(0, lengthBytes) : Buffer.alloc(lengthBytes)
  }

  /** Copies bytes to where the iovecs are, unless they are there already. */
  write(iovAddress: number, count: number, bytes: Uint8Array): void {
    for (let i = 0, done = 0; i < count && done < bytes.length; i++) {
      const part = this.#part(iovAddress, count, i)
      const from = bytes.subarray(done, done + part.length)
      if (from.buffer !== part.buffer || from.byteOffset !== part.byteOffset) part.set(from)
      done += from.length
    }
  }
}
