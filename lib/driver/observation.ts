/** What the main thread wants to be told of requests, and what the queue workers tell it. */

/** Which requests are told of. Everything that is given has to be true. */
export interface Watch {
  id: number
  /** Opcodes; undefined for all. */
  opcodes?: readonly number[] | undefined
  /** Only those that failed: with one of these errnos, positive, or with any when the list is empty. */
  errors?: readonly number[] | undefined
  /** Only those that took longer, in microseconds. */
  slowerThanUs?: number | undefined
  /** Who calls is looked up while the caller still waits: its ids and the name of its program. */
  callers?: boolean
}

/** Of the file system, as /proc tells. */
export interface Caller {
  uid: number
  gid: number
  command: string
}

export interface Observation {
  /** Where latencies are counted (latencies.ts). */
  latencies: SharedArrayBuffer | undefined
  watches: readonly Watch[]
  /** What was read from and written to each file handle is added up. */
  transfers: boolean
}

export const NO_OBSERVATION: Observation = { latencies: undefined, watches: [], transfers: false }

/** A request that has ended. */
export interface RequestRecord {
  /** Which watches it is for. None: it only tells what a node is called. */
  watches: number[]
  /** When it was read from the kernel, by `clockMs`. */
  atMs: number
  opcode: number
  unique: number
  node: number
  pid: number
  uid: number
  gid: number
  /** 0 or −errno. */
  error: number
  /** Of the reply, its header included. */
  bytes: number
  us: number
  queue: number | 'hiprio'
  names?: string[]
  /** The other node that the request names: the new directory of a RENAME, the old file of a LINK. */
  other?: number
  /** The node that the reply has made known. */
  child?: number
  /** For a watch that wants to know. */
  caller?: Caller
  /** Entries of a READDIRPLUS. */
  children?: [name: string, node: number][]
  /** Lookups that are given back. */
  forgotten?: [node: number, count: number][]
  fh?: number
  flags?: number
  mode?: number
  offset?: number
  size?: number
}

/** Bytes read and written by file handle since the last time. */
export type Transfer = [fh: number, read: number, written: number]

export interface Observed {
  records: RequestRecord[]
  transfers: Transfer[]
}

/** A clock in milliseconds that is the same in every thread, which `performance.now()` is not. */
export function clockMs(): number {
  const [seconds, nanoseconds] = process.hrtime()
  return seconds * 1000 + nanoseconds / 1e6
}
