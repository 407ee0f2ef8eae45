/**
 * The notification queue from both ends: what a good device tells arrives at /dev/fuse byte for
 * byte, what a bad one says does not, and the buffers go round for ever.
 */
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, truncateSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { NotificationSender, NOTIFY_BUFFER_BYTES } from '../../lib/device/notification-sender.js'
import { planMemory } from '../../lib/driver/memory-plan.js'
import { NotificationQueue } from '../../lib/driver/notification-queue.js'
import {
  FUSE_EXPIRE_ONLY, FUSE_NOTIFY_DELETE, FUSE_NOTIFY_INC_EPOCH, FUSE_NOTIFY_INVAL_ENTRY, FUSE_NOTIFY_INVAL_INODE, FUSE_NOTIFY_POLL, FUSE_NOTIFY_RESEND,
  FUSE_NOTIFY_RETRIEVE, FUSE_NOTIFY_STORE, FuseNotifyDeleteOut, FuseNotifyInvalEntryOut, FuseNotifyInvalInodeOut, FuseOutHeader,
} from '../../lib/fuse/abi.js'
import { createEventfd, drainEventfd } from '../../lib/sys/io.js'
import { mapAnonymous, unmap, viewRegion, type Region } from '../../lib/sys/memory.js'
import { DeviceRing } from '../../lib/virtio/device-ring.js'
import type { RingFeatures } from '../../lib/virtio/driver-ring.js'
import { ALL_FEATURES, featureText } from '../support/ring-pair.js'
import { SeededRandom } from '../support/seeded-random.js'

const SIZE = 8

class Bench {
  readonly plan
  readonly notification
  readonly region: Region
  readonly queue: NotificationQueue
  readonly #directory = mkdtempSync(join(tmpdir(), 'vfb-'))
  readonly #fd: number

