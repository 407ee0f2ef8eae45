/** A queue that outlives its device: numbers of its own, and what happens to nodes, open files and requests when the device comes back. */
import t from 'tap'
import { errno } from '../../lib/errors.js'
import { FuseAttrOut, FuseForgetIn, FuseInHeader, FuseOpenIn, FuseReadIn, FuseReleaseIn } from '../../lib/fuse/abi.js'
import { Op } from '../../lib/fuse/opcodes.js'
import { DYING, DyingSessionQueue } from '../support/dying.js'
import { args, batchForget, forget, names, pattern } from '../support/mock-fuse.js'
import { Received } from '../support/relay-fixture.js'
import { attributes, entry, handleOf, numberOf, opened, withSession, type SessionFixture } from '../support/session-fixture.js'

const O_RDWR = 2
const O_APPEND = 0o2000
const O_TRUNC = 0o1000
const getattr = new Uint8Array(16)
const open = (flags: number): Uint8Array => args(FuseOpenIn.SIZE, { [FuseOpenIn.flags]: flags })
const read = (fh: bigint, size = 10): Uint8Array => args(FuseReadIn.SIZE, { [FuseReadIn.fh]: Number(fh), [FuseReadIn.size]: size })
const release = (fh: bigint): Uint8Array => args(FuseReleaseIn.SIZE, { [FuseReleaseIn.fh]: Number(fh) })
const interrupt = (unique: bigint): Uint8Array => args(8, { 0: Number(unique) })

/** The kernel looks a name up. @returns its number */
function lookUp(session: SessionFixture, parent: number | bigint, name: string, id: number, facts: object = {}): bigint {
  return numberOf(session.ask(Op.LOOKUP, names(name), parent, entry({ id, ...facts })))
}

function nameIn(bytes: Uint8Array): string {
  return Buffer.from(bytes.subarray(FuseInHeader.SIZE, -1)).toString()
}

t.test('the kernel has numbers, the device ids; it forgets what it gave out', async t => {
  await withSession(t, session => {
    const file = lookUp(session, 1, 'file', 777)
    t.equal(lookUp(session, 1, 'file', 777), file, 'the same file, the same number')
    t.not(file, 777n)
    session.fuse.send(Op.GETATTR, getattr, { nodeid: file })
    session.receiveAll()
    const request = session.sent(Op.GETATTR)
    t.equal(request.nodeid, 777n)
    session.present.answer(request, { payload: attributes({ id: 777 }) })
    session.complete()
    session.fuse.send(Op.FORGET, forget(1), { nodeid: file })
    session.receiveAll()
    t.strictSame(session.takeHiprio(), [], 'one lookup is left')
    session.fuse.send(Op.BATCH_FORGET, batchForget([[Number(file), 1]]))
    session.receiveAll()
    const [message] = session.takeHiprio()
    t.match(message, { opcode: Op.FORGET, nodeid: 777n })
    t.equal(Buffer.from(message!.bytes).readBigUInt64LE(FuseInHeader.SIZE + FuseForgetIn.nlookup), 2n)
    t.not(lookUp(session, 1, 'other', 778), file, 'a number is not used again')
    session.fuse.send(Op.GETATTR, getattr, { nodeid: file })
    session.receiveAll()
    t.match(session.complete(), [{ error: -errno.ESTALE }], 'what was forgotten is not known')
  })
})

