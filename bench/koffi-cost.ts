/**
 * What a system call through koffi costs: node dist/bench/koffi-cost.js [SECONDS]
 *
 * Every row is a loop of one call; the rows take turns, and the median of the turns counts. Figures
 * are ratios to getppid through koffi in the same run. `abs` makes no system call: its row is what
 * koffi itself costs. The rows of node:fs make the same calls through Node's own binding.
 */
import { readvSync, writeSync } from 'node:fs'
import { bind } from '../lib/sys/libc.js'
import { close, createEventfd, drainEventfd, readv, signalEventfd } from '../lib/sys/io.js'
import { createMemfd, scratch } from '../lib/sys/memory.js'
import { setU64 } from '../lib/wire/u64.js'

const CALLS = 20_000
const HEAD_BYTES = 80
const TAIL_BYTES = 4096

const abs = bind('int abs(int)')
const getppid = bind('int getppid()')

const eventFd = createEventfd()
const one = Buffer.from([1, 0, 0, 0, 0, 0, 0, 0])
/** Reads at the end of an empty file: all of the call but for the copying. */
const emptyFd = createMemfd('koffi-cost', 0)
const buffers = [Buffer.alloc(HEAD_BYTES), Buffer.alloc(TAIL_BYTES)]
const iov = scratch(32)
const room = scratch(HEAD_BYTES + TAIL_BYTES)
setU64(iov.view, 0, room.address)
setU64(iov.view, 8, HEAD_BYTES)
setU64(iov.view, 16, room.address + HEAD_BYTES)
setU64(iov.view, 24, TAIL_BYTES)

const rows: [name: string, call: () => unknown][] = [
  ['koffi abs (no system call)', () => abs(-1)],
  ['koffi getppid', () => getppid()],
  ['koffi write, 8 bytes to an eventfd', () => signalEventfd(eventFd)],
  ['node:fs writeSync, the same', () => writeSync(eventFd, one)],
  ['koffi readv, 2 buffers', () => readv(emptyFd, iov.address, 2)],
  ['node:fs readvSync, the same', () => readvSync(emptyFd, buffers)],
]

function nanoseconds(call: () => unknown): number {
  const start = process.hrtime.bigint()
  for (let i = 0; i < CALLS; i++) call()
  return Number(process.hrtime.bigint() - start) / CALLS
}

const times = rows.map((): number[] => [])
const end = performance.now() + Number(process.argv[2] ?? 3) * 1000
// the first turn warms up
for (let turn = 0; turn < 4 || performance.now() < end; turn++) {
  rows.forEach(([, call], i) => {
    const time = nanoseconds(call)
    if (turn > 0) times[i]!.push(time)
  })
  // an eventfd that is full would fail
  drainEventfd(eventFd)
}
const medians = times.map(all => all.sort((a, b) => a - b)[all.length >> 1]!)
rows.forEach(([name], i) => console.log(`${name.padEnd(36)}  ${(medians[i]! / medians[1]!).toFixed(2).padStart(5)}  ${medians[i]!.toFixed(0).padStart(5)} ns`))
close(eventFd)
close(emptyFd)
