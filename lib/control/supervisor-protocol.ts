/** What the supervisor of a mount and the process that serves it say to each other, as messages of Node's own channel. */
import type { ReplacementTarget } from '../driver/transport.js'
import type { MountRequest } from '../mount/mount.js'
import type { Inherited, MountFacts } from '../mount/supervision.js'

/** Descriptors of the process that serves, beside standard ones and the channel. */
export const ServerFd = {
  CHANNEL: 3,
  /** Memory for what the next process needs. */
  STATE: 4,
  /** Of the first process: where it sends its own descriptors. Of others: /dev/fuse. */
  HANDOVER: 5,
  FUSE: 5,
  /** The locked file of the tag. */
  TAG: 6,
} as const

export type ToServer =
  | { type: 'serve', request: MountRequest, background: boolean, supervisor: number, inherited?: Omit<Inherited, 'fuseFd' | 'tagFd'> }
  /** The supervisor has what the next process needs. */
  | { type: 'held' }

export type FromServer =
  /** It is mounted; /dev/fuse and the file of the tag are on their way. */
  | { type: 'mounted', facts: MountFacts }
  | { type: 'usable' }
  | { type: 'replaced', target: ReplacementTarget }
  /** It ends for this reason, and another may go on. */
  | { type: 'failed', reason: string }
  /** The mount has ended, and the process ends too. */
  | { type: 'ended' }
