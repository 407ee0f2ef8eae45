/**
 * A hostile vhost-user backend: sessions of the frontend with a peer on a real socketpair, whose
 * answers are cut, stretched, changed in any field and sent with descriptors that nobody asked for;
 * and the channel for the backend's own requests, where it may say anything at any time.
 *
 * A session ends well or with an error of the three classes; never with anything else, never late,
 * and no descriptor stays.
 */
import { closeSync, openSync } from 'node:fs'
import { PeerGoneError, ProtocolError, UsageError } from '../../lib/errors.js'
import { close, pollAsync, POLLIN } from '../../lib/sys/io.js'
import { bind, check, result } from '../../lib/sys/libc.js'
import { recvmsg, sendmsg } from '../../lib/sys/socket-message.js'
import { BackendRequests } from '../../lib/vhost-user/backend-requests.js'
import { VhostUserConnection } from '../../lib/vhost-user/connection.js'
import { WANTED_FEATURES, WANTED_PROTOCOL_FEATURES } from '../../lib/vhost-user/features.js'
import { VhostUserFrontend } from '../../lib/vhost-user/frontend.js'
import { parseFsConfig } from '../../lib/vhost-user/fs-config.js'
import { VhostUserBackendRequest, VhostUserRequest } from '../../lib/vhost-user/message.js'
import { SeededRandom } from '../support/seeded-random.js'
import { encode, VhostUserBackend, type Answer, type Fault, type Outcome } from '../support/vhost-user-backend.js'
import { SessionResources, sessionSteps } from '../support/vhost-user-session.js'

const c_dup = bind('int dup(int)')
const TIMEOUT_MS = 300
/** Beyond the deadline of a step, on a machine that does other things. */
const LATE_MS = 10_000
const WORDS = [0, 1, 2, 4, 5, 8, 12, 16, 40, 0x7f, 0xff, 0x100, 0x1000, 0x1001, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff]
const nothing = openSync('/dev/null', 'r')

export interface BackendReport {
  /** Messages that no good backend sends. */
  mutated: number
  messages: number
  sessions: number
  /** Mutated answers that were as good as any other: a smaller set of features, say. */
  accepted: number
  refused: number
}

/** What a hostile backend makes of the bytes of an answer. */
function mutate(random: SeededRandom, answer: Answer | undefined): Outcome {
  if (answer === undefined) return { raw: noise(random, random.between(1, 40)), then: 'silence' }
  const bytes = encode(answer)
  const fds = [...answer.fds]
  for (let changes = random.between(1, 3); changes > 0; changes--) {
    switch (random.below(8)) {
      case 0: case 1: bytes[random.below(bytes.length)]! ^= 1 << random.below(8); break
      case 2: case 3: bytes.writeUInt32LE(WORDS[random.below(WORDS.length)]!, 4 * random.below(bytes.length >> 2)); break
      case 4: bytes[random.below(bytes.length)] = random.below(256); break
      case 5: fds.push(...Array<number>(random.between(1, 35)).fill(nothing)); break
      case 6: return { raw: bytes.subarray(0, random.below(bytes.length)), fds, then: random.below(30) === 0 ? 'silence' : 'close' }
      case 7: return { raw: Buffer.concat([bytes, noise(random, random.between(1, 4200))]), fds, then: 'silence' }
    }
  }
  return { raw: bytes, fds, then: 'silence' }
}

function noise(random: SeededRandom, length: number): Buffer {
  return Buffer.from(Array.from({ length }, () => random.below(256)))
}

/** One session, in which each answer is mutated with a likelihood that the seed gives. @throws Error for a finding */
export async function hostileSession(seed: number, report: BackendReport): Promise<void> {
  const random = new SeededRandom(seed)
  const oneIn = [1, 2, 4, 8, 16, 32][random.below(6)]!
  let mutated = 0
  const fault: Fault = answer => {
    report.messages++
    if (random.below(oneIn) > 0) return answer
    if (answer === undefined && random.below(8) > 0) return undefined
    mutated++
    return mutate(random, answer)
  }
  const faults = Object.fromEntries(Object.values(VhostUserRequest).map(request => [request, fault]))
  const { backend, fd } = VhostUserBackend.pair({ faults })
  const resources = new SessionResources()
  const frontend = new VhostUserFrontend(new VhostUserConnection(fd, 'hostile', { timeoutMs: TIMEOUT_MS }))
  try {
    for (const [i, step] of sessionSteps(frontend, resources).entries()) {
      const before = mutated
      const start = performance.now()
      try {
        checkResult(i, await step(), frontend)
        if (mutated > before) report.accepted++
      } catch (error) {
        if (!(error instanceof ProtocolError || error instanceof PeerGoneError || error instanceof UsageError)) throw error
        if (mutated === 0) throw new Error(`step ${i}: a good backend was refused: ${error.message}`)
        report.refused++
      }
      if (performance.now() - start > TIMEOUT_MS + LATE_MS) throw new Error(`step ${i} was late: ${Math.round(performance.now() - start)} ms`)
      if (!frontend.connection.usable) break
    }
  } finally {
    frontend.close()
    await backend.done
    resources.free()
  }
  report.mutated += mutated
  report.sessions++
}

