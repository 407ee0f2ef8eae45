/**
 * Serves a `FileSystem`: the adapter between the requests of a virtqueue and its methods, loaded by
 * the queue worker of a served device. Whatever a method does wrong (a value that makes no sense,
 * an exception that is no FuseError) fails its request with EIO and is told in one line under
 * DEBUG=virtiofs:device.
 */
import { writeSync } from 'node:fs'
import { format } from 'node:util'
import createDebug from 'debug'
import { errno, errorLine, UsageError } from '../errors.js'
import { FUSE_COMPAT_SETXATTR_IN_SIZE, FuseInitIn } from '../fuse/abi.js'
import { Op, OPCODE_LIMIT, opcodeName, opcodeRow } from '../fuse/opcodes.js'
import type { FileSystem } from './file-system.js'
import { operations, type Operation } from './file-system-operations.js'
import { fuseErrorNumber } from './fuse-error.js'
import { NO_REPLY, type DeviceRequest, type LoopHandlers } from './handlers.js'
import { InterruptSignals } from './interrupt-signals.js'
import { loadModule } from './load-module.js'
import { ServedSession } from './served-session.js'

const debug = createDebug('virtiofs:device')
// the thread never returns to its event loop, which would write what process.stderr was given
debug.log = (...args: unknown[]): void => {
  try {
    writeSync(2, `${format(...args)}\n`)
  } catch {
    // nobody reads it
  }
}

/** Least bytes of arguments, and of room for the reply, that an operation may count on. */
const leastArgs = new Uint16Array(OPCODE_LIMIT)
const leastReply = new Uint16Array(OPCODE_LIMIT)
const silent = new Uint8Array(OPCODE_LIMIT)
for (let opcode = 0; opcode < OPCODE_LIMIT; opcode++) {
  const row = opcodeRow(opcode)
  if (!row) continue
  leastArgs[opcode] = row.inBytes
  leastReply[opcode] = Math.max(0, row.outBytes)
  silent[opcode] = row.outBytes < 0 ? 1 : 0
}
// both have grown: what older kernels send is good too
leastArgs[Op.INIT] = FuseInitIn.flags2
leastArgs[Op.SETXATTR] = FUSE_COMPAT_SETXATTR_IN_SIZE

/** A mistake in one line: what, and where it was made. */
function mistake(error: unknown): string {
  const frame = error instanceof Error ? error.stack?.split('\n').find(line => line.trimStart().startsWith('at ')) : undefined
  return `${error instanceof Error ? `${error.name}: ` : ''}${errorLine(error)}${frame === undefined ? '' : ` (${frame.trim()})`}`
}

export class FileSystemHandlers implements LoopHandlers {
  readonly #session: ServedSession
  readonly #signals: InterruptSignals | undefined

  /** @param interrupts given when methods may return promises */
  constructor(fs: FileSystem, interrupts?: SharedArrayBuffer) {
    this.#signals = interrupts && new InterruptSignals(interrupts)
    this.#session = new ServedSession(fs, this.#signals)
  }

  handle(request: DeviceRequest): number | Promise<number> {
    const { opcode } = request
    const operation = opcode < OPCODE_LIMIT ? operations[opcode] : undefined
    if (operation === undefined) return silent[opcode] === 1 ? NO_REPLY : -errno.ENOSYS
    const least = leastArgs[opcode]!
    if (request.argsBytes < least || request.extensionBytes > request.argsBytes - least || request.replyBytes < leastReply[opcode]!) {
      return silent[opcode] === 1 ? NO_REPLY : -errno.EINVAL
    }
    try {
      const value = operation.call(this.#session, request)
      if (value instanceof Promise) return this.#later(operation, request, value)
      const bytes = operation.reply(this.#session, request, value)
      this.#signals?.done(request.uniqueLow, request.uniqueHigh)
      return bytes
    } catch (error) {
      return this.#failed(operation, request, error)
    }
  }

  #later(operation: Operation, request: DeviceRequest, promise: Promise<unknown>): Promise<number> {
    if (this.#signals === undefined) {
      promise.catch(() => {})
      throw new TypeError('a promise was returned, and the device was made without async')
    }
    return this.#settled(operation, request, promise)
  }

  async #settled(operation: Operation, request: DeviceRequest, promise: Promise<unknown>): Promise<number> {
    try {
      const bytes = operation.reply(this.#session, request, await promise)
      this.#signals!.done(request.uniqueLow, request.uniqueHigh)
      return bytes
    } catch (error) {
      return this.#failed(operation, request, error)
    }
  }

  #failed(operation: Operation, request: DeviceRequest, error: unknown): number {
    const { opcode, nodeid, uniqueLow, uniqueHigh } = request
    let number = fuseErrorNumber(error)
    if (number === 0 && this.#signals?.caused(uniqueLow, uniqueHigh, error)) number = errno.EINTR
    this.#signals?.done(uniqueLow, uniqueHigh)
    if (number === 0) debug('%s n%d fails with EIO: %s', opcodeName(opcode), nodeid, mistake(error))
    if (silent[opcode] === 1) return NO_REPLY
    return operation.failed?.(this.#session, request, number || errno.EIO) ?? -(number || errno.EIO)
  }

  interrupted(uniqueLow: number, uniqueHigh: number): void {
    this.#signals?.interrupted(uniqueLow, uniqueHigh)
  }

  async close(): Promise<void> {
    try {
      await this.#session.end()
    } catch (error) {
      debug('destroy: %s', mistake(error))
    }
  }
}

/** What a worker is told of a served device. */
export interface ServedData {
  /** URL of the module whose default export is the class. */
  module: string
  /** Given to its constructor. */
  data: unknown
  /** FUSE_INTERRUPTs of the device, when methods may return promises. */
  interrupts?: SharedArrayBuffer | undefined
}

/** Entry for the thread. @throws UsageError when the module has no such class */
export async function createHandlers(data: unknown): Promise<FileSystemHandlers> {
  const served = data as ServedData
  const { default: Class } = await loadModule<{ default?: new (data: unknown) => FileSystem }>(served.module)
  if (typeof Class !== 'function') throw new UsageError(`${served.module} has no class as its default export`)
  const fs = new Class(served.data)
  if (typeof fs.lookup !== 'function' || typeof fs.forget !== 'function') throw new UsageError(`the default export of ${served.module} does not extend FileSystem`)
  return new FileSystemHandlers(fs, served.interrupts)
}
