/**
 * Layout of a split virtqueue.
 *
 * Source: virtio 1.2 §2.7 "Split Virtqueues". All fields are little endian. The three parts lie
 * one after the other in this project's memory, each aligned as §2.7 demands.
 */
import { defineStruct } from '../wire/struct.js'

export const VirtqDesc = defineStruct('virtq_desc', 16, { addr: 'u64', len: 'u32', flags: 'u16', next: 'u16' })
export const VIRTQ_DESC_F_NEXT = 1
export const VIRTQ_DESC_F_WRITE = 2
export const VIRTQ_DESC_F_INDIRECT = 4

/** Head of virtq_avail: flags, idx, then `ring: u16[size]`, then `used_event: u16`. */
export const VirtqAvail = defineStruct('virtq_avail', 4, { flags: 'u16', idx: 'u16' })
export const VIRTQ_AVAIL_F_NO_INTERRUPT = 1

/** Head of virtq_used: flags, idx, then `ring: virtq_used_elem[size]`, then `avail_event: u16`. */
export const VirtqUsed = defineStruct('virtq_used', 4, { flags: 'u16', idx: 'u16' })
export const VIRTQ_USED_F_NO_NOTIFY = 1
export const VirtqUsedElem = defineStruct('virtq_used_elem', 8, { id: 'u32', len: 'u32' })

/** Feature bits of virtio 1.2 §6 that matter to a ring. */
export const VIRTIO_F_INDIRECT_DESC = 28
export const VIRTIO_F_EVENT_IDX = 29
export const VIRTIO_F_VERSION_1 = 32

/** Byte offsets of one ring in its region. */
export interface RingLayout {
  /** Number of descriptors, a power of two. */
  readonly size: number
  readonly desc: number
  readonly avail: number
  readonly used: number
  /** avail.ring[size]: the driver's event word. */
  readonly usedEvent: number
  /** used.ring[size]: the device's event word. */
  readonly availEvent: number
  /** First byte behind the ring. */
  readonly end: number
}

const align = (at: number, to: number): number => Math.ceil(at / to) * to

/**
 * Places a ring of `size` entries at byte `at`:
 * 16·size for descriptors, 6 + 2·size for avail, 6 + 8·size for used (virtio 1.2 §2.7).
 *
 * @throws RangeError unless size is a power of two from 1 to 32768
 */
export function layoutRing(size: number, at: number): RingLayout {
  if (!Number.isInteger(size) || size < 1 || size > 32768 || (size & (size - 1)) !== 0) {
    throw new RangeError(`ring size is ${size}, expected a power of two from 1 to 32768`)
  }
  const desc = align(at, 16)
  const avail = desc + VirtqDesc.SIZE * size
  const usedEvent = avail + VirtqAvail.SIZE + 2 * size
  const used = align(usedEvent + 2, 4)
  const availEvent = used + VirtqUsed.SIZE + VirtqUsedElem.SIZE * size
  return { size, desc, avail, used, usedEvent, availEvent, end: availEvent + 2 }
}

/** virtio 1.2 §2.7.7.1 / Linux vring_need_event: did idx pass `event` since it was `old`? */
export function needEvent(event: number, now: number, old: number): boolean {
  return ((now - event - 1) & 0xffff) < ((now - old) & 0xffff)
}
