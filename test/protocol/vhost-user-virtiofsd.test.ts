/** The frontend against the real backends, where test/support/peers.sh has put them. */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { close } from '../../lib/sys/io.js'
import { listenUnix } from '../../lib/sys/socket.js'
import { BackendRequests } from '../../lib/vhost-user/backend-requests.js'
import { loadDeviceState, saveDeviceState } from '../../lib/vhost-user/device-state.js'
import { featureNames, ProtocolFeature, protocolFeatureNames, hasBit } from '../../lib/vhost-user/features.js'
import { parseFsConfig } from '../../lib/vhost-user/fs-config.js'
import { VhostUserFrontend } from '../../lib/vhost-user/frontend.js'
import { u64Payload, vringState, VhostUserRequest as R } from '../../lib/vhost-user/message.js'
import { openFds, packageRoot, SessionResources } from '../support/vhost-user-session.js'

// the first child makes libuv open a pipe for its signals, once
await once(spawn('true'), 'close')

const peers = join(packageRoot(), '.peers')

interface Daemon { frontend: VhostUserFrontend; exit: Promise<[code: number | null, signal: string | null]>; resources: SessionResources }

async function daemon(t: Test, command: string, args: (share: string) => string[], body: (d: Daemon) => Promise<void>): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'vhost-user-daemon-'))
  const share = join(directory, 'share')
  mkdirSync(share)
  const before = openFds()
  const listener = listenUnix(join(directory, 'socket'))
  const child: ChildProcess = spawn(command, ['--fd=3', ...args(share)], { stdio: ['ignore', 'pipe', 'pipe', listener] })
  let output = ''
  child.stdout?.on('data', data => { output += data })
  child.stderr?.on('data', data => { output += data })
  const exit = once(child, 'close') as Promise<[number | null, string | null]>
  const killer = setTimeout(() => { child.kill('SIGKILL') }, 20_000)
  close(listener)
  const resources = new SessionResources()
  const frontend = VhostUserFrontend.connect(join(directory, 'socket'))
  try {
    await body({ frontend, exit, resources })
  } catch (error) {
    t.comment(output)
    throw error
  } finally {
    frontend.close()
    await exit
    clearTimeout(killer)
    resources.free()
    rmSync(directory, { recursive: true })
  }
  t.equal(openFds(), before, 'no descriptor is left')
}

async function session(t: Test, { frontend, resources, exit }: Daemon): Promise<void> {
  await frontend.setOwner()
  if (hasBit(frontend.negotiated?.protocolFeatures ?? 0n, ProtocolFeature.BACKEND_REQ)) {
    const requests = await BackendRequests.open(frontend)
    await requests.close()
  }
  await frontend.setMemTable([resources.region])
  for (const round of [1, 2]) {
    for (const i of [0, 1]) await frontend.setupRing(i, resources.ring(i))
    for (const i of [0, 1]) await frontend.enableRing(i, true)
    for (const i of [0, 1]) await frontend.enableRing(i, false)
    for (const i of [0, 1]) t.equal(await frontend.stopRing(i), 0, `round ${round}: nothing was ever available on ring ${i}`)
  }
  frontend.close()
  t.same(await exit, [0, null], 'it exits when the client hangs up')
}

const rust = join(peers, 'virtiofsd-rust')
const rustArgs = (share: string): string[] => ['--shared-dir', share, '--sandbox=none']

