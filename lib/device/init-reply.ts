/** What the reply to INIT says of every device here, whatever it serves. */
import { FUSE_KERNEL_MINOR_VERSION, FUSE_KERNEL_VERSION, FuseInitIn, FuseInitOut } from '../fuse/abi.js'
import type { DeviceRequest } from './handlers.js'

const MAX_WRITE = 1 << 20
const MAX_PAGES = 256
const MAX_BACKGROUND = 0xffff

/**
 * Clears the reply and writes the version.
 * @returns false when the kernel's major version is newer: it sees ours and sends INIT again
 */
export function writeVersion({ args, argsAt, reply, replyAt }: DeviceRequest): boolean {
  const same = args.getUint32(argsAt + FuseInitIn.major, true) <= FUSE_KERNEL_VERSION
  const minor = args.getUint32(argsAt + FuseInitIn.minor, true)
  for (let i = 0; i < FuseInitOut.SIZE; i += 4) reply.setUint32(replyAt + i, 0, true)
  reply.setUint32(replyAt + FuseInitOut.major, FUSE_KERNEL_VERSION, true)
  reply.setUint32(replyAt + FuseInitOut.minor, same ? Math.min(minor, FUSE_KERNEL_MINOR_VERSION) : FUSE_KERNEL_MINOR_VERSION, true)
  return same
}

/** Writes the flags, as two words, and the limits. */
export function writeFlagsAndLimits({ args, argsAt, reply, replyAt }: DeviceRequest, low: number, high: number): void {
  reply.setUint32(replyAt + FuseInitOut.max_readahead, args.getUint32(argsAt + FuseInitIn.max_readahead, true), true)
  reply.setUint32(replyAt + FuseInitOut.flags, low, true)
  reply.setUint32(replyAt + FuseInitOut.flags2, high, true)
  reply.setUint16(replyAt + FuseInitOut.max_background, MAX_BACKGROUND, true)
  reply.setUint16(replyAt + FuseInitOut.congestion_threshold, Math.floor(MAX_BACKGROUND / 4) * 3, true)
  reply.setUint32(replyAt + FuseInitOut.max_write, MAX_WRITE, true)
  reply.setUint32(replyAt + FuseInitOut.time_gran, 1, true)
  reply.setUint16(replyAt + FuseInitOut.max_pages, MAX_PAGES, true)
}
