/**
 * Every message of a session, answered with one thing wrong. Each case must end in an error of
 * the right class that names the message and the field, with the connection unusable (or, after a
 * refusal, usable), within the deadline, with no descriptor left.
 */
import t, { type Test } from 'tap'
import { PeerGoneError, ProtocolError } from '../../lib/errors.js'
import { VhostUserConnection } from '../../lib/vhost-user/connection.js'
import { bits, Feature } from '../../lib/vhost-user/features.js'
import { VhostUserFrontend } from '../../lib/vhost-user/frontend.js'
import { requestName, VhostUserRequest as R } from '../../lib/vhost-user/message.js'
import { encode, VhostUserBackend, type Answer, type BackendOptions, type Fault, type Outcome } from '../support/vhost-user-backend.js'
import { openFds, SessionResources, sessionSteps } from '../support/vhost-user-session.js'

// long enough for every answer that does come, on a busy machine
const SILENCE_MS = 100

interface Expected {
  /** ProtocolError's field, or PeerGoneError's code. */
  field?: string
  code?: 'ENOTCONN' | 'ETIMEDOUT'
  message?: RegExp
  /** The error is reported for the request after the faulty one. */
  later?: boolean
  /** The connection can go on. */
  usable?: boolean
}

interface Case {
  what: string
  outcome: (answer: Answer) => Outcome
  expected: Expected
}

function rawPart(answer: Answer, lengthBytes: number, then: 'silence' | 'close'): Outcome {
  return { raw: encode(answer).subarray(0, lengthBytes), then }
}

function flip(answer: Answer, changes: Partial<Answer>): Answer {
  return { ...answer, ...changes }
}

