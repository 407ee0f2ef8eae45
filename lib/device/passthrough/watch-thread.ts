/**
 * The thread that watches a shared directory and fills the notification queue. It uses nothing of
 * the mount, and so never waits for it.
 */
import { parentPort, workerData } from 'node:worker_threads'
import { SyscallError } from '../../errors.js'
import { Epoll, EPOLLET, EPOLLIN, poll, POLLIN } from '../../sys/io.js'
import { releaseScratch, viewRegion } from '../../sys/memory.js'
import { nameThread } from '../../sys/thread.js'
import { NotificationSender } from '../notification-sender.js'
import type { NotificationThreadSetup } from '../notifications.js'
import { FanotifyEvents } from './fanotify-events.js'
import type { PassthroughShared } from './shared.js'
import { Watcher } from './watcher.js'

/**
 * Least time between two reads, in milliseconds: what happens meanwhile is one wake-up, and the
 * kernel merges what happens to one file. A change after a pause is told at once.
 */
const PAUSE_MS = 2

nameThread('virtiofs-watch')
const { data, memoryAddress, memoryBytes, layout, features, kickFd, callFd, stopFd } = workerData as NotificationThreadSetup
const shared = data as PassthroughShared
const sender = new NotificationSender(viewRegion(memoryAddress, memoryBytes), layout, features, callFd)
const { ring } = sender
const events = new FanotifyEvents()
const watcher = new Watcher(shared)
/** What is waited for: always the end, and buffers of the driver or events. */
const forBuffers = new Epoll()
forBuffers.add(stopFd, EPOLLIN, 0)
forBuffers.add(kickFd, EPOLLIN | EPOLLET, 0)
const forEvents = new Epoll()
forEvents.add(stopFd, EPOLLIN, 0)
forEvents.add(shared.fanotifyFd, EPOLLIN, 0)

/** @returns whether there was something */
function readEvents(): boolean {
  const got = events.read(shared.fanotifyFd)
  if (got < 0) throw new SyscallError('read', -got, 'of fanotify')
  watcher.take(events)
  return got > 0
}

ring.disableKicks()
parentPort!.postMessage('ready')
// less than 0: a signal came
for (let pauseMs = 0; poll(stopFd, POLLIN, pauseMs) <= 0;) {
  const some = !watcher.full && readEvents()
  watcher.send(sender)
  if (ring.broken !== '') throw new Error(`the driver broke the notification ring: ${ring.broken}`)
  pauseMs = some ? PAUSE_MS : 0
  if (some) continue
  if (watcher.idle) forEvents.wait(-1)
  else if (ring.enableKicks()) forBuffers.wait(-1)
  ring.disableKicks()
}
forEvents.close()
forBuffers.close()
releaseScratch()
