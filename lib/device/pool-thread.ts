/** A thread of the pool: executes the chains that would hold up the thread of a queue. */
import { parentPort, workerData } from 'node:worker_threads'
import { signalEventfd } from '../sys/io.js'
import { releaseScratch, viewRegion } from '../sys/memory.js'
import { nameThread } from '../sys/thread.js'
import { ChainExecutor } from './chain-executor.js'
import { DROPPED, type HandlersModule } from './handlers.js'
import { Interrupts } from './interrupts.js'
import { loadModule } from './load-module.js'
import { FINISH, POOL_ENDS, POOL_JOBS, POOL_READY, type PoolSetup } from './pool-protocol.js'
import { SharedQueue } from './shared-queue.js'

nameThread('virtiofs-pool')
const setup = workerData as PoolSetup
const { createHandlers } = await loadModule<HandlersModule>(setup.module)
const handlers = await createHandlers(setup.data, { windowFd: setup.windowFd })
const interrupts = new Interrupts(setup.interrupts)
const region = viewRegion(setup.memoryAddress, setup.memoryBytes)
const executors = setup.layouts.map(layout => new ChainExecutor(region, layout, setup.features, handlers, true, interrupts))
const jobs = new SharedQueue(setup.jobs)
const done = setup.done.map(shared => new SharedQueue(shared))
const asleep = new Int32Array(setup.sleepFlags)
const state = new Int32Array(setup.state)

function execute(queue: number, head: number): void {
  const executor = executors[queue]!
  const written = executor.ring.describe(head) ? executor.execute() : 0
  Atomics.sub(state, POOL_JOBS, 1)
  if (written === DROPPED) return
  done[queue]!.push(head, Math.max(0, written))
  if (Atomics.load(asleep, queue) === 1) signalEventfd(setup.wakeFds[queue]!)
}

function finish(): void {
  handlers.finish!()
  Atomics.sub(state, POOL_JOBS, 1)
}

Atomics.add(state, POOL_READY, 1)
parentPort!.postMessage('ready')
while (Atomics.load(state, POOL_ENDS) === 0) {
  const epoch = jobs.epoch()
  if (jobs.pop()) {
    if (jobs.first === FINISH) finish()
    else execute(jobs.first, jobs.second)
    continue
  }
  if (Atomics.load(state, POOL_ENDS) === 0) jobs.waitForMore(epoch)
}
for (const executor of executors) executor.close()
handlers.close()
releaseScratch()
