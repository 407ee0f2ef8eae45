/** Rows of 8 threads: all are ready before the clock starts, and each counts its operations, or times them. */
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
  /** Whether each operation is timed. */
  timed: boolean
}

/** What a thread did. */
interface Done {
  ops: number
  /** Microseconds of each operation, when they are timed. */
  timesUs: Float32Array
}

const READY = 0
const RUNNING = 1
const OVER = 2

/** Operations between two looks at the state. */
const BATCH = 4
/** Operations that a thread can time. */
const TIMES = 1 << 20

function percentile99(all: Float32Array[]): number {
  const times = Float32Array.from(all.flatMap(each => [...each])).sort()
  return times[Math.floor(times.length * 0.99)]!
}

async function run(task: Task, operation: string, timed = false): Promise<Measure> {
  const state = new Int32Array(new SharedArrayBuffer(4))
  const workers = Array.from({ length: THREADS }, () =>
    new Worker(fileURLToPath(import.meta.url), { workerData: { task, operation, state, timed } satisfies Shared }))
  const next = <T>(worker: Worker) => new Promise<T>((resolve, reject) => {
    worker.once('message', resolve)
    worker.once('error', reject)
  })
  await Promise.all(workers.map(worker => next(worker)))
  const ends = workers.map(worker => next<Done>(worker))
  const clock = new Clock(task.servers)
  clock.start()
  Atomics.store(state, 0, RUNNING)
  Atomics.notify(state, 0)
  await new Promise(resolve => setTimeout(resolve, task.seconds * 1000))
  Atomics.store(state, 0, OVER)
  const done = await Promise.all(ends)
  clock.stop()
  const measure = clock.measure(done.reduce((sum, { ops }) => sum + ops, 0))
  return timed ? { ...measure, p99Us: percentile99(done.map(({ timesUs }) => timesUs)) } : measure
}

function worker({ task, operation, state, timed }: Shared): void {
  const operate = operations[operation]!(task)
  for (let i = 0; i < 50; i++) operate(i)
  const timesUs = new Float32Array(timed ? TIMES : 0)
  parentPort!.postMessage('ready')
  Atomics.wait(state, 0, READY)
  let ops = 0
  while (Atomics.load(state, 0) === RUNNING && !(timed && ops + BATCH > TIMES)) {
    for (let n = 0; n < BATCH; n++) {
      const startMs = timed ? performance.now() : 0
      operate(ops)
      if (timed) timesUs[ops] = (performance.now() - startMs) * 1000
      ops++
    }
  }
  parentPort!.postMessage({ ops, timesUs: timesUs.subarray(0, timed ? ops : 0) } satisfies Done)
}

if (!isMainThread) worker(workerData as Shared)

export const threadRows: Record<string, (task: Task) => Promise<Measure>> = {
  pread8: task => run(task, 'pread'),
  statfs8: task => run(task, 'statfs'),
  pread8p99: task => run(task, 'pread', true),
  statfs8p99: task => run(task, 'statfs', true),
}
