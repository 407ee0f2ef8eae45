/**
 * Executes chains of one virtqueue: describes each to the handlers as a `DeviceRequest` and writes
 * the reply. Belongs to one thread: the queue's own, or one of the pool.
 *
 * The driver lays chains out as it likes (virtio 1.2 §2.7.4.3): what a handler needs contiguous
 * and is not, is gathered into a bounce buffer and the reply scattered from it afterwards.
 */
import { errno } from '../errors.js'
import { FuseInHeader, FuseInterruptIn, FuseOutHeader, FuseWriteIn } from '../fuse/abi.js'
import { Op } from '../fuse/opcodes.js'
import { isBeingKilled } from '../sys/being-killed.js'
import { mapAnonymous, scratch, unmap, viewRegion, type Region } from '../sys/memory.js'
import { DeviceRing, MAX_CHAIN } from '../virtio/device-ring.js'
import type { RingFeatures } from '../virtio/driver-ring.js'
import type { RingLayout } from '../virtio/split-ring.js'
import { getU64, setU64 } from '../wire/u64.js'
import type { Interrupts } from './interrupts.js'
import { DROPPED, MAY_BLOCK, NO_REPLY, type DeviceRequest, type LoopHandlers } from './handlers.js'

/** The largest request or reply that has to be contiguous: 1 MiB of data and its headers. */
const BOUNCE_BYTES = (1 << 20) + 8192
const WRITE_HEAD = FuseInHeader.SIZE + FuseWriteIn.SIZE
const IOVEC_BYTES = 16
/** Not a number of bytes: the handlers are to be asked. */
const DESCRIBED = -1

export class ChainExecutor {
  readonly ring: DeviceRing
  readonly #region: Region
  readonly #handlers: LoopHandlers
  readonly #interrupts: Interrupts | undefined
  readonly #request: DeviceRequest
  readonly #payloadIov: Region
  readonly #replyIov: Region
  #bounced = false
  #bounceIn: Region | undefined
  #bounceOut: Region | undefined

