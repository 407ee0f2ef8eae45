/**
 * Requests at random, one after the other, of a kernel that knows what it may ask for, to a device
 * that dies at any moment: before it has carried a request out, or after, without having said so.
 * Every answer has to be what a device that never dies would have said; nothing is done twice.
 *
 *     SEED=N STEPS=N node dist/test/protocol/session-random.test.js
 */
import t from 'tap'
import { errno } from '../../lib/errors.js'
import { FuseBatchForgetIn, FuseCreateIn, FuseForgetOne, FuseInHeader, FuseLinkIn, FuseMkdirIn, FuseOpenIn, FuseReadIn, FuseReleaseIn, FuseWriteIn } from '../../lib/fuse/abi.js'
import { Op, opcodeName } from '../../lib/fuse/opcodes.js'
import { args, forget, names, type Reply } from '../support/mock-fuse.js'
import { type Inode, ModelDevice, ModelFs } from '../support/model-fs.js'
import { SeededRandom } from '../support/seeded-random.js'
import { handleOf, numberOf, SessionFixture } from '../support/session-fixture.js'
import { initOut } from '../support/stepped-device.js'

const STEPS = Number(process.env['STEPS'] ?? 200)
const SEEDS = process.env['SEED'] === undefined ? [1, 2] : [Number(process.env['SEED'])]
const O_APPEND = 0o2000

interface OpenFile { handle: bigint, number: bigint, inode: Inode, append: boolean, severalNames: boolean }

class Play {
  readonly session = new SessionFixture()
  readonly random: SeededRandom
  readonly #fs = new ModelFs()
  #device: ModelDevice
  /** Every inode of the model by its number in the kernel, and how many lookups the kernel has. */
  readonly numbers = new Map<bigint, { ino: number, lookups: number }>()
  readonly open: OpenFile[] = []
  readonly hadSeveralNames = new Set<number>()
  deaths = 0
  #firstId = 1000
  readonly #picky: boolean

  constructor(seed: number) {
    this.random = new SeededRandom(seed)
    this.#picky = seed % 2 === 0
    this.session.begin()
    this.#device = new ModelDevice(this.#fs, this.#firstId, this.#picky)
  }

  get root(): Inode {
    return this.#fs.root
  }

  /** Sends a request, and lets the device die now and then, until it is answered. */
  ask(opcode: number, body: Uint8Array, nodeid: bigint): Reply {
    const { session } = this
    session.fuse.send(opcode, body, { nodeid })
    session.receiveAll()
    for (let i = 0; i < 200; i++) {
      const [reply] = session.fuse.collect()
      if (reply) return reply
      this.#hiprio()
      const [request] = session.present.take(1)
      if (!request) throw new Error(`${opcodeName(opcode)} is not answered, and nothing is asked`)
      if (this.random.below(8) === 0) {
        this.#die()
        continue
      }
      const result = this.#device.execute(request)
      if (this.random.below(8) === 0) {
        this.#die()
        continue
      }
      session.present.answer(request, typeof result === 'number' ? { error: result } : { payload: result })
      session.queue.complete()
    }
    throw new Error(`${opcodeName(opcode)} has no end`)
  }

