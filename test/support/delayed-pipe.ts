/**
 * A long line: runs a command and passes its standard input and output on, each direction with a
 * delay and at a rate.
 *
 *     node dist/test/support/delayed-pipe.js MILLISECONDS MEGABITS COMMAND [ARGUMENT...]
 *
 * A byte leaves when those before it have left, at the rate, and arrives the delay later. What has
 * not left waits with its sender, but for 256 KiB, as in the buffer of a socket. Rate 0 is no limit.
 */
import { spawn } from 'node:child_process'
import { openSync } from 'node:fs'
import { errno } from '../../lib/errors.js'
import { close, createPipe, dup2, Epoll, EPOLLIN, EPOLLOUT, read, setNonBlocking, widenPipe, write } from '../../lib/sys/io.js'
import { mapAnonymous } from '../../lib/sys/memory.js'

const EPOLLET = 2 ** 31
const nowhere = openSync('/dev/null', 'r+')
const PIPE_BYTES = 1 << 20
/** More than is ever on the line: 1 Gbit/s for a quarter of a second. */
const LINE_BYTES = 1 << 25
const CHUNK_BYTES = 1 << 16
const BACKLOG_BYTES = 1 << 18

const [delay, megabits, command, ...args] = process.argv.slice(2)
const delayMs = Number(delay)
const bytesPerMs = Number(megabits) === 0 ? Infinity : Number(megabits) * 125

/** One direction. */
class Line {
  /** When to look again, by the clock of `performance`. */
  nextMs = Infinity
  done = false
  readonly #memory = mapAnonymous(LINE_BYTES)
  /** Chunks on the line: where each ends, counted from the beginning, and when it arrives. */
  readonly #ends: number[] = []
  readonly #arrivals: number[] = []
  #read = 0
  #written = 0
  #freeMs = 0
  #inEnded = false

  constructor(readonly from: number, readonly to: number) {}

  /** Takes what comes, and gives what has arrived. */
  step(): void {
    if (this.done) return
    const now = performance.now()
    this.nextMs = Infinity
    this.#take(now)
    this.#give(now)
  }

  #take(now: number): void {
    while (!this.#inEnded) {
      const backlogMs = this.#freeMs - now - BACKLOG_BYTES / bytesPerMs
      if (backlogMs > 0) {
        this.nextMs = now + backlogMs
        return
      }
      const at = this.#read % LINE_BYTES
      const room = Math.min(CHUNK_BYTES, LINE_BYTES - at, LINE_BYTES - (this.#read - this.#written))
      if (room === 0) return
      const count = read(this.from, this.#memory + at, room)
      if (count === -errno.EAGAIN) return
      if (count <= 0) {
        this.#inEnded = true
        return
      }
      this.#read += count
      this.#freeMs = Math.max(now, this.#freeMs) + count / bytesPerMs
      this.#ends.push(this.#read)
      this.#arrivals.push(this.#freeMs + delayMs)
    }
  }

  #give(now: number): void {
    while (this.#ends.length > 0 && this.#arrivals[0]! <= now) {
      const at = this.#written % LINE_BYTES
      const count = write(this.to, this.#memory + at, Math.min(this.#ends[0]! - this.#written, LINE_BYTES - at))
      if (count === -errno.EAGAIN) return
      if (count < 0) return this.#end()
      this.#written += count
      if (this.#written === this.#ends[0]) {
        this.#ends.shift()
        this.#arrivals.shift()
      }
    }
    if (this.#arrivals.length > 0) this.nextMs = Math.min(this.nextMs, this.#arrivals[0]!)
    else if (this.#inEnded) this.#end()
  }

  #end(): void {
    this.done = true
    // standard input and output stay descriptors of something: Node looks at them when it ends
    for (const fd of [this.to, this.from]) dup2(nowhere, fd)
  }
}

const [childIn, toChild] = createPipe()
const [fromChild, childOut] = createPipe()
for (const fd of [0, 1, toChild, fromChild]) {
  widenPipe(fd, PIPE_BYTES)
  setNonBlocking(fd)
}
const child = spawn(command!, args, { stdio: [childIn, childOut, 'inherit'] })
close(childIn)
close(childOut)
const lines = [new Line(0, toChild), new Line(fromChild, 1)]
const epoll = new Epoll()
for (const { from, to } of lines) {
  epoll.add(from, EPOLLIN | EPOLLET, 0)
  epoll.add(to, EPOLLOUT | EPOLLET, 0)
}
while (!lines[1]!.done) {
  for (const line of lines) line.step()
  const next = Math.min(...lines.map(line => line.done ? Infinity : line.nextMs))
  if (!lines[1]!.done) epoll.wait(next === Infinity ? -1 : Math.max(0, Math.ceil(next - performance.now())))
}
child.on('exit', code => { process.exitCode = code ?? 1 })
