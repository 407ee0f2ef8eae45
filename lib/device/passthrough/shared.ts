/**
 * A shared directory, opened once on the main thread; its workers get the result by structured
 * clone and share the memory and the descriptors it names.
 */
import { readdirSync } from 'node:fs'
import { errno, SyscallError, UsageError } from '../../errors.js'
import { Capabilities, CAP_DAC_READ_SEARCH, CAP_SETGID, CAP_SETUID, CAP_SYS_ADMIN, effectiveUid } from '../../sys/credentials.js'
import { AT_EMPTY_PATH, O_DIRECTORY, O_PATH, openPath, STATX_MNT_ID, statxPath } from '../../sys/file.js'
import { close } from '../../sys/io.js'
import { mapAnonymous, unmap, viewRegion } from '../../sys/memory.js'
import { closeLeft } from './freeing.js'
import { HandleTable, HANDLE_LIMIT } from './handle-table.js'
import { Flag, ROOT_INDEX } from './inode-record.js'
import { InodeTable } from './inode-table.js'
import { Head, planLayout, type Layout } from './layout.js'
import { MountKind, MountTable, NO_HANDLES } from './mount-table.js'
import { checkOptions, type PassthroughOptions } from './options.js'
import { Space } from './space.js'
import { St, StatBuffer, STAT_MASK } from './stat-buffer.js'
import { MountProbe } from './file-handles.js'
import { Usage } from './usage.js'
import { descriptorLimit } from '../../sys/limits.js'
import { openWatch } from './watch.js'

/** Plain data: survives structured clone. */
export interface PassthroughShared {
  readonly options: PassthroughOptions
  /** The memory that all workers share. */
  readonly address: number
  readonly lengthBytes: number
  readonly layout: Layout
  /** O_PATH descriptor of /proc/self/fd. */
  readonly procFd: number
  /** Most descriptors that stay open for inodes that nothing else leads to: unlinked files above all. */
  readonly keptLimit: number
  /** Most that wait to be closed, see Freeing. */
  readonly freeingLimit: number
  /** Tells of changes of the file systems that the tree lies on; −1 unless cache=coherent. */
  readonly fanotifyFd: number
  /** What cannot be done here and why, one line each, to be said once. */
  readonly notices: readonly string[]
}

export interface PassthroughLimits {
  /** Inodes that can be known at once. */
  inodes?: number
  /** O_PATH descriptors kept open for speed. */
  cachedDescriptors?: number
  /** Descriptors that may wait to be closed, at most. */
  freeing?: number
  /** False: behave as where file handles cannot be used. */
  fileHandles?: boolean
}

const DEFAULT_INODES = 2 ** 23
const DEFAULT_CACHED = 4096
/** Of the process' own, beyond those open at the start: those of threads that start later above all. */
const OWN_DESCRIPTORS = 24
const LEAST_DESCRIPTORS = 8

/**
 * Opens a directory to serve.
 * @throws SyscallError, UsageError with one line that names the directory
 */
