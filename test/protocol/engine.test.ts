/** The request engine for callers with no kernel between: who waits where, and how each request ends. */
import t from 'tap'
import { EngineRequest, RequestList } from '../../lib/client/engine-request.js'
import { errno } from '../../lib/errors.js'
import { FuseForgetOne, FuseInHeader, FuseInterruptIn, FuseReleaseIn, FuseWriteIn } from '../../lib/fuse/abi.js'
import { Op } from '../../lib/fuse/opcodes.js'
import { CountedReference, IDENTITY, settled, withEngine } from '../support/engine-fixture.js'
import { REPLY_FAULTS, RING_FAULTS } from '../support/scripted-device.js'
import { SeededRandom } from '../support/seeded-random.js'
import { ALL_FEATURES, featureText } from '../support/ring-pair.js'

const READ_4K = Buffer.alloc(40)
READ_4K.writeUInt32LE(4096, 16)
const READ_64K = Buffer.alloc(40)
READ_64K.writeUInt32LE(65536, 16)

t.test('a list of requests', async t => {
  const request = (): EngineRequest => new EngineRequest(1, new Uint8Array(0), undefined, undefined, undefined, undefined, () => 0, () => {}, undefined)
  const [a, b, c] = [request(), request(), request()] as const
  const list = new RequestList()
  for (const each of [a, b, c]) list.push(each)
  list.remove(b)
  t.equal(list.shift(), a)
  list.push(b)
  list.remove(b)
  t.equal(list.shift(), c)
  t.equal(list.shift(), undefined)
  t.equal(list.length, 0)
  list.push(a)
  t.equal(list.first, a, 'usable again when it was empty')
})

t.test('uniques', async t => {
  await t.test('are never 0, and differ', t => withEngine(t, {}, async ({ engine, device }) => {
    const sent = [1, 2, 3].map(() => engine.send(Op.STATFS, 1, 0, 0, () => 0))
    t.strictSame(device.take().map(request => request.unique), [2n, 4n, 6n])
    for (const request of [...device.pending]) device.answer(request, { payload: new Uint8Array(80) })
    engine.called()
    t.strictSame(await Promise.all(sent), [0, 0, 0])
  }))

  await t.test('of live requests are not used again after the last one', t => withEngine(t, { uniqueEnd: [12, 0] }, async fixture => {
    const { device, engine } = fixture
    const first = fixture.unlink()
    const second = fixture.unlink()
    const [live] = device.take()
    t.equal(live!.unique, 2n)
    for (let i = 0; i < 20; i++) {
      const sent = fixture.unlink()
      const request = device.takeOne()
      t.ok(request.unique > 4n && request.unique < 12n && request.unique % 2n === 0n, `${request.unique} is free`)
      device.answer(request)
      engine.called()
      t.equal(await sent, 0)
    }
    for (const request of [...device.pending]) device.answer(request)
    engine.called()
    t.strictSame(await Promise.all([first, second]), [0, 0])
    const again = fixture.unlink()
    device.answer(device.takeOne())
    engine.called()
    t.equal(await again, 0)
  }))
})

t.test('a header says who asks for what', t => withEngine(t, {}, async fixture => {
  const sent = fixture.unlink()
  const request = fixture.device.takeOne()
  const header = Buffer.from(request.bytes)
  t.strictSame({
    len: header.readUInt32LE(FuseInHeader.len), opcode: request.opcode, nodeid: request.nodeid,
    uid: header.readUInt32LE(FuseInHeader.uid), gid: header.readUInt32LE(FuseInHeader.gid), pid: header.readUInt32LE(FuseInHeader.pid),
    name: header.toString('latin1', FuseInHeader.SIZE),
  }, { len: FuseInHeader.SIZE + 5, opcode: Op.UNLINK, nodeid: 1n, ...IDENTITY, name: 'name\0' })
  fixture.device.answer(request, { error: -errno.ENOENT })
  fixture.engine.called()
  t.equal(await sent, -errno.ENOENT)
}))

