/** Requests that a device had when it went: sent again, and what their callers are told when they had been carried out. */
import t, { type Test } from 'tap'
import { errno } from '../../lib/errors.js'
import {
  FuseCreateIn, FuseEntryOut, FuseInHeader, FuseIoctlIn, FuseLinkIn, FuseMkdirIn, FuseMknodIn, FuseOpenIn, FuseRename2In, FuseSetxattrIn, FuseWriteIn, FUSE_WRITE_CACHE,
} from '../../lib/fuse/abi.js'
import { Op, opcodeName } from '../../lib/fuse/opcodes.js'
import { DYING, DyingSessionQueue } from '../support/dying.js'
import { args, names, pattern, type Reply } from '../support/mock-fuse.js'
import { attributes, entry, handleOf, numberOf, opened, withSession, type FileFacts, type SessionFixture } from '../support/session-fixture.js'

const NOTHING = new Uint8Array(0)
const O_APPEND = 0o2000
const O_EXCL = 0o200
const O_CREAT = 0o100
const MODE = { dir: 0o40755, file: 0o100644, link: 0o120777, fifo: 0o10644 }

/** A request is with the device when it goes; it is back, and has it again. */
function inFlight(session: SessionFixture, opcode: number, body: Uint8Array, nodeid: number | bigint = 1): void {
  session.fuse.send(opcode, body, { nodeid })
  session.receiveAll()
  session.sent(opcode)
  session.again()
}

interface Making { opcode: number, body: Uint8Array, mode: number }
const MAKING: Making[] = [
  { opcode: Op.MKDIR, body: args(FuseMkdirIn.SIZE, {}, names('new')), mode: MODE.dir },
  { opcode: Op.MKNOD, body: args(FuseMknodIn.SIZE, { [FuseMknodIn.mode]: MODE.fifo }, names('new')), mode: MODE.fifo },
  { opcode: Op.SYMLINK, body: names('new', 'target'), mode: MODE.link },
]

for (const { opcode, body, mode } of MAKING) {
  t.test(`${opcodeName(opcode)} that was not carried out`, async t => {
    await withSession(t, session => {
      inFlight(session, opcode, body)
      t.match(session.answer(opcode, entry({ id: 5, mode })), [{ error: 0 }])
    })
  })

  t.test(`${opcodeName(opcode)} that was carried out`, async t => {
    await withSession(t, session => {
      inFlight(session, opcode, body)
      t.strictSame(session.answer(opcode, NOTHING, -errno.EEXIST), [])
      const check = session.sent(Op.LOOKUP)
      t.equal(Buffer.from(check.bytes.subarray(FuseInHeader.SIZE)).toString(), 'new\0')
      session.present.answer(check, { payload: entry({ id: 5, mode, changedMs: Date.now() }) })
      t.strictSame(session.complete(), [])
      const replies = session.answer(Op.LOOKUP, entry({ id: 5, mode }))
      t.match(replies, [{ error: 0 }])
      t.equal(replies[0]!.payload.length, FuseEntryOut.SIZE)
      t.match(session.takeHiprio(), [{ opcode: Op.FORGET, nodeid: 5n }], 'one lookup for two')
    })
  })

  const others: [string, FileFacts][] = [
    ['of another kind', { id: 5, mode: MODE.file, changedMs: Date.now() + 60_000 }],
    ['of another user', { id: 5, mode, uid: 0, changedMs: Date.now() + 60_000 }],
    ['older', { id: 5, mode, changedMs: Date.now() - 60_000 }],
  ]
  for (const [what, facts] of others) {
    t.test(`${opcodeName(opcode)}: what is there is ${what}`, async t => {
      await withSession(t, session => {
        inFlight(session, opcode, body)
        session.answer(opcode, NOTHING, -errno.EEXIST)
        t.match(session.answer(Op.LOOKUP, entry(facts)), [{ error: -errno.EEXIST }])
        t.match(session.takeHiprio(), [{ opcode: Op.FORGET, nodeid: 5n }])
      })
    })
  }
}

