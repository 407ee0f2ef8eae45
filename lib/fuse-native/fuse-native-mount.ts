/** A mount through libfuse 2, as its parent process sees it: the child that serves it, and its end. */
import { spawn, type ChildProcess } from 'node:child_process'
import { readSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { errno, PeerGoneError, UsageError } from '../errors.js'
import type { InitAnswer } from '../fuse/init.js'
import { Counter, type CounterName, sumCounter } from '../driver/counters.js'
import { absoluteOptions, absoluteSource } from '../mount/absolute.js'
import { unmountError, unmountPath } from '../mount/dev-fuse.js'
import { MNT_DETACH } from '../mount/flags.js'
import { Mount, type UnmountOptions } from '../mount/live-mount.js'
import type { MountRequest, ServedMountRequest } from '../mount/mount.js'
import type { MountStatus } from '../mount/mount-status.js'
import { type MountStats, readStats } from '../mount/mount-stats.js'
import { readMounts, type MountEntry } from '../mount/mountinfo.js'
import { prepareMountpoint, refuseInsideSource } from '../mount/mountpoint.js'
import { mountTimeoutMs } from '../mount/options.js'
import { backendName, parseSource } from '../mount/source.js'
import { close } from '../sys/io.js'
import { createMemfd } from '../sys/memory.js'
import { checkOptions, libfuseOptions } from './libfuse-options.js'
import { COUNTERS_BYTES, errorOf, type ToChild, type ToParent } from './protocol.js'

/** Starting Node, loading, a virtiofsd: on top of the deadline of each step. */
const START_MS = 20_000
const PROGRAM = fileURLToPath(new URL('./host-process.js', import.meta.url))
/** Its end after it was told to end everything, in milliseconds. */
const FORCED_END_MS = 15_000

type Usable = ToParent & { kind: 'usable' }

interface Origin {
  source: string
  mountpoint: string
  backend: string
}

export class FuseNativeMount extends Mount {
  readonly source: string
  readonly mountpoint: string
  readonly notices: readonly string[]
  readonly closed: Promise<void>
  gone = ''
  readonly #child: HostProcess
  readonly #usable: Usable
  readonly #backend: string
  readonly #sinceMs = Date.now()
  #unmounted = false

  private constructor({ source, mountpoint, backend }: Origin, child: HostProcess, usable: Usable) {
    super()
    this.source = source
    this.mountpoint = mountpoint
    this.#backend = backend
    this.#child = child
    this.#usable = usable
    this.notices = usable.notices
    child.hear(message => this.#heard(message))
    this.closed = this.#end()
  }

  /** @throws UsageError, SyscallError, ProtocolError, PeerGoneError; nothing is left behind then */
  static async mount(origin: Origin, message: ToChild & { kind: 'mount' }): Promise<FuseNativeMount> {
    const child = new HostProcess()
    try {
      const usable = await child.start(message, START_MS + mountTimeoutMs(message.options.mountTimeout))
      return new FuseNativeMount(origin, child, usable)
    } catch (error) {
      await child.kill()
      throw error
    }
  }

  #heard(message: ToParent): void {
    switch (message.kind) {
      case 'gone':
        this.gone = message.reason
        this.emit('gone', message.reason)
        break
      case 'idle': this.emit('idle'); break
      case 'unmounted': this.#unmounted = true; break
    }
  }

  async #end(): Promise<void> {
    const ended = await this.#child.ended
    if (ended !== 0 && !this.#unmounted && this.gone === '') {
      this.gone = `the process of the mount has ended with ${ended}`
      this.emit('gone', this.gone)
    }
    // one that has died leaves a mount that would answer ENOTCONN for ever
    for (const { mountpoint } of this.#places()) await unmountPath(mountpoint, MNT_DETACH)
    this.#unmounted = true
  }

  /** Where it is mounted, the latest place first. */
  #places(): MountEntry[] {
    if (this.#unmounted) return []
    return readMounts().filter(entry => entry.minor === this.#usable.connection && entry.type.startsWith('fuse')).reverse()
  }

  get tag(): string {
    return this.#usable.tag
  }

  get init(): InitAnswer {
    return this.#usable.init
  }

  get faults(): never {
    throw new UsageError('faults are not possible with via=fuse-native: its device is in another process')
  }

  status(): MountStatus {
    const sum = (counter: CounterName): number => sumCounter(this.#child.counters, Counter[counter])
    const { connection, queueSize, features, protocolFeatures, init } = this.#usable
    return {
      mountpoints: this.#places().map(entry => entry.mountpoint), source: this.source, tag: this.tag, backend: this.#backend, connection, pid: process.pid, supervisor: 0, restarts: 0,
      since: new Date(this.#sinceMs).toISOString(), uptimeSeconds: Math.round((Date.now() - this.#sinceMs) / 1000),
      health: this.gone === '' ? 'ok' : 'gone', reason: this.gone, requestQueues: 1, queueSize,
      inFlight: sum('IN_FLIGHT'), requests: sum('REQUESTS'), errors: sum('ERRORS'), bytesRead: sum('BYTES_READ'), bytesWritten: sum('BYTES_WRITTEN'),
      features: [...features], protocolFeatures: [...protocolFeatures], fuseVersion: `${init.major}.${init.minor}`, fuseFlags: init.flags, notices: [...this.notices],
    }
  }

  stats(): MountStats {
    return readStats(this.#child.counters, 1, undefined)
  }

  /** Latencies are not counted: what a request is to the kernel is several to the device, or none. */
  time(): { latencies: undefined, stop: () => void } {
    return { latencies: undefined, stop: () => {} }
  }

  watch(): never {
    throw new UsageError('a mount with via=fuse-native cannot be watched: trace_json says what its device is asked')
  }

  async unmount({ lazy = false, abort = false }: UnmountOptions = {}): Promise<void> {
    if (abort) this.abort()
    for (const { mountpoint } of this.#places()) {
      let error = await unmountPath(mountpoint, 0)
      if (error === -errno.EBUSY && (lazy || abort)) error = await unmountPath(mountpoint, MNT_DETACH)
      if (error < 0) throw unmountError(mountpoint, error)
    }
    await this.closed
  }

  async replaceBackend(): Promise<number> {
    throw new UsageError('with via=fuse-native the backend cannot be replaced')
  }

  abort(): void {
    this.#child.tell({ kind: 'abort' })
  }

  async abandon(): Promise<void> {
    this.#child.tell({ kind: 'end' })
    await this.closed
  }
}

/** The child, until it has ended. */
class HostProcess {
  readonly #counters = new ArrayBuffer(COUNTERS_BYTES)
  /** Where the child counts; −1 when it has ended. */
  #memfd: number
  /** Its exit code or signal. */
  readonly ended: Promise<number | string>
  readonly #child: ChildProcess
  #said = ''
  #heard: (message: ToParent) => void = () => {}
  /** What came before somebody listened. */
  #early: ToParent[] = []

  constructor() {
    this.#memfd = createMemfd('virtiofs-bridge-counters', COUNTERS_BYTES)
    this.#child = spawn(process.execPath, [PROGRAM], {
      // signals of a terminal are ours alone
      detached: true, serialization: 'advanced', stdio: ['ignore', 'ignore', 'pipe', 'ipc', this.#memfd],
    })
    this.ended = new Promise(resolve => {
      this.#child.once('error', error => resolve(error.message))
      this.#child.once('exit', (code, signal) => resolve(code ?? signal!))
    })
    void this.ended.then(() => {
      this.#readCounters()
      close(this.#memfd)
      this.#memfd = -1
    })
    this.#child.stderr!.on('data', chunk => this.#hearText(String(chunk)))
    this.#child.on('message', message => this.#heard(message as ToParent))
  }

  /** Counters of its session; of one that has ended, its last. */
  get counters(): ArrayBuffer {
    if (this.#memfd >= 0) this.#readCounters()
    return this.#counters
  }

  #readCounters(): void {
    readSync(this.#memfd, new Uint8Array(this.#counters), 0, COUNTERS_BYTES, 0)
  }

  /** What libfuse prints goes into the error while there can be one. Traces go on. */
  #hearText = (text: string): void => { this.#said += text }

  /** Sends the first message, and waits for the answer. @throws what the child has found wrong */
  async start(message: ToChild, timeoutMs: number): Promise<Usable> {
    let timer: NodeJS.Timeout | undefined
    const answer = new Promise<Usable>((resolve, reject) => {
      this.#heard = message => {
        if (message.kind === 'usable') {
          this.#heard = later => { this.#early.push(later) }
          resolve(message)
        } else if (message.kind === 'failed') {
          failed = true
          // with what it has printed, which may come later
          this.#child.disconnect()
          this.#child.stderr!.once('end', () => reject(errorOf(message.failure, libfuseLines(this.#said))))
        } else {
          this.#early.push(message)
        }
      }
      let failed = false
      void this.ended.then(how => { if (!failed) reject(new PeerGoneError(`the process of the mount has ended with ${how}: ${this.#said.trim()}`)) })
      timer = setTimeout(() => reject(new PeerGoneError('the process of the mount does not answer', 'ETIMEDOUT')), timeoutMs)
      this.tell(message)
    })
    try {
      return await answer
    } finally {
      clearTimeout(timer)
      if (process.env['DEBUG']) process.stderr.write(this.#said)
      this.#hearText = text => { process.stderr.write(text) }
    }
  }

  /** Hands on what it says from now on, and what it has said since it was usable. */
  hear(heard: (message: ToParent) => void): void {
    this.#heard = heard
    for (const message of this.#early.splice(0)) setImmediate(() => heard(message))
  }

  tell(message: ToChild): void {
    // one that has ended meanwhile is heard of elsewhere
    if (this.#child.connected) this.#child.send(message, () => {})
  }

  /** Ends a child that is of no use, gently at first: it may have a mount to take away. */
  async kill(): Promise<void> {
    if (this.#child.connected) this.#child.disconnect()
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), FORCED_END_MS)
    await this.ended
    clearTimeout(timer)
  }
}

/** What libfuse and fusermount have printed, without our own traces. */
function libfuseLines(said: string): string {
  return said.split('\n').filter(line => /^fuse|^\/?\S*fusermount/.test(line)).join('; ')
}

/** @throws as `mount` */
export async function mountByFuseNative({ source, mountpoint, options = {}, faults }: MountRequest | ServedMountRequest): Promise<Mount> {
  if (faults) throw new UsageError('faults are not possible with via=fuse-native: its device is in another process')
  if (mountpoint.startsWith('/dev/fd/')) throw new UsageError('a mount point /dev/fd/N is not possible with via=fuse-native: libfuse mounts itself')
  checkOptions(options)
  const asked = absoluteOptions(options)
  delete asked.via
  const parsed = parseSource(source, typeof source === 'string' || source.tag === undefined ? asked : { tag: source.tag, ...asked })
  const from = typeof source === 'string' ? absoluteSource(source, asked) : source
  const name = typeof from === 'string' ? from : from.name
  const target = await prepareMountpoint(mountpoint)
  refuseInsideSource(target.path, parsed, asked)
  const origin = { source: name, mountpoint: target.path, backend: backendName(parsed, asked) }
  return await FuseNativeMount.mount(origin, { kind: 'mount', source: from, mountpoint: target.path, options: asked, libfuse: libfuseOptions(name, asked) })
}