t.test('payload lies in pages of its own', async t => {
  for (const bytes of [1, 4096, 4097, 1 << 20]) {
    await t.test(`${bytes} bytes`, t => withEngine(t, {}, async fixture => {
      const payload = Buffer.alloc(bytes, 'abc')
      let copied = 0
      const sent = fixture.send(Op.WRITE, Buffer.alloc(FuseWriteIn.SIZE), { payload, copied: () => { copied++ } })
      t.equal(copied, 1, 'may be changed at once')
      payload.fill(0)
      const request = fixture.device.takeOne()
      t.strictSame(request.readable.map(buffer => buffer.length), [80, bytes])
      t.equal((request.readable[1]!.address - fixture.region.address) % 4096, 0)
      t.ok(Buffer.from(request.bytes.subarray(80)).equals(Buffer.alloc(bytes, 'abc')))
      fixture.device.answer(request, { payload: new Uint8Array(8) })
      fixture.engine.called()
      t.equal(await sent, 0)
    }))
  }
  await t.test('more than fits is refused', t => withEngine(t, {}, async fixture => {
    t.equal(await fixture.send(Op.WRITE, Buffer.alloc(40), { payload: new Uint8Array((1 << 20) + 1) }), -errno.EINVAL)
  }))
})

t.test('arguments longer than a slot', t => withEngine(t, {}, async fixture => {
  const names = Buffer.concat([Buffer.alloc(255, 'n'), Buffer.alloc(1), Buffer.alloc(4095, 't'), Buffer.alloc(1)])
  const sent = fixture.send(Op.SYMLINK, names)
  const request = fixture.device.takeOne()
  t.ok(Buffer.from(request.bytes.subarray(40)).equals(names))
  fixture.device.answer(request, { payload: new Uint8Array(128) })
  fixture.engine.called()
  t.equal(await sent, 0)
}))

t.test('INIT', async t => {
  await t.test('everybody else waits for it', t => withEngine(t, { fresh: true }, async fixture => {
    const { device, engine } = fixture
    const early = fixture.unlink()
    t.equal(device.take().length, 0)
    const init = fixture.send(Op.INIT, Buffer.alloc(64))
    t.equal(device.take()[0]!.opcode, Op.INIT)
    device.answer(device.pending[0]!, { payload: new Uint8Array(24) })
    engine.called()
    t.equal(await init, 0, 'may be answered short')
    t.equal(device.take().length, 0)
    engine.initialised()
    t.equal(device.takeOne().opcode, Op.UNLINK)
    device.answer(device.pending[0]!)
    engine.called()
    t.equal(await early, 0)
  }))
  await t.test('that failed refuses everybody', t => withEngine(t, { fresh: true }, async fixture => {
    const early = fixture.unlink()
    fixture.engine.refused()
    t.equal(await early, -errno.ECONNREFUSED)
    t.equal(await fixture.unlink(), -errno.ECONNREFUSED)
  }))
})

t.test('the bound of outstanding requests', t => withEngine(t, { maxOutstanding: 2 }, async fixture => {
  const { device, engine } = fixture
  const sent = [1, 2, 3, 4].map(() => fixture.unlink())
  t.equal(device.take().length, 2)
  t.equal(engine.waiting.length, 2)
  // RELEASE does not wait, and the others then wait for one more
  const file = new CountedReference()
  engine.sendBackground(Op.RELEASE, 1, 0, fixture.args(Buffer.alloc(FuseReleaseIn.SIZE)), file)
  t.equal(file.held, 1)
  t.equal(device.take()[0]!.opcode, Op.RELEASE)
  device.answer(device.pending[0]!)
  engine.called()
  t.equal(device.take().length, 0, 'still two outstanding')
  device.answer(device.pending.find(request => request.opcode === Op.RELEASE)!)
  engine.called()
  t.equal(file.held, 0)
  t.equal(device.take().length, 1)
  while (device.pending.length > 0) {
    device.answer(device.pending[0]!)
    engine.called()
    device.take()
  }
  t.strictSame(await Promise.all(sent), [0, 0, 0, 0])
}))

