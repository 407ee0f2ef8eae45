/**
 * /dev/fuse without a kernel: one end of a SOCK_SEQPACKET pair, which has the same manners. A
 * readv takes exactly one message and scatters it, EAGAIN says that there is none, a writev sends
 * exactly one message.
 *
 * Tests build requests and queue them here; the relay reads them, and its replies are collected.
 */
import { errno } from '../../lib/errors.js'
import { FuseInHeader, FuseOutHeader } from '../../lib/fuse/abi.js'
import { close, read, write } from '../../lib/sys/io.js'
import { bind, check, result } from '../../lib/sys/libc.js'
import { mapAnonymous, viewRegion } from '../../lib/sys/memory.js'

const c_socketpair = bind('int socketpair(int, int, int, uintptr_t)')
const c_setsockopt = bind('int setsockopt(int, int, int, uintptr_t, uint32_t)')

const AF_UNIX = 1
const SOCK_SEQPACKET_NONBLOCK_CLOEXEC = 5 | 0x800 | 0x80000
const SOL_SOCKET = 1
const SO_SNDBUF = 7
/** Beyond net.core.wmem_max; needs CAP_NET_ADMIN. */
const SO_SNDBUFFORCE = 32
const BUFFER_BYTES = (1 << 20) + 8192

export interface Reply {
  length: number
  error: number
  unique: bigint
  payload: Uint8Array
}

export interface RequestOptions {
  nodeid?: number | bigint
  /** Default: counts by 2 from 2, as the kernel does. */
  unique?: bigint
  uid?: number
  gid?: number
  pid?: number
}

/** Where messages are built and received; nothing stays in it. */
const staging = viewRegion(mapAnonymous(BUFFER_BYTES), BUFFER_BYTES)

export class MockFuse {
  /** What the relay reads and writes as /dev/fuse. */
  readonly fd: number
  /** Replies in the order they came. */
  readonly replies: Reply[] = []
  #ours: number
  #unique = 0n

  constructor() {
    const { view, address } = staging
    check(result(c_socketpair(AF_UNIX, SOCK_SEQPACKET_NONBLOCK_CLOEXEC, 0, address)), 'socketpair')
    this.fd = view.getInt32(0, true)
    this.#ours = view.getInt32(4, true)
    view.setInt32(0, 4 << 20, true)
    for (const fd of [this.fd, this.#ours]) {
      if (c_setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, address, 4) < 0) check(result(c_setsockopt(fd, SOL_SOCKET, SO_SNDBUF, address, 4)), 'setsockopt')
    }
  }

  /**
   * Queues one request.
   * @param body everything behind fuse_in_header
   * @returns its unique, or undefined when the socket has no room for another
   * @throws SyscallError for a message that the socket can never take
   */
  send(opcode: number, body: Uint8Array = new Uint8Array(0), options: RequestOptions = {}): bigint | undefined {
    const { view, bytes, address } = staging
    const unique = options.unique ?? (this.#unique += 2n)
    const length = FuseInHeader.SIZE + body.length
    view.setUint32(FuseInHeader.len, length, true)
    view.setUint32(FuseInHeader.opcode, opcode, true)
    view.setBigUint64(FuseInHeader.unique, unique, true)
    view.setBigUint64(FuseInHeader.nodeid, BigInt(options.nodeid ?? 1), true)
    view.setUint32(FuseInHeader.uid, options.uid ?? 1000, true)
    view.setUint32(FuseInHeader.gid, options.gid ?? 1001, true)
    view.setUint32(FuseInHeader.pid, options.pid ?? process.pid, true)
    view.setUint32(FuseInHeader.total_extlen, 0, true)
    bytes.set(body, FuseInHeader.SIZE)
    const sent = write(this.#ours, address, length)
    if (sent === -errno.EAGAIN) {
      if (options.unique === undefined) this.#unique -= 2n
      return undefined
    }
    check(sent, 'write', `${length} bytes`)
    return unique
  }

  /** Reads what the relay has answered. @returns the new replies, which `replies` holds too */
  collect(): Reply[] {
    const { view, bytes, address } = staging
    const fresh: Reply[] = []
    while (this.#ours >= 0) {
      const length = read(this.#ours, address, BUFFER_BYTES)
      if (length === -errno.EAGAIN || length === 0) break
      check(length, 'read')
      fresh.push({
        length: view.getUint32(FuseOutHeader.len, true), error: view.getInt32(FuseOutHeader.error, true),
        unique: view.getBigUint64(FuseOutHeader.unique, true), payload: bytes.slice(FuseOutHeader.SIZE, length),
      })
      // the kernel refuses a message whose length is not its own (EINVAL in fuse_dev_do_write)
      if (length !== view.getUint32(FuseOutHeader.len, true)) throw new Error(`a message of ${length} bytes says that it has ${view.getUint32(FuseOutHeader.len, true)}`)
    }
    this.replies.push(...fresh)
    return fresh
  }

  /** Closes the kernel's end: what the relay writes fails. */
  hangUp(): void {
    if (this.#ours >= 0) close(this.#ours)
    this.#ours = -1
  }

  close(): void {
    close(this.fd)
    this.hangUp()
  }
}

/** NUL-terminated names, one after the other. */
export function names(...all: string[]): Uint8Array {
  return Buffer.from(all.map(name => name + '\0').join(''))
}

/** An argument structure from its fields: [byte offset, value] of u32 fields, the rest zero. */
export function args(size: number, fields: Record<number, number> = {}, ...behind: Uint8Array[]): Uint8Array {
  const bytes = Buffer.alloc(size)
  for (const [at, value] of Object.entries(fields)) bytes.writeUInt32LE(value, Number(at))
  return Buffer.concat([bytes, ...behind])
}

/** The body of a BATCH_FORGET. */
export function batchForget(pairs: [nodeid: number, nlookup: number][]): Uint8Array {
  const bytes = Buffer.alloc(8 + 16 * pairs.length)
  bytes.writeUInt32LE(pairs.length, 0)
  pairs.forEach(([nodeid, nlookup], i) => {
    bytes.writeBigUInt64LE(BigInt(nodeid), 8 + 16 * i)
    bytes.writeBigUInt64LE(BigInt(nlookup), 16 + 16 * i)
  })
  return bytes
}

/** The body of a FORGET. */
export function forget(nlookup: number): Uint8Array {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(BigInt(nlookup))
  return bytes
}

/** Bytes that are different at every place, for payload. */
export function pattern(length: number, seed = 1): Uint8Array {
  const bytes = new Uint8Array(length)
  for (let i = 0; i < length; i++) bytes[i] = (i * 31 + (i >> 8) * 7 + seed) & 0xff
  return bytes
}

