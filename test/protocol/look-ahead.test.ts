/** Directories that the near end of a relay lists ahead: what is answered from them, and what never is. */
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { direntSize, FUSE_INIT_FLAGS, FuseAttr, FuseDirent, FuseDirentplus, FuseEntryOut, FuseInHeader, FuseInitIn, FuseInitOut, FuseOpenIn, FuseReadIn } from '../../lib/fuse/abi.js'
import { Slot } from '../../lib/driver/memory-plan.js'
import { Op, opcodeName } from '../../lib/fuse/opcodes.js'
import { args, names } from '../support/mock-fuse.js'
import { makeScene, type Message } from '../support/near-scene.js'

const DIR = 77
const O_TRUNC = 0o1000
const NOTHING = Buffer.alloc(0)

interface Valid { seconds?: number, nanoseconds?: number }

function entry(nodeid: number, { seconds = 60, nanoseconds = 0 }: Valid = {}): Buffer<ArrayBuffer> {
  const bytes = Buffer.alloc(FuseEntryOut.SIZE)
  bytes.writeUInt32LE(nodeid, FuseEntryOut.nodeid)
  bytes.writeUInt32LE(seconds, FuseEntryOut.entry_valid)
  bytes.writeUInt32LE(seconds, FuseEntryOut.attr_valid)
  bytes.writeUInt32LE(nanoseconds, FuseEntryOut.entry_valid_nsec)
  bytes.writeUInt32LE(nanoseconds, FuseEntryOut.attr_valid_nsec)
  bytes.writeUInt32LE(0o100644, FuseEntryOut.attr + FuseAttr.mode)
  return bytes
}

/** A READDIRPLUS reply. */
function listing(entries: Record<string, number>, valid?: Valid): Buffer<ArrayBuffer> {
  return Buffer.concat(Object.entries(entries).map(([name, nodeid]) => {
    const bytes = Buffer.alloc(direntSize(FuseDirentplus.SIZE, name.length))
    entry(nodeid, valid).copy(bytes)
    bytes.writeUInt32LE(name.length, FuseEntryOut.SIZE + FuseDirent.namelen)
    bytes.write(name, FuseDirentplus.SIZE)
    return bytes
  }))
}

/** A driver that has mounted. */
function mounted(t: Test, { lookAhead = true, flags = 1 << FUSE_INIT_FLAGS.DO_READDIRPLUS } = {}) {
  const scene = makeScene(t, undefined, lookAhead)
  const { device, region } = scene
  let slot = 0
  const got = (): string[] => {
    found.push(...scene.messages())
    return found.splice(0).map(message => {
      last.set(message.opcode, message)
      return opcodeName(message.opcode)
    })
  }
  const found: Message[] = []
  const last = new Map<number, Message>()
  const ask = (opcode: number, nodeid: number, body: Uint8Array, outBytes = 0): number => {
    scene.plain(slot = (slot + 1) % 16, opcode, nodeid, body, outBytes)
    return slot
  }
  const reply = (opcode: number, payload: Buffer<ArrayBuffer> = NOTHING): void => {
    scene.reply(last.get(opcode)!, payload)
    device.pass()
  }
  const init = Buffer.alloc(FuseInitOut.SIZE)
  init.writeUInt32LE(flags, FuseInitOut.flags)
  ask(Op.INIT, 0, args(FuseInitIn.SIZE, {}), FuseInitOut.SIZE)
  got()
  reply(Op.INIT, init)
  scene.used()
  const lookup = (name: string, parent = DIR): number => ask(Op.LOOKUP, parent, names(name), FuseEntryOut.SIZE)
  return {
    ...scene, got, last, ask, reply, lookup,
    /** A LOOKUP that the far end answers. */
    far(name: string, nodeid = 1000): void {
      lookup(name)
      got()
      reply(Op.LOOKUP, entry(nodeid))
      scene.used()
    },
    /** Two LOOKUPs, and what they make listed. */
    list(entries: Record<string, number>, valid?: Valid): string[] {
      this.far('first')
      lookup('second')
      const sent = got()
      reply(Op.LOOKUP, entry(1001))
      if (!sent.includes('OPENDIR')) return sent
      reply(Op.OPENDIR, Buffer.from(args(16, { 0: 4711 })))
      sent.push(...got())
      reply(Op.READDIRPLUS, listing(entries, valid))
      sent.push(...got())
      reply(Op.RELEASEDIR)
      sent.push(...got())
      scene.used()
      return sent
    },
    /** The fuse_entry_out that a LOOKUP was answered with, without the far end; undefined when it was asked. */
    here(name: string): Buffer | undefined {
      const slot = lookup(name)
      if (got().includes('LOOKUP')) {
        reply(Op.LOOKUP, entry(2000))
        scene.used()
        return undefined
      }
      t.strictSame(scene.used(), [[slot, 144]])
      const at = scene.slotAt(slot) + Slot.OUT + 16
      return Buffer.from(region.bytes.slice(at, at + FuseEntryOut.SIZE))
    },
  }
}

