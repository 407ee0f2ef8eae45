/**
 * The kernel's side of a mount: /dev/fuse, mount(2) as root, fusermount3 otherwise, and the ways
 * to unmount.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { errno, SyscallError, UsageError } from '../errors.js'
import { close, pollAsync, POLLIN } from '../sys/io.js'
import { cloneFuse, isNotMounted, mountFileSystem, openFuse, takeOver, unmountFileSystem } from '../sys/mount.js'
import { isConnectionMounted } from './connection-state.js'
import { socketpair } from '../sys/socket.js'
import { recvmsg } from '../sys/socket-message.js'
import { abortConnection } from '../sys/abort.js'
import { MNT_DETACH } from './flags.js'
import type { GivenMount } from './given-fd.js'
import { findMount, FS_TYPE, readMounts, type MountEntry } from './mountinfo.js'
import { mountFlagNames } from './options.js'

export interface KernelMountOptions {
  source: string
  mountpoint: string
  /** st_mode of the mount point. */
  mode: number
  /** MS_* flags. */
  flags: number
  allowOther: boolean
  defaultPermissions: boolean
  /** It is mounted already. */
  given?: GivenMount | undefined
}

/** The host's side of a mount, as the session needs it. */
export interface HostMount {
  readonly mountpoint: string
  /** One per queue: clones of one connection. */
  readonly fuseFds: readonly number[]
  /** Number under /sys/fs/fuse/connections. */
  readonly connection: number
  /** Whether it is mounted anywhere. */
  readonly mounted: boolean
  /** Whether its superblock is still there: also of one that was detached and is in use. */
  readonly alive: boolean
  /** Unmounts it, wherever it is mounted. @param lazy detach now, end when the last user is gone @returns 0 or −errno */
  unmount(lazy?: boolean): Promise<number>
  /** Aborts the connection: every caller gets an error, also one that a signal cannot reach. */
  abort(): void
  /** Closes the descriptors. No thread may use them any more. */
  close(): void
}

/** What fusermount3 may take to mount, in milliseconds. */
const FUSERMOUNT_TIMEOUT_MS = 10_000

export class KernelMount implements HostMount {
  readonly mountpoint: string
  readonly fuseFds: number[]
  readonly connection: number
  readonly #root: boolean

  private constructor(mountpoint: string, fuseFds: number[], root: boolean, connection: number) {
    this.mountpoint = mountpoint
    this.fuseFds = fuseFds
    this.#root = root
    this.connection = connection
  }

  /**
   * Mounts. The kernel sends INIT at once; nobody reads it yet.
   *
   * @param queues how many descriptors to make
   * @throws SyscallError, UsageError
   */
  static async mount(options: KernelMountOptions, queues: number): Promise<KernelMount> {
    const root = process.getuid!() === 0
    const fuseFds: number[] = []
    const { given, mountpoint } = options
    try {
      fuseFds.push(given?.fd ?? (root ? await mountAsRoot(options) : await mountByHelper(options)))
      while (fuseFds.length < queues) fuseFds.push(cloneFuse(fuseFds[0]!))
      return new KernelMount(mountpoint, fuseFds, root, given?.connection ?? findMount(mountpoint)?.minor ?? -1)
    } catch (error) {
      if (fuseFds.length > 0 && !given) await unmountPath(mountpoint, MNT_DETACH)
      for (const fd of fuseFds) close(fd)
      throw error
    }
  }

  /** The mount of a process before this one. @param fuseFd is its own from now on */
  static inherit(mountpoint: string, fuseFd: number, connection: number): KernelMount {
    return new KernelMount(mountpoint, [fuseFd], process.getuid!() === 0, connection)
  }

  get mounted(): boolean {
    return this.connection < 0 ? this.alive : this.#places().length > 0
  }

  /** If not, the number of the connection may be somebody else's by now. */
  get alive(): boolean {
    return this.fuseFds.length > 0 && isConnectionMounted(this.fuseFds[0]!)
  }

  async unmount(lazy = false): Promise<number> {
    if (this.connection < 0) return this.alive ? -errno.EPERM : 0
    for (const { mountpoint } of this.#places()) {
      const error = await unmountPath(mountpoint, lazy ? MNT_DETACH : 0, this.#root)
      if (error < 0) return error
    }
    return 0
  }

  /** Every place where this session is mounted, the latest first. */
  #places(): MountEntry[] {
    if (!this.alive) return []
    return readMounts().filter(entry => entry.type.startsWith('fuse') && entry.minor === this.connection).reverse()
  }

  /** Works without fusectl too, as long as the mount is not detached. */
  abort(): void {
    if (this.alive) abortConnection(this.connection, this.mountpoint)
  }

