/** What the main thread and the notifier thread say to each other. */
import type { RingFeatures } from '../virtio/driver-ring.js'
import type { MemoryPlan } from './memory-plan.js'
import type { NotificationCounts } from './notification-queue.js'

/** How driver and device reach each other about the notification queue. */
export interface NotificationFds {
  /** Eventfd: there are buffers for the device. */
  kickFd: number
  /** Eventfd: there is something for the driver. */
  callFd: number
}

/** All descriptors stay the main thread's. */
export interface NotifierSetup extends NotificationFds {
  /** Of the mounted connection; nothing is read from it. */
  fuseFd: number
  /** Eventfd that makes the thread look at its messages. */
  wakeFd: number
  memoryAddress: number
  plan: MemoryPlan
  features: RingFeatures
}

export type NotifierCommand =
  /** Nothing more goes to the kernel; answer `stopped`. */
  | { type: 'stop' }
  /** End the thread. */
  | { type: 'exit' }

export type NotifierEvent =
  | { type: 'ready' }
  | { type: 'stopped', counts: NotificationCounts }
  /** The device broke the ring, or the thread failed: nobody hears of changes any more. */
  | { type: 'failed', reason: string }