t.test('the second LOOKUP in a directory has it listed; a name is answered once', async t => {
  const scene = mounted(t)
  t.strictSame(scene.list({ '.': 0, a: 11, bb: 12, c: 13 }).sort(), ['LOOKUP', 'OPENDIR', 'READDIRPLUS', 'RELEASEDIR'])
  const opened = scene.last.get(Op.OPENDIR)!.bytes
  t.equal(opened.readUInt32LE(FuseInHeader.nodeid), DIR)
  t.equal(scene.last.get(Op.READDIRPLUS)!.bytes.readUInt32LE(FuseInHeader.SIZE + FuseReadIn.fh), 4711)
  t.equal(scene.last.get(Op.RELEASEDIR)!.bytes.readUInt32LE(FuseInHeader.SIZE), 4711)
  const bb = scene.here('bb')!
  t.equal(bb.readUInt32LE(FuseEntryOut.nodeid), 12)
  t.equal(bb.readUInt32LE(FuseEntryOut.attr + FuseAttr.mode), 0o100644)
  for (const [seconds, nanoseconds] of [[FuseEntryOut.entry_valid, FuseEntryOut.entry_valid_nsec], [FuseEntryOut.attr_valid, FuseEntryOut.attr_valid_nsec]] as const) {
    const left = bb.readUInt32LE(seconds) + bb.readUInt32LE(nanoseconds) / 1e9
    t.ok(left > 0 && left < 5, 'what is left of its time')
  }
  t.equal(scene.here('bb'), undefined, 'the lookup is handed over already')
  t.equal(scene.here('b'), undefined)
  t.equal(scene.here('bbb'), undefined)
  t.equal(scene.here('.'), undefined)
  t.equal(scene.here('a')?.readUInt32LE(0), 11)
  t.equal(scene.lookup('c', DIR + 1) > 0 && scene.got().join(), 'LOOKUP', 'another directory')
  t.equal(scene.device.broken, '')
})

t.test('a change of this mount ends it, and the lookups go back', async t => {
  const changes: [number, Uint8Array][] = [
    [Op.UNLINK, names('x')], [Op.WRITE, args(40, {})], [Op.SETATTR, args(88, {})], [Op.OPEN, args(FuseOpenIn.SIZE, { [FuseOpenIn.flags]: O_TRUNC })], [Op.FSYNC, args(16, {})], [63, args(8, {})],
  ]
  for (const [opcode, body] of changes) {
    const scene = mounted(t)
    scene.list({ a: 11, b: 12, c: 13 })
    t.ok(scene.here('b'))
    scene.ask(opcode, 5, body)
    t.strictSame(scene.got().sort(), ['BATCH_FORGET', opcodeName(opcode)].sort())
    const { bytes } = scene.last.get(Op.BATCH_FORGET)!
    t.equal(bytes.length, 40 + 8 + 2 * 16)
    t.strictSame([40, 48, 56, 64, 72].map(at => bytes.readUInt32LE(at)), [2, 11, 1, 13, 1], 'one of each that nobody took over')
    t.equal(scene.here('a'), undefined, opcodeName(opcode))
    t.equal(scene.device.broken, '')
  }
})

t.test('none is begun while a change is under way, nor used that a change overtook', async t => {
  const scene = mounted(t)
  scene.ask(Op.UNLINK, 5, names('x'))
  t.strictSame(scene.got(), ['UNLINK'])
  t.notOk(scene.list({ a: 11 }).includes('OPENDIR'))
  scene.reply(Op.UNLINK)
  scene.lookup('third')
  t.strictSame(scene.got().sort(), ['LOOKUP', 'OPENDIR'], 'but once it has ended')
  scene.reply(Op.LOOKUP, entry(1))
  scene.reply(Op.OPENDIR, Buffer.from(args(16, { 0: 4711 })))
  t.strictSame(scene.got(), ['READDIRPLUS'])
  scene.ask(Op.RMDIR, 5, names('y'))
  t.strictSame(scene.got(), ['RMDIR'])
  scene.reply(Op.READDIRPLUS, listing({ a: 11, b: 12 }))
  t.strictSame(scene.got().sort(), ['BATCH_FORGET', 'RELEASEDIR'])
  t.equal(scene.here('a'), undefined)
})

t.test('a file that is read tells its times anew', async t => {
  const scene = mounted(t)
  scene.list({ a: 11, b: 12 })
  scene.ask(Op.READ, 11, args(FuseReadIn.SIZE, {}))
  t.strictSame(scene.got(), ['READ'])
  t.equal(scene.here('a'), undefined)
  t.ok(scene.here('b'))
})

t.test('nothing is told longer than the device allows', async t => {
  const scene = mounted(t)
  scene.list({ a: 11, b: 12 }, { seconds: 0, nanoseconds: 30_000_000 })
  await sleep(40)
  t.equal(scene.here('a'), undefined)
})

t.test('a device that allows nothing is not asked again', async t => {
  const scene = mounted(t)
  t.ok(scene.list({ a: 11, b: 12 }, { seconds: 0 }).includes('BATCH_FORGET'))
  for (let i = 0; i < 20; i++) t.equal(scene.here(`x${i}`), undefined)
  t.notOk(scene.got().includes('OPENDIR'))
})

t.test('a directory that cannot be opened is left alone for long', async t => {
  const scene = mounted(t)
  scene.far('first')
  scene.lookup('second')
  scene.got()
  scene.reply(Op.LOOKUP, entry(2))
  const { low, high } = scene.last.get(Op.OPENDIR)!
  scene.fail({ low, high } as Message, -13)
  for (let i = 0; i < 100; i++) t.equal(scene.here(`x${i}`), undefined)
  t.equal(scene.device.broken, '')
})

t.test('not where it makes no sense', async t => {
  for (const settings of [{ lookAhead: false }, { flags: 0 }]) {
    const scene = mounted(t, settings)
    t.strictSame(scene.list({ a: 11 }), ['LOOKUP'])
  }
})
