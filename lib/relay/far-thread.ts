/** Entry of the far end's thread: makes its half of the device, serves, frees everything. */
import { once } from 'node:events'
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads'
import type { Handlers, HandlersModule } from '../device/handlers.js'
import { loadModule } from '../device/load-module.js'
import type { WorkerCommand, WorkerSetup } from '../driver/worker-protocol.js'
import { releaseScratch } from '../sys/memory.js'
import { FarWorker, type FarStream } from './far-worker.js'

const port = parentPort!

async function createHandlers({ backend }: WorkerSetup): Promise<Handlers | undefined> {
  if (backend.kind !== 'emulated') return undefined
  const module = await loadModule<HandlersModule>(backend.module)
  return await module.createHandlers(backend.data, { windowFd: -1 })
}

async function serve(setup: WorkerSetup): Promise<void> {
  const worker = new FarWorker(setup, {
    post: event => port.postMessage(event),
    take: () => receiveMessageOnPort(port)?.message as WorkerCommand | undefined,
  }, await createHandlers(setup), workerData as FarStream, trouble => port.postMessage({ type: 'stream-ended', trouble }))
  try {
    worker.run()
  } finally {
    worker.close()
  }
}

const [first] = await once(port, 'message') as [WorkerSetup | WorkerCommand]
try {
  if (!('type' in first)) await serve(first)
} finally {
  releaseScratch()
  port.postMessage({ type: 'exited' })
}
