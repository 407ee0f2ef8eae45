/**
 * The thread of an emulated device: takes what the driver made available on both rings, executes it
 * here or on the pool, and notifies the driver. Polls for a while when there is nothing to do, then
 * sleeps in epoll.
 */
import { parentPort, workerData } from 'node:worker_threads'
import { PollBudget } from '../virtio/poll-budget.js'
import { Epoll, EPOLLET, EPOLLIN, schedYield, signalEventfd } from '../sys/io.js'
import { releaseScratch, viewRegion } from '../sys/memory.js'
import { EmulatedQueue } from './emulated-queue.js'
import { loadModule } from './load-module.js'
import type { HandlersModule } from './handlers.js'
import type { QueueThreadMessage, QueueThreadSetup } from './queue-thread.js'

const setup = workerData as QueueThreadSetup
const post = (message: QueueThreadMessage): void => parentPort!.postMessage(message)

const { createHandlers } = await loadModule<HandlersModule>(setup.module)
const handlers = await createHandlers(setup.data, { windowFd: -1 })
const region = viewRegion(setup.memoryAddress, setup.memoryBytes)
const queue = new EmulatedQueue(region, setup.ring, setup.features, handlers, setup.interrupts, 0, setup.pool, () => post({ type: 'pool-wanted' }))
const hiprio = new EmulatedQueue(region, setup.hiprio, setup.features, handlers, setup.interrupts, 1, setup.hiprioPool)
const asleep = new Int32Array(setup.sleepFlags)
const state = new Int32Array(setup.state)
const poll = new PollBudget(setup.pollUs)
const epoll = new Epoll()
epoll.add(setup.kickFd, EPOLLIN | EPOLLET, 0)
epoll.add(setup.wakeFd, EPOLLIN | EPOLLET, 0)

/** One round over both rings and the pool. @returns how much there was */
function pass(): number {
  // an INTERRUPT first: it may be for what is taken next
  const work = hiprio.process() + queue.process() + queue.collect() + hiprio.collect()
  const requests = queue.callNeeded()
  const forgets = hiprio.callNeeded()
  if (requests || forgets) signalEventfd(setup.callFd)
  return work
}

function hasWork(): boolean {
  return queue.hasAvailable() || hiprio.hasAvailable() || queue.hasDone() || hiprio.hasDone()
}

/** Looks again for a bounded time. @returns whether there is work */
function pollForWork(): boolean {
  if (!poll.worthwhile) return false
  queue.disableKicks()
  hiprio.disableKicks()
  poll.start()
  do {
    if (hasWork()) {
      poll.won()
      return true
    }
    schedYield()
  } while (poll.continues())
  return false
}

function sleep(): void {
  Atomics.store(asleep, 0, 1)
  const quiet = queue.enableKicks() && hiprio.enableKicks()
  if (quiet && !queue.hasDone() && !hiprio.hasDone() && Atomics.load(state, 0) === 0) {
    poll.sleeping()
    epoll.wait(-1)
    poll.woken()
  }
  Atomics.store(asleep, 0, 0)
}

post({ type: 'ready' })
let broken = ''
while (Atomics.load(state, 0) === 0) {
  if (pass() > 0 || pollForWork()) continue
  if (broken === '' && (queue.broken !== '' || hiprio.broken !== '')) {
    broken = queue.broken || hiprio.broken
    post({ type: 'broken', reason: `the driver broke a ring: ${broken}` })
  }
  sleep()
}
queue.close()
hiprio.close()
handlers.close()
epoll.close()
releaseScratch()
