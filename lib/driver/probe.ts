/**
 * Asks a device what it is, with no mount: brings its rings up, sends INIT and DESTROY, takes them
 * down again. The few requests run on the calling thread.
 */
import { EmulatedQueue } from '../device/emulated-queue.js'
import { allocateInterrupts } from '../device/interrupts.js'
import type { Handlers, HandlersModule } from '../device/handlers.js'
import { loadModule } from '../device/load-module.js'
import { PeerGoneError, ProtocolError } from '../errors.js'
import { FUSE_INIT_FLAGS, FuseInHeader, FuseOutHeader, type InitFlag } from '../fuse/abi.js'
import { buildInitRequest, decodeInitAnswer, explainInitRefusal, initFlagWords, type InitAnswer } from '../fuse/init.js'
import { Op, replyFixedBytes } from '../fuse/opcodes.js'
import { close, drainEventfd, pollAsync, POLLIN, POLLRDHUP, signalEventfd } from '../sys/io.js'
import { createMemfd, mapShared, unmap, viewRegion } from '../sys/memory.js'
import { DriverRing, writeDescriptor } from '../virtio/driver-ring.js'
import { VIRTQ_DESC_F_WRITE } from '../virtio/split-ring.js'
import { Disposer } from './disposer.js'
import { planMemory, Slot } from './memory-plan.js'
import type { DeviceInfo, Transport } from './transport.js'
import type { WorkerBackend } from './worker-protocol.js'

export interface ProbeResult extends DeviceInfo {
  init: InitAnswer
}

const QUEUE_SIZE = 16
/** Not offered: what has no meaning without a kernel's mount behind it. */
const NOT_OFFERED: readonly InitFlag[] = ['INIT_RESERVED', 'SUBMOUNTS', 'PASSTHROUGH', 'OVER_IO_URING', 'REQUEST_TIMEOUT', 'HAS_RESEND', 'MAP_ALIGNMENT', 'HAS_INODE_DAX']

/**
 * @param transport probed; closed before this returns or throws
 * @param timeoutMs deadline of each answer
 * @throws PeerGoneError, ProtocolError, SyscallError
 */
export async function probe(transport: Transport, timeoutMs: number): Promise<ProbeResult> {
  const resources = new Disposer()
  resources.push('transport', () => transport.close())
  let failure = ''
  transport.onFailure = reason => { failure = reason }
  try {
    const plan = planMemory({ queues: 1, queueSize: QUEUE_SIZE, indirectDesc: transport.info.features.indirectDesc, largeBuffers: 2 })
    const memfd = createMemfd('virtiofs-bridge-probe', plan.lengthBytes)
    resources.push('memfd', () => { close(memfd) })
    const address = mapShared(memfd, plan.lengthBytes)
    resources.push('memory', () => unmap(address, plan.lengthBytes))
    const region = viewRegion(address, plan.lengthBytes)
    const [backend] = await transport.start({ memfd, address, plan, wakeFds: [], sleepFlags: new SharedArrayBuffer(4), windowFd: -1 })
    resources.push('rings', () => transport.stop(false))
    const ring = new DriverRing(region, plan.workers[0]!.ring, transport.info.features)
    const device = await deviceOf(backend!, resources)
    const queue = device && new EmulatedQueue(region, plan.workers[0]!.ring, transport.info.features, device, allocateInterrupts())
    resources.push('queue', () => queue?.close())

    const at = plan.workers[0]!.slots
    const exchange = async (opcode: number, name: string, length: number): Promise<number> => {
      const table = at + Slot.TABLE
      writeDescriptor(region.view, table, 0, address + at + Slot.IN, length, 0, false)
      writeDescriptor(region.view, table, 1, address + at + Slot.OUT, replyFixedBytes(opcode), VIRTQ_DESC_F_WRITE, true)
      ring.add(table, address + table, 2, 0)
      if (queue) queue.process()
      else await kickAndWait(backend!, ring, name, timeoutMs, () => failure)
      if (ring.popUsed() < 0) throw new ProtocolError(name, 'used ring', ring.broken, 'one used chain')
      return ring.usedLength
    }
    const offered = (Object.keys(FUSE_INIT_FLAGS) as InitFlag[]).filter(flag => !NOT_OFFERED.includes(flag))
    const used = await exchange(Op.INIT, 'FUSE_INIT', buildInitRequest(region.view, at + Slot.IN, offered))
    const out = at + Slot.OUT
    if (used < FuseOutHeader.SIZE) throw new ProtocolError('FUSE_INIT', 'used length', used, `at least ${FuseOutHeader.SIZE}`)
    const error = region.view.getInt32(out + FuseOutHeader.error, true)
    if (error !== 0) throw new PeerGoneError(explainInitRefusal(error, initFlagWords(offered)), 'ECONNREFUSED')
    const init = decodeInitAnswer(region.view, out + FuseOutHeader.SIZE)
    region.view.setUint32(at + Slot.IN + FuseInHeader.len, FuseInHeader.SIZE, true)
    region.view.setUint32(at + Slot.IN + FuseInHeader.opcode, Op.DESTROY, true)
    region.view.setUint32(at + Slot.IN + FuseInHeader.unique, 4, true)
    await exchange(Op.DESTROY, 'FUSE_DESTROY', FuseInHeader.SIZE)
    return { ...transport.info, init }
  } finally {
    await resources.dispose()
  }
}

async function deviceOf(backend: WorkerBackend, resources: Disposer): Promise<Handlers | undefined> {
  if (backend.kind !== 'emulated') return undefined
  const module = await loadModule<HandlersModule>(backend.module)
  const handlers = await module.createHandlers(backend.data, { windowFd: -1 })
  resources.push('handlers', () => handlers.close())
  return handlers
}

async function kickAndWait(backend: WorkerBackend, ring: DriverRing, name: string, timeoutMs: number, failure: () => string): Promise<void> {
  if (backend.kind !== 'vhost-user') return
  signalEventfd(backend.kickFd)
  const deadline = performance.now() + timeoutMs
  ring.enableCallbacks()
  while (!ring.hasUsed()) {
    const left = Math.ceil(deadline - performance.now())
    if (left <= 0) throw new PeerGoneError(`the device did not answer ${name} within ${timeoutMs / 1000} s`, 'ETIMEDOUT')
    await pollAsync(backend.callFd, POLLIN, Math.min(left, 100))
    drainEventfd(backend.callFd)
    if (await pollAsync(backend.socketFd, POLLRDHUP, 0) > 0 && !ring.hasUsed()) throw new PeerGoneError(`${failure() || 'the backend closed its socket'} before it answered ${name}`)
  }
}
