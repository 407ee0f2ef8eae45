/**
 * The trace of one worker: a JSON record per request and lifecycle event, and readable lines under
 * DEBUG=virtiofs:fuse. Made only when somebody asked for it; the data path then pays with strings.
 * Payload never appears in it.
 */
import { closeSync, openSync, writeSync } from 'node:fs'
import createDebug from 'debug'
import { errnoName } from '../errors.js'
import { FuseInHeader } from '../fuse/abi.js'
import { opcodeName, opcodeRow } from '../fuse/opcodes.js'

const debug = createDebug('virtiofs:fuse')
const FLUSH_CHARS = 1 << 16

/** A line-buffered trace file, opened for appending: each thread has its own descriptor. */
export class TraceFile {
  readonly #fd: number
  #text = ''

  /** @throws NodeJS.ErrnoException when the file cannot be opened */
  constructor(path: string) {
    this.#fd = openSync(path, 'a', 0o600)
  }

  write(record: object): void {
    this.#text += JSON.stringify(record) + '\n'
    if (this.#text.length > FLUSH_CHARS) this.flush()
  }

  flush(): void {
    if (this.#text === '') return
    writeSync(this.#fd, this.#text)
    this.#text = ''
  }

  close(): void {
    this.flush()
    closeSync(this.#fd)
  }
}

/** Whether a worker needs a trace at all. */
export function traceWanted(path: string | undefined): boolean {
  return path !== undefined || debug.enabled
}

export class RequestTrace {
  readonly #file: TraceFile | undefined
  readonly #queue: number

  constructor(path: string | undefined, queue: number) {
    this.#file = path === undefined ? undefined : new TraceFile(path)
    this.#queue = queue
  }

  /** A request was read from the kernel, at `view[at]`. */
  received(view: DataView, at: number): void {
    if (!debug.enabled) return
    const opcode = view.getUint32(at + FuseInHeader.opcode, true)
    debug('rx %d %s n%d%s p%d q%d', unique(view, at), opcodeName(opcode), Number(view.getBigUint64(at + FuseInHeader.nodeid, true)),
      name(view, at, opcode), view.getUint32(at + FuseInHeader.pid, true), this.#queue)
  }

  /**
   * A request ended. @param error 0 or −errno @param bytes of the reply, header included
   * @param startMs `performance.now()` when it was read
   */
  ended(view: DataView, at: number, opcode: number, error: number, bytes: number, startMs: number): void {
    const us = Math.round((performance.now() - startMs) * 1000)
    if (debug.enabled) debug('tx %d %s %db %dus', unique(view, at), errnoName(-error), bytes, us)
    this.#file?.write({
      op: opcodeName(opcode), unique: unique(view, at), node: Number(view.getBigUint64(at + FuseInHeader.nodeid, true)),
      error, bytes, us, queue: this.#queue,
    })
  }

  /** A FORGET or INTERRUPT was handed to the hiprio queue. */
  hiprio(opcode: number, view: DataView, at: number): void {
    if (debug.enabled) debug('rx %d %s q%d', unique(view, at), opcodeName(opcode), this.#queue)
    this.#file?.write({ op: opcodeName(opcode), unique: unique(view, at), node: Number(view.getBigUint64(at + FuseInHeader.nodeid, true)), error: 0, bytes: 0, us: 0, queue: 'hiprio' })
  }

  flush(): void {
    this.#file?.flush()
  }

  close(): void {
    this.#file?.close()
  }
}

function unique(view: DataView, at: number): number {
  return Number(view.getBigUint64(at + FuseInHeader.unique, true))
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
