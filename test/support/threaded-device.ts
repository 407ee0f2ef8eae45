/**
 * A device on a thread of its own, behind real rings with real notifications, as a vhost-user
 * backend is, but without the protocol: so every combination of features and ring sizes can be had,
 * and the test can make it slow, unordered or wrong, or let it die.
 */
import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import type { HandlersSource } from '../../lib/driver/emulated-transport.js'
import type { DeviceInfo, DeviceMemory, Transport } from '../../lib/driver/transport.js'
import type { WorkerBackend } from '../../lib/driver/worker-protocol.js'
import { Op } from '../../lib/fuse/opcodes.js'
import { close, createEventfd, signalEventfd } from '../../lib/sys/io.js'
import { shutdown, socketpair } from '../../lib/sys/socket.js'
import type { RingFeatures } from '../../lib/virtio/driver-ring.js'
import type { RingLayout } from '../../lib/virtio/split-ring.js'

/** Words of the device's control block. */
export const Control = {
  /** Not 0: the thread ends. */
  END: 0,
  /** Requests are held for up to so many milliseconds, at random, and answered out of order; 0 answers at once. */
  HOLD_MS: 1,
  /** The same for what is on hiprio, which is executed in order but given back late. */
  HIPRIO_HOLD_MS: 2,
  /** Requests with this opcode are held until this is 0 again, or they are interrupted. */
  HELD_OPCODE: 3,
  /** How many requests are held, for the test to wait for. */
  HOLDING: 4,
  /** Index + 1 in DEVICE_FAULTS: what is done wrong at the next request with FAULT_OPCODE; then 0 again. */
  FAULT: 5,
  FAULT_OPCODE: 6,
  SEED: 7,
  WORDS: 8,
} as const

/** What a device can do wrong. The first group is a reply, the second the ring. */
export const REPLY_FAULTS = [
  'wrong unique', 'wrong length', 'used length under 16', 'error out of range', 'positive error', 'more payload than asked for', 'nothing written',
] as const
export const RING_FAULTS = ['an id never given out', 'the same id twice', 'a used index that jumps ahead'] as const
export const DEVICE_FAULTS: readonly string[] = [...REPLY_FAULTS, ...RING_FAULTS]

export interface ThreadSetup {
  address: number
  lengthBytes: number
  /** hiprio, then the request queues; descriptors alike. */
  layouts: RingLayout[]
  kickFds: number[]
  callFds: number[]
  wakeFd: number
  features: RingFeatures
  module: string
  data: unknown
  control: SharedArrayBuffer
}

/** Of each ring, how many chains the driver made available and how many came back, modulo 2^16. */
export interface RingCount { available: number, used: number }

export interface ThreadedDeviceOptions {
  tag: string
  requestQueues?: number
  features?: RingFeatures
  handlers: HandlersSource
  holdMs?: number
  hiprioHoldMs?: number
  seed?: number
}

export class ThreadedDevice implements Transport {
  readonly info: DeviceInfo
  /** Counts of all rings when they were stopped. */
  rings: RingCount[] = []
  readonly #handlers: HandlersSource
  readonly #control = new SharedArrayBuffer(Control.WORDS * 4)
  readonly #words = new Int32Array(this.#control)
  #worker: Worker | undefined
  #exited: Promise<unknown> = Promise.resolve()
  #fds: number[] = []
  #wakeFd = -1
  #theirs = -1

  constructor({ tag, requestQueues = 1, features = { indirectDesc: true, eventIdx: true }, handlers, holdMs = 0, hiprioHoldMs = 0, seed = 1 }: ThreadedDeviceOptions) {
    this.#handlers = handlers
    this.#words[Control.HOLD_MS] = holdMs
    this.#words[Control.HIPRIO_HOLD_MS] = hiprioHoldMs
    this.#words[Control.SEED] = seed
    const names = ['VERSION_1', ...features.indirectDesc ? ['RING_INDIRECT_DESC'] : [], ...features.eventIdx ? ['RING_EVENT_IDX'] : []]
    this.info = { tag, ownTag: true, requestQueues, features, featureNames: names, offeredFeatureNames: names, protocolFeatureNames: [], offeredProtocolFeatureNames: [] }
  }

  #set(word: number, value: number): void {
    Atomics.store(this.#words, word, value)
    signalEventfd(this.#wakeFd)
  }

  /** From now on requests of this kind wait until `let go`. */
  hold(opcode: keyof typeof Op): void {
    this.#set(Control.HELD_OPCODE, Op[opcode])
  }

  letGo(): void {
    this.#set(Control.HELD_OPCODE, 0)
  }

  /** How many requests the device holds now. */
  get holding(): number {
    return Atomics.load(this.#words, Control.HOLDING)
  }

  /** The next request of this kind is answered wrongly. */
  fault(fault: (typeof DEVICE_FAULTS)[number], opcode: keyof typeof Op): void {
    Atomics.store(this.#words, Control.FAULT_OPCODE, Op[opcode])
    this.#set(Control.FAULT, DEVICE_FAULTS.indexOf(fault) + 1)
  }

  async start({ address, plan }: DeviceMemory): Promise<WorkerBackend[]> {
    const layouts = [plan.hiprio, ...plan.workers.map(worker => worker.ring)]
    const kickFds = layouts.map(() => createEventfd())
    const callFds = layouts.map(() => createEventfd())
    const [ours, theirs] = socketpair()
    this.#wakeFd = createEventfd()
    this.#theirs = theirs
    this.#fds = [...kickFds, ...callFds, ours, theirs, this.#wakeFd]
    const setup: ThreadSetup = {
      address, lengthBytes: plan.lengthBytes, layouts, kickFds, callFds, wakeFd: this.#wakeFd, features: this.info.features,
      module: this.#handlers.module, data: this.#handlers.data, control: this.#control,
    }
    this.#worker = new Worker(new URL('./threaded-device-thread.js', import.meta.url), { workerData: setup })
    this.#worker.on('message', (rings: RingCount[]) => { this.rings = rings })
    this.#exited = once(this.#worker, 'exit')
    await once(this.#worker, 'online')
    return plan.workers.map((_, i) => ({
      kind: 'vhost-user', socketFd: ours, hiprioKickFd: kickFds[0]!, hiprioCallFd: callFds[0]!, kickFd: kickFds[i + 1]!, callFd: callFds[i + 1]!, takesInterrupts: true,
    }))
  }

  /** The device dies: it answers nothing more, and its end of the socket is closed. */
  async die(): Promise<void> {
    await this.#end()
    shutdown(this.#theirs)
  }

  async #end(): Promise<void> {
    if (this.#worker) this.#set(Control.END, 1)
    await this.#exited
    this.#worker = undefined
  }

  async stop(): Promise<void> {
    await this.#end()
  }

  async close(): Promise<void> {
    await this.#end()
    for (const fd of this.#fds.splice(0)) close(fd)
    this.#handlers.close()
  }
}
