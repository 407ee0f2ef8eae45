/**
 * The loop of one queue worker: takes requests from /dev/fuse, completions from the rings and
 * commands from the main thread; polls for a while when there is nothing to do, then sleeps in
 * epoll. Nothing here happens on a timer.
 */
import { errno } from '../errors.js'
import { EmulatedQueue } from '../device/emulated-queue.js'
import type { Handlers } from '../device/handlers.js'
import { decodeInitAnswer } from '../fuse/init.js'
import { opcodeName } from '../fuse/opcodes.js'
import { CpuLatency } from '../sys/cpu-latency.js'
import { Epoll, EPOLLERR, EPOLLET, EPOLLEXCLUSIVE, EPOLLHUP, EPOLLIN, schedYield } from '../sys/io.js'
import { viewRegion, type Region } from '../sys/memory.js'
import { Counter, workerCounters } from './counters.js'
import { HiprioQueue, type HiprioSink } from './hiprio-queue.js'
import { HiprioRelay, HiprioRelayDrain } from './hiprio-relay.js'
import type { LocalDeviceModule } from './local-device.js'
import { LocalLine } from './local-line.js'
import { MappedState } from './mapped-state.js'
import { PollBudget } from '../virtio/poll-budget.js'
import { Received, RequestQueue } from './request-queue.js'
import { RequestTrace } from './request-trace.js'
import { RingRoom } from './ring-room.js'
import { SessionQueue } from './session-queue.js'
import { SurvivingQueue } from './surviving-queue.js'
import { TOKEN_SOCKET, VhostUserLine } from './vhost-user-line.js'
import type { ReachedBackend, WorkerEvent, WorkerPort, WorkerSetup } from './worker-protocol.js'

/** Beside those of VhostUserLine and LocalLine. */
const TOKEN_FUSE = 0
const TOKEN_WAKE = 2
const NOT_ARMED = -1
/** Requests read before completions are looked at again, so that neither side starves. */
const BATCH = 16
/** Looks at the ring, which are cheap, for each look at /dev/fuse, which is a system call. */
const RING_LOOKS = 16

export class QueueWorker {
  readonly #setup: WorkerSetup
  readonly #port: WorkerPort
  readonly #counters: Float64Array
  readonly #queue: RequestQueue
  /** The same, on a mount that waits for a device that goes away. */
  readonly #session: SessionQueue | undefined
  /** Worker 0 owns hiprio; the others relay to it. */
  readonly #hiprio: HiprioQueue | undefined
  readonly #sink: HiprioSink
  readonly #relays: HiprioRelayDrain[] = []
  readonly #sleepFlags: Int32Array
  readonly #emulated: EmulatedQueue | undefined
  readonly #emulatedHiprio: EmulatedQueue | undefined
  readonly #handlers: Handlers | undefined
  readonly #trace: RequestTrace
  readonly #attention: Int32Array
  #attended = 0
  readonly #epoll = new Epoll()
  readonly #poll: PollBudget
  readonly #cpuLatency: CpuLatency | undefined
  #fuseOpen = true
  /** What epoll listens to on /dev/fuse. */
  #fuseEvents = NOT_ARMED
  #draining = false
  #pausing = false
  /** Kicks of the emulated device that are being carried out, and whether another is due. */
  #kicking = false
  #kickDue = false
  readonly #state: MappedState | undefined
  /** To a device in another process; undefined while there is none. */
  #line: VhostUserLine | undefined
  /** The near part of a device that is farther away, on this thread. */
  #local: LocalLine | undefined
  readonly #localModule: LocalDeviceModule | undefined
  #initialised = false
  /** The device is away, and waited for. */
  #lost = false
  #gone = false
  #exit = false

