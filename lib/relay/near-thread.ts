/** The thread of a relay's near end: between the rings and the stream. Polls for a while when there is nothing to do, then sleeps in epoll. */
import { parentPort, workerData } from 'node:worker_threads'
import { Epoll, EPOLLET, EPOLLIN, EPOLLOUT, schedYield, signalEventfd } from '../sys/io.js'
import { releaseScratch, viewRegion } from '../sys/memory.js'
import { PollBudget } from '../virtio/poll-budget.js'
import { NearDevice } from './near-device.js'
import { NEAR_ENDS, type NearMessage, type NearSetup } from './near-protocol.js'

const setup = workerData as NearSetup
const post = (message: NearMessage): void => parentPort!.postMessage(message)
const device = new NearDevice(viewRegion(setup.memoryAddress, setup.memoryBytes), setup.layouts, setup.features, setup)
const state = new Int32Array(setup.state)
const poll = new PollBudget(setup.pollUs)
const epoll = new Epoll()
epoll.add(setup.kickFd, EPOLLIN | EPOLLET, 0)
epoll.add(setup.wakeFd, EPOLLIN | EPOLLET, 0)
// what comes on the stream is read until there is no more
epoll.add(setup.inFd, EPOLLIN | EPOLLET, 0)
/** Listens to room on the stream only while it is wanted: a socket tells of all that its reader takes. */
let waitsForRoom = false

/** @returns how much there was */
function pass(): number {
  const work = device.pass()
  for (let ring = 0; ring < setup.callFds.length; ring++) if (device.callNeeded(ring)) signalEventfd(setup.callFds[ring]!)
  return work
}

function pollForWork(): boolean {
  if (!poll.worthwhile) return false
  device.disableKicks()
  poll.start()
  do {
    if (pass() > 0) {
      poll.won()
      return true
    }
    schedYield()
  } while (poll.continues())
  return false
}

function sleep(): void {
  if (!device.enableKicks()) return
  if (Atomics.load(state, NEAR_ENDS) !== 0) return
  if (device.blocked !== waitsForRoom) {
    waitsForRoom = device.blocked
    if (waitsForRoom) epoll.add(setup.outFd, EPOLLOUT, 0)
    else epoll.remove(setup.outFd)
  }
  poll.sleeping()
  epoll.wait(-1)
  poll.woken()
}

post({ type: 'ready' })
let told = false
while (Atomics.load(state, NEAR_ENDS) === 0) {
  if (pass() > 0) continue
  if (device.broken !== '') {
    if (!told) post({ type: 'gone', reason: device.broken })
    told = true
    // until it is told to end
    epoll.wait(-1)
  } else if (!pollForWork()) {
    sleep()
  }
}
device.close()
epoll.close()
releaseScratch()
