/**
 * Latencies by opcode, in memory that the queue workers count in and everybody reads: eight
 * buckets per power of two, so that a percentile is right within an eighth, from 1 µs to half an
 * hour. A reader takes differences of what it has seen, so any number of them can look at once,
 * which a histogram that is reset for its one reader (node:perf_hooks) does not allow.
 */
import { OPCODE_LIMIT } from '../fuse/opcodes.js'

const SUB_BUCKETS = 8
const SUB_BITS = 3
const MAX_US = 2 ** 31 - 1
export const BUCKETS = SUB_BUCKETS * (31 - SUB_BITS + 1)
/** Behind the buckets of an opcode: the sum of its latencies in microseconds, and the largest. */
const SUM = BUCKETS
const STRIDE = BUCKETS + 1

/** @param us whole microseconds, from 0 to 2^31 − 1 */
export function bucketOf(us: number): number {
  if (us < SUB_BUCKETS) return us
  const octave = 31 - Math.clz32(us)
  return (octave - SUB_BITS) * SUB_BUCKETS + SUB_BUCKETS + ((us >>> (octave - SUB_BITS)) & (SUB_BUCKETS - 1))
}

/** The smallest latency that a bucket counts, in microseconds. */
export function bucketStart(bucket: number): number {
  if (bucket < SUB_BUCKETS) return bucket
  const octave = Math.floor(bucket / SUB_BUCKETS) - 1
  return (SUB_BUCKETS + bucket % SUB_BUCKETS) * 2 ** octave
}

export function allocateLatencies(workers: number): SharedArrayBuffer {
  return new SharedArrayBuffer(workers * OPCODE_LIMIT * STRIDE * 8)
}

/** One worker's part: it only ever adds. */
export class LatencyRecorder {
  readonly #counts: Float64Array

  constructor(shared: SharedArrayBuffer, worker: number) {
    const length = OPCODE_LIMIT * STRIDE
    this.#counts = new Float64Array(shared, worker * length * 8, length)
  }

  record(opcode: number, us: number): void {
    const base = (opcode < OPCODE_LIMIT ? opcode : 0) * STRIDE
    this.#counts[base + bucketOf(Math.min(us, MAX_US) | 0)]!++
    this.#counts[base + SUM]! += us
  }
}

/** Latencies of one opcode. */
export interface LatencyCounts {
  count: number
  sumUs: number
  /** Count by bucket number, for buckets that have one. */
  buckets: [bucket: number, count: number][]
}

/** What all workers have counted so far, by opcode; opcodes without a request are left out. */
export function readLatencies(shared: SharedArrayBuffer): Map<number, LatencyCounts> {
  const all = new Float64Array(shared)
  const found = new Map<number, LatencyCounts>()
  for (let opcode = 0; opcode < OPCODE_LIMIT; opcode++) {
    const sums = new Float64Array(STRIDE)
    for (let base = opcode * STRIDE; base < all.length; base += OPCODE_LIMIT * STRIDE) {
      for (let i = 0; i < STRIDE; i++) sums[i]! += all[base + i]!
    }
    const buckets: [number, number][] = []
    let count = 0
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      if (sums[bucket] === 0) continue
      buckets.push([bucket, sums[bucket]!])
      count += sums[bucket]!
    }
    if (count > 0) found.set(opcode, { count, sumUs: sums[SUM]!, buckets })
  }
  return found
}
