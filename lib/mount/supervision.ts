/**
 * What passes between the process that serves a mount and its supervisor (bin/supervise-command.ts):
 * the supervisor holds descriptors and facts of the mount, and gives them to the next such process.
 */
import type { DeviceInfo, ReplacementTarget } from '../driver/transport.js'
import type { Survival } from '../driver/virtio-fs-options.js'
import { UsageError } from '../errors.js'
import type { InitAnswer } from '../fuse/init.js'
import type { LiveMount } from './live-tags.js'
import type { MountOptions } from './options.js'
import type { Source } from './source.js'

/** What is known of a mount from its beginning on. */
export interface MountFacts {
  /** What its tag says. */
  live: LiveMount
  device: DeviceInfo
  /** The kernel's answer to INIT. */
  init: InitAnswer
  notices: readonly string[]
  sinceMs: number
}

/** A mount that another process has served before. */
export interface Inherited extends MountFacts {
  /** How many have. */
  restarts: number
  /** The backend that took over last, if one did. */
  replaced: ReplacementTarget
  fuseFd: number
  /** The locked file of its tag. */
  tagFd: number
}

/** The supervisor, as the process that serves sees it. */
export interface Supervision extends Pick<Survival, 'stateFd' | 'failed'> {
  /** Process id of the supervisor. */
  readonly pid: number
  readonly inherited?: Inherited
  /** Resolves when the supervisor has it all: from then on this process may be killed. */
  handOver(facts: MountFacts, fuseFd: number, tagFd: number): Promise<void>
  /** Another backend has taken over. */
  replaced(target: ReplacementTarget): void
}

/** @throws UsageError for what cannot outlive the process that serves it */
export function checkSupervise({ kind }: Source, mountpoint: string, options: MountOptions): void {
  const refuse = (why: string): never => { throw new UsageError(`option supervise ${why}`) }
  if (kind === 'served') refuse('is for directories and sockets')
  if (kind === 'remote') refuse('needs a device on this host: nobody can tell when the far end of a line stops working on requests')
  if (options.queues !== undefined && options.queues > 1) refuse('goes with one request queue')
  if (options.direct) refuse('does not go with direct: the kernel has files that only one process can give it')
  if (options.cache === 'coherent') refuse('does not go with cache=coherent: changes on the host would be missed meanwhile')
  if (options.autoUnmount) refuse('does not go with auto_unmount: a mount whose process is killed goes on')
  if (/^\/dev\/fd\//.test(mountpoint)) refuse('does not go with a mount point /dev/fd/N')
  if (options.onDisconnect === 'fail' && (kind === 'socket' || options.backend !== undefined)) refuse('does not go with on_disconnect=fail: the backend ends with the process, and is waited for')
}

/** Whether a device in another process is waited for, which goes when this process does. */
export function waitsForDevice({ kind }: Source, options: MountOptions): boolean {
  return options.onDisconnect === 'wait' || (options.supervise === true && (kind === 'socket' || options.backend !== undefined))
}
