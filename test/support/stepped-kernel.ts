/**
 * The kernel's side of a mount, step by step: requests of callers, and the rules by which a FUSE
 * connection ends. Checks that each request is answered exactly once.
 */
import { errno } from '../../lib/errors.js'
import { FuseInitIn, FuseReadIn, FuseWriteIn } from '../../lib/fuse/abi.js'
import { initFlagWords } from '../../lib/fuse/init.js'
import { Op } from '../../lib/fuse/opcodes.js'
import type { HostMount } from '../../lib/mount/dev-fuse.js'
import { close } from '../../lib/sys/io.js'
import { bind, check, result } from '../../lib/sys/libc.js'
import { args, batchForget, forget, MockFuse, names, pattern } from './mock-fuse.js'
import type { SeededRandom } from './seeded-random.js'

const c_dup = bind('int dup(int)')

const [INIT_LOW, INIT_HIGH] = initFlagWords(['INIT_EXT', 'ASYNC_READ'])
const INIT = args(FuseInitIn.SIZE, { [FuseInitIn.major]: 7, [FuseInitIn.minor]: 45, [FuseInitIn.flags]: INIT_LOW, [FuseInitIn.flags2]: INIT_HIGH })
const WRITE = args(FuseWriteIn.SIZE, { [FuseWriteIn.size]: 100 }, pattern(100))
const READ = args(FuseReadIn.SIZE, { [FuseReadIn.size]: 300 })
const LARGE_READ = args(FuseReadIn.SIZE, { [FuseReadIn.size]: 8192 })
const NAME = names('a name')

export class SteppedKernel implements HostMount {
  readonly mountpoint = '/mnt'
  readonly connection = 77
  readonly fuseFds: number[]
  /** Requests that callers wait for, by unique. */
  readonly outstanding = new Map<bigint, number>()
  /** Node ids that were forgotten, each once. */
  forgotten = 0
  /** The place in the tree of mounts is taken. */
  mounted = true
  /** read() says ENODEV, and nobody waits any more. */
  dead = false
  initialised = false
  closed = false
  /** Errors of replies by number. */
  readonly errors = new Map<number, number>()
  readonly #fuse = new MockFuse()
  readonly #random: SeededRandom

  /** @param violations what the driver did wrong */
  constructor(queues: number, random: SeededRandom, readonly violations: string[]) {
    this.#random = random
    this.fuseFds = [this.#fuse.fd]
    while (this.fuseFds.length < queues) this.fuseFds.push(check(result(c_dup(this.#fuse.fd)), 'dup'))
    this.#request(Op.INIT, INIT)
  }

  #request(opcode: number, body?: Uint8Array): void {
    const unique = this.#fuse.send(opcode, body)
    if (unique === undefined) throw new Error('the socket is full')
    this.outstanding.set(unique, opcode)
  }

  /** A caller does something. @returns false when that is not possible now */
  call(): boolean {
    if (!this.initialised || !this.mounted || this.dead) return false
    switch (this.#random.below(8)) {
      case 0: this.#request(Op.GETATTR, args(16)); break
      case 1: this.#request(Op.LOOKUP, NAME); break
      case 2: this.#request(Op.READ, READ); break
      case 3: this.#request(Op.READ, LARGE_READ); break
      case 4: this.#request(Op.WRITE, WRITE); break
      case 5: this.#request(Op.STATFS); break
      case 6:
        this.#fuse.send(Op.FORGET, forget(1), { nodeid: 1000 + this.forgotten++ })
        break
      case 7:
        this.#fuse.send(Op.BATCH_FORGET, batchForget([[1000 + this.forgotten++, 1], [1000 + this.forgotten++, 1]]))
        break
    }
    return true
  }

  /** Takes the replies. @throws Error for one that nobody waits for */
  collect(): void {
    for (const reply of this.#fuse.collect()) {
      const opcode = this.outstanding.get(reply.unique)
      if (opcode === undefined) this.violations.push(`a second answer to request ${reply.unique}, or one that was never made`)
      this.outstanding.delete(reply.unique)
      this.errors.set(reply.error, (this.errors.get(reply.error) ?? 0) + 1)
      if (opcode === Op.INIT && reply.error === 0) this.initialised = true
      if (reply.error === 0 && opcode === Op.READ && !reply.payload.every(byte => byte === reply.payload[0])) this.violations.push(`request ${reply.unique}: its data was changed on the way`)
    }
    if (!this.mounted && this.outstanding.size === 0) this.#die()
  }

  #die(): void {
    if (this.dead) return
    this.dead = true
    this.outstanding.clear()
    this.#fuse.hangUp()
  }

  /** umount2(2), by anyone. */
  umount(lazy: boolean): number {
    if (!this.mounted) return 0
    // INIT belongs to the connection and not to a caller
    const callers = [...this.outstanding.values()].filter(opcode => opcode !== Op.INIT).length
    if (callers > 0 && !lazy) return -errno.EBUSY
    this.mounted = false
    if (callers === 0) this.#die()
    return 0
  }

  get alive(): boolean {
    return !this.dead
  }

  /** How umount2 is called on the thread pool: the test says when it returns. */
  pending: (() => void)[] = []

  unmount(lazy = false): Promise<number> {
    return new Promise(resolve => { this.pending.push(() => resolve(this.umount(lazy))) })
  }

  abort(): void {
    this.#die()
  }

  close(): void {
    if (this.closed) this.violations.push('the mount is closed twice')
    this.closed = true
    // the last descriptor: the kernel aborts the connection
    this.dead = true
    this.outstanding.clear()
    this.#fuse.hangUp()
    for (const fd of this.fuseFds.slice(1)) close(fd)
    this.#fuse.close()
  }
}