t.test('away: everything waits; back: the same INIT, then lookups, then the requests in order', async t => {
  await withSession(t, session => {
    const directory = lookUp(session, 1, 'directory', 50, { mode: 0o40755 })
    const file = lookUp(session, directory, 'file', 51)
    session.lose()
    const uniques = [session.fuse.send(Op.GETATTR, getattr, { nodeid: file }), session.fuse.send(Op.ACCESS, new Uint8Array(8), { nodeid: 1 })]
    t.match(session.receiveAll(), { count: 2, stopped: Received.NONE })
    t.strictSame(session.complete(), [])
    const init = session.comeBack()
    t.equal(init.opcode, Op.INIT)
    session.present.answer(init, { payload: Buffer.alloc(64) })
    session.complete()
    t.strictSame(session.present.take(), [], 'not before the answer was looked at')
    session.session.goOn()
    const first = session.sent(Op.LOOKUP)
    t.strictSame([first.nodeid, nameIn(first.bytes)], [1n, 'directory'])
    session.present.answer(first, { payload: entry({ id: 9, ino: 1050, mode: 0o40700 }) })
    t.strictSame(session.complete(), [])
    const second = session.sent(Op.LOOKUP)
    t.strictSame([second.nodeid, nameIn(second.bytes)], [9n, 'file'])
    session.present.answer(second, { payload: entry({ id: 5, ino: 1051 }) })
    session.complete()
    const [asked, access] = session.present.take()
    t.strictSame([asked!.opcode, asked!.nodeid, asked!.unique, access!.opcode], [Op.GETATTR, 5n, uniques[0], Op.ACCESS])
    session.present.answer(asked!, { payload: attributes({ id: 5 }) })
    session.present.answer(access!)
    t.match(session.complete(), [{ unique: uniques[0], error: 0 }, { unique: uniques[1], error: 0 }])
    t.equal(lookUp(session, directory, 'file', 5, { ino: 1051 }), file, 'the number stays')
  })
})

const OTHERS: [string, object][] = [['inode number', { ino: 4711 }], ['generation', { generation: 3 }], ['type', { mode: 0o40755 }]]
for (const [what, facts] of OTHERS) {
  t.test(`another file at the path, by its ${what}: ESTALE, and the file that is there has a number of its own`, async t => {
    await withSession(t, session => {
      const file = lookUp(session, 1, 'file', 51)
      session.again()
      session.fuse.send(Op.GETATTR, getattr, { nodeid: file })
      session.receiveAll()
      t.match(session.answer(Op.LOOKUP, entry({ id: 60, ino: 1051, ...facts })), [{ error: -errno.ESTALE }])
      t.match(session.takeHiprio(), [{ opcode: Op.FORGET, nodeid: 60n }], 'nobody uses what was looked up')
      session.fuse.send(Op.GETATTR, getattr, { nodeid: file })
      session.receiveAll()
      t.match(session.complete(), [{ error: -errno.ESTALE }], 'nobody is asked again')
      t.not(lookUp(session, 1, 'file', 60, { ino: 1051, ...facts }), file)
    })
  })
}

t.test('a file that is not there any more is ESTALE; an error that says nothing of it is passed on', async t => {
  await withSession(t, session => {
    const file = lookUp(session, 1, 'file', 51)
    session.again()
    for (const error of [-errno.EMFILE, -errno.EIO]) {
      session.fuse.send(Op.GETATTR, getattr, { nodeid: file })
      session.receiveAll()
      t.match(session.answer(Op.LOOKUP, new Uint8Array(0), error), [{ error }])
    }
    session.fuse.send(Op.GETATTR, getattr, { nodeid: file })
    session.receiveAll()
    t.match(session.answer(Op.LOOKUP, new Uint8Array(0), -errno.ENOENT), [{ error: -errno.ESTALE }])
  })
})

t.test('an open file is opened again, and nothing in it is lost by that', async t => {
  await withSession(t, session => {
    const file = lookUp(session, 1, 'file', 51)
    const handle = handleOf(session.ask(Op.OPEN, open(O_RDWR | O_APPEND | O_TRUNC), file, opened(90)))
    session.again()
    session.fuse.send(Op.READ, read(handle), { nodeid: file })
    session.receiveAll()
    session.answer(Op.LOOKUP, entry({ id: 7, ino: 1051 }))
    const again = session.sent(Op.OPEN)
    t.equal(again.nodeid, 7n)
    t.equal(Buffer.from(again.bytes).readUInt32LE(FuseInHeader.SIZE), O_RDWR | O_APPEND)
    session.present.answer(again, { payload: opened(4) })
    session.complete()
    const request = session.sent(Op.READ)
    t.equal(Buffer.from(request.bytes).readBigUInt64LE(FuseInHeader.SIZE), 4n)
    session.present.answer(request, { payload: pattern(10) })
    t.match(session.complete(), [{ error: 0 }])
    session.fuse.send(Op.RELEASE, release(handle), { nodeid: file })
    session.receiveAll()
    const end = session.sent(Op.RELEASE)
    t.equal(Buffer.from(end.bytes).readBigUInt64LE(FuseInHeader.SIZE), 4n)
    session.present.answer(end)
    session.complete()
    session.fuse.send(Op.READ, read(handle), { nodeid: file })
    session.receiveAll()
    t.match(session.complete(), [{ error: -errno.EBADF }])
  })
})