  /**
   * @param handlers of the emulated device, when the backend is one
   * @param localModule of a local device, likewise
   */
  constructor(setup: WorkerSetup, port: WorkerPort, handlers: Handlers | undefined, localModule?: LocalDeviceModule) {
    this.#setup = setup
    this.#port = port
    this.#handlers = handlers
    this.#localModule = localModule
    this.#counters = workerCounters(setup.counters, setup.index)
    this.#sleepFlags = new Int32Array(setup.sleepFlags)
    this.#attention = new Int32Array(setup.attention)
    this.#trace = new RequestTrace(setup.traceJson, setup.index, observed => this.#post({ type: 'observed', observed }))
    this.#trace.observe(setup.observation)
    this.#poll = new PollBudget(setup.pollUs)
    if (setup.cpuLatencyFd >= 0) this.#cpuLatency = new CpuLatency(setup.cpuLatencyFd)
    const region = viewRegion(setup.memoryAddress, setup.plan.lengthBytes)
    const plan = setup.plan.workers[setup.index]!
    const { backend, features } = setup
    if (setup.index === 0) {
      this.#hiprio = new HiprioQueue(region, setup.plan, features, this.#counters, () => this.#kickHiprio())
      this.#hiprio.takesInterrupts = backend.kind === 'vhost-user' ? backend.takesInterrupts === true : backend.kind !== 'away'
      this.#sink = this.#hiprio
      setup.relays.forEach((relay, i) => this.#relays.push(new HiprioRelayDrain(relay, setup.wakeFds[i + 1]!)))
    } else {
      this.#sink = new HiprioRelay(setup.relays[setup.index - 1]!, setup.sleepFlags, setup.wakeFds[0]!)
    }
    const Queue = setup.stateFd >= 0 ? SurvivingQueue : setup.outlivesDevice ? SessionQueue : RequestQueue
    this.#queue = new Queue(region, plan, features, setup.fuseFd, this.#counters, this.#sink, setup.init, {
      initAnswered: (error, view, at) => this.#initAnswered(error, view, at),
      greeted: (error, view, at) => this.#post({ type: 'greeted', error, answer: error === 0 ? decodeInitAnswer(view, at) : undefined }),
      destroyed: () => {
        this.#trace.flush()
        this.#post({ type: 'destroyed' })
      },
      interrupted: (uniqueLow, uniqueHigh) => { if (setup.wakeFds.length > 1) this.#post({ type: 'interrupted', uniqueLow, uniqueHigh }) },
    }, this.#trace.wanted ? this.#trace : null, new RingRoom(setup.ringRoom, setup.index), setup.requestLimitMs)
    if (handlers && backend.kind === 'emulated') {
      this.#emulated = new EmulatedQueue(region, plan.ring, features, handlers, backend.interrupts, setup.index, backend.pool, () => this.#post({ type: 'pool-wanted' }))
      if (this.#hiprio) this.#emulatedHiprio = new EmulatedQueue(region, setup.plan.hiprio, features, handlers, backend.interrupts, setup.wakeFds.length, backend.hiprioPool)
    }
    this.#epoll.add(setup.wakeFd, EPOLLIN | EPOLLET, TOKEN_WAKE)
    if (this.#queue instanceof SessionQueue) this.#session = this.#queue
    if (setup.stateFd >= 0) {
      this.#state = new MappedState(setup.stateFd)
      this.#initialised = (this.#queue as SurvivingQueue).survive(this.#state)
    }
    if (backend.kind !== 'emulated' && backend.kind !== 'away') this.#connect(backend, region)
    this.#lost = backend.kind === 'away'
    if (this.#lost) this.#hiprio?.disconnect()
  }

  #connect(backend: ReachedBackend, region: Region): void {
    if (backend.kind === 'local') return this.#connectLocal(backend.data, region)
    this.#line = new VhostUserLine(this.#epoll, backend, this.#hiprio !== undefined)
    this.#queue.ring.disableCallbacks()
    this.#hiprio?.ring.disableCallbacks()
  }

  #connectLocal(data: unknown, region: Region): void {
    const { plan, features } = this.#setup
    const device = this.#localModule!.createLocalDevice(data, region, [plan.hiprio, ...plan.workers.map(worker => worker.ring)], features)
    this.#local = new LocalLine(this.#epoll, device, reason => this.#post({ type: 'broke', reason }))
  }

  #leaveLocal(): void {
    this.#local?.leave()
    this.#local = undefined
  }

  /** A round of the local device. @returns how much there was */
  #passLocal(): number {
    const local = this.#local
    if (!local) return 0
    const work = local.pass()
    if (work > 0) this.#completions()
    local.checkSound()
    return work
  }

