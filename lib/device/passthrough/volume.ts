/**
 * One worker's view of a shared directory: the shared tables, its own scratch memory, and how a
 * name becomes an inode and an inode a descriptor.
 */
import { errno } from '../../errors.js'
import {
  AT_EMPTY_PATH, AT_NO_AUTOMOUNT, AT_STATX_DONT_SYNC, AT_SYMLINK_NOFOLLOW, FS_CASEFOLD_FL, inodeFlags, O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK, O_PATH, O_RDONLY, openat,
  openByHandleAt, statx,
} from '../../sys/file.js'
import { BackingWindow } from '../../sys/backing.js'
import { close } from '../../sys/io.js'
import { scratch, viewRegion, type Region } from '../../sys/memory.js'
import { AttributeNotice } from './attribute-notice.js'
import { BackingFiles } from './backing-files.js'
import { Caller } from './caller.js'
import { FdCache } from './fd-cache.js'
import { Freeing, LARGE_BLOCKS, LARGE_BYTES } from './freeing.js'
import { HandleTable } from './handle-table.js'
import type { Ids } from './id-map.js'
import { Flag } from './inode-record.js'
import { InodeTable } from './inode-table.js'
import { Head, RECORD_WORDS } from './layout.js'
import { MountKind, MountTable } from './mount-table.js'
import { InodeFinder } from './inode-finder.js'
import { NameFilter } from './name-filter.js'
import { NameBuffer, pathBuffer, ProcPath } from './names.js'
import { cacheRules, idsOf, type CacheRules, type PassthroughOptions } from './options.js'
import type { PassthroughShared } from './shared.js'
import { Removal } from './removal.js'
import { Space } from './space.js'
import { StatBuffer, STAT_MASK } from './stat-buffer.js'
import { ThreadIds } from './thread-ids.js'
import { XattrMap } from './xattr-map.js'

const NAME_FLAGS = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT
const DIRENT_BYTES = 32768

export class Volume {
  readonly options: PassthroughOptions
  readonly rules: CacheRules
  /** cache=coherent: what is watched is cached for ever, the rest not at all. */
  readonly coherent: boolean
  /** Names of attributes are translated. */
  readonly xattrMap: XattrMap | undefined
  /** Some names do not exist. */
  readonly filter: NameFilter | undefined
  /** With `max_size`. */
  readonly space: Space | undefined
  readonly words: Int32Array
  readonly inodes: InodeTable
  readonly handles: HandleTable
  readonly mounts: MountTable
  /** Descriptors whose closing takes long. */
  readonly freeing: Freeing
  readonly procFd: number
  readonly caller: Caller
  /** User and group ids are translated. */
  readonly ids: Ids | undefined
  /** What the last statx of this worker said. */
  readonly stat = new StatBuffer()
  /** What a statx for the sake of suid and sgid bits said. */
  readonly privileges = new StatBuffer()
  readonly name = new NameBuffer()
  readonly newName = new NameBuffer()
  readonly path: NameBuffer = pathBuffer()
  readonly procPath = new ProcPath()
  /** An empty path, for AT_EMPTY_PATH. */
  readonly empty: number = scratch(1).address
  /** The path `.`, of a directory's descriptor. */
  readonly dot: number
  /** For small structures: timespecs, statfs, offsets. */
  readonly small: Region = scratch(128)
  /** What getdents64 writes. */
  readonly dirents: Region = scratch(DIRENT_BYTES)
  /** With `direct`. */
  readonly backing: BackingFiles | undefined
  /** Where the mount is in this process. */
  readonly attributeNotice: AttributeNotice | undefined
  readonly cache: FdCache
  readonly #finder: InodeFinder
  readonly removal: Removal
  /** A name read back from an inode record. */
  readonly #found: Region = scratch(RECORD_WORDS * 4)
  /** Most descriptors that stay open for inodes without a name. */
  readonly keptLimit: number
  readonly #threads: ThreadIds | undefined

  /**
   * @param windowFd see `DeviceHost`
   */
  constructor(shared: PassthroughShared, windowFd = -1) {
    const dot = scratch(2)
    dot.bytes[0] = 0x2e
    this.dot = dot.address
    this.options = shared.options
    this.rules = cacheRules(shared.options.cache)
    this.ids = idsOf(shared.options)
    this.caller = new Caller(this.ids)
    this.xattrMap = shared.options.xattrMap === '' ? undefined : new XattrMap(shared.options.xattrMap)
    if (shared.options.hide.length > 0 || shared.options.only.length > 0) this.filter = new NameFilter(shared.options.hide, shared.options.only)
    this.words = new Int32Array(viewRegion(shared.address, shared.lengthBytes).view.buffer)
    this.inodes = new InodeTable(this.words, shared.address, shared.layout)
    if (shared.options.maxSize !== Infinity) this.space = this.inodes.space = new Space(this.words, shared.layout, shared.options.maxSize)
    this.handles = new HandleTable(this.words, shared.layout)
    this.mounts = new MountTable(this.words, shared.layout)
    this.freeing = this.inodes.freeing = this.handles.freeing = new Freeing(this.words, shared.address, shared.freeingLimit)
    if (shared.options.direct && windowFd >= 0) this.backing = new BackingFiles(this.words, this.inodes, this.mounts, new BackingWindow(windowFd))
    if (windowFd >= 0) this.attributeNotice = new AttributeNotice(windowFd)
    this.cache = new FdCache(this.words, shared.layout, this.inodes)
    this.procFd = shared.procFd
    this.keptLimit = shared.keptLimit
    this.coherent = shared.fanotifyFd >= 0
    this.#finder = new InodeFinder(this, shared)
    this.removal = new Removal(this)
    if (this.coherent) {
      this.#threads = new ThreadIds(this.words)
      this.#threads.enter()
    }
  }

