/** Exit codes of mount(8). */
import { errorLine, PeerGoneError, ProtocolError, SyscallError, UsageError } from '../lib/errors.js'
import { TagInUseError } from '../lib/driver/tag-registry.js'

export const ExitCode = { OK: 0, USAGE: 1, SYSTEM: 2, BUG: 4, INTERRUPTED: 8, FAILURE: 32 } as const

/** What they mean here. */
export const exitCodeHelp: Record<number, string> = {
  [ExitCode.OK]: 'success',
  [ExitCode.USAGE]: 'wrong usage, or not permitted',
  [ExitCode.SYSTEM]: 'the system lacks something: memory, descriptors',
  [ExitCode.BUG]: 'a bug in this program',
  [ExitCode.INTERRUPTED]: 'interrupted before the mount was usable',
  [ExitCode.FAILURE]: 'mounting or unmounting failed: no such source, nobody listens, a backend that breaks the protocol, a mount in use',
}

const SYSTEM_CODES = new Set(['ENOMEM', 'EMFILE', 'ENFILE', 'EAGAIN'])
const PERMISSION_CODES = new Set(['EPERM', 'EACCES'])

/** The exit code for something that was thrown. */
export function exitCodeOf(error: unknown): number {
  if (error instanceof UsageError) return error.code === 'EINVAL' || PERMISSION_CODES.has(error.code) ? ExitCode.USAGE : ExitCode.FAILURE
  if (error instanceof SyscallError || (error as NodeJS.ErrnoException | undefined)?.syscall !== undefined) {
    const { code } = error as NodeJS.ErrnoException
    return SYSTEM_CODES.has(code ?? '') ? ExitCode.SYSTEM : PERMISSION_CODES.has(code ?? '') ? ExitCode.USAGE : ExitCode.FAILURE
  }
  if (error instanceof PeerGoneError || error instanceof ProtocolError || error instanceof TagInUseError) return ExitCode.FAILURE
  return ExitCode.BUG
}

/** Tells what was thrown, in one line. @returns the exit code for it */
export function endBy(error: unknown): number {
  console.error(`virtiofs-bridge: ${errorLine(error)}`)
  return exitCodeOf(error)
}
