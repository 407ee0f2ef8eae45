/** One served file system, and what its requests need: beginning and end of a session, lookups, callers. */
import { FUSE_EXT_GROUPS, FUSE_KERNEL_MINOR_VERSION, FUSE_KERNEL_VERSION, FUSE_ROOT_ID, FuseEntryOut, FuseExtHeader, FuseInitIn, FuseInitOut, FuseSuppGroups, type InitFlag } from '../fuse/abi.js'
import { initFlagNames, initFlagWords } from '../fuse/init.js'
import { getU64 } from '../wire/u64.js'
import { FuseError, type Caller, type Entry, type FileSystem, type Timeouts } from './file-system.js'
import type { DeviceRequest } from './handlers.js'
import { IovecBuffers } from './iovec-buffers.js'
import { LookupCounts } from './lookup-counts.js'
import { writeEntryOut } from './plain-values.js'
import { RequestText } from './request-text.js'

/** The oldest kernel served; virtio-fs came with 7.31. */
const OLDEST_MINOR = 31
const MAX_WRITE = 1 << 20
const MAX_PAGES = 256
const MAX_BACKGROUND = 0xffff

/** Always answered when offered: they ask nothing of the file system. */
const ALWAYS: readonly InitFlag[] = [
  'ASYNC_READ', 'BIG_WRITES', 'AUTO_INVAL_DATA', 'ASYNC_DIO', 'PARALLEL_DIROPS', 'MAX_PAGES', 'INIT_EXT', 'CREATE_SUPP_GROUP',
  'DIRECT_IO_ALLOW_MMAP', 'DO_READDIRPLUS', 'READDIRPLUS_AUTO',
]

const NO_GROUPS: readonly number[] = Object.freeze([])

export class ServedSession {
  readonly fs: FileSystem
  readonly counts = new LookupCounts()
  readonly text = new RequestText()
  readonly buffers = new IovecBuffers()
  timeouts: Timeouts
  #live = false

  constructor(fs: FileSystem) {
    this.fs = fs
    this.timeouts = fs.timeouts
  }

  /** INIT. A second one starts a new session. @returns bytes of the reply */
  begin(request: DeviceRequest): number {
    const { args, argsAt, reply, replyAt } = request
    const major = args.getUint32(argsAt + FuseInitIn.major, true)
    const minor = args.getUint32(argsAt + FuseInitIn.minor, true)
    if (major < FUSE_KERNEL_VERSION || (major === FUSE_KERNEL_VERSION && minor < OLDEST_MINOR)) throw new FuseError('EPROTO')
    if (request.replyBytes < FuseInitOut.SIZE) throw new FuseError('EINVAL')
    for (let i = 0; i < FuseInitOut.SIZE; i += 4) reply.setUint32(replyAt + i, 0, true)
    reply.setUint32(replyAt + FuseInitOut.major, FUSE_KERNEL_VERSION, true)
    reply.setUint32(replyAt + FuseInitOut.minor, FUSE_KERNEL_MINOR_VERSION, true)
    // a newer major version: the kernel sees ours and sends INIT again
    if (major > FUSE_KERNEL_VERSION) return FuseInitOut.SIZE
    reply.setUint32(replyAt + FuseInitOut.minor, Math.min(minor, FUSE_KERNEL_MINOR_VERSION), true)

    this.end()
    const extended = request.argsBytes >= FuseInitIn.flags2 + 4
    const offered = initFlagNames(args.getUint32(argsAt + FuseInitIn.flags, true), extended ? args.getUint32(argsAt + FuseInitIn.flags2, true) : 0)
    this.fs.init({ major, minor, flags: offered })
    this.#live = true
    this.timeouts = this.fs.timeouts
    const [low, high] = initFlagWords([...ALWAYS, ...this.fs.flags].filter(flag => offered.includes(flag)))
    reply.setUint32(replyAt + FuseInitOut.max_readahead, args.getUint32(argsAt + FuseInitIn.max_readahead, true), true)
    reply.setUint32(replyAt + FuseInitOut.flags, low, true)
    reply.setUint32(replyAt + FuseInitOut.flags2, high, true)
    reply.setUint16(replyAt + FuseInitOut.max_background, MAX_BACKGROUND, true)
    reply.setUint16(replyAt + FuseInitOut.congestion_threshold, Math.floor(MAX_BACKGROUND / 4) * 3, true)
    reply.setUint32(replyAt + FuseInitOut.max_write, MAX_WRITE, true)
    reply.setUint32(replyAt + FuseInitOut.time_gran, 1, true)
    reply.setUint16(replyAt + FuseInitOut.max_pages, MAX_PAGES, true)
    return FuseInitOut.SIZE
  }

  /** DESTROY, or the device goes: the kernel sends no FORGETs then. Does nothing when there is no session. */
  end(): void {
    if (!this.#live) return
    this.#live = false
    for (const node of this.counts.takeAll()) if (node !== FUSE_ROOT_ID) this.fs.forget(node)
    this.fs.destroy()
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

  caller({ uid, gid, pid, extensionBytes, args, argsAt, argsBytes }: DeviceRequest): Caller {
    return { uid, gid, pid, groups: extensionBytes === 0 ? NO_GROUPS : readGroups(args, argsAt + argsBytes - extensionBytes, argsAt + argsBytes) }
  }
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
