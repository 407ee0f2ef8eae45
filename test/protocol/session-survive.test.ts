/** The queue of a mount whose process died: what the next one knows, and what it does with requests that the kernel sends again. */
import t, { type Test } from 'tap'
import { StateMemory } from '../../lib/driver/state-memory.js'
import { SurvivingQueue } from '../../lib/driver/surviving-queue.js'
import { errno } from '../../lib/errors.js'
import { FUSE_NOTIFY_RESEND, FuseInHeader, FuseMkdirIn, FuseOpenIn, FuseReadIn, FuseRename2In } from '../../lib/fuse/abi.js'
import { Op } from '../../lib/fuse/opcodes.js'
import { args, names, pattern } from '../support/mock-fuse.js'
import { attributes, entry, handleOf, numberOf, opened, SessionFixture } from '../support/session-fixture.js'
import { initOut } from '../support/stepped-device.js'

const RESENT = 1n << 63n
const RENAME_EXCHANGE = 2
const getattr = new Uint8Array(16)
const MODE_DIR = 0o40755

/** Memory that is looked at in the moment between what was done and the answer to the kernel. */
class WatchedMemory extends StateMemory {
  /** As it was when something was done last. */
  done = new Uint8Array(0)

  override end(): void {
    super.end()
    this.done = this.bytes.slice()
  }
}

function queueOf(session: SessionFixture): SurvivingQueue {
  return session.session as SurvivingQueue
}

/** Processes one after the other, over the same memory. */
class Mount {
  readonly #memory = new ArrayBuffer(1 << 20)
  readonly #watched = new WatchedMemory(this.#memory)
  readonly #all: SessionFixture[] = []
  now: SessionFixture