  #die(): void {
    this.deaths++
    this.#firstId += 1000
    this.#device = new ModelDevice(this.#fs, this.#firstId, this.#picky)
    this.session.lose()
    const init = this.session.comeBack()
    this.session.present.answer(init, { payload: initOut() })
    this.session.queue.complete()
    this.session.session.goOn()
  }

  #hiprio(): void {
    for (const { opcode, nodeid, bytes } of this.session.takeHiprio()) {
      const view = Buffer.from(bytes)
      if (opcode === Op.FORGET) this.#device.forget(Number(nodeid), Number(view.readBigUInt64LE(FuseInHeader.SIZE)))
      else for (let at = FuseInHeader.SIZE + FuseBatchForgetIn.SIZE; at < view.length; at += FuseForgetOne.SIZE) this.#device.forget(Number(view.readBigUInt64LE(at)), Number(view.readBigUInt64LE(at + 8)))
    }
  }

  /** The kernel looks a name up, and must find what is there. @returns its number */
  lookUp(parent: bigint, name: string, inode: Inode): bigint {
    return this.learn(this.ask(Op.LOOKUP, names(name), parent), inode)
  }

  learn(reply: Reply, inode: Inode): bigint {
    if (reply.error !== 0) throw new Error(`error ${reply.error} instead of an entry`)
    const ino = Number(Buffer.from(reply.payload).readBigUInt64LE(40))
    if (ino !== inode.ino) throw new Error(`inode ${ino} instead of ${inode.ino}`)
    const number = numberOf(reply)
    const known = this.numbers.get(number)
    if (known && known.ino !== ino) throw new Error(`number ${number} was inode ${known.ino}, and is ${ino}`)
    this.numbers.set(number, { ino, lookups: (known?.lookups ?? 0) + 1 })
    return number
  }

  forgetSome(): void {
    for (const [number, { lookups }] of this.numbers) {
      if (this.random.below(3) !== 0 || this.open.some(file => file.number === number)) continue
      this.session.fuse.send(Op.FORGET, forget(lookups), { nodeid: number })
      this.numbers.delete(number)
    }
    this.session.receiveAll()
    this.#hiprio()
  }

  /** Nothing is known to the kernel any more: then the device must not hold anything either. */
  end(): void {
    for (const file of this.open.splice(0)) this.ask(Op.RELEASE, args(FuseReleaseIn.SIZE, u64(FuseReleaseIn.fh, file.handle)), file.number)
    while (this.numbers.size > 0) this.forgetSome()
    const held = [...this.#device.lookups].filter(([id, count]) => id !== 1 && count > 0)
    if (held.length > 0) throw new Error(`the device holds ${held.length} inodes that nobody knows`)
  }
}

/** A u64 field of a request. */
function u64(at: number, value: bigint): Record<number, number> {
  return { [at]: Number(value & 0xffff_ffffn), [at + 4]: Number(value >> 32n) }
}

function expect(reply: Reply, error: number, what: string): void {
  if (reply.error !== error) throw new Error(`${what}: ${reply.error} instead of ${error}`)
}

/** One step of the kernel. */
function step(play: Play): void {
  const { random, root } = play
  const directories: [bigint, Inode][] = [[1n, root]]
  const name = `n${random.below(6)}`
  const subdirectory = [...root.entries].find(([, inode]) => (inode.mode & 0o170000) === 0o40000)
  if (subdirectory) directories.push([play.lookUp(1n, subdirectory[0], subdirectory[1]), subdirectory[1]])
  const [parent, directory] = directories[random.below(directories.length)]!
  const [other, otherDirectory] = directories[random.below(directories.length)]!
  const there = directory.entries.get(name)
  if (!there) return make(play, parent, directory, name)
  const number = play.lookUp(parent, name, there)
  const isDirectory = (there.mode & 0o170000) === 0o40000
  switch (random.below(isDirectory ? 2 : 8)) {
    case 0:
      if (there.entries.size > 0) return
      expect(play.ask(isDirectory ? Op.RMDIR : Op.UNLINK, names(name), parent), 0, `remove ${name}`)
      if (directory.entries.get(name) === there) throw new Error(`${name} is still there`)
      break
    case 1: {
      const to = `n${random.below(6)}`
      const target = otherDirectory.entries.get(to)
      // as in the VFS: nothing into itself, and directories only onto what is not there
      if (there === otherDirectory || target === there || (target && (isDirectory || (target.mode & 0o170000) === 0o40000))) return
      if (target) play.lookUp(other, to, target)
      expect(play.ask(Op.RENAME, args(8, u64(0, other), names(name, to)), parent), 0, `rename ${name} ${to}`)
      if (otherDirectory.entries.get(to) !== there || (directory.entries.get(name) === there && (directory !== otherDirectory || to !== name))) throw new Error('it is not renamed')
      break
    }
    case 2: {
      const to = `n${random.below(6)}`
      if (otherDirectory.entries.has(to)) return
      play.hadSeveralNames.add(there.ino)
      play.learn(play.ask(Op.LINK, args(FuseLinkIn.SIZE, u64(FuseLinkIn.oldnodeid, number), names(to)), other), there)
      break
    }
    case 3: case 4: {
      if (play.open.length > 12) return
      const append = random.below(2) === 0
      const reply = play.ask(Op.OPEN, args(FuseOpenIn.SIZE, { [FuseOpenIn.flags]: 2 | (append ? O_APPEND : 0) }), number)
      expect(reply, 0, 'open')
      play.open.push({ handle: handleOf(reply), number, inode: there, append, severalNames: false })
      break
    }
    default: use(play)
  }
}

