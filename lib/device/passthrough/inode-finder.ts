/** How a name becomes an inode that is known: for one worker, with what `Volume` has. */
import { errno } from '../../errors.js'
import { AT_EMPTY_PATH, O_NOFOLLOW, O_PATH, S_IFDIR } from '../../sys/file.js'
import { close } from '../../sys/io.js'
import type { Region } from '../../sys/memory.js'
import { HandleBuffer, MountProbe } from './file-handles.js'
import { Flag } from './inode-record.js'
import { Head } from './layout.js'
import { MountKind, NO_HANDLES, UNKNOWN_MOUNT } from './mount-table.js'
import type { PassthroughShared } from './shared.js'
import type { Volume } from './volume.js'
import { watchMount } from './watch.js'

export class InodeFinder {
  readonly #volume: Volume
  readonly #handle = new HandleBuffer()
  readonly #probe: MountProbe
  readonly #fanotifyFd: number

  constructor(volume: Volume, { procFd, fanotifyFd }: PassthroughShared) {
    this.#volume = volume
    this.#probe = new MountProbe(procFd)
    this.#fanotifyFd = fanotifyFd
  }

  /**
   * Looks a name up and counts one lookup of its inode. Leaves its attributes in `stat`.
   * @param parent node id of the directory
   * @param name memory that has the name, NUL-terminated, at `nameAt`
   * @returns its index, or −errno
   */
  lookup(parent: number, dirFd: number, name: Region, nameAt = 0): number {
    if (this.#volume.filter?.hides(name.bytes, nameAt)) return -errno.ENOENT
    const failed = this.#volume.statName(dirFd, name.address + nameAt)
    if (failed < 0) return failed
    if (this.#volume.filter !== undefined && this.#volume.stat.type !== S_IFDIR && this.#volume.filter.refuses(name.bytes, nameAt)) return -errno.ENOENT
    const index = this.#volume.inodes.claim(this.#volume.stat)
    if (index !== 0) return index
    const learnt = this.#learn(dirFd, name.address + nameAt, 0, parent, name.bytes, nameAt)
    return this.#volume.coherent && learnt > 0 && this.#volume.inodes.created ? this.#again(learnt, dirFd, name.address + nameAt) : learnt
  }

  /**
   * A change between statx and the moment from which the record could be found was told to nobody:
   * looks once more. Leaves the attributes in `stat`.
   */
  #again(index: number, dirFd: number, name: number): number {
    const failed = this.#volume.statName(dirFd, name)
    if (failed === 0 && this.#volume.inodes.matches(index, this.#volume.stat)) return index
    this.#volume.inodes.forgetIndex(index, 1)
    return failed < 0 ? failed : -errno.ESTALE
  }

  /**
   * Counts one lookup of the inode behind a descriptor. Leaves its attributes in `stat`.
   * @param name of it in the directory `parent`, if it has one
   */
  adopt(fd: number, parent: number, name: Region | undefined): number {
    const failed = this.#volume.statFd(fd)
    const index = failed < 0 ? failed : this.#learn(fd, this.#volume.empty, AT_EMPTY_PATH, parent, name?.bytes, 0)
    if (this.#volume.coherent && index > 0 && this.#volume.inodes.created) this.#volume.statFd(fd)
    return index
  }

  #learn(dirFd: number, path: number, flags: number, parent: number, name: Uint8Array | undefined, nameAt: number): number {
    let mountFd = this.#volume.mounts.fd(this.#volume.stat.mountId)
    if (mountFd === UNKNOWN_MOUNT) {
      mountFd = this.#learnMount(dirFd, path, flags)
      if (mountFd < 0 && mountFd !== NO_HANDLES) return mountFd
    }
    if (mountFd >= 0) {
      const failed = this.#handle.take(dirFd, path, flags)
      if (failed === 0) {
        const index = this.#volume.inodes.insertHandle(this.#volume.stat, this.#handle.words, flags === AT_EMPTY_PATH)
        if (this.#volume.coherent && index > 0 && this.#volume.inodes.created && (this.#volume.mounts.kind(this.#volume.stat.mountId) & MountKind.WATCHED) !== 0) this.#volume.inodes.setFlags(index, Flag.WATCHED)
        return index
      }
      if (failed !== -errno.EOPNOTSUPP) return failed
    }
    return this.#learnByFd(dirFd, path, flags, parent, name, nameAt)
  }

  /** O_PATH descriptor of a name, or of a descriptor; `stat` is of it then. */
  #openPath(dirFd: number, name: number, flags: number): number {
    const fd = flags === AT_EMPTY_PATH ? this.#volume.reopen(dirFd, O_PATH) : this.#volume.openat(dirFd, name, O_PATH | O_NOFOLLOW)
    if (fd < 0) return fd
    const failed = this.#volume.statFd(fd)
    if (failed === 0) return fd
    close(fd)
    return failed
  }

  #learnMount(dirFd: number, name: number, flags: number): number {
    const pathFd = this.#openPath(dirFd, name, flags)
    if (pathFd < 0) return pathFd
    const known = this.#volume.mounts.fd(this.#volume.stat.mountId)
    const mountFd = known !== UNKNOWN_MOUNT ? known : this.#enterMount(pathFd)
    close(pathFd)
    return mountFd
  }

  /** @param pathFd O_PATH descriptor of the inode that `stat` is of, the first one seen of its mount */
  #enterMount(pathFd: number): number {
    const mountFd = this.#probe.open(pathFd, this.#volume.stat)
    let kind = this.#probe.kind(pathFd)
    if (this.#volume.coherent && mountFd >= 0 && watchMount(this.#fanotifyFd, mountFd) === 0) kind |= MountKind.WATCHED
    return this.#volume.mounts.add(this.#volume.stat.mountId, mountFd, kind)
  }

  /** Without file handles: a descriptor, and the name to open it again by. */
  #learnByFd(dirFd: number, path: number, flags: number, parent: number, name: Uint8Array | undefined, nameAt: number): number {
    const fd = this.#openPath(dirFd, path, flags)
    if (fd < 0) return fd
    const index = this.#volume.inodes.insertFd(this.#volume.stat, fd, parent, name, nameAt)
    if (index < 0 || !this.#volume.inodes.created) {
      close(fd)
    } else if ((this.#volume.inodes.flags(index) & Flag.NAMED) !== 0) {
      Atomics.store(this.#volume.words, Head.NAMED, 1)
      this.#volume.cache.enter(index)
    } else if (this.#volume.words[Head.KEPT_FDS]! > this.#volume.keptLimit) {
      this.#volume.inodes.forgetIndex(index, 1)
      return -errno.EMFILE
    }
    return index
  }

  /**
   * After a rename: an inode that is found again by its name has another one now.
   * @param parent node id of the directory that `dirFd` is
   */
  moved(parent: number, dirFd: number, name: Region): void {
    if (this.#volume.words[Head.NAMED] === 0 || this.#volume.statName(dirFd, name.address) < 0) return
    const index = this.#volume.inodes.pinKnown(this.#volume.stat)
    if (index === 0) return
    if ((this.#volume.inodes.flags(index) & Flag.HANDLE) === 0 && !this.#volume.inodes.setName(index, parent, name.bytes, 0)) {
      // too long to be remembered: what leads to it now is its descriptor
      if (this.#volume.fd(index) >= 0) this.#volume.inodes.keep(index)
    }
    this.#volume.inodes.unpin(index)
  }
}