t.test('virtiofsd (Rust)', { skip: existsSync(rust) ? false : `${rust} is not there: run test/support/peers.sh` }, async t => {
  await t.test('with --tag', async t => {
    await daemon(t, rust, share => [...rustArgs(share), '--tag=realtag'], async d => {
      const negotiated = await d.frontend.negotiate()
      t.comment(featureNames(negotiated.offeredFeatures).join(' '))
      t.comment(protocolFeatureNames(negotiated.offeredProtocolFeatures).join(' '))
      t.strictSame(featureNames(negotiated.features), ['RING_INDIRECT_DESC', 'RING_EVENT_IDX', 'PROTOCOL_FEATURES', 'VERSION_1'])
      t.equal(negotiated.queueNum, 2)
      t.same(parseFsConfig(await d.frontend.getConfig(0, 40)), { tag: 'realtag', numRequestQueues: 1 })
      t.same(Buffer.from(await d.frontend.getConfig(36, 4)).toString('hex'), '01000000')
      await session(t, d)
    })
  })
  await t.test('behind its configuration there are zeroes', async t => {
    await daemon(t, rust, share => [...rustArgs(share), '--tag=realtag'], async ({ frontend }) => {
      await frontend.negotiate()
      const config = await frontend.getConfig(0, 256)
      t.same(parseFsConfig(config.subarray(0, 40)), { tag: 'realtag', numRequestQueues: 1 })
      t.ok(config.subarray(40).every(byte => byte === 0))
    })
  })
  await t.test('without --tag', async t => {
    await daemon(t, rust, rustArgs, async d => {
      const { protocolFeatures } = await d.frontend.negotiate()
      t.notOk(hasBit(protocolFeatures, ProtocolFeature.CONFIG))
      await session(t, d)
    })
  })
  await t.test('reset, then the features again', async t => {
    await daemon(t, rust, rustArgs, async d => {
      await d.frontend.negotiate()
      await d.frontend.setOwner()
      await d.frontend.setMemTable([d.resources.region])
      await d.frontend.setupRing(0, d.resources.ring(0))
      await d.frontend.enableRing(0, true)
      await d.frontend.stopRing(0)
      await d.frontend.resetDevice()
      t.equal((await d.frontend.negotiate()).queueNum, 2)
      await d.frontend.setupRing(0, d.resources.ring(0))
      await d.frontend.enableRing(0, true)
      t.equal(await d.frontend.stopRing(0), 0)
    })
  })
  await t.test('its state is saved from one process and loaded into another', async t => {
    let state: Buffer = Buffer.alloc(0)
    const owner = async (frontend: VhostUserFrontend): Promise<void> => {
      await frontend.negotiate()
      await frontend.setOwner()
    }
    await daemon(t, rust, rustArgs, async ({ frontend }) => {
      await owner(frontend)
      state = await saveDeviceState(frontend)
      t.ok(state.length > 0, `${state.length} bytes`)
    })
    await daemon(t, rust, rustArgs, async ({ frontend }) => {
      await owner(frontend)
      await loadDeviceState(frontend, state)
      t.same(await saveDeviceState(frontend), state, 'the new process has the same state')
    })
    await daemon(t, rust, rustArgs, async ({ frontend }) => {
      await owner(frontend)
      await t.rejects(loadDeviceState(frontend, Buffer.alloc(100_000, 0xff)), { name: 'ProtocolError', message: /CHECK_DEVICE_STATE: result is 1, expected 0/ }, 'garbage')
    })
  })
  await t.test('what it refuses', async t => {
    await daemon(t, rust, rustArgs, async ({ frontend, exit }) => {
      await frontend.negotiate()
      await frontend.setOwner()
      await t.rejects(frontend.connection.change(R.SET_VRING_NUM, vringState(9, 128)), { name: 'ProtocolError', field: 'acknowledgement', message: /SET_VRING_NUM: acknowledgement is 1, expected 0/ })
      await exit
      await t.rejects(frontend.connection.change(R.SET_VRING_NUM, vringState(0, 128)), { name: 'PeerGoneError', code: 'ENOTCONN' }, 'it gives up after an error')
    })
    await daemon(t, rust, rustArgs, async ({ frontend, exit }) => {
      const { connection } = frontend
      await connection.request(R.GET_FEATURES, { replySizes: [8] })
      await connection.send(R.SET_FEATURES, u64Payload(1n << 63n))
      await exit
      await t.rejects(connection.request(R.GET_PROTOCOL_FEATURES, { replySizes: [8] }), { name: 'PeerGoneError', message: /SET_FEATURES, was not acknowledged/ })
    })
  })
  await t.test('a second client of a busy backend hears nothing', async t => {
    const directory = mkdtempSync(join(tmpdir(), 'vhost-user-daemon-'))
    const path = join(directory, 'socket')
    const listener = listenUnix(path)
    const busy = VhostUserFrontend.connect(path, { timeoutMs: 30 })
    await t.rejects(busy.negotiate(), { name: 'PeerGoneError', code: 'ETIMEDOUT', message: `${path}: no answer to GET_FEATURES within 0.03 s` })
    busy.close()
    close(listener)
    rmSync(directory, { recursive: true })
  })
})

const c = join(peers, 'virtiofsd-c')
const whyNotC = !existsSync(c) ? `${c} is not there: run test/support/peers.sh` : process.getuid?.() !== 0 ? 'it needs root' : false

t.test('virtiofsd 7.2 (C)', { skip: whyNotC }, async t => {
  await daemon(t, c, share => ['-o', `source=${share}`, '-o', 'sandbox=chroot', '-f'], async d => {
    const negotiated = await d.frontend.negotiate()
    t.comment(featureNames(negotiated.offeredFeatures).join(' '))
    t.comment(protocolFeatureNames(negotiated.offeredProtocolFeatures).join(' '))
    t.strictSame(featureNames(negotiated.features), ['RING_INDIRECT_DESC', 'RING_EVENT_IDX', 'PROTOCOL_FEATURES', 'VERSION_1'])
    t.equal(negotiated.queueNum, 2)
    await t.rejects(d.frontend.getConfig(0, 40), { name: 'UsageError', message: /CONFIG is not negotiated/ })
    await session(t, d)
  })
})
