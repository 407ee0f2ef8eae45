/** The frontend against a backend that answers well: order of messages, their contents, refusals of our own. */
import { fstatSync } from 'node:fs'
import t, { type Test } from 'tap'
import { PeerGoneError, UsageError } from '../../lib/errors.js'
import { VhostUserConnection } from '../../lib/vhost-user/connection.js'
import { bits, Feature, ProtocolFeature } from '../../lib/vhost-user/features.js'
import { parseFsConfig } from '../../lib/vhost-user/fs-config.js'
import { VhostUserFrontend } from '../../lib/vhost-user/frontend.js'
import { VhostUserRequest as R } from '../../lib/vhost-user/message.js'
import { close } from '../../lib/sys/io.js'
import { BACKEND_FEATURES, BACKEND_PROTOCOL_FEATURES, VhostUserBackend, type BackendOptions, type Message } from '../support/vhost-user-backend.js'
import { openFds, SessionResources, sessionSteps } from '../support/vhost-user-session.js'

interface Session { frontend: VhostUserFrontend; backend: VhostUserBackend; resources: SessionResources }

async function session(t: Test, options: BackendOptions, body: (s: Session) => Promise<void>): Promise<VhostUserBackend> {
  const before = openFds()
  const resources = new SessionResources()
  const { backend, fd } = VhostUserBackend.pair(options)
  const frontend = new VhostUserFrontend(new VhostUserConnection(fd, 'test', { timeoutMs: 2000 }))
  try {
    await body({ frontend, backend, resources })
  } finally {
    frontend.close()
    await backend.done
    resources.free()
  }
  t.equal(openFds(), before, 'no descriptor is left')
  return backend
}

const HANDSHAKE = [
  'GET_FEATURES', 'SET_FEATURES', 'GET_PROTOCOL_FEATURES', 'SET_PROTOCOL_FEATURES', 'GET_QUEUE_NUM', 'GET_CONFIG', 'SET_OWNER', 'SET_MEM_TABLE',
  'SET_VRING_NUM', 'SET_VRING_BASE', 'SET_VRING_ADDR', 'SET_VRING_CALL', 'SET_VRING_KICK',
  'SET_VRING_NUM', 'SET_VRING_BASE', 'SET_VRING_ADDR', 'SET_VRING_CALL', 'SET_VRING_KICK',
  'SET_VRING_ENABLE', 'SET_VRING_ENABLE', 'GET_VRING_BASE', 'GET_VRING_BASE',
]

async function handshake(t: Test, { frontend, resources }: Session): Promise<void> {
  await frontend.negotiate()
  const config = parseFsConfig(await frontend.getConfig(0, 40))
  t.same(config, { tag: 'testfs', numRequestQueues: 1 })
  await frontend.setOwner()
  await frontend.setMemTable([resources.region])
  for (const i of [0, 1]) {
    const { errFd: _unused, ...ring } = resources.ring(i, { base: 5 * i })
    await frontend.setupRing(i, ring)
  }
  for (const i of [0, 1]) await frontend.enableRing(i, true)
  for (const i of [0, 1]) t.equal(await frontend.stopRing(i), 5 * i, 'the base comes back')
}

