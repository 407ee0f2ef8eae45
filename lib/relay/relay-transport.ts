/**
 * A device behind a stream: the rings are served in this process, the requests executed at the far end.
 * On a mount the near end runs on the queue worker's thread. For a driver without workers it has a
 * thread of its own, and is like a device in another process.
 */
import { Worker } from 'node:worker_threads'
import { threadsEnd } from '../device/threads-stuck.js'
import { OtherDeviceError, type DeviceInfo, type DeviceMemory, type Transport } from '../driver/transport.js'
import type { WorkerBackend } from '../driver/worker-protocol.js'
import { errorLine, PeerGoneError, ProtocolError, UsageError } from '../errors.js'
import { tellAtExit } from '../sys/at-exit.js'
import { dup } from '../sys/file.js'
import { close, createEventfd, signalEventfd } from '../sys/io.js'
import { check } from '../sys/libc.js'
import { shutdown, socketpair } from '../sys/socket.js'
import { threadArguments } from '../sys/thread-options.js'
import { receiveHello, sendHello, StreamEndedError } from './handshake.js'
import { checkFarText, type RelayLimits } from './hello.js'
import type { NearStream } from './near-device.js'
import { NEAR_ENDS, type NearMessage, type NearSetup } from './near-protocol.js'
import { RelayCommand } from './relay-command.js'
import type { RelaySession } from './relay-session.js'

const NEAR_DEVICE = new URL('./near-device.js', import.meta.url).href
const FEATURES = { indirectDesc: true, eventIdx: true }
const FEATURE_NAMES = ['VERSION_1', 'RING_INDIRECT_DESC', 'RING_EVENT_IDX']
/** How long a command that closes its output may take to end, so that the message can say how it did, in milliseconds. */
const OBITUARY_MS = 300
const END_TIMEOUT_MS = 5000
/** What the near end can hold is no limit: it reads replies to where they belong. */
const OWN_LIMITS: RelayLimits = { requests: 65536, large: 65536 }

export interface RelayOptions {
  /** The command and its arguments. */
  argv: readonly string[]
  tag: string
  /** For the far end: options as for `-o`. */
  farOptions: string[]
  /** Deadline of the far end's hello, in milliseconds. */
  timeoutMs: number
  /** Longest time to poll before sleeping, in microseconds. */
  pollUs: number
  /** Whether names may be looked up by listing directories: not where the device decides for each caller what exists. */
  lookAhead: boolean
  /** The session that this link is to go on with, for one that outlives its links. */
  session?: RelaySession | undefined
  /** Ends the waiting for the far end. */
  signal?: AbortSignal | undefined
}

export class RelayTransport implements Transport {
  readonly info: DeviceInfo
  readonly notices: readonly string[]
  readonly clockAheadMs: number
  onFailure: ((reason: string) => void) | undefined
  readonly #command: RelayCommand
  readonly #limits: RelayLimits
  readonly #pollUs: number
  readonly #lookAhead: boolean
  readonly #state = new SharedArrayBuffer(4)
  readonly #fds: number[] = []
  #theirEnd = -1
  #wakeFd = -1
  #thread: Worker | undefined
  #exited: Promise<void> = Promise.resolve()
  #ending = false
  #endedBadly = false

  private constructor(command: RelayCommand, limits: RelayLimits, options: RelayOptions, notices: readonly string[], clockAheadMs: number) {
    this.#command = command
    this.#limits = limits
    this.#pollUs = options.pollUs
    this.#lookAhead = options.lookAhead
    this.clockAheadMs = clockAheadMs
    this.notices = notices.map(notice => `far end: ${notice}`)
    this.info = {
      tag: options.tag, ownTag: false, requestQueues: 1, features: FEATURES,
      featureNames: FEATURE_NAMES, offeredFeatureNames: FEATURE_NAMES, protocolFeatureNames: [], offeredProtocolFeatureNames: [],
    }
  }

  /**
   * Starts the command and greets the far end.
   *
   * @throws OtherDeviceError when the session cannot go on there; UsageError when the command cannot be started, or the far end has no such source; ProtocolError when what
   * answers is no relay, or of another version; PeerGoneError when it ends, or says nothing in time
   */
  static async connect(options: RelayOptions): Promise<RelayTransport> {
    const command = await RelayCommand.start(options.argv, options.session?.directory)
    try {
      const deadline = performance.now() + options.timeoutMs
      const { limits, text } = await greet(command, options, deadline)
      const { error, code, notices, process, nowMs } = checkFarText(text)
      if (error !== undefined && code === 'ESTALE' && options.session?.before !== undefined) throw new OtherDeviceError(`the far end cannot go on with the session: ${error}`)
      if (error !== undefined) throw code === undefined ? new PeerGoneError(`far end: ${error}`, 'ECONNREFUSED') : new UsageError(`far end: ${error}`, code)
      if (options.session) {
        if (process === undefined) throw new ProtocolError('hello of the far end', 'process', 'nothing', 'the identity of a process')
        // from here on it may have requests of ours
        options.session.before = process
      }
      // its clock was read before this arrived: what it stamped after a moment here never looks older than that
      return new RelayTransport(command, limits, options, notices ?? [], nowMs === undefined ? 0 : nowMs - Date.now())
    } catch (error) {
      await command.end(options.signal?.aborted)
      throw error
    }
  }

