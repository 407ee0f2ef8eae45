/**
 * A device in another process, step by step, behind a transport: it sleeps until it is kicked,
 * answers in any order, and can stop, die or go mad at any time. It has a mapping of its own, so
 * that it can do what a device that was given up still can: write into the buffers it had.
 */
import { errno, PeerGoneError } from '../../lib/errors.js'
import { FuseBatchForgetIn, FuseForgetOne, FuseInHeader, FuseInitOut } from '../../lib/fuse/abi.js'
import { initFlagWords } from '../../lib/fuse/init.js'
import { Op } from '../../lib/fuse/opcodes.js'
import type { DeviceInfo, DeviceMemory, Transport } from '../../lib/driver/transport.js'
import type { WorkerBackend } from '../../lib/driver/worker-protocol.js'
import { close, createEventfd, drainEventfd, signalEventfd } from '../../lib/sys/io.js'
import { mapShared, unmap, viewRegion, type Region } from '../../lib/sys/memory.js'
import { socketpair } from '../../lib/sys/socket.js'
import type { RingFeatures } from '../../lib/virtio/driver-ring.js'
import { MockDevice, type TakenRequest } from './mock-device.js'
import { RING_FAULTS } from './scripted-device.js'
import type { SeededRandom } from './seeded-random.js'

const [INIT_LOW, INIT_HIGH] = initFlagWords(['INIT_EXT', 'ASYNC_READ'])

export function initOut(): Uint8Array {
  const out = Buffer.alloc(FuseInitOut.SIZE)
  out.writeUInt32LE(7, FuseInitOut.major)
  out.writeUInt32LE(38, FuseInitOut.minor)
  out.writeUInt32LE(INIT_LOW, FuseInitOut.flags)
  out.writeUInt32LE(1 << 20, FuseInitOut.max_write)
  out.writeUInt32LE(INIT_HIGH, FuseInitOut.flags2)
  return out
}

interface Queue {
  device: MockDevice
  kickFd: number
  callFd: number
  awake: boolean
}

/** An index that goes back before the driver has seen it only takes an answer back: a device that is slow, not broken. */
const FAULTS = Object.entries(RING_FAULTS).filter(([name]) => name !== 'a used index that goes back').map(([, fault]) => fault)

type Life = 'running' | 'stopped' | 'dead'

export class SteppedDevice implements Transport {
  readonly info: DeviceInfo
  life: Life = 'running'
  /** Broke a ring, closed its socket, or was given up: what it says is not heard. */
  unsound = false
  /** Opcodes that reached it, in order. */
  readonly seen: number[] = []
  readonly forgotten: number[] = []
  destroyed = false
  /** What waits for it on the control socket. */
  readonly exchanges: (() => void)[] = []
  closed = false
  stopped = false
  readonly #random: SeededRandom
  #region: Region | undefined
  #mapping = { address: 0, lengthBytes: 0 }
  #queues: Queue[] = []
  #socket: [ours: number, theirs: number] | undefined

  /** @param violations what the driver did wrong */
  constructor(tag: string, requestQueues: number, features: RingFeatures, random: SeededRandom, readonly violations: string[]) {
    this.#random = random
    this.info = {
      tag, ownTag: true, requestQueues, features,
      featureNames: [], protocolFeatureNames: [], offeredFeatureNames: [], offeredProtocolFeatureNames: [],
    }
  }

  get pending(): number {
    return this.#queues.reduce((sum, queue) => sum + queue.device.pending.length, 0)
  }

