/** Attributes of a directory that come with the answer to a change in it: when the near end believes them. */
import t, { type Test } from 'tap'
import { FuseAttr, FuseAttrOut, FuseEntryOut, FuseGetattrIn, FuseInHeader, FuseReadIn } from '../../lib/fuse/abi.js'
import { Op, opcodeName } from '../../lib/fuse/opcodes.js'
import { Slot } from '../../lib/driver/memory-plan.js'
import { RelayNote, WANTS_NOTE } from '../../lib/relay/attribute-notes.js'
import { args, names } from '../support/mock-fuse.js'
import { makeScene, type Message } from '../support/near-scene.js'

const DIR = 77

function attributes(size: number, seconds = 60): Buffer<ArrayBuffer> {
  const bytes = Buffer.alloc(FuseAttrOut.SIZE)
  bytes.writeUInt32LE(seconds, FuseAttrOut.attr_valid)
  bytes.writeUInt32LE(size, FuseAttrOut.attr + FuseAttr.size)
  return bytes
}

function scene(t: Test, lookAhead = true) {
  const near = makeScene(t, undefined, lookAhead)
  let slot = 0
  return {
    ...near,
    /** Sends a request. @returns what came to the far end */
    ask(opcode: number, nodeid: number, body: Uint8Array, outBytes = 0): Message | undefined {
      near.plain(slot = (slot + 1) % 16, opcode, nodeid, body, outBytes)
      return near.messages()[0]
    },
    note({ low, high }: Message, nodeid: number, attr: Buffer): void {
      const bytes = Buffer.alloc(RelayNote.SIZE)
      bytes.writeUInt32LE(RelayNote.SIZE, RelayNote.len)
      bytes.writeUInt32LE(nodeid, RelayNote.nodeid)
      bytes.writeUInt32LE(low, RelayNote.cause)
      bytes.writeUInt32LE(high, RelayNote.cause + 4)
      attr.copy(bytes, RelayNote.attr_out)
      near.raw(bytes)
    },
    /** The size that a GETATTR was answered with, without the far end; undefined when it was asked. */
    sizeOf(nodeid: number): number | undefined {
      near.used()
      const asked = this.ask(Op.GETATTR, nodeid, args(FuseGetattrIn.SIZE, {}), FuseAttrOut.SIZE)
      if (asked) {
        near.reply(asked, attributes(0))
        near.used()
        return undefined
      }
      t.strictSame(near.used(), [[slot, 16 + FuseAttrOut.SIZE]])
      return near.region.view.getUint32(near.slotAt(slot) + Slot.OUT + 16 + FuseAttrOut.attr + FuseAttr.size, true)
    },
  }
}

t.test('a note answers one GETATTR', async t => {
  const near = scene(t)
  const change = near.ask(Op.MKDIR, DIR, Buffer.concat([Buffer.alloc(8), names('x')]), FuseEntryOut.SIZE)!
  t.equal(change.bytes.readUInt16LE(FuseInHeader.padding), WANTS_NOTE)
  near.note(change, DIR, attributes(5))
  near.reply(change, Buffer.alloc(FuseEntryOut.SIZE))
  t.equal(near.sizeOf(DIR + 1), undefined, 'of another directory nothing is known')
  t.equal(near.sizeOf(DIR), 5)
  t.equal(near.sizeOf(DIR), undefined, 'once')
  t.equal(near.device.broken, '')
})

t.test('changes of data do not matter, all others do', async t => {
  for (const [opcode, body, expected] of [
    [Op.WRITE, args(40, {}), 5], [Op.FSYNC, args(16, {}), 5], [Op.SETATTR, args(88, {}), undefined], [Op.SETXATTR, args(16, {}), undefined],
    [Op.UNLINK, names('y'), undefined], [Op.RENAME, Buffer.concat([Buffer.alloc(8), names('a', 'b')]), undefined], [63, args(8, {}), undefined],
  ] as const) {
    const near = scene(t)
    const change = near.ask(Op.UNLINK, DIR, names('x'))!
    near.note(change, DIR, attributes(5))
    near.reply(change)
    near.ask(opcode, 3, body)
    t.equal(near.sizeOf(DIR), expected, opcodeName(opcode))
  }
})

t.test('a change that is not alone has none, and one that another overtakes', async t => {
  const near = scene(t)
  const first = near.ask(Op.UNLINK, DIR, names('x'))!
  const second = near.ask(Op.UNLINK, DIR, names('y'))!
  t.strictSame([first, second].map(({ bytes }) => bytes.readUInt16LE(FuseInHeader.padding)), [WANTS_NOTE, 0])
  near.note(first, DIR, attributes(5))
  near.reply(first)
  t.equal(near.sizeOf(DIR), undefined)
  const third = near.ask(Op.UNLINK, DIR, names('z'))!
  t.equal(third.bytes.readUInt16LE(FuseInHeader.padding), 0, 'the second is still under way')
  near.reply(second)
  near.reply(third)
  t.equal(near.ask(Op.UNLINK, DIR, names('z'))!.bytes.readUInt16LE(FuseInHeader.padding), WANTS_NOTE)
})

t.test('reading the directory, and a device that allows nothing', async t => {
  const near = scene(t)
  const change = near.ask(Op.RMDIR, DIR, names('x'))!
  near.note(change, DIR, attributes(5))
  near.reply(change)
  near.ask(Op.READDIR, DIR, args(FuseReadIn.SIZE, {}))
  t.equal(near.sizeOf(DIR), undefined)
  const other = near.ask(Op.RMDIR, DIR, names('y'))!
  near.note(other, DIR, attributes(5, 0))
  near.reply(other)
  t.equal(near.sizeOf(DIR), undefined)
})

t.test('a note of another length is none; without look-ahead none is asked for', async t => {
  const near = scene(t)
  const bytes = Buffer.alloc(RelayNote.SIZE + 8)
  bytes.writeUInt32LE(bytes.length, RelayNote.len)
  near.raw(bytes)
  t.match(near.device.broken, /fuse_out_header.len is 144, expected 136 with unique 0/)
  t.equal(scene(t, false).ask(Op.UNLINK, DIR, names('x'))!.bytes.readUInt16LE(FuseInHeader.padding), 0)
})
