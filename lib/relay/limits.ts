/** How much of the far end's memory a request takes: both ends count alike, so what is sent always fits. */
import { FuseInHeader, FuseWriteIn } from '../fuse/abi.js'
import { Op } from '../fuse/opcodes.js'
import { Slot } from '../driver/memory-plan.js'
import { PAGE_SIZE } from '../sys/memory.js'

/** fuse_in_header and fuse_write_in. */
export const WRITE_HEAD_BYTES = FuseInHeader.SIZE + FuseWriteIn.SIZE

/** Whether a request of so many bytes needs a large buffer. */
export function isLargeRequest(opcode: number, messageBytes: number): boolean {
  return opcode === Op.WRITE ? messageBytes - WRITE_HEAD_BYTES > PAGE_SIZE : messageBytes > Slot.IN_BYTES
}

/**
 * Large buffers that a request needs while it is in flight: for itself, and for its reply.
 * @param payloadBytes most bytes of payload in its reply
 */
export function largeBuffers(opcode: number, messageBytes: number, payloadBytes: number): number {
  return (isLargeRequest(opcode, messageBytes) ? 1 : 0) + (payloadBytes > PAGE_SIZE ? 1 : 0)
}
