/** How a method of a file system fails. */
import { errno } from '../errors.js'

/** Name of an error number, such as `ENOENT`. */
export type ErrnoName = keyof typeof errno

/**
 * The answer of a method that fails. An answer, not an accident: it has no stack, which would cost
 * four times the rest of it.
 */
export class FuseError extends Error {
  readonly code: ErrnoName
  /** Positive. */
  readonly errno: number

  /** @throws TypeError when there is no such error */
  constructor(code: ErrnoName) {
    const { stackTraceLimit } = Error
    Error.stackTraceLimit = 0
    super(code)
    Error.stackTraceLimit = stackTraceLimit
    if (!Object.hasOwn(errno, code)) throw new TypeError(`${String(code)} is not the name of an error`)
    this.name = 'FuseError'
    this.code = code
    this.errno = errno[code]
  }
}

/** Errors beyond this are not errno numbers (MAX_ERRNO of the reply check in fs/fuse/dev.c). */
const ERROR_LIMIT = 512

/**
 * The errno of a FuseError, 0 for anything else.
 * @internal By its shape: a file system may have got its FuseError from another copy of this package.
 */
export function fuseErrorNumber(error: unknown): number {
  if (!(error instanceof Error) || error.name !== 'FuseError') return 0
  const number = (error as FuseError).errno
  return Number.isInteger(number) && number > 0 && number < ERROR_LIMIT ? number : 0
}
