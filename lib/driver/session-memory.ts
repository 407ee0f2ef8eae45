/** The memory of one session with a device: a memfd, mapped here, that the device is given. */
import { close } from '../sys/io.js'
import { createMemfd, mapShared, unmap } from '../sys/memory.js'

export class SessionMemory {
  readonly memfd: number
  readonly address: number
  readonly #lengthBytes: number

  /** @throws SyscallError */
  constructor(lengthBytes: number) {
    this.#lengthBytes = lengthBytes
    this.memfd = createMemfd('virtiofs-bridge', lengthBytes)
    try {
      this.address = mapShared(this.memfd, lengthBytes)
    } catch (error) {
      close(this.memfd)
      throw error
    }
  }

  /** Unmaps: no thread may use it any more. */
  free(): void {
    try {
      unmap(this.address, this.#lengthBytes)
    } finally {
      close(this.memfd)
    }
  }
}