for (const [what, aheadMs] of [['ahead', 3_600_000], ['behind', -3_600_000]] as const) {
  t.test(`a device whose clock is ${what}: what was made in the meantime is told from what was there`, async t => {
    for (const [agoMs, error] of [[0, 0], [60_000, -errno.EEXIST]] as const) {
      await withSession(t, session => {
        session.session.clockAheadMs = aheadMs
        inFlight(session, Op.MKDIR, MAKING[0]!.body)
        session.answer(Op.MKDIR, NOTHING, -errno.EEXIST)
        const facts = { id: 5, mode: MODE.dir, changedMs: Date.now() + aheadMs - agoMs }
        const replies = session.answer(Op.LOOKUP, entry(facts))
        t.match(error === 0 ? session.answer(Op.LOOKUP, entry(facts)) : replies, [{ error }])
        t.match(session.takeHiprio(), [{ opcode: Op.FORGET, nodeid: 5n }])
      })
    }
  })
}

t.test('what a device that never went says is not doubted', async t => {
  await withSession(t, session => {
    t.match(session.ask(Op.MKDIR, MAKING[0]!.body, 1, NOTHING, -errno.EEXIST), { error: -errno.EEXIST })
    t.match(session.ask(Op.UNLINK, names('x'), 1, NOTHING, -errno.ENOENT), { error: -errno.ENOENT })
    session.again()
    t.match(session.ask(Op.MKDIR, MAKING[0]!.body, 1, NOTHING, -errno.EEXIST), { error: -errno.EEXIST }, 'nor for a new request')
  })
})

const create = (flags: number): Uint8Array => args(FuseCreateIn.SIZE, { [FuseCreateIn.flags]: flags | O_CREAT }, names('new'))
const made = (id: number, fh: number): Uint8Array => Buffer.concat([entry({ id, mode: MODE.file }), opened(fh)])

t.test('CREATE with O_EXCL that was carried out opens the file', async t => {
  await withSession(t, session => {
    inFlight(session, Op.CREATE, create(O_EXCL))
    session.answer(Op.CREATE, NOTHING, -errno.EEXIST)
    session.answer(Op.LOOKUP, entry({ id: 5, mode: MODE.file, changedMs: Date.now() }))
    const again = session.sent(Op.CREATE)
    t.equal(Buffer.from(again.bytes).readUInt32LE(FuseInHeader.SIZE), O_CREAT)
    session.present.answer(again, { payload: made(5, 70) })
    const [reply] = session.complete()
    t.equal(reply!.error, 0)
    t.equal(reply!.payload.length, FuseEntryOut.SIZE + 16)
    t.equal(handleOf(reply!), 1n)
  })
})

t.test('CREATE with O_EXCL of a file that somebody else made', async t => {
  await withSession(t, session => {
    inFlight(session, Op.CREATE, create(O_EXCL))
    session.answer(Op.CREATE, NOTHING, -errno.EEXIST)
    t.match(session.answer(Op.LOOKUP, entry({ id: 5, mode: MODE.file, changedMs: Date.now() - 5000 })), [{ error: -errno.EEXIST }])
  })
})

t.test('CREATE without O_EXCL is sent as it was', async t => {
  await withSession(t, session => {
    inFlight(session, Op.CREATE, create(0))
    t.match(session.answer(Op.CREATE, made(5, 70)), [{ error: 0 }])
  })
})

t.test('LINK: carried out if it is the same file', async t => {
  for (const ino of [1051, 4711]) {
    await withSession(t, session => {
      const file = numberOf(session.ask(Op.LOOKUP, names('file'), 1, entry({ id: 51, mode: MODE.file })))
      session.fuse.send(Op.LINK, args(FuseLinkIn.SIZE, { [FuseLinkIn.oldnodeid]: Number(file) }, names('second')), { nodeid: 1 })
      session.receiveAll()
      session.sent(Op.LINK)
      session.again()
      session.answer(Op.LOOKUP, entry({ id: 6, ino: 1051, mode: MODE.file }))
      session.answer(Op.LINK, NOTHING, -errno.EEXIST)
      const replies = session.answer(Op.LOOKUP, entry({ id: 6, ino, mode: MODE.file }))
      if (ino === 4711) return void t.match(replies, [{ error: -errno.EEXIST }])
      const [reply] = session.answer(Op.LOOKUP, entry({ id: 6, ino, mode: MODE.file }))
      t.equal(numberOf(reply!), file)
    })
  }
})

