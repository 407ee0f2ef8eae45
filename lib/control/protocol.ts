/**
 * What is said on the control socket of a mount: one JSON object a line, each way. A request is
 * answered by one line; what is streamed goes on until either side closes.
 */
import type { MountStats } from '../mount/mount-stats.js'
import type { ObservedRequest, RequestFilter } from '../mount/request-observer.js'
import type { MountStatus } from '../mount/mount-status.js'

export type ControlRequest =
  | { command: 'status' }
  /** Latencies are counted until the connection ends. */
  | { command: 'stats' }
  /** Goes on with another backend: behind this socket, or of this binary. */
  | { command: 'replace', socket?: string, virtiofsd?: string }
  /** Answered by a line for each request that ends, until the connection does. */
  | { command: 'trace', filter: RequestFilter }

/** The answer to each command; or `{ error }` for what is not understood, with a `code` for what cannot be done. */
export interface ControlAnswers {
  status: MountStatus
  stats: MountStats
  replace: { pausedMs: number }
}

/** A line of a trace, or how many there would have been that the reader was too slow for. */
export type TraceLine = ObservedRequest | { dropped: number }

/** A line may not be longer, in characters. */
export const MAX_LINE = 1 << 20
