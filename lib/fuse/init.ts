/**
 * FUSE_INIT on its way through the bridge. It is the one message that is not relayed byte for
 * byte: what only kernel and bridge share is taken out, what slots and rings cannot hold is
 * clamped (shared facts: native-notes/fuse-init.md).
 */
import { errnoName } from '../errors.js'
import { FUSE_INIT_FLAGS, FuseInHeader, FuseInitIn, FuseInitOut, FuseOutHeader, type InitFlag } from './abi.js'

/** What the bridge can carry, and how the mount was made. */
export interface InitPolicy {
  /** Largest payload of a WRITE in bytes. */
  maxWrite: number
  /** Most background requests the kernel may have in flight. */
  maxBackground: number
  /** The mount has default_permissions: without it the kernel refuses ALLOW_IDMAP. */
  defaultPermissions: boolean
  /** The device is in this process and may give files to the kernel (FUSE passthrough). */
  passthrough: boolean
  /** Callers wait for a device that is away: those of ASYNC_DIO could not be killed, since the kernel waits for it uninterruptibly. */
  waits?: boolean
}

/** The answer to INIT, decoded for people. */
export interface InitAnswer {
  major: number
  minor: number
  maxReadahead: number
  maxBackground: number
  congestionThreshold: number
  maxWrite: number
  maxPages: number
  timeGran: number
  flags: InitFlag[]
}

/**
 * Never offered to a device. Splicing and io_uring are ways to talk to /dev/fuse; RESEND and
 * timeouts are between kernel and bridge, and PASSTHROUGH is but for a device in this process; DAX windows and submounts have no /dev/fuse
 * counterpart.
 */
const NOT_RELAYED: readonly InitFlag[] = [
  'SPLICE_WRITE', 'SPLICE_MOVE', 'SPLICE_READ', 'MAP_ALIGNMENT', 'SUBMOUNTS', 'HAS_INODE_DAX',
  'PASSTHROUGH', 'OVER_IO_URING', 'HAS_RESEND', 'REQUEST_TIMEOUT',
]

/** Flags that a backend's options depend on: a refused INIT is explained by those not offered. */
const POLICY_FLAGS: readonly InitFlag[] = [
  'POSIX_ACL', 'DONT_MASK', 'SETXATTR_EXT', 'WRITEBACK_CACHE', 'HANDLE_KILLPRIV_V2', 'SECURITY_CTX', 'SUBMOUNTS',
  'ALLOW_IDMAP', 'CREATE_SUPP_GROUP', 'NO_OPEN_SUPPORT', 'NO_OPENDIR_SUPPORT',
]

function maskWords(names: readonly InitFlag[]): [low: number, high: number] {
  let low = 0
  let high = 0
  for (const name of names) {
    const bit = FUSE_INIT_FLAGS[name]
    if (bit < 32) low |= 1 << bit
    else high |= 1 << (bit - 32)
  }
  return [low >>> 0, high >>> 0]
}

const INIT_EXT = 1 << FUSE_INIT_FLAGS.INIT_EXT

/** Names of the flags that are set in the two words. */
export function initFlagNames(low: number, high: number): InitFlag[] {
  return (Object.keys(FUSE_INIT_FLAGS) as InitFlag[]).filter(name => {
    const bit = FUSE_INIT_FLAGS[name]
    return bit < 32 ? (low >>> bit) & 1 : (high >>> (bit - 32)) & 1
  })
}

/** The two words that hold the flags of these names. */
export function initFlagWords(names: readonly InitFlag[]): [low: number, high: number] {
  return maskWords(names)
}

/** What neither side hears of: a device may set flags that it was not offered, and the kernel believes them. */
function strippedWords(policy: InitPolicy): [low: number, high: number] {
  const stripped = policy.passthrough ? NOT_RELAYED.filter(name => name !== 'PASSTHROUGH') : NOT_RELAYED
  return maskWords([...stripped, ...policy.defaultPermissions ? [] : ['ALLOW_IDMAP'] as const, ...policy.waits ? ['ASYNC_DIO'] as const : []])
}

/** Takes out of the kernel's INIT, at `view[at]`, what the device must not see. */
export function adaptInitRequest(view: DataView, at: number, policy: InitPolicy): void {
  const arg = at + FuseInHeader.SIZE
  const [low, high] = strippedWords(policy)
  const flags = view.getUint32(arg + FuseInitIn.flags, true)
  view.setUint32(arg + FuseInitIn.flags, flags & ~low, true)
  if (flags & INIT_EXT) {
    view.setUint32(arg + FuseInitIn.flags2, view.getUint32(arg + FuseInitIn.flags2, true) & ~high, true)
  }
}