for (const features of ALL_FEATURES) {
  t.test(`a full ring: ${featureText(features)}`, t => withEngine(t, { queueSize: 4, features, largeBuffers: 2 }, async fixture => {
    const { device, engine } = fixture
    const order: number[] = []
    const sent = Array.from({ length: 10 }, (_, i) => fixture.send(Op.READ, i % 3 === 0 ? READ_64K : READ_4K).then(() => order.push(i)))
    t.ok(engine.pending.length > 0)
    t.equal(engine.waiting.length, 0)
    while (engine.live > 0) {
      device.take()
      device.answer(device.pending[0]!)
      engine.called()
    }
    await Promise.all(sent)
    t.strictSame(order, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 'nobody overtakes')
  }))
}

t.test('interruption', async t => {
  await t.test('of one that waits: it is never sent', t => withEngine(t, { maxOutstanding: 1 }, async fixture => {
    const first = fixture.unlink()
    const abort = new AbortController()
    const second = fixture.unlink({ signal: abort.signal })
    abort.abort()
    t.equal(await second, -errno.EINTR)
    fixture.device.answer(fixture.device.takeOne())
    fixture.engine.called()
    t.equal(await first, 0)
    t.equal(fixture.device.take().length, 0)
    t.strictSame(await fixture.hiprio(), [])
  }))

  await t.test('of one that is pending: it is never sent, and who came later goes on', t => withEngine(t, { largeBuffers: 2 }, async fixture => {
    const { device, engine } = fixture
    const reads = [fixture.send(Op.READ, READ_64K), fixture.send(Op.READ, READ_64K)]
    const abort = new AbortController()
    let copied = 0
    const third = fixture.send(Op.READ, READ_64K, { signal: abort.signal, copied: () => { copied++ } })
    const small = fixture.unlink()
    t.equal(device.take().length, 2)
    t.equal(engine.pending.length, 2)
    abort.abort()
    t.equal(await third, -errno.EINTR)
    t.equal(copied, 1)
    t.equal(device.takeOne().opcode, Op.UNLINK)
    for (const request of [...device.pending]) device.answer(request)
    engine.called()
    t.strictSame(await Promise.all([...reads, small]), [0, 0, 0])
  }))

  await t.test('before it began', t => withEngine(t, {}, async fixture => {
    t.equal(await fixture.unlink({ signal: AbortSignal.abort() }), -errno.EINTR)
    t.equal(fixture.device.take().length, 0)
  }))

  await t.test('of one that the device has: INTERRUPT, EINTR at once, references until the answer', t => withEngine(t, {}, async fixture => {
    const { device, engine } = fixture
    const [node, file] = [new CountedReference(), new CountedReference()]
    const abort = new AbortController()
    let decoded = 0
    const sent = fixture.send(Op.READ, READ_4K, { signal: abort.signal, first: node, second: file }, () => ++decoded)
    const request = device.takeOne()
    t.strictSame([node.held, file.held], [0, 0], 'a caller that waits holds them itself')
    abort.abort()
    t.equal(await sent, -errno.EINTR)
    const [interrupt] = await fixture.hiprio()
    t.equal(interrupt!.opcode, Op.INTERRUPT)
    t.equal(interrupt!.bytes.readBigUInt64LE(FuseInHeader.SIZE + FuseInterruptIn.unique), request.unique)
    t.strictSame([node.held, file.held, engine.live], [1, 1, 1])
    device.answer(request, { payload: new Uint8Array(100) })
    engine.called()
    t.strictSame([node.held, file.held, engine.live, decoded], [0, 0, 0, 0])
  }))

  await t.test('a second time, or after the end, does nothing', t => withEngine(t, {}, async fixture => {
    const abort = new AbortController()
    const sent = fixture.unlink({ signal: abort.signal })
    fixture.device.answer(fixture.device.takeOne())
    fixture.engine.called()
    abort.abort()
    t.equal(await sent, 0)
    t.strictSame(await fixture.hiprio(), [])
  }))

  await t.test('what the late answer gives out is given back', t => withEngine(t, {}, async fixture => {
    const { device, engine } = fixture
    const abort = new AbortController()
    const sent = fixture.send(Op.CREATE, Buffer.concat([Buffer.alloc(16), Buffer.from('new\0')]), { signal: abort.signal })
    const request = device.takeOne()
    abort.abort()
    t.equal(await sent, -errno.EINTR)
    await fixture.hiprio()
    const reply = Buffer.alloc(128 + 16)
    reply.writeBigUInt64LE(77n, 0)
    reply.writeBigUInt64LE(0x1122334455667788n, 128)
    device.answer(request, { payload: reply })
    engine.called()
    const [forget] = await fixture.hiprio()
    t.equal(forget!.opcode, Op.FORGET)
    t.equal(forget!.bytes.readBigUInt64LE(FuseInHeader.nodeid), 77n)
    t.equal(forget!.bytes.readBigUInt64LE(FuseInHeader.SIZE), 1n)
    const release = device.takeOne()
    t.equal(release.opcode, Op.RELEASE)
    t.equal(release.nodeid, 77n)
    t.equal(Buffer.from(release.bytes).readBigUInt64LE(FuseInHeader.SIZE + FuseReleaseIn.fh), 0x1122334455667788n)
    device.answer(release)
    engine.called()
  }))
})

