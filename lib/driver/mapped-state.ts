/** StateMemory in a memfd, which stays its owner's; the mapping is this thread's own. */
import { fstatSync } from 'node:fs'
import { growMemfd, mapShared, punchHole, unmap } from '../sys/memory.js'
import { viewMemory } from '../sys/libc.js'
import { STATE_PAGE, StateMemory } from './state-memory.js'

export class MappedState extends StateMemory {
  readonly #fd: number
  #address: number

  /** @throws SyscallError */
  constructor(fd: number) {
    const { size } = fstatSync(fd)
    const lengthBytes = Math.max(size, STATE_PAGE)
    if (size < lengthBytes) growMemfd(fd, lengthBytes)
    const address = mapShared(fd, lengthBytes)
    super(viewMemory(address, lengthBytes))
    this.#fd = fd
    this.#address = address
  }

  override ensure(lengthBytes: number): void {
    const before = this.lengthBytes
    if (before >= lengthBytes) return
    growMemfd(this.#fd, lengthBytes)
    const address = mapShared(this.#fd, lengthBytes)
    const old = this.#address
    this.#address = address
    this.use(viewMemory(address, lengthBytes))
    unmap(old, before)
  }

  override drop(at: number, lengthBytes: number): void {
    // without holes, as on another file system than the kernel's own, they are only zeroed
    if (punchHole(this.#fd, at, lengthBytes) < 0) super.drop(at, lengthBytes)
  }

  /** Unmaps. Nothing may be read or written any more. */
  close(): void {
    unmap(this.#address, this.lengthBytes)
  }
}
