/** What the load process is asked to do, and the clock that all operations run under. */
import type { Measure } from './rows.js'
import { totalCpuSeconds } from './cpu.js'

/** The load process's only argument, as JSON. */
export interface Task {
  row: string
  /** The tree of bench/fixture.ts as the peer shows it. */
  root: string
  /** Directory below root that this peer alone writes to. */
  work: string
  /** Mount point when the peer is a mount; the plain directory is none. */
  mount: string | undefined
  /** Server processes, for their CPU time. */
  servers: number[]
  /** Length of a cell. Rows over a whole tree take what they take. */
  seconds: number
  /** Tar archive for the untar row, outside of every peer. */
  archive: string
  treeFiles: number
  /** How many, how large: of the rows of load-costs.ts. */
  parameter?: number
}

/** One operation; `i` counts up from 0. */
export type Operation = (i: number) => void

/** Operations between two looks at the clock. */
const BATCH = 16

/** Runs an operation for a time, or until `limit` of them are done. */
export function timed(task: Task, operation: Operation, limit = Infinity): Measure {
  const warmUp = Math.min(50, limit / 10)
  for (let i = 0; i < warmUp; i++) operation(i)
  const clock = new Clock(task.servers)
  const endMs = performance.now() + task.seconds * 1000
  let i = Math.ceil(warmUp)
  const first = i
  clock.start()
  while (i < limit && performance.now() < endMs) {
    const stop = Math.min(i + BATCH, limit)
    while (i < stop) operation(i++)
  }
  clock.stop()
  return clock.measure(i - first)
}

/** Wall-clock and CPU time, with parts in between that do not count. */
export class Clock {
  seconds = 0
  cpuSeconds = 0
  #startMs = 0
  #startCpu = 0

  constructor(private readonly servers: number[]) {}

  start(): void {
    this.#startCpu = totalCpuSeconds(this.servers)
    this.#startMs = performance.now()
  }

  stop(): void {
    this.seconds += (performance.now() - this.#startMs) / 1000
    this.cpuSeconds += totalCpuSeconds(this.servers) - this.#startCpu
  }

  measure(ops: number): Measure {
    return { ops, seconds: this.seconds, cpuSeconds: this.cpuSeconds }
  }
}
