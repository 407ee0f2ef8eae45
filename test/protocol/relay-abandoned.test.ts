/**
 * Callers that are killed: they are answered at once, and what their replies carry is given back.
 */
import t, { type Test } from 'tap'
import { errno } from '../../lib/errors.js'
import { direntSize, FuseDirent, FuseDirentplus, FuseEntryOut, FuseInHeader, FuseOpenOut, FuseReadIn, FuseReleaseIn } from '../../lib/fuse/abi.js'
import { Op } from '../../lib/fuse/opcodes.js'
import { DYING, DyingRequestQueue } from '../support/dying.js'
import { args, names } from '../support/mock-fuse.js'
import type { TakenRequest } from '../support/mock-device.js'
import { Counter, RelayFixture, withRelay, type RelayOptions } from '../support/relay-fixture.js'

/** A request of somebody who is then killed: it is with the device, and its caller has been answered. */
function killed(t: Test, relay: RelayFixture, opcode: number, body: Uint8Array): TakenRequest {
  const unique = relay.fuse.send(opcode, body, { pid: DYING, nodeid: 55 })!
  relay.receiveAll()
  const request = relay.device.takeOne()
  relay.fuse.send(Op.INTERRUPT, args(8, { 0: Number(unique) }))
  relay.receiveAll()
  t.match(relay.fuse.collect(), [{ unique, error: -errno.EINTR, length: 16 }], 'answered at once')
  t.equal(relay.queue.inFlight, 1, 'the device still has it')
  t.strictSame(relay.hiprioDevice.take().map(message => message.opcode), [Op.INTERRUPT], 'and is told')
  for (const message of [...relay.hiprioDevice.pending]) relay.hiprioDevice.giveBack(message, 0)
  relay.hiprio.complete()
  relay.queue.ring.kickNeeded()
  return request
}

function entry(nodeid: bigint, fh?: bigint): Buffer {
  const bytes = Buffer.alloc(FuseEntryOut.SIZE + (fh === undefined ? 0 : FuseOpenOut.SIZE))
  bytes.writeBigUInt64LE(nodeid, FuseEntryOut.nodeid)
  if (fh !== undefined) bytes.writeBigUInt64LE(fh, FuseEntryOut.SIZE + FuseOpenOut.fh)
  return bytes
}

/** The node ids that reach the device as forgotten. */
function forgotten(relay: RelayFixture): bigint[] {
  relay.hiprio.flush()
  return relay.hiprioDevice.take().flatMap(message => {
    const bytes = Buffer.from(message.bytes)
    relay.hiprioDevice.giveBack(message, 0)
    relay.hiprio.complete()
    if (message.opcode === Op.FORGET) return [message.nodeid]
    return Array.from({ length: bytes.readUInt32LE(FuseInHeader.SIZE) }, (_, i) => bytes.readBigUInt64LE(FuseInHeader.SIZE + 8 + 16 * i))
  })
}

