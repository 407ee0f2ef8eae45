/**
 * Where everything lies in the memory that driver and device share: one memfd per device, rings
 * first, then the small buffers, then the large ones (native-notes/memory.md).
 *
 * Each request queue has a worker of its own, and each worker its own slots and large buffers, so
 * that nothing here is ever shared between threads.
 */
import { PAGE_SIZE } from '../sys/memory.js'
import { layoutRing, VirtqDesc, type RingLayout } from '../virtio/split-ring.js'

/** What the kernel's largest WRITE carries, and so the size of a large buffer. */
export const MAX_WRITE = 1 << 20

/** fuse_in_header and fuse_write_in: what stands before the payload of a WRITE. */
export const REQUEST_HEAD_BYTES = 80

/** A slot: one request in flight. Two pages: the small buffers, then a page for small payloads. */
export const Slot = {
  /** The request, up to `IN_BYTES` of it. */
  IN: 0,
  IN_BYTES: 1024,
  /** fuse_out_header and the fixed part of the reply; the largest is STATX with 16 + 288 bytes. */
  OUT: 1024,
  OUT_BYTES: 512,
  /** Descriptors of the chain, at most `TABLE_LENGTH`. */
  TABLE: 1536,
  TABLE_LENGTH: 4,
  PAGE: PAGE_SIZE,
  SIZE: 2 * PAGE_SIZE,
} as const

/** One buffer of the hiprio queue: a FORGET, a BATCH_FORGET or an INTERRUPT, and its descriptor. */
export const HiprioSlot = {
  MESSAGE: 0,
  MESSAGE_BYTES: 2048 - VirtqDesc.SIZE,
  TABLE: 2048 - VirtqDesc.SIZE,
  SIZE: 2048,
} as const

/** One worker's part of the memory. */
export interface WorkerPlan {
  readonly ring: RingLayout
  readonly slots: number
  readonly slotCount: number
  readonly large: number
  readonly largeCount: number
  /** Most requests that wait for room on the ring. */
  readonly parked: number
}

/** The notification queue: every buffer is with the device until there is something to tell. */
export interface NotificationPlan {
  readonly ring: RingLayout
  readonly buffers: number
  /** A whole number of 16 bytes, so that the tables behind the buffers are aligned. */
  readonly bufferBytes: number
  /** One descriptor for each buffer. */
  readonly tables: number
}

export interface MemoryPlan {
  /** Only with VIRTIO_FS_F_NOTIFICATION. */
  readonly notification?: NotificationPlan
  readonly hiprio: RingLayout
  readonly hiprioSlots: number
  readonly workers: readonly WorkerPlan[]
  readonly lengthBytes: number
}

export interface PlanOptions {
  /** Number of request queues. */
  queues: number
  /** Entries of each ring, a power of two. */
  queueSize: number
  /** The device takes a chain as one ring entry (INDIRECT_DESC). */
  indirectDesc: boolean
  /** Large buffers a worker may have in use at once, at least 2. */
  largeBuffers: number
  /** notify_buf_size of the device; 0 without VIRTIO_FS_F_NOTIFICATION. */
  notifyBufBytes?: number
  /** Requests a worker may hold while its ring is full; none by default. */
  parked?: number
}

const pageAlign = (at: number): number => Math.ceil(at / PAGE_SIZE) * PAGE_SIZE

/**
 * Plans the memory of a device.
 *
 * A slot for every chain the ring can hold and for every request that may wait for it. Without
 * INDIRECT_DESC a chain takes up to `Slot.TABLE_LENGTH` ring entries, so some slots stay unused.
 *
 * @throws RangeError for a ring size that is no power of two from 4 to 1024
 */
export function planMemory(options: PlanOptions): MemoryPlan {
  const { queues, queueSize, largeBuffers, notifyBufBytes = 0, parked = 0 } = options
  if (queueSize < 4 || queueSize > 1024) throw new RangeError(`ring size is ${queueSize}, expected a power of two from 4 to 1024`)
  const rings: RingLayout[] = []
  let at = 0
  for (let i = 0; i <= queues; i++) {
    const ring = layoutRing(queueSize, pageAlign(at))
    rings.push(ring)
    at = ring.end
  }
  const hiprioSlots = pageAlign(at)
  at = hiprioSlots + queueSize * HiprioSlot.SIZE
  const slotCount = queueSize + parked
  const slots: number[] = []
  for (let i = 0; i < queues; i++) {
    slots.push(pageAlign(at))
    at = slots[i]! + slotCount * Slot.SIZE
  }
  const workers: WorkerPlan[] = []
  for (let i = 0; i < queues; i++) {
    const large = pageAlign(at)
    at = large + largeBuffers * MAX_WRITE
    workers.push({ ring: rings[i + 1]!, slots: slots[i]!, slotCount, large, largeCount: largeBuffers, parked })
  }
  const plan = { hiprio: rings[0]!, hiprioSlots, workers, lengthBytes: pageAlign(at) }
  if (notifyBufBytes === 0) return plan
  const ring = layoutRing(queueSize, plan.lengthBytes)
  const buffers = pageAlign(ring.end)
  const bufferBytes = Math.ceil(notifyBufBytes / VirtqDesc.SIZE) * VirtqDesc.SIZE
  const tables = buffers + queueSize * bufferBytes
  return { ...plan, notification: { ring, buffers, bufferBytes, tables }, lengthBytes: pageAlign(tables + queueSize * VirtqDesc.SIZE) }
}
