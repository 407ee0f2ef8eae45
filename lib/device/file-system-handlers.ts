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
import { fuseErrorNumber, type FileSystem } from './file-system.js'
import { operations } from './file-system-operations.js'
import { NO_REPLY, type DeviceRequest, type Handlers } from './handlers.js'
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

export class FileSystemHandlers implements Handlers {
  readonly #session: ServedSession

  constructor(fs: FileSystem) {
    this.#session = new ServedSession(fs)
  }

  handle(request: DeviceRequest): number {
    const { opcode } = request
    const operation = opcode < OPCODE_LIMIT ? operations[opcode] : undefined
    if (operation === undefined) return silent[opcode] === 1 ? NO_REPLY : -errno.ENOSYS
    const least = leastArgs[opcode]!
    if (request.argsBytes < least || request.extensionBytes > request.argsBytes - least || request.replyBytes < leastReply[opcode]!) {
      return silent[opcode] === 1 ? NO_REPLY : -errno.EINVAL
    }
    try {
      return operation(this.#session, request)
    } catch (error) {
      return this.#failed(request, error)
    }
  }

  #failed(request: DeviceRequest, error: unknown): number {
    const number = fuseErrorNumber(error)
    if (number === 0) debug('%s n%d fails with EIO: %s', opcodeName(request.opcode), request.nodeid, mistake(error))
    return silent[request.opcode] === 1 ? NO_REPLY : -(number || errno.EIO)
  }

  close(): void {
    try {
      this.#session.end()
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
}

/** Entry for the worker thread. @throws UsageError when the module has no such class */
export async function createHandlers(data: unknown): Promise<FileSystemHandlers> {
  const served = data as ServedData
  const { default: Class } = await import(served.module) as { default?: new (data: unknown) => FileSystem }
  if (typeof Class !== 'function') throw new UsageError(`${served.module} has no class as its default export`)
  const fs = new Class(served.data)
  if (typeof fs.lookup !== 'function' || typeof fs.forget !== 'function') throw new UsageError(`the default export of ${served.module} does not extend FileSystem`)
  return new FileSystemHandlers(fs)
}
