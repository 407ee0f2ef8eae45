/** Errors as node:fs throws them: code, errno, syscall, path and dest, and its messages. */
import { constants } from 'node:os'
import { getSystemErrorMap, inspect } from 'node:util'

/** What a failed call of a connected file system rejects with. */
export interface FsError extends Error {
  /** Such as `ENOENT`. */
  code: string
  /** Negative, as node:fs has it. */
  errno: number
  syscall: string
  path?: string
  dest?: string
}

const messages = getSystemErrorMap()
/** What file systems of Linux say and libuv has no words for. */
const FURTHER: Record<string, string> = { EDQUOT: 'disk quota exceeded', ESTALE: 'stale file handle' }

/** Name and words of −errno. */
function describe(error: number): readonly [code: string, text: string] {
  const known = messages.get(error)
  if (known) return known
  const code = Object.entries(constants.errno).find(([, number]) => number === -error)?.[0] ?? `errno ${-error}`
  return [code, FURTHER[code] ?? 'system error']
}

/**
 * @param error −errno
 * @param path as it was given
 * @param dest the second path, of rename and the like
 */
export function fsError(error: number, syscall: string, path?: string, dest?: string): FsError {
  const [code, text] = describe(error)
  const where = path === undefined ? '' : dest === undefined ? ` '${path}'` : ` '${path}' -> '${dest}'`
  const made = new Error(`${code}: ${text}, ${syscall}${where}`) as FsError
  made.errno = error
  made.code = code
  made.syscall = syscall
  if (path !== undefined) made.path = path
  if (dest !== undefined) made.dest = dest
  Error.captureStackTrace(made, fsError)
  return made
}

/** The error of an operation whose AbortSignal was triggered. */
export function abortError(signal: AbortSignal): Error {
  const error = new Error('The operation was aborted', { cause: signal.reason as unknown })
  error.name = 'AbortError'
  return Object.assign(error, { code: 'ABORT_ERR' })
}

/**
 * Passes a good result on.
 * @throws FsError for −errno; AbortError when that came from the signal
 */
export function unwrap<T>(result: T | number, syscall: string, path?: string, dest?: string, signal?: AbortSignal): T {
  if (typeof result !== 'number' || result >= 0) return result as T
  if (signal?.aborted && result === -constants.errno.EINTR) throw abortError(signal)
  throw fsError(result, syscall, path, dest)
}

function coded<E extends Error>(error: E, code: string): E {
  Object.defineProperty(error, 'code', { value: code, enumerable: true, writable: true, configurable: true })
  error.stack = error.stack!.replace(error.name, `${error.name} [${code}]`)
  return error
}

function received(value: unknown): string {
  if (value === null || value === undefined) return ` Received ${String(value)}`
  if (typeof value === 'function') return ` Received function ${value.name}`
  if (typeof value === 'object') return value.constructor?.name ? ` Received an instance of ${value.constructor.name}` : ` Received ${inspect(value, { depth: -1 })}`
  return ` Received type ${typeof value} (${inspect(value, { colors: false }).slice(0, 28)})`
}

/** @param expected such as `of type number` */
export function invalidType(name: string, expected: string, value: unknown): TypeError {
  const what = name.includes('.') ? 'property' : 'argument'
  return coded(new TypeError(`The "${name}" ${what} must be ${expected}.${received(value)}`), 'ERR_INVALID_ARG_TYPE')
}

export function invalidValue(name: string, value: unknown, reason = 'is invalid'): TypeError {
  const what = name.includes('.') ? 'property' : 'argument'
  return coded(new TypeError(`The ${what} '${name}' ${reason}. Received ${inspect(value)}`), 'ERR_INVALID_ARG_VALUE')
}

export function outOfRange(name: string, range: string, value: unknown): RangeError {
  return coded(new RangeError(`The value of "${name}" is out of range. It must be ${range}. Received ${String(value)}`), 'ERR_OUT_OF_RANGE')
}

/** An error of node's own that is no system call's, such as ERR_DIR_CLOSED. */
export function nodeError(code: string, message: string): Error {
  return coded(new Error(message), code)
}

/** The errors of rm and cp: a code of node's own with the errno that it stands for. */
export function systemError(code: string, message: string, error: number, syscall: string, path: string): Error {
  const [name, text] = describe(-error)
  const made = coded(new Error(`${message}: ${syscall} returned ${name} (${text}) ${path}`), code)
  made.name = 'SystemError'
  const info = { message: text, path, syscall, errno: error, code: name }
  return Object.assign(made, { info, errno: error, syscall, path })
}
