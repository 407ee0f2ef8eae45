/** The thread of a ThreadedDevice: takes chains, holds them as it is told, executes and gives back. */
import { parentPort, workerData } from 'node:worker_threads'
import { ChainExecutor } from '../../lib/device/chain-executor.js'
import { DROPPED, type HandlersModule } from '../../lib/device/handlers.js'
import { allocateInterrupts, Interrupts } from '../../lib/device/interrupts.js'
import { FuseInHeader, FuseOutHeader } from '../../lib/fuse/abi.js'
import { Epoll, EPOLLIN, signalEventfd } from '../../lib/sys/io.js'
import { releaseScratch, viewRegion } from '../../lib/sys/memory.js'
import { SeededRandom } from './seeded-random.js'
import { Control, DEVICE_FAULTS, type RingCount, type ThreadSetup } from './threaded-device.js'

const EPOLLET = 2 ** 31
const setup = workerData as ThreadSetup
const control = new Int32Array(setup.control)
const region = viewRegion(setup.address, setup.lengthBytes)
const { createHandlers } = await import(setup.module) as HandlersModule
const handlers = await createHandlers(setup.data, { windowFd: -1 })
const interrupts = new Interrupts(allocateInterrupts())
const random = new SeededRandom(control[Control.SEED]!)
const queues = setup.layouts.map((layout, i) => ({
  layout, callFd: setup.callFds[i]!, executor: new ChainExecutor(region, layout, setup.features, handlers, true, interrupts),
}))
type Queue = (typeof queues)[number]

interface Taken { queue: Queue, head: number, opcode: number, uniqueLow: number, uniqueHigh: number, dueMs: number, written: number }
/** Taken and not given back. */
let pending: Taken[] = []
const epoll = new Epoll()
for (const fd of [...setup.kickFds, setup.wakeFd]) epoll.add(fd, EPOLLIN | EPOLLET, 0)

function takeAll(): void {
  for (const [i, queue] of queues.entries()) {
    const { ring } = queue.executor
    for (let head = ring.pop(); head >= 0; head = ring.pop()) {
      const at = ring.addresses[0]! - setup.address
      const hiprio = i === 0
      const holdMs = control[hiprio ? Control.HIPRIO_HOLD_MS : Control.HOLD_MS]!
      pending.push({
        queue, head, opcode: region.view.getUint32(at + FuseInHeader.opcode, true),
        uniqueLow: region.view.getUint32(at + FuseInHeader.unique, true), uniqueHigh: region.view.getUint32(at + FuseInHeader.unique + 4, true),
        dueMs: holdMs === 0 ? 0 : performance.now() + random.below(holdMs * 16) / 16,
        // FORGETs keep their order, whenever they are given back
        written: hiprio ? queue.executor.execute() : -1,
      })
    }
    if (ring.broken !== '') throw new Error(`the driver broke a ring: ${ring.broken}`)
  }
}

function isDue(taken: Taken, now: number): boolean {
  if (taken.written < 0 && interrupts.has(taken.uniqueLow, taken.uniqueHigh)) return true
  if (taken.opcode === Atomics.load(control, Control.HELD_OPCODE)) return false
  return taken.dueMs <= now
}

/** @returns how many were given back */
function giveBack(): number {
  const now = performance.now()
  const due = pending.filter(taken => isDue(taken, now))
  if (due.length > 0) pending = pending.filter(taken => !due.includes(taken))
  Atomics.store(control, Control.HOLDING, pending.length)
  const count = due.length
  while (due.length > 0) {
    const taken = control[Control.HOLD_MS]! > 0 ? random.take(due) : due.shift()!
    const { ring } = taken.queue.executor
    if (taken.written < 0) taken.written = ring.describe(taken.head) ? taken.queue.executor.execute() : 0
    if (taken.written === DROPPED) continue
    if (control[Control.FAULT] !== 0 && taken.opcode === control[Control.FAULT_OPCODE]) doWrong(taken)
    else ring.push(taken.head, taken.written)
  }
  for (const { executor, callFd } of queues) if (executor.ring.callNeeded()) signalEventfd(callFd)
  return count
}

function doWrong({ queue: { executor: { ring }, layout, callFd }, head, written, uniqueLow }: Taken): void {
  const fault = DEVICE_FAULTS[Atomics.exchange(control, Control.FAULT, 0) - 1]
  const out = ring.addresses[ring.readableCount]! - setup.address
  const { view } = region
  switch (fault) {
    case 'wrong unique': view.setUint32(out + FuseOutHeader.unique, uniqueLow + 2, true); break
    case 'wrong length': view.setUint32(out + FuseOutHeader.len, written + 1, true); break
    case 'used length under 16': written = FuseOutHeader.SIZE - 1; break
    case 'error out of range': view.setInt32(out + FuseOutHeader.error, -512, true); break
    case 'positive error': view.setInt32(out + FuseOutHeader.error, 5, true); break
    case 'more payload than asked for':
      written = ring.writableBytes + 1
      view.setUint32(out + FuseOutHeader.len, written, true)
      break
    case 'nothing written': written = 0; break
    case 'an id never given out': head = layout.size - 1; break
    case 'the same id twice': ring.push(head, written); break
    case 'a used index that jumps ahead':
      view.setUint16(layout.used + 2, view.getUint16(layout.used + 2, true) + layout.size, true)
      signalEventfd(callFd)
      return
    default: throw new Error(`no fault ${fault}`)
  }
  ring.push(head, written)
}

/** How long nothing is due, in milliseconds; −1 for no end. */
function pause(): number {
  const held = Atomics.load(control, Control.HELD_OPCODE)
  const next = pending.reduce((least, taken) => taken.opcode === held ? least : Math.min(least, taken.dueMs), Infinity)
  return next === Infinity ? -1 : Math.max(0, Math.ceil(next - performance.now()))
}

while (Atomics.load(control, Control.END) === 0) {
  takeAll()
  if (giveBack() > 0) continue
  if (queues.map(({ executor }) => executor.ring.enableKicks()).every(quiet => quiet)) epoll.wait(pause())
}
const counts: RingCount[] = queues.map(({ layout }) => ({ available: region.view.getUint16(layout.avail + 2, true), used: region.view.getUint16(layout.used + 2, true) }))
parentPort!.postMessage(counts)
for (const { executor } of queues) executor.close()
handlers.close()
epoll.close()
releaseScratch()
