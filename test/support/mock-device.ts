/**
 * The device's end of one virtqueue, in the test's hands: requests are taken off the ring as
 * objects and answered when and how the test likes.
 */
import { FuseInHeader, FuseOutHeader } from '../../lib/fuse/abi.js'
import type { Region } from '../../lib/sys/memory.js'
import { DeviceRing } from '../../lib/virtio/device-ring.js'
import type { RingFeatures } from '../../lib/virtio/driver-ring.js'
import type { RingLayout } from '../../lib/virtio/split-ring.js'

/** One buffer of a chain. */
export interface ChainBuffer { address: number, length: number }

export interface TakenRequest {
  head: number
  opcode: number
  unique: bigint
  nodeid: bigint
  /** All readable bytes: fuse_in_header and what follows. */
  bytes: Uint8Array
  readable: ChainBuffer[]
  writable: ChainBuffer[]
  /** Bytes that a reply may have. */
  room: number
}

/** A reply, and what to do wrong with it. */
export interface Answer {
  error?: number
  payload?: Uint8Array
  unique?: bigint
  /** fuse_out_header.len. */
  length?: number
  /** Length in the used ring. */
  used?: number
  /** Give the chain back with nothing written. */
  unwritten?: boolean
}

export class MockDevice {
  readonly ring: DeviceRing
  /** Taken and not answered. */
  readonly pending: TakenRequest[] = []
  readonly #region: Region
  readonly #layout: RingLayout

  constructor(region: Region, layout: RingLayout, features: RingFeatures) {
    this.#region = region
    this.#layout = layout
    this.ring = new DeviceRing(region, layout, features)
  }

  /** Takes everything that is available. @throws Error when the driver broke the ring */
  take(limit = Infinity): TakenRequest[] {
    const fresh: TakenRequest[] = []
    while (fresh.length < limit) {
      const head = this.ring.pop()
      if (head < 0) break
      fresh.push(this.#describe(head))
    }
    if (this.ring.broken !== '') throw new Error(`the driver broke the ring: ${this.ring.broken}`)
    this.pending.push(...fresh)
    return fresh
  }

  /** The one request that is available. @throws Error when there is none, or more */
  takeOne(): TakenRequest {
    const fresh = this.take()
    if (fresh.length !== 1) throw new Error(`${fresh.length} requests are available, expected one`)
    return fresh[0]!
  }

  #describe(head: number): TakenRequest {
    const { ring } = this
    const buffers = Array.from({ length: ring.count }, (_, i) => ({ address: ring.addresses[i]!, length: ring.lengths[i]! }))
    const readable = buffers.slice(0, ring.readableCount)
    const bytes = Buffer.concat(readable.map(buffer => this.at(buffer)))
    return {
      head, bytes, readable, writable: buffers.slice(ring.readableCount), room: ring.writableBytes,
      opcode: bytes.readUInt32LE(FuseInHeader.opcode), unique: bytes.readBigUInt64LE(FuseInHeader.unique), nodeid: bytes.readBigUInt64LE(FuseInHeader.nodeid),
    }
  }

  /** The memory of a buffer. */
  at(buffer: ChainBuffer): Uint8Array {
    const from = buffer.address - this.#region.address
    return this.#region.bytes.subarray(from, from + buffer.length)
  }

  /** Answers a request that was taken, well unless `answer` says otherwise. */
  answer(request: TakenRequest, answer: Answer = {}): void {
    const payload = answer.payload ?? new Uint8Array(0)
    const length = FuseOutHeader.SIZE + payload.length
    if (!answer.unwritten) {
      const header = Buffer.alloc(FuseOutHeader.SIZE)
      header.writeUInt32LE(answer.length ?? length, FuseOutHeader.len)
      header.writeInt32LE(answer.error ?? 0, FuseOutHeader.error)
      header.writeBigUInt64LE(answer.unique ?? request.unique, FuseOutHeader.unique)
      this.#scatter(request.writable, Buffer.concat([header, payload]))
    }
    this.giveBack(request, answer.used ?? (answer.unwritten ? 0 : length))
  }

  /** Puts a request into the used ring as it is. */
  giveBack(request: TakenRequest, used: number): void {
    const at = this.pending.indexOf(request)
    if (at >= 0) this.pending.splice(at, 1)
    this.ring.push(request.head, used)
  }

  #scatter(buffers: ChainBuffer[], bytes: Uint8Array): void {
    let done = 0
    for (const buffer of buffers) {
      const part = bytes.subarray(done, done + buffer.length)
      this.at(buffer).set(part)
      done += part.length
    }
    if (done < bytes.length) throw new Error(`a reply of ${bytes.length} bytes for ${done} bytes of room`)
  }

  /** Moves used.idx ahead of what was put into the ring. */
  jumpUsedIndex(by: number): void {
    const at = this.#layout.used + 2
    this.#region.view.setUint16(at, this.#region.view.getUint16(at, true) + by, true)
  }
}