function make(play: Play, parent: bigint, directory: Inode, name: string): void {
  const { random } = play
  if (directory === play.root && random.below(4) === 0 && ![...directory.entries.values()].some(inode => (inode.mode & 0o170000) === 0o40000)) {
    const reply = play.ask(Op.MKDIR, args(FuseMkdirIn.SIZE, {}, names(name)), parent)
    play.learn(reply, directory.entries.get(name)!)
    return
  }
  const flags = 2 | 0o100 | (random.below(2) === 0 ? 0o200 : 0) | (random.below(2) === 0 ? O_APPEND : 0)
  const reply = play.ask(Op.CREATE, args(FuseCreateIn.SIZE, { [FuseCreateIn.flags]: flags }, names(name)), parent)
  const inode = directory.entries.get(name)!
  const number = play.learn(reply, inode)
  play.open.push({ handle: handleOf(reply), number, inode, append: (flags & O_APPEND) !== 0, severalNames: false })
}

/** Reads, writes, or closes an open file. */
function use(play: Play): void {
  const { random, open } = play
  if (open.length === 0) return
  const file = open[random.below(open.length)]!
  const { inode, number } = file
  // a file that has lost its name, or the name that the bridge knew, may be gone for good
  const mayBeLost = inode.nlink === 0 || play.hadSeveralNames.has(inode.ino)
  switch (random.below(4)) {
    case 0: {
      expect(play.ask(Op.RELEASE, args(FuseReleaseIn.SIZE, u64(FuseReleaseIn.fh, file.handle)), number), 0, 'release')
      open.splice(open.indexOf(file), 1)
      break
    }
    case 1: {
      const reply = play.ask(Op.READ, args(FuseReadIn.SIZE, { ...u64(FuseReadIn.fh, file.handle), [FuseReadIn.size]: 5000 }), number)
      if (reply.error === -errno.ESTALE && mayBeLost) return
      expect(reply, 0, 'read')
      if (!inode.data.subarray(0, 5000).equals(reply.payload)) throw new Error('other data were read')
      break
    }
    default: {
      const bytes = Buffer.alloc(random.between(1, 40), random.below(256))
      const before = Buffer.from(inode.data)
      // the kernel appends at what it holds for the end
      const offset = file.append ? before.length : random.below(300)
      const fields = { ...u64(FuseWriteIn.fh, file.handle), [FuseWriteIn.offset]: offset, [FuseWriteIn.size]: bytes.length, [FuseWriteIn.flags]: 2 | (file.append ? O_APPEND : 0) }
      const reply = play.ask(Op.WRITE, args(FuseWriteIn.SIZE, fields, bytes), number)
      if (reply.error === -errno.ESTALE && mayBeLost) return
      expect(reply, 0, 'write')
      if (Buffer.from(reply.payload).readUInt32LE() !== bytes.length) throw new Error('not all was written')
      const expected = Buffer.alloc(Math.max(before.length, offset + bytes.length))
      before.copy(expected)
      bytes.copy(expected, offset)
      if (!inode.data.equals(expected)) throw new Error(`${file.append ? 'appended' : 'written'} otherwise: ${before.length} bytes, ${bytes.length} at ${offset}, now ${inode.data.length}`)
    }
  }
}

for (const seed of SEEDS) {
  t.test(`from seed ${seed}`, async t => {
    const play = new Play(seed)
    let at = 0
    try {
      for (; at < STEPS; at++) {
        step(play)
        if (play.random.below(10) === 0) play.forgetSome()
      }
      play.end()
      t.ok(play.deaths > STEPS / 4, `${play.deaths} deaths`)
    } catch (error) {
      t.fail(`step ${at}: ${(error as Error).stack}`)
    } finally {
      play.session.close()
    }
  })
}
