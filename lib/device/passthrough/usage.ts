/** Counts what a directory tree takes, once, before it is served. */
import { errno, SyscallError } from '../../errors.js'
import { getdents64, LinuxDirent64 } from '../../sys/dir.js'
import { AT_EMPTY_PATH, AT_NO_AUTOMOUNT, AT_SYMLINK_NOFOLLOW, O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, openat, S_IFDIR, statx } from '../../sys/file.js'
import { close } from '../../sys/io.js'
import { scratch, type Region } from '../../sys/memory.js'
import { St, StatBuffer, STAT_MASK } from './stat-buffer.js'

const DIRENT_BYTES = 65536
const NAME_BYTES = 256

/** Adds up blocks below a directory, each inode once. */
export class Usage {
  /** Of 512 bytes. */
  blocks = 0
  readonly #stat = new StatBuffer()
  readonly #dirents: Region = scratch(DIRENT_BYTES)
  readonly #name: Region = scratch(NAME_BYTES)
  readonly #empty: number = scratch(1).address
  /** Inodes with several names. */
  readonly #linked = new Set<string>()

  /**
   * Counts a directory and all below it. What cannot be read counts nothing beyond itself.
   * @param fd any descriptor of it
   * @throws SyscallError when descriptors run out: one is open for each level
   */
  count(fd: number): void {
    if (statx(fd, this.#empty, AT_EMPTY_PATH, STAT_MASK, this.#stat.address) === 0) this.blocks += this.#stat.blocks
    this.#name.bytes.set([0x2e, 0])
    this.#below(fd, this.#name.address)
  }

  #below(parentFd: number, name: number): void {
    const fd = openat(parentFd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK)
    if (fd < 0) {
      if (fd === -errno.EMFILE || fd === -errno.ENFILE) throw new SyscallError('open', -fd, 'while counting for max_size')
      return
    }
    try {
      const directories = this.#entries(fd)
      for (const directory of directories) {
        this.#name.bytes.set(directory)
        this.#below(fd, this.#name.address)
      }
    } finally {
      close(fd)
    }
  }

  /** Counts the entries of a directory. @returns the names of its directories, with their NULs */
  #entries(fd: number): Uint8Array[] {
    const directories: Uint8Array[] = []
    const { view, bytes, address } = this.#dirents
    for (let got = getdents64(fd, address, DIRENT_BYTES); got > 0; got = getdents64(fd, address, DIRENT_BYTES)) {
      for (let at = 0; at < got; at += view.getUint16(at + LinuxDirent64.d_reclen, true)) {
        const nameAt = at + LinuxDirent64.d_name
        const end = bytes.indexOf(0, nameAt) + 1
        const isDots = bytes[nameAt] === 0x2e && (end === nameAt + 2 || (end === nameAt + 3 && bytes[nameAt + 1] === 0x2e))
        if (isDots || statx(fd, address + nameAt, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STAT_MASK, this.#stat.address) < 0) continue
        if (this.#stat.type === S_IFDIR) directories.push(bytes.slice(nameAt, end))
        else if (this.#stat.nlink > 1 && !this.#isFirst()) continue
        this.blocks += this.#stat.blocks
      }
    }
    return directories
  }

  #isFirst(): boolean {
    const { words } = this.#stat
    const inode = `${words[St.devMajor]}:${words[St.devMinor]}:${words[St.ino + 1]}:${words[St.ino]}`
    if (this.#linked.has(inode)) return false
    this.#linked.add(inode)
    return true
  }
}
