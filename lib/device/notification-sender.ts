/**
 * The device's side of the notification queue: one FUSE notification into each buffer that the
 * driver has given. Belongs to one thread.
 */
import {
  FUSE_NOTIFY_DELETE, FUSE_NOTIFY_INC_EPOCH, FUSE_NOTIFY_INVAL_ENTRY, FUSE_NOTIFY_INVAL_INODE, FuseNotifyDeleteOut, FuseNotifyInvalEntryOut,
  FuseNotifyInvalInodeOut, FuseOutHeader,
} from '../fuse/abi.js'
import { signalEventfd } from '../sys/io.js'
import type { Region } from '../sys/memory.js'
import { DeviceRing } from '../virtio/device-ring.js'
import type { RingFeatures } from '../virtio/driver-ring.js'
import type { RingLayout } from '../virtio/split-ring.js'
import { setU64 } from '../wire/u64.js'

const NAME_MAX = 255
/** notify_buf_size: room for the longest notification, with a name of 255 bytes and its NUL. */
export const NOTIFY_BUFFER_BYTES = 304
const BODY = FuseOutHeader.SIZE

export class NotificationSender {
  readonly ring: DeviceRing
  readonly #region: Region
  readonly #callFd: number

  constructor(region: Region, layout: RingLayout, features: RingFeatures, callFd: number) {
    this.#region = region
    this.ring = new DeviceRing(region, layout, features)
    this.#callFd = callFd
  }

  /** Takes a buffer and writes the header. @returns where it starts, or −1 when the driver has given none */
  #begin(code: number, length: number): number {
    for (let head = this.ring.pop(); head >= 0; head = this.ring.pop()) {
      if (this.ring.readableCount > 0 || this.ring.lengths[0]! < length) {
        this.ring.push(head, 0)
        continue
      }
      const at = this.ring.addresses[0]! - this.#region.address
      const { view } = this.#region
      view.setUint32(at + FuseOutHeader.len, length, true)
      view.setInt32(at + FuseOutHeader.error, code, true)
      setU64(view, at + FuseOutHeader.unique, 0)
      this.#head = head
      return at
    }
    return -1
  }

  #head = 0

  #end(length: number): boolean {
    this.ring.push(this.#head, length)
    return true
  }

  /**
   * The attributes of an inode are not what they were, and with `data` its contents.
   * @returns false when the driver has given no buffer
   */
  inode(nodeid: number, data: boolean): boolean {
    const length = BODY + FuseNotifyInvalInodeOut.SIZE
    const at = this.#begin(FUSE_NOTIFY_INVAL_INODE, length)
    if (at < 0) return false
    const { view } = this.#region
    setU64(view, at + BODY + FuseNotifyInvalInodeOut.ino, nodeid)
    // a negative offset leaves the data alone, a length of 0 is all of it
    view.setBigInt64(at + BODY + FuseNotifyInvalInodeOut.off, data ? 0n : -1n, true)
    setU64(view, at + BODY + FuseNotifyInvalInodeOut.len, 0)
    return this.#end(length)
  }

  /** An entry is not what it was. @param flags FUSE_EXPIRE_ONLY when it may still be the same inode */
  entry(parent: number, name: Uint8Array, flags: number): boolean {
    const length = BODY + FuseNotifyInvalEntryOut.SIZE + name.length + 1
    if (name.length > NAME_MAX) return true
    const at = this.#begin(FUSE_NOTIFY_INVAL_ENTRY, length)
    if (at < 0) return false
    const { view } = this.#region
    setU64(view, at + BODY + FuseNotifyInvalEntryOut.parent, parent)
    view.setUint32(at + BODY + FuseNotifyInvalEntryOut.namelen, name.length, true)
    view.setUint32(at + BODY + FuseNotifyInvalEntryOut.flags, flags, true)
    this.#name(at + BODY + FuseNotifyInvalEntryOut.SIZE, name)
    return this.#end(length)
  }

  /** An entry is gone, and with it the last name of its inode. */
  removed(parent: number, child: number, name: Uint8Array): boolean {
    const length = BODY + FuseNotifyDeleteOut.SIZE + name.length + 1
    if (name.length > NAME_MAX) return true
    const at = this.#begin(FUSE_NOTIFY_DELETE, length)
    if (at < 0) return false
    const { view } = this.#region
    setU64(view, at + BODY + FuseNotifyDeleteOut.parent, parent)
    setU64(view, at + BODY + FuseNotifyDeleteOut.child, child)
    view.setUint32(at + BODY + FuseNotifyDeleteOut.namelen, name.length, true)
    view.setUint32(at + BODY + FuseNotifyDeleteOut.padding, 0, true)
    this.#name(at + BODY + FuseNotifyDeleteOut.SIZE, name)
    return this.#end(length)
  }

  #name(at: number, name: Uint8Array): void {
    this.#region.bytes.set(name, at)
    this.#region.bytes[at + name.length] = 0
  }

  /** Every entry has to be looked up again. For kernels of FUSE 7.44 and later. */
  epoch(): boolean {
    return this.#begin(FUSE_NOTIFY_INC_EPOCH, BODY) >= 0 && this.#end(BODY)
  }

  /** Tells the driver of what was sent, if it wants to be told. */
  flush(): void {
    if (this.ring.callNeeded()) signalEventfd(this.#callFd)
  }
}