  close(): void {
    for (const fd of this.fuseFds.splice(0)) close(fd)
  }
}

async function mountAsRoot({ source, mountpoint, mode, flags, allowOther, defaultPermissions }: KernelMountOptions): Promise<number> {
  const fd = openFuseClearly()
  const data = [
    `fd=${fd}`, `rootmode=${(mode & 0o170000).toString(8)}`, `user_id=${process.getuid!()}`, `group_id=${process.getgid!()}`,
    ...(defaultPermissions ? ['default_permissions'] : []), ...(allowOther ? ['allow_other'] : []),
  ].join(',')
  try {
    await mountFileSystem(source, mountpoint, FS_TYPE, flags, data)
  } catch (error) {
    close(fd)
    throw error
  }
  return fd
}

function openFuseClearly(): number {
  try {
    return openFuse()
  } catch (error) {
    if (error instanceof SyscallError && [errno.ENOENT, errno.ENODEV, errno.ENXIO].includes(error.errno)) {
      throw new UsageError(`/dev/fuse: ${error.code}: the kernel's fuse module is not there (modprobe fuse)`, 'ENODEV')
    }
    throw error
  }
}

/** Backslash-escapes what fusermount3 would take for the end of an option. */
function escape(value: string): string {
  return value.replace(/[\\,]/g, '\\$&')
}

/** mount(8)-style helper of libfuse: mounts with its own rights and sends the descriptor back. */
async function mountByHelper({ source, mountpoint, flags, allowOther, defaultPermissions }: KernelMountOptions): Promise<number> {
  const [ours, theirs] = socketpair()
  try {
    const options = [
      `fsname=${escape(source)}`, 'subtype=virtiofs-bridge', ...mountFlagNames(flags),
      ...(defaultPermissions ? ['default_permissions'] : []), ...(allowOther ? ['allow_other'] : []),
    ].join(',')
    const helper = spawn('fusermount3', ['-o', options, '--', mountpoint], {
      stdio: ['ignore', 'ignore', 'pipe', theirs], env: { ...process.env, _FUSE_COMMFD: '3' },
    })
    let said = ''
    helper.stderr!.on('data', chunk => { said += chunk })
    const ended = once(helper, 'close') as Promise<[number | null]>
    ended.catch(() => {})
    await once(helper, 'spawn').catch((error: NodeJS.ErrnoException) => {
      throw new UsageError(error.code === 'ENOENT' ? 'not root, and fusermount3 is not installed (package fuse3)' : `fusermount3: ${error.message}`, 'EPERM')
    })
    const [code] = await ended
    if (code !== 0) throw new UsageError(`fusermount3: ${said.trim().replace(/^fusermount3: /, '') || `exit code ${code}`}`, 'EPERM')
    await pollAsync(ours, POLLIN, FUSERMOUNT_TIMEOUT_MS)
    const fds: number[] = []
    recvmsg(ours, new Uint8Array(1), fds)
    if (fds.length !== 1) throw new UsageError('fusermount3 sent no descriptor', 'EPERM')
    // it opens without O_NONBLOCK: a worker that waits in a read sees no answer of the device
    takeOver(fds[0]!)
    return fds[0]!
  } finally {
    close(ours)
    close(theirs)
  }
}

/**
 * Unmounts a path: umount2(2) as root, fusermount3 otherwise.
 *
 * @param flags MNT_DETACH or 0
 * @returns 0 (also when nothing was mounted) or −errno
 */
export async function unmountPath(mountpoint: string, flags: number, root = process.getuid!() === 0): Promise<number> {
  if (root) {
    const error = await unmountFileSystem(mountpoint, flags)
    return isNotMounted(error) ? 0 : error
  }
  const helper = spawn('fusermount3', ['-u', ...(flags & MNT_DETACH ? ['-z'] : []), '--', mountpoint], { stdio: ['ignore', 'ignore', 'pipe'] })
  let said = ''
  helper.stderr!.on('data', chunk => { said += chunk })
  try {
    const [code] = await once(helper, 'close') as [number | null]
    if (code === 0 || findMount(mountpoint)?.type !== FS_TYPE) return 0
    // it tells by words only
    return /permitted|permission|not found/i.test(said) ? -errno.EPERM : -errno.EBUSY
  } catch {
    return -errno.EPERM
  }
}

/** For messages: why an unmount failed. */
export function unmountError(mountpoint: string, error: number): SyscallError {
  const failed = new SyscallError('umount', -error, mountpoint)
  if (-error === errno.EBUSY) failed.message = `${mountpoint} is in use`
  if (-error === errno.EPERM) failed.message = `no right to unmount ${mountpoint} (EPERM)`
  return failed
}