  /** Whether every change of a record is told to the driver. */
  #watched(index: number): boolean {
    return (this.inodes.flags(index) & Flag.WATCHED) !== 0
  }

  /** attr_valid of a record, seconds. */
  attrSeconds(index: number): number {
    return !this.coherent || this.#watched(index) ? this.rules.timeoutSeconds : 0
  }

  /** entry_valid of a record in the directory with a node id, seconds. */
  entrySeconds(parent: number, index: number): number {
    return !this.coherent || this.#watched(index) && this.#watched(this.inodes.indexOf(parent)) ? this.rules.timeoutSeconds : 0
  }

  /** `MountKind` bits of the mount of a record; not WATCHED where only the record is not. */
  mountKind(index: number): number {
    const kind = this.mounts.kind(this.inodes.mountId(index))
    return this.coherent && !this.#watched(index) ? kind & ~MountKind.WATCHED : kind
  }

  /** Notes of an inode what `stat` says of how long it takes to free it. Should its record be another's by now, that one is noted wrongly, which does no harm. */
  note(index: number): void {
    const { stat, inodes } = this
    const flags = inodes.flags(index)
    const large = stat.blocks >= LARGE_BLOCKS
    if (large !== ((flags & Flag.LARGE) !== 0)) {
      if (large) inodes.setFlags(index, Flag.LARGE)
      else inodes.clearFlags(index, Flag.LARGE)
    }
    if (stat.nlink === 0 && (flags & Flag.NAMELESS) === 0) inodes.setFlags(index, Flag.NAMELESS)
  }

  /** The same for an open file that reaches up to `end` by now, in bytes. */
  noteEnd(nodeid: number, end: number): void {
    if (end < LARGE_BYTES || this.isLarge(nodeid)) return
    const index = this.inodes.pin(nodeid)
    if (index < 0) return
    this.inodes.setFlags(index, Flag.LARGE)
    this.inodes.unpin(index)
  }

  /** Whether an inode had many blocks when that was last seen. */
  isLarge(nodeid: number): boolean {
    return (this.inodes.flags(this.inodes.indexOf(nodeid)) & Flag.LARGE) !== 0
  }

  /** Whether INIT negotiated a `Negotiated` bit. */
  negotiated(bit: number): boolean {
    return (this.words[Head.NEGOTIATED]! & bit) !== 0
  }

  /** Whether a call that got this error may be made again: it lacked descriptors and some were closed. */
  #mayRetry(error: number): boolean {
    return (error === -errno.EMFILE || error === -errno.ENFILE) && this.cache.shrink()
  }

  /** openat that makes room for its descriptor. */
  openat(dirFd: number, name: number, flags: number, mode = 0): number {
    const fd = openat(dirFd, name, flags, mode)
    return fd < 0 && this.#mayRetry(fd) ? openat(dirFd, name, flags, mode) : fd
  }

  /** statx of a descriptor. @returns 0 or −errno */
  statFd(fd: number): number {
    return this.#statx(fd, this.empty, AT_EMPTY_PATH, STAT_MASK)
  }

  /** Fills `stat`, with the owner as the mount shows it. */
  #statx(dirFd: number, path: number, flags: number, mask: number): number {
    const failed = statx(dirFd, path, flags, mask, this.stat.address)
    if (this.ids !== undefined && failed === 0) this.ids.show(this.stat.words)
    return failed
  }

  /** statx of a descriptor, asking for what STATX asks. */
  statFdFor(fd: number, flags: number, mask: number): number {
    return this.#statx(fd, this.empty, flags, mask)
  }

  /**
   * statx of a name, never of what a symbolic link points to.
   *
   * Where this directory itself is mounted inside itself, the kernel would ask this very device for
   * the attributes and wait for ever: so it is asked for those that it has, which are all there are
   * on a local file system, and elsewhere once more for those that are up to date.
   * @returns 0 or −errno: EDEADLK for a mount of this directory
   */
  statName(dirFd: number, name: number): number {
    const failed = this.#statx(dirFd, name, NAME_FLAGS | AT_STATX_DONT_SYNC, STAT_MASK)
    if (failed < 0 || (this.mounts.kind(this.stat.mountId) & MountKind.LOCAL) !== 0) return failed
    if (this.stat.isOf(this.words[Head.OWN_MINOR]!)) return -errno.EDEADLK
    return this.#statx(dirFd, name, NAME_FLAGS, STAT_MASK)
  }

  /**
   * The O_PATH descriptor of a pinned inode. It stays open as long as the pin is held.
   * @returns −ESTALE when the inode is gone
   */
  fd(index: number): number {
    const fd = this.inodes.fd(index)
    return fd >= 0 ? fd : this.#openPathFd(index)
  }

  #openPathFd(index: number): number {
    const flags = this.inodes.flags(index)
    const fd = (flags & Flag.NAMED) !== 0 ? this.#openByName(index) : this.#openByHandle(index, O_PATH | O_NOFOLLOW)
    if (fd < 0) return fd
    const verified = this.#verify(index, fd)
    if (verified < 0) return verified
    if (this.inodes.publishFd(index, fd)) {
      this.cache.enter(index)
      return fd
    }
    close(fd)
    return this.inodes.fd(index)
  }

  #openByHandle(index: number, flags: number): number {
    const mountFd = this.mounts.fd(this.inodes.mountId(index))
    if (mountFd < 0 || (this.inodes.flags(index) & Flag.HANDLE) === 0) return -errno.ESTALE
    const handle = this.inodes.handleAddress(index)
    const fd = openByHandleAt(mountFd, handle, flags)
    return fd < 0 && this.#mayRetry(fd) ? openByHandleAt(mountFd, handle, flags) : fd
  }

  /**
   * Where there are no file handles: the name under which the inode was last seen must still be
   * it. If it is not, the record is lost to later lookups, which then make a new one.
   */
  #openByName(index: number): number {
    const parent = this.inodes.pin(this.inodes.readName(index, this.#found.bytes))
    if (parent < 0) return parent
    const dirFd = this.fd(parent)
    // the descriptor of the directory may have been opened by name in turn
    if (dirFd >= 0) this.inodes.readName(index, this.#found.bytes)
    let fd = dirFd < 0 ? dirFd : this.openat(dirFd, this.#found.address, O_PATH | O_NOFOLLOW)
    this.inodes.unpin(parent)
    if (fd >= 0) {
      if (this.statFd(fd) === 0 && this.inodes.matches(index, this.stat) && this.inodes.sameBirth(index, this.stat)) return fd
      close(fd)
      fd = -errno.ENOENT
    }
    if (fd !== -errno.ENOENT) return fd
    this.inodes.disown(index)
    return -errno.ESTALE
  }

  /**
   * A handle was taken by name after statx of the same name; in between the name may have got
   * another inode. Found out once per record; closes `fd` if so.
   */
  #verify(index: number, fd: number): number {
    if ((this.inodes.flags(index) & Flag.VERIFIED) !== 0) return 0
    let failed = this.statFd(fd)
    if (failed === 0 && !this.inodes.matches(index, this.stat)) {
      this.inodes.disown(index)
      failed = -errno.ESTALE
    }
    if (failed < 0) close(fd)
    else this.inodes.setFlags(index, Flag.VERIFIED)
    return failed
  }

  /**
   * Opens a pinned regular file or directory for use.
   * @param flags without O_NOFOLLOW and O_CREAT
   * @returns a descriptor that the caller owns, or −errno
   */
  open(index: number, flags: number): number {
    const record = this.inodes.flags(index)
    if ((record & Flag.HANDLE) !== 0 && (record & Flag.VERIFIED) !== 0) return this.#openByHandle(index, flags)
    const pathFd = this.fd(index)
    return pathFd < 0 ? pathFd : this.reopen(pathFd, flags)
  }

  /** Opens what a descriptor refers to once more, in another mode. */
  reopen(fd: number, flags: number): number {
    this.procPath.set(fd)
    return this.openat(this.procFd, this.procPath.digits, flags)
  }

  /**
   * Whether in a pinned directory each name is one name. Where another name leads to the same file, a
   * name that a filter knows nothing of would lead to what it hides.
   */
  hasPlainNames(index: number): boolean {
    if ((this.inodes.flags(index) & Flag.PLAIN) !== 0) return true
    if ((this.mounts.kind(this.inodes.mountId(index)) & MountKind.FOLDS) !== 0) return false
    const fd = this.open(index, O_RDONLY | O_DIRECTORY | O_NONBLOCK)
    if (fd < 0) return false
    const failed = inodeFlags(fd, this.small.address)
    close(fd)
    // no flags: nothing that could fold
    if (failed === 0 && (this.small.view.getUint32(0, true) & FS_CASEFOLD_FL) !== 0) return false
    this.inodes.setFlags(index, Flag.PLAIN)
    return true
  }

  /** See InodeFinder. */
  lookup(parent: number, dirFd: number, name: Region, nameAt = 0): number {
    const index = this.#finder.lookup(parent, dirFd, name, nameAt)
    if (index > 0) this.note(index)
    return index
  }

  /** See InodeFinder. */
  adopt(fd: number, parent: number, name: Region | undefined): number {
    const index = this.#finder.adopt(fd, parent, name)
    if (index > 0) this.note(index)
    return index
  }

  /** See InodeFinder. */
  moved(parent: number, dirFd: number, name: Region): void {
    this.#finder.moved(parent, dirFd, name)
  }

  close(): void {
    this.#threads?.leave()
    this.caller.close()
  }
}