for (const [opcode, error] of [[Op.UNLINK, errno.ENOENT], [Op.RMDIR, errno.ENOENT], [Op.REMOVEXATTR, errno.ENODATA]] as const) {
  t.test(`${opcodeName(opcode)} that was carried out`, async t => {
    await withSession(t, session => {
      const asked = (error: number): void => { if (opcode !== Op.REMOVEXATTR) session.answer(Op.LOOKUP, entry({ id: 5 }), error) }
      inFlight(session, opcode, names('name'))
      asked(-errno.ENOENT)
      t.match(session.answer(opcode, NOTHING, -error), [{ error: 0 }])
    })
    await withSession(t, session => {
      const asked = (error: number): void => { if (opcode !== Op.REMOVEXATTR) session.answer(Op.LOOKUP, entry({ id: 5 }), error) }
      inFlight(session, opcode, names('name'))
      asked(0)
      t.match(session.answer(opcode, NOTHING, -errno.EACCES), [{ error: -errno.EACCES }], 'any other error is one')
    })
  })
}

t.test('a device that says EIO of a name that is not there', async t => {
  for (const opcode of [Op.UNLINK, Op.RMDIR]) {
    for (const there of [true, false]) {
      await withSession(t, session => {
        inFlight(session, opcode, names('name'))
        session.answer(Op.LOOKUP, entry({ id: 5 }), there ? 0 : -errno.ENOENT)
        t.strictSame(session.answer(opcode, NOTHING, -errno.EIO), [])
        t.match(session.answer(Op.LOOKUP, entry({ id: 5 }), there ? 0 : -errno.ENOENT), [{ error: there ? -errno.EIO : 0 }])
      })
    }
  }
})

t.test('what is to be removed is looked up before: there are devices that remove nothing else', async t => {
  for (const [opcode, body] of [[Op.UNLINK, names('name')], [Op.RMDIR, names('name')], [Op.RENAME, args(8, { 0: 1 }, names('name', 'other'))]] as const) {
    await withSession(t, session => {
      session.ask(Op.LOOKUP, names('name'), 1, entry({ id: 51 }))
      session.again()
      session.fuse.send(opcode, body, { nodeid: 1 })
      session.receiveAll()
      session.answer(Op.LOOKUP, entry({ id: 6, ino: 1051 }))
      t.match(session.answer(opcode, NOTHING), [{ error: 0 }])
    })
  }
})

const rename = args(8, { 0: 1 }, names('old', 'new'))

t.test('RENAME: carried out if the file is at its new name', async t => {
  const cases: [FileFacts | undefined, boolean][] = [[{ id: 6, ino: 1051 }, true], [{ id: 6, ino: 4711 }, false], [undefined, false]]
  for (const [there, done] of cases) {
    await withSession(t, session => {
      const file = numberOf(session.ask(Op.LOOKUP, names('old'), 1, entry({ id: 51 })))
      inFlight(session, Op.RENAME, rename)
      const check = session.sent(Op.LOOKUP)
      t.equal(Buffer.from(check.bytes.subarray(FuseInHeader.SIZE)).toString(), 'new\0')
      session.present.answer(check, there ? { payload: entry(there) } : { error: -errno.ENOENT })
      const replies = session.complete()
      if (!done) {
        const lookup = session.sent(Op.LOOKUP)
        t.equal(Buffer.from(lookup.bytes.subarray(FuseInHeader.SIZE)).toString(), 'old\0')
        session.present.answer(lookup, { payload: entry({ id: 7, ino: 1051 }) })
        session.complete()
        t.match(session.answer(Op.RENAME, NOTHING), [{ error: 0 }], 'not done before')
        return
      }
      t.match(replies, [{ error: 0 }])
      session.fuse.send(Op.GETATTR, new Uint8Array(16), { nodeid: file })
      session.receiveAll()
      const lookup = session.sent(Op.LOOKUP)
      t.equal(Buffer.from(lookup.bytes.subarray(FuseInHeader.SIZE)).toString(), 'new\0', 'and is found there')
      session.present.answer(lookup, { payload: entry({ id: 6, ino: 1051 }) })
      session.complete()
      session.answer(Op.GETATTR, attributes({ id: 6 }))
    })
  }
})

