/**
 * The loop of a relay's far end: requests from the stream, completions from the rings, commands from
 * the main thread. Speaks to the main thread as a queue's worker does (worker-protocol.ts), so the
 * life of the device is that of any other.
 */
import { EmulatedQueue } from '../device/emulated-queue.js'
import type { Handlers } from '../device/handlers.js'
import { errno } from '../errors.js'
import { FuseInHeader, FuseInitIn } from '../fuse/abi.js'
import { decodeInitAnswer } from '../fuse/init.js'
import { Counter, workerCounters } from '../driver/counters.js'
import { HiprioQueue } from '../driver/hiprio-queue.js'
import { RequestTrace } from '../driver/request-trace.js'
import type { WorkerEvent, WorkerPort, WorkerSetup } from '../driver/worker-protocol.js'
import { Epoll, EPOLLERR, EPOLLET, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP, schedYield, signalEventfd } from '../sys/io.js'
import { viewRegion } from '../sys/memory.js'
import { PollBudget } from '../virtio/poll-budget.js'
import { FarQueue } from './far-queue.js'

const TOKEN_OTHER = 0
const TOKEN_WAKE = 1
const TOKEN_SOCKET = 2
/** Requests that are read before the device is told of them. */
const BATCH = 16
/** How long the last replies may take to leave, in milliseconds. */
const LAST_REPLIES_MS = 5000

/** Word of `told`: not 0 when nobody is to be listened to any more, since another far end takes over. */
export const FAR_TOLD_TO_END = 0

export interface FarStream {
  inFd: number
  outFd: number
  /** A near end that comes back has what was not answered carried out again: nothing is failed for it when the device goes. */
  keepsQuiet: boolean
  told: SharedArrayBuffer
}

export class FarWorker {
  readonly #setup: WorkerSetup
  readonly #port: WorkerPort
  readonly #counters: Float64Array
  readonly #queue: FarQueue
  readonly #hiprio: HiprioQueue
  readonly #emulated: EmulatedQueue | undefined
  readonly #emulatedHiprio: EmulatedQueue | undefined
  readonly #handlers: Handlers | undefined
  readonly #trace: RequestTrace
  readonly #attention: Int32Array
  readonly #asleep: Int32Array
  readonly #epoll = new Epoll()
  readonly #poll: PollBudget
  readonly #stream: FarStream
  readonly #told: Int32Array
  /** Told once how the near end's stream ended, '' when it ended well. */
  readonly #streamEnded: (trouble: string) => void
  #waitsForRoom = false
  #attended = 0
  #ended = false
  #draining = false
  #gone = false
  #exit = false

