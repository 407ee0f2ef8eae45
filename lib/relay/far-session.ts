/**
 * A session of a relay's far end: greets the near end, brings the device up, serves until the near
 * end's stream ends, and ends in the order of any unmount.
 */
import { Worker } from 'node:worker_threads'
import { errorLine, PeerGoneError, UsageError } from '../errors.js'
import type { Transport } from '../driver/transport.js'
import { VirtioFs } from '../driver/virtio-fs.js'
import { WorkerHandle } from '../driver/worker-handle.js'
import { setNonBlocking } from '../sys/io.js'
import { check } from '../sys/libc.js'
import { endPredecessor, FarDoor } from './far-door.js'
import { ownIdentity, whyOutOfSight } from './far-identity.js'
import { FAR_TOLD_TO_END, type FarStream } from './far-worker.js'
import { receiveHello, sendHello, StreamEndedError } from './handshake.js'
import { checkNearText, type FarText, type NearText, type RelayLimits } from './hello.js'

/** Ring entries, and large buffers: what the near end may have in flight, but for what is kept back for the end of the session. */
const QUEUE_SIZE = 256
const LARGE_BUFFERS = 64
const KEPT_BACK = 8
const CHAIN_LENGTH = 4
/** What the near end may take for its INIT, in milliseconds: it mounts meanwhile. */
const INIT_TIMEOUT_MS = 120_000

export interface FarOptions {
  inFd: number
  outFd: number
  /** Deadline of the near end's hello, and of each step of the end, in milliseconds. */
  timeoutMs: number
  pollUs: number
  traceJson: string | undefined
  /**
   * Reaches the device.
   * @param nearOptions what the near end asks for, as for `-o`
   */
  open: (nearOptions: string[]) => Promise<Transport>
}

/**
 * Serves one session.
 *
 * @throws UsageError, ProtocolError, PeerGoneError, SyscallError: one line each. What concerns the
 * source has also been told to the near end
 */
export async function serveFarEnd({ inFd, outFd, timeoutMs, pollUs, traceJson, open }: FarOptions): Promise<void> {
  for (const [fd, name] of [[inFd, 'standard input'], [outFd, 'standard output']] as const) check(setNonBlocking(fd), 'fcntl', name)
  const near = await receiveHello(inFd, 'near', performance.now() + timeoutMs)
  const tell = (limits: RelayLimits, text: FarText): Promise<void> => sendHello(outFd, { limits, text }, performance.now() + timeoutMs)
  const told = new Int32Array(new SharedArrayBuffer(4))
  let ask = (): void => {}
  let door: FarDoor | undefined
  let transport
  try {
    const { session, before, options } = checkNearText(near.text)
    if (session !== undefined) {
      door = new FarDoor(session, () => {
        Atomics.store(told, FAR_TOLD_TO_END, 1)
        ask()
      })
      await takeOver(session, before, door, timeoutMs)
    }
    transport = await open(options)
  } catch (error) {
    door?.close()
    const code = error instanceof UsageError ? { code: error.code } : {}
    await tell({ requests: 1, large: 2 }, { error: errorLine(error), ...code }).catch(() => {})
    throw new ToldError(error)
  }
  const { info, notices } = transport
  const workerData: FarStream = { inFd, outFd, keepsQuiet: door !== undefined, told: told.buffer as SharedArrayBuffer }
  const worker = new WorkerHandle(0, () => new Worker(new URL('./far-thread.js', import.meta.url), { workerData, name: 'virtiofs-far' }))
  let trouble = ''
  worker.on('event', event => { if ((event as { type: string }).type === 'stream-ended') trouble = (event as unknown as { trouble: string }).trouble })
  const fs = await VirtioFs.create(transport, { queues: 1, queueSize: QUEUE_SIZE, pollUs, timeoutMs, traceJson, largeBuffers: LARGE_BUFFERS, initTimeoutMs: INIT_TIMEOUT_MS }, worker)
  // a device that goes ends the session: the near end sees the end of the stream
  fs.on('gone', () => fs.abandon())
  ask = () => fs.abandon()
  const unmounted = fs.untilUnmounted()
  const requests = Math.floor(QUEUE_SIZE / (info.features.indirectDesc ? 1 : CHAIN_LENGTH)) - KEPT_BACK
  try {
    await tell({ requests, large: LARGE_BUFFERS - KEPT_BACK }, {
      tag: info.tag, features: info.featureNames, notices: [...notices ?? []], nowMs: Date.now(), ...door && { process: ownIdentity(door.name) },
    })
    if (Atomics.load(told, FAR_TOLD_TO_END) !== 0) ask()
    await fs.start({ fuseFds: [-1], connection: -1, mountpoint: '' }, { defaultPermissions: true, passthrough: false })
    await unmounted
  } catch (error) {
    // a near end that goes before it has mounted wanted to know no more
    if (fs.gone !== '' || !(fs.unmounted || error instanceof StreamEndedError)) throw error
  } finally {
    await fs.killSb()
    door?.close()
  }
  if (fs.gone !== '') throw new PeerGoneError(fs.gone)
  if (trouble !== '') throw new PeerGoneError(trouble)
}

/**
 * Waits until the far end of the link before works on nothing any more: what it carries out later
 * would undo what was acknowledged here.
 *
 * @throws UsageError ESTALE when that cannot be known here; PeerGoneError when it has not ended in time
 */
async function takeOver(session: string, before: NearText['before'], door: FarDoor, timeoutMs: number): Promise<void> {
  if (before === undefined) return
  const trouble = whyOutOfSight(before, ownIdentity(door.name))
  if (trouble !== '') throw new UsageError(trouble, 'ESTALE')
  // the near end waits as long as we do, and began earlier
  await endPredecessor(before, session, timeoutMs / 2)
}

/** An error that the near end has been told. */
export class ToldError extends Error {
  override readonly cause: unknown

  constructor(cause: unknown) {
    super(errorLine(cause))
    this.cause = cause
  }
}
