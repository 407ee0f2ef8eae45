/** Reading, writing and waiting on file descriptors. */
import { errno } from '../errors.js'
import { bind, bindAsync, check, result } from './libc.js'
import { scratch, type Region } from './memory.js'

const c_close = bind('int close(int)')
const c_read = bind('int64_t read(int, uintptr_t, size_t)')
const c_write = bind('int64_t write(int, uintptr_t, size_t)')
const c_readv = bind('int64_t readv(int, uintptr_t, int)')
const c_writev = bind('int64_t writev(int, uintptr_t, int)')
const c_eventfd = bind('int eventfd(uint32_t, int)')
const c_epoll_create1 = bind('int epoll_create1(int)')
const c_epoll_ctl = bind('int epoll_ctl(int, int, int, uintptr_t)')
const c_epoll_wait = bind('int epoll_wait(int, uintptr_t, int, int)')
const c_poll = bind('int poll(uintptr_t, uint64_t, int)')
const c_pollAsync = bindAsync('int poll(uint8_t *, uint64_t, int)')
const c_sched_yield = bind('int sched_yield()')

const c_dup2 = bind('int dup2(int, int)')
const c_pipe2 = bind('int pipe2(uintptr_t, int)')

/** Makes `to` a second descriptor of what `from` is. */
export function dup2(from: number, to: number): number {
  return result(c_dup2(from, to))
}

export function close(fd: number): number {
  return result(c_close(fd))
}

export function read(fd: number, address: number, lengthBytes: number): number {
  return result(c_read(fd, address, lengthBytes))
}

export function write(fd: number, address: number, lengthBytes: number): number {
  return result(c_write(fd, address, lengthBytes))
}

export function readv(fd: number, iovAddress: number, count: number): number {
  return result(c_readv(fd, iovAddress, count))
}

export function writev(fd: number, iovAddress: number, count: number): number {
  return result(c_writev(fd, iovAddress, count))
}

export function schedYield(): void {
  c_sched_yield()
}

export const POLLIN = 1
export const POLLOUT = 4
export const POLLERR = 8
export const POLLHUP = 16
export const POLLRDHUP = 0x2000

/**
 * Waits, without blocking the event loop, until a descriptor is ready or the time is over.
 * @param events POLLIN, POLLOUT …
 * @param timeoutMs milliseconds; 0 asks without waiting
 * @returns the events that happened, 0 after the timeout, or −errno, never −EINTR: the wait goes on after a signal
 */
export async function pollAsync(fd: number, events: number, timeoutMs: number): Promise<number> {
  const pollfd = Buffer.alloc(8)
  pollfd.writeInt32LE(fd, 0)
  pollfd.writeInt16LE(events, 4)
  const deadline = performance.now() + timeoutMs
  let n = await c_pollAsync(pollfd as never, 1, timeoutMs)
  while (n === -errno.EINTR) n = await c_pollAsync(pollfd as never, 1, Math.max(0, Math.ceil(deadline - performance.now())))
  return n > 0 ? pollfd.readInt16LE(6) : n
}

let pollScratch: Region | undefined

/** `pollAsync` for a thread that has nothing else to do. It ends at a signal, with −EINTR. */
export function poll(fd: number, events: number, timeoutMs: number): number {
  pollScratch ??= scratch(8)
  pollScratch.view.setInt32(0, fd, true)
  pollScratch.view.setInt16(4, events, true)
  pollScratch.view.setInt16(6, 0, true)
  const n = result(c_poll(pollScratch.address, 1, timeoutMs))
  return n > 0 ? pollScratch.view.getInt16(6, true) : n
}

const O_CLOEXEC = 0o2000000
const O_NONBLOCK = 0o4000

/** A pipe, of which neither end blocks. @returns the ends to read from and to write to, the caller's @throws SyscallError */
export function createPipe(): [reader: number, writer: number] {
  const ends = scratch(8)
  check(result(c_pipe2(ends.address, O_CLOEXEC | O_NONBLOCK)), 'pipe2')
  return [ends.view.getInt32(0, true), ends.view.getInt32(4, true)]
}

const c_fcntl = bind('int fcntl(int, int, int)')
const F_GETFL = 3
const F_SETFL = 4
const F_SETPIPE_SZ = 1031

/** Lets a pipe hold so many bytes, if that is allowed. @returns what it holds, or −errno */
export function widenPipe(fd: number, lengthBytes: number): number {
  return result(c_fcntl(fd, F_SETPIPE_SZ, lengthBytes))
}

