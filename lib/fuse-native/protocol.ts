/** What the process of a mount and its parent tell each other, by the channel that Node makes between them. */
import { PeerGoneError, ProtocolError, SyscallError, UsageError } from '../errors.js'
import type { InitAnswer } from '../fuse/init.js'
import type { ServedDevice } from '../device/serve.js'
import { Counter } from '../driver/counters.js'
import { TagInUseError } from '../driver/tag-registry.js'
import type { MountOptions } from '../mount/options.js'

/** Descriptor of the counters in the child: a block of lib/driver/counters.ts that both have mapped. */
export const COUNTERS_FD = 4
export const COUNTERS_BYTES = Counter.SIZE * 8

export type ToChild =
  /** @param libfuse its options, as one text */
  | { kind: 'mount', source: string | ServedDevice, mountpoint: string, options: MountOptions, libfuse: string }
  /** Abort the connection; end also what waits for the device. */
  | { kind: 'abort' }
  /** End the session, whether it is unmounted or not. */
  | { kind: 'end' }

export type ToParent =
  | { kind: 'usable', tag: string, init: InitAnswer, connection: number, queueSize: number, features: readonly string[], protocolFeatures: readonly string[], notices: readonly string[] }
  | { kind: 'failed', failure: Failure }
  | { kind: 'gone', reason: string }
  /** `idleTimeout` has passed, and it is being unmounted. */
  | { kind: 'idle' }
  /** Nothing of it is mounted any more. */
  | { kind: 'unmounted' }

/** An error of ours on its way between two processes. */
export interface Failure {
  type: string
  message: string
  code: string | undefined
  errno: number | undefined
  syscall: string | undefined
}

export function failureOf(error: unknown): Failure {
  const { name, message, code, errno, syscall } = error instanceof Error ? error as NodeJS.ErrnoException : { name: 'Error', message: String(error), code: undefined, errno: undefined, syscall: undefined }
  return { type: error instanceof TagInUseError ? 'TagInUseError' : name, message, code, errno, syscall }
}

/** The error again, of the same class, so that it has the same exit code. @param said what libfuse has printed */
export function errorOf({ type, message, code, errno, syscall }: Failure, said: string): Error {
  const text = said === '' ? message : `${message} (${said})`
  switch (type) {
    case 'UsageError': return new UsageError(text, code)
    case 'PeerGoneError': return new PeerGoneError(text, code as PeerGoneError['code'])
    case 'SyscallError': return Object.assign(new SyscallError(syscall!, errno!), { message: text })
    case 'ProtocolError': return Object.assign(new ProtocolError('', '', '', ''), { message: text })
    case 'TagInUseError': return Object.assign(new TagInUseError(''), { message: text })
    default: return Object.assign(new Error(text), { code, errno, syscall })
  }
}