  constructor(t: Test, readonly features: RingFeatures, flags = 'a+') {
    this.plan = planMemory({ queues: 1, queueSize: SIZE, indirectDesc: features.indirectDesc, largeBuffers: 2, notifyBufBytes: NOTIFY_BUFFER_BYTES })
    this.notification = this.plan.notification!
    this.region = viewRegion(mapAnonymous(this.plan.lengthBytes), this.plan.lengthBytes)
    closeSync(openSync(join(this.#directory, 'fuse'), 'w'))
    // what is written to it is seen one by one, as by /dev/fuse
    this.#fd = openSync(join(this.#directory, 'fuse'), flags)
    this.queue = new NotificationQueue(this.region, this.notification, features, this.#fd)
    t.teardown(() => {
      closeSync(this.#fd)
      rmSync(this.#directory, { recursive: true })
      unmap(this.region.address, this.plan.lengthBytes)
    })
  }

  /** What has gone to the kernel since the last call, as [code, body]. */
  kernel(): [code: number, body: Buffer][] {
    const path = join(this.#directory, 'fuse')
    const bytes = readFileSync(path)
    truncateSync(path)
    const out: [number, Buffer][] = []
    for (let at = 0; at < bytes.length; at += bytes.readUInt32LE(at)) {
      out.push([bytes.readInt32LE(at + FuseOutHeader.error), bytes.subarray(at + FuseOutHeader.SIZE, at + bytes.readUInt32LE(at))])
    }
    return out
  }

  ring(): DeviceRing {
    return new DeviceRing(this.region, this.notification.ring, this.features)
  }
}

function entryBody(parent: number, name: string, flags: number): Buffer {
  const body = Buffer.alloc(FuseNotifyInvalEntryOut.SIZE + name.length + 1)
  body.writeBigUInt64LE(BigInt(parent), FuseNotifyInvalEntryOut.parent)
  body.writeUInt32LE(name.length, FuseNotifyInvalEntryOut.namelen)
  body.writeUInt32LE(flags, FuseNotifyInvalEntryOut.flags)
  body.write(name, FuseNotifyInvalEntryOut.SIZE, 'latin1')
  return body
}

function deleteBody(parent: number, child: number, name: string): Buffer {
  const body = Buffer.alloc(FuseNotifyDeleteOut.SIZE + name.length + 1)
  body.writeBigUInt64LE(BigInt(parent), FuseNotifyDeleteOut.parent)
  body.writeBigUInt64LE(BigInt(child), FuseNotifyDeleteOut.child)
  body.writeUInt32LE(name.length, FuseNotifyDeleteOut.namelen)
  body.write(name, FuseNotifyDeleteOut.SIZE, 'latin1')
  return body
}

function inodeBody(nodeid: number, off: bigint): Buffer {
  const body = Buffer.alloc(FuseNotifyInvalInodeOut.SIZE)
  body.writeBigUInt64LE(BigInt(nodeid), FuseNotifyInvalInodeOut.ino)
  body.writeBigInt64LE(off, FuseNotifyInvalInodeOut.off)
  return body
}

for (const features of ALL_FEATURES) {
  t.test(`a device that tells: ${featureText(features)}`, async t => {
    const bench = new Bench(t, features)
    const callFd = createEventfd()
    t.teardown(() => closeSync(callFd))
    const sender = new NotificationSender(bench.region, bench.notification.ring, features, callFd)
    const name = Buffer.from('a name \xff', 'latin1')
    for (let round = 0; round < 5 * SIZE; round++) {
      bench.queue.ring.disableCallbacks()
      t.ok(bench.queue.ring.enableCallbacks())
      t.ok(sender.inode(2 ** 40 + round, true))
      t.ok(sender.inode(5, false))
      t.ok(sender.entry(1, name, FUSE_EXPIRE_ONLY))
      t.ok(sender.removed(1, 2 ** 33, name))
      t.ok(sender.epoch())
      sender.flush()
      t.equal(drainEventfd(callFd), 8, 'the driver is called')
      t.equal(bench.queue.complete(100), 5)
      t.strictSame(bench.kernel(), [
        [FUSE_NOTIFY_INVAL_INODE, inodeBody(2 ** 40 + round, 0n)],
        [FUSE_NOTIFY_INVAL_INODE, inodeBody(5, -1n)],
        [FUSE_NOTIFY_INVAL_ENTRY, entryBody(1, 'a name \xff', FUSE_EXPIRE_ONLY)],
        [FUSE_NOTIFY_DELETE, deleteBody(1, 2 ** 33, 'a name \xff')],
        [FUSE_NOTIFY_INC_EPOCH, Buffer.alloc(0)],
      ])
    }
    t.match(bench.queue.counts, { written: 25 * SIZE, notCached: 0, refused: 0, bad: 0 })
    t.ok(sender.entry(1, Buffer.alloc(255, 'n'), 0), 'the longest name')
    for (let i = 1; i < SIZE; i++) t.ok(sender.inode(i, true))
    t.notOk(sender.inode(9, true), 'no buffer is left')
    t.equal(bench.queue.complete(3), 3, 'as many as asked for')
    t.ok(sender.inode(9, true))
    t.equal(bench.queue.complete(100), SIZE - 2)
    t.equal(bench.queue.ring.broken, '')
    t.equal(sender.ring.broken, '')
    t.equal(bench.queue.ring.inFlight, SIZE, 'every buffer is with the device')
  })

  t.test(`a device that says what it must not: ${featureText(features)}`, async t => {
    const bench = new Bench(t, features)
    const ring = bench.ring()
    const say = (code: number, body: Buffer, change: { len?: number, unique?: bigint, used?: number } = {}): void => {
      const head = ring.pop()
      t.ok(head >= 0)
      const at = ring.addresses[0]! - bench.region.address
      const length = FuseOutHeader.SIZE + body.length
      bench.region.view.setUint32(at + FuseOutHeader.len, change.len ?? length, true)
      bench.region.view.setInt32(at + FuseOutHeader.error, code, true)
      bench.region.view.setBigUint64(at + FuseOutHeader.unique, change.unique ?? 0n, true)
      bench.region.bytes.set(body, at + FuseOutHeader.SIZE)
      ring.push(head, change.used ?? length)
    }
    let bad = 0
    const wrong = (what: string, ...args: Parameters<typeof say>): void => {
      say(...args)
      t.equal(bench.queue.complete(1), 1)
      t.strictSame(bench.kernel(), [], what)
      t.equal(bench.queue.counts.bad, ++bad, what)
    }
    const inode = inodeBody(1, 0n)
    for (const code of [FUSE_NOTIFY_POLL, FUSE_NOTIFY_STORE, FUSE_NOTIFY_RETRIEVE, FUSE_NOTIFY_RESEND, 0, -1, -5, 99, 2 ** 31 - 1]) wrong(`code ${code}`, code, inode)
    wrong('an answer to a request', FUSE_NOTIFY_INVAL_INODE, inode, { unique: 2n })
    wrong('an answer to a request, high half', FUSE_NOTIFY_INVAL_INODE, inode, { unique: 1n << 32n })
    wrong('len is more', FUSE_NOTIFY_INVAL_INODE, inode, { len: 41 })
    wrong('len is less', FUSE_NOTIFY_INVAL_INODE, inode, { len: 39 })
    wrong('len is huge', FUSE_NOTIFY_INVAL_INODE, inode, { len: 0xffff_ffff })
    wrong('nothing was written', FUSE_NOTIFY_INVAL_INODE, inode, { used: 0 })
    wrong('less than a header was written', FUSE_NOTIFY_INVAL_INODE, inode, { used: 15 })
    wrong('more than the buffer was written', FUSE_NOTIFY_INVAL_INODE, inode, { used: bench.notification.bufferBytes + 1, len: bench.notification.bufferBytes + 1 })
    wrong('4 GiB were written', FUSE_NOTIFY_INVAL_INODE, inode, { used: 0xffff_ffff })
    wrong('a short inode', FUSE_NOTIFY_INVAL_INODE, inode.subarray(0, 23))
    wrong('a long inode', FUSE_NOTIFY_INVAL_INODE, Buffer.alloc(25))
    wrong('an epoch with a body', FUSE_NOTIFY_INC_EPOCH, Buffer.alloc(8))
    for (const make of [(name: string): [number, Buffer] => [FUSE_NOTIFY_INVAL_ENTRY, entryBody(1, name, 0)], (name: string): [number, Buffer] => [FUSE_NOTIFY_DELETE, deleteBody(1, 2, name)]]) {
      const namelenAt = make('')[0] === FUSE_NOTIFY_DELETE ? FuseNotifyDeleteOut.namelen : FuseNotifyInvalEntryOut.namelen
      wrong('a name of no bytes', ...make(''))
      wrong('a name with a slash', ...make('a/b'))
      wrong('a name with a NUL', ...make('a\0b'))
      const [code, body] = make('name')
      wrong('no room for the structure', code, body.subarray(0, 15))
      wrong('no NUL', code, Buffer.concat([body.subarray(0, -1), Buffer.from('x')]))
      for (const length of [0, 3, 5, 1025, 0x7fff_ffff, 0xffff_ffff]) {
        const other = Buffer.from(body)
        other.writeUInt32LE(length, namelenAt)
        wrong(`namelen ${length} of 4`, code, other)
      }
    }
    wrong('unknown flags', FUSE_NOTIFY_INVAL_ENTRY, entryBody(1, 'a', 2))
    say(FUSE_NOTIFY_INVAL_INODE, inode)
    t.equal(bench.queue.complete(1), 1)
    t.equal(bench.kernel().length, 1, 'after all that a good one arrives')
    t.equal(bench.queue.ring.inFlight, SIZE)
    bench.queue.disconnect()
    say(FUSE_NOTIFY_INVAL_INODE, inode)
    t.equal(bench.queue.complete(1), 1)
    t.strictSame(bench.kernel(), [], 'nothing goes to the kernel any more')
    t.equal(bench.queue.ring.inFlight, SIZE - 1, 'and the device gets no buffer back')
  })

  t.test(`noise in the buffers: ${featureText(features)}`, async t => {
    const bench = new Bench(t, features)
    const ring = bench.ring()
    const random = new SeededRandom(7)
    for (let round = 0; round < 3000; round++) {
      const head = ring.pop()
      const at = ring.addresses[0]! - bench.region.address
      const length = random.below(bench.notification.bufferBytes + 1)
      for (let i = 0; i < length; i++) bench.region.bytes[at + i] = random.below(256)
      bench.region.view.setUint32(at, length, true)
      bench.region.view.setInt32(at + FuseOutHeader.error, random.below(10), true)
      bench.region.view.setBigUint64(at + FuseOutHeader.unique, 0n, true)
      ring.push(head, length)
      bench.queue.complete(1)
    }
    const { written, bad } = bench.queue.counts
    t.equal(written + bad, 3000)
    t.equal(bench.queue.ring.broken, '')
    for (const [code, body] of bench.kernel()) {
      t.ok([FUSE_NOTIFY_INVAL_INODE, FUSE_NOTIFY_INVAL_ENTRY, FUSE_NOTIFY_DELETE, FUSE_NOTIFY_INC_EPOCH].includes(code))
      if (code === FUSE_NOTIFY_INVAL_INODE) t.equal(body.length, FuseNotifyInvalInodeOut.SIZE)
    }
  })
}

t.test('a device that breaks the ring', async t => {
  for (const [what, act] of [
    ['used.idx ahead', (bench: Bench) => bench.region.view.setUint16(bench.notification.ring.used + 2, SIZE + 1, true)],
    ['an id that is none', (bench: Bench) => bench.ring().push(SIZE + 3, 40)],
    ['an id twice', (bench: Bench) => {
      const ring = bench.ring()
      const head = ring.pop()
      ring.push(head, 40)
      ring.push(head, 40)
      ring.push(head, 40)
    }],
  ] as const) {
    const bench = new Bench(t, { indirectDesc: true, eventIdx: true })
    act(bench)
    bench.queue.complete(100)
    if (what !== 'an id twice') t.not(bench.queue.ring.broken, '', what)
    const { inFlight } = bench.queue.ring
    t.ok(inFlight <= SIZE, `${what}: ${inFlight} buffers with the device`)
    bench.queue.complete(100)
    t.equal(bench.queue.waitMs, -1)
  }
})

t.test('a kernel that refuses', async t => {
  const bench = new Bench(t, { indirectDesc: true, eventIdx: true }, 'r')
  const sender = new NotificationSender(bench.region, bench.notification.ring, bench.features, 0)
  sender.inode(1, true)
  sender.entry(1, Buffer.from('a'), 0)
  t.equal(bench.queue.complete(10), 2)
  t.match(bench.queue.counts, { written: 0, refused: 2 })
  t.equal(bench.queue.waitMs, -1, 'EBADF is no reason to try again')
})
