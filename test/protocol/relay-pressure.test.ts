/** Full rings and used-up buffers: reading stops after exactly as many requests as fit, and goes on from a completion. */
import t from 'tap'
import { FuseReadIn, FuseWriteIn } from '../../lib/fuse/abi.js'
import { Op } from '../../lib/fuse/opcodes.js'
import { args, pattern } from '../support/mock-fuse.js'
import { Received, withRelay } from '../support/relay-fixture.js'

const read = (size: number): Uint8Array => args(FuseReadIn.SIZE, { [FuseReadIn.size]: size })
const write = (data: Uint8Array): Uint8Array => args(FuseWriteIn.SIZE, { [FuseWriteIn.size]: data.length }, data)

/** Descriptors of a chain: STATFS 2, READ 3, WRITE 3, WRITE-like IOCTL 4; a worst case of 4 is kept free before each read. */
const SHAPES: [name: string, opcode: number, body: Uint8Array, descriptors: number, reply: number][] = [
  ['STATFS', Op.STATFS, new Uint8Array(0), 2, 80],
  ['READ of a page', Op.READ, read(4096), 3, 4096],
  ['WRITE of a page', Op.WRITE, write(pattern(4096)), 3, 8],
]

for (const eventIdx of [false, true]) {
  for (const indirectDesc of [false, true]) {
    for (const queueSize of [4, 8, 32]) {
      t.test(`ring of ${queueSize}, ${indirectDesc ? 'indirect' : 'direct'}, event index ${eventIdx ? 'on' : 'off'}`, async t => {
        for (const [name, opcode, body, descriptors, reply] of SHAPES) {
          await withRelay(t, { queueSize, indirectDesc, eventIdx, largeBuffers: 64 }, relay => {
            let fit = 0
            for (let free = queueSize; indirectDesc ? free >= 1 : free >= 4; free -= indirectDesc ? 1 : descriptors) fit++
            const uniques = []
            for (let i = 0; i < fit + 3; i++) uniques.push(relay.fuse.send(opcode, body))
            t.strictSame(relay.receiveAll(), { count: fit, stopped: Received.FULL }, `${name}: ${fit} fit`)
            t.notOk(relay.queue.hasRoom)
            t.strictSame(relay.receiveAll(), { count: 0, stopped: Received.FULL }, 'and no more, however often it is asked')
            const taken = relay.device.take()
            t.equal(taken.length, fit)
            t.equal(relay.fuse.collect().length, 0, 'nobody is answered by anything but the device')
            // one completion makes room for one, in the middle of the others
            for (let i = 0; i < 3; i++) {
              const [done] = relay.device.pending.splice(relay.device.pending.length >> 1, 1)
              relay.device.answer(done!, { payload: pattern(reply) })
              t.match(relay.complete(), [{ unique: done!.unique, error: 0 }])
              t.strictSame(relay.receiveAll(), { count: 1, stopped: i < 2 || !relay.queue.hasRoom ? Received.FULL : Received.NONE })
              relay.device.take()
            }
            for (const request of [...relay.device.pending]) relay.device.answer(request, { payload: pattern(reply) })
            relay.complete()
            t.equal(relay.receiveAll().stopped, Received.NONE, 'everything was read')
            t.strictSame(relay.fuse.replies.map(r => r.unique).sort((a, b) => Number(a - b)), uniques, 'each was answered once')
          })
        }
      })
    }
  }
}

t.test('large buffers used up by WRITEs: one is always left for the next read', async t => {
  await withRelay(t, { queueSize: 64, largeBuffers: 4 }, relay => {
    for (let i = 0; i < 6; i++) relay.fuse.send(Op.WRITE, write(pattern(100, i)))
    t.strictSame(relay.receiveAll(), { count: 3, stopped: Received.FULL })
    const taken = relay.device.take()
    t.equal(new Set(taken.map(request => request.readable[1]!.address)).size, 3, 'each has a buffer of its own')
    relay.device.answer(taken[1]!, { payload: pattern(8) })
    relay.complete()
    t.strictSame(relay.receiveAll(), { count: 1, stopped: Received.FULL })
    for (let round = 0; round < 3; round++) {
      relay.device.take()
      for (const request of [...relay.device.pending]) relay.device.answer(request, { payload: pattern(8) })
      relay.complete()
      relay.receiveAll()
    }
    t.equal(relay.fuse.replies.length, 6)
  })
})

t.test('large buffers used up by READs', async t => {
  await withRelay(t, { queueSize: 64, largeBuffers: 2 }, relay => {
    for (let i = 0; i < 3; i++) relay.fuse.send(Op.READ, read(8192))
    for (let i = 0; i < 3; i++) {
      t.strictSame(relay.receiveAll(), { count: 1, stopped: Received.FULL }, 'one at a time')
      relay.device.answer(relay.device.takeOne(), { payload: pattern(8192) })
      relay.complete()
    }
    t.equal(relay.receiveAll().stopped, Received.NONE)
  })
})

t.test('small requests do not wait for large buffers', async t => {
  await withRelay(t, { queueSize: 64, largeBuffers: 2 }, relay => {
    for (let i = 0; i < 50; i++) relay.fuse.send(Op.READ, read(4096))
    t.strictSame(relay.receiveAll(), { count: 50, stopped: Received.NONE })
    for (const request of relay.device.take()) relay.device.answer(request, { payload: pattern(4096) })
    t.equal(relay.complete().length, 50)
  })
})
