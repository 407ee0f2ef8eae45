/**
 * What is said on the control socket of a mount: one JSON object a line, each way. A request is
 * answered by one line; what is streamed goes on until either side closes.
 */
import type { MountStatus } from '../mount/mount-status.js'

export type ControlRequest =
  | { command: 'status' }

/** The answer to each command; or `{ error }` for what is not understood. */
export interface ControlAnswers {
  status: MountStatus
}

/** A line may not be longer, in characters. */
export const MAX_LINE = 1 << 20
