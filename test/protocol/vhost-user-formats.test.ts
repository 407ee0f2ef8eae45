/** Bytes and names: the configuration space, feature bits, headers. */
import t from 'tap'
import { bits, featureNames, protocolFeatureNames, hasBit } from '../../lib/vhost-user/features.js'
import { parseFsConfig } from '../../lib/vhost-user/fs-config.js'
import { backendRequestName, requestName, VhostUserBackendRequest, VhostUserRequest } from '../../lib/vhost-user/message.js'
import { fsConfigBytes } from '../support/vhost-user-backend.js'

t.test('configuration space', async t => {
  t.same(parseFsConfig(fsConfigBytes('myfs', 3)), { tag: 'myfs', numRequestQueues: 3 })
  t.same(parseFsConfig(fsConfigBytes('x'.repeat(36), 1)), { tag: 'x'.repeat(36), numRequestQueues: 1 }, '36 bytes have no terminator')
  t.same(parseFsConfig(fsConfigBytes('größe', 1)).tag, 'größe')
  t.same(parseFsConfig(Buffer.concat([fsConfigBytes('n', 1), Buffer.from([0, 2, 0, 0])])), { tag: 'n', numRequestQueues: 1, notifyBufSize: 512 })
  // a view into a larger buffer
  const page = Buffer.concat([Buffer.alloc(7, 0xff), fsConfigBytes('deep', 2), Buffer.alloc(9, 0xff)])
  t.same(parseFsConfig(page.subarray(7, 47)), { tag: 'deep', numRequestQueues: 2 })
  const afterNul = fsConfigBytes('ab', 1)
  afterNul.write('junk', 3)
  t.equal(parseFsConfig(afterNul).tag, 'ab', 'the tag ends at the first NUL')

  const bad: [Uint8Array, RegExp][] = [
    [fsConfigBytes('', 1), /empty tag/],
    [fsConfigBytes('myfs', 0), /"myfs" has no request queue/],
    [fsConfigBytes('myfs', 1).subarray(0, 39), /39 bytes, expected 40/],
    [new Uint8Array(0), /0 bytes/],
  ]
  for (const [bytes, message] of bad) t.throws(() => parseFsConfig(bytes), { name: 'UsageError', code: 'EPROTO', message })
  const latin1 = fsConfigBytes('', 1)
  latin1[0] = 0xe9
  t.throws(() => parseFsConfig(latin1), { code: 'EPROTO', message: /not UTF-8: e9/ })
})

t.test('names of bits', async t => {
  // as virtiofsd 1.13.2 offers them
  t.same(featureNames(0x174000000n), ['LOG_ALL', 'RING_INDIRECT_DESC', 'RING_EVENT_IDX', 'PROTOCOL_FEATURES', 'VERSION_1'])
  t.same(protocolFeatureNames(0x8a42bn), ['MQ', 'LOG_SHMFD', 'REPLY_ACK', 'BACKEND_REQ', 'BACKEND_SEND_FD', 'RESET_DEVICE', 'CONFIGURE_MEM_SLOTS', 'DEVICE_STATE'])
  t.same(featureNames(bits(0, 5, 63)), ['FS_NOTIFICATION', '5', '63'], 'an unknown bit is its number')
  t.same(protocolFeatureNames(0n), [])
  t.ok(hasBit(1n << 63n, 63))
  t.notOk(hasBit(1n << 63n, 62))
})

t.test('names of requests', async t => {
  t.equal(requestName(VhostUserRequest.SET_MEM_TABLE), 'SET_MEM_TABLE')
  t.equal(requestName(99), 'request 99')
  t.equal(backendRequestName(VhostUserBackendRequest.CONFIG_CHANGE_MSG), 'CONFIG_CHANGE_MSG')
  t.equal(backendRequestName(77), 'backend request 77')
  t.same(Object.values(VhostUserRequest), Array.from({ length: 44 }, (_, i) => i + 1), 'numbers 1 to 44, none twice')
})
