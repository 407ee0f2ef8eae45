/**
 * A vhost-user backend of a virtio-fs device for tests: a peer on a real socketpair, in this
 * process. It answers every message of the protocol as the Rust virtiofsd does, writes down what
 * it was sent, and can be told to give one answer wrongly.
 *
 * It is a witness as well: what no backend would take (an unknown message, a bit that was not
 * offered, the wrong number of descriptors, a second GET_VRING_BASE, a message that overlaps its
 * predecessor) goes to `complaints`, which a test expects to be empty.
 */
import { fstatSync } from 'node:fs'
import { errno } from '../../lib/errors.js'
import { close, pollAsync, POLLIN } from '../../lib/sys/io.js'
import { shutdown, socketpair } from '../../lib/sys/socket.js'
import { peekByte, recvmsg, sendmsg } from '../../lib/sys/socket-message.js'
import { bits, Feature, hasBit, ProtocolFeature } from '../../lib/vhost-user/features.js'
import { requestName, VhostUserRequest as R } from '../../lib/vhost-user/message.js'

const VERSION = 1
const REPLY = 4
const NEED_REPLY = 8

export interface Message {
  name: string
  request: number
  flags: number
  payload: Buffer
  /** Inode numbers of the descriptors that came along: the same file has the same number. */
  inodes: number[]
}

export interface Answer {
  request: number
  flags: number
  payload: Buffer
  /** The header's size field; that of the payload unless a fault says otherwise. */
  size?: number
  fds: number[]
}

/** What the backend does instead of answering well. */
export type Outcome =
  | Answer
  /** Sends nothing and goes on reading. */
  | 'silence'
  | 'close'
  /** Sends exactly these bytes, then is silent or closes. */
  | { raw: Uint8Array; fds?: number[]; then: 'silence' | 'close' }
  /** Sends the answer a byte at a time. */
  | { drip: Answer }

/** Turns the right answer into a wrong one. Without an answer (no reply is due) it is undefined. */
export type Fault = (answer: Answer | undefined, message: Message) => Outcome | undefined

export interface BackendOptions {
  features?: bigint
  protocolFeatures?: bigint
  queueNum?: bigint
  config?: Uint8Array
  /** By request number. */
  faults?: Partial<Record<number, Fault>>
  /** Takes the stream of SET_DEVICE_STATE_FD over; returns a descriptor to answer with, which is closed after it was sent. */
  takeStateFd?: (fd: number) => number | undefined
  /** Sees each message and its descriptors; those that it takes out of the list are its own. */
  seen?: (message: Message, fds: number[]) => void
  /** Waits before each answer, to catch a frontend that does not wait. */
  delayMs?: number
}

export const BACKEND_FEATURES = bits(Feature.VERSION_1, Feature.RING_INDIRECT_DESC, Feature.RING_EVENT_IDX, Feature.PROTOCOL_FEATURES, Feature.LOG_ALL)
export const BACKEND_PROTOCOL_FEATURES = bits(
  ProtocolFeature.MQ, ProtocolFeature.LOG_SHMFD, ProtocolFeature.REPLY_ACK, ProtocolFeature.BACKEND_REQ, ProtocolFeature.CONFIG,
  ProtocolFeature.BACKEND_SEND_FD, ProtocolFeature.CONFIGURE_MEM_SLOTS, ProtocolFeature.RESET_DEVICE, ProtocolFeature.DEVICE_STATE,
)

/** 40 bytes of configuration space. */
export function fsConfigBytes(tag: string, numRequestQueues: number): Buffer {
  const config = Buffer.alloc(40)
  config.write(tag, 0, 36)
  config.writeUInt32LE(numRequestQueues, 36)
  return config
}

function u64(value: bigint | number): Buffer {
  const out = Buffer.alloc(8)
  out.writeBigUInt64LE(BigInt(value))
  return out
}

/** The bytes of an answer. */
export function encode(answer: Answer): Buffer {
  const header = Buffer.alloc(12)
  header.writeUInt32LE(answer.request >>> 0, 0)
  header.writeUInt32LE(answer.flags >>> 0, 4)
  header.writeUInt32LE(answer.size ?? answer.payload.length, 8)
  return Buffer.concat([header, answer.payload])
}

export class VhostUserBackend {
  readonly received: Message[] = []
  readonly complaints: string[] = []
  /** Resolves when the frontend hung up or the backend did. */
  readonly done: Promise<void>
  /** What the frontend handed over for requests of the backend; owned by this object. */
  backendRequestFd = -1

  readonly #fd: number
  readonly #options: Required<Omit<BackendOptions, 'takeStateFd' | 'seen'>> & Pick<BackendOptions, 'takeStateFd' | 'seen'>
  #ackedFeatures = 0n
  #ackedProtocolFeatures = 0n
  #owned = false
  #hasMemory = false
  #bases = new Map<number, number>()
  #kicks = new Set<number>()

