/** A device in another process, behind a vhost-user socket. */
import { close, createEventfd } from '../sys/io.js'
import { UsageError } from '../errors.js'
import { featureNames, hasBit, Feature, ProtocolFeature, protocolFeatureNames } from '../vhost-user/features.js'
import type { VhostUserFrontend } from '../vhost-user/frontend.js'
import { parseFsConfig, VirtioFsConfig } from '../vhost-user/fs-config.js'
import type { RingLayout } from '../virtio/split-ring.js'
import type { DeviceInfo, DeviceMemory, Transport } from './transport.js'
import type { WorkerBackend } from './worker-protocol.js'

export class VhostUserTransport implements Transport {
  readonly info: DeviceInfo
  readonly #frontend: VhostUserFrontend
  readonly #eventfds: number[] = []
  /** Rings that were enabled and not stopped. */
  #running: number[] = []

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
    await frontend.setMemTable([{ guestAddress: address, size: plan.lengthBytes, userAddress: address, mmapOffset: 0, fd: memfd }])
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
    const kickFd = createEventfd()
    const callFd = given ?? createEventfd()
    this.#eventfds.push(kickFd)
    if (given === undefined) this.#eventfds.push(callFd)
    await this.#frontend.setupRing(index, {
      size: ring.size, descAddr: address + ring.desc, availAddr: address + ring.avail, usedAddr: address + ring.used, kickFd, callFd,
    })
    return { kickFd, callFd }
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