  constructor() {
    this.now = this.#start()
    if (queueOf(this.now).survive(this.#watched)) throw new Error('there was nobody before')
    this.now.begin()
  }

  #start(): SessionFixture {
    const session = new SessionFixture({ queueClass: SurvivingQueue })
    this.#all.push(session)
    return session
  }

  /** The process is dead; another one opens its memory, and asks the kernel for what it had. */
  die(): SessionFixture {
    this.now = this.#start()
    if (!queueOf(this.now).survive(new StateMemory(this.#memory))) throw new Error('it found nothing')
    queueOf(this.now).takeOver()
    return this.now
  }

  /** It died before the kernel had the last answer. */
  dieBeforeAnswer(): SessionFixture {
    new Uint8Array(this.#memory).set(this.#watched.done)
    return this.die()
  }

  /** Its device is there. @returns the INIT that it was greeted with */
  greet(): Uint8Array {
    this.now.session.greet()
    const init = this.now.present.takeOne()
    this.now.present.answer(init, { payload: initOut() })
    this.now.complete()
    this.now.session.goOn()
    return init.bytes
  }

  close(): void {
    for (const session of this.#all) session.close()
  }
}

async function withMount(t: Test, body: (mount: Mount) => void): Promise<void> {
  const mount = new Mount()
  try {
    body(mount)
    mount.now.assertIdle(t)
  } finally {
    mount.close()
  }
}

function nameIn(bytes: Uint8Array): string {
  return Buffer.from(bytes.subarray(FuseInHeader.SIZE)).toString().split('\0')[0]!
}

t.test('the kernel is asked for all that it has; its numbers mean what they meant', async t => {
  await withMount(t, mount => {
    const directory = numberOf(mount.now.ask(Op.LOOKUP, names('d'), 1, entry({ id: 500, mode: MODE_DIR })))
    const file = numberOf(mount.now.ask(Op.LOOKUP, names('f'), directory, entry({ id: 501 })))
    const fh = handleOf(mount.now.ask(Op.OPEN, args(FuseOpenIn.SIZE, { [FuseOpenIn.flags]: 2 }), file, opened(77)))
    const next = mount.die()
    t.match(next.fuse.collect(), [{ length: 16, error: FUSE_NOTIFY_RESEND, unique: 0n }])
    // while there is no device
    next.fuse.send(Op.READ, args(FuseReadIn.SIZE, { [FuseReadIn.fh]: Number(fh), [FuseReadIn.size]: 10 }), { nodeid: file })
    next.receiveAll()
    next.fuse.send(Op.STATFS)
    next.receiveAll()
    t.match(next.complete(), [{ error: 0, payload: pattern(80) }], 'what is known of the root')
    t.equal(Buffer.from(mount.greet().subarray(0, 4)).readUInt32LE(), FuseInHeader.SIZE + 64, 'the same INIT')
    const first = next.sent(Op.LOOKUP)
    t.strictSame([nameIn(first.bytes), first.nodeid], ['d', 1n])
    next.present.answer(first, { payload: entry({ id: 900, ino: 1500, mode: MODE_DIR }) })
    next.complete()
    const second = next.sent(Op.LOOKUP)
    t.strictSame([nameIn(second.bytes), second.nodeid], ['f', 900n])
    next.present.answer(second, { payload: entry({ id: 901, ino: 1501 }) })
    next.complete()
    const open = next.sent(Op.OPEN)
    t.equal(open.nodeid, 901n)
    next.present.answer(open, { payload: opened(88) })
    next.complete()
    const read = next.sent(Op.READ)
    t.equal(Buffer.from(read.bytes).readBigUInt64LE(FuseInHeader.SIZE + FuseReadIn.fh), 88n)
    next.present.answer(read, { payload: pattern(10) })
    t.match(next.complete(), [{ error: 0, payload: pattern(10) }])
  })
})

t.test('sent again: answered by the number that it has now; two deaths are as one', async t => {
  await withMount(t, mount => {
    const unique = mount.now.fuse.send(Op.MKDIR, args(FuseMkdirIn.SIZE, {}, names('new')))!
    mount.now.receiveAll()
    mount.now.sent(Op.MKDIR)
    const madeMs = Date.now()
    for (let death = 0; death < 2; death++) {
      mount.die().fuse.collect()
      mount.now.fuse.send(Op.MKDIR, args(FuseMkdirIn.SIZE, {}, names('new')), { unique: unique | RESENT })
      mount.now.receiveAll()
    }
    mount.greet()
    // done by the first device: EEXIST, and it is the caller's, made after the request was read for the first time
    t.strictSame(mount.now.answer(Op.MKDIR, new Uint8Array(0), -errno.EEXIST), [])
    mount.now.answer(Op.LOOKUP, entry({ id: 5, mode: MODE_DIR, changedMs: madeMs }))
    t.match(mount.now.answer(Op.LOOKUP, entry({ id: 5, mode: MODE_DIR })), [{ error: 0, unique: unique | RESENT }])
    mount.now.takeHiprio()
  })
})

t.test('one that no device had is sent as it is, without asking what it did', async t => {
  await withMount(t, mount => {
    mount.die().fuse.collect()
    const rename = args(8, { 0: 1 }, names('a', 'b'))
    mount.now.fuse.send(Op.RENAME, rename, { unique: 100n })
    mount.now.receiveAll()
    // it dies before its device is back
    mount.die().fuse.collect()
    mount.now.fuse.send(Op.RENAME, rename, { unique: 100n | RESENT })
    mount.now.receiveAll()
    mount.greet()
    // the name is asked for, as in every session but the first; what is at the new one is not
    const asked = mount.now.sent(Op.LOOKUP)
    t.equal(nameIn(asked.bytes), 'a')
    mount.now.present.answer(asked, { payload: entry({ id: 5 }) })
    mount.now.complete()
    t.match(mount.now.answer(Op.RENAME, new Uint8Array(0)), [{ error: 0, unique: 100n | RESENT }])
    mount.now.takeHiprio()
  })
})

t.test('an exchange that was done, and whose caller did not hear of it, is not done again', async t => {
  await withMount(t, mount => {
    const [a, b] = ['a', 'b'].map((name, i) => numberOf(mount.now.ask(Op.LOOKUP, names(name), 1, entry({ id: 10 + i }))))
    const exchange = args(FuseRename2In.SIZE, { [FuseRename2In.newdir]: 1, [FuseRename2In.flags]: RENAME_EXCHANGE }, names('a', 'b'))
    const unique = mount.now.fuse.send(Op.RENAME2, exchange)!
    mount.now.receiveAll()
    mount.now.present.answer(mount.now.sent(Op.RENAME2), {})
    mount.now.complete()
    mount.dieBeforeAnswer().fuse.collect()
    mount.greet()
    mount.now.fuse.send(Op.RENAME2, exchange, { unique: unique | RESENT })
    mount.now.receiveAll()
    t.match(mount.now.fuse.collect(), [{ error: 0, unique: unique | RESENT }], 'answered')
    t.strictSame(mount.now.present.take(), [], 'and the device has none of it')
    for (const [number, name] of [[a!, 'b'], [b!, 'a']] as const) {
      mount.now.fuse.send(Op.GETATTR, getattr, { nodeid: number })
      mount.now.receiveAll()
      const lookup = mount.now.sent(Op.LOOKUP)
      t.equal(nameIn(lookup.bytes), name, `${number} is at its new name`)
      const id = name === 'b' ? 10 : 11
      mount.now.present.answer(lookup, { payload: entry({ id }) })
      mount.now.complete()
      t.match(mount.now.answer(Op.GETATTR, attributes({ id })), [{ error: 0 }])
    }
  })
})
