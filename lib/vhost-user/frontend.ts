/**
 * The frontend: which message may be sent when.
 *
 *   negotiate → [getConfig] → setOwner → setMemTable → per ring setupRing → enableRing → (kick)
 *   … → stopRing → setupRing again, setDeviceStateFd, resetDevice or close
 *
 * Calls out of this order throw UsageError and send nothing, because backends answer a surprise
 * by exiting. `enableRing` comes before the first kick: a kick that arrives at a disabled ring is
 * read and lost. A ring that was stopped has no kick descriptor any more, so it is stopped once
 * and set up again before the next stop. `resetDevice` ends the negotiated features and keeps the
 * ownership, the memory table and the protocol features.
 *
 * Sources: QEMU docs/interop/vhost-user.rst; rust-vmm/vhost `backend_req_handler.rs` and
 * vhost-user-backend `handler.rs` for what the backends insist on. native-notes/vhost-user.md has
 * the table.
 */
import { close } from '../sys/io.js'
import { UsageError } from '../errors.js'
import { VhostUserConnection, type ConnectionOptions } from './connection.js'
import { bits, Feature, hasBit, ProtocolFeature, WANTED_FEATURES, WANTED_PROTOCOL_FEATURES } from './features.js'
import {
  payload, requestName, TRANSFER_PHASE_STOPPED, TRANSFER_STATE_LOAD, TRANSFER_STATE_SAVE, u64Payload,
  VHOST_USER_MAX_PAYLOAD, VHOST_USER_CONFIG_SPACE, VHOST_USER_NOFD, VhostUserConfig, VhostUserRequest as R,
  VhostUserTransferDeviceState, VhostUserU64, VhostVringState, vringState,
} from './message.js'
import { checkRing, encodeAddresses, encodeRegions, type MemoryRegion, type RingOptions } from './ring.js'

export type { MemoryRegion, RingOptions } from './ring.js'

export interface NegotiateOptions {
  /** Feature bits to acknowledge when they are offered; VERSION_1 and PROTOCOL_FEATURES always are. */
  wantFeatures?: bigint
  wantProtocolFeatures?: bigint
}

export interface Negotiated {
  /** Acknowledged: offered and wanted. */
  features: bigint
  protocolFeatures: bigint
  offeredFeatures: bigint
  offeredProtocolFeatures: bigint
  /** Number of queues with hiprio; 0 when the backend has no MQ and cannot be asked. */
  queueNum: number
}

type Stage = 'new' | 'negotiated' | 'owned' | 'memory'
const STAGES: readonly Stage[] = ['new', 'negotiated', 'owned', 'memory']
/** What leads to a stage. */
const STEP: Record<Stage, string> = {
  new: 'the connection', negotiated: 'the features are negotiated', owned: 'SET_OWNER', memory: 'SET_MEM_TABLE',
}
const MAX_QUEUES = 32768

export class VhostUserFrontend {
  readonly connection: VhostUserConnection
  #stage: Stage = 'new'
  #owned = false
  #negotiated: Negotiated | undefined
  #regions: readonly MemoryRegion[] = []
  /** Rings that the backend has a kick descriptor for. */
  readonly #rings = new Set<number>()
  #transferring = false

  /** @param connection owned by the frontend from now on */
  constructor(connection: VhostUserConnection) {
    this.connection = connection
  }

  /** Connects to a backend that listens. @throws what `connectUnix` throws */
  static connect(path: string, options: ConnectionOptions = {}): VhostUserFrontend {
    return new VhostUserFrontend(VhostUserConnection.connect(path, options))
  }

  /** For EPOLLRDHUP in the worker threads: the backend is gone. */
  get socketFd(): number {
    return this.connection.fd
  }

  /** What `negotiate` returned last. */
  get negotiated(): Negotiated | undefined {
    return this.#negotiated
  }

  /** Closes the connection, which ends a backend that serves one client. The rings are gone with it. */
  close(): void {
    this.connection.close()
  }

