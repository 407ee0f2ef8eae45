/** One served file system, and what its requests need: beginning and end of a session, lookups, callers. */
import { FUSE_EXT_GROUPS, FUSE_KERNEL_VERSION, FUSE_ROOT_ID, FuseEntryOut, FuseExtHeader, FuseInitIn, FuseInitOut, FuseSuppGroups, type InitFlag } from '../fuse/abi.js'
import { initFlagNames, initFlagWords } from '../fuse/init.js'
import { getU64 } from '../wire/u64.js'
import type { FileSystem } from './file-system.js'
import type { Answer, Caller, Entry, Timeouts } from './file-system-values.js'
import { FuseError } from './fuse-error.js'
import type { DeviceRequest } from './handlers.js'
import { writeFlagsAndLimits, writeVersion } from './init-reply.js'
import { IovecBuffers } from './iovec-buffers.js'
import { LookupCounts } from './lookup-counts.js'
import type { InterruptSignals } from './interrupt-signals.js'
import { writeEntryOut } from './plain-values.js'
import { RequestText } from './request-text.js'

/** The oldest kernel served; virtio-fs came with 7.31. */
const OLDEST_MINOR = 31

/** Always answered when offered: they ask nothing of the file system. */
const ALWAYS: readonly InitFlag[] = [
  'ASYNC_READ', 'BIG_WRITES', 'AUTO_INVAL_DATA', 'ASYNC_DIO', 'PARALLEL_DIROPS', 'MAX_PAGES', 'INIT_EXT', 'CREATE_SUPP_GROUP',
  'DIRECT_IO_ALLOW_MMAP', 'DO_READDIRPLUS', 'READDIRPLUS_AUTO',
]

const NO_GROUPS: readonly number[] = Object.freeze([])
const NEVER = new AbortController().signal

export class ServedSession {
  readonly fs: FileSystem
  readonly counts = new LookupCounts()
  readonly text = new RequestText()
  readonly buffers = new IovecBuffers()
  timeouts: Timeouts
  readonly #signals: InterruptSignals | undefined
  #live = false

  /** @param signals when requests can be interrupted while they are at work */
  constructor(fs: FileSystem, signals?: InterruptSignals) {
    this.fs = fs
    this.timeouts = fs.timeouts
    this.#signals = signals
  }

  /** INIT: tells the file system. A second one starts a new session. @returns what its `init` returned */
  begin({ args, argsAt, argsBytes, replyBytes }: DeviceRequest): unknown {
    const major = args.getUint32(argsAt + FuseInitIn.major, true)
    const minor = args.getUint32(argsAt + FuseInitIn.minor, true)
    if (major < FUSE_KERNEL_VERSION || (major === FUSE_KERNEL_VERSION && minor < OLDEST_MINOR)) throw new FuseError('EPROTO')
    if (replyBytes < FuseInitOut.SIZE) throw new FuseError('EINVAL')
    // the kernel sees our major version and sends INIT again
    if (major > FUSE_KERNEL_VERSION) return undefined
    const ended = this.end()
    this.#live = true
    const kernel = { major, minor, flags: offeredFlags(args, argsAt, argsBytes) }
    return ended instanceof Promise ? ended.then(() => this.fs.init(kernel)) : this.fs.init(kernel)
  }

  /** The reply to INIT. @returns its size */
  begun(request: DeviceRequest): number {
    if (!writeVersion(request)) return FuseInitOut.SIZE
    const offered = offeredFlags(request.args, request.argsAt, request.argsBytes)
    this.timeouts = this.fs.timeouts
    const [low, high] = initFlagWords([...ALWAYS, ...this.fs.flags].filter(flag => offered.includes(flag)))
    writeFlagsAndLimits(request, low, high)
    return FuseInitOut.SIZE
  }

  /**
   * DESTROY, or the device goes: the kernel sends no FORGETs then. Does nothing when there is no session.
   * @returns what the file system's `destroy` returned
   */
  end(): Answer<void> {
    if (!this.#live) return undefined
    this.#live = false
    for (const node of this.counts.takeAll()) if (node !== FUSE_ROOT_ID) this.fs.forget(node)
    return this.fs.destroy()
  }

  forget(node: number, count: number): void {
    if (this.counts.subtract(node, count) && node !== FUSE_ROOT_ID) this.fs.forget(node)
  }

  /** Writes an entry, which counts as a lookup. @returns bytes of the reply */
  reply(request: DeviceRequest, entry: Entry): number {
    writeEntryOut(request.reply, request.replyAt, entry, this.timeouts)
    this.counts.add(entry.node)
    return FuseEntryOut.SIZE
  }

  caller({ uid, gid, pid, uniqueLow, uniqueHigh, extensionBytes, args, argsAt, argsBytes }: DeviceRequest): Caller {
    const groups = extensionBytes === 0 ? NO_GROUPS : readGroups(args, argsAt + argsBytes - extensionBytes, argsAt + argsBytes)
    const signals = this.#signals
    if (signals === undefined) return { uid, gid, pid, groups, signal: NEVER }
    return { uid, gid, pid, groups, get signal() { return signals.of(uniqueLow, uniqueHigh) } }
  }
}

function offeredFlags(args: DataView, argsAt: number, argsBytes: number): readonly InitFlag[] {
  const extended = argsBytes >= FuseInitIn.flags2 + 4
  return initFlagNames(args.getUint32(argsAt + FuseInitIn.flags, true), extended ? args.getUint32(argsAt + FuseInitIn.flags2, true) : 0)
}

/** FUSE_EXT_GROUPS among the extensions from `at` to `end`. @throws FuseError EINVAL */
function readGroups(view: DataView, at: number, end: number): readonly number[] {
  while (at + FuseExtHeader.SIZE <= end) {
    const size = view.getUint32(at + FuseExtHeader.size, true)
    if (size < FuseExtHeader.SIZE || size > end - at) throw new FuseError('EINVAL')
    const list = at + FuseExtHeader.SIZE
    if (view.getUint32(at + FuseExtHeader.type, true) === FUSE_EXT_GROUPS) {
      const count = size < FuseExtHeader.SIZE + FuseSuppGroups.SIZE ? Infinity : view.getUint32(list + FuseSuppGroups.nr_groups, true)
      if (FuseExtHeader.SIZE + FuseSuppGroups.SIZE + count * 4 > size) throw new FuseError('EINVAL')
      return Array.from({ length: count }, (_, i) => view.getUint32(list + FuseSuppGroups.SIZE + i * 4, true))
    }
    at += size
  }
  return NO_GROUPS
}

/**
 * A length or an offset of a request.
 * @throws FuseError when it is more than a number holds exactly
 */
export function readOffset(view: DataView, at: number, tooLarge: 'EFBIG' | 'EOVERFLOW' | 'EINVAL'): number {
  const value = getU64(view, at)
  if (value > Number.MAX_SAFE_INTEGER) throw new FuseError(tooLarge)
  return value
}