t.test('RENAME of a name that the bridge does not know', async t => {
  await withSession(t, session => {
    inFlight(session, Op.RENAME, rename)
    session.answer(Op.LOOKUP, entry({ id: 6, ino: 1051 }))
    session.answer(Op.LOOKUP, NOTHING, -errno.ENOENT)
    t.match(session.answer(Op.RENAME, NOTHING), [{ error: 0 }], 'it is there: not done before')
    t.match(session.takeHiprio(), [{ opcode: Op.FORGET, nodeid: 6n }])
  })
  for (const [changedMs, error] of [[Date.now() + 1000, 0], [Date.now() - 60_000, -errno.ENOENT]] as const) {
    await withSession(t, session => {
      inFlight(session, Op.RENAME, rename)
      session.answer(Op.LOOKUP, NOTHING, -errno.ENOENT)
      t.match(session.answer(Op.LOOKUP, entry({ id: 6, changedMs })), [{ error }], 'it is not: done if what is at the new name has changed')
    })
  }
})

t.test('a file that the kernel knows by two names is removed by either', async t => {
  await withSession(t, session => {
    const file = numberOf(session.ask(Op.LOOKUP, names('first'), 1, entry({ id: 51 })))
    t.equal(numberOf(session.ask(Op.LINK, args(FuseLinkIn.SIZE, { [FuseLinkIn.oldnodeid]: Number(file) }, names('second')), 1, entry({ id: 51 }))), file)
    session.again()
    session.fuse.send(Op.UNLINK, names('first'), { nodeid: 1 })
    session.receiveAll()
    session.answer(Op.LOOKUP, entry({ id: 6, ino: 1051 }))
    t.match(session.answer(Op.UNLINK, NOTHING), [{ error: 0 }])
    session.fuse.send(Op.GETATTR, new Uint8Array(16), { nodeid: file })
    session.receiveAll()
    const lookup = session.sent(Op.LOOKUP)
    t.equal(Buffer.from(lookup.bytes.subarray(FuseInHeader.SIZE)).toString(), 'second\0', 'and is found by the other')
    session.present.answer(lookup, { payload: entry({ id: 7, ino: 1051 }) })
    session.complete()
    t.match(session.answer(Op.GETATTR, attributes({ id: 7 })), [{ error: 0 }])
  })
})

t.test('an exchange is looked up first', async t => {
  const exchange = args(FuseRename2In.SIZE, { [FuseRename2In.newdir]: 1, [FuseRename2In.flags]: 2 }, names('a', 'b'))
  for (const carriedOut of [true, false]) {
    await withSession(t, session => {
      session.ask(Op.LOOKUP, names('a'), 1, entry({ id: 51 }))
      session.ask(Op.LOOKUP, names('b'), 1, entry({ id: 52 }))
      inFlight(session, Op.RENAME2, exchange)
      const replies = session.answer(Op.LOOKUP, entry({ id: 6, ino: carriedOut ? 1051 : 1052 }))
      if (carriedOut) return void t.match(replies, [{ error: 0 }])
      session.answer(Op.LOOKUP, entry({ id: 7, ino: 1051 }))
      t.match(session.answer(Op.RENAME2, NOTHING), [{ error: 0 }], 'not done before')
    })
  }
})

