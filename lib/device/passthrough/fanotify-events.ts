/** Events of a fanotify group that reports file handles, decoded one by one where they were read. */
import { errno } from '../../errors.js'
import {
  FAN_EVENT_INFO_TYPE_DFID, FAN_EVENT_INFO_TYPE_DFID_NAME, FAN_EVENT_INFO_TYPE_FID, FanHandle, FanInfo, FanMetadata,
} from '../../sys/fanotify.js'
import { read } from '../../sys/io.js'
import { scratch, type Region } from '../../sys/memory.js'
import { HANDLE_ROOM } from './inode-record.js'

/** The kernel gives as many whole events as fit. */
const BUFFER_BYTES = 65536

/** A file system and a file handle there, as an event names an inode. */
export class EventHandle {
  fsidLow = 0
  fsidHigh = 0
  /** struct file_handle; what its last word does not use is 0. */
  readonly words = new Int32Array(2 + HANDLE_ROOM / 4)

  /** Takes it from an information record. @returns bytes of the struct file_handle, or 0 when it is none that an inode record could have */
  set(view: DataView, at: number, end: number): number {
    const bytesAt = at + FanInfo.SIZE + FanHandle.SIZE
    if (bytesAt > end) return 0
    const bytes = view.getUint32(at + FanInfo.SIZE + FanHandle.handle_bytes, true)
    if (bytes > HANDLE_ROOM || bytesAt + bytes > end) return 0
    this.fsidLow = view.getInt32(at + FanInfo.fsid, true)
    this.fsidHigh = view.getInt32(at + FanInfo.fsid + 4, true)
    this.words[0] = bytes
    this.words[1] = view.getInt32(at + FanInfo.SIZE + FanHandle.handle_type, true)
    for (let i = 2; i < this.words.length; i++) this.words[i] = 0
    for (let i = 0; i < bytes; i++) this.words[2 + (i >> 2)]! |= view.getUint8(bytesAt + i) << (i & 3) * 8
    return FanHandle.SIZE + bytes
  }
}

export class FanotifyEvents {
  mask = 0
  /** Thread that caused it, 0 when it is not of this pid namespace. */
  thread = 0
  readonly directory = new EventHandle()
  hasDirectory = false
  /** Name in the directory, empty for none; `.` is the directory itself. Valid until the next `read`. */
  name: Uint8Array
  readonly object = new EventHandle()
  hasObject = false

  readonly #buffer: Region
  #at = 0
  #end = 0

  constructor(buffer: Region = scratch(BUFFER_BYTES)) {
    this.#buffer = buffer
    this.name = buffer.bytes.subarray(0, 0)
  }

  /** Reads what there is without waiting. @returns bytes, 0 for nothing, or −errno */
  read(fd: number): number {
    const got = read(fd, this.#buffer.address, this.#buffer.lengthBytes)
    this.begin(Math.max(0, got))
    return got === -errno.EAGAIN ? 0 : got
  }

  /** Goes to the front of that many bytes of the buffer. */
  begin(lengthBytes: number): void {
    this.#at = 0
    this.#end = lengthBytes
  }

  /** Decodes the next event into the fields above. @returns false when there is none */
  next(): boolean {
    const { view } = this.#buffer
    const at = this.#at
    if (at + FanMetadata.SIZE > this.#end) return false
    const length = view.getUint32(at + FanMetadata.event_len, true)
    if (length < FanMetadata.SIZE || at + length > this.#end) return false
    this.#at += length
    this.mask = view.getUint32(at + FanMetadata.mask, true)
    this.thread = view.getInt32(at + FanMetadata.pid, true)
    this.hasDirectory = this.hasObject = false
    this.name = this.#buffer.bytes.subarray(0, 0)
    let bytes = 0
    for (let info = at + view.getUint16(at + FanMetadata.metadata_len, true); info + FanInfo.SIZE <= at + length; info += bytes) {
      bytes = view.getUint16(info + FanInfo.len, true)
      if (bytes < FanInfo.SIZE || info + bytes > at + length) break
      this.#take(info, info + bytes)
    }
    return true
  }

  #take(at: number, end: number): void {
    const { view, bytes } = this.#buffer
    const type = view.getUint8(at + FanInfo.info_type)
    if (type === FAN_EVENT_INFO_TYPE_FID) {
      this.hasObject = this.object.set(view, at, end) > 0
    } else if (type === FAN_EVENT_INFO_TYPE_DFID_NAME || type === FAN_EVENT_INFO_TYPE_DFID) {
      const handleBytes = this.directory.set(view, at, end)
      this.hasDirectory = handleBytes > 0
      if (!this.hasDirectory || type === FAN_EVENT_INFO_TYPE_DFID) return
      const from = at + FanInfo.SIZE + handleBytes
      const nul = bytes.indexOf(0, from)
      if (nul >= from && nul < end) this.name = bytes.subarray(from, nul)
    }
  }
}
