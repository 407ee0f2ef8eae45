/** Entry of a queue worker's thread: makes its half of the device, serves, frees everything. */
import { once } from 'node:events'
import { parentPort, receiveMessageOnPort } from 'node:worker_threads'
import type { Handlers, HandlersModule } from '../device/handlers.js'
import { abortConnection } from '../sys/abort.js'
import { releaseScratch } from '../sys/memory.js'
import { QueueWorker } from './queue-worker.js'
import type { WorkerCommand, WorkerSetup } from './worker-protocol.js'

const port = parentPort!
const [setup] = await once(port, 'message') as [WorkerSetup]

async function createHandlers(): Promise<Handlers | undefined> {
  if (setup.backend.kind !== 'emulated') return undefined
  const module = await import(setup.backend.module) as HandlersModule
  return await module.createHandlers(setup.backend.data, { windowFd: setup.backend.windowFd })
}

const worker = new QueueWorker(setup, {
  post: event => port.postMessage(event),
  take: () => receiveMessageOnPort(port)?.message as WorkerCommand | undefined,
}, await createHandlers())
try {
  worker.run()
} catch (error) {
  abortConnection(setup.connection, setup.mountpoint)
  throw error
} finally {
  worker.close()
  releaseScratch()
  port.postMessage({ type: 'exited' })
}
