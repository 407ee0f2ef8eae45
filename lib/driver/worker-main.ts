/** Entry of a queue worker's thread: makes its half of the device, serves, frees everything. */
import { once } from 'node:events'
import { parentPort, receiveMessageOnPort } from 'node:worker_threads'
import type { Handlers, HandlersModule } from '../device/handlers.js'
import { loadModule } from '../device/load-module.js'
import { abortConnection } from '../sys/abort.js'
import { releaseScratch } from '../sys/memory.js'
import { nameThread } from '../sys/thread.js'
import type { LocalDeviceModule } from './local-device.js'
import { QueueWorker } from './queue-worker.js'
import type { WorkerCommand, WorkerSetup } from './worker-protocol.js'

const port = parentPort!

async function createHandlers({ backend }: WorkerSetup): Promise<Handlers | undefined> {
  if (backend.kind !== 'emulated') return undefined
  const module = await loadModule<HandlersModule>(backend.module)
  return await module.createHandlers(backend.data, { windowFd: backend.windowFd })
}

async function localDevices({ backend }: WorkerSetup): Promise<LocalDeviceModule | undefined> {
  return backend.kind === 'local' ? await loadModule<LocalDeviceModule>(backend.module) : undefined
}

async function serve(setup: WorkerSetup): Promise<void> {
  nameThread(`virtiofs-queue${setup.index}`)
  const worker = new QueueWorker(setup, {
    post: event => port.postMessage(event),
    take: () => receiveMessageOnPort(port)?.message as WorkerCommand | undefined,
  }, await createHandlers(setup), await localDevices(setup))
  try {
    worker.run()
  } catch (error) {
    // with a supervisor this process ends, and another goes on
    if (setup.stateFd < 0) abortConnection(setup.connection, setup.mountpoint)
    throw error
  } finally {
    worker.close()
  }
}

const [first] = await once(port, 'message') as [WorkerSetup | WorkerCommand]
try {
  // a mount that failed before there was a queue to serve sends `exit` instead
  if (!('type' in first)) await serve(first)
} finally {
  releaseScratch()
  port.postMessage({ type: 'exited' })
}
