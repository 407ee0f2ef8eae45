/**
 * Real mounts over a device that the test made, in the test's own process: what the device saw can
 * be looked at afterwards.
 */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'
import { EmulatedTransport, type HandlersSource } from '../../lib/driver/emulated-transport.js'
import type { Transport } from '../../lib/driver/transport.js'
import { VirtioFs } from '../../lib/driver/virtio-fs.js'
import { WorkerHandle } from '../../lib/driver/worker-handle.js'
import { defaultOptions, type PassthroughOptions } from '../../lib/device/passthrough/options.js'
import { closePassthrough, openPassthrough, type PassthroughShared } from '../../lib/device/passthrough/shared.js'
import { KernelMount } from '../../lib/mount/dev-fuse.js'
import { KernelSideMount } from '../../lib/mount/kernel-side-mount.js'
import { within } from './program.js'
import { clearMount } from './stuck.js'

export interface DriverMountOptions {
  queues?: number
  queueSize?: number
  pollUs?: number
  timeoutMs?: number
  /** The kernel may access files itself, which the device must want, too. */
  passthrough?: boolean
}

/** A directory of a test with a shared directory and a mount point in it. */
export class Bench {
  readonly base = mkdtempSync(join(tmpdir(), 'vfb-'))
  readonly source: string
  readonly dir = join(this.base, 'mnt')

  /** @param source a directory to share, instead of a new one */
  constructor(source?: string) {
    this.source = source ?? join(this.base, 'src')
    if (source === undefined) mkdirSync(this.source)
    mkdirSync(this.dir)
  }

  /** Opens the shared directory for handlers; their `close` closes it. */
  serve(options: Partial<PassthroughOptions> = {}): { handlers: HandlersSource, directory: PassthroughShared } {
    const directory = openPassthrough({ ...defaultOptions, xattr: false, ...options, root: this.source })
    const module = new URL('../../lib/device/passthrough-handlers.js', import.meta.url).href
    return { handlers: { module, data: directory, close: () => closePassthrough(directory) }, directory }
  }

  [Symbol.dispose](): void {
    rmSync(this.base, { recursive: true, force: true })
  }
}

export { EmulatedTransport }

export interface DriverMount {
  mount: KernelSideMount
  fs: VirtioFs
}

/** Mounts a device. @throws what makes it fail, with everything freed */
export async function mountDevice(transport: Transport, dir: string, { queues = 1, queueSize = 128, pollUs = 100, timeoutMs = 20_000, passthrough = false }: DriverMountOptions = {}): Promise<DriverMount> {
  const fs = await VirtioFs.create(transport, { queues, queueSize, pollUs, timeoutMs, traceJson: undefined }, new WorkerHandle(0))
  let kernel: KernelMount | undefined
  try {
    kernel = await KernelMount.mount({ source: 'test', mountpoint: dir, mode: 0o40755, flags: 0, allowOther: true, defaultPermissions: true }, fs.queues)
    await fs.start(kernel, { defaultPermissions: true, passthrough })
    return { mount: new KernelSideMount('test', fs, kernel, []), fs }
  } catch (error) {
    await kernel?.unmount(true)
    await fs.killSb()
    kernel?.close()
    throw error
  }
}

/** Mounts, runs the body, unmounts unless the body did; whatever happens, nothing is left. */
export async function withDevice(t: Test, transport: Transport, dir: string, options: DriverMountOptions, body: (mounted: DriverMount) => Promise<void>): Promise<void> {
  const mounted = await mountDevice(transport, dir, options)
  try {
    await body(mounted)
    await mounted.mount.unmount()
  } finally {
    if (await within(20_000, mounted.mount.unmount({ abort: true }).catch(() => {}).then(() => true)) === undefined) t.fail('the unmount does not end')
    if (await clearMount(dir)) t.fail('a mount was left')
  }
}
