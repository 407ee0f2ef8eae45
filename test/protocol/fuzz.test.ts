/**
 * Short runs of the fuzzing campaigns (test/campaigns/fuzz.ts), from other seeds than theirs, and
 * what the campaigns and the reading for them have found.
 */
import t from 'tap'
import { handOverBatch } from '../../lib/driver/hiprio-requests.js'
import { errno, ProtocolError, type PeerGoneError } from '../../lib/errors.js'
import { FuseInHeader, FuseInitOut } from '../../lib/fuse/abi.js'
import { Op } from '../../lib/fuse/opcodes.js'
import { close } from '../../lib/sys/io.js'
import { bind, check, result } from '../../lib/sys/libc.js'
import { sendmsg } from '../../lib/sys/socket-message.js'
import { BackendRequests } from '../../lib/vhost-user/backend-requests.js'
import type { VhostUserFrontend } from '../../lib/vhost-user/frontend.js'
import { VhostUserBackendRequest } from '../../lib/vhost-user/message.js'
import { endHostileBackend, hostileChannel, hostileConfigs, hostileSession } from '../campaigns/hostile-backend.js'
import { HostileDevice } from '../campaigns/hostile-device.js'
import { HostileDriver, HostilePlace } from '../campaigns/hostile-driver.js'
import { hostileEngine } from '../campaigns/hostile-engine.js'
import { hostileNotifications } from '../campaigns/hostile-notifications.js'
import { args } from '../support/mock-fuse.js'
import { withRelay } from '../support/relay-fixture.js'
import { openFds } from '../support/vhost-user-session.js'

const SEED = Number(process.env['SEED'] ?? 0x5eed_0000)
const c_dup = bind('int dup(int)')

t.test('a hostile device: replies and used entries', async t => {
  const report = { mutated: 0, requests: 0, runs: 0, broken: 0, refused: 0, good: 0 }
  for (let seed = SEED; report.mutated < 20_000; seed++) HostileDevice.run(seed, report)
  t.ok(report.broken > 10 && report.good > 2500 && report.refused > 2500, JSON.stringify(report))
})

t.test('a hostile device behind the client of the library', async t => {
  const report = { mutated: 0, requests: 0, runs: 0, broken: 0, refused: 0, good: 0 }
  for (let seed = SEED; report.mutated < 5000; seed++) await hostileEngine(seed, report)
  t.ok(report.good > 500 && report.refused > 500, JSON.stringify(report))
})

t.test('a hostile device: notifications', async t => {
  const report = { mutated: 0, requests: 0, runs: 0, broken: 0, refused: 0, good: 0 }
  for (let seed = SEED; report.mutated < 10_000; seed++) hostileNotifications(seed, report)
  t.ok(report.requests > 500, JSON.stringify(report))
})

t.test('a hostile backend: messages and configuration spaces', async t => {
  const report = { mutated: 0, messages: 0, sessions: 0, accepted: 0, refused: 0 }
  const before = openFds()
  for (let seed = SEED; report.mutated < 2000; seed++) {
    await Promise.all([0, 1, 2, 3].map(i => hostileSession(seed + i * 1000, report)))
    await hostileChannel(seed, 20, report)
  }
  t.equal(openFds(), before, 'no descriptor stays')
  hostileConfigs(SEED, 20_000)
  t.ok(report.refused > 100 && report.accepted > 5, JSON.stringify(report))
  endHostileBackend()
})

t.test('a hostile driver before a shared directory', { skip: process.getuid!() === 0 ? false : 'it needs a small tmpfs, which only root can mount' }, async t => {
  const report = { mutated: 0, chains: 0, runs: 0, broken: 0, good: 0 }
  const place = new HostilePlace()
  try {
    for (let seed = SEED; report.chains < 12_000; seed++) HostileDriver.run(seed, place, report)
  } finally {
    place.close()
  }
  t.ok(report.broken > 10 && report.good > 300, JSON.stringify(report))
})

t.test('finding: the count of a BATCH_FORGET lies in memory that the device can change', async t => {
  const view = new DataView(new ArrayBuffer(128))
  view.setUint32(FuseInHeader.SIZE, 0xffff_ffff, true)
  let forgotten = 0
  const sink = { forget: () => { forgotten++ }, interrupt: () => {}, flush: () => {} }
  handOverBatch(view, 0, 80, 48 + 3 * 16, sink)
  t.equal(forgotten, 3, 'no more than were read')
  handOverBatch(view, 0, 80, 40, sink)
  t.equal(forgotten, 3)
})

t.test('finding: what INIT is answered lies there too', async t => {
  await withRelay(t, { init: { maxWrite: 1 << 20, maxBackground: 28 } }, relay => {
    const request = relay.roundOut(Op.INIT, args(64, { 0: 7, 4: 45 }))
    const payload = args(FuseInitOut.SIZE, { [FuseInitOut.max_write]: 0x7fff_ffff })
    relay.device.answer(request, { payload })
    const [reply] = relay.complete()
    t.equal(Buffer.from(reply!.payload).readUInt32LE(FuseInitOut.max_write), 1 << 20, 'the kernel is told what the mount can hold')
    const buffer = relay.device.at(request.writable[0]!)
    t.equal(Buffer.from(buffer).readUInt32LE(16 + FuseInitOut.max_write), 0x7fff_ffff, 'from a copy: the device has not seen it bounded')
  })
})

t.test('finding: a backend that wants acknowledgements and reads none', async t => {
  let theirs = -1
  const frontend = { setBackendRequestFd: async (fd: number) => { theirs = check(result(c_dup(fd)), 'dup') } } as unknown as VhostUserFrontend
  let ended: ProtocolError | PeerGoneError | undefined
  const channel = await BackendRequests.open(frontend, { ended: error => { ended = error } })
  const message = Buffer.alloc(12)
  message.writeUInt32LE(VhostUserBackendRequest.CONFIG_CHANGE_MSG, 0)
  message.writeUInt32LE(1 | 8, 4)
  const many = Buffer.concat(Array<Buffer>(300).fill(message))
  for (let i = 0; i < 3000 && ended === undefined; i++) {
    const sent = sendmsg(theirs, many)
    if (sent < 0 && sent !== -errno.EAGAIN) break
    await new Promise(resolve => { setImmediate(resolve) })
  }
  t.ok(ended instanceof ProtocolError, 'is given up, before the memory is')
  t.match(String(ended), /unread acknowledgements/)
  close(theirs)
  await channel.close()
})
