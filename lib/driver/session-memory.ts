/** The memory of one session with a device: a memfd, mapped here, that the device is given. */
import { close } from '../sys/io.js'
import { createMemfd, mapShared, unmap } from '../sys/memory.js'

export class SessionMemory {
  readonly memfd: number
  readonly address: number
  readonly #lengthBytes: number
  /** A thread that hangs in a system call may still write to it: better to lose the memory than the process. */
  inUse = false

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

  free(): void {
    try {
      if (!this.inUse) unmap(this.address, this.#lengthBytes)
    } finally {
      close(this.memfd)
    }
  }
}
