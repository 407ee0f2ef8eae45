/** File handles: naming an inode without keeping a descriptor of it (name_to_handle_at(2)). */
import { errno } from '../../errors.js'
import { AT_EMPTY_PATH, fstatfs, nameToHandleAt, O_NONBLOCK, O_PATH, openat, openByHandleAt, S_IFDIR, S_IFREG, statx } from '../../sys/file.js'
import { close } from '../../sys/io.js'
import { scratch, type Region } from '../../sys/memory.js'
import { HANDLE_ROOM } from './inode-record.js'
import { mountKind, NO_HANDLES } from './mount-table.js'
import { ProcPath } from './names.js'
import { St, StatBuffer, STAT_MASK } from './stat-buffer.js'

/** A struct file_handle in scratch memory, and a place for the mount id. One thread's. */
export class HandleBuffer {
  readonly #memory: Region = scratch(8 + HANDLE_ROOM + 4)
  readonly words: Int32Array = new Int32Array(this.#memory.view.buffer, this.#memory.view.byteOffset, this.#memory.lengthBytes >> 2)
  readonly address = this.#memory.address

  /**
   * Fills it.
   * @param flags AT_EMPTY_PATH for the descriptor itself
   * @returns 0, −EOPNOTSUPP when there is no handle that fits here, or another −errno
   */
  take(dirFd: number, path: number, flags: number): number {
    this.words[0] = HANDLE_ROOM
    // a comparison goes by whole words
    for (let i = 2; i < 2 + HANDLE_ROOM / 4; i++) this.words[i] = 0
    const failed = nameToHandleAt(dirFd, path, this.address, this.address + 8 + HANDLE_ROOM, flags)
    return failed === -errno.EOVERFLOW ? -errno.EOPNOTSUPP : failed
  }
}

const STATFS_BYTES = 120

/** Opens and tries the descriptors that open_by_handle_at needs. One thread's. */
export class MountProbe {
  readonly #procFd: number
  readonly #path = new ProcPath()
  readonly #handle = new HandleBuffer()
  readonly #again = new StatBuffer()
  readonly #empty: number = scratch(1).address

  readonly #statfs: Region = scratch(STATFS_BYTES)

  constructor(procFd: number) {
    this.#procFd = procFd
  }

  /** `MountKind` bits of the mount that a descriptor is on. */
  kind(fd: number): number {
    return fstatfs(fd, this.#statfs.address) < 0 ? 0 : mountKind(this.#statfs.view.getUint32(0, true))
  }

  /**
   * Opens the descriptor for the mount of an inode.
   * @param pathFd O_PATH descriptor of the inode
   * @param stat what statx says of it
   * @returns the descriptor, or NO_HANDLES when handles do not work there
   */
  open(pathFd: number, stat: StatBuffer): number {
    // reading anything else could block or start something
    if (stat.type !== S_IFDIR && stat.type !== S_IFREG) return NO_HANDLES
    this.#path.set(pathFd)
    const mountFd = openat(this.#procFd, this.#path.digits, O_NONBLOCK)
    if (mountFd < 0) return NO_HANDLES
    if (this.#works(mountFd, stat)) return mountFd
    close(mountFd)
    return NO_HANDLES
  }

  #works(mountFd: number, stat: StatBuffer): boolean {
    if (this.#handle.take(mountFd, this.#empty, AT_EMPTY_PATH) < 0) return false
    const fd = openByHandleAt(mountFd, this.#handle.address, O_PATH)
    if (fd < 0) return false
    const failed = statx(fd, this.#empty, AT_EMPTY_PATH, STAT_MASK, this.#again.address)
    close(fd)
    const { words } = this.#again
    return failed === 0 && words[St.ino] === stat.words[St.ino] && words[St.ino + 1] === stat.words[St.ino + 1] &&
      words[St.devMajor] === stat.words[St.devMajor] && words[St.devMinor] === stat.words[St.devMinor] && this.#again.mountId === stat.mountId
  }
}
