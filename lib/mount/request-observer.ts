/**
 * What is known of the requests of a mount while somebody asks: who watches which of them, what
 * their nodes are called, and how long they take.
 */
import { allocateLatencies } from '../driver/latencies.js'
import { clockMs, type Observed, type RequestRecord, type Transfer, type Watch } from '../driver/observation.js'
import type { VirtioFs } from '../driver/virtio-fs.js'
import { errnoName } from '../errors.js'
import { Op, opcodeName } from '../fuse/opcodes.js'
import { NodePaths } from './node-paths.js'

/** Which requests are told of. Everything that is given has to be true. */
export interface RequestFilter {
  /** FUSE opcodes. */
  opcodes?: readonly number[]
  /** Only those that failed: with one of these errnos, positive, or with any when the list is empty. */
  errors?: readonly number[]
  slowerThanUs?: number
  /** This path, from the root of the mount, or what is below it. */
  path?: string
  /** Who calls is looked up in /proc, which takes some tens of microseconds. */
  callers?: boolean
}

/** A request that has ended, as it is told. Documented in README, `trace`. */
export interface ObservedRequest {
  /** When it came, as ISO 8601. */
  time: string
  op: string
  path: string
  /** Where a RENAME goes, what a LINK is made of. */
  otherPath?: string
  unique: number
  node: number
  pid: number
  /** Where the kernel tells them: since Linux 6.12 often only with requests that make a file. */
  uid?: number
  gid?: number
  /** Of the caller, when it was looked up: then its ids are always there. */
  command?: string
  /** 0 or −errno, and its name. */
  error: number
  errorName: string
  bytes: number
  us: number
  queue: number | 'hiprio'
  fh?: number
  flags?: number
  mode?: number
  offset?: number
  size?: number
}

/** What the kernel sends for an id that it does not want to tell. */
const NOBODY_SAID = 0xffff_ffff

/** Queues tell each on their own; so long, in milliseconds, one of them is waited for, so that a name is known before its node is used. */
const REORDER_MS = 150

interface Listener {
  watch: Watch
  path: string | undefined
  told: (request: ObservedRequest) => void
}

export class RequestObserver {
  readonly #fs: VirtioFs
  readonly #listeners = new Map<number, Listener>()
  /** Of `clockMs`, in milliseconds since 1970. */
  readonly #epochMs = Date.now() - clockMs()
  #paths = new NodePaths()
  #nextId = 1
  #timed = 0
  #latencies: SharedArrayBuffer | undefined
  #transferred: ((transfers: readonly Transfer[]) => void) | undefined
  #waiting: RequestRecord[] = []
  #timer: NodeJS.Timeout | undefined

  constructor(fs: VirtioFs) {
    this.#fs = fs
    fs.on('observed', observed => this.#observed(observed))
    // what the workers said at their end has come by then
    fs.once('ended', () => this.#release(Infinity))
  }

  #update(): void {
    this.#fs.observe({
      latencies: this.#timed > 0 ? this.#latencies : undefined,
      watches: [...this.#listeners.values()].map(listener => listener.watch), transfers: this.#transferred !== undefined,
    })
    if (this.#listeners.size === 0) this.#paths = new NodePaths()
  }

  /** @returns stops it */
  watch({ opcodes, errors, slowerThanUs, path, callers = false }: RequestFilter, told: Listener['told']): () => void {
    const id = this.#nextId++
    this.#listeners.set(id, { watch: { id, opcodes, errors, slowerThanUs, callers }, path: path === undefined ? undefined : `/${path.replace(/^\/+|\/+$/g, '')}`, told })
    this.#update()
    return () => {
      this.#listeners.delete(id)
      this.#update()
    }
  }

  /** What is read and written is added up by file handle, for one listener, which is told of it before any request that came later. */
  watchTransfers(told: (transfers: readonly Transfer[]) => void): void {
    this.#transferred = told
    this.#update()
  }

  /** Latencies are counted until it is stopped. @returns the counts (latencies.ts), and stops it */
  time(): { latencies: SharedArrayBuffer, stop: () => void } {
    const latencies = this.#latencies ??= allocateLatencies(this.#fs.queues)
    if (this.#timed++ === 0) this.#update()
    let stopped = false
    return {
      latencies,
      stop: () => {
        if (stopped) return
        stopped = true
        if (--this.#timed === 0) this.#update()
      },
    }
  }

  #observed({ records, transfers }: Observed): void {
    if (transfers.length > 0) this.#transferred?.(transfers)
    this.#waiting.push(...records)
    if (this.#fs.queues === 1) this.#release(Infinity)
    else this.#timer ??= setTimeout(() => this.#late(), REORDER_MS)
  }

  #late(): void {
    this.#timer = undefined
    this.#release(clockMs() - REORDER_MS)
    if (this.#waiting.length > 0) this.#timer = setTimeout(() => this.#late(), REORDER_MS)
  }

  /**
   * Passes on what ended until then. Several queues in the order of the beginnings: what came of a
   * reply begins later than the request did, while its end may be noted late.
   */
  #release(untilMs: number): void {
    if (this.#fs.queues > 1) this.#waiting.sort((a, b) => a.atMs - b.atMs)
    const later = this.#waiting.findIndex(record => record.atMs + record.us / 1000 > untilMs)
    for (const record of this.#waiting.splice(0, later < 0 ? this.#waiting.length : later)) this.#pass(record)
  }

  #pass(record: RequestRecord): void {
    // as it was called before
    const request = record.watches.length > 0 ? this.#tellable(record) : undefined
    if (record.error === 0) this.#paths.learn(record)
    if (!request) return
    for (const id of record.watches) {
      const listener = this.#listeners.get(id)
      if (listener && isBelow(listener.path, request)) listener.told(request)
    }
  }

  #tellable(record: RequestRecord): ObservedRequest {
    const { atMs, opcode, unique, node, pid, uid, gid, error, bytes, us, queue, names = [], other, fh, flags, mode, offset, size, caller } = record
    const [first, second] = names
    const named = first !== undefined && !XATTR.has(opcode)
    return {
      time: new Date(atMs + this.#epochMs).toISOString(), op: opcodeName(opcode), path: node === 0 ? '' : named ? this.#paths.join(node, first) : this.#paths.path(node),
      ...other !== undefined && { otherPath: second === undefined ? this.#paths.path(other) : this.#paths.join(other, second) },
      unique, node, pid, ...caller ?? (uid === NOBODY_SAID ? {} : { uid, gid }), error, errorName: errnoName(-error), bytes, us, queue,
      ...fh !== undefined && { fh }, ...flags !== undefined && { flags }, ...mode !== undefined && { mode }, ...offset !== undefined && { offset }, ...size !== undefined && { size },
    }
  }
}

/** Their name is that of an attribute. */
const XATTR = new Set<number>([Op.SETXATTR, Op.GETXATTR, Op.REMOVEXATTR])

function isBelow(path: string | undefined, request: ObservedRequest): boolean {
  if (path === undefined || path === '/') return true
  return [request.path, request.otherPath].some(candidate => candidate === path || candidate?.startsWith(`${path}/`))
}