t.test('wrong replies', async t => {
  for (const [name, fault] of Object.entries(REPLY_FAULTS)) {
    await t.test(name, t => withEngine(t, {}, async fixture => {
      const { device, engine } = fixture
      const other = fixture.unlink()
      const sent = fixture.send(Op.READ, READ_4K)
      device.take()
      fault(device, device.pending[1]!)
      engine.called()
      t.equal(await sent, -errno.EIO)
      device.answer(device.pending[0]!)
      engine.called()
      t.equal(await other, 0, 'the others go on')
    }))
  }
  await t.test('a good reply that is too short', t => withEngine(t, {}, async fixture => {
    const sent = fixture.send(Op.LOOKUP, Buffer.from('a\0'))
    fixture.device.answer(fixture.device.takeOne(), { payload: new Uint8Array(64) })
    fixture.engine.called()
    t.equal(await sent, -errno.EIO)
  }))
  for (const [name, fault] of Object.entries(RING_FAULTS)) {
    await t.test(name, t => withEngine(t, {}, async fixture => {
      const sent = [fixture.unlink(), fixture.send(Op.READ, READ_4K)]
      fixture.device.take()
      fault(fixture.device, fixture.device.pending[1]!)
      fixture.engine.called()
      fixture.engine.called()
      t.equal(fixture.broken.length, 1, fixture.broken[0] ?? 'not broken')
      t.equal(await sent[0], -errno.ECONNABORTED)
      await sent[1]
      t.equal(await fixture.unlink(), -errno.ENOTCONN)
    }))
  }
  await t.test('DESTROY may come back unwritten', t => withEngine(t, {}, async fixture => {
    const sent = fixture.send(Op.DESTROY)
    fixture.device.answer(fixture.device.takeOne(), { unwritten: true })
    fixture.engine.called()
    t.equal(await sent, 0)
  }))
})

t.test('a device that goes', t => withEngine(t, { maxOutstanding: 3, largeBuffers: 2 }, async fixture => {
  const { engine, device } = fixture
  const file = new CountedReference()
  engine.sendBackground(Op.RELEASE, 1, 0, fixture.args(Buffer.alloc(24)), file)
  const abort = new AbortController()
  const interrupted = fixture.send(Op.READ, READ_64K, { signal: abort.signal, first: file })
  const sent = [READ_64K, READ_64K, READ_4K, READ_4K].map(args => fixture.send(Op.READ, args))
  device.take()
  abort.abort()
  t.equal(await interrupted, -errno.EINTR)
  t.equal(file.held, 2)
  t.ok(engine.pending.length + engine.waiting.length > 0)
  t.equal(engine.abort(), 6)
  t.strictSame(await Promise.all(sent), [1, 2, 3, 4].map(() => -errno.ECONNABORTED))
  t.equal(file.held, 0)
  t.equal(engine.abort(), 0, 'once')
  t.equal(await fixture.unlink(), -errno.ENOTCONN)
  await engine.drained()
  // what the device still writes is nobody's business
  device.answer(device.pending[0]!)
  engine.called()
}))

