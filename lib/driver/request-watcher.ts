/**
 * One worker's part of what is watched: tells the main thread of requests, in batches. Made only
 * while somebody watches.
 */
import { readFileSync } from 'node:fs'
import { FuseCopyFileRangeIn, FuseInHeader, FuseOutHeader, FuseReadIn, FuseWriteOut } from '../fuse/abi.js'
import { Op, opcodeRows } from '../fuse/opcodes.js'
import { uniqueAt } from '../fuse/id-fields.js'
import { getU64 } from '../wire/u64.js'
import { handOverBatch, handOverForget } from './hiprio-requests.js'
import { Slot } from './memory-plan.js'
import { clockMs, type Caller, type Observation, type Observed, type RequestRecord, type Transfer, type Watch } from './observation.js'
import { buildRecord, isNaming } from './request-record.js'
import type { SlotTable } from './slot-table.js'

const MAX_BATCH = 256
/** How long a batch waits while the worker is busy, in milliseconds; it goes before every sleep. */
const MAX_WAIT_MS = 50

export class RequestWatcher {
  readonly #watches: readonly Watch[]
  readonly #queue: number
  readonly #tell: (observed: Observed) => void
  readonly #transfers: Map<number, Transfer> | undefined
  /** Opcodes whose callers are looked up. */
  readonly #callerOpcodes: ReadonlySet<number>
  /** By unique, of requests under way. */
  readonly #callers = new Map<number, Caller>()
  #records: RequestRecord[] = []
  #sinceMs = 0

  constructor({ watches, transfers }: Observation, queue: number, tell: (observed: Observed) => void) {
    this.#watches = watches
    this.#queue = queue
    this.#tell = tell
    this.#transfers = transfers ? new Map() : undefined
    this.#callerOpcodes = new Set(watches.flatMap(watch => watch.callers ? watch.opcodes ?? opcodeRows.map(row => row.opcode) : []))
  }

  /** A request was read, at `view[head]`; its caller waits for it. */
  received(view: DataView, head: number): void {
    if (!this.#callerOpcodes.has(view.getUint32(head + FuseInHeader.opcode, true))) return
    const caller = callerOf(view.getUint32(head + FuseInHeader.pid, true))
    if (caller) this.#callers.set(uniqueAt(view, head), caller)
  }

  /** Those that want a request. */
  #wanting(opcode: number, error: number, us: number): number[] {
    return this.#watches.filter(({ opcodes, errors, slowerThanUs }) => (
      (opcodes === undefined || opcodes.includes(opcode))
      && (errors === undefined || (error < 0 && (errors.length === 0 || errors.includes(-error))))
      && (slowerThanUs === undefined || us > slowerThanUs)
    )).map(watch => watch.id)
  }

  /** A request that is still in its slot has ended. @param nowMs `performance.now()` */
  ended(view: DataView, slots: SlotTable, slot: number, error: number, used: number, us: number, nowMs: number): void {
    const opcode = slots.opcode[slot]!
    if (this.#transfers && error === 0 && (opcode === Op.READ || opcode === Op.WRITE || opcode === Op.COPY_FILE_RANGE)) this.#transferred(view, slots, slot, opcode, used)
    const watches = this.#wanting(opcode, error, us)
    if (watches.length > 0 || (error === 0 && isNaming(opcode))) {
      const record = buildRecord(view, slots, slot, error, used, us, clockMs() - us / 1000, this.#queue, watches)
      const caller = this.#callers.get(record.unique)
      if (caller) {
        record.caller = caller
        this.#callers.delete(record.unique)
      }
      this.#add(record, nowMs)
    } else if (this.#records.length > 0 && nowMs - this.#sinceMs > MAX_WAIT_MS) {
      this.flush()
    }
  }

  #transferred(view: DataView, slots: SlotTable, slot: number, opcode: number, used: number): void {
    const at = slots.at(slot)
    const fh = getU64(view, at + Slot.IN + FuseInHeader.SIZE + (opcode === Op.COPY_FILE_RANGE ? FuseCopyFileRangeIn.fh_out : FuseReadIn.fh))
    let transfer = this.#transfers!.get(fh)
    if (!transfer) this.#transfers!.set(fh, transfer = [fh, 0, 0])
    if (opcode === Op.READ) transfer[1] += used - FuseOutHeader.SIZE
    else transfer[2] += view.getUint32(at + Slot.OUT + FuseOutHeader.SIZE + FuseWriteOut.size, true)
  }

  /** A request without a reply of `length` bytes, at `view[head]` and, from byte 80 on, at `view[tail]`. */
  hiprio(opcode: number, view: DataView, head: number, tail: number, length: number): void {
    const nowMs = performance.now()
    const record: RequestRecord = {
      watches: this.#wanting(opcode, 0, 0), atMs: clockMs(), opcode, unique: uniqueAt(view, head), node: getU64(view, head + FuseInHeader.nodeid),
      pid: view.getUint32(head + FuseInHeader.pid, true), uid: view.getUint32(head + FuseInHeader.uid, true), gid: view.getUint32(head + FuseInHeader.gid, true),
      error: 0, bytes: 0, us: 0, queue: 'hiprio',
    }
    if (opcode === Op.FORGET || opcode === Op.BATCH_FORGET) {
      const forgotten: [number, number][] = []
      const sink = {
        forget: (low: number, high: number, countLow: number, countHigh: number) => { forgotten.push([low + high * 2 ** 32, countLow + countHigh * 2 ** 32]) },
        interrupt: () => {}, flush: () => {},
      }
      if (opcode === Op.FORGET) handOverForget(view, head, sink)
      else handOverBatch(view, head, tail, length, sink)
      record.forgotten = forgotten
    }
    if (record.watches.length > 0 || record.forgotten) this.#add(record, nowMs)
  }

  #add(record: RequestRecord, nowMs: number): void {
    if (this.#records.length === 0) this.#sinceMs = nowMs
    this.#records.push(record)
    if (this.#records.length >= MAX_BATCH || nowMs - this.#sinceMs > MAX_WAIT_MS) this.flush()
  }

  flush(): void {
    if (this.#records.length === 0 && !this.#transfers?.size) return
    this.#tell({ records: this.#records, transfers: [...this.#transfers?.values() ?? []] })
    this.#records = []
    this.#transfers?.clear()
  }
}

/** Who a thread is; undefined for one of another pid namespace, or of the kernel. */
function callerOf(pid: number): Caller | undefined {
  if (pid === 0) return undefined
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8')
    const field = (name: string): string => new RegExp(`^${name}:\\t(.*)$`, 'm').exec(status)![1]!
    // the last of four is that of file systems
    return { uid: Number(field('Uid').split('\t')[3]), gid: Number(field('Gid').split('\t')[3]), command: field('Name') }
  } catch {
    return undefined
  }
}