  set onSaid(told: ((line: string) => void) | undefined) {
    this.#command.onSaid = told && (line => told(`${this.#command.name}: ${line}`))
  }

  async start({ address, plan, callFd, workers }: DeviceMemory): Promise<WorkerBackend[]> {
    const stream: NearStream = { inFd: this.#command.inFd, outFd: this.#command.outFd, limits: this.#limits, lookAhead: this.#lookAhead }
    if (workers) return [{ kind: 'local', module: NEAR_DEVICE, data: stream }]
    const layouts = [plan.hiprio, ...plan.workers.map(worker => worker.ring)]
    const own = (fd: number): number => {
      this.#fds.push(fd)
      return fd
    }
    const kickFd = own(createEventfd())
    const callFds = layouts.map(() => own(callFd === undefined ? createEventfd() : check(dup(callFd), 'dup')))
    this.#wakeFd = own(createEventfd())
    const [socketFd, theirEnd] = socketpair()
    own(socketFd)
    this.#theirEnd = own(theirEnd)
    const workerData: NearSetup = {
      ...stream, memoryAddress: address, memoryBytes: plan.lengthBytes,
      layouts, features: FEATURES, kickFd, callFds, wakeFd: this.#wakeFd, state: this.#state, pollUs: this.#pollUs,
    }
    const thread = this.#thread = new Worker(new URL('./near-thread.js', import.meta.url), { workerData, execArgv: threadArguments(), name: 'virtiofs-relay' })
    this.#exited = new Promise(resolve => thread.once('exit', () => resolve()))
    void this.#exited.then(tellAtExit(() => this.#tellToEnd()))
    await new Promise<void>((resolve, reject) => { thread.once('message', () => resolve()).once('error', reject) })
    thread.on('message', (message: NearMessage) => { if (message.type === 'gone') void this.#gone(message.reason) })
    thread.on('error', error => this.#failed(`the relay's thread failed: ${errorLine(error)}`))
    return plan.workers.map((_, i) => ({
      kind: 'vhost-user', socketFd, hiprioKickFd: kickFd, hiprioCallFd: callFds[0]!, kickFd, callFd: callFds[i + 1]!, takesInterrupts: true,
    }))
  }

  async #gone(reason: string): Promise<void> {
    this.#failed(await this.explain(reason))
  }

  async explain(reason: string): Promise<string> {
    const obituary = await this.#command.obituary(OBITUARY_MS)
    return obituary === undefined ? reason : `${reason}: ${obituary}`
  }

  #failed(reason: string): void {
    if (this.#ending) return
    this.onFailure?.(reason)
    // for a driver that only listens there
    shutdown(this.#theirEnd)
  }

  #tellToEnd(): void {
    Atomics.store(new Int32Array(this.#state), NEAR_ENDS, 1)
    signalEventfd(this.#wakeFd)
  }

  async stop(gone = false): Promise<void> {
    this.#ending = true
    this.#endedBadly ||= gone
    if (!this.#thread) return
    this.#tellToEnd()
    await threadsEnd([this.#thread], this.#exited, END_TIMEOUT_MS)
    this.#thread = undefined
  }

  async close(): Promise<void> {
    await this.stop()
    await this.#command.end(this.#endedBadly)
    for (const fd of this.#fds.splice(0)) close(fd)
  }
}

async function greet(command: RelayCommand, { farOptions, timeoutMs, session, signal }: RelayOptions, deadline: number): ReturnType<typeof receiveHello> {
  try {
    await sendHello(command.outFd, { limits: OWN_LIMITS, text: { options: farOptions, ...session?.text } }, deadline, signal).catch(error => {
      // why nobody reads is told by the end of what it says
      if (!(error instanceof StreamEndedError)) throw error
    })
    return await receiveHello(command.inFd, 'far', deadline, signal)
  } catch (error) {
    if (error instanceof StreamEndedError) throw new PeerGoneError(await command.obituary(OBITUARY_MS) ?? `${command.name}: ${error.message}`)
    if (error instanceof PeerGoneError) throw new PeerGoneError(`${command.name}: no virtiofs-bridge answers within ${timeoutMs / 1000} s`, 'ETIMEDOUT')
    throw error
  }
}