t.test('FORGETs', async t => {
  await t.test('of one turn travel together', t => withEngine(t, {}, async fixture => {
    for (let i = 2; i < 12; i++) fixture.engine.forget(i, 1, i)
    const [batch, ...more] = await fixture.hiprio()
    t.equal(more.length, 0)
    t.equal(batch!.opcode, Op.BATCH_FORGET)
    t.equal(batch!.bytes.readUInt32LE(FuseInHeader.SIZE), 10)
    t.equal(batch!.bytes.readBigUInt64LE(FuseInHeader.SIZE + 8 + FuseForgetOne.nodeid), 0x1_0000_0002n)
  }))
  await t.test('that find hiprio full are sent when it has room', t => withEngine(t, { queueSize: 4 }, async fixture => {
    const { engine, hiprioDevice } = fixture
    for (let i = 0; i < 40; i++) {
      engine.forget(i + 2, 0, 1)
      await Promise.resolve()
    }
    const nodes: bigint[] = []
    for (let turns = 0; nodes.length < 40 && turns < 100; turns++) {
      for (const request of hiprioDevice.take(1)) {
        const bytes = Buffer.from(request.bytes)
        if (request.opcode === Op.FORGET) nodes.push(request.nodeid)
        else for (let i = 0; i < bytes.readUInt32LE(FuseInHeader.SIZE); i++) nodes.push(bytes.readBigUInt64LE(FuseInHeader.SIZE + 8 + 16 * i))
        hiprioDevice.giveBack(request, 0)
      }
      t.ok(hiprioDevice.ring.callNeeded() || nodes.length === 40 || engine.hiprio.parked === 0, 'the driver wants to know')
      engine.called()
    }
    t.strictSame(nodes, Array.from({ length: 40 }, (_, i) => BigInt(i + 2)), 'none is lost, none overtakes')
  }))
  await t.test('the end waits for them', t => withEngine(t, {}, async fixture => {
    const { engine, hiprioDevice } = fixture
    engine.forget(2, 0, 1)
    const drained = engine.drained()
    await Promise.resolve()
    hiprioDevice.take()
    t.equal(await settled(drained), false)
    hiprioDevice.giveBack(hiprioDevice.pending[0]!, 0)
    t.ok(hiprioDevice.ring.callNeeded())
    engine.called()
    await drained
  }))
})

t.test('many callers, a slow device, interruptions: each ends once and everything comes back', async t => {
  const seed = Number(process.env['SEED'] ?? Date.now() % 1e9)
  t.comment(`SEED=${seed}`)
  const random = new SeededRandom(seed)
  for (let round = 0; round < 30; round++) {
    await withEngine(t, { queueSize: 2 ** (2 + random.below(4)), largeBuffers: 2 + random.below(4), maxOutstanding: 1 + random.below(20), features: ALL_FEATURES[random.below(4)]! }, async fixture => {
      const { engine, device } = fixture
      const node = new CountedReference()
      const ends = new Map<number, number>()
      const controllers: AbortController[] = []
      let sent = 0
      for (let turn = 0; turn < 200 || engine.live > 0; turn++) {
        if (turn < 200 && random.below(3) > 0) {
          const id = sent++
          const abort = new AbortController()
          controllers.push(abort)
          void fixture.send(Op.READ, random.below(2) ? READ_64K : READ_4K, { signal: abort.signal, first: node }).then(() => ends.set(id, (ends.get(id) ?? 0) + 1))
        }
        if (controllers.length > 0 && random.below(6) === 0) controllers[random.below(controllers.length)]!.abort()
        device.take(random.below(3))
        if (device.pending.length > 0 && random.below(2)) device.answer(device.pending[random.below(device.pending.length)]!, { payload: new Uint8Array(random.below(4096)) })
        if (random.below(2)) engine.called()
        await fixture.hiprio()
      }
      await Promise.resolve()
      if (ends.size !== sent || [...ends.values()].some(count => count !== 1)) t.fail(`${sent} sent, ${ends.size} ended`)
      t.equal(node.held, 0)
    })
  }
})

