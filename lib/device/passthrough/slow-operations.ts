/**
 * Which requests a thread that nobody may hold up had better not try: those that just turned out
 * to wait. A lookup is a matter of microseconds while the kernel below remembers the names, and of
 * many milliseconds when it has to ask a disk or a server; which it will be nobody knows before.
 * One that was slow makes the next ones of its kind go to the pool.
 *
 * A thread that lost the processor looks slow, too. On a disk's file system it was slow only if the
 * thread itself had something read.
 */
import { OPCODE_LIMIT } from '../../fuse/opcodes.js'
import { blocksRead } from '../../sys/limits.js'
import { MountKind, type MountTable } from './mount-table.js'

const SLOW_US = 1000
/** So many go elsewhere before one is tried again. */
const AVOIDED = 100

export class SlowOperations {
  readonly #mounts: MountTable
  /** By opcode: how many are still to be avoided. */
  readonly #left = new Uint16Array(OPCODE_LIMIT)
  #blocksRead = blocksRead()

  constructor(mounts: MountTable) {
    this.#mounts = mounts
  }

  /** Whether a request should be left to a thread that may wait. */
  avoids(opcode: number): boolean {
    if (this.#left[opcode] === 0) return false
    this.#left[opcode]!--
    return true
  }

  /** A request was executed here. */
  took(opcode: number, us: number): void {
    if (us >= SLOW_US && this.#waited()) this.#left[opcode] = AVOIDED
  }

  #waited(): boolean {
    if (!this.#mounts.all(MountKind.LOCAL)) return true
    const before = this.#blocksRead
    this.#blocksRead = blocksRead()
    return this.#blocksRead !== before
  }
}
