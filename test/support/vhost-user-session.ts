/** A whole vhost-user session, step by step, and what it needs: memory, eventfds, a pipe's worth of descriptors. */
import { existsSync, readdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { close, createEventfd } from '../../lib/sys/io.js'
import { createMemfd, mapShared, unmap } from '../../lib/sys/memory.js'
import type { MemoryRegion, RingOptions, VhostUserFrontend } from '../../lib/vhost-user/frontend.js'

const MEMORY_BYTES = 1 << 20
const RING_BYTES = 1 << 16

/** Number of open descriptors of this process. */
export function openFds(): number {
  // the directory that is being listed is one of them, every time
  return readdirSync('/proc/self/fd').length
}

/** The directory that holds package.json. */
export function packageRoot(): string {
  let at = dirname(fileURLToPath(import.meta.url))
  while (!existsSync(join(at, 'package.json'))) at = dirname(at)
  return at
}

/** Memory and descriptors for a device of a few rings. */
export class SessionResources {
  readonly memfd = createMemfd('vhost-user-test', MEMORY_BYTES)
  readonly address = mapShared(this.memfd, MEMORY_BYTES)
  readonly kickFd = createEventfd()
  readonly callFd = createEventfd()
  readonly errFd = createEventfd()

  get region(): MemoryRegion {
    return { guestAddress: 0x10000, size: MEMORY_BYTES, userAddress: this.address, mmapOffset: 0, fd: this.memfd }
  }

  ring(index: number, changes: Partial<RingOptions> = {}): RingOptions {
    const at = this.address + index * RING_BYTES
    return { size: 128, base: 0, descAddr: at, availAddr: at + 8192, usedAddr: at + 16384, kickFd: this.kickFd, callFd: this.callFd, errFd: this.errFd, ...changes }
  }

  free(): void {
    unmap(this.address, MEMORY_BYTES)
    for (const fd of [this.memfd, this.kickFd, this.callFd, this.errFd]) close(fd)
  }
}

/** Every message a frontend knows, in an order that works. */
export function sessionSteps(frontend: VhostUserFrontend, resources: SessionResources): (() => Promise<unknown>)[] {
  return [
    () => frontend.negotiate(),
    () => frontend.getConfig(0, 40),
    () => frontend.setOwner(),
    () => frontend.setBackendRequestFd(resources.callFd),
    () => frontend.setMemTable([resources.region]),
    () => frontend.setupRing(0, resources.ring(0)),
    () => frontend.enableRing(0, true),
    () => frontend.stopRing(0),
    () => frontend.setDeviceStateFd('save', resources.callFd),
    () => frontend.checkDeviceState(),
    () => frontend.resetDevice(),
    () => frontend.negotiate(),
  ]
}