for (const mode of [{ queueSize: 4, indirectDesc: true }, { queueSize: 8, indirectDesc: false }, { queueSize: 64 }] as RelayOptions[]) {
  const options = { ...mode, eventIdx: false, queueClass: DyingRequestQueue }
  const name = `ring of ${mode.queueSize}${mode.indirectDesc === false ? ', direct' : ''}`

  t.test(`CREATE: its lookup is forgotten, its handle released (${name})`, async t => {
    await withRelay(t, options, relay => {
      const request = killed(t, relay, Op.CREATE, args(16, {}, names('file')))
      relay.device.answer(request, { payload: entry(99n, 1234n) })
      t.strictSame(relay.complete(), [], 'nobody is answered twice')
      t.equal(relay.queue.inFlight, 1, 'a RELEASE is under way')
      t.ok(relay.queue.ring.kickNeeded(), 'and the device has to be told')
      const release = relay.device.takeOne()
      t.match(release, { opcode: Op.RELEASE, nodeid: 99n })
      t.equal(Buffer.from(release.bytes).readBigUInt64LE(FuseInHeader.SIZE + FuseReleaseIn.fh), 1234n)
      t.strictSame(forgotten(relay), [99n])
      relay.device.answer(release)
      t.strictSame(relay.complete(), [])
    })
  })

  t.test(`OPEN and OPENDIR: the handle is released on the request's node (${name})`, async t => {
    await withRelay(t, options, relay => {
      for (const [opcode, release] of [[Op.OPEN, Op.RELEASE], [Op.OPENDIR, Op.RELEASEDIR]] as const) {
        const request = killed(t, relay, opcode, args(8))
        const out = Buffer.alloc(FuseOpenOut.SIZE)
        out.writeBigUInt64LE(77n, FuseOpenOut.fh)
        relay.device.answer(request, { payload: out })
        t.strictSame(relay.complete(), [])
        const own = relay.device.takeOne()
        t.match(own, { opcode: release, nodeid: 55n })
        t.equal(Buffer.from(own.bytes).readBigUInt64LE(FuseInHeader.SIZE + FuseReleaseIn.fh), 77n)
        t.strictSame(forgotten(relay), [])
        relay.device.answer(own, { error: -errno.EBADF })
        t.strictSame(relay.complete(), [], 'how it ends concerns nobody')
      }
    })
  })

  t.test(`LOOKUP, READDIRPLUS, READ: lookups are forgotten, nothing is released (${name})`, async t => {
    await withRelay(t, options, relay => {
      relay.device.answer(killed(t, relay, Op.LOOKUP, names('file')), { payload: entry(98n) })
      t.strictSame(relay.complete(), [])
      t.strictSame(forgotten(relay), [98n])
      const directory = Buffer.alloc(3 * direntSize(FuseDirentplus.SIZE, 2))
      for (let i = 0; i < 3; i++) {
        directory.writeBigUInt64LE(BigInt(200 + i), 160 * i)
        directory.writeUInt32LE(2, 160 * i + FuseEntryOut.SIZE + FuseDirent.namelen)
        directory.write('ab', 160 * i + FuseDirentplus.SIZE)
      }
      for (const size of [4096, 65536]) {
        relay.device.answer(killed(t, relay, Op.READDIRPLUS, args(FuseReadIn.SIZE, { [FuseReadIn.size]: size })), { payload: directory })
        t.strictSame(relay.complete(), [])
        t.strictSame(forgotten(relay), [200n, 201n, 202n])
      }
      relay.device.answer(killed(t, relay, Op.READ, args(FuseReadIn.SIZE, { [FuseReadIn.size]: 65536 })), { payload: new Uint8Array(65536) })
      t.strictSame(relay.complete(), [])
      t.strictSame(forgotten(relay), [])
    })
  })

  t.test(`errors, bad replies and a stopped queue give nothing back (${name})`, async t => {
    await withRelay(t, options, relay => {
      const create = args(16, {}, names('file'))
      relay.device.answer(killed(t, relay, Op.CREATE, create), { error: -errno.EINTR })
      t.strictSame(relay.complete(), [])
      relay.device.answer(killed(t, relay, Op.CREATE, create), { payload: entry(99n, 1n), unique: 1n })
      t.strictSame(relay.complete(), [])
      t.equal(relay.count(Counter.BAD_REPLIES), 0)
      const request = killed(t, relay, Op.CREATE, create)
      relay.queue.connected = false
      relay.device.answer(request, { payload: entry(99n, 1n) })
      t.strictSame(relay.complete(), [], 'a DESTROY has freed it')
      t.strictSame(forgotten(relay), [])
      t.strictSame(relay.device.take(), [])
    })
  })

  t.test(`a device that goes away with an abandoned request answers nobody (${name})`, async t => {
    const relay = new RelayFixture(options)
    try {
      const request = killed(t, relay, Op.CREATE, args(16, {}, names('file')))
      t.equal(relay.queue.failInFlight(-errno.EIO), 0)
      t.equal(relay.queue.inFlight, 0)
      relay.device.answer(request, { payload: entry(99n, 1234n) })
      t.strictSame(relay.complete(), [])
      t.equal(relay.queue.inFlight, 0, 'and nothing is given back to it')
    } finally {
      relay.queue.close()
      relay.close()
    }
  })
}

t.test('INIT is never abandoned: the mount needs its answer', async t => {
  await withRelay(t, { queueClass: DyingRequestQueue }, relay => {
    const unique = relay.fuse.send(Op.INIT, args(64), { pid: DYING })!
    relay.receiveAll()
    const request = relay.device.takeOne()
    relay.fuse.send(Op.INTERRUPT, args(8, { 0: Number(unique) }))
    relay.receiveAll()
    t.strictSame(relay.fuse.collect(), [])
    for (const message of relay.hiprioDevice.take()) relay.hiprioDevice.giveBack(message, 0)
    relay.hiprio.complete()
    relay.device.answer(request, { payload: new Uint8Array(64) })
    t.match(relay.complete(), [{ unique, error: 0 }])
    t.strictSame(relay.inits, [0])
  })
})

t.test('a second INTERRUPT of the same request changes nothing', async t => {
  await withRelay(t, { queueClass: DyingRequestQueue }, relay => {
    const request = killed(t, relay, Op.LOOKUP, names('x'))
    relay.fuse.send(Op.INTERRUPT, args(8, { 0: Number(request.unique) }))
    relay.receiveAll()
    t.strictSame(relay.fuse.collect(), [], 'answered once')
    for (const message of relay.hiprioDevice.take()) relay.hiprioDevice.giveBack(message, 0)
    relay.hiprio.complete()
    relay.device.answer(request, { error: -errno.ENOENT })
    t.strictSame(relay.complete(), [])
  })
})
