/**
 * The notifier: a thread that owns the notification queue and does nothing else. It may wait in
 * the kernel for whoever waits for a request, so it must never be one that serves requests.
 */
import { once } from 'node:events'
import { parentPort, receiveMessageOnPort } from 'node:worker_threads'
import { Epoll, EPOLLET, EPOLLIN, signalEventfd } from '../sys/io.js'
import { releaseScratch, viewRegion } from '../sys/memory.js'
import { nameThread } from '../sys/thread.js'
import { NotificationQueue } from './notification-queue.js'
import type { NotifierCommand, NotifierEvent, NotifierSetup } from './notifier-protocol.js'

/** Notifications between two looks at the messages of the main thread. */
const BATCH = 64

const port = parentPort!
const [setup] = await once(port, 'message') as [NotifierSetup]

function post(event: NotifierEvent): void {
  port.postMessage(event)
}

nameThread('virtiofs-notify')
const queue = new NotificationQueue(viewRegion(setup.memoryAddress, setup.plan.lengthBytes), setup.plan.notification!, setup.features, setup.fuseFd)
const { ring } = queue
const epoll = new Epoll()
epoll.add(setup.wakeFd, EPOLLIN | EPOLLET, 0)
epoll.add(setup.callFd, EPOLLIN | EPOLLET, 0)
let exit = false
let broken = false

function commands(): void {
  for (let message = receiveMessageOnPort(port); message; message = receiveMessageOnPort(port)) {
    const { type } = message.message as NotifierCommand
    queue.disconnect()
    if (type === 'stop') post({ type: 'stopped', counts: queue.counts })
    else exit = true
  }
}

// a kick that came while the ring was disabled is lost, so it is kicked once whatever the device asks for
ring.kickNeeded()
signalEventfd(setup.kickFd)
post({ type: 'ready' })
while (!exit) {
  const count = queue.complete(BATCH)
  if (ring.kickNeeded()) signalEventfd(setup.kickFd)
  if (ring.broken !== '' && !broken) {
    broken = true
    post({ type: 'failed', reason: `the device broke the notification ring: ${ring.broken}` })
  }
  if (count === 0 && (broken || ring.enableCallbacks())) epoll.wait(queue.waitMs)
  commands()
  ring.disableCallbacks()
}
epoll.close()
releaseScratch()