/** Makes a descriptor, and everybody else's of the same opening, return EAGAIN instead of blocking. @returns 0 or −errno */
export function setNonBlocking(fd: number): number {
  const flags = result(c_fcntl(fd, F_GETFL, 0))
  return flags < 0 ? flags : result(c_fcntl(fd, F_SETFL, flags | O_NONBLOCK))
}

const EFD_CLOEXEC = 0x80000
const EFD_NONBLOCK = 0x800

/** A non-blocking event counter; the caller owns the descriptor. */
export function createEventfd(): number {
  return check(result(c_eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)), 'eventfd')
}

const SIGNAL_ATTEMPTS = 10

let eventWord: Region | undefined

/** Adds 1 to an eventfd: kicks a queue, calls a driver, wakes a thread. Wakes who reads a pipe, too. */
export function signalEventfd(fd: number): number {
  if (!eventWord) {
    eventWord = scratch(16)
    eventWord.view.setUint32(0, 1, true)
  }
  let written = result(c_write(fd, eventWord.address, 8))
  // a wake-up that is lost is never made up for; EAGAIN says that one is due already
  for (let i = 0; i < SIGNAL_ATTEMPTS && (written === -errno.EINTR || written === -errno.ENOMEM); i++) written = result(c_write(fd, eventWord.address, 8))
  return written
}

/** Resets an eventfd to 0. Fails with −EAGAIN when it was 0. */
export function drainEventfd(fd: number): number {
  eventWord ??= scratch(16)
  if (eventWord.view.getUint32(0, true) === 0) eventWord.view.setUint32(0, 1, true)
  return result(c_read(fd, eventWord.address + 8, 8))
}

export const EPOLLIN = 1
export const EPOLLOUT = 4
export const EPOLLERR = 8
export const EPOLLHUP = 16
export const EPOLLRDHUP = 0x2000
export const EPOLLEXCLUSIVE = 1 << 28
export const EPOLLET = 2 ** 31

const EPOLL_CLOEXEC = 0x80000
const EPOLL_CTL_ADD = 1
const EPOLL_CTL_DEL = 2
const EPOLL_CTL_MOD = 3

/** struct epoll_event is packed on x86-64 and only there. */
const EVENT_BYTES = process.arch === 'x64' ? 12 : 16
const DATA_AT = process.arch === 'x64' ? 4 : 8

/**
 * A set of descriptors to wait for, each with a small integer as its token. Owned by one thread:
 * `wait` blocks it.
 */
export class Epoll {
  readonly fd: number
  #events: Region
  #capacity: number
  #closed = false

  constructor(capacity = 16) {
    this.#capacity = capacity
    this.#events = scratch(EVENT_BYTES * (capacity + 1))
    this.fd = check(result(c_epoll_create1(EPOLL_CLOEXEC)), 'epoll_create1')
  }

  #control(operation: number, fd: number, events: number, token: number): number {
    const at = EVENT_BYTES * this.#capacity
    this.#events.view.setUint32(at, events >>> 0, true)
    this.#events.view.setUint32(at + DATA_AT, token, true)
    this.#events.view.setUint32(at + DATA_AT + 4, 0, true)
    return result(c_epoll_ctl(this.fd, operation, fd, this.#events.address + at))
  }

  /** @throws SyscallError; the set is closed then: whoever adds cannot do without */
  add(fd: number, events: number, token: number): void {
    const error = this.#control(EPOLL_CTL_ADD, fd, events, token)
    if (error < 0) this.close()
    check(error, 'epoll_ctl', 'EPOLL_CTL_ADD')
  }

  modify(fd: number, events: number, token: number): void {
    check(this.#control(EPOLL_CTL_MOD, fd, events, token), 'epoll_ctl', 'EPOLL_CTL_MOD')
  }

  remove(fd: number): void {
    this.#control(EPOLL_CTL_DEL, fd, 0, 0)
  }

  /** Blocks until something is ready. @param timeoutMs −1 for no limit. @returns how many, or −errno */
  wait(timeoutMs: number): number {
    return result(c_epoll_wait(this.fd, this.#events.address, this.#capacity, timeoutMs))
  }

  /** Token of the i-th ready descriptor of the last `wait`. */
  token(i: number): number {
    return this.#events.view.getUint32(i * EVENT_BYTES + DATA_AT, true)
  }

  /** Its events. */
  events(i: number): number {
    return this.#events.view.getUint32(i * EVENT_BYTES, true)
  }

  /** May be called twice. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    close(this.fd)
  }
}
