/**
 * The thread of handlers that may answer later: takes chains of all queues, starts them, and gives
 * them back as their answers come. Between rounds the event loop turns.
 */
import { Socket } from 'node:net'
import { parentPort, workerData } from 'node:worker_threads'
import { dup } from '../sys/file.js'
import { signalEventfd } from '../sys/io.js'
import { releaseScratch, viewRegion } from '../sys/memory.js'
import { ChainExecutor } from './chain-executor.js'
import { DROPPED, type HandlersModule, type LoopHandlers } from './handlers.js'
import { Interrupts } from './interrupts.js'
import { loadModule } from './load-module.js'
import type { LoopSetup } from './loop.js'
import { POOL_ENDS, POOL_IDLE, POOL_READY } from './pool-protocol.js'
import { SharedQueue } from './shared-queue.js'

/** Chains that are started before the event loop turns. */
const ROUND = 64

const setup = workerData as LoopSetup
const { createHandlers } = await loadModule<HandlersModule<LoopHandlers>>(setup.module)
const handlers = await createHandlers(setup.data, { windowFd: setup.windowFd })
const interrupts = new Interrupts(setup.interrupts)
const region = viewRegion(setup.memoryAddress, setup.memoryBytes)
/** By queue: executors that have no chain. */
const free: ChainExecutor[][] = setup.layouts.map(() => [])
const all: ChainExecutor[] = []
const jobs = new SharedQueue(setup.jobs)
const done = setup.done.map(shared => new SharedQueue(shared))
const asleep = new Int32Array(setup.sleepFlags)
const state = new Int32Array(setup.state)

function executorOf(queue: number): ChainExecutor {
  const executor = free[queue]!.pop()
  if (executor) return executor
  const made = new ChainExecutor(region, setup.layouts[queue]!, setup.features, handlers, true, interrupts)
  all.push(made)
  return made
}

function giveBack(queue: number, head: number, executor: ChainExecutor, written: number): void {
  free[queue]!.push(executor)
  if (written === DROPPED) return
  done[queue]!.push(head, Math.max(0, written))
  // the queue behind the request queues is worker 0's
  if (Atomics.load(asleep, queue < asleep.length ? queue : 0) === 1) signalEventfd(setup.wakeFds[queue]!)
}

function start(queue: number, head: number): void {
  const executor = executorOf(queue)
  const written = executor.ring.describe(head) ? executor.executeLater() : 0
  if (typeof written === 'number') giveBack(queue, head, executor, written)
  else void written.then(bytes => giveBack(queue, head, executor, bytes))
}

let ending = false

async function end(): Promise<void> {
  if (ending) return
  ending = true
  await handlers.close()
  for (const executor of all) executor.close()
  releaseScratch()
  process.exit()
}

/** Starts what there is; a round at a time, so that the event loop turns in between. */
function takeJobs(): void {
  do {
    if (Atomics.load(state, POOL_ENDS) !== 0) return void end()
    Atomics.store(state, POOL_IDLE, 0)
    let count = 0
    for (; count < ROUND && jobs.pop(); count++) start(jobs.first, jobs.second)
    if (count === ROUND) return void setImmediate(takeJobs)
    // from here on who pushes a job sends a byte; a job that was pushed before is seen now
    Atomics.store(state, POOL_IDLE, 1)
  } while (!jobs.isEmpty())
}

// as a socket it is listened to by the event loop itself: waiting for it takes no thread
const wakeUps = new Socket({ fd: dup(setup.loopFd), onread: { buffer: Buffer.alloc(64), callback: () => (takeJobs(), true) } } as ConstructorParameters<typeof Socket>[0])
wakeUps.resume()
Atomics.store(state, POOL_READY, 1)
Atomics.store(state, POOL_IDLE, 1)
parentPort!.postMessage('ready')
