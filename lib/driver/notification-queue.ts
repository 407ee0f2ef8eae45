/**
 * The notification queue (virtio 1.2 §5.11.6.3): buffers that the device fills with what changed
 * behind the kernel's back, on their way to /dev/fuse.
 *
 * Owned by a thread that serves no requests (notifier-thread.ts): the write may wait in the kernel
 * for a lock whose holder waits for a request, see native-notes/notifications.md.
 *
 * A message is copied to private memory first, so that what is checked is what is written. Only
 * invalidations pass; anything else a device says is counted and dropped: it could put data into
 * the page cache, or make the kernel send requests again.
 */
import { errno } from '../errors.js'
import {
  FUSE_EXPIRE_ONLY, FUSE_NOTIFY_DELETE, FUSE_NOTIFY_INC_EPOCH, FUSE_NOTIFY_INVAL_ENTRY, FUSE_NOTIFY_INVAL_INODE, FuseNotifyDeleteOut,
  FuseNotifyInvalEntryOut, FuseNotifyInvalInodeOut, FuseOutHeader,
} from '../fuse/abi.js'
import { write } from '../sys/io.js'
import { scratch, type Region } from '../sys/memory.js'
import { DriverRing, writeDescriptor, type RingFeatures } from '../virtio/driver-ring.js'
import { VIRTQ_DESC_F_WRITE, VirtqDesc } from '../virtio/split-ring.js'
import { LateInodes } from './late-inodes.js'
import type { NotificationPlan } from './memory-plan.js'

/** FUSE_NAME_MAX of the kernel. */
const NAME_MAX = 1024
const SLASH = 0x2f

/** What became of the notifications of a mount. */
export interface NotificationCounts {
  /** The kernel took it. */
  written: number
  /** The kernel had nothing of it in its caches. */
  notCached: number
  /** The kernel refused it. */
  refused: number
  /** The device did not speak the protocol; not passed on. */
  bad: number
}

export class NotificationQueue {
  readonly ring: DriverRing
  readonly counts: NotificationCounts = { written: 0, notCached: 0, refused: 0, bad: 0 }
  readonly #region: Region
  readonly #plan: NotificationPlan
  readonly #fuseFd: number
  readonly #copy: Region
  readonly #late: LateInodes
  readonly #ended = (written: number): void => { this.#count(written) }
  #connected = true

  /** Gives the device all the buffers, without telling it. */
  constructor(region: Region, plan: NotificationPlan, features: RingFeatures, fuseFd: number) {
    this.#region = region
    this.#plan = plan
    this.#fuseFd = fuseFd
    this.#copy = scratch(plan.bufferBytes)
    this.#late = new LateInodes(fuseFd)
    this.ring = new DriverRing(region, plan.ring, features)
    for (let i = 0; i < plan.ring.size; i++) this.#post(i)
  }

  #post(buffer: number): void {
    const table = this.#plan.tables + buffer * VirtqDesc.SIZE
    const address = this.#region.address + this.#plan.buffers + buffer * this.#plan.bufferBytes
    writeDescriptor(this.#region.view, table, 0, address, this.#plan.bufferBytes, VIRTQ_DESC_F_WRITE, true)
    this.ring.add(table, this.#region.address + table, 1, buffer)
  }

  /**
   * Hands what the device has told to the kernel, and the buffers back to the device.
   * @param most notifications to take
   * @returns how many were taken
   */
  complete(most: number): number {
    this.#late.retry(this.#ended)
    let count = 0
    for (; count < most; count++) {
      const buffer = this.ring.popUsed()
      if (buffer < 0) break
      if (!this.#connected) continue
      this.#pass(buffer, this.ring.usedLength)
      this.#post(buffer)
    }
    return count
  }

  /** First step of kill_sb: nothing is told to the kernel any more, and the device gets no buffer back. */
  disconnect(): void {
    this.#connected = false
    this.#late.clear()
  }

  /** Milliseconds until `complete` has something to do of its own accord, −1 for never. */
  get waitMs(): number {
    return this.#late.waitMs
  }

  #pass(buffer: number, used: number): void {
    if (used < FuseOutHeader.SIZE || used > this.#plan.bufferBytes) {
      this.counts.bad++
      return
    }
    const from = this.#plan.buffers + buffer * this.#plan.bufferBytes
    this.#copy.bytes.set(this.#region.bytes.subarray(from, from + used))
    if (!isSound(this.#copy, used)) {
      this.counts.bad++
      return
    }
    const written = write(this.#fuseFd, this.#copy.address, used)
    if (written === -errno.ENOENT && this.#copy.view.getInt32(FuseOutHeader.error, true) === FUSE_NOTIFY_INVAL_INODE && this.#late.add(this.#copy)) return
    this.#count(written)
  }

  #count(written: number): void {
    if (written >= 0) this.counts.written++
    else if (written === -errno.ENOENT) this.counts.notCached++
    else this.counts.refused++
  }
}

/** Whether these bytes are a notification that may go to the kernel. */
function isSound({ view, bytes }: Region, length: number): boolean {
  if (view.getUint32(FuseOutHeader.len, true) !== length) return false
  if (view.getUint32(FuseOutHeader.unique, true) !== 0 || view.getUint32(FuseOutHeader.unique + 4, true) !== 0) return false
  const at = FuseOutHeader.SIZE
  switch (view.getInt32(FuseOutHeader.error, true)) {
    case FUSE_NOTIFY_INVAL_INODE:
      return length === at + FuseNotifyInvalInodeOut.SIZE
    case FUSE_NOTIFY_INVAL_ENTRY:
      return length >= at + FuseNotifyInvalEntryOut.SIZE && (view.getUint32(at + FuseNotifyInvalEntryOut.flags, true) & ~FUSE_EXPIRE_ONLY) === 0
        && isName(bytes, at + FuseNotifyInvalEntryOut.SIZE, view.getUint32(at + FuseNotifyInvalEntryOut.namelen, true), length)
    case FUSE_NOTIFY_DELETE:
      return length >= at + FuseNotifyDeleteOut.SIZE
        && isName(bytes, at + FuseNotifyDeleteOut.SIZE, view.getUint32(at + FuseNotifyDeleteOut.namelen, true), length)
    case FUSE_NOTIFY_INC_EPOCH:
      return length === at
    default:
      return false
  }
}

/** Whether a name of that length and its NUL, and nothing else, stand between `at` and `end`. */
function isName(bytes: Uint8Array, at: number, nameBytes: number, end: number): boolean {
  if (nameBytes === 0 || nameBytes > NAME_MAX || at + nameBytes + 1 !== end || bytes[end - 1] !== 0) return false
  for (let i = at; i < end - 1; i++) if (bytes[i] === 0 || bytes[i] === SLASH) return false
  return true
}
