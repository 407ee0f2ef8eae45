/** The chain of a request in a slot, and whether what comes back in it is a reply. */
import { FuseOutHeader } from '../fuse/abi.js'
import type { Region } from '../sys/memory.js'
import { writeDescriptor } from '../virtio/driver-ring.js'
import { VIRTQ_DESC_F_WRITE } from '../virtio/split-ring.js'
import { REQUEST_HEAD_BYTES, Slot } from './memory-plan.js'
import { NO_BUFFER, type SlotTable } from './slot-table.js'

/** Errors beyond this are not errno numbers (the reply check in fs/fuse/dev.c). */
const ERROR_LIMIT = 512

/** Writes the chain into the slot's table: readable parts, then writable ones. @returns how many descriptors */
export function buildChain(region: Region, slots: SlotTable, slot: number): number {
  const length = slots.inBytes[slot]!
  const inLarge = slots.largeIn[slot]!
  return inLarge === NO_BUFFER ? writeChain(region, slots, slot, length, 0, 0)
    : writeChain(region, slots, slot, REQUEST_HEAD_BYTES, slots.largeAt(inLarge), length - REQUEST_HEAD_BYTES)
}

/**
 * The same for a request whose parts lie anywhere.
 *
 * @param headBytes bytes of the request that lie in the slot
 * @param tailAt byte of the region where the rest lies, `tailBytes` of it, which may be none
 */
export function writeChain({ view, address }: Region, slots: SlotTable, slot: number, headBytes: number, tailAt: number, tailBytes: number): number {
  const at = slots.at(slot)
  const table = at + Slot.TABLE
  const payloadBytes = slots.payloadBytes[slot]!
  let count = 0
  writeDescriptor(view, table, count++, address + at + Slot.IN, headBytes, 0, false)
  if (tailBytes > 0) writeDescriptor(view, table, count++, address + tailAt, tailBytes, 0, false)
  writeDescriptor(view, table, count++, address + at + Slot.OUT, slots.fixedBytes[slot]!, VIRTQ_DESC_F_WRITE, payloadBytes === 0)
  if (payloadBytes > 0) writeDescriptor(view, table, count++, address + slots.payloadAt[slot]!, payloadBytes, VIRTQ_DESC_F_WRITE, true)
  // a device that leaves the header unwritten must not be heard saying what an older reply said
  view.setUint32(at + Slot.OUT + FuseOutHeader.len, 0, true)
  return count
}

/**
 * virtio_fs_verify_response of Linux 7.1, and the bounds of the buffers.
 *
 * @param used length in the used ring
 * @param error of the header, read once: the device can change it
 */
export function isSound(view: DataView, slots: SlotTable, slot: number, used: number, error: number): boolean {
  const out = slots.at(slot) + Slot.OUT
  return used >= FuseOutHeader.SIZE && used <= slots.fixedBytes[slot]! + slots.payloadBytes[slot]!
    && view.getUint32(out + FuseOutHeader.len, true) === used
    && view.getUint32(out + FuseOutHeader.unique, true) === slots.uniqueLow[slot]!
    && view.getUint32(out + FuseOutHeader.unique + 4, true) === slots.uniqueHigh[slot]!
    && error <= 0 && error > -ERROR_LIMIT && (error === 0 || used === FuseOutHeader.SIZE)
}
