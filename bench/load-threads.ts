/** Rows of 8 threads: all are ready before the clock starts, and each counts its operations. */
import { fileURLToPath } from 'node:url'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { operations } from './load-ops.js'
import { Clock, type Task } from './load-task.js'
import type { Measure } from './rows.js'

const THREADS = 8

/** What the threads share: word 0 is 1 once the clock runs, and 2 when its time is over. */
interface Shared {
  task: Task
  operation: string
  state: Int32Array
}

const READY = 0
const RUNNING = 1
const OVER = 2

/** Operations between two looks at the state. */
const BATCH = 4

async function run(task: Task, operation: string): Promise<Measure> {
  const state = new Int32Array(new SharedArrayBuffer(4))
  const workers = Array.from({ length: THREADS }, () =>
    new Worker(fileURLToPath(import.meta.url), { workerData: { task, operation, state } satisfies Shared }))
  const next = (worker: Worker) => new Promise<number>((resolve, reject) => {
    worker.once('message', resolve)
    worker.once('error', reject)
  })
  await Promise.all(workers.map(next))
  const counts = workers.map(next)
  const clock = new Clock(task.servers)
  clock.start()
  Atomics.store(state, 0, RUNNING)
  Atomics.notify(state, 0)
  await new Promise(resolve => setTimeout(resolve, task.seconds * 1000))
  Atomics.store(state, 0, OVER)
  const done = await Promise.all(counts)
  clock.stop()
  return clock.measure(done.reduce((sum, count) => sum + count, 0))
}

function worker({ task, operation, state }: Shared): void {
  const operate = operations[operation]!(task)
  for (let i = 0; i < 50; i++) operate(i)
  parentPort!.postMessage(0)
  Atomics.wait(state, 0, READY)
  let i = 0
  while (Atomics.load(state, 0) === RUNNING) {
    for (let n = 0; n < BATCH; n++) operate(i++)
  }
  parentPort!.postMessage(i)
}

if (!isMainThread) worker(workerData as Shared)

export const threadRows: Record<string, (task: Task) => Promise<Measure>> = {
  pread8: task => run(task, 'pread'),
  statfs8: task => run(task, 'statfs'),
}