export function openPassthrough(options: PassthroughOptions, limits: PassthroughLimits = {}): PassthroughShared {
  checkOptions(options)
  const rootFd = openRoot(options.root)
  let procFd = -1
  let fanotifyFd = -1
  let mountFd = -1
  let address = 0
  let lengthBytes = 0
  try {
    procFd = openPath('/proc/self/fd', O_PATH | O_DIRECTORY)
    if (procFd < 0) throw new SyscallError('open', -procFd, '/proc/self/fd')
    // the process has some, and needs more for its threads
    const limit = descriptorLimit()
    const descriptors = Math.max(LEAST_DESCRIPTORS, limit - readdirSync('/proc/self/fd').length - OWN_DESCRIPTORS)
    const notices: string[] = []
    const handles = limits.fileHandles !== false && handlesPermitted(notices)
    // opening again by name is slower and less certain than by handle
    const share = Math.max(4, Math.floor(descriptors / (handles ? 4 : 2)))
    const cached = Math.min(limits.cachedDescriptors ?? (handles ? DEFAULT_CACHED : share), share)
    const coherent = options.cache === 'coherent'
    const layout = planLayout(limits.inodes ?? DEFAULT_INODES, Math.min(limit, HANDLE_LIMIT), cached, coherent, options.maxSize !== Infinity)
    lengthBytes = layout.words * 4
    address = mapAnonymous(lengthBytes)
    const words = new Int32Array(viewRegion(address, lengthBytes).view.buffer)
    const stat = new StatBuffer()
    const got = statxPath(rootFd, '', AT_EMPTY_PATH, STAT_MASK, stat.address)
    if (got < 0) throw new SyscallError('statx', -got, options.root)
    const inodes = new InodeTable(words, address, layout)
    if (options.maxSize !== Infinity) {
      inodes.space = new Space(words, layout, options.maxSize)
      const usage = new Usage()
      usage.count(rootFd)
      inodes.space.add(usage.blocks)
    }
    inodes.insertRoot(stat, rootFd)
    const probe = new MountProbe(procFd)
    mountFd = handles && (stat.words[St.mask]! & STATX_MNT_ID) !== 0 ? probe.open(rootFd, stat) : NO_HANDLES
    let kind = probe.kind(rootFd)
    if (options.hide.length + options.only.length > 0 && (kind & MountKind.FOLDS) !== 0) {
      throw new UsageError(`${options.root}: hide and only need a file system where no two names are one`)
    }
    if (coherent) {
      fanotifyFd = openWatch(mountFd, options.root)
      kind |= MountKind.WATCHED
      inodes.setFlags(ROOT_INDEX, Flag.WATCHED)
    }
    new MountTable(words, layout).add(stat.mountId, mountFd, kind)
    if (handles && mountFd < 0) notices.push(`${options.root}: its file system has no usable file handles; files renamed on this side can be lost to the mount until they are looked up again`)
    if (options.direct && !new Capabilities().has(CAP_SYS_ADMIN)) notices.push('not root: option direct has no effect')
    if (!mayActForOthers()) notices.push('not root: new files belong to the user of the device, whoever creates them')
    return { options, address, lengthBytes, layout, procFd, fanotifyFd, keptLimit: Math.floor(descriptors / 2), freeingLimit: limits.freeing ?? Math.floor(descriptors / 16), notices }
  } catch (error) {
    if (address !== 0) unmap(address, lengthBytes)
    for (const fd of [fanotifyFd, mountFd, procFd]) if (fd >= 0) close(fd)
    close(rootFd)
    throw error
  }
}

function openRoot(root: string): number {
  if (root === '' || root.includes('\0')) throw new UsageError('the directory to serve has an empty or impossible name')
  const fd = openPath(root, O_PATH | O_DIRECTORY)
  if (fd === -errno.ENOTDIR) throw new UsageError(`${root}: not a directory`)
  if (fd === -errno.ENOENT) throw new UsageError(`${root}: no such directory`)
  if (fd < 0) throw new SyscallError('open', -fd, root)
  return fd
}

function mayActForOthers(): boolean {
  const capabilities = new Capabilities()
  return effectiveUid() === 0 && capabilities.has(CAP_SETUID) && capabilities.has(CAP_SETGID)
}

function handlesPermitted(notices: string[]): boolean {
  if (new Capabilities().has(CAP_DAC_READ_SEARCH)) return true
  notices.push('no CAP_DAC_READ_SEARCH: files cannot be opened by handle; files renamed on this side can be lost to the mount until they are looked up again')
  return false
}

/** The directory is mounted now, on this FUSE connection. */
export function mountedAs(shared: PassthroughShared, connection: number): void {
  Atomics.store(new Int32Array(viewRegion(shared.address, shared.lengthBytes).view.buffer), Head.OWN_MINOR, Math.max(0, connection))
}

/**
 * Closes everything. Every worker must have ended, and on this thread nothing made from `shared`
 * may be used any more: its memory is gone.
 */
export function closePassthrough(shared: PassthroughShared): void {
  const words = new Int32Array(viewRegion(shared.address, shared.lengthBytes).view.buffer)
  const inodes = new InodeTable(words, shared.address, shared.layout)
  new HandleTable(words, shared.layout).releaseAll()
  inodes.forgetAll()
  closeLeft(words)
  inodes.closeRoot()
  new MountTable(words, shared.layout).closeAll()
  close(shared.procFd)
  if (shared.fanotifyFd >= 0) close(shared.fanotifyFd)
  unmap(shared.address, shared.lengthBytes)
}
