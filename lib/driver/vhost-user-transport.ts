/** A device in another process, behind a vhost-user socket. */
import { close, createEventfd } from '../sys/io.js'
import { UsageError } from '../errors.js'
import { loadDeviceState, saveDeviceState } from '../vhost-user/device-state.js'
import { featureNames, hasBit, Feature, ProtocolFeature, protocolFeatureNames } from '../vhost-user/features.js'
import { VhostUserFrontend, type MemoryRegion, type RingOptions } from '../vhost-user/frontend.js'
import { parseFsConfig, VirtioFsConfig } from '../vhost-user/fs-config.js'
import type { RingLayout } from '../virtio/split-ring.js'
import type { DeviceInfo, DeviceMemory, Replacement, ReplacementTarget, Transport } from './transport.js'
import type { WorkerBackend } from './worker-protocol.js'

export class VhostUserTransport implements Transport {
  readonly info: DeviceInfo
  #frontend: VhostUserFrontend
  readonly #eventfds: number[] = []
  /** Rings that were enabled and not stopped. */
  #running: number[] = []
  /** What the backend was given, for another one. */
  #regions: MemoryRegion[] = []
  readonly #rings: RingOptions[] = []

  private constructor(frontend: VhostUserFrontend, info: DeviceInfo) {
    this.#frontend = frontend
    this.info = info
  }

  /**
   * Probes the device (virtio_fs_probe): negotiates, reads tag and queue count from its
   * configuration space where it has one, and takes them from the frontend's user where not, as
   * QEMU does.
   *
   * @param frontend connected; owned by the transport from now on
   * @param fallbackTag for a backend without CONFIG
   * @throws ProtocolError, PeerGoneError; UsageError for an empty tag or a device without request queue
   */
  static async probe(frontend: VhostUserFrontend, fallbackTag: string): Promise<VhostUserTransport> {
    try {
      const negotiated = await frontend.negotiate()
      let tag = fallbackTag
      let ownTag = false
      let requestQueues = Math.max(1, negotiated.queueNum - 1)
      if (hasBit(negotiated.protocolFeatures, ProtocolFeature.CONFIG)) {
        const config = parseFsConfig(await frontend.getConfig(0, VirtioFsConfig.SIZE))
        tag = config.tag
        ownTag = true
        requestQueues = config.numRequestQueues
      }
      if (negotiated.queueNum > 0) requestQueues = Math.min(requestQueues, negotiated.queueNum - 1)
      if (requestQueues < 1) throw new UsageError(`virtio-fs device "${tag}" has no request queue`, 'EPROTO')
      return new VhostUserTransport(frontend, {
        tag,
        ownTag,
        requestQueues,
        features: {
          indirectDesc: hasBit(negotiated.features, Feature.RING_INDIRECT_DESC),
          eventIdx: hasBit(negotiated.features, Feature.RING_EVENT_IDX),
        },
        featureNames: featureNames(negotiated.features),
        protocolFeatureNames: protocolFeatureNames(negotiated.protocolFeatures),
        offeredFeatureNames: featureNames(negotiated.offeredFeatures),
        offeredProtocolFeatureNames: protocolFeatureNames(negotiated.offeredProtocolFeatures),
      })
    } catch (error) {
      frontend.close()
      throw error
    }
  }

  async start({ memfd, address, plan, callFd }: DeviceMemory): Promise<WorkerBackend[]> {
    const frontend = this.#frontend
    await frontend.setOwner()
    // a guest address is the address in this process: descriptors need no translation anywhere
    this.#regions = [{ guestAddress: address, size: plan.lengthBytes, userAddress: address, mmapOffset: 0, fd: memfd }]
    await frontend.setMemTable(this.#regions)
    const hiprio = await this.#setupRing(0, plan.hiprio, address, callFd)
    const backends: WorkerBackend[] = []
    for (const [i, worker] of plan.workers.entries()) {
      const request = await this.#setupRing(i + 1, worker.ring, address, callFd)
      backends.push({
        kind: 'vhost-user', socketFd: frontend.socketFd,
        hiprioKickFd: hiprio.kickFd, hiprioCallFd: hiprio.callFd, kickFd: request.kickFd, callFd: request.callFd,
      })
    }
    for (let i = 0; i <= plan.workers.length; i++) {
      await frontend.enableRing(i, true)
      this.#running.push(i)
    }
    return backends
  }

  async #setupRing(index: number, ring: RingLayout, address: number, given: number | undefined): Promise<{ kickFd: number, callFd: number }> {
    const kickFd = this.#eventfd()
    const callFd = given ?? this.#eventfd()
    this.#rings[index] = { size: ring.size, descAddr: address + ring.desc, availAddr: address + ring.avail, usedAddr: address + ring.used, kickFd, callFd }
    await this.#frontend.setupRing(index, this.#rings[index])
    return { kickFd, callFd }
  }