  constructor(setup: WorkerSetup, port: WorkerPort, handlers: Handlers | undefined, stream: FarStream, streamEnded: (trouble: string) => void) {
    this.#setup = setup
    this.#port = port
    this.#handlers = handlers
    this.#stream = stream
    this.#streamEnded = streamEnded
    this.#told = new Int32Array(stream.told)
    this.#counters = workerCounters(setup.counters, 0)
    this.#attention = new Int32Array(setup.attention)
    this.#asleep = new Int32Array(setup.sleepFlags)
    this.#trace = new RequestTrace(setup.traceJson, 0, observed => this.#post({ type: 'observed', observed }))
    this.#poll = new PollBudget(setup.pollUs)
    const region = viewRegion(setup.memoryAddress, setup.plan.lengthBytes)
    const plan = setup.plan.workers[0]!
    const { backend, features } = setup
    this.#hiprio = new HiprioQueue(region, setup.plan, features, this.#counters, () => this.#kickHiprio())
    this.#hiprio.takesInterrupts = backend.kind !== 'vhost-user' || backend.takesInterrupts === true
    this.#queue = new FarQueue(region, plan, features, stream.inFd, stream.outFd, this.#counters, this.#hiprio, setup.init, stream.keepsQuiet, {
      initAnswered: (error, view, at) => {
        const request = this.#queue.lastInitAt + FuseInHeader.SIZE
        this.#post({
          type: 'init', error, answer: error === 0 ? decodeInitAnswer(view, at) : undefined,
          offered: [region.view.getUint32(request + FuseInitIn.flags, true), region.view.getUint32(request + FuseInitIn.flags2, true)],
        })
      },
      destroyed: () => this.#post({ type: 'destroyed' }),
    }, this.#trace.wanted ? this.#trace : null)
    if (handlers && backend.kind === 'emulated') {
      this.#emulated = new EmulatedQueue(region, plan.ring, features, handlers, backend.interrupts, 0, backend.pool, () => this.#post({ type: 'pool-wanted' }))
      this.#emulatedHiprio = new EmulatedQueue(region, setup.plan.hiprio, features, handlers, backend.interrupts, 1, backend.hiprioPool)
    }
    this.#epoll.add(setup.wakeFd, EPOLLIN | EPOLLET, TOKEN_WAKE)
    // read until there is no more
    this.#epoll.add(stream.inFd, EPOLLIN | EPOLLET, TOKEN_OTHER)
    if (backend.kind === 'vhost-user') {
      this.#epoll.add(backend.callFd, EPOLLIN | EPOLLET, TOKEN_OTHER)
      this.#epoll.add(backend.hiprioCallFd, EPOLLIN | EPOLLET, TOKEN_OTHER)
      this.#epoll.add(backend.socketFd, EPOLLRDHUP | EPOLLHUP | EPOLLERR, TOKEN_SOCKET)
      // a kick that came while the ring was disabled is lost, so each ring is kicked once now
      signalEventfd(backend.kickFd)
      signalEventfd(backend.hiprioKickFd)
    }
  }

  #post(event: WorkerEvent): void {
    this.#port.post(event)
  }

  /** Serves until told to exit. Blocks the thread. */
  run(): void {
    this.#post({ type: 'ready' })
    while (!this.#exit) {
      if (this.#pass() > 0 || this.#pollForWork()) continue
      if (this.#fallAsleep()) this.#wait(-1)
      Atomics.store(this.#asleep, 0, 0)
    }
    this.#sendTheRest()
  }

  #pass(): number {
    if (Atomics.load(this.#attention, 0) !== this.#attended) this.#commands()
    let work = this.#completions()
    work += this.#queue.receive(BATCH)
    if (this.#queue.ring.kickNeeded()) this.#kick()
    this.#hiprio.flush()
    this.#queue.send()
    if (this.#queue.ended && !this.#ended) this.#end()
    if (this.#draining && this.#queue.inFlight === 0 && (this.#gone || this.#hiprio.ring.inFlight === 0)) {
      this.#draining = false
      this.#post({ type: 'drained' })
    }
    return work
  }

  #completions(): number {
    this.#emulated?.collect()
    this.#emulatedHiprio?.collect()
    const count = this.#queue.complete() + this.#hiprio.complete()
    const { inFlight } = this.#queue
    this.#counters[Counter.IN_FLIGHT] = inFlight
    if (inFlight > this.#counters[Counter.IN_FLIGHT_MAX]!) this.#counters[Counter.IN_FLIGHT_MAX] = inFlight
    const broken = this.#queue.ring.broken || this.#hiprio.ring.broken || this.#emulated?.broken || this.#emulatedHiprio?.broken || ''
    if (broken !== '' && !this.#gone) this.#deviceGone(`the device broke a ring: ${broken}`)
    return count
  }

  #end(): void {
    this.#ended = true
    this.#epoll.remove(this.#stream.inFd)
    this.#streamEnded(this.#queue.broken)
    this.#post({ type: 'unmounted' })
  }

  #kick(): void {
    const { backend } = this.#setup
    if (backend.kind === 'vhost-user') {
      this.#counters[Counter.KICKS]!++
      signalEventfd(backend.kickFd)
    } else {
      // what was done may be followed by a question
      do {
        this.#emulated!.process()
        this.#queue.complete()
      } while (this.#queue.ring.kickNeeded())
    }
  }

  #kickHiprio(): void {
    const { backend } = this.#setup
    if (backend.kind === 'vhost-user') {
      signalEventfd(backend.hiprioKickFd)
    } else {
      this.#emulatedHiprio!.process()
      this.#emulated!.passOn()
      this.#hiprio.complete()
    }
  }

  #pollForWork(): boolean {
    if (!this.#poll.worthwhile || this.#gone || this.#ended) return false
    this.#poll.start()
    do {
      if (this.#pass() > 0) {
        this.#poll.won()
        return true
      }
      schedYield()
    } while (this.#poll.continues())
    return false
  }

  /** Turns notifications on and looks once more. @returns false when there is something */
  #fallAsleep(): boolean {
    Atomics.store(this.#asleep, 0, 1)
    if (this.#setup.backend.kind === 'vhost-user' && !this.#gone && !(this.#queue.ring.enableCallbacks() && this.#hiprio.ring.enableCallbacks())) return false
    if (this.#emulated?.hasDone() || this.#emulatedHiprio?.hasDone()) return false
    if (this.#exit || Atomics.load(this.#attention, 0) !== this.#attended) return false
    this.#trace.flush()
    this.#armRoom()
    this.#poll.sleeping()
    return true
  }

  /** Listens to room on the stream only while it is wanted: a socket, as sshd gives, tells of all that its reader takes. */
  #armRoom(): void {
    if (this.#queue.blocked === this.#waitsForRoom) return
    this.#waitsForRoom = this.#queue.blocked
    if (this.#waitsForRoom) this.#epoll.add(this.#stream.outFd, EPOLLOUT, TOKEN_OTHER)
    else this.#epoll.remove(this.#stream.outFd)
  }

  #wait(timeoutMs: number): void {
    const ready = this.#epoll.wait(timeoutMs)
    this.#poll.woken()
    for (let i = 0; i < ready; i++) if (this.#epoll.token(i) === TOKEN_SOCKET) this.#deviceGone('the backend closed its socket')
  }

  /** Nothing new goes to the device; what it had is failed, and the session ends. */
  #deviceGone(reason: string): void {
    if (this.#gone) return
    this.#post({ type: 'gone', reason, failed: this.#fail(-errno.EIO) })
  }

  #fail(error: number): number {
    this.#gone = true
    if (this.#setup.backend.kind === 'vhost-user') this.#epoll.remove(this.#setup.backend.socketFd)
    this.#queue.complete()
    this.#hiprio.disconnect()
    return this.#queue.failInFlight(error)
  }

  #commands(): void {
    this.#attended = Atomics.load(this.#attention, 0)
    for (let command = this.#port.take(); command; command = this.#port.take()) {
      switch (command.type) {
        case 'stop-hiprio':
          if (Atomics.load(this.#told, FAR_TOLD_TO_END) !== 0) this.#queue.stopListening()
          this.#hiprio.disconnect()
          break
        case 'drain': this.#draining = true; break
        case 'send-destroy':
          this.#queue.sendDestroy()
          if (this.#queue.ring.kickNeeded()) this.#kick()
          break
        case 'stop': this.#hiprio.disconnect(); break
        case 'fail': this.#post({ type: 'failed', failed: this.#gone ? 0 : this.#fail(command.error) }); break
        case 'interrupt': break
        case 'observe':
          this.#trace.observe(command.observation)
          this.#queue.trace = this.#trace.wanted ? this.#trace : null
          break
        case 'exit': this.#exit = true; break
      }
    }
  }

  /** The near end reads them, if it is still there. */
  #sendTheRest(): void {
    const deadline = performance.now() + LAST_REPLIES_MS
    for (this.#queue.send(); this.#queue.unsentBytes > 0 && performance.now() < deadline; this.#queue.send()) {
      this.#armRoom()
      this.#epoll.wait(100)
    }
  }

  close(): void {
    this.#queue.close()
    this.#emulated?.close()
    this.#emulatedHiprio?.close()
    this.#handlers?.close()
    this.#trace.close()
    this.#epoll.close()
  }
}
