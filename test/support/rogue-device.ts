/**
 * A vhost-user device on a socket of its own, in this process: an empty directory, until a program
 * asks for the file system's statistics. Then it misbehaves.
 */
import { errno } from '../../lib/errors.js'
import { FuseAttr, FuseAttrOut } from '../../lib/fuse/abi.js'
import { Op } from '../../lib/fuse/opcodes.js'
import { close, drainEventfd, pollAsync, POLLIN, signalEventfd } from '../../lib/sys/io.js'
import { mapShared, unmap, viewRegion, type Region } from '../../lib/sys/memory.js'
import { acceptUnix, listenUnix } from '../../lib/sys/socket.js'
import { VhostUserRequest as R } from '../../lib/vhost-user/message.js'
import { layoutRing } from '../../lib/virtio/split-ring.js'
import { MockDevice, type TakenRequest } from './mock-device.js'
import { RING_FAULTS } from './scripted-device.js'
import { initOut } from './stepped-device.js'
import { VhostUserBackend, type Message } from './vhost-user-backend.js'

export type Misdeed = 'closes its socket' | 'breaks its ring' | 'stops answering'

interface Ring { size: number, at: number, kickFd: number, callFd: number, device?: MockDevice }

export class RogueDevice {
  /** `performance.now()` of the misdeed. */
  atMs = 0
  readonly #listener: number
  readonly #misdeed: Misdeed
  readonly #rings = new Map<number, Ring>()
  #backend: VhostUserBackend | undefined
  #memory: Region | undefined
  #guestAddress = 0
  #ends = false
  readonly #loops: Promise<void>[] = []

  constructor(socket: string, misdeed: Misdeed) {
    this.#listener = listenUnix(socket)
    this.#misdeed = misdeed
    this.#loops.push(this.#accept())
  }

  async #accept(): Promise<void> {
    let fd = -errno.ETIMEDOUT
    while (!this.#ends && fd < 0) fd = await acceptUnix(this.#listener, 50)
    if (fd >= 0) this.#backend = new VhostUserBackend(fd, { seen: (message, fds) => this.#seen(message, fds) })
  }

  #ring(index: number): Ring {
    let ring = this.#rings.get(index)
    if (!ring) this.#rings.set(index, ring = { size: 0, at: 0, kickFd: -1, callFd: -1 })
    return ring
  }

  #seen({ request, payload }: Message, fds: number[]): void {
    const ring = (): Ring => this.#ring(payload.readUInt32LE(0) & 0xff)
    switch (request) {
      case R.SET_MEM_TABLE: {
        this.#guestAddress = Number(payload.readBigUInt64LE(8))
        const bytes = Number(payload.readBigUInt64LE(16))
        this.#memory = { ...viewRegion(mapShared(fds[0]!, bytes), bytes) }
        break
      }
      case R.SET_VRING_NUM: ring().size = payload.readUInt32LE(4); break
      case R.SET_VRING_ADDR: ring().at = Number(payload.readBigUInt64LE(8)) - this.#guestAddress; break
      case R.SET_VRING_CALL: ring().callFd = fds.splice(0)[0]!; break
      case R.SET_VRING_KICK: ring().kickFd = fds.splice(0)[0]!; break
      case R.SET_VRING_ENABLE: {
        const enabled = ring()
        if (payload.readUInt32LE(4) === 0 || enabled.device) break
        enabled.device = new MockDevice({ ...this.#memory!, address: this.#guestAddress }, layoutRing(enabled.size, enabled.at), { indirectDesc: true, eventIdx: true })
        this.#loops.push(this.#serve(enabled, enabled.device))
      }
    }
  }

  async #serve(ring: Ring, device: MockDevice): Promise<void> {
    while (!this.#ends) {
      if (await pollAsync(ring.kickFd, POLLIN, 50) <= 0) continue
      drainEventfd(ring.kickFd)
      do for (const request of device.take()) this.#answer(ring, device, request)
      while (!device.ring.enableKicks())
    }
  }

  #answer(ring: Ring, device: MockDevice, request: TakenRequest): void {
    if (request.opcode === Op.STATFS) return this.#misbehave(ring, device, request)
    if (this.atMs > 0) return
    if (request.writable.length === 0) device.giveBack(request, 0)
    else if (request.opcode === Op.INIT) device.answer(request, { payload: initOut() })
    else if (request.opcode === Op.GETATTR) device.answer(request, { payload: directory() })
    else device.answer(request, { error: -errno.ENOENT })
    if (device.ring.callNeeded()) signalEventfd(ring.callFd)
  }

  #misbehave(ring: Ring, device: MockDevice, request: TakenRequest): void {
    this.atMs = performance.now()
    if (this.#misdeed === 'closes its socket') {
      void this.#backend!.stop()
    } else if (this.#misdeed === 'breaks its ring') {
      RING_FAULTS['an id beyond the ring']!(device, request)
      signalEventfd(ring.callFd)
    }
  }

  async end(): Promise<void> {
    this.#ends = true
    await Promise.all(this.#loops)
    await this.#backend?.stop()
    close(this.#listener)
    for (const { kickFd, callFd } of this.#rings.values()) {
      close(kickFd)
      close(callFd)
    }
    if (this.#memory) unmap(this.#memory.address, this.#memory.lengthBytes)
  }
}

/** Attributes of a directory. */
function directory(): Buffer {
  const out = Buffer.alloc(FuseAttrOut.SIZE)
  out.writeBigUInt64LE(1n, FuseAttrOut.attr + FuseAttr.ino)
  out.writeUInt32LE(0o40755, FuseAttrOut.attr + FuseAttr.mode)
  out.writeUInt32LE(2, FuseAttrOut.attr + FuseAttr.nlink)
  return out
}