  socketFd(): number {
    return this.#frontend.socketFd
  }

  /** One that `close` closes. */
  #eventfd(): number {
    const fd = createEventfd()
    this.#eventfds.push(fd)
    return fd
  }

  async prepareReplacement({ socket, virtiofsd }: ReplacementTarget): Promise<Replacement> {
    if (virtiofsd !== undefined) throw new UsageError('the backend is not one that was started here: name the socket of another one')
    const { peer, timeoutMs } = this.#frontend.connection
    const next = VhostUserFrontend.connect(socket ?? peer, { timeoutMs })
    return await this.prepareFrontend(next)
  }

  /** The same with a backend that is connected already; owned by this from now on, also when it throws. */
  async prepareFrontend(next: VhostUserFrontend): Promise<Replacement> {
    try {
      await this.#checkFit(next)
    } catch (error) {
      next.close()
      throw error
    }
    return { move: () => this.#move(next), discard: async () => next.close() }
  }

  /** Whether it can take the device over as it is: the guest knows the features, and they stay. */
  async #checkFit(next: VhostUserFrontend): Promise<void> {
    const has = this.#frontend.negotiated!
    if (!hasBit(has.protocolFeatures, ProtocolFeature.DEVICE_STATE)) throw new UsageError(`${this.#frontend.connection.peer}: the backend cannot hand its state over (no DEVICE_STATE)`)
    const got = await next.negotiate({ wantFeatures: has.features })
    const missing = featureNames(has.features & ~got.features)
    if (missing.length > 0) throw new UsageError(`${next.connection.peer}: the new backend lacks ${missing.join(', ')}`)
    if (!hasBit(got.protocolFeatures, ProtocolFeature.DEVICE_STATE)) throw new UsageError(`${next.connection.peer}: the new backend cannot take a state over (no DEVICE_STATE)`)
    if (got.queueNum > 0 && got.queueNum < this.#rings.length) throw new UsageError(`${next.connection.peer}: the new backend has ${got.queueNum} queues, ${this.#rings.length} are in use`)
  }

  async #move(next: VhostUserFrontend): Promise<void> {
    const old = this.#frontend
    const bases = await this.#halt(old)
    try {
      const state = await saveDeviceState(old)
      await next.setOwner()
      await next.setMemTable(this.#regions)
      await loadDeviceState(next, state)
      await this.#run(next, bases)
    } catch (error) {
      // both have the same eventfds: one that has a ring would take kicks that are the other's
      for (const index of this.#rings.keys()) await next.stopRing(index).catch(() => {})
      // its state is what it was
      await this.#run(old, bases)
      throw error
    }
    this.#frontend = next
    old.close()
  }

  /** @returns where each ring stands */
  async #halt(frontend: VhostUserFrontend): Promise<number[]> {
    const bases: number[] = []
    this.#running = []
    for (const index of this.#rings.keys()) {
      await frontend.enableRing(index, false)
      bases.push(await frontend.stopRing(index))
    }
    return bases
  }

  async #run(frontend: VhostUserFrontend, bases: readonly number[]): Promise<void> {
    for (const [index, ring] of this.#rings.entries()) await frontend.setupRing(index, { ...ring, base: bases[index]! })
    for (const index of this.#rings.keys()) {
      await frontend.enableRing(index, true)
      if (!this.#running.includes(index)) this.#running.push(index)
    }
  }

  async stop(gone: boolean): Promise<void> {
    const running = this.#running
    this.#running = []
    if (gone) return
    for (const index of running) await this.#frontend.enableRing(index, false)
    for (const index of running) await this.#frontend.stopRing(index)
  }

  async close(): Promise<void> {
    this.#frontend.close()
    for (const fd of this.#eventfds.splice(0)) close(fd)
  }
}