t.test('the handshake, message by message', async t => {
  let inodes: number[] = []
  let address = 0
  const backend = await session(t, {}, async s => {
    address = s.resources.address
    inodes = [s.resources.memfd, s.resources.callFd, s.resources.kickFd].map(fd => fstatSync(fd).ino)
    await handshake(t, s)
    t.match(s.frontend.negotiated, {
      features: BACKEND_FEATURES & ~bits(Feature.LOG_ALL),
      protocolFeatures: BACKEND_PROTOCOL_FEATURES & ~bits(ProtocolFeature.LOG_SHMFD, ProtocolFeature.BACKEND_SEND_FD, ProtocolFeature.CONFIGURE_MEM_SLOTS),
      offeredFeatures: BACKEND_FEATURES, offeredProtocolFeatures: BACKEND_PROTOCOL_FEATURES, queueNum: 2,
    }, 'only offered bits are acknowledged')
  })
  t.same(backend.complaints, [])
  t.same(backend.names, HANDSHAKE)
  const first = (name: string): Message => backend.received.find(message => message.name === name) as Message

  const acked = backend.received.filter(message => message.flags & 8).map(message => message.name)
  t.same(acked, HANDSHAKE.slice(6).filter(name => name !== 'GET_VRING_BASE'), 'NEED_REPLY on every change once REPLY_ACK is on')

  const table = first('SET_MEM_TABLE')
  t.equal(table.payload.readUInt32LE(0), 1)
  t.same([0, 1, 2, 3].map(i => Number(table.payload.readBigUInt64LE(8 + 8 * i))), [0x10000, 1 << 20, address, 0])
  t.same(table.inodes, inodes.slice(0, 1), 'the memfd itself travels')
  t.same(first('SET_VRING_CALL').inodes, inodes.slice(1, 2))
  t.same(first('SET_VRING_KICK').inodes, inodes.slice(2, 3))

  const addr = backend.received.filter(message => message.name === 'SET_VRING_ADDR')[1] as Message
  t.same([addr.payload.readUInt32LE(0), addr.payload.readUInt32LE(4)], [1, 0])
  t.same([8, 16, 24, 32].map(at => Number(addr.payload.readBigUInt64LE(at)) - (at < 32 ? address : 0)), [65536, 65536 + 16384, 65536 + 8192, 0], 'descriptors, used, available, log')
  t.same(backend.received.filter(message => message.name === 'SET_VRING_ENABLE').map(message => message.payload.toString('hex')), ['0000000001000000', '0100000001000000'])
})

t.test('every message, twice over', async t => {
  const backend = await session(t, {}, async ({ frontend, resources }) => {
    for (const step of sessionSteps(frontend, resources)) await step()
    // ownership and memory outlive the reset
    await frontend.setupRing(0, resources.ring(0))
    await frontend.enableRing(0, true)
    await frontend.enableRing(0, false)
    await frontend.stopRing(0)
    await frontend.setupRing(0, resources.ring(0, { base: 65535 }))
    t.equal(await frontend.stopRing(0), 65535)
  })
  t.same(backend.complaints, [])
})

t.test('answers cut into single bytes', async t => {
  const drip = (answer: Parameters<NonNullable<NonNullable<BackendOptions['faults']>[number]>>[0]) => answer && { drip: answer }
  const faults = Object.fromEntries(Object.values(R).map(request => [request, drip]))
  const backend = await session(t, { faults }, async s => {
    for (const step of sessionSteps(s.frontend, s.resources)) await step()
  })
  t.same(backend.complaints, [])
})

t.test('one request at a time', async t => {
  const backend = await session(t, { delayMs: 3 }, async ({ frontend, resources }) => {
    await frontend.negotiate()
    await frontend.setOwner()
    await frontend.setMemTable([resources.region])
    await Promise.all([frontend.getConfig(0, 40), frontend.setupRing(0, resources.ring(0)), frontend.setupRing(1, resources.ring(1)), frontend.getConfig(0, 4)])
  })
  t.same(backend.complaints, [], 'nothing overlaps')
})

