/**
 * Doing something as the caller: its fsuid, fsgid and the supplementary group that the kernel
 * names (FUSE_EXT_GROUPS), for one thread and the length of one system call. What is created then
 * gets the owner, group and setgid treatment of a local file system.
 */
import { errno } from '../../errors.js'
import { FUSE_EXT_GROUPS, FuseExtHeader, FuseSuppGroups } from '../../fuse/abi.js'
import {
  CAP_DAC_OVERRIDE, CAP_FSETID, Capabilities, effectiveUid, getfsgid, getfsuid, getgroups, setfsgid, setfsuid, setgroups, setUmask, unshareFs,
} from '../../sys/credentials.js'
import { scratch, type Region } from '../../sys/memory.js'
import type { DeviceRequest } from '../handlers.js'
import { NO_ID, type Ids } from './id-map.js'

/** The kernel sends one group; more than this is refused. */
const GROUP_ROOM = 32
const SAVED_GROUP_ROOM = 256
/** A group that is not root's. */
const NOBODY = 65534

export class Caller {
  readonly #capabilities = new Capabilities()
  readonly #groups: Region = scratch(GROUP_ROOM * 4)
  readonly #savedGroups: Region = scratch(SAVED_GROUP_ROOM * 4)
  readonly #savedGroupCount: number
  readonly #ownUid: number
  readonly #ownGid: number
  readonly #savedUmask: number
  /** Only root can act for others; anybody else creates everything as itself. */
  readonly #canSwitch: boolean
  #switched = false
  #groupsSet = false
  #fsetidDropped = false
  #groupSwitched = false
  readonly #ids: Ids | undefined

  /**
   * Prepares this thread: no umask, no supplementary groups of its own.
   * @param ids translation of the callers' ids
   */
  constructor(ids: Ids | undefined) {
    this.#ids = ids
    unshareFs()
    this.#savedUmask = setUmask(0)
    this.#ownUid = getfsuid()
    this.#ownGid = getfsgid()
    this.#canSwitch = effectiveUid() === 0
    this.#savedGroupCount = getgroups(SAVED_GROUP_ROOM, this.#savedGroups.address)
    // root's own groups must not help a caller to what it may not do
    if (this.#canSwitch) setgroups(0, 0)
  }

  /** Gives the thread back as it was. */
  close(): void {
    if (this.#canSwitch && this.#savedGroupCount > 0) setgroups(this.#savedGroupCount, this.#savedGroups.address)
    setUmask(this.#savedUmask)
  }

  /**
   * Becomes the caller of a request until `leave`.
   * @param groupsSent the kernel says which supplementary group matters; if it cannot, the
   * caller's groups are unknown here, and as the kernel has checked them already, they do not
   * limit the call
   * @returns 0, or −errno (then nothing was changed)
   */
  enter(request: DeviceRequest, groupsSent: boolean): number {
    let { uid, gid } = request
    if (this.#ids !== undefined) {
      if (uid !== NO_ID) uid = this.#ids.uid.make(uid)
      if (gid !== NO_ID) gid = this.#ids.gid.make(gid)
      if (uid < 0 || gid < 0) return -errno.EPERM
    }
    if (!this.#canSwitch) return 0
    if (uid === 0 && gid === 0 && request.extensionBytes === 0) return 0
    if (uid === NO_ID || gid === NO_ID) return -errno.EOVERFLOW
    if (request.extensionBytes > 0) {
      const failed = this.#takeGroups(request)
      if (failed < 0) {
        // what stands before the extension that is wrong was taken
        this.leave()
        return failed
      }
    }
    this.#switched = true
    if (!this.#take(uid, gid)) {
      this.leave()
      return -errno.EPERM
    }
    if (uid !== this.#ownUid && !groupsSent) this.#capabilities.raise(CAP_DAC_OVERRIDE)
    return 0
  }

  /** @returns whether both took effect: ids without a mapping in a user namespace fail silently */
  #take(uid: number, gid: number): boolean {
    if (gid !== this.#ownGid) {
      setfsgid(gid)
      if (getfsgid() !== gid) return false
    }
    if (uid === this.#ownUid) return true
    setfsuid(uid)
    return getfsuid() === uid
  }

  #takeGroups(request: DeviceRequest): number {
    const view = request.args
    let at = request.argsAt + request.argsBytes - request.extensionBytes
    const end = request.argsAt + request.argsBytes
    while (at + FuseExtHeader.SIZE <= end) {
      const size = view.getUint32(at + FuseExtHeader.size, true)
      if (size < FuseExtHeader.SIZE || size > end - at) return -errno.EINVAL
      if (view.getUint32(at + FuseExtHeader.type, true) === FUSE_EXT_GROUPS) {
        const list = at + FuseExtHeader.SIZE
        if (size < FuseExtHeader.SIZE + FuseSuppGroups.SIZE) return -errno.EINVAL
        const count = view.getUint32(list + FuseSuppGroups.nr_groups, true)
        if (count > GROUP_ROOM || FuseExtHeader.SIZE + FuseSuppGroups.SIZE + count * 4 > size) return -errno.EINVAL
        for (let i = 0; i < count; i++) {
          const sent = view.getUint32(list + FuseSuppGroups.SIZE + i * 4, true)
          const gid = this.#ids === undefined ? sent : this.#ids.gid.make(sent)
          if (gid < 0) return gid
          this.#groups.view.setUint32(i * 4, gid, true)
        }
        const failed = setgroups(count, this.#groups.address)
        if (failed < 0) return failed
        this.#groupsSet = count > 0
      }
      at += size
    }
    return 0
  }

  leave(): void {
    if (this.#switched) {
      // back to fsuid 0: the kernel restores the file system capabilities
      setfsuid(this.#ownUid)
      setfsgid(this.#ownGid)
      this.#switched = false
    }
    if (this.#groupsSet) {
      setgroups(0, 0)
      this.#groupsSet = false
    }
  }

  /**
   * Until `restoreFsetid` the kernel clears suid and sgid bits of what this thread changes.
   * @param group that the thread is to be in, or not to be in: that of a file whose sgid bit depends on it
   */
  dropFsetid(group = NO_ID, member = false): void {
    this.#fsetidDropped = this.#capabilities.drop(CAP_FSETID)
    if (!this.#canSwitch || group === NO_ID || member === (group === this.#ownGid)) return
    setfsgid(member ? group : NOBODY)
    this.#groupSwitched = true
  }

  restoreFsetid(): void {
    if (this.#groupSwitched) setfsgid(this.#ownGid)
    this.#groupSwitched = false
    if (this.#fsetidDropped) this.#capabilities.restore(CAP_FSETID)
    this.#fsetidDropped = false
  }
}
