/** What a reply leaves behind that nobody waits for: lookups are forgotten, handles released. */
import t from 'tap'
import { buildRelease, forgetReply, releaseOpcode } from '../../lib/driver/abandoned-reply.js'
import type { HiprioSink } from '../../lib/driver/hiprio-queue.js'
import { direntSize, FuseDirent, FuseDirentplus, FuseEntryOut, FuseInHeader, FuseOpenOut, FuseReleaseIn } from '../../lib/fuse/abi.js'
import { Op, opcodeRows } from '../../lib/fuse/opcodes.js'
import { isBeingKilled } from '../../lib/sys/being-killed.js'
import { SeededRandom } from '../support/seeded-random.js'

const view = new DataView(new ArrayBuffer(8192))
const bytes = new Uint8Array(view.buffer)
const OUT = 1024
const PAYLOAD = 4096

class Forgets implements HiprioSink {
  readonly nodes: bigint[] = []
  forget(nodeidLow: number, nodeidHigh: number, nlookupLow: number, nlookupHigh: number): void {
    if (nlookupLow !== 1 || nlookupHigh !== 0) throw new Error(`${nlookupLow} lookups`)
    this.nodes.push((BigInt(nodeidHigh) << 32n) | BigInt(nodeidLow))
  }
  interrupt(): void { throw new Error('no interrupt') }
  flush(): void {}
}

function forgotten(opcode: number, payloadBytes = 0): bigint[] {
  const sink = new Forgets()
  forgetReply(view, opcode, OUT, PAYLOAD, payloadBytes, sink)
  return sink.nodes
}

/** Writes directory entries. @returns the length of the payload */
function directory(at: number, entries: [nodeid: bigint, name: string][]): number {
  const start = at
  for (const [nodeid, name] of entries) {
    view.setBigUint64(at + FuseEntryOut.nodeid, nodeid, true)
    view.setUint32(at + FuseEntryOut.SIZE + FuseDirent.namelen, Buffer.byteLength(name), true)
    bytes.set(Buffer.from(name), at + FuseDirentplus.SIZE)
    at += direntSize(FuseDirentplus.SIZE, Buffer.byteLength(name))
  }
  return at - start
}

t.test('replies with an entry: one lookup, unless it is a negative one', async t => {
  const withEntry = new Set(['LOOKUP', 'MKNOD', 'MKDIR', 'SYMLINK', 'LINK', 'CREATE', 'TMPFILE'])
  view.setBigUint64(OUT + FuseEntryOut.nodeid, 0xffff_ffff_0000_0007n, true)
  for (const row of opcodeRows) {
    if (row.name === 'READDIRPLUS') continue
    t.strictSame(forgotten(row.opcode), withEntry.has(row.name) ? [0xffff_ffff_0000_0007n] : [], row.name)
    t.equal(row.outBytes >= FuseEntryOut.SIZE && row.name !== 'STATX', withEntry.has(row.name), 'as the table of opcodes has it')
  }
  view.setBigUint64(OUT + FuseEntryOut.nodeid, 0n, true)
  t.strictSame(forgotten(Op.LOOKUP), [])
})

t.test('READDIRPLUS: every entry but . and .. and those without a node', async t => {
  bytes.fill(0)
  const length = directory(PAYLOAD, [[1n, '.'], [2n, '..'], [3n, 'a'], [0n, 'gone'], [4n, '.a'], [5n, '..a'], [6n, 'b'.repeat(255)], [7n, '...'], [8n, 'x.']])
  t.strictSame(forgotten(Op.READDIRPLUS, length), [3n, 4n, 5n, 6n, 7n, 8n])
  t.strictSame(forgotten(Op.READDIRPLUS, length - 1), [3n, 4n, 5n, 6n, 7n], 'an entry that is cut off is none, as in the kernel')
  t.strictSame(forgotten(Op.READDIRPLUS, 0), [])
})