t.test('a backend with few features', async t => {
  await t.test('no REPLY_ACK: nothing asks for an acknowledgement', async t => {
    const backend = await session(t, { protocolFeatures: bits(ProtocolFeature.MQ, ProtocolFeature.CONFIG) }, s => handshake(t, s))
    t.same(backend.complaints, [])
    t.same(backend.received.filter(message => message.flags & 8), [])
  })
  await t.test('no PROTOCOL_FEATURES: rings are enabled from the start', async t => {
    const backend = await session(t, { features: bits(Feature.VERSION_1) }, async ({ frontend, resources }) => {
      t.match(await frontend.negotiate(), { features: bits(Feature.VERSION_1), protocolFeatures: 0n, queueNum: 0 })
      await frontend.setOwner()
      await frontend.setMemTable([resources.region])
      await frontend.setupRing(0, resources.ring(0))
      await frontend.enableRing(0, true)
      await t.rejects(frontend.enableRing(0, false), UsageError)
      await frontend.stopRing(0)
    })
    t.same(backend.complaints, [])
    t.notOk(backend.names.some(name => ['SET_VRING_ENABLE', 'GET_PROTOCOL_FEATURES', 'GET_QUEUE_NUM'].includes(name)))
  })
  await t.test('without their protocol features messages are not sent', async t => {
    const backend = await session(t, { protocolFeatures: bits(ProtocolFeature.REPLY_ACK) }, async ({ frontend, resources }) => {
      await frontend.negotiate()
      await frontend.setOwner()
      const refused: [Promise<unknown>, RegExp][] = [
        [frontend.getConfig(0, 40), /GET_CONFIG: the protocol feature CONFIG is not negotiated/],
        [frontend.resetDevice(), /RESET_DEVICE: the protocol feature RESET_DEVICE/],
        [frontend.setDeviceStateFd('load', resources.callFd), /SET_DEVICE_STATE_FD: the protocol feature DEVICE_STATE/],
        [frontend.checkDeviceState(), /CHECK_DEVICE_STATE: the protocol feature DEVICE_STATE/],
        [frontend.setBackendRequestFd(resources.callFd), /SET_BACKEND_REQ_FD: the protocol feature BACKEND_REQ/],
      ]
      for (const [promise, message] of refused) await t.rejects(promise, { name: 'UsageError', message })
    })
    t.same(backend.names.slice(4), ['SET_OWNER'])
  })
  await t.test('what is wanted is a choice', async t => {
    const backend = await session(t, {}, async ({ frontend }) => {
      const n = await frontend.negotiate({ wantFeatures: 0n, wantProtocolFeatures: bits(ProtocolFeature.SHMEM) })
      t.equal(n.features, bits(Feature.VERSION_1, Feature.PROTOCOL_FEATURES))
      t.equal(n.protocolFeatures, 0n)
    })
    t.same(backend.complaints, [])
  })
})

t.test('calls out of order send nothing', async t => {
  const backend = await session(t, {}, async ({ frontend, backend, resources }) => {
    const refuse = async (message: RegExp, ...calls: (() => Promise<unknown>)[]): Promise<void> => {
      const before = backend.names.length
      for (const call of calls) await t.rejects(call(), { name: 'UsageError', message })
      t.equal(backend.names.length, before, `nothing was sent (${message.source})`)
    }
    const ring = resources.ring(0)
    await refuse(/before the features are negotiated/, () => frontend.getConfig(0, 40), () => frontend.setOwner(), () => frontend.setBackendRequestFd(0),
      () => frontend.setMemTable([resources.region]), () => frontend.resetDevice(), () => frontend.setDeviceStateFd('save', 0), () => frontend.setupRing(0, ring))
    await refuse(/ring 0 is not set up/, () => frontend.enableRing(0, true), () => frontend.stopRing(0))
    await frontend.negotiate()
    await refuse(/already negotiated/, () => frontend.negotiate())
    await refuse(/GET_CONFIG of/, () => frontend.getConfig(0, 0), () => frontend.getConfig(0, 4096), () => frontend.getConfig(4090, 8))
    await refuse(/before SET_OWNER/, () => frontend.setMemTable([resources.region]), () => frontend.setupRing(0, ring), () => frontend.resetDevice())
    await frontend.setOwner()
    await refuse(/owns the session already/, () => frontend.setOwner())
    await refuse(/0 regions/, () => frontend.setMemTable([]))
    await refuse(/9 regions/, () => frontend.setMemTable(Array.from({ length: 9 }, () => resources.region)))
    await refuse(/empty region/, () => frontend.setMemTable([{ ...resources.region, size: 0 }]))
    await refuse(/SET_VRING_NUM before SET_MEM_TABLE/, () => frontend.setupRing(0, ring))
    await frontend.setMemTable([resources.region])
    await refuse(/power of two/, ...[0, 3, 65536, 1.5].map(size => () => frontend.setupRing(0, { ...ring, size })))
    await refuse(/ring (2|-1) of 2/, ...[2, -1].map(i => () => frontend.setupRing(i, ring)))
    await refuse(/descAddr is not a multiple of 16/, () => frontend.setupRing(0, { ...ring, descAddr: ring.descAddr + 8 }))
    await refuse(/usedAddr is in no memory region/, () => frontend.setupRing(0, { ...ring, usedAddr: resources.address + (1 << 20) - 8 }))
    await refuse(/availAddr is in no memory region/, () => frontend.setupRing(0, { ...ring, availAddr: resources.address - 2 }))
    await refuse(/no transfer was started/, () => frontend.checkDeviceState())
    await frontend.setupRing(0, ring)
    await refuse(/ring 0 is set up/, () => frontend.setupRing(0, ring), () => frontend.resetDevice(), () => frontend.setMemTable([resources.region]), () => frontend.setDeviceStateFd('load', resources.callFd))
    await frontend.stopRing(0)
    await refuse(/ring 0 is not set up/, () => frontend.stopRing(0), () => frontend.enableRing(0, true))
    await frontend.resetDevice()
    await refuse(/before the features are negotiated/, () => frontend.setupRing(0, ring))
  })
  t.same(backend.complaints, [])
})