  /** Something on the control socket: answered by a device that runs, refused by the end of one. */
  #exchange(what: string, answer: () => void): Promise<void> {
    return new Promise((resolve, reject) => {
      this.exchanges.push(() => {
        if (this.life === 'dead') {
          reject(new PeerGoneError(`the backend closed the connection instead of answering ${what}`))
        } else if (this.life === 'stopped') {
          reject(new PeerGoneError(`no answer to ${what}`, 'ETIMEDOUT'))
        } else {
          answer()
          resolve()
        }
      })
    })
  }

  async start({ memfd, address, plan }: DeviceMemory): Promise<WorkerBackend[]> {
    this.#mapping = { address: mapShared(memfd, plan.lengthBytes), lengthBytes: plan.lengthBytes }
    this.#region = { ...viewRegion(this.#mapping.address, plan.lengthBytes), address }
    this.#socket = socketpair()
    if (this.life === 'dead') close(this.#socket[1])
    this.#queues = [plan.hiprio, ...plan.workers.map(worker => worker.ring)].map(ring => ({
      device: new MockDevice(this.#region!, ring, this.info.features), kickFd: createEventfd(), callFd: createEventfd(), awake: false,
    }))
    await this.#exchange('SET_VRING_ENABLE', () => {})
    const [hiprio, ...request] = this.#queues
    return request.map(queue => ({
      kind: 'vhost-user', socketFd: this.#socket![0],
      hiprioKickFd: hiprio!.kickFd, hiprioCallFd: hiprio!.callFd, kickFd: queue.kickFd, callFd: queue.callFd,
    }))
  }

  async stop(gone: boolean): Promise<void> {
    if (gone) return
    if (this.pending > 0 && !this.unsound) this.violations.push(`GET_VRING_BASE with ${this.pending} requests in flight`)
    await this.#exchange('GET_VRING_BASE', () => { this.stopped = true })
  }

  async close(): Promise<void> {
    if (this.closed) this.violations.push('the transport is closed twice')
    this.closed = true
    // for the driver's part; the process behind it ends when it sees that its client is gone
    for (const { kickFd, callFd } of this.#queues) {
      close(kickFd)
      close(callFd)
    }
    if (this.#socket) close(this.#socket[0])
  }

  /** Frees what the device itself has. */
  end(): void {
    if (this.#socket && this.life !== 'dead') close(this.#socket[1])
    if (this.#mapping.address !== 0) unmap(this.#mapping.address, this.#mapping.lengthBytes)
    this.#queues = []
  }

  /** Looks at its kicks, and takes what is available. @returns false when there is nothing to do */
  take(): boolean {
    if (this.life !== 'running' || this.closed || this.stopped) return false
    let did = false
    for (const [index, queue] of this.#queues.entries()) {
      if (!queue.awake) queue.awake = drainEventfd(queue.kickFd) === 8
      if (!queue.awake) continue
      did = true
      const taken = queue.device.take(this.#random.between(1, 4))
      for (const request of taken) this.#took(index, request)
      if (taken.length === 0) queue.awake = !queue.device.ring.enableKicks()
      else queue.device.ring.disableKicks()
    }
    return did
  }

  #took(index: number, request: TakenRequest): void {
    if (this.destroyed) this.violations.push(`opcode ${request.opcode} after DESTROY`)
    this.seen.push(request.opcode)
    const bytes = Buffer.from(request.bytes)
    if (request.opcode === Op.FORGET) {
      this.forgotten.push(Number(request.nodeid))
    } else if (request.opcode === Op.BATCH_FORGET) {
      for (let at = FuseInHeader.SIZE + FuseBatchForgetIn.SIZE; at < bytes.length; at += FuseForgetOne.SIZE) this.forgotten.push(bytes.readUInt32LE(at))
    } else if (request.opcode === Op.DESTROY) {
      if (this.pending > 1 && !this.unsound) this.violations.push(`DESTROY with ${this.pending - 1} other requests in flight`)
      this.destroyed = true
    }
    if (index === 0 && request.opcode !== Op.FORGET && request.opcode !== Op.BATCH_FORGET) this.violations.push(`opcode ${request.opcode} on hiprio`)
  }

  /** Answers one request. @returns false when there is none to answer */
  answer(): boolean {
    if (this.life !== 'running' || this.closed) return false
    const queues = this.#queues.filter(queue => queue.device.pending.length > 0)
    if (queues.length === 0) return false
    const queue = queues[this.#random.below(queues.length)]!
    const { device } = queue
    const request = device.pending[this.#random.below(device.pending.length)]!
    if (request.writable.length === 0) device.giveBack(request, 0)
    else device.answer(request, this.#reply(request))
    this.#call(queue)
    return true
  }

  #reply({ opcode, room }: TakenRequest): { payload?: Uint8Array, error?: number } {
    if (opcode === Op.INIT) return { payload: initOut() }
    if (opcode === Op.DESTROY) return {}
    if (this.#random.below(6) === 0) return { error: -errno.ENOENT }
    if (opcode === Op.READ) return { payload: new Uint8Array(this.#random.below(room - 15)).fill(this.#random.below(256)) }
    return { payload: new Uint8Array(room - 16) }
  }

  #call(queue: Queue): void {
    if (queue.device.ring.callNeeded()) signalEventfd(queue.callFd)
  }

  /** SIGSTOP. */
  freeze(): void {
    if (this.life === 'running') this.life = 'stopped'
  }

  /** Its process dies. */
  die(): void {
    if (this.life === 'dead') return
    this.life = 'dead'
    this.unsound = true
    if (this.#socket) close(this.#socket[1])
  }

  /** Does something to a ring that no device may. @returns false when there is nothing to break */
  breakRing(): boolean {
    if (this.life !== 'running' || this.closed) return false
    const queues = this.#queues.slice(1).filter(queue => queue.device.pending.length > 0)
    if (queues.length === 0) return false
    const queue = queues[this.#random.below(queues.length)]!
    FAULTS[this.#random.below(FAULTS.length)]!(queue.device, queue.device.pending[0]!)
    this.unsound = true
    signalEventfd(queue.callFd)
    return true
  }

  /** Writes into everything it ever had and did not give back, as one that is given up may. */
  scribble(): void {
    if (!this.#region) return
    for (const { device } of this.#queues) {
      for (const request of device.pending) for (const buffer of request.writable) device.at(buffer).fill(this.#random.below(256))
    }
  }
}