  /**
   * @param mayBlock whether the handlers may take their time on this thread
   * @param interrupts where INTERRUPTs are posted; none: they are for the handlers
   */
  constructor(region: Region, layout: RingLayout, features: RingFeatures, handlers: LoopHandlers, mayBlock: boolean, interrupts: Interrupts | undefined) {
    this.#region = region
    this.ring = new DeviceRing(region, layout, features)
    this.#handlers = handlers
    this.#interrupts = interrupts
    this.#payloadIov = scratch(IOVEC_BYTES * MAX_CHAIN)
    this.#replyIov = scratch(IOVEC_BYTES * MAX_CHAIN)
    this.#request = {
      opcode: 0, lengthBytes: 0, uniqueLow: 0, uniqueHigh: 0, nodeid: 0, uid: 0, gid: 0, pid: 0, mayBlock, extensionBytes: 0,
      args: region.view, argsAt: 0, argsAddress: 0, argsBytes: 0,
      payloadIov: this.#payloadIov.address, payloadIovCount: 0, payloadBytes: 0,
      reply: region.view, replyAt: 0, replyAddress: 0, replyBytes: 0,
      replyIov: this.#replyIov.address, replyIovCount: 0,
    }
  }

  /** With `Handlers`: executes it on this thread whatever it takes. */
  executeBlocking(): number {
    const { mayBlock } = this.#request
    this.#request.mayBlock = true
    const written = this.execute()
    this.#request.mayBlock = mayBlock
    return written
  }

  /** With `Handlers`: executes the chain that `ring` describes. @returns bytes written to its writable part, MAY_BLOCK or DROPPED */
  execute(): number {
    const early = this.#describeRequest()
    return early !== DESCRIBED ? early : this.#answer(this.#handlers.handle(this.#request) as number)
  }

  /** The same with `LoopHandlers`. Until a promise resolves this executor is not to be used for another chain. */
  executeLater(): number | Promise<number> {
    const early = this.#describeRequest()
    if (early !== DESCRIBED) return early
    const result = this.#handlers.handle(this.#request)
    return typeof result === 'number' ? this.#answer(result) : result.then(value => this.#answer(value))
  }

  #answer(result: number): number {
    return result === MAY_BLOCK || result === DROPPED ? result : this.#reply(result, this.#bounced)
  }

  /** Describes the chain as a request. @returns DESCRIBED, or bytes written when there is nothing to ask the handlers */
  #describeRequest(): number {
    const { ring } = this
    const request = this.#request
    if (ring.readableBytes < FuseInHeader.SIZE) return 0
    let view = this.#region.view
    let at = ring.addresses[0]! - this.#region.address
    let gathered = false
    if (ring.lengths[0]! < FuseInHeader.SIZE) {
      view = this.#gather(ring.readableBytes)
      at = 0
      gathered = true
    }
    const opcode = view.getUint32(at + FuseInHeader.opcode, true)
    const length = view.getUint32(at + FuseInHeader.len, true)
    request.opcode = opcode
    request.lengthBytes = length
    request.uniqueLow = view.getUint32(at + FuseInHeader.unique, true)
    request.uniqueHigh = view.getUint32(at + FuseInHeader.unique + 4, true)
    request.nodeid = getU64(view, at + FuseInHeader.nodeid)
    request.uid = view.getUint32(at + FuseInHeader.uid, true)
    request.gid = view.getUint32(at + FuseInHeader.gid, true)
    request.pid = view.getUint32(at + FuseInHeader.pid, true)
    request.extensionBytes = view.getUint16(at + FuseInHeader.total_extlen, true) * 8
    if (length < FuseInHeader.SIZE || length > ring.readableBytes) return this.#reply(-errno.EINVAL, false)

    // whoever lives on after a signal gets no EINTR from a disk's file system either
    if (this.#request.mayBlock && this.#interrupts?.has(request.uniqueLow, request.uniqueHigh) && isBeingKilled(request.pid)) return this.#reply(-errno.EINTR, false)

    const headBytes = opcode === Op.WRITE ? Math.min(WRITE_HEAD, length) : length
    if (ring.lengths[0]! < headBytes) {
      if (headBytes > BOUNCE_BYTES) return this.#reply(-errno.EINVAL, false)
      if (!gathered) view = this.#gather(headBytes)
      at = 0
      gathered = true
    }
    if (opcode === Op.INTERRUPT && this.#interrupts) return this.#interrupt(view, at, length)
    request.args = view
    request.argsAt = at + FuseInHeader.SIZE
    request.argsBytes = headBytes - FuseInHeader.SIZE
    request.argsAddress = (gathered ? this.#bounceIn!.address : this.#region.address) + request.argsAt
    request.payloadBytes = length - headBytes
    request.payloadIovCount = request.payloadBytes === 0 ? 0 : this.#describe(this.#payloadIov, 0, ring.readableCount, headBytes, request.payloadBytes)

    const room = Math.max(0, ring.writableBytes - FuseOutHeader.SIZE)
    this.#bounced = this.#placeReply(opcode, room)
    return DESCRIBED
  }

  /** Whoever waits for the other request has gone. */
  #interrupt(view: DataView, at: number, length: number): number {
    const arg = at + FuseInHeader.SIZE + FuseInterruptIn.unique
    if (length >= FuseInHeader.SIZE + FuseInterruptIn.SIZE) {
      const low = view.getUint32(arg, true)
      const high = view.getUint32(arg + 4, true)
      this.#interrupts!.post(low, high)
      this.#handlers.interrupted?.(low, high)
    }
    return this.#reply(NO_REPLY, false)
  }

  /** Where the reply goes. @returns whether it has to be scattered from the bounce buffer afterwards */
  #placeReply(opcode: number, room: number): boolean {
    const { ring } = this
    const request = this.#request
    const first = ring.readableCount
    request.replyBytes = room
    request.replyIovCount = 0
    if (room === 0) return false
    if (opcode === Op.READ) {
      request.replyIovCount = this.#describe(this.#replyIov, first, ring.count, FuseOutHeader.SIZE, room)
      return false
    }
    let address = 0
    if (ring.lengths[first]! === ring.writableBytes) address = ring.addresses[first]! + FuseOutHeader.SIZE
    else if (ring.lengths[first]! === FuseOutHeader.SIZE && ring.count === first + 2) address = ring.addresses[first + 1]!
    if (address !== 0) {
      request.reply = this.#region.view
      request.replyAt = address - this.#region.address
      request.replyAddress = address
      return false
    }
    const bounce = this.#bounceOut ??= bounceBuffer()
    request.replyBytes = Math.min(room, BOUNCE_BYTES)
    request.reply = bounce.view
    request.replyAt = 0
    request.replyAddress = bounce.address
    return true
  }

  #reply(result: number, bounced: boolean): number {
    const { ring } = this
    if (result === NO_REPLY || ring.writableBytes < FuseOutHeader.SIZE) return 0
    const request = this.#request
    const payload = result < 0 ? 0 : result
    if (payload > 0 && bounced) this.#scatter(FuseOutHeader.SIZE, this.#bounceOut!.bytes.subarray(0, payload))
    const first = ring.readableCount
    const length = FuseOutHeader.SIZE + payload
    const header = ring.lengths[first]! >= FuseOutHeader.SIZE ? this.#region.view : new DataView(new ArrayBuffer(FuseOutHeader.SIZE))
    const at = header === this.#region.view ? ring.addresses[first]! - this.#region.address : 0
    header.setUint32(at + FuseOutHeader.len, length, true)
    header.setInt32(at + FuseOutHeader.error, result < 0 ? result : 0, true)
    header.setUint32(at + FuseOutHeader.unique, request.uniqueLow, true)
    header.setUint32(at + FuseOutHeader.unique + 4, request.uniqueHigh, true)
    if (header !== this.#region.view) this.#scatter(0, new Uint8Array(header.buffer))
    return length
  }

  /** Copies the first `length` readable bytes together. */
  #gather(length: number): DataView {
    const bounce = this.#bounceIn ??= bounceBuffer()
    const { ring } = this
    let done = 0
    for (let i = 0; i < ring.readableCount && done < length; i++) {
      const from = ring.addresses[i]! - this.#region.address
      const bytes = Math.min(ring.lengths[i]!, length - done, BOUNCE_BYTES - done)
      bounce.bytes.set(this.#region.bytes.subarray(from, from + bytes), done)
      done += bytes
    }
    return bounce.view
  }

  /** Writes bytes into the writable part, starting `skip` bytes into it. */
  #scatter(skip: number, bytes: Uint8Array): void {
    const { ring } = this
    let done = 0
    for (let i = ring.readableCount; i < ring.count && done < bytes.length; i++) {
      const length = ring.lengths[i]!
      if (skip >= length) {
        skip -= length
        continue
      }
      const count = Math.min(length - skip, bytes.length - done)
      this.#region.bytes.set(bytes.subarray(done, done + count), ring.addresses[i]! - this.#region.address + skip)
      done += count
      skip = 0
    }
  }

  /** Fills an iovec array with `bytes` bytes of buffers `from` to `to`, `skip` bytes in. @returns how many iovecs */
  #describe(iov: Region, from: number, to: number, skip: number, bytes: number): number {
    const { ring } = this
    let count = 0
    for (let i = from; i < to && bytes > 0; i++) {
      const length = ring.lengths[i]!
      if (skip >= length) {
        skip -= length
        continue
      }
      const part = Math.min(length - skip, bytes)
      setU64(iov.view, count * IOVEC_BYTES, ring.addresses[i]! + skip)
      setU64(iov.view, count * IOVEC_BYTES + 8, part)
      count++
      bytes -= part
      skip = 0
    }
    return count
  }

  close(): void {
    for (const bounce of [this.#bounceIn, this.#bounceOut]) if (bounce) unmap(bounce.address, bounce.lengthBytes)
  }
}

function bounceBuffer(): Region {
  return viewRegion(mapAnonymous(BOUNCE_BYTES), BOUNCE_BYTES)
}
