/** What has happened between two looks at the counters of a mount. */
import type { CounterName } from '../driver/counters.js'
import { bucketStart, type LatencyCounts } from '../driver/latencies.js'
import type { MountStats } from '../mount/mount-stats.js'

export interface LatencySummary {
  meanUs: number
  p50Us: number
  p90Us: number
  p99Us: number
  maxUs: number
}

/** Documented in README, `stats --json`. */
export interface Interval {
  /** When it ended, as ISO 8601. */
  time: string
  seconds: number
  requestsPerSecond: number
  errorsPerSecond: number
  bytesReadPerSecond: number
  bytesWrittenPerSecond: number
  /** At this moment, and on the average of the interval. */
  inFlight: number
  inFlightMean: number
  /** Times that a worker found its queue full. */
  stalls: number
  sleeps: number
  kicks: number
  pollsWon: number
  pollsLost: number
  /** Part of the polls that found work; null without a poll. */
  pollEfficiency: number | null
  opcodes: Record<string, { count: number, perSecond: number, total: number } & Partial<LatencySummary>>
  /** Requests by the power of two of their latency: its lower bound in microseconds, and how many. */
  histogram: [fromUs: number, count: number][]
  /** Counters since the beginning, by name. */
  totals: Record<string, number>
}

function subtract(now: LatencyCounts, before: LatencyCounts | undefined): LatencyCounts {
  const old = new Map(before?.buckets)
  const buckets = now.buckets.map(([bucket, count]): [number, number] => [bucket, count - (old.get(bucket) ?? 0)]).filter(([, count]) => count > 0)
  return { count: now.count - (before?.count ?? 0), sumUs: now.sumUs - (before?.sumUs ?? 0), buckets }
}

/** The latency below which a part of the requests was, to the end of its bucket. @param part from 0 to 1 */
export function percentile({ count, buckets }: LatencyCounts, part: number): number {
  let left = Math.max(1, Math.ceil(count * part))
  for (const [bucket, inBucket] of buckets) {
    left -= inBucket
    if (left <= 0) return bucketStart(bucket + 1) - 1
  }
  return 0
}

function summary(counts: LatencyCounts): LatencySummary {
  return {
    meanUs: round(counts.sumUs / counts.count), p50Us: percentile(counts, 0.5), p90Us: percentile(counts, 0.9), p99Us: percentile(counts, 0.99), maxUs: percentile(counts, 1),
  }
}

function round(number: number): number {
  return Math.round(number * 10) / 10
}

/** @param before an earlier look at the same mount */
export function between(before: MountStats, now: MountStats): Interval {
  const seconds = Math.max(1e-3, (now.atMs - before.atMs) / 1000)
  const grown = (name: CounterName): number => now.counters[name] - before.counters[name]
  const rate = (name: CounterName): number => round(grown(name) / seconds)
  const opcodes: Interval['opcodes'] = {}
  const octaves = new Map<number, number>()
  let sumUs = 0
  for (const [name, total] of Object.entries(now.opcodes)) {
    const count = total - (before.opcodes[name] ?? 0)
    const counts = now.latencies[name] && subtract(now.latencies[name], before.latencies[name])
    if (count === 0 && !counts?.count) continue
    opcodes[name] = { count, perSecond: round(count / seconds), total, ...counts && counts.count > 0 && summary(counts) }
    sumUs += counts?.sumUs ?? 0
    for (const [bucket, inBucket] of counts?.buckets ?? []) {
      const octave = 2 ** Math.floor(Math.log2(Math.max(1, bucketStart(bucket))))
      octaves.set(octave, (octaves.get(octave) ?? 0) + inBucket)
    }
  }
  const [won, lost] = [grown('POLLS_WON'), grown('POLLS_LOST')]
  return {
    time: new Date().toISOString(), seconds: round(seconds),
    requestsPerSecond: rate('REQUESTS'), errorsPerSecond: rate('ERRORS'), bytesReadPerSecond: rate('BYTES_READ'), bytesWrittenPerSecond: rate('BYTES_WRITTEN'),
    // Little's law: what all of them took together, by the time in which they did
    inFlight: now.counters.IN_FLIGHT, inFlightMean: round(sumUs / 1e6 / seconds), stalls: grown('STALLS'), sleeps: grown('SLEEPS'), kicks: grown('KICKS'),
    pollsWon: won, pollsLost: lost, pollEfficiency: won + lost === 0 ? null : Math.round(won / (won + lost) * 1000) / 1000,
    opcodes, histogram: [...octaves].sort(([a], [b]) => a - b), totals: now.counters,
  }
}
