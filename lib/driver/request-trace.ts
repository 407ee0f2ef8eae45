/**
 * What one worker tells of its requests: a JSON record each to a file, readable lines under
 * DEBUG=virtiofs:fuse, latencies by opcode, and records to who watches. The queue calls it only
 * while somebody wants one of them. Payload never appears in it.
 */
import { closeSync, writeSync } from 'node:fs'
import { isMainThread } from 'node:worker_threads'
import createDebug from 'debug'
import { errnoName, errorLine } from '../errors.js'
import { FuseInHeader } from '../fuse/abi.js'
import { uniqueAt } from '../fuse/id-fields.js'
import { opcodeName, opcodeRow } from '../fuse/opcodes.js'
import { openToAppend } from '../sys/append-file.js'
import { LatencyRecorder } from './latencies.js'
import { Slot } from './memory-plan.js'
import type { Observation, Observed } from './observation.js'
import { RequestWatcher } from './request-watcher.js'
import type { SlotTable } from './slot-table.js'

const debug = createDebug('virtiofs:fuse')
const FLUSH_CHARS = 1 << 16

/**
 * A line-buffered trace file, opened for appending: each thread has its own descriptor. What cannot be
 * written is lost, which is said once: a full disk must not end a mount.
 */
export class TraceFile {
  readonly #path: string
  readonly #fd: number
  #text = ''
  /** A line may have been cut off. */
  #cut = false
  #told = false

  /** @throws UsageError when the file cannot be opened */
  constructor(path: string) {
    this.#path = path
    this.#fd = openToAppend(path, 'trace_json')
  }

  write(record: object): void {
    this.#text += JSON.stringify(record) + '\n'
    if (this.#text.length > FLUSH_CHARS) this.flush()
  }

  flush(): void {
    if (this.#text === '') return
    const bytes = Buffer.from(this.#cut ? '\n' + this.#text : this.#text)
    this.#text = ''
    try {
      for (let done = 0; done < bytes.length;) done += writeSync(this.#fd, bytes, done)
      this.#cut = false
    } catch (error) {
      this.#cut = true
      this.#tell(`trace ${this.#path}: ${errorLine(error)}; records are lost`)
    }
  }

  #tell(warning: string): void {
    if (this.#told) return
    this.#told = true
    // the other threads have no event loop to print it; this one writes too, and finds out itself
    if (isMainThread) process.emitWarning(warning)
    else debug('%s', warning)
  }

  close(): void {
    this.flush()
    closeSync(this.#fd)
  }
}

/** Whether there is anything to tell when nobody watches. */
export function traceWanted(path: string | undefined): boolean {
  return path !== undefined || debug.enabled
}

export class RequestTrace {
  readonly #file: TraceFile | undefined
  readonly #queue: number
  readonly #tell: (observed: Observed) => void
  #latencies: LatencyRecorder | undefined
  #watcher: RequestWatcher | undefined

  /** @param tell takes what is watched to the main thread */
  constructor(path: string | undefined, queue: number, tell: (observed: Observed) => void) {
    this.#file = path === undefined ? undefined : new TraceFile(path)
    this.#queue = queue
    this.#tell = tell
  }

  /** Whether anybody wants to know of requests: else the queue does not call. */
  get wanted(): boolean {
    return this.#file !== undefined || debug.enabled || this.#latencies !== undefined || this.#watcher !== undefined
  }

  /** Changes what the main thread wants to know. */
  observe(observation: Observation): void {
    this.#watcher?.flush()
    this.#latencies = observation.latencies && new LatencyRecorder(observation.latencies, this.#queue)
    this.#watcher = observation.watches.length > 0 || observation.transfers ? new RequestWatcher(observation, this.#queue, this.#tell) : undefined
  }

  /** A request was read from the kernel, at `view[at]`. */
  received(view: DataView, at: number): void {
    this.#watcher?.received(view, at)
    if (!debug.enabled) return
    const opcode = view.getUint32(at + FuseInHeader.opcode, true)
    debug('rx %d %s n%d%s p%d q%d', uniqueAt(view, at), opcodeName(opcode), Number(view.getBigUint64(at + FuseInHeader.nodeid, true)),
      name(view, at, opcode), view.getUint32(at + FuseInHeader.pid, true), this.#queue)
  }

  /** The request in a slot ended. @param error 0 or −errno @param bytes of the reply, header included */
  ended(view: DataView, slots: SlotTable, slot: number, error: number, bytes: number): void {
    const startMs = slots.startMs[slot]!
    // it was under way already when somebody began to watch
    if (startMs === 0) return
    const opcode = slots.opcode[slot]!
    const nowMs = performance.now()
    const us = Math.round((nowMs - startMs) * 1000)
    this.#latencies?.record(opcode, us)
    this.#watcher?.ended(view, slots, slot, error, bytes, us, nowMs)
    const at = slots.at(slot) + Slot.IN
    if (debug.enabled) debug('tx %d %s %db %dus', uniqueAt(view, at), errnoName(-error), bytes, us)
    this.#file?.write({
      op: opcodeName(opcode), unique: uniqueAt(view, at), node: Number(view.getBigUint64(at + FuseInHeader.nodeid, true)),
      error, bytes, us, queue: this.#queue,
    })
  }

  /** A FORGET, BATCH_FORGET or INTERRUPT is handed to the hiprio queue. @param tail where its bytes from 80 on are */
  hiprio(opcode: number, view: DataView, at: number, tail: number, length: number): void {
    if (debug.enabled) debug('rx %d %s q%d', uniqueAt(view, at), opcodeName(opcode), this.#queue)
    this.#watcher?.hiprio(opcode, view, at, tail, length)
    this.#file?.write({ op: opcodeName(opcode), unique: uniqueAt(view, at), node: Number(view.getBigUint64(at + FuseInHeader.nodeid, true)), error: 0, bytes: 0, us: 0, queue: 'hiprio' })
  }

  flush(): void {
    this.#file?.flush()
    this.#watcher?.flush()
  }

  close(): void {
    this.#watcher?.flush()
    this.#file?.close()
  }
}


/** The first name of a request, quoted, when it has one within its small buffer. */
function name(view: DataView, at: number, opcode: number): string {
  const row = opcodeRow(opcode)
  if (!row || row.names === 0) return ''
  const start = at + FuseInHeader.SIZE + row.inBytes
  const length = view.getUint32(at + FuseInHeader.len, true) - FuseInHeader.SIZE - row.inBytes
  const bytes = Buffer.from(view.buffer, view.byteOffset + start, Math.min(Math.max(length, 0), 256))
  const end = bytes.indexOf(0)
  return ' ' + JSON.stringify(bytes.toString('utf8', 0, end < 0 ? bytes.length : end))
}
