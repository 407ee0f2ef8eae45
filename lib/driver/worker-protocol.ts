/** What the main thread and the queue workers say to each other. Control only: no request passes here. */
import type { InitAnswer, InitPolicy } from '../fuse/init.js'
import type { PoolQueues } from '../device/emulated-queue.js'
import type { RingFeatures } from '../virtio/driver-ring.js'
import type { Observation, Observed } from './observation.js'
import type { MemoryPlan } from './memory-plan.js'

/** How a worker reaches the device behind its rings. */
export type WorkerBackend =
  /**
   * Another process: eventfds to notify each other, and its socket, whose end is the device's. It gets
   * INTERRUPTs only if it is known to bear them.
   */
  | { kind: 'vhost-user', hiprioKickFd: number, hiprioCallFd: number, kickFd: number, callFd: number, socketFd: number, takesInterrupts?: boolean }
  /** Farther away, with its near part on the worker's own thread: `module` is a LocalDeviceModule. */
  | { kind: 'local', module: string, data: unknown }
  /** On the worker's own thread, with a pool beside it: `module` exports `createHandlers(data)`. */
  | { kind: 'emulated', module: string, data: unknown, windowFd: number, pool: PoolQueues, hiprioPool?: PoolQueues, interrupts: SharedArrayBuffer | undefined }

/** One that may go and come back. */
export type ReachedBackend = Exclude<WorkerBackend, { kind: 'emulated' }>

/** Everything a worker starts with. Descriptors stay the main thread's, except `fuseFd`'s reads and writes. */
export interface WorkerSetup {
  index: number
  fuseFd: number
  /** What to abort when the worker fails: nobody would answer what it holds. */
  connection: number
  mountpoint: string
  /** Eventfd that makes the worker look at its messages. */
  wakeFd: number
  /** Wake-up eventfds of all workers, by index. */
  wakeFds: number[]
  memoryAddress: number
  plan: MemoryPlan
  features: RingFeatures
  /** `away`: it is waited for, and comes by `resume`. */
  backend: WorkerBackend | { kind: 'away' }
  init: InitPolicy
  /** Longest time to poll before sleeping, in microseconds; 0 never polls. */
  pollUs: number
  /** Of /dev/cpu_dma_latency, to keep CPUs awake while polling pays; −1 for none. */
  cpuLatencyFd: number
  /** A device that goes away is waited for, and what it had is kept for it. */
  outlivesDevice: boolean
  /** Memory of a supervisor, in which the worker keeps what its successor needs; −1 for none. */
  stateFd: number
  /** Longest time that the device may have a request, in milliseconds; 0 for no limit. */
  requestLimitMs: number
  counters: SharedArrayBuffer
  /** One relay per worker that does not own hiprio, by index − 1. */
  relays: SharedArrayBuffer[]
  /** By worker: 1 while it may be asleep, and has to be woken. */
  sleepFlags: SharedArrayBuffer
  /** Of all workers (RingRoom). */
  ringRoom: SharedArrayBuffer
  traceJson: string | undefined
  /** What is watched from the beginning. */
  observation: Observation
  /** Counts the commands that were sent. */
  attention: SharedArrayBuffer
}

/** The worker's end of its messages. */
export interface WorkerPort {
  post(event: WorkerEvent): void
  /** The next command, or undefined. */
  take(): WorkerCommand | undefined
}

export type WorkerCommand =
  /** kill_sb step 1: stop hiprio and drop what is parked. */
  | { type: 'stop-hiprio' }
  /** Answer `drained` once nothing is in flight. */
  | { type: 'drain' }
  | { type: 'send-destroy' }
  /** Stop the queues: later requests get ENOTCONN. */
  | { type: 'stop' }
  /** The device is gone: stop, and fail what is in flight with this negative errno. */
  | { type: 'fail', error: number }
  /** The device does not do what it has to: it counts as gone, as if it had closed its socket. */
  | { type: 'lose', reason: string }
  /** The device is back: its new memory, of the same layout, how to reach it, and its clock. Answered by `resumed`, then by `greeted` or `lost`. */
  | { type: 'resume', memoryAddress: number, backend: ReachedBackend, clockAheadMs: number }
  /** The device is here, and has not been greeted: the mount is one that another process had. Answered by `greeted`. */
  | { type: 'greet' }
  /** It is as the old one was: send it what waits. */
  | { type: 'go-on' }
  /** The caller of a request that this queue may have was interrupted. */
  | { type: 'interrupt', uniqueLow: number, uniqueHigh: number }
  /** What the main thread wants to know of requests from now on. */
  | { type: 'observe', observation: Observation }
  /** Put nothing on the rings any more, and answer `paused` once the device has nothing: its backend is replaced. */
  | { type: 'pause' }
  /** Go on, with the backend behind this socket. */
  | { type: 'unpause', socketFd: number }
  /** Free everything and end the thread. */
  | { type: 'exit' }

export type WorkerEvent =
  | { type: 'ready' }
  | { type: 'init', error: number, answer: InitAnswer | undefined, offered: readonly [number, number] }
  /** read() on /dev/fuse says ENODEV, or the connection was aborted. */
  | { type: 'unmounted' }
  | { type: 'drained' }
  | { type: 'paused' }
  | { type: 'destroyed' }
  /** What is watched has come. */
  | { type: 'observed', observed: Observed }
  /** Another worker may have the interrupted request. */
  | { type: 'interrupted', uniqueLow: number, uniqueHigh: number }
  /** A request was handed to the pool of the emulated device. */
  | { type: 'pool-wanted' }
  /** A local device says that nothing can come any more; it is asked for nothing until it is lost or failed. */
  | { type: 'broke', reason: string }
  /** The backend closed its socket, or broke a ring; its requests were failed. */
  | { type: 'gone', reason: string, failed: number }
  | { type: 'failed', failed: number }
  /** The same, but it is waited for: nothing was failed, and nothing of the device is used any more. */
  | { type: 'lost', reason: string }
  /** The new memory is used from now on, and the old one not; unless nobody is left for whom to go on. */
  | { type: 'resumed', taken: boolean }
  /** The device that is back has answered INIT. */
  | { type: 'greeted', error: number, answer: InitAnswer | undefined }
  /** Made by the main thread: the worker ended with an exception. */
  | { type: 'crashed', reason: string }
  | { type: 'exited' }