/** A WRITE of 100 bytes at 1000 is in flight when the device goes. @returns what the kernel is told when the file is so long then */
async function append(t: Test, sizeBytes: number, reply: (session: SessionFixture) => Reply[]): Promise<void> {
  await withSession(t, session => {
    const file = numberOf(session.ask(Op.LOOKUP, names('log'), 1, entry({ id: 51 })))
    const handle = handleOf(session.ask(Op.OPEN, args(FuseOpenIn.SIZE, { [FuseOpenIn.flags]: 1 | O_APPEND }), file, opened(9)))
    const fields = { [FuseWriteIn.fh]: Number(handle), [FuseWriteIn.offset]: 1000, [FuseWriteIn.size]: 100, [FuseWriteIn.flags]: 1 | O_APPEND }
    inFlight(session, Op.WRITE, args(FuseWriteIn.SIZE, fields, pattern(100)), file)
    session.answer(Op.LOOKUP, entry({ id: 4, ino: 1051 }))
    session.answer(Op.OPEN, opened(5))
    session.present.answer(session.sent(Op.GETATTR), { payload: attributes({ id: 4, size: sizeBytes }) })
    const [end] = [...session.complete(), ...reply(session)]
    t.match(end, sizeBytes === 1050 || sizeBytes === 1101 ? { error: -errno.EIO } : { error: 0 })
    if (end!.error === 0) t.equal(Buffer.from(end!.payload).readUInt32LE(0), 100)
    session.fuse.send(Op.FSYNC, args(16, { 0: Number(handle) }), { nodeid: file })
    session.receiveAll()
    const next = session.sent(Op.FSYNC)
    t.equal(next.bytes.length, FuseInHeader.SIZE + 16, 'the next request has nothing of its data')
    session.present.answer(next)
    session.complete()
  })
}

t.test('an append is done once', async t => {
  await append(t, 1100, () => [])
  const written = (session: SessionFixture): Reply[] => {
    const request = session.sent(Op.WRITE)
    t.strictSame(request.bytes.subarray(FuseInHeader.SIZE + FuseWriteIn.SIZE), Buffer.from(pattern(100)))
    session.present.answer(request, { payload: args(8, { 0: 100 }) })
    return session.complete()
  }
  await append(t, 1000, written)
  await append(t, 900, written)
  await append(t, 1050, () => [])
  await append(t, 1101, () => [])
})

t.test('after an append that had been carried out the next WRITE has its own data', async t => {
  await withSession(t, session => {
    const file = numberOf(session.ask(Op.LOOKUP, names('log'), 1, entry({ id: 51 })))
    const handle = handleOf(session.ask(Op.OPEN, args(FuseOpenIn.SIZE, { [FuseOpenIn.flags]: 1 | O_APPEND }), file, opened(9)))
    const write = (offset: number, data: Uint8Array): Uint8Array => args(FuseWriteIn.SIZE, { [FuseWriteIn.fh]: Number(handle), [FuseWriteIn.offset]: offset, [FuseWriteIn.size]: 100, [FuseWriteIn.flags]: 1 | O_APPEND }, data)
    inFlight(session, Op.WRITE, write(1000, pattern(100)), file)
    session.answer(Op.LOOKUP, entry({ id: 4, ino: 1051 }))
    session.answer(Op.OPEN, opened(5))
    t.match(session.answer(Op.GETATTR, attributes({ id: 4, size: 1100 })), [{ error: 0 }], 'it had been')
    session.fuse.send(Op.WRITE, write(1100, Buffer.alloc(100, 'n')), { nodeid: file })
    session.receiveAll()
    const request = session.sent(Op.WRITE)
    t.equal(Buffer.from(request.bytes.subarray(FuseInHeader.SIZE + FuseWriteIn.SIZE)).toString(), 'n'.repeat(100))
    session.present.answer(request, { payload: args(8, { 0: 100 }) })
    t.match(session.complete(), [{ error: 0 }])
  })
})

t.test('a WRITE at its place, and one of the kernel\'s cache, are sent as they were, large or small', async t => {
  for (const fields of [{}, { [FuseWriteIn.flags]: O_APPEND, [FuseWriteIn.write_flags]: FUSE_WRITE_CACHE }]) {
    for (const size of [1, 600, 4096, 300_000]) {
      await withSession(t, session => {
        inFlight(session, Op.WRITE, args(FuseWriteIn.SIZE, { ...fields, [FuseWriteIn.size]: size }, pattern(size)))
        const request = session.sent(Op.WRITE)
        t.ok(Buffer.from(pattern(size)).equals(request.bytes.subarray(FuseInHeader.SIZE + FuseWriteIn.SIZE)), `${size} bytes`)
        session.present.answer(request, { payload: args(8, { 0: size }) })
        t.match(session.complete(), [{ error: 0 }])
      })
    }
  }
})

