/** The memory of one session with a device: a memfd, mapped here, that the device is given. */
import { close } from '../sys/io.js'
import { createMemfd, mapShared, unmap } from '../sys/memory.js'

export class SessionMemory {
  readonly memfd: number
  readonly address: number
  readonly #lengthBytes: number
  /** Resolves when threads that hang in a system call, which may write to it, have ended. */
  inUse: Promise<unknown> | undefined

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

  /** Unmaps, at once or when nobody can use it any more. */
  free(): void {
    const unmapped = (): void => unmap(this.address, this.#lengthBytes)
    try {
      if (this.inUse) void this.inUse.then(unmapped)
      else unmapped()
    } finally {
      close(this.memfd)
    }
  }
}
