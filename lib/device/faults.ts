/**
 * Faults on demand: handlers in front of others that fail, delay or swallow requests, as a test
 * tells them to through shared memory. For testing what stands on the other side of a device.
 */
import { errno } from '../errors.js'
import type { ErrnoName } from './fuse-error.js'
import { OPCODE_LIMIT, opcodeRows } from '../fuse/opcodes.js'
import { DROPPED, MAY_BLOCK, type DeviceHost, type DeviceRequest, type HandlersModule, type LoopHandlers } from './handlers.js'
import { Interrupts } from './interrupts.js'
import { loadModule } from './load-module.js'

/** Words of each opcode's rule. */
const FAIL_COUNT = 0
const FAIL_ERRNO = 1
const DELAY_MS = 2
const DROP_COUNT = 3
const RULE_WORDS = 4

/** Name of an opcode as in FUSE, such as `READ`. */
export type OpcodeName = string

function opcodeOf(name: OpcodeName): number {
  const row = opcodeRows.find(candidate => candidate.name === name)
  if (!row) throw new TypeError(`no FUSE opcode is called ${name}`)
  return row.opcode
}

function errnoOf(error: number | ErrnoName): number {
  const number = typeof error === 'string' ? errno[error] : error
  if (!Number.isInteger(number) || number <= 0) throw new TypeError(`${String(error)} is not an error`)
  return number
}

/**
 * The test's end: what the device does wrong, by FUSE opcode. Rules apply from the next request on.
 * The kernel answers much from its caches: what it does not send cannot fail.
 *
 * @example
 * const faults = new FaultControl()
 * const mounted = await mount({ source: '/srv/shared', mountpoint: '/mnt/shared', faults })
 * faults.failNext('MKDIR', 'ENOSPC')
 * await assert.rejects(mkdir('/mnt/shared/a'), { code: 'ENOSPC' })
 * faults.delay('MKDIR', 100)
 * await mkdir('/mnt/shared/a')
 * faults.clear()
 * await mounted.unmount()
 */
export class FaultControl {
  readonly shared = new SharedArrayBuffer(OPCODE_LIMIT * RULE_WORDS * 4)
  readonly #rules = new Int32Array(this.shared)

  /**
   * The next `times` requests of this kind fail.
   * @param error its name, or a positive errno
   * @throws TypeError when there is no such opcode or error
   */
  failNext(opcode: OpcodeName, error: number | ErrnoName, times = 1): void {
    const at = opcodeOf(opcode) * RULE_WORDS
    Atomics.store(this.#rules, at + FAIL_ERRNO, errnoOf(error))
    Atomics.store(this.#rules, at + FAIL_COUNT, times)
  }

  /** Requests of this kind wait first, until they are interrupted. @param ms milliseconds; 0 ends it */
  delay(opcode: OpcodeName, ms: number): void {
    Atomics.store(this.#rules, opcodeOf(opcode) * RULE_WORDS + DELAY_MS, ms)
  }

  /** The next `times` requests of this kind are never answered. */
  dropNext(opcode: OpcodeName, times = 1): void {
    Atomics.store(this.#rules, opcodeOf(opcode) * RULE_WORDS + DROP_COUNT, times)
  }

  /** No more faults. What was dropped stays so. */
  clear(): void {
    for (let at = 0; at < this.#rules.length; at++) Atomics.store(this.#rules, at, 0)
  }
}

export interface FaultsData {
  /** The handlers behind: what `createHandlers` of that module is given. */
  module: string
  data: unknown
  rules: SharedArrayBuffer
  interrupts: SharedArrayBuffer
}

/** Takes one from a counter. @returns whether there was one */
function take(rules: Int32Array, at: number): boolean {
  for (let count = Atomics.load(rules, at); count > 0; count = Atomics.load(rules, at)) {
    if (Atomics.compareExchange(rules, at, count, count - 1) === count) return true
  }
  return false
}

/** Of handlers that answer at once if those behind do. */
class Faults implements LoopHandlers {
  readonly #inner: LoopHandlers
  readonly #rules: Int32Array
  readonly #interrupts: Interrupts

  constructor(inner: LoopHandlers, data: FaultsData) {
    this.#inner = inner
    this.#rules = new Int32Array(data.rules)
    this.#interrupts = new Interrupts(data.interrupts)
  }

  handle(request: DeviceRequest): number | Promise<number> {
    if (request.opcode >= OPCODE_LIMIT) return this.#inner.handle(request)
    const at = request.opcode * RULE_WORDS
    const delayMs = Atomics.load(this.#rules, at + DELAY_MS)
    if (delayMs > 0) {
      if (!request.mayBlock) return MAY_BLOCK
      if (this.#interrupts.wait(request.uniqueLow, request.uniqueHigh, delayMs)) return -errno.EINTR
    }
    if (take(this.#rules, at + DROP_COUNT)) return DROPPED
    if (take(this.#rules, at + FAIL_COUNT)) return -Atomics.load(this.#rules, at + FAIL_ERRNO)
    return this.#inner.handle(request)
  }

  interrupted(uniqueLow: number, uniqueHigh: number): void {
    this.#inner.interrupted?.(uniqueLow, uniqueHigh)
  }

  close(): void | Promise<void> {
    return this.#inner.close()
  }
}

/** Entry for the worker threads. */
export async function createHandlers(data: unknown, host: DeviceHost): Promise<LoopHandlers> {
  const faults = data as FaultsData
  const module = await loadModule<HandlersModule<LoopHandlers>>(faults.module)
  return new Faults(await module.createHandlers(faults.data, host), faults)
}