  #post(event: WorkerEvent): void {
    this.#port.post(event)
  }

  /** Serves until told to exit. Blocks the thread. */
  run(): void {
    this.start()
    while (!this.ended) {
      if (this.pass() > 0 || this.#pollForWork()) continue
      if (this.fallAsleep()) this.wait(this.#queue.wakeMs)
      this.awake()
    }
  }

  /** The steps of `run` follow one by one: a test takes them in one thread, with others between. */
  start(): void {
    if (this.#state && this.#initialised) (this.#queue as SurvivingQueue).takeOver()
    this.#post({ type: 'ready' })
  }

  get ended(): boolean {
    return this.#exit
  }

  /** One round over everything that can bring work. @returns how much there was */
  pass(): number {
    let work = 0
    // a worker that never sleeps is never woken
    if (Atomics.load(this.#attention, 0) !== this.#attended) this.#commands()
    if (this.#local === undefined && (this.#emulated === undefined || this.#emulated.collect() + (this.#emulatedHiprio?.collect() ?? 0) > 0)) work += this.#completions()
    // the next request comes when a caller that was answered runs, which may wait for this CPU
    if (work > 0 && this.#queue.inFlight === 0) schedYield()
    for (const relay of this.#relays) {
      if (!relay.hasSome()) continue
      work += relay.drainTo(this.#hiprio!)
      this.#hiprio!.flush()
    }
    if (this.#fuseOpen) work += this.#requests()
    work += this.#passLocal()
    this.#countInFlight()
    this.#queue.lookAtSignalled()
    // what came back was taken before
    if (this.#setup.requestLimitMs > 0 && !this.#gone && this.#queue.leftMs === 0) this.#deviceLate()
    if (this.#draining && this.#queue.inFlight === 0 && (this.#gone || (this.#hiprio?.ring.inFlight ?? 0) === 0)) {
      this.#draining = false
      this.#post({ type: 'drained' })
    }
    if (this.#pausing && (this.#line === undefined || this.#gone || this.#queue.ring.inFlight + (this.#hiprio?.ring.inFlight ?? 0) === 0)) this.#paused()
    return work
  }

  #countInFlight(): void {
    const { inFlight } = this.#queue
    this.#counters[Counter.IN_FLIGHT] = inFlight
    if (inFlight > this.#counters[Counter.IN_FLIGHT_MAX]!) this.#counters[Counter.IN_FLIGHT_MAX] = inFlight
  }

  #completions(): number {
    const count = this.#queue.complete() + (this.#hiprio === undefined ? 0 : this.#hiprio.complete())
    // what a caller that was killed has left is given back: a RELEASE, FORGETs
    if (this.#queue.ring.kickNeeded()) this.#kick()
    this.#sink.flush()
    const broken = this.#queue.ring.broken || this.#hiprio?.ring.broken || this.#emulated?.broken || this.#emulatedHiprio?.broken || ''
    if (broken !== '' && !this.#gone) this.#deviceGone(`the device broke a ring: ${broken}`)
    return count
  }

  #requests(): number {
    let count = 0
    for (; count < BATCH; count++) {
      const received = this.#queue.receive()
      if (received === Received.ONE) {
        if (this.#queue.ring.kickNeeded()) this.#kick()
        // a backend that ran on this CPU during the kick has answered already
        if (this.#vhostUser && this.#queue.ring.hasUsed()) {
          count++
          break
        }
        continue
      }
      if (received === Received.UNMOUNTED) this.#unmounted()
      else if (received === Received.FULL) this.#counters[Counter.STALLS]!++
      break
    }
    if (count > 0) this.#sink.flush()
    return count
  }

  /** Tells the device that the request ring has something new. */
  #kick(): void {
    if (this.#line) {
      this.#counters[Counter.KICKS]!++
      this.#line.kick()
    } else if (this.#emulated) {
      // an answer may let others go, which waited for it: they follow it, and do not nest in it
      this.#kickDue = true
      if (this.#kicking) return
      this.#kicking = true
      while (this.#kickDue) {
        this.#kickDue = false
        this.#emulated.process()
        this.#completions()
      }
      this.#kicking = false
    }
  }

  #kickHiprio(): void {
    if (this.#line) {
      this.#line.kickHiprio()
    } else if (this.#emulatedHiprio) {
      this.#emulatedHiprio.process()
      this.#emulated!.passOn()
      this.#hiprio!.complete()
    }
  }

  /** Whether other threads of the emulated device have given something back. */
  #deviceHasDone(): boolean {
    return this.#emulated !== undefined && (this.#emulated.hasDone() || this.#emulatedHiprio?.hasDone() === true)
  }

  /** Looks again for a bounded time. @returns whether there is work */
  #pollForWork(): boolean {
    if (!this.#poll.worthwhile || this.#gone || !this.#fuseOpen) return false
    const ring = this.#line ? this.#queue.ring : undefined
    this.#poll.start()
    do {
      // whoever is to bring the work may be waiting for this CPU
      schedYield()
      if (ring !== undefined && this.#queue.inFlight > 0) {
        for (let i = 0; i < RING_LOOKS; i++) if (ring.hasUsed()) return this.#pollWon()
      }
      if (this.#requests() > 0 || this.#deviceHasDone() || this.#passLocal() > 0) return this.#pollWon()
      if (!this.#fuseOpen) return true
    } while (this.#poll.continues())
    this.#counters[Counter.POLLS_LOST]!++
    return false
  }

  #pollWon(): boolean {
    this.#counters[Counter.POLLS_WON]!++
    this.#poll.won()
    this.#cpuLatency?.hold()
    return true
  }

  /**
   * Turns notifications on, and looks once more for what came before that, since no notice of it
   * may come.
   *
   * @returns false when there is something
   */
  fallAsleep(): boolean {
    Atomics.store(this.#sleepFlags, this.#setup.index, 1)
    const quiet = !this.#vhostUser || (this.#queue.ring.enableCallbacks() && (this.#hiprio === undefined || this.#hiprio.ring.enableCallbacks()))
    if (!quiet || this.#relays.some(relay => relay.hasSome()) || this.#deviceHasDone()) return false
    if (this.#local?.fallAsleep() === false) return false
    this.#armFuse()
    this.#trace.flush()
    this.#countInFlight()
    this.#counters[Counter.SLEEPS]!++
    this.#cpuLatency?.release()
    this.#poll.sleeping()
    return true
  }

  /**
   * Sleeps until something happens, and does what the main thread or the end of the device demand.
   *
   * @param timeoutMs −1 for no limit
   * @returns how many things happened
   */
  wait(timeoutMs: number): number {
    const ready = this.#epoll.wait(timeoutMs)
    this.#poll.woken()
    for (let i = 0; i < ready; i++) {
      const token = this.#epoll.token(i)
      if (token === TOKEN_WAKE) this.#commands()
      // not by a read: there may be no room for one
      else if (token === TOKEN_FUSE && (this.#epoll.events(i) & (EPOLLERR | EPOLLHUP)) !== 0) this.#unmounted()
      else if (token === TOKEN_SOCKET) this.#deviceGone('the backend closed its socket')
    }
    return ready
  }

  /** Turns notifications off again. */
  awake(): void {
    Atomics.store(this.#sleepFlags, this.#setup.index, 0)
    if (this.#vhostUser) {
      this.#queue.ring.disableCallbacks()
      this.#hiprio?.ring.disableCallbacks()
    }
    this.#sink.flush()
  }

  /** Whether there is a device in another process, which can be asked for notices. */
  get #vhostUser(): boolean {
    return this.#line !== undefined && !this.#gone
  }

  /**
   * Listens to requests only while one could be taken, else their readiness would never let us sleep;
   * to the end of the connection always.
   */
  #armFuse(): void {
    const wanted = this.#queue.hasRoom ? EPOLLIN : 0
    if (!this.#fuseOpen || wanted === this.#fuseEvents) return
    // one with EPOLLEXCLUSIVE cannot be modified
    this.#disarmFuse()
    this.#epoll.add(this.#setup.fuseFd, wanted | (this.#setup.wakeFds.length > 1 ? EPOLLEXCLUSIVE : 0), TOKEN_FUSE)
    this.#fuseEvents = wanted
  }

  #disarmFuse(): void {
    if (this.#fuseEvents !== NOT_ARMED) this.#epoll.remove(this.#setup.fuseFd)
    this.#fuseEvents = NOT_ARMED
  }

  #unmounted(): void {
    if (!this.#fuseOpen) return
    this.#disarmFuse()
    this.#fuseOpen = false
    this.#post({ type: 'unmounted' })
  }

  #initAnswered(error: number, view: DataView, at: number): void {
    this.#initialised = error === 0
    this.#post({ type: 'init', error, answer: error === 0 ? decodeInitAnswer(view, at) : undefined, offered: this.#queue.offered })
  }

  /** One request that is not answered in time is taken for the end of the device, as by the kernel's own request timeout. */
  #deviceLate(): void {
    this.#deviceGone(`the device did not answer ${opcodeName(this.#queue.lateOpcode)} within ${this.#setup.requestLimitMs / 1000} s`)
  }

  /** virtio_fs_remove, on this thread: nothing new goes to the device, what it had is failed. */
  #deviceGone(reason: string): void {
    if (this.#gone || this.#lost) return
    if (this.#session && this.#setup.outlivesDevice && this.#initialised && this.#fuseOpen) this.#deviceLost(this.#session, reason)
    else this.#post({ type: 'gone', reason, failed: this.#fail(-errno.EIO) })
  }

  /** The device went, and is waited for. */
  #deviceLost(session: SessionQueue, reason: string): void {
    this.#lost = true
    this.#line?.leave()
    this.#line = undefined
    this.#leaveLocal()
    this.#hiprio?.disconnect()
    session.suspend()
    this.#post({ type: 'lost', reason })
  }

  /** The device is back, on other memory. @returns false when nobody is left for whom to go on */
  #resume(session: SessionQueue, memoryAddress: number, backend: ReachedBackend, clockAheadMs: number): boolean {
    if (!this.#lost || this.#gone || !this.#fuseOpen) return false
    const { plan, features } = this.#setup
    const region = viewRegion(memoryAddress, plan.lengthBytes)
    this.#lost = false
    this.#hiprio!.reset(region, plan, features)
    session.clockAheadMs = clockAheadMs
    session.resume(region, features)
    this.#connect(backend, region)
    return true
  }

  #fail(error: number): number {
    this.#gone = true
    // its end would be seen for ever, whenever it comes
    this.#line?.ignoreSocket()
    // what the device answered before it went is still good
    this.#queue.complete()
    this.#leaveLocal()
    this.#queue.connected = false
    this.#hiprio?.disconnect()
    return this.#queue.failInFlight(error)
  }

  #commands(): void {
    this.#attended = Atomics.load(this.#attention, 0)
    for (let command = this.#port.take(); command; command = this.#port.take()) {
      switch (command.type) {
        case 'stop-hiprio': this.#hiprio?.disconnect(); break
        case 'drain': this.#draining = true; break
        case 'send-destroy':
          this.#queue.sendDestroy()
          if (this.#queue.ring.kickNeeded()) this.#kick()
          break
        case 'stop':
          this.#queue.connected = false
          this.#hiprio?.disconnect()
          break
        case 'fail': this.#post({ type: 'failed', failed: this.#gone ? 0 : this.#fail(command.error) }); break
        case 'lose': this.#deviceGone(command.reason); break
        case 'resume': this.#post({ type: 'resumed', taken: this.#resume(this.#session!, command.memoryAddress, command.backend, command.clockAheadMs) }); break
        case 'greet':
          this.#session!.greet()
          if (this.#queue.ring.kickNeeded()) this.#kick()
          break
        case 'go-on':
          this.#session!.goOn()
          if (this.#queue.ring.kickNeeded()) this.#kick()
          break
        case 'interrupt': this.#queue.interrupt(command.uniqueLow, command.uniqueHigh); break
        case 'observe':
          this.#trace.observe(command.observation)
          this.#queue.observe(this.#trace.wanted ? this.#trace : null)
          break
        case 'pause':
          this.#pausing = this.#queue.paused = true
          if (this.#hiprio) this.#hiprio.paused = true
          break
        case 'unpause': this.#unpause(command.socketFd); break
        case 'exit': this.#exit = true; break
      }
    }
  }

  /** The end of the old backend's socket is none of the device from here on. */
  #paused(): void {
    this.#pausing = false
    this.#line?.ignoreSocket()
    this.#post({ type: 'paused' })
  }

  #unpause(socketFd: number): void {
    this.#pausing = this.#queue.paused = false
    if (this.#hiprio) this.#hiprio.paused = false
    if (this.#line === undefined || this.#gone) return
    this.#line.moveTo(socketFd)
    this.#completions()
    this.#sink.flush()
  }

  /** Frees what this thread made, in reverse order. */
  close(): void {
    this.#leaveLocal()
    this.#queue.close()
    this.#emulated?.close()
    this.#emulatedHiprio?.close()
    this.#handlers?.close()
    this.#trace.close()
    this.#state?.close()
    this.#epoll.close()
  }
}