t.test('an open file that was removed, or whose name another has taken, or that cannot be opened: ESTALE', async t => {
  await withSession(t, session => {
    const [removed, replaced, forbidden] = ['removed', 'replaced', 'forbidden'].map((name, i) => {
      const file = lookUp(session, 1, name, 51 + i)
      return { file, handle: handleOf(session.ask(Op.OPEN, open(0), file, opened(90 + i))) }
    })
    session.ask(Op.UNLINK, names('removed'), 1, new Uint8Array(0))
    lookUp(session, 1, 'new', 60)
    session.ask(Op.RENAME, Buffer.concat([args(8, { 0: 1 }), names('new', 'replaced')]), 1, new Uint8Array(0))
    session.again()
    for (const { file, handle } of [removed!, replaced!]) {
      session.fuse.send(Op.READ, read(handle), { nodeid: file })
      session.receiveAll()
      t.match(session.complete(), [{ error: -errno.ESTALE }])
    }
    session.fuse.send(Op.READ, read(forbidden!.handle), { nodeid: forbidden!.file })
    session.receiveAll()
    session.answer(Op.LOOKUP, entry({ id: 5, ino: 1053 }))
    t.match(session.answer(Op.OPEN, new Uint8Array(0), -errno.EACCES), [{ error: -errno.ESTALE }])
  })
})

t.test('a file with a lock of the device is lost with it', async t => {
  await withSession(t, session => {
    const file = lookUp(session, 1, 'file', 51)
    const handle = handleOf(session.ask(Op.OPEN, open(0), file, opened(90)))
    session.ask(Op.SETLK, args(48, { 0: Number(handle), 32: 1 }), file, new Uint8Array(0))
    session.again()
    session.fuse.send(Op.READ, read(handle), { nodeid: file })
    session.receiveAll()
    t.match(session.answer(Op.LOOKUP, entry({ id: 5, ino: 1051 })), [{ error: -errno.ESTALE }])
  })
})

t.test('closing needs no device', async t => {
  await withSession(t, session => {
    const file = lookUp(session, 1, 'file', 51)
    const handle = handleOf(session.ask(Op.OPEN, open(0), file, opened(90)))
    const inFlight = session.fuse.send(Op.FLUSH, release(handle), { nodeid: file })
    session.receiveAll()
    session.sent(Op.FLUSH)
    session.lose()
    t.match(session.fuse.collect(), [{ unique: inFlight, error: 0 }], 'what the device had')
    const flush = session.fuse.send(Op.FLUSH, release(handle), { nodeid: file })
    const end = session.fuse.send(Op.RELEASE, release(handle), { nodeid: file })
    session.receiveAll()
    t.match(session.fuse.collect(), [{ unique: flush, error: 0 }, { unique: end, error: 0 }], 'and what comes while it is away')
    session.return()
    t.strictSame(session.present.take(), [])
  })
})

t.test('the root, by which everybody comes to the mount, is known while the device is away', async t => {
  await withSession(t, session => {
    session.lose()
    session.fuse.send(Op.GETATTR, getattr, { nodeid: 1 })
    session.receiveAll()
    const [reply] = session.fuse.collect()
    t.equal(reply!.error, 0)
    t.equal(Buffer.from(reply!.payload).readBigUInt64LE(FuseAttrOut.attr), 99n)
    t.equal(Buffer.from(reply!.payload).readBigUInt64LE(FuseAttrOut.attr_valid), 0n, 'for this once')
    session.fuse.send(Op.STATFS, undefined, { nodeid: 1 })
    session.receiveAll()
    t.match(session.fuse.collect(), [{ error: 0, payload: Buffer.from(pattern(80)) }], 'the file system, too')
    session.return()
    t.match(session.ask(Op.GETATTR, getattr, 1, attributes({ id: 1, ino: 100 })), { error: 0 })
    session.lose()
    session.fuse.send(Op.GETATTR, getattr, { nodeid: 1 })
    session.receiveAll()
    t.equal(Buffer.from(session.fuse.collect()[0]!.payload).readBigUInt64LE(FuseAttrOut.attr), 100n)
    session.return()
  })
})

