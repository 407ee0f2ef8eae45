/** Brings a device online and mounts it on the host: the steps, and how each is undone when a later one fails. */
import type { FaultControl } from '../device/faults.js'
import type { Transport } from '../driver/transport.js'
import type { VirtioFsOptions } from '../driver/virtio-fs-options.js'
import { VirtioFs } from '../driver/virtio-fs.js'
import type { WorkerHandle } from '../driver/worker-handle.js'
import type { InitPolicy } from '../fuse/init.js'
import { AuditLog } from './audit.js'
import type { HostMount } from './dev-fuse.js'
import { KernelSideMount } from './kernel-side-mount.js'
import type { Mount } from './live-mount.js'
import type { LiveTag } from './live-tags.js'
import { setReadAhead, type ReadAhead } from './read-ahead.js'
import { RequestObserver } from './request-observer.js'
import type { MountFacts, Supervision } from './supervision.js'

/** A device that was reached and claimed, and where it is to be mounted. All of it is owned by the mount from now on. */
export interface DeviceMount extends VirtioFsOptions {
  source: string
  /** What the device is, for people. */
  backend?: string
  transport: Transport
  live: Pick<LiveTag, 'describe' | 'unmounted' | 'release'>
  /** The first queue's thread, and how to start the others. */
  worker: WorkerHandle
  newWorker?: (index: number) => WorkerHandle
  /** Mounts on the host. @param queues how many descriptors it needs */
  hostMount: (queues: number) => Promise<HostMount>
  init: Omit<InitPolicy, 'maxWrite' | 'maxBackground'>
  /** Not before the threads of the emulated device are there: a delay must not hold up the queue's own. */
  waitForPool?: boolean
  /** What is known already that cannot be done. */
  notices?: readonly string[]
  /** Seconds. */
  idleTimeout?: number | undefined
  /** File of the audit log. */
  audit?: string | undefined
  /** What the device does wrong on demand. */
  faults?: FaultControl | undefined
  /** None: as the kernel has it. */
  readAhead?: ReadAhead
  supervision?: Supervision
  /** Lets the supervisor have what the next process needs. */
  handOver?: (facts: Omit<MountFacts, 'live'>, kernel: HostMount) => Promise<void>
}

function startAudit(path: string, fs: VirtioFs, observer: RequestObserver, trouble: (message: string) => void): void {
  const log = new AuditLog(path, trouble)
  log.start(observer)
  fs.once('ended', () => log.close())
}

/**
 * Brings a device online and mounts it.
 *
 * @throws as `mount`; nothing is left behind then
 */
export async function mountDevice({ source, backend, transport, live, worker, newWorker, hostMount, init, waitForPool, notices: given = [], idleTimeout, audit, readAhead, faults, supervision, handOver, ...options }: DeviceMount): Promise<Mount> {
  const fs = await VirtioFs.create(transport, options, worker, newWorker).catch(error => {
    live.release()
    throw error
  })
  fs.once('gone', () => live.release())
  fs.once('unmounted', () => live.unmounted())
  fs.once('ended', () => live.release())
  const observer = new RequestObserver(fs)
  let mounted: KernelSideMount | undefined
  let kernel: HostMount
  try {
    if (audit !== undefined) startAudit(audit, fs, observer, message => mounted?.emit('trouble', message))
    kernel = await hostMount(fs.queues)
  } catch (error) {
    await fs.killSb()
    throw error
  }
  try {
    transport.mountedAs?.(kernel.connection)
    await fs.start(kernel, init)
    if (waitForPool) await fs.transport.poolReady?.()
    live.describe({ source, mountpoint: kernel.mountpoint, connection: kernel.connection, ...supervision && { supervisor: supervision.pid } })
    const notices = [...transport.notices ?? [], ...given]
    if (init.passthrough && !fs.init!.flags.includes('PASSTHROUGH')) notices.push('this kernel has no FUSE passthrough: option direct has no effect')
    const trouble = readAhead === undefined ? '' : setReadAhead(kernel.connection, readAhead)
    if (trouble !== '') notices.push(trouble)
    await handOver?.({ device: fs.transport.info, init: fs.init!, notices, sinceMs: Date.now() }, kernel)
    mounted = new KernelSideMount(source, fs, kernel, notices, backend, observer, faults, supervision)
    const listen = (): void => { fs.transport.onSaid = line => mounted!.emit('trouble', line) }
    listen()
    fs.on('found', listen)
    if (idleTimeout !== undefined) mounted.endWhenIdle(idleTimeout * 1000)
    return mounted
  } catch (error) {
    // it ends as a whole, and leaves the mount to another
    if (supervision?.inherited) throw error
    await kernel.unmount(true)
    await fs.killSb()
    fs.afterThreads(() => kernel.close())
    throw error
  }
}