t.test('more data than there are buffers waits for the device, and its callers can be killed', async t => {
  const size = 100_000
  const write = (i: number): Uint8Array => args(FuseWriteIn.SIZE, { [FuseWriteIn.offset]: i, [FuseWriteIn.size]: size }, pattern(size, i))
  await withSession(t, session => {
    const uniques: bigint[] = []
    for (let i = 0; i < 5; i++) uniques.push(session.fuse.send(Op.WRITE, write(i))!)
    session.receiveAll()
    t.equal(session.present.take().length, 5)
    session.lose()
    for (let i = 5; i < 40; i++) {
      uniques.push(session.fuse.send(Op.WRITE, write(i), { pid: i === 30 ? DYING : process.pid })!)
      session.receiveAll()
    }
    session.fuse.send(Op.INTERRUPT, args(8, { 0: Number(uniques[30]) }), { unique: 1001n })
    session.receiveAll()
    t.match(session.fuse.collect(), [{ unique: uniques[30], error: -errno.EINTR }])
    session.again()
    const seen: bigint[] = []
    while (seen.length < 39) {
      for (const request of session.present.take()) {
        const i = Number(Buffer.from(request.bytes).readBigUInt64LE(FuseInHeader.SIZE + FuseWriteIn.offset))
        if (!Buffer.from(pattern(size, i)).equals(request.bytes.subarray(FuseInHeader.SIZE + FuseWriteIn.SIZE))) t.fail(`WRITE ${i} has other data`)
        seen.push(request.unique)
        session.present.answer(request, { payload: args(8, { 0: size }) })
      }
      session.complete()
    }
    t.strictSame(seen, uniques.filter((_, i) => i !== 30), 'in order')
  }, { largeBuffers: 8, queueClass: DyingSessionQueue })
})

t.test('what nobody can tell fails with EIO', async t => {
  await withSession(t, session => {
    inFlight(session, Op.IOCTL, new Uint8Array(FuseIoctlIn.SIZE))
    t.match(session.fuse.collect(), [{ error: -errno.EIO }], 'IOCTL')
  })
  await withSession(t, session => {
    inFlight(session, Op.RENAME2, args(FuseRename2In.SIZE, { [FuseRename2In.newdir]: 1, [FuseRename2In.flags]: 4 }, names('a', 'b')))
    t.match(session.fuse.collect(), [{ error: -errno.EIO }], 'RENAME_WHITEOUT')
    for (const [flags, error] of [[1, -errno.EIO], [0, -errno.EEXIST]] as const) {
      inFlight(session, Op.SETXATTR, args(FuseSetxattrIn.SIZE, { [FuseSetxattrIn.flags]: flags }, names('user.a')))
      t.match(session.answer(Op.SETXATTR, NOTHING, -errno.EEXIST), [{ error }], 'SETXATTR')
    }
  })
})

t.test('an opcode that is unknown does not come to the device: nobody knows which ids it carries', async t => {
  await withSession(t, session => {
    session.fuse.send(63, new Uint8Array(40), { nodeid: 1 })
    session.receiveAll()
    t.match(session.complete(), [{ error: -errno.ENOSYS }])
    t.strictSame(session.present.take(), [])
  })
})

t.test('many at once are sent again in the order in which they came', async t => {
  await withSession(t, session => {
    const uniques = Array.from({ length: 40 }, () => session.fuse.send(Op.ACCESS, new Uint8Array(8), { nodeid: 1 }))
    session.receiveAll()
    for (const request of session.present.take().slice(0, 5)) session.present.answer(request)
    session.again()
    t.strictSame(session.fuse.replies.slice(1).map(reply => reply.unique), uniques.slice(0, 5), 'what it had answered is good')
    const taken = session.present.take()
    t.strictSame(taken.map(request => request.unique), uniques.slice(5))
    for (const request of taken) session.present.answer(request)
    t.equal(session.complete().length, 35)
  })
})