/** Wrong answers that fit every message. */
const WRONG: Case[] = [
  { what: 'another request number', outcome: a => flip(a, { request: a.request + 1 }), expected: { field: 'request' } },
  { what: 'an unknown request number', outcome: a => flip(a, { request: 0xdeadbeef }), expected: { field: 'request', message: /request 3735928559/ } },
  { what: 'version 0', outcome: a => flip(a, { flags: a.flags & ~3 }), expected: { field: 'version', message: /version is 0, expected 1/ } },
  { what: 'version 2', outcome: a => flip(a, { flags: a.flags & ~3 | 2 }), expected: { field: 'version', message: /version is 2, expected 1/ } },
  { what: 'no REPLY flag', outcome: a => flip(a, { flags: a.flags & ~4 }), expected: { field: 'REPLY flag' } },
  { what: 'NEED_REPLY', outcome: a => flip(a, { flags: a.flags | 8 }), expected: { field: 'NEED_REPLY flag' } },
  { what: 'a reserved flag', outcome: a => flip(a, { flags: a.flags | 0x10 }), expected: { field: 'reserved flags' } },
  { what: 'a payload one byte short', outcome: a => flip(a, { payload: a.payload.subarray(1) }), expected: { field: 'size' } },
  { what: 'a payload one byte long', outcome: a => flip(a, { payload: Buffer.concat([a.payload, Buffer.alloc(1)]) }), expected: { field: 'size' } },
  { what: 'a size of 4 GiB', outcome: a => flip(a, { size: 0xffffffff }), expected: { field: 'size', message: /size is 4294967295/ } },
  { what: 'one descriptor too many', outcome: a => flip(a, { fds: [0, 1] }), expected: { field: 'number of file descriptors', message: /is 2, expected/ } },
  { what: '40 descriptors', outcome: a => flip(a, { fds: Array<number>(40).fill(0) }), expected: { field: 'number of file descriptors', message: /at most 32/ } },
  { what: 'descriptors and a wrong size', outcome: a => flip(a, { fds: [0, 1], size: 4 }), expected: { field: 'size' } },
  { what: 'garbage', outcome: () => ({ raw: Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n'), then: 'silence' }), expected: { field: 'version', message: /version is 3/ } },
  { what: 'end in the header', outcome: a => rawPart(a, 5, 'close'), expected: { code: 'ENOTCONN', message: /after 5 of 12 bytes/ } },
  { what: 'end in the payload', outcome: a => rawPart(a, 15, 'close'), expected: { code: 'ENOTCONN', message: /after 3 of \d+ bytes/ } },
  { what: 'end instead of an answer', outcome: () => 'close', expected: { code: 'ENOTCONN', message: /closed the connection instead of answering/ } },
  { what: 'silence', outcome: () => 'silence', expected: { code: 'ETIMEDOUT', message: /no answer to \w+ within 0.1 s/ } },
  { what: 'silence in the header', outcome: a => rawPart(a, 5, 'silence'), expected: { code: 'ETIMEDOUT', message: /only 5 of 12 bytes of the answer/ } },
  { what: 'silence in the payload', outcome: a => rawPart(a, 15, 'silence'), expected: { code: 'ETIMEDOUT', message: /only 3 of \d+ bytes of the answer/ } },
  { what: 'the answer twice', outcome: a => ({ raw: Buffer.concat([encode(a), encode(a)]), then: 'silence' }), expected: { field: 'data before the request', later: true } },
]

const ACKNOWLEDGED = [
  R.SET_OWNER, R.SET_BACKEND_REQ_FD, R.SET_MEM_TABLE, R.SET_VRING_NUM, R.SET_VRING_BASE, R.SET_VRING_ADDR,
  R.SET_VRING_CALL, R.SET_VRING_ERR, R.SET_VRING_KICK, R.SET_VRING_ENABLE, R.RESET_DEVICE,
]
const ANSWERED = [
  R.GET_FEATURES, R.GET_PROTOCOL_FEATURES, R.GET_QUEUE_NUM, R.GET_CONFIG, R.GET_VRING_BASE, R.SET_DEVICE_STATE_FD, R.CHECK_DEVICE_STATE,
  ...ACKNOWLEDGED,
]

async function run(t: Test, what: string, request: number, fault: Fault, expected: Expected, options: BackendOptions = {}): Promise<void> {
  const before = openFds()
  const name = requestName(request)
  const resources = new SessionResources()
  const { backend, fd } = VhostUserBackend.pair({ faults: { [request]: fault }, ...options })
  const timeoutMs = expected.code === 'ETIMEDOUT' ? SILENCE_MS : 5000
  const connection = new VhostUserConnection(fd, '/run/test.sock', { timeoutMs })
  const frontend = new VhostUserFrontend(connection)
  const started = performance.now()
  let error: unknown
  try {
    for (const step of sessionSteps(frontend, resources)) await step()
  } catch (thrown) {
    error = thrown
  }
  const tookMs = performance.now() - started
  const usable = connection.usable
  const again = await connection.send(R.SET_OWNER).catch((thrown: unknown) => thrown)
  frontend.close()
  await backend.done
  resources.free()

  const problems: string[] = []
  const demand = (good: boolean, problem: string): void => { if (!good) problems.push(problem) }
  const text = error instanceof Error ? error.message : 'no error'
  demand(text.startsWith('/run/test.sock: '), 'it names no socket')
  demand(expected.later ? error !== undefined : text.includes(name), `it does not name ${name}`)
  if (expected.field) {
    demand(error instanceof ProtocolError, 'it is no ProtocolError')
    demand((error as ProtocolError).field === expected.field, `its field is ${(error as ProtocolError).field}`)
    demand((error as ProtocolError).code === 'EPROTO', 'its code')
  } else {
    demand(error instanceof PeerGoneError, 'it is no PeerGoneError')
    demand((error as PeerGoneError).code === expected.code, `its code is ${(error as PeerGoneError).code}`)
  }
  if (expected.message) demand(expected.message.test(text), `it does not match ${expected.message}`)
  demand(tookMs < 4000, `it took ${Math.round(tookMs)} ms`)
  if (expected.code === 'ETIMEDOUT') demand(tookMs >= SILENCE_MS - 1, `it did not wait: ${tookMs} ms`)
  demand(usable === (expected.usable ?? false), `the connection is ${usable ? 'usable' : 'unusable'}`)
  demand(expected.usable ? again === undefined : again === error, `the next request: ${String(again)}`)
  demand(openFds() === before, `${openFds() - before} descriptors are left`)
  demand(backend.complaints.every(each => each.startsWith('SET_OWNER')), backend.complaints.join())
  t.same(problems, [], `${name}, ${what}: ${text}`)
}

for (const request of ANSWERED) {
  t.test(requestName(request), async t => {
    for (const each of WRONG) {
      await run(t, each.what, request, answer => answer && each.outcome(answer), each.expected)
    }
  })
}

t.test('refusals', async t => {
  for (const request of ACKNOWLEDGED) {
    for (const code of [1n, 0xffff_ffff_ffff_ffffn]) {
      const payload = Buffer.alloc(8)
      payload.writeBigUInt64LE(code)
      await run(t, 'a refusal', request, answer => answer && flip(answer, { payload }), {
        field: 'acknowledgement', message: new RegExp(`acknowledgement is ${code}, expected 0`), usable: true,
      })
    }
  }
})

function u64(value: bigint, fds: number[] = []): Fault {
  const payload = Buffer.alloc(8)
  payload.writeBigUInt64LE(value)
  return answer => answer && flip(answer, { payload, fds })
}

function patch(at: number, value: number): Fault {
  return answer => {
    if (!answer) return undefined
    const payload = Buffer.from(answer.payload)
    payload.writeUInt32LE(value, at)
    return flip(answer, { payload })
  }
}

t.test('values', async t => {
  const good = { usable: true }
  await run(t, 'no VERSION_1', R.GET_FEATURES, u64(bits(Feature.PROTOCOL_FEATURES, Feature.RING_EVENT_IDX)), { field: 'features', message: /VERSION_1/, ...good })
  for (const n of [0n, 32769n, 1n << 63n]) await run(t, `${n} queues`, R.GET_QUEUE_NUM, u64(n), { field: 'number of queues', ...good })
  await run(t, 'another offset', R.GET_CONFIG, patch(0, 4), { field: 'offset', ...good })
  await run(t, 'another size', R.GET_CONFIG, patch(4, 36), { field: 'configuration size', ...good })
  await run(t, 'flags', R.GET_CONFIG, patch(8, 1), { field: 'flags', ...good })
  await run(t, 'a refusal of rust-vmm', R.GET_CONFIG, answer => answer && flip(answer, { payload: answer.payload.subarray(0, 12) }), { field: 'configuration', message: /refused, expected 40 bytes at 0/, ...good })
  await run(t, 'a refusal of libvhost-user', R.GET_CONFIG, answer => answer && flip(answer, { payload: Buffer.alloc(0) }), { field: 'configuration', ...good })
  await run(t, 'another ring', R.GET_VRING_BASE, patch(0, 1), { field: 'ring index', ...good })
  await run(t, 'a base of 65536', R.GET_VRING_BASE, patch(4, 65536), { field: 'base', message: /at most 65535/, ...good })
  await run(t, 'an error', R.SET_DEVICE_STATE_FD, u64(0x101n), { field: 'error code', ...good })
  await run(t, 'an error and a descriptor', R.SET_DEVICE_STATE_FD, u64(1n, [0]), { field: 'error code', ...good })
  await run(t, 'a promised descriptor that is missing', R.SET_DEVICE_STATE_FD, u64(0n), { field: 'number of file descriptors', message: /is 0, expected 1/, ...good })
  await run(t, 'a denied descriptor that is there', R.SET_DEVICE_STATE_FD, u64(0x100n, [0]), { field: 'number of file descriptors', message: /is 1, expected 0/, ...good })
  await run(t, 'unknown bits', R.SET_DEVICE_STATE_FD, u64(0x300n), { field: 'value', message: /0x300/, ...good })
  await run(t, 'a failed transfer', R.CHECK_DEVICE_STATE, u64(1n), { field: 'result', ...good })
})

t.test('messages that get no answer', async t => {
  for (const request of [R.SET_FEATURES, R.SET_PROTOCOL_FEATURES]) {
    const next = request === R.SET_FEATURES ? /instead of answering GET_PROTOCOL_FEATURES \(the message before it, SET_FEATURES, was not acknowledged\)/ : /SET_PROTOCOL_FEATURES, was not acknowledged/
    await run(t, 'the connection ends', request, () => 'close', { code: 'ENOTCONN', message: next, later: true })
  }
})

t.test('the backend is gone before the first message', async t => {
  const before = openFds()
  const { backend, fd } = VhostUserBackend.pair()
  await backend.stop()
  const frontend = new VhostUserFrontend(new VhostUserConnection(fd, '/run/test.sock'))
  await t.rejects(frontend.negotiate(), { name: 'PeerGoneError', code: 'ENOTCONN', message: '/run/test.sock: the backend closed the connection instead of answering GET_FEATURES' })
  frontend.close()
  t.equal(openFds(), before)
})

t.test('a server that speaks first', async t => {
  const before = openFds()
  const { backend, fd } = VhostUserBackend.pair({ faults: { [R.SET_FEATURES]: () => ({ raw: Buffer.from('220 mail ESMTP\r\n'), then: 'silence' }) } })
  const connection = new VhostUserConnection(fd, '/run/test.sock')
  await connection.send(R.SET_FEATURES, new Uint8Array(8))
  while (backend.names.length === 0) await new Promise(resolve => { setImmediate(resolve) })
  await t.rejects(connection.request(R.GET_FEATURES, { replySizes: [8] }), { name: 'ProtocolError', field: 'data before the request' })
  connection.close()
  await backend.done
  t.equal(openFds(), before)
})
