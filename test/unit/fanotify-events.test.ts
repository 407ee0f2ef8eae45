/** Decoding what fanotify gives, and collecting changes from it. */
import t from 'tap'
import { ChangeBatch } from '../../lib/device/passthrough/change-batch.js'
import { FanotifyEvents } from '../../lib/device/passthrough/fanotify-events.js'
import type { NotificationSender } from '../../lib/device/notification-sender.js'
import { FAN_CREATE, FAN_MODIFY, FAN_ONDIR, FAN_Q_OVERFLOW } from '../../lib/sys/fanotify.js'
import { regionOver } from '../../lib/sys/memory.js'
import { SeededRandom } from '../support/seeded-random.js'

const FID = 1
const DFID_NAME = 2
const DFID = 3

/** struct fanotify_event_info_fid, a handle and, with a name, that. */
function info(type: number, fsid: bigint, handleType: number, handle: Buffer, name?: string): Buffer {
  const tail = name === undefined ? Buffer.alloc(0) : Buffer.from(`${name}\0`, 'latin1')
  const length = (20 + handle.length + tail.length + 3) & ~3
  const out = Buffer.alloc(length, name === undefined ? 0xee : 0)
  out.writeUInt8(type, 0)
  out.writeUInt8(0, 1)
  out.writeUInt16LE(length, 2)
  out.writeBigUInt64LE(fsid, 4)
  out.writeUInt32LE(handle.length, 12)
  out.writeInt32LE(handleType, 16)
  handle.copy(out, 20)
  tail.copy(out, 20 + handle.length)
  return out
}

/** struct fanotify_event_metadata and what belongs to it. */
function event(mask: number, pid: number, ...infos: Buffer[]): Buffer {
  const head = Buffer.alloc(24)
  head.writeUInt32LE(24 + infos.reduce((sum, { length }) => sum + length, 0), 0)
  head.writeUInt8(3, 4)
  head.writeUInt16LE(24, 6)
  head.writeBigUInt64LE(BigInt(mask), 8)
  head.writeInt32LE(-1, 16)
  head.writeInt32LE(pid, 20)
  return Buffer.concat([head, ...infos])
}

function reader(bytes: Buffer): FanotifyEvents {
  const buffer = new ArrayBuffer(bytes.length + 16)
  new Uint8Array(buffer).fill(0x77)
  new Uint8Array(buffer).set(bytes)
  const events = new FanotifyEvents(regionOver(buffer))
  events.begin(bytes.length)
  return events
}

const handle8 = Buffer.from('0102030405060708', 'hex')
const handle5 = Buffer.from('a1a2a3a4a5', 'hex')

t.test('events one by one', async t => {
  const events = reader(Buffer.concat([
    event(FAN_CREATE | FAN_ONDIR, 77, info(DFID_NAME, 0x1_0000_0002n, 1, handle8, 'näme'), info(FID, 0x1_0000_0002n, 0x81, handle5)),
    event(FAN_MODIFY, 0, info(FID, 5n, 1, handle8)),
    event(FAN_MODIFY, 3, info(DFID_NAME, 5n, 1, handle8, '.')),
    event(FAN_MODIFY, 3, info(DFID, 5n, 1, handle8)),
    event(FAN_Q_OVERFLOW, 0),
  ]))
  t.ok(events.next())
  t.match(events, { mask: FAN_CREATE | FAN_ONDIR, thread: 77, hasDirectory: true, hasObject: true })
  t.equal(Buffer.from(events.name).toString('latin1'), 'näme')
  t.match(events.directory, { fsidLow: 2, fsidHigh: 1 })
  t.strictSame([...events.directory.words.subarray(0, 5)], [8, 1, 0x04030201, 0x08070605, 0])
  t.strictSame([...events.object.words.subarray(0, 5)], [5, 0x81, 0xa4a3a2a1 | 0, 0xa5, 0], 'what the last word does not use is 0')

  t.ok(events.next())
  t.match(events, { mask: FAN_MODIFY, thread: 0, hasDirectory: false, hasObject: true, name: { length: 0 } })
  t.strictSame([...events.object.words.subarray(0, 5)], [8, 1, 0x04030201, 0x08070605, 0])

  t.ok(events.next())
  t.equal(Buffer.from(events.name).toString(), '.')
  t.equal(events.hasObject, false)
  t.ok(events.next())
  t.match(events, { hasDirectory: true, name: { length: 0 } })
  t.ok(events.next())
  t.match(events, { mask: FAN_Q_OVERFLOW, hasDirectory: false, hasObject: false })
  t.notOk(events.next())
  t.notOk(events.next())
})