t.test('eight regions travel in one message', async t => {
  const backend = await session(t, {}, async ({ frontend, resources }) => {
    await frontend.negotiate()
    await frontend.setOwner()
    const regions = Array.from({ length: 8 }, (_, i) => ({ ...resources.region, guestAddress: i << 20, fd: i % 2 ? resources.callFd : resources.memfd }))
    await frontend.setMemTable(regions)
  })
  t.same(backend.complaints, [])
  t.equal(backend.received.at(-1)?.inodes.length, 8)
})

t.test('a bad descriptor of our own does not break the connection', async t => {
  await session(t, {}, async ({ frontend, resources }) => {
    await frontend.negotiate()
    await frontend.setOwner()
    await t.rejects(frontend.setMemTable([{ ...resources.region, fd: 9999 }]), { name: 'SyscallError', code: 'EBADF' })
    await frontend.setMemTable([resources.region])
  })
})

t.test('close', async t => {
  await t.test('fails a request in flight at once and frees the descriptor', async t => {
    const before = openFds()
    const { backend, fd } = VhostUserBackend.pair({ faults: { [R.GET_FEATURES]: () => 'silence' } })
    const connection = new VhostUserConnection(fd, 'test', { timeoutMs: 60_000 })
    const frontend = new VhostUserFrontend(connection)
    const started = performance.now()
    const pending = t.rejects(frontend.negotiate(), PeerGoneError)
    const queued = t.rejects(connection.request(R.GET_FEATURES, { replySizes: [8] }), PeerGoneError)
    await new Promise(resolve => { setTimeout(resolve, 20) })
    frontend.close()
    frontend.close()
    await pending
    await queued
    await backend.done
    t.ok(performance.now() - started < 2000, 'nobody waited for the deadline')
    t.equal(openFds(), before)
    t.equal(connection.usable, false)
    await t.rejects(connection.send(R.SET_OWNER), /was closed/)
  })
  await t.test('the descriptor of a backend that returns one belongs to the caller', async t => {
    await session(t, {
      faults: { [R.SET_DEVICE_STATE_FD]: answer => answer && { ...answer, payload: Buffer.alloc(8), fds: [0] } },
    }, async ({ frontend, resources }) => {
      await frontend.negotiate()
      await frontend.setOwner()
      const fd = await frontend.setDeviceStateFd('load', resources.callFd)
      t.type(fd, 'number')
      t.equal(fstatSync(fd as number).ino, fstatSync(0).ino)
      close(fd as number)
    })
  })
})