/** What came of a step is something that the driver can go on with. */
function checkResult(step: number, value: unknown, frontend: VhostUserFrontend): void {
  const negotiated = frontend.negotiated!
  if (negotiated.features & ~WANTED_FEATURES || negotiated.protocolFeatures & ~WANTED_PROTOCOL_FEATURES) throw new Error('features that nobody wanted are negotiated')
  if (negotiated.queueNum < 0 || negotiated.queueNum > 32768) throw new Error(`${negotiated.queueNum} queues`)
  if (value instanceof Uint8Array) checkConfig(value)
  // setDeviceStateFd, in the order of sessionSteps
  if (step === 8 && typeof value === 'number') close(value)
}

/** The configuration space, of any bytes. */
export function checkConfig(bytes: Uint8Array): void {
  let config
  try {
    config = parseFsConfig(bytes)
  } catch (error) {
    if (error instanceof UsageError) return
    throw error
  }
  const { tag, numRequestQueues, notifyBufSize } = config
  if (tag === '' || Buffer.byteLength(tag) > 36 || /[\n\0]/.test(tag)) throw new Error(`the tag is ${JSON.stringify(tag)}`)
  if (numRequestQueues < 1) throw new Error(`${numRequestQueues} request queues`)
  if (notifyBufSize !== undefined && (notifyBufSize < 64 || notifyBufSize > 65536)) throw new Error(`notify_buf_size ${notifyBufSize}`)
}

/** Random configuration spaces. */
export function hostileConfigs(seed: number, count: number): void {
  const random = new SeededRandom(seed)
  const bytes = Buffer.alloc(44)
  for (let i = 0; i < count; i++) {
    if (i % 8 === 0) bytes.fill(0).write('a tag').toString()
    for (let n = random.between(1, 6); n > 0; n--) bytes[random.below(44)] = [0, 1, 10, 0x41, 0x80, 0xc3, 0xff, random.below(256)][random.below(8)]!
    checkConfig(bytes.subarray(0, [44, 44, 40, random.below(45)][random.below(4)]))
  }
}

const HEADER = 12
const VERSION_1 = 1

/**
 * The channel for the backend's requests, with a stream of messages cut anywhere. What of it may
 * be heard is found by a reading of the stream that is independent of the code under test.
 */
export async function hostileChannel(seed: number, count: number, report: BackendReport): Promise<void> {
  const random = new SeededRandom(seed)
  let theirs = -1
  let heard = 0
  let ended: Error | undefined
  let end = (): void => {}
  const over = new Promise<void>(resolve => { end = resolve })
  const frontend = { setBackendRequestFd: async (fd: number) => { theirs = check(result(c_dup(fd)), 'dup') } } as unknown as VhostUserFrontend
  const channel = await BackendRequests.open(frontend, { configChanged: () => { heard++ }, ended: error => { ended = error; end() } })
  try {
    const messages: Buffer[] = []
    for (let i = 0; i < count; i++) {
      const message = Buffer.alloc(HEADER + (random.below(3) === 0 ? random.below(64) : 0))
      message.writeUInt32LE(random.below(3) === 0 ? random.below(14) : VhostUserBackendRequest.CONFIG_CHANGE_MSG, 0)
      message.writeUInt32LE(VERSION_1 | (random.below(3) === 0 ? 8 : 0), 4)
      message.writeUInt32LE(message.length - HEADER, 8)
      if (random.below(6) === 0) message.writeUInt32LE(WORDS[random.below(WORDS.length)]!, 4 * random.below(3))
      messages.push(message)
    }
    report.messages += count
    report.mutated += count
    report.sessions++
    const stream = Buffer.concat(messages)
    const expected = readStream(stream)
    for (let at = 0; at < stream.length && ended === undefined;) {
      const part = stream.subarray(at, at + random.between(1, 4000))
      const sent = sendmsg(theirs, part, random.below(8) === 0 ? [nothing] : [])
      if (sent > 0) at += sent
      else if (sent !== -11) break
      else await pollAsync(theirs, 4, 1000)
      await drain(theirs)
    }
    close(theirs)
    theirs = -1
    await over
    const protocol = ended instanceof ProtocolError
    if (heard !== expected.heard || protocol !== expected.wrong) {
      throw new Error(`the channel heard ${heard} changes and ended with ${String(ended)}, expected ${expected.heard} and ${expected.wrong ? 'a ProtocolError' : 'the end of the stream'}`)
    }
  } finally {
    if (theirs >= 0) close(theirs)
    await channel.close()
  }
}

/** What a careful reader makes of the stream: how many changes before the first message that breaks a rule, if any. */
function readStream(stream: Buffer): { heard: number, wrong: boolean } {
  let heard = 0
  for (let at = 0; at + HEADER <= stream.length;) {
    const [request, flags, size] = [stream.readUInt32LE(at), stream.readUInt32LE(at + 4), stream.readUInt32LE(at + 8)]
    const change = request === VhostUserBackendRequest.CONFIG_CHANGE_MSG
    if ((flags & 3) !== 1 || (flags & 4) !== 0 || flags > 15 || size > 4096 || (change && size > 0)) return { heard, wrong: true }
    at += HEADER + size
    if (at > stream.length) break
    if (change) heard++
  }
  return { heard, wrong: false }
}

const sink = new Uint8Array(4096)
async function drain(fd: number): Promise<void> {
  if (await pollAsync(fd, POLLIN, 0) <= 0) return
  const fds: number[] = []
  while (recvmsg(fd, sink, fds) > 0);
}

/** Frees what the module holds. */
export function endHostileBackend(): void {
  closeSync(nothing)
}
