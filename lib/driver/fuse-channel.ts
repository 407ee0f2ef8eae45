/**
 * One descriptor of /dev/fuse: requests are read into two buffers, replies written from one or two.
 * The iovecs lie in private memory: a device that could change them could make us write anywhere.
 */
import { FUSE_NOTIFY_RESEND, FuseOutHeader } from '../fuse/abi.js'
import { readv, write, writev } from '../sys/io.js'
import { scratch } from '../sys/memory.js'
import { setU64 } from '../wire/u64.js'
import { MAX_WRITE, REQUEST_HEAD_BYTES } from './memory-plan.js'

const IOVEC_BYTES = 16

export class FuseChannel {
  readonly #fd: number
  readonly #iov = scratch(4 * IOVEC_BYTES)
  readonly #readIov = this.#iov.address
  readonly #writeIov = this.#iov.address + 2 * IOVEC_BYTES
  readonly #error = scratch(FuseOutHeader.SIZE)
  /** What the read iovecs describe now. */
  #headAddress = 0
  #tailAddress = 0

  constructor(fd: number) {
    this.#fd = fd
    this.#set(0, 0, REQUEST_HEAD_BYTES)
    this.#set(1, 0, MAX_WRITE)
  }

  #set(index: number, address: number, lengthBytes: number): void {
    setU64(this.#iov.view, index * IOVEC_BYTES, address)
    setU64(this.#iov.view, index * IOVEC_BYTES + 8, lengthBytes)
  }

  /**
   * Reads one request: its first 80 bytes go to `headAddress`, the rest to `tailAddress`, where
   * there is room for MAX_WRITE bytes.
   *
   * @returns its length in bytes, or −errno
   */
  receive(headAddress: number, tailAddress: number): number {
    if (headAddress !== this.#headAddress) this.#set(0, this.#headAddress = headAddress, REQUEST_HEAD_BYTES)
    if (tailAddress !== this.#tailAddress) this.#set(1, this.#tailAddress = tailAddress, MAX_WRITE)
    return readv(this.#fd, this.#readIov, 2)
  }

  /** Writes a reply that lies in one piece. @returns bytes, or −errno: ENOENT when nobody waits for it, ENODEV after an unmount */
  reply(address: number, lengthBytes: number): number {
    return write(this.#fd, address, lengthBytes)
  }

  /** Writes a reply whose payload lies elsewhere. */
  replyWithPayload(address: number, lengthBytes: number, payloadAddress: number, payloadBytes: number): number {
    this.#set(2, address, lengthBytes)
    this.#set(3, payloadAddress, payloadBytes)
    return writev(this.#fd, this.#writeIov, 2)
  }

  /** Asks the kernel to send what was read and not answered again (Linux 6.9). @returns bytes, or −errno: EINVAL when it cannot */
  resend(): number {
    return this.fail(0, 0, FUSE_NOTIFY_RESEND)
  }

  /** Answers a request without the device. @param error −errno */
  fail(uniqueLow: number, uniqueHigh: number, error: number): number {
    const { view, address } = this.#error
    view.setUint32(FuseOutHeader.len, FuseOutHeader.SIZE, true)
    view.setInt32(FuseOutHeader.error, error, true)
    view.setUint32(FuseOutHeader.unique, uniqueLow, true)
    view.setUint32(FuseOutHeader.unique + 4, uniqueHigh, true)
    return write(this.#fd, address, FuseOutHeader.SIZE)
  }
}
