/**
 * Invalidations of inodes that the kernel does not know yet. A device tells of a change as soon as
 * it has answered a LOOKUP with the inode; whoever asked may still have to wake up and make the
 * inode known, with attributes from before the change. So these are tried again for a second: after
 * 1 ms, 2 ms, 4 ms … (native-notes/notifications.md).
 */
import { errno } from '../errors.js'
import { FuseNotifyInvalInodeOut, FuseOutHeader } from '../fuse/abi.js'
import { write } from '../sys/io.js'
import { scratch, type Region } from '../sys/memory.js'

const MESSAGE_BYTES = FuseOutHeader.SIZE + FuseNotifyInvalInodeOut.SIZE
/** At most so many at a time: a device that tells of inodes that never were costs no more. */
const CAPACITY = 256
const TRIES = 10

export class LateInodes {
  readonly #fuseFd: number
  readonly #messages: Region = scratch(CAPACITY * MESSAGE_BYTES)
  readonly #due = new Float64Array(CAPACITY)
  readonly #tries = new Uint8Array(CAPACITY)
  #count = 0

  /** @param fuseFd where the messages go */
  constructor(fuseFd: number) {
    this.#fuseFd = fuseFd
  }

  /** @param message a FUSE_NOTIFY_INVAL_INODE @returns false when there is no room */
  add(message: Region): boolean {
    if (this.#count === CAPACITY) return false
    const slot = this.#count++
    this.#messages.bytes.set(message.bytes.subarray(0, MESSAGE_BYTES), slot * MESSAGE_BYTES)
    this.#due[slot] = performance.now() + 1
    this.#tries[slot] = 0
    return true
  }

  clear(): void {
    this.#count = 0
  }

  /** Milliseconds until the next is due, −1 for none. */
  get waitMs(): number {
    if (this.#count === 0) return -1
    let least = this.#due[0]!
    for (let slot = 1; slot < this.#count; slot++) if (this.#due[slot]! < least) least = this.#due[slot]!
    return Math.max(0, Math.ceil(least - performance.now()))
  }

  /** Tries those that are due. @param ended told the result of each that is not tried again */
  retry(ended: (result: number) => void): void {
    if (this.#count === 0) return
    const now = performance.now()
    for (let slot = 0; slot < this.#count;) {
      if (this.#due[slot]! > now) {
        slot++
        continue
      }
      const written = write(this.#fuseFd, this.#messages.address + slot * MESSAGE_BYTES, MESSAGE_BYTES)
      if (written === -errno.ENOENT && ++this.#tries[slot]! < TRIES) {
        this.#due[slot] = now + 2 ** this.#tries[slot]!
        slot++
        continue
      }
      ended(written)
      this.#remove(slot)
    }
  }

  #remove(slot: number): void {
    const last = --this.#count
    if (slot === last) return
    this.#messages.bytes.copyWithin(slot * MESSAGE_BYTES, last * MESSAGE_BYTES, (last + 1) * MESSAGE_BYTES)
    this.#due[slot] = this.#due[last]!
    this.#tries[slot] = this.#tries[last]!
  }
}
