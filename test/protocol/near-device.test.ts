/** The near end of a relay on real rings, with the test at the other end of two pipes. */
import t from 'tap'
import { Slot } from '../../lib/driver/memory-plan.js'
import { FuseOutHeader } from '../../lib/fuse/abi.js'
import { Op } from '../../lib/fuse/opcodes.js'
import { DYING, makeScene, type Message } from '../support/near-scene.js'

const MIB = 1 << 20

t.test('requests go out as they lie, replies come back in any order', async t => {
  const scene = makeScene(t)
  const { device, region } = scene
  for (let slot = 0; slot < 4; slot++) scene.request(slot, Op.STATFS)
  t.ok(device.pass() >= 4)
  const messages = scene.messages()
  t.strictSame(messages.map(({ opcode, length, pid }) => [opcode, length, pid]), Array(4).fill([Op.STATFS, 80, 0]), 'without the pid')
  t.equal(new Set(messages.map(({ low, high }) => `${high}:${low}`)).size, 4, 'each with a unique of its own')
  t.strictSame(scene.used(), [])
  for (const i of [2, 0, 3, 1]) scene.reply(messages[i]!)
  t.strictSame(scene.used(), [[2, 16], [0, 16], [3, 16], [1, 16]])
  t.equal(region.view.getUint32(scene.slotAt(3) + Slot.OUT + FuseOutHeader.unique, true), 8, 'with the unique of the driver')
  t.equal(device.broken, '')
})

t.test('data of both directions, in parts', async t => {
  const scene = makeScene(t)
  const { device, region } = scene
  const data = Buffer.alloc(700_001, 'some data to be written ')
  region.bytes.set(data, scene.largeAt(0))
  scene.request(0, Op.WRITE, { inBytes: data.length })
  scene.request(1, Op.READ, { outBytes: MIB })
  device.pass()
  t.ok(device.blocked, 'a pipe does not hold all of it')
  const [written, reading] = scene.messages()
  t.ok(written!.bytes.subarray(80).equals(data))
  t.notOk(device.blocked)
  const answer = Buffer.alloc(MIB - 5, 'what was read ')
  for (const partBytes of [1, 15, 17, 65_000]) {
    scene.reply(reading!, partBytes < 1000 ? answer.subarray(0, 300) : answer, partBytes)
    const length = partBytes < 1000 ? 300 : answer.length
    t.strictSame(scene.used(), [[1, 16 + length]], `in parts of ${partBytes}`)
    t.ok(Buffer.from(region.bytes.subarray(scene.largeAt(1), scene.largeAt(1) + length)).equals(answer.subarray(0, length)))
    scene.request(1, Op.READ, { outBytes: MIB })
    device.pass()
    Object.assign(reading!, scene.messages()[0])
  }
  t.equal(device.broken, '')
})

t.test('no more in flight than the far end takes', async t => {
  const scene = makeScene(t, { requests: 3, large: 2 })
  const { device } = scene
  for (let slot = 0; slot < 5; slot++) scene.request(slot, Op.STATFS)
  device.pass()
  const first = scene.messages()
  t.equal(first.length, 3)
  scene.reply(first[1]!)
  t.equal(scene.messages().length, 1, 'the next one goes when there is room')
  t.strictSame(scene.used(), [[1, 16]])

  const large = makeScene(t, { requests: 16, large: 2 })
  for (let slot = 0; slot < 4; slot++) large.request(slot, Op.READ, { outBytes: MIB })
  large.device.pass()
  const [one, ...rest] = large.messages()
  t.equal(rest.length, 1, 'a large reply needs a large buffer')
  large.reply(one!, Buffer.alloc(10))
  t.equal(large.messages().length, 1)
})

t.test('FORGETs and INTERRUPTs overtake what waits', async t => {
  const scene = makeScene(t, { requests: 2, large: 4 })
  const { device, region } = scene
  for (let slot = 0; slot < 5; slot++) scene.request(slot, Op.STATFS, { pid: slot === 3 ? DYING : process.pid })
  device.pass()
  const sent = scene.messages()
  t.equal(sent.length, 2)
  scene.urgent(0, Op.FORGET, 1, 0)
  // of one that is at the far end, of two that wait here, of one that nobody knows
  scene.urgent(1, Op.INTERRUPT, 2 * 1 + 2, 0)
  scene.urgent(2, Op.INTERRUPT, 2 * 3 + 2, 0)
  scene.urgent(3, Op.INTERRUPT, 2 * 4 + 2, 0)
  scene.urgent(4, Op.INTERRUPT, 4444, 0)
  device.pass()
  const urgent = scene.messages()
  t.strictSame(urgent.map(({ opcode }) => opcode), [Op.FORGET, Op.INTERRUPT])
  t.strictSame([urgent[1]!.bytes.readUInt32LE(40), urgent[1]!.bytes.readUInt32LE(44)], [sent[1]!.low, sent[1]!.high], 'by its unique on the wire')
  t.strictSame(scene.usedUrgent().sort(), [0, 1, 2, 3, 4], 'all buffers came back')
  t.strictSame(scene.used(), [[3, 16]], 'the one whose caller is being killed is given up')
  t.equal(region.view.getInt32(scene.slotAt(3) + Slot.OUT + FuseOutHeader.error, true), -4, 'EINTR')
  scene.reply(sent[0]!)
  scene.reply(sent[1]!)
  t.equal(scene.messages().length, 2, 'and never sent')
  t.equal(device.broken, '')
})

t.test('a reply that nobody asked for, and one that comes twice', async t => {
  for (const wrong of [(message: Message) => ({ ...message, low: message.low + 2 }), (message: Message) => ({ ...message, high: message.high + 1 })]) {
    const scene = makeScene(t)
    scene.request(0, Op.STATFS)
    scene.device.pass()
    scene.reply(wrong(scene.messages()[0]!))
    t.match(scene.device.broken, /fuse_out_header.unique is .*, expected that of a request in flight/)
    t.strictSame(scene.used(), [])
  }
  const scene = makeScene(t)
  scene.request(0, Op.STATFS)
  scene.device.pass()
  const [message] = scene.messages()
  scene.reply(message!)
  scene.reply(message!)
  t.match(scene.device.broken, /fuse_out_header.unique/)
  t.strictSame(scene.used(), [[0, 16]])
})

t.test('there may be as many one after the other as there are links', async t => {
  for (let i = 0; i < 100; i++) makeScene(t).device.close()
})