  /**
   * Agrees on features. The order is one that every backend takes: SET_FEATURES before the
   * protocol features, so without an acknowledgement.
   *
   * @throws ProtocolError when VERSION_1 is missing; UsageError when called twice; PeerGoneError
   */
  async negotiate(options: NegotiateOptions = {}): Promise<Negotiated> {
    const { wantFeatures = WANTED_FEATURES, wantProtocolFeatures = WANTED_PROTOCOL_FEATURES } = options
    if (this.#stage !== 'new') throw new UsageError('vhost-user: features are already negotiated')
    const offeredFeatures = await this.#getU64(R.GET_FEATURES)
    if (!hasBit(offeredFeatures, Feature.VERSION_1)) {
      throw this.connection.violation(R.GET_FEATURES, 'features', `0x${offeredFeatures.toString(16)}`, 'a set with VERSION_1 (bit 32)')
    }
    const always = bits(Feature.VERSION_1, Feature.PROTOCOL_FEATURES)
    const features = offeredFeatures & (wantFeatures | always)
    await this.connection.change(R.SET_FEATURES, u64Payload(features))

    let offeredProtocolFeatures = 0n
    let protocolFeatures = 0n
    if (hasBit(features, Feature.PROTOCOL_FEATURES)) {
      offeredProtocolFeatures = await this.#getU64(R.GET_PROTOCOL_FEATURES)
      protocolFeatures = offeredProtocolFeatures & wantProtocolFeatures
      await this.connection.send(R.SET_PROTOCOL_FEATURES, u64Payload(protocolFeatures))
      this.connection.replyAck = hasBit(protocolFeatures, ProtocolFeature.REPLY_ACK)
    }
    let queueNum = 0
    if (hasBit(protocolFeatures, ProtocolFeature.MQ)) {
      const n = await this.#getU64(R.GET_QUEUE_NUM)
      if (n < 1n || n > MAX_QUEUES) throw this.connection.violation(R.GET_QUEUE_NUM, 'number of queues', n, `1 to ${MAX_QUEUES}`)
      queueNum = Number(n)
    }
    this.#negotiated = { features, protocolFeatures, offeredFeatures, offeredProtocolFeatures, queueNum }
    this.#stage = this.#owned ? this.#regions.length > 0 ? 'memory' : 'owned' : 'negotiated'
    return this.#negotiated
  }

  /**
   * Reads the configuration space.
   * @throws UsageError without CONFIG; ProtocolError when the backend refuses or answers another range
   */
  async getConfig(offset: number, size: number): Promise<Uint8Array> {
    this.#need(R.GET_CONFIG, 'negotiated', ProtocolFeature.CONFIG)
    if (size < 1 || VhostUserConfig.SIZE + size > VHOST_USER_MAX_PAYLOAD || offset + size > VHOST_USER_CONFIG_SPACE) {
      throw new UsageError(`GET_CONFIG of ${size} bytes at ${offset}`)
    }
    const { bytes, view } = payload(VhostUserConfig.SIZE + size)
    view.setUint32(VhostUserConfig.offset, offset, true)
    view.setUint32(VhostUserConfig.size, size, true)
    // a backend that refuses answers with no data (rust-vmm) or with nothing at all (libvhost-user)
    const reply = await this.connection.request(R.GET_CONFIG, { payload: bytes, replySizes: [bytes.length, VhostUserConfig.SIZE, 0] })
    const refused = reply.bytes.length !== bytes.length
    const got = (field: number): number => reply.view.getUint32(field, true)
    if (refused) throw this.connection.violation(R.GET_CONFIG, 'configuration', 'refused', `${size} bytes at ${offset}`)
    if (got(VhostUserConfig.offset) !== offset) throw this.connection.violation(R.GET_CONFIG, 'offset', got(VhostUserConfig.offset), offset)
    if (got(VhostUserConfig.size) !== size) throw this.connection.violation(R.GET_CONFIG, 'configuration size', got(VhostUserConfig.size), size)
    if (got(VhostUserConfig.flags) !== 0) throw this.connection.violation(R.GET_CONFIG, 'flags', got(VhostUserConfig.flags), 0)
    return reply.bytes.subarray(VhostUserConfig.SIZE)
  }

  /** Makes this frontend the owner of the session. */
  async setOwner(): Promise<void> {
    this.#need(R.SET_OWNER, 'negotiated')
    if (this.#owned) throw new UsageError('SET_OWNER: this frontend owns the session already')
    await this.connection.change(R.SET_OWNER)
    this.#owned = true
    this.#stage = 'owned'
  }

  /** Shares memory with the backend, in place of what it had before. No ring may be set up. */
  async setMemTable(regions: readonly MemoryRegion[]): Promise<void> {
    this.#need(R.SET_MEM_TABLE, 'owned')
    this.#needStopped(R.SET_MEM_TABLE)
    await this.connection.change(R.SET_MEM_TABLE, encodeRegions(regions), regions.map(region => region.fd))
    this.#regions = [...regions]
    this.#stage = 'memory'
  }

  /**
   * Describes a ring to the backend and gives it the eventfds. The ring is disabled afterwards.
   * The used index in memory must be right before: the backend reads it at SET_VRING_ADDR.
   */
  async setupRing(index: number, ring: RingOptions): Promise<void> {
    this.#need(R.SET_VRING_NUM, 'memory')
    if (this.#rings.has(index)) throw new UsageError(`ring ${index} is set up already`)
    checkRing(index, ring, this.#negotiated?.queueNum ?? 0, this.#regions)
    await this.connection.change(R.SET_VRING_NUM, vringState(index, ring.size))
    await this.connection.change(R.SET_VRING_BASE, vringState(index, ring.base ?? 0))
    await this.connection.change(R.SET_VRING_ADDR, encodeAddresses(index, ring))
    await this.connection.change(R.SET_VRING_CALL, u64Payload(index), [ring.callFd])
    if (ring.errFd !== undefined) await this.connection.change(R.SET_VRING_ERR, u64Payload(index), [ring.errFd])
    // last, because the backend starts the ring with it
    await this.connection.change(R.SET_VRING_KICK, u64Payload(index), [ring.kickFd])
    this.#rings.add(index)
  }

  /**
   * Lets the backend work on a ring, or not. Kick it once after enabling. Without the
   * PROTOCOL_FEATURES bit a ring is enabled from its set-up on, and cannot be disabled.
   */
  async enableRing(index: number, on: boolean): Promise<void> {
    this.#needRing(R.SET_VRING_ENABLE, index)
    if (!this.#protocolFeaturesOn) {
      if (on) return
      throw new UsageError('SET_VRING_ENABLE: the backend has no PROTOCOL_FEATURES; stop the ring instead')
    }
    await this.connection.change(R.SET_VRING_ENABLE, vringState(index, on ? 1 : 0))
  }

  /**
   * Stops a ring; the backend forgets its eventfds. It does not wait for requests in flight:
   * drain before.
   * @returns the index of the next available entry the backend would have looked at
   */
  async stopRing(index: number): Promise<number> {
    this.#needRing(R.GET_VRING_BASE, index)
    // forgotten before the answer: after a failure, too, a second GET_VRING_BASE could kill the backend
    this.#rings.delete(index)
    const { view } = await this.connection.request(R.GET_VRING_BASE, { payload: vringState(index, 0), replySizes: [VhostVringState.SIZE] })
    const answered = view.getUint32(VhostVringState.index, true)
    const base = view.getUint32(VhostVringState.num, true)
    if (answered !== index) throw this.connection.violation(R.GET_VRING_BASE, 'ring index', answered, index)
    if (base > 0xffff) throw this.connection.violation(R.GET_VRING_BASE, 'base', base, 'at most 65535')
    return base
  }

  /**
   * Starts the transfer of the device's state. All rings must be stopped.
   *
   * @param fd the write end of a pipe to save into, or the read end of one to load from, without
   *   O_NONBLOCK; it stays the caller's, who closes it and then reads to the end of the pipe, or
   *   closes the other end (device-state.ts)
   * @returns a descriptor of the backend's to use instead, which the caller owns then, or null
   */
  async setDeviceStateFd(direction: 'save' | 'load', fd: number): Promise<number | null> {
    this.#need(R.SET_DEVICE_STATE_FD, 'owned', ProtocolFeature.DEVICE_STATE)
    this.#needStopped(R.SET_DEVICE_STATE_FD)
    const { bytes, view } = payload(VhostUserTransferDeviceState.SIZE)
    view.setUint32(VhostUserTransferDeviceState.direction, direction === 'save' ? TRANSFER_STATE_SAVE : TRANSFER_STATE_LOAD, true)
    view.setUint32(VhostUserTransferDeviceState.phase, TRANSFER_PHASE_STOPPED, true)
    const reply = await this.connection.request(R.SET_DEVICE_STATE_FD, {
      payload: bytes, fds: [fd], replySizes: [VhostUserU64.SIZE], replyFds: 1,
    })
    try {
      const value = reply.view.getBigUint64(0, true)
      const expectedFds = value & BigInt(VHOST_USER_NOFD) ? 0 : 1
      if (value & 0xffn) throw this.connection.violation(R.SET_DEVICE_STATE_FD, 'error code', value & 0xffn, 0)
      if (value >> 9n) throw this.connection.violation(R.SET_DEVICE_STATE_FD, 'value', `0x${value.toString(16)}`, 'bits 0 to 8 only')
      if (reply.fds.length !== expectedFds) {
        throw this.connection.violation(R.SET_DEVICE_STATE_FD, 'number of file descriptors', reply.fds.length, expectedFds)
      }
    } catch (error) {
      reply.fds.forEach(close)
      throw error
    }
    this.#transferring = true
    return reply.fds[0] ?? null
  }

  /**
   * Asks, after the end of the stream, whether the transfer went well.
   * @param timeoutMs loading looks every inode up again, so it may take longer than other requests
   * @throws ProtocolError when it did not
   */
  async checkDeviceState(timeoutMs?: number): Promise<void> {
    this.#need(R.CHECK_DEVICE_STATE, 'owned', ProtocolFeature.DEVICE_STATE)
    if (!this.#transferring) throw new UsageError('CHECK_DEVICE_STATE: no transfer was started')
    this.#transferring = false
    const result = await this.#getU64(R.CHECK_DEVICE_STATE, timeoutMs)
    if (result !== 0n) throw this.connection.violation(R.CHECK_DEVICE_STATE, 'result', result, 0)
  }

  /** Resets the device, and with it the FUSE session; negotiate again afterwards. All rings must be stopped. */
  async resetDevice(): Promise<void> {
    this.#need(R.RESET_DEVICE, 'owned', ProtocolFeature.RESET_DEVICE)
    this.#needStopped(R.RESET_DEVICE)
    await this.connection.change(R.RESET_DEVICE)
    this.#stage = 'new'
  }

  /** Hands a socket to the backend for requests of its own. @param fd stays the caller's */
  async setBackendRequestFd(fd: number): Promise<void> {
    this.#need(R.SET_BACKEND_REQ_FD, 'negotiated', ProtocolFeature.BACKEND_REQ)
    await this.connection.change(R.SET_BACKEND_REQ_FD, undefined, [fd])
  }

  get #protocolFeaturesOn(): boolean {
    return hasBit(this.#negotiated?.features ?? 0n, Feature.PROTOCOL_FEATURES)
  }

  #has(bit: number): boolean {
    return hasBit(this.#negotiated?.protocolFeatures ?? 0n, bit)
  }

  async #getU64(request: number, timeoutMs?: number): Promise<bigint> {
    const { view } = await this.connection.request(request, {
      replySizes: [VhostUserU64.SIZE], ...timeoutMs !== undefined && { timeoutMs },
    })
    return view.getBigUint64(VhostUserU64.value, true)
  }

  #need(request: number, stage: Stage, protocolFeature?: number): void {
    const name = requestName(request)
    const reached = STAGES.indexOf(this.#stage)
    const missing = STAGES[reached + 1]
    if (missing && reached < STAGES.indexOf(stage)) throw new UsageError(`${name} before ${STEP[missing]}`)
    if (protocolFeature !== undefined && !this.#has(protocolFeature)) {
      const feature = Object.entries(ProtocolFeature).find(([, bit]) => bit === protocolFeature)?.[0]
      throw new UsageError(`${name}: the protocol feature ${feature} is not negotiated`)
    }
  }

  #needStopped(request: number): void {
    const [index] = this.#rings
    if (index !== undefined) throw new UsageError(`${requestName(request)} while ring ${index} is set up; stop it first`)
  }

  #needRing(request: number, index: number): void {
    if (!this.#rings.has(index)) throw new UsageError(`${requestName(request)}: ring ${index} is not set up`)
  }
}
