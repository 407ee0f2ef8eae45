/**
 * The four kinds of failure. None of them is used on the data path, where an errno is a negative
 * number.
 */
import { constants } from 'node:os'
import { getSystemErrorMap, getSystemErrorName } from 'node:util'

/** Linux errno numbers by name. */
export const errno = constants.errno

/** Name of a positive errno, such as `ENOENT`; `errno 999` for one that has none. */
export function errnoName(number: number): string {
  if (number === 0) return 'OK'
  if (number === 512) return 'ERESTARTSYS'
  const name = getSystemErrorName(-number)
  return name.startsWith('Unknown') ? `errno ${number}` : name
}

/** A system call failed. */
export class SyscallError extends Error {
  readonly code: string
  /** Positive errno. */
  readonly errno: number
  readonly syscall: string

  constructor(syscall: string, error: number, detail?: string) {
    const code = errnoName(error)
    super(`${syscall}${detail ? ` ${detail}` : ''}: ${code}`)
    this.name = 'SyscallError'
    this.code = code
    this.errno = error
    this.syscall = syscall
  }
}

/** The peer broke the protocol: which message, which field, what came and what was expected. */
export class ProtocolError extends Error {
  readonly code = 'EPROTO'

  constructor(
    readonly peerMessage: string,
    readonly field: string,
    readonly got: unknown,
    readonly expected: unknown,
  ) {
    super(`${peerMessage}: ${field} is ${String(got)}, expected ${String(expected)}`)
    this.name = 'ProtocolError'
  }
}

/** The peer is gone: its socket closed, it died, or it did not answer before the deadline. */
export class PeerGoneError extends Error {
  constructor(message: string, readonly code: 'ENOTCONN' | 'ETIMEDOUT' | 'ECONNREFUSED' | 'ENOENT' = 'ENOTCONN') {
    super(message)
    this.name = 'PeerGoneError'
  }
}

/**
 * Wrong usage. The code says of what: EINVAL for an option or an argument, or a state in which the
 * call makes no sense; another one for a thing named by them that is not there or not fit.
 */
export class UsageError extends Error {
  readonly code: string

  constructor(message: string, code = 'EINVAL') {
    super(message)
    this.name = 'UsageError'
    this.code = code
  }
}

/** Why a system call of Node failed, without the call: `no such file or directory (ENOENT)`. */
export function systemReason(error: unknown): string {
  const { errno: number, code } = error as NodeJS.ErrnoException
  const text = number === undefined ? undefined : getSystemErrorMap().get(number)?.[1]
  return text === undefined || code === undefined ? errorLine(error) : `${text} (${code})`
}

/** Anything that was thrown, as one line. */
export function errorLine(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).replace(/\s*\n\s*/g, ' ')
}