  constructor(fd: number, options: BackendOptions = {}) {
    this.#fd = fd
    this.#options = {
      features: BACKEND_FEATURES, protocolFeatures: BACKEND_PROTOCOL_FEATURES, queueNum: 2n, config: fsConfigBytes('testfs', 1), faults: {}, delayMs: 0, ...options,
    }
    this.done = this.#serve().finally(() => {
      if (this.backendRequestFd >= 0) close(this.backendRequestFd)
      close(this.#fd)
    })
  }

  /** A backend, and the descriptor of the other end of its socket, which the caller owns. */
  static pair(options: BackendOptions = {}): { backend: VhostUserBackend; fd: number } {
    const [fd, theirs] = socketpair()
    return { backend: new VhostUserBackend(theirs, options), fd }
  }

  /** Names of the messages received, in order. */
  get names(): string[] {
    return this.received.map(message => message.name)
  }

  /** Hangs up, and waits until everything is closed. */
  async stop(): Promise<void> {
    shutdown(this.#fd)
    await this.done
  }

  async #serve(): Promise<void> {
    for (;;) {
      const fds: number[] = []
      const header = await this.#read(12, fds)
      const payload = header && await this.#read(header.readUInt32LE(8), fds)
      if (!payload) return fds.forEach(close)
      const request = header.readUInt32LE(0)
      const message: Message = {
        name: requestName(request), request, flags: header.readUInt32LE(4), payload, inodes: fds.map(fd => fstatSync(fd).ino),
      }
      this.received.push(message)
      const answer = this.#handle(message, fds)
      this.#options.seen?.(message, fds)
      for (const fd of fds) if (fd !== this.backendRequestFd) close(fd)
      const ownStream = request === R.SET_DEVICE_STATE_FD ? answer?.fds[0] : undefined
      if (this.#options.delayMs > 0) await new Promise(resolve => { setTimeout(resolve, this.#options.delayMs) })
      if (peekByte(this.#fd) === 1 && answer) this.complaints.push(`a message overlaps ${message.name}`)
      const fault = this.#options.faults[request]
      const outcome = fault ? fault(answer, message) : answer
      const goOn = await this.#act(outcome)
      if (ownStream !== undefined) close(ownStream)
      if (!goOn) return
    }
  }

  async #act(outcome: Outcome | undefined): Promise<boolean> {
    if (outcome === undefined || outcome === 'silence') return true
    if (outcome === 'close') return false
    if ('raw' in outcome) {
      sendmsg(this.#fd, outcome.raw, outcome.fds ?? [])
      return outcome.then === 'silence'
    }
    if ('drip' in outcome) {
      for (const byte of encode(outcome.drip)) {
        sendmsg(this.#fd, Buffer.of(byte))
        await new Promise(resolve => { setImmediate(resolve) })
      }
      return true
    }
    sendmsg(this.#fd, encode(outcome), outcome.fds)
    return true
  }

  async #read(length: number, fds: number[]): Promise<Buffer | undefined> {
    const into = Buffer.alloc(length)
    for (let got = 0; got < length;) {
      const n = recvmsg(this.#fd, into.subarray(got), fds)
      if (n > 0) got += n
      else if (n === -errno.EAGAIN) await pollAsync(this.#fd, POLLIN, 10_000)
      else return undefined
    }
    return into
  }

  /** The right answer, or undefined when none is due. */
  #handle(message: Message, fds: number[]): Answer | undefined {
    const { request, payload } = message
    if ((message.flags & ~NEED_REPLY) !== VERSION) this.complaints.push(`${message.name}: flags ${message.flags}`)
    const expectedFds = this.#expectedFds(message)
    if (fds.length !== expectedFds) this.complaints.push(`${message.name}: ${fds.length} file descriptors, expected ${expectedFds}`)
    const index = payload.length >= 4 ? payload.readUInt32LE(0) : 0
    switch (request) {
      case R.GET_FEATURES: return this.#reply(message, u64(this.#options.features))
      case R.GET_PROTOCOL_FEATURES: return this.#reply(message, u64(this.#options.protocolFeatures))
      case R.GET_QUEUE_NUM: return this.#reply(message, u64(this.#options.queueNum))
      case R.GET_CONFIG: {
        this.#needs(message, ProtocolFeature.CONFIG)
        const [offset, size] = [payload.readUInt32LE(0), payload.readUInt32LE(4)]
        if (payload.length !== 12 + size) this.complaints.push(`GET_CONFIG: ${payload.length} bytes for a size of ${size}`)
        return this.#reply(message, Buffer.concat([payload.subarray(0, 12), this.#options.config.subarray(offset, offset + size)]))
      }
      case R.GET_VRING_BASE: {
        if (!this.#kicks.delete(index)) this.complaints.push(`GET_VRING_BASE of ring ${index}, which has no kick`)
        const reply = Buffer.alloc(8)
        reply.writeUInt32LE(index, 0)
        reply.writeUInt32LE(this.#bases.get(index) ?? 0, 4)
        return this.#reply(message, reply)
      }
      case R.SET_DEVICE_STATE_FD:
        this.#needs(message, ProtocolFeature.DEVICE_STATE)
        if (payload.length !== 8) this.complaints.push(`SET_DEVICE_STATE_FD: ${payload.length} bytes`)
        if (this.#options.takeStateFd && fds[0] !== undefined) {
          const instead = this.#options.takeStateFd(fds[0])
          fds.length = 0
          if (instead !== undefined) return { ...this.#reply(message, u64(0)), fds: [instead] }
        }
        return this.#reply(message, u64(0x100))
      case R.CHECK_DEVICE_STATE:
        this.#needs(message, ProtocolFeature.DEVICE_STATE)
        return this.#reply(message, u64(0))
    }
    this.#change(message, fds, index)
    return message.flags & NEED_REPLY ? this.#reply(message, u64(0)) : undefined
  }

  #change(message: Message, fds: number[], index: number): void {
    const { request, payload } = message
    const complain = (what: string): void => { this.complaints.push(`${message.name}: ${what}`) }
    const sizes: Partial<Record<number, number>> = {
      [R.SET_FEATURES]: 8, [R.SET_PROTOCOL_FEATURES]: 8, [R.SET_OWNER]: 0, [R.SET_VRING_NUM]: 8, [R.SET_VRING_BASE]: 8, [R.SET_VRING_ADDR]: 40,
      [R.SET_VRING_CALL]: 8, [R.SET_VRING_ERR]: 8, [R.SET_VRING_KICK]: 8, [R.SET_VRING_ENABLE]: 8, [R.RESET_DEVICE]: 0, [R.SET_BACKEND_REQ_FD]: 0,
      [R.SET_MEM_TABLE]: 8 + 32 * index,
    }
    if (!(request in sizes)) return complain('unknown')
    if (payload.length !== sizes[request]) return complain(`${payload.length} bytes`)
    switch (request) {
      case R.SET_FEATURES:
        this.#ackedFeatures = payload.readBigUInt64LE(0)
        if (this.#ackedFeatures & ~this.#options.features) complain('a bit that was not offered')
        break
      case R.SET_PROTOCOL_FEATURES:
        this.#ackedProtocolFeatures = payload.readBigUInt64LE(0)
        if (this.#ackedProtocolFeatures & ~this.#options.protocolFeatures) complain('a bit that was not offered')
        break
      case R.SET_OWNER:
        if (this.#owned) complain('a second time')
        this.#owned = true
        break
      case R.SET_MEM_TABLE:
        this.#hasMemory = true
        break
      case R.SET_VRING_BASE:
        this.#bases.set(index, payload.readUInt32LE(4))
        break
      case R.SET_VRING_ADDR:
        if (!this.#hasMemory) complain('before the memory table')
        break
      case R.SET_VRING_KICK:
        this.#kicks.add(index)
        break
      case R.SET_VRING_ENABLE:
        if (!hasBit(this.#ackedFeatures, Feature.PROTOCOL_FEATURES)) complain('without PROTOCOL_FEATURES')
        break
      case R.RESET_DEVICE:
        this.#needs(message, ProtocolFeature.RESET_DEVICE)
        this.#ackedFeatures = 0n
        break
      case R.SET_BACKEND_REQ_FD:
        this.#needs(message, ProtocolFeature.BACKEND_REQ)
        this.backendRequestFd = fds[0] ?? -1
        break
    }
  }

  #expectedFds(message: Message): number {
    switch (message.request) {
      case R.SET_MEM_TABLE: return message.payload.readUInt32LE(0)
      case R.SET_VRING_CALL: case R.SET_VRING_KICK: case R.SET_VRING_ERR: return message.payload.readUInt32LE(0) & 0x100 ? 0 : 1
      case R.SET_BACKEND_REQ_FD: case R.SET_DEVICE_STATE_FD: return 1
      default: return 0
    }
  }

  #needs(message: Message, protocolFeature: number): void {
    if (!hasBit(this.#ackedProtocolFeatures, protocolFeature)) this.complaints.push(`${message.name}: its protocol feature was not acknowledged`)
  }

  #reply(message: Message, payload: Buffer): Answer {
    return { request: message.request, flags: VERSION | REPLY, payload, fds: [] }
  }
}
