/**
 * From what fanotify tells to what the kernel of the mount must hear: changes of inodes that it
 * knows, made by others than the threads that serve it.
 */
import {
  FAN_CREATE, FAN_DELETE, FAN_MOVED_FROM, FAN_MOVED_TO, FAN_ONDIR, FAN_Q_OVERFLOW,
} from '../../sys/fanotify.js'
import { AT_EMPTY_PATH, fstatfs } from '../../sys/file.js'
import { scratch, viewRegion } from '../../sys/memory.js'
import type { NotificationSender } from '../notification-sender.js'
import { ChangeBatch } from './change-batch.js'
import type { EventHandle, FanotifyEvents } from './fanotify-events.js'
import { HandleBuffer } from './file-handles.js'
import { ROOT_INDEX } from './inode-record.js'
import { InodeTable } from './inode-table.js'
import { MountTable } from './mount-table.js'
import type { PassthroughShared } from './shared.js'
import { ThreadIds } from './thread-ids.js'
import { DATA_EVENTS, ENTRY_EVENTS } from './watch.js'

const STATFS_BYTES = 120
/** struct statfs of 64-bit Linux: two words. */
const F_FSID = 56
const DOT = 0x2e

/** Changes that wait for buffers of the driver; with more, no more events are read. */
const MOST_CHANGES = 8192

export class Watcher {
  readonly #inodes: InodeTable
  readonly #mounts: MountTable
  readonly #threads: ThreadIds
  readonly #batch = new ChangeBatch()
  /** Mount id → fsid. */
  readonly #fsids = new Map<number, readonly [low: number, high: number]>()
  readonly #statfs = scratch(STATFS_BYTES)
  /** The root has no handle in its record. */
  readonly #root = new HandleBuffer()
  readonly #mostChanges: number
  /** Everything has to be looked at again: the kernel is not told of that yet. */
  #epoch = false
  /** Next record that is told to be not what it was, 0 for none. */
  #sweep = 0

  constructor(shared: PassthroughShared, mostChanges = MOST_CHANGES) {
    const words = new Int32Array(viewRegion(shared.address, shared.lengthBytes).view.buffer)
    this.#inodes = new InodeTable(words, shared.address, shared.layout)
    this.#mounts = new MountTable(words, shared.layout)
    this.#threads = new ThreadIds(words)
    this.#root.take(this.#inodes.fd(ROOT_INDEX), scratch(1).address, AT_EMPTY_PATH)
    this.#mostChanges = mostChanges
  }

  /** Whether nothing is left to send. */
  get idle(): boolean {
    return this.#batch.size === 0 && !this.#epoch && this.#sweep === 0
  }

  /** Whether no more events should be read for now. */
  get full(): boolean {
    return this.#batch.size >= this.#mostChanges
  }

  /** Takes the events that were read. */
  take(events: FanotifyEvents): void {
    this.#threads.load()
    while (events.next()) {
      if ((events.mask & FAN_Q_OVERFLOW) !== 0) this.#everything()
      else if (!this.#threads.has(events.thread)) this.#change(events)
    }
  }

  /** Events were lost. */
  #everything(): void {
    this.#batch.clear()
    this.#epoch = true
    this.#sweep = ROOT_INDEX
  }

  #change({ mask, hasDirectory, directory, name, hasObject, object }: FanotifyEvents): void {
    const parents = hasDirectory ? this.#known(directory) : []
    const itself = name.length === 1 && name[0] === DOT
    const objects = hasObject ? this.#known(object) : itself ? parents : []
    if ((mask & ENTRY_EVENTS) !== 0 && !itself && name.length > 0) {
      const isDirectory = (mask & FAN_ONDIR) !== 0
      const appeared = (mask & (FAN_CREATE | FAN_MOVED_TO)) !== 0
      const vanished = (mask & (FAN_DELETE | FAN_MOVED_FROM)) !== 0
      for (const parent of parents) {
        const removed = isDirectory && (mask & FAN_DELETE) !== 0 && !appeared ? this.#sameMount(objects, parent) : 0
        // a directory that appeared may be known under this name already, and be somebody's working directory
        this.#batch.entry(this.#inodes.liveNodeid(parent), name, isDirectory && !vanished, removed)
        this.#batch.inode(this.#inodes.liveNodeid(parent), true)
      }
    }
    for (const index of objects) this.#batch.inode(this.#inodes.liveNodeid(index), (mask & DATA_EVENTS) !== 0)
  }

  /** Indices of the records of an inode. */
  #known(handle: EventHandle): readonly number[] {
    const found = this.#inodes.byHandle!.find(handle.words, 0)
    if (this.#isRoot(handle)) found.push(ROOT_INDEX)
    return found.length === 0 ? found : found.filter(index => this.#isOn(index, handle))
  }

  #isRoot({ words }: EventHandle): boolean {
    for (let i = 0; i < words.length; i++) if (words[i] !== this.#root.words[i]) return false
    return true
  }

  /** Whether a record is of the file system that a handle is of. */
  #isOn(index: number, { fsidLow, fsidHigh }: EventHandle): boolean {
    const mountId = this.#inodes.mountId(index)
    let fsid = this.#fsids.get(mountId)
    if (!fsid) {
      if (fstatfs(this.#mounts.fd(mountId), this.#statfs.address) < 0) return true
      fsid = [this.#statfs.view.getInt32(F_FSID, true), this.#statfs.view.getInt32(F_FSID + 4, true)]
      this.#fsids.set(mountId, fsid)
    }
    return fsid[0] === fsidLow && fsid[1] === fsidHigh
  }

  /** Node id of the one that is on the mount of a directory, or 0. */
  #sameMount(objects: readonly number[], directory: number): number {
    const index = objects.find(index => this.#inodes.mountId(index) === this.#inodes.mountId(directory))
    return index === undefined ? 0 : this.#inodes.liveNodeid(index)
  }

  /** Sends what there is, as far as the driver has given buffers. */
  send(sender: NotificationSender): void {
    if (this.#epoch && sender.epoch()) this.#epoch = false
    if (!this.#epoch && this.#batch.send(sender)) this.#sweepOn(sender)
    sender.flush()
  }

  #sweepOn(sender: NotificationSender): void {
    if (this.#sweep === 0) return
    for (const { top } = this.#inodes; this.#sweep <= top; this.#sweep++) {
      const nodeid = this.#inodes.liveNodeid(this.#sweep)
      if (nodeid !== 0 && !sender.inode(nodeid, true)) return
    }
    this.#sweep = 0
  }
}