/**
 * Bounds the device's answer, at `view[at]`, by what the bridge can carry. Old devices send the
 * first 8 or 24 bytes of it (FUSE_COMPAT_INIT_OUT_SIZE, FUSE_COMPAT_22_INIT_OUT_SIZE).
 */
export function adaptInitReply(view: DataView, at: number, policy: InitPolicy): void {
  const arg = at + FuseOutHeader.SIZE
  const length = view.getUint32(at + FuseOutHeader.len, true) - FuseOutHeader.SIZE
  if (length < FuseInitOut.time_gran) return
  const [low, high] = strippedWords(policy)
  view.setUint32(arg + FuseInitOut.flags, view.getUint32(arg + FuseInitOut.flags, true) & ~low, true)
  const maxWrite = view.getUint32(arg + FuseInitOut.max_write, true)
  if (maxWrite > policy.maxWrite) view.setUint32(arg + FuseInitOut.max_write, policy.maxWrite, true)
  const background = view.getUint16(arg + FuseInitOut.max_background, true)
  if (background === 0 || background > policy.maxBackground) {
    view.setUint16(arg + FuseInitOut.max_background, policy.maxBackground, true)
    view.setUint16(arg + FuseInitOut.congestion_threshold, Math.floor(policy.maxBackground * 3 / 4), true)
  }
  if (length < FuseInitOut.SIZE) return
  view.setUint32(arg + FuseInitOut.flags2, view.getUint32(arg + FuseInitOut.flags2, true) & ~high, true)
  const pages = policy.maxWrite / 4096
  if (view.getUint16(arg + FuseInitOut.max_pages, true) > pages) view.setUint16(arg + FuseInitOut.max_pages, pages, true)
}

/** Decodes an answer whose fuse_init_out starts at `view[at]`. */
export function decodeInitAnswer(view: DataView, at: number): InitAnswer {
  const flags = view.getUint32(at + FuseInitOut.flags, true)
  const flags2 = flags & INIT_EXT ? view.getUint32(at + FuseInitOut.flags2, true) : 0
  return {
    major: view.getUint32(at + FuseInitOut.major, true),
    minor: view.getUint32(at + FuseInitOut.minor, true),
    maxReadahead: view.getUint32(at + FuseInitOut.max_readahead, true),
    maxBackground: view.getUint16(at + FuseInitOut.max_background, true),
    congestionThreshold: view.getUint16(at + FuseInitOut.congestion_threshold, true),
    maxWrite: view.getUint32(at + FuseInitOut.max_write, true),
    maxPages: view.getUint16(at + FuseInitOut.max_pages, true),
    timeGran: view.getUint32(at + FuseInitOut.time_gran, true),
    flags: initFlagNames(flags, flags2),
  }
}

/** Why a device may have refused INIT: one line. @param offered the flag words of the INIT it saw */
export function explainInitRefusal(error: number, offered: readonly [low: number, high: number]): string {
  const names = new Set<InitFlag>(initFlagNames(offered[0], offered[1]))
  const missing = POLICY_FLAGS.filter(flag => !names.has(flag))
  return `the device refused FUSE_INIT (${errnoName(-error)})`
    + (missing.length > 0 ? `; it may have been started with an option that needs one of the flags not offered here: ${missing.join(', ')}` : '')
}

/** Builds the INIT that a driver with no kernel behind it sends, at `view[at]`. @returns its length in bytes */
export function buildInitRequest(view: DataView, at: number, flags: readonly InitFlag[]): number {
  const length = FuseInHeader.SIZE + FuseInitIn.SIZE
  new Uint8Array(view.buffer, view.byteOffset + at, length).fill(0)
  const [low, high] = maskWords([...flags, 'INIT_EXT'])
  view.setUint32(at + FuseInHeader.len, length, true)
  view.setUint32(at + FuseInHeader.opcode, 26, true)
  view.setUint32(at + FuseInHeader.unique, 2, true)
  const arg = at + FuseInHeader.SIZE
  view.setUint32(arg + FuseInitIn.major, 7, true)
  view.setUint32(arg + FuseInitIn.minor, 45, true)
  view.setUint32(arg + FuseInitIn.max_readahead, 1 << 17, true)
  view.setUint32(arg + FuseInitIn.flags, low, true)
  view.setUint32(arg + FuseInitIn.flags2, high, true)
  return length
}