t.test('callers that wait can be killed, also one whose request a device had', async t => {
  await withSession(t, session => {
    const ask = (pid: number): bigint => session.fuse.send(Op.ACCESS, new Uint8Array(8), { nodeid: 1, pid })!
    // the last one has no number here: nobody would see that it is killed
    const had = [process.pid, DYING, 0].map(ask)
    session.receiveAll()
    t.equal(session.present.take().length, 3)
    session.lose()
    const wait = [process.pid, DYING, 0].map(ask)
    session.receiveAll()
    for (const [i, unique] of [...had, ...wait].entries()) session.fuse.send(Op.INTERRUPT, interrupt(unique), { unique: BigInt(1001 + 2 * i) })
    session.receiveAll()
    t.strictSame(session.fuse.collect().map(({ unique, error }) => [unique, error]), [had[1], wait[1], wait[2]].map(unique => [unique, -errno.EINTR]))
    session.return()
    const again = session.present.take()
    t.strictSame(again.map(({ unique }) => unique), [had[0], had[2], wait[0]])
    for (const request of again) session.present.answer(request)
    t.match(session.complete(), again.map(({ unique }) => ({ unique, error: 0 })))
  }, { queueClass: DyingSessionQueue })
})

t.test('a device that was only slow finds no request in the memory that it had', async t => {
  await withSession(t, session => {
    session.fuse.send(Op.GETATTR, getattr, { nodeid: 1 })
    session.receiveAll()
    const device = session.present
    const request = device.takeOne()
    session.lose()
    for (const buffer of request.readable) t.ok(device.at(buffer).every(byte => byte === 0))
    session.return()
    t.match(session.answer(Op.GETATTR, attributes({ id: 1 })), [{ error: 0 }])
  })
})

t.test('it goes again in the middle of everything', async t => {
  await withSession(t, session => {
    const file = lookUp(session, 1, 'file', 51)
    const handle = handleOf(session.ask(Op.OPEN, open(0), file, opened(90)))
    const unique = session.fuse.send(Op.READ, read(handle, 50_000), { nodeid: file })
    session.receiveAll()
    session.present.takeOne()
    session.lose()
    session.comeBack()
    session.again()
    session.sent(Op.LOOKUP)
    session.again()
    session.answer(Op.LOOKUP, entry({ id: 3, ino: 1051 }))
    session.sent(Op.OPEN)
    session.again()
    session.answer(Op.LOOKUP, entry({ id: 4, ino: 1051 }))
    session.answer(Op.OPEN, opened(5))
    session.sent(Op.READ)
    session.again()
    session.answer(Op.LOOKUP, entry({ id: 6, ino: 1051 }))
    session.answer(Op.OPEN, opened(7))
    t.match(session.answer(Op.READ, pattern(50_000)), [{ unique, error: 0, payload: pattern(50_000) }])
  })
})

t.test('forgotten, or closed, while it is being brought back', async t => {
  await withSession(t, session => {
    const file = lookUp(session, 1, 'file', 51)
    const handle = handleOf(session.ask(Op.OPEN, open(0), file, opened(90)))
    session.again()
    const unique = session.fuse.send(Op.READ, read(handle), { nodeid: file, pid: DYING })
    session.receiveAll()
    const lookup = session.sent(Op.LOOKUP)
    session.fuse.send(Op.INTERRUPT, interrupt(unique!), { unique: 1001n })
    session.receiveAll()
    t.match(session.fuse.collect(), [{ unique, error: -errno.EINTR }])
    session.fuse.send(Op.RELEASE, release(handle), { nodeid: file })
    session.fuse.send(Op.FORGET, forget(1), { nodeid: file })
    session.receiveAll()
    t.match(session.fuse.collect(), [{ error: 0 }])
    session.present.answer(lookup, { payload: entry({ id: 6, ino: 1051 }) })
    session.complete()
    t.match(session.takeHiprio().filter(({ opcode }) => opcode === Op.FORGET), [{ nodeid: 6n }], 'the device keeps nothing of it')
  }, { queueClass: DyingSessionQueue })
})
