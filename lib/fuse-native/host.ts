/**
 * A session whose requests come from libfuse, in the process that is made for it: the client's tree
 * below, the callbacks above, and the order in which both end.
 */
import { openTree, type ConnectOptions, type OpenTree } from '../client/connect.js'
import { workerCounters } from '../driver/counters.js'
import { UsageError } from '../errors.js'
import { unmountPath } from '../mount/dev-fuse.js'
import { MNT_DETACH } from '../mount/flags.js'
import { watchIdle } from '../mount/idle.js'
import { findMount } from '../mount/mountinfo.js'
import { mountTimeoutMs } from '../mount/options.js'
import { viewMemory } from '../sys/libc.js'
import { mapShared } from '../sys/memory.js'
import { loadAddon, type Addon } from './addon.js'
import { fileCallbacks } from './file-callbacks.js'
import { HiddenFiles } from './hidden-files.js'
import { LibfuseMount } from './libfuse-mount.js'
import { OpenFiles } from './open-files.js'
import { pathCallbacks, xattrCallbacks } from './path-callbacks.js'
import { COUNTERS_BYTES, COUNTERS_FD, type ToChild, type ToParent } from './protocol.js'

type MountMessage = ToChild & { kind: 'mount' }

export class Host {
  readonly #opened: OpenTree
  readonly #files: OpenFiles
  readonly #hidden = new HiddenFiles()
  readonly #tell: (message: ToParent) => void
  readonly #message: MountMessage
  #mount: LibfuseMount | undefined
  #connection = -1
  #end = (): void => {}
  readonly #told = new Promise<void>(resolve => { this.#end = resolve })

  private constructor(message: MountMessage, opened: OpenTree, tell: (message: ToParent) => void) {
    this.#message = message
    this.#opened = opened
    this.#files = new OpenFiles(opened.tree)
    this.#tell = tell
    opened.session.on('gone', reason => tell({ kind: 'gone', reason }))
  }

  /**
   * Connects and mounts.
   * @throws UsageError, SyscallError, ProtocolError, PeerGoneError; nothing is left behind then
   */
  static async start(message: MountMessage, tell: (message: ToParent) => void): Promise<Host> {
    const addon = loadAddon()
    const { source, options } = message
    // without a default, so that a file system of its own is not told what concerns directories only
    const asked: ConnectOptions = { ...options as ConnectOptions, umask: 0 }
    const counters = workerCounters(viewMemory(mapShared(COUNTERS_FD, COUNTERS_BYTES), COUNTERS_BYTES), 0)
    const host = new Host(message, await openTree(source, asked, counters), tell)
    try {
      await host.#start(addon)
      return host
    } catch (error) {
      await host.#opened.release()
      throw error
    }
  }

  async #start(addon: Addon): Promise<void> {
    const { source, mountpoint, options, libfuse } = this.#message
    const { tree, session, live } = this.#opened
    const served = { tree, files: this.#files, hidden: this.#hidden }
    // libfuse puts paths together itself: a caller may be deep in the tree with a short one
    tree.maxPathBytes = Infinity
    const xattr = options.xattr || options.xattrmap !== undefined
    const callbacks = { ...pathCallbacks(served), ...fileCallbacks(served), ...xattr ? xattrCallbacks(served) : {} }
    const name = typeof source === 'string' ? source : source.name
    this.#mount = await LibfuseMount.mount(addon, mountpoint, libfuse, callbacks, mountTimeoutMs(options.mountTimeout))
    this.#connection = findMount(mountpoint)?.minor ?? -1
    if (this.#connection < 0) throw new UsageError(`${mountpoint} was unmounted while it was being mounted`, 'ENOENT')
    session.transport.mountedAs?.(this.#connection)
    // signals, status and the like are for the parent
    live.describe({ source: name, mountpoint, connection: this.#connection }, process.ppid)
    const { info } = session.transport
    this.#tell({
      kind: 'usable', tag: session.tag, init: session.init, connection: this.#connection, queueSize: session.queueSize,
      features: info.featureNames, protocolFeatures: info.protocolFeatureNames, notices: session.transport.notices ?? [],
    })
    if (options.idleTimeout !== undefined) {
      const stop = watchIdle(options.idleTimeout * 1000, () => this.#mount!.calls, async () => {
        if (await unmountPath(mountpoint, 0) === 0) this.#tell({ kind: 'idle' })
      })
      void this.#mount.ended.then(stop)
    }
  }

  /** Aborts the connection. What waits for a device that does not answer either must not hold up the end. */
  abort(): void {
    this.#mount!.abort(this.#connection, this.#message.mountpoint)
    const timer = setTimeout(() => this.#opened.session.abort('the device does not answer, and nobody waits any more'), mountTimeoutMs(this.#message.options.mountTimeout))
    void this.#mount!.ended.then(() => clearTimeout(timer))
  }

  /** Ends the session although it is mounted. */
  end(): void {
    this.#end()
  }

  /** Nobody is there any more to end it: takes the mount away from its users. */
  orphaned(): void {
    const { mountpoint } = this.#message
    this.abort()
    if (findMount(mountpoint)?.minor === this.#connection) {
      void unmountPath(mountpoint, MNT_DETACH).finally(() => this.#end())
    } else {
      this.#end()
    }
  }

  /** Serves until it is unmounted; then ends in the order of kill_sb: RELEASEs and FORGETs of what is held, DESTROY. */
  async serve(): Promise<void> {
    await Promise.race([this.#mount!.ended, this.#told])
    const { session, live, release } = this.#opened
    session.event('unmounted')
    live.unmounted()
    this.#tell({ kind: 'unmounted' })
    this.#files.releaseAll()
    this.#hidden.dropAll()
    await release()
  }
}