t.test('READDIRPLUS of a device that lies about its names: nothing beyond the reply is read, and it ends', async t => {
  bytes.fill(0)
  for (const namelen of [0, 1025, 0x7fff_ffff, 0x8000_0000, 0xffff_ff00, 0xffff_ffff]) {
    const length = directory(PAYLOAD, [[3n, 'a'], [4n, 'b'], [5n, 'c']])
    view.setUint32(PAYLOAD + 160 + FuseEntryOut.SIZE + FuseDirent.namelen, namelen, true)
    t.strictSame(forgotten(Op.READDIRPLUS, length), [3n], `a name of ${namelen} bytes ends the list`)
  }
  // the header of the last entry ends where the memory ends
  const end = view.byteLength - PAYLOAD
  bytes.fill(0)
  for (const namelen of [1, 2, 3]) {
    view.setUint32(view.byteLength - FuseDirentplus.SIZE + FuseEntryOut.SIZE + FuseDirent.namelen, namelen, true)
    const sink = new Forgets()
    forgetReply(view, Op.READDIRPLUS, OUT, view.byteLength - FuseDirentplus.SIZE, FuseDirentplus.SIZE, sink)
    t.strictSame(sink.nodes, [])
  }
  const random = new SeededRandom(152)
  for (let i = 0; i < 3000; i++) {
    for (let n = PAYLOAD; n < view.byteLength; n += 4) view.setUint32(n, random.below(3) === 0 ? random.below(300) : random.below(2 ** 32), true)
    forgotten(Op.READDIRPLUS, random.between(0, end))
  }
  t.pass('3,000 replies of noise')
})

t.test('which replies carry a handle', async t => {
  t.strictSame(Object.fromEntries(opcodeRows.filter(row => releaseOpcode(row.opcode) !== 0).map(row => [row.name, releaseOpcode(row.opcode)])),
    { OPEN: Op.RELEASE, OPENDIR: Op.RELEASEDIR, CREATE: Op.RELEASE, TMPFILE: Op.RELEASE })
})

t.test('the RELEASE of a handle', async t => {
  for (const opcode of [Op.OPEN, Op.OPENDIR, Op.CREATE, Op.TMPFILE]) {
    bytes.fill(0xee)
    const entry = opcode === Op.CREATE || opcode === Op.TMPFILE
    view.setBigUint64(OUT + (entry ? FuseEntryOut.SIZE : 0) + FuseOpenOut.fh, 0x1234_5678_9abc_def0n, true)
    // the node: of the request for OPEN, whose place the RELEASE takes, of the reply for CREATE
    const nodeidAt = entry ? OUT + FuseEntryOut.nodeid : FuseInHeader.nodeid
    view.setBigUint64(nodeidAt, 0xfedc_ba98_7654_3210n, true)
    t.equal(buildRelease(view, opcode, nodeidAt, OUT, 0), 64)
    t.equal(view.getUint32(FuseInHeader.len, true), 64)
    t.equal(view.getUint32(FuseInHeader.opcode, true), opcode === Op.OPENDIR ? Op.RELEASEDIR : Op.RELEASE)
    t.equal(view.getBigUint64(FuseInHeader.nodeid, true), 0xfedc_ba98_7654_3210n)
    t.equal(view.getBigUint64(FuseInHeader.SIZE + FuseReleaseIn.fh, true), 0x1234_5678_9abc_def0n)
    t.equal(view.getUint32(FuseInHeader.uid, true) + view.getUint32(FuseInHeader.SIZE + FuseReleaseIn.flags, true), 0, 'the rest is zero')
    t.equal(bytes[64], 0xee)
  }
})

t.test('nobody is being killed here', async t => {
  t.notOk(isBeingKilled(process.pid))
  t.notOk(isBeingKilled(0))
  t.notOk(isBeingKilled(2 ** 31 - 1), 'nor is one who is not there')
})
