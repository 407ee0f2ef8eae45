/** The counters of a mount at one moment. */
import { Counter, type CounterName, sumCounter, workerCounters } from '../driver/counters.js'
import { type LatencyCounts, readLatencies } from '../driver/latencies.js'
import { opcodeRows } from '../fuse/opcodes.js'

export interface MountStats {
  /** On a clock that only goes forward, in milliseconds. */
  atMs: number
  requestQueues: number
  /** Since the beginning, but for IN_FLIGHT. */
  counters: Record<CounterName, number>
  /** Requests by opcode since the beginning; opcodes without a request are left out. */
  opcodes: Record<string, number>
  /** By opcode since they are counted. */
  latencies: Record<string, LatencyCounts>
}

const COUNTERS = (Object.keys(Counter) as (keyof typeof Counter)[]).filter((name): name is CounterName => name !== 'OPCODES' && name !== 'SIZE')

/** @param latencies where they are counted, if they are */
export function readStats(counters: ArrayBufferLike, queues: number, latencies: SharedArrayBuffer | undefined): MountStats {
  const found = latencies ? readLatencies(latencies) : new Map<number, LatencyCounts>()
  const opcodes: [string, number][] = opcodeRows.map(({ opcode, name }) => [name, sumCounter(counters, Counter.OPCODES + opcode)])
  // the largest of them, not their sum
  const most = Math.max(...Array.from({ length: queues }, (_, queue) => workerCounters(counters, queue)[Counter.IN_FLIGHT_MAX]!))
  return {
    atMs: performance.now(), requestQueues: queues,
    counters: { ...Object.fromEntries(COUNTERS.map(name => [name, sumCounter(counters, Counter[name])])) as Record<CounterName, number>, IN_FLIGHT_MAX: most },
    opcodes: Object.fromEntries(opcodes.filter(([, count]) => count > 0)),
    latencies: Object.fromEntries(opcodeRows.flatMap(({ opcode, name }) => found.has(opcode) ? [[name, found.get(opcode)!]] : [])),
  }
}