t.test('handles that no record has, and events that are cut short', async t => {
  const events = reader(event(FAN_MODIFY, 1, info(FID, 5n, 1, Buffer.alloc(41)), info(99, 5n, 1, handle8), info(DFID_NAME, 5n, 1, Buffer.alloc(128), 'f')))
  t.ok(events.next())
  t.match(events, { hasDirectory: false, hasObject: false, name: { length: 0 } })

  const whole = event(FAN_CREATE, 1, info(DFID_NAME, 5n, 1, handle8, 'name'), info(FID, 5n, 1, handle8))
  for (let length = 0; length < whole.length; length++) t.notOk(reader(whole.subarray(0, length)).next(), `${length} bytes`)
  const bad = Buffer.from(whole)
  bad.writeUInt16LE(0, 24 + 2)
  const cut = reader(bad)
  t.ok(cut.next())
  t.match(cut, { hasDirectory: false, hasObject: false })

  const random = new SeededRandom(3)
  for (let round = 0; round < 2000; round++) {
    const noise = Buffer.from(Buffer.concat([whole, whole]))
    for (let i = 0; i < 4; i++) noise[random.below(noise.length)] = random.below(256)
    const some = reader(noise)
    let count = 0
    while (some.next()) count++
    if (count > 4) t.fail(`${count} events`)
  }
})

/** Records what is sent, as long as there is room. */
class Recorder {
  sent: unknown[] = []
  room = Infinity
  #say(...what: unknown[]): boolean {
    if (this.room === 0) return false
    this.room--
    this.sent.push(what)
    return true
  }

  inode(nodeid: number, data: boolean): boolean { return this.#say('inode', nodeid, data) }
  entry(parent: number, name: Buffer, flags: number): boolean { return this.#say('entry', parent, name.toString(), flags) }
  removed(parent: number, child: number, name: Buffer): boolean { return this.#say('removed', parent, child, name.toString()) }
}

t.test('changes are sent once, entries first', async t => {
  const batch = new ChangeBatch()
  const recorder = new Recorder()
  const sender = recorder as unknown as NotificationSender
  const name = Buffer.from('a')
  for (let i = 0; i < 3; i++) {
    batch.inode(5, false)
    batch.inode(6, false)
    batch.inode(5, true)
    batch.inode(5, false)
    batch.entry(1, name, true, 0)
    batch.entry(2, name, true, 0)
    batch.entry(2, name, false, 0)
    batch.entry(3, name, false, 9)
    batch.entry(3, name, true, 0)
    batch.inode(0, true)
    batch.entry(0, name, true, 0)
  }
  name.fill(0)
  t.equal(batch.size, 5)
  recorder.room = 2
  t.notOk(batch.send(sender))
  t.equal(batch.size, 3, 'what was sent is gone')
  t.notOk(batch.send(sender))
  batch.inode(5, true)
  recorder.room = Infinity
  t.ok(batch.send(sender))
  t.strictSame(recorder.sent, [['entry', 1, 'a', 1], ['entry', 2, 'a', 0], ['removed', 3, 9, 'a'], ['inode', 5, true], ['inode', 6, false]])
  t.equal(batch.size, 0)
  batch.inode(5, true)
  batch.entry(1, Buffer.from('b'), false, 0)
  batch.clear()
  t.ok(batch.send(sender))
  t.equal(recorder.sent.length, 5)
})
