/** FUSE_INIT through the bridge: every row of the table in native-notes/fuse-init.md, both ways. */
import t from 'tap'
import { FUSE_INIT_FLAGS, FuseInHeader, FuseInitIn, FuseInitOut, FuseOutHeader, type InitFlag } from '../../lib/fuse/abi.js'
import {
  adaptInitReply, adaptInitRequest, buildInitRequest, decodeInitAnswer, explainInitRefusal, initFlagNames, initFlagWords, type InitPolicy,
} from '../../lib/fuse/init.js'

const ALL = Object.keys(FUSE_INIT_FLAGS) as InitFlag[]
const STRIPPED: InitFlag[] = [
  'SPLICE_WRITE', 'SPLICE_MOVE', 'SPLICE_READ', 'MAP_ALIGNMENT', 'SUBMOUNTS', 'HAS_INODE_DAX',
  'PASSTHROUGH', 'OVER_IO_URING', 'HAS_RESEND', 'REQUEST_TIMEOUT',
]
const RELAYED: InitFlag[] = [
  'HANDLE_KILLPRIV_V2', 'SECURITY_CTX', 'POSIX_ACL', 'DONT_MASK', 'SETXATTR_EXT', 'WRITEBACK_CACHE', 'NO_OPEN_SUPPORT',
  'NO_OPENDIR_SUPPORT', 'EXPORT_SUPPORT', 'CREATE_SUPP_GROUP',
]
const POLICY: InitPolicy = { maxWrite: 1 << 20, maxBackground: 28, defaultPermissions: true, passthrough: false }
const AT = 24
const view = new DataView(new ArrayBuffer(256))

interface Reply { flags?: InitFlag[], maxWrite?: number, maxPages?: number, maxBackground?: number, congestion?: number, readahead?: number, bytes?: number }

function writeReply(reply: Reply): void {
  new Uint8Array(view.buffer).fill(0)
  const arg = AT + FuseOutHeader.SIZE
  const [low, high] = initFlagWords(reply.flags ?? [])
  view.setUint32(AT + FuseOutHeader.len, FuseOutHeader.SIZE + (reply.bytes ?? FuseInitOut.SIZE), true)
  view.setUint32(arg + FuseInitOut.major, 7, true)
  view.setUint32(arg + FuseInitOut.minor, 38, true)
  view.setUint32(arg + FuseInitOut.max_readahead, reply.readahead ?? 131072, true)
  view.setUint32(arg + FuseInitOut.flags, low, true)
  view.setUint32(arg + FuseInitOut.flags2, high, true)
  view.setUint16(arg + FuseInitOut.max_background, reply.maxBackground ?? 12, true)
  view.setUint16(arg + FuseInitOut.congestion_threshold, reply.congestion ?? 9, true)
  view.setUint32(arg + FuseInitOut.max_write, reply.maxWrite ?? 65536, true)
  view.setUint16(arg + FuseInitOut.max_pages, reply.maxPages ?? 16, true)
}

function requestFlags(flags: InitFlag[], policy: InitPolicy): InitFlag[] {
  buildInitRequest(view, AT, flags)
  adaptInitRequest(view, AT, policy)
  const arg = AT + FuseInHeader.SIZE
  return initFlagNames(view.getUint32(arg + FuseInitIn.flags, true), view.getUint32(arg + FuseInitIn.flags2, true))
}

function replyFlags(flags: InitFlag[], policy: InitPolicy): InitFlag[] {
  writeReply({ flags })
  adaptInitReply(view, AT, policy)
  return decodeInitAnswer(view, AT + FuseOutHeader.SIZE).flags
}

t.test('flag words hold one bit per name', async t => {
  for (const flag of ALL) {
    const [low, high] = initFlagWords([flag])
    t.equal((BigInt(high) << 32n) | BigInt(low), 1n << BigInt(FUSE_INIT_FLAGS[flag]), flag)
    t.strictSame(initFlagNames(low, high), [flag])
  }
  const [low, high] = initFlagWords(ALL)
  t.strictSame(initFlagNames(low, high), ALL)
  t.ok(low > 0 && high > 0, 'unsigned')
})

t.test('the request: stripped, relayed, and nothing else is touched', async t => {
  t.strictSame(requestFlags(ALL, POLICY), ALL.filter(flag => !STRIPPED.includes(flag)))
  for (const flag of STRIPPED) t.strictSame(requestFlags([flag], POLICY), ['INIT_EXT'], `${flag} is not offered`)
  for (const flag of RELAYED) t.ok(requestFlags([flag], POLICY).includes(flag), `${flag} is`)
  buildInitRequest(view, AT, ['ASYNC_READ', 'SPLICE_READ', 'SECURITY_CTX'])
  const before = new Uint8Array(view.buffer.slice(0))
  adaptInitRequest(view, AT, POLICY)
  const flagsAt = AT + FuseInHeader.SIZE + FuseInitIn.flags
  const changed = [...new Uint8Array(view.buffer)].flatMap((byte, i) => byte === before[i] ? [] : [i])
  t.strictSame(changed, [flagsAt + 1], 'one byte of the flags differs')
})

t.test('ASYNC_DIO not where callers wait for a device that is away', async t => {
  t.ok(requestFlags(['ASYNC_DIO'], POLICY).includes('ASYNC_DIO'))
  t.notOk(requestFlags(['ASYNC_DIO'], { ...POLICY, waits: true }).includes('ASYNC_DIO'))
  t.notOk(replyFlags(['ASYNC_DIO'], { ...POLICY, waits: true }).includes('ASYNC_DIO'), 'nor from a device that was not asked')
})

t.test('ALLOW_IDMAP only with default_permissions', async t => {
  t.ok(requestFlags(['ALLOW_IDMAP'], POLICY).includes('ALLOW_IDMAP'))
  t.notOk(requestFlags(['ALLOW_IDMAP'], { ...POLICY, defaultPermissions: false }).includes('ALLOW_IDMAP'))
  t.ok(replyFlags(['INIT_EXT', 'ALLOW_IDMAP'], POLICY).includes('ALLOW_IDMAP'))
  t.notOk(replyFlags(['INIT_EXT', 'ALLOW_IDMAP'], { ...POLICY, defaultPermissions: false }).includes('ALLOW_IDMAP'),
    'the kernel refuses the mount if a device sets it unasked')
})

t.test('an INIT of 16 bytes, without INIT_EXT: what lies behind it stays as it is', async t => {
  buildInitRequest(view, AT, ['PASSTHROUGH', 'SPLICE_READ'])
  const arg = AT + FuseInHeader.SIZE
  const [low] = initFlagWords(['SPLICE_READ', 'ASYNC_READ'])
  view.setUint32(arg + FuseInitIn.flags, low, true)
  view.setUint32(arg + FuseInitIn.flags2, 0xffff_ffff, true)
  adaptInitRequest(view, AT, POLICY)
  t.strictSame(initFlagNames(view.getUint32(arg + FuseInitIn.flags, true), 0), ['ASYNC_READ'])
  t.equal(view.getUint32(arg + FuseInitIn.flags2, true), 0xffff_ffff)
})

t.test('the reply: what was not offered is not believed', async t => {
  t.strictSame(replyFlags(ALL, POLICY), ALL.filter(flag => !STRIPPED.includes(flag)))
  for (const flag of RELAYED) t.ok(replyFlags(['INIT_EXT', flag], POLICY).includes(flag), flag)
  t.strictSame(replyFlags(['ASYNC_READ', 'SECURITY_CTX'], POLICY), ['ASYNC_READ'], 'flags2 counts only with INIT_EXT')
})

t.test('the reply: sizes are clamped to what the bridge holds, smaller ones stay', async t => {
  const answer = (reply: Reply, policy = POLICY): ReturnType<typeof decodeInitAnswer> => {
    writeReply(reply)
    adaptInitReply(view, AT, policy)
    return decodeInitAnswer(view, AT + FuseOutHeader.SIZE)
  }
  t.match(answer({}), { major: 7, minor: 38, maxReadahead: 131072, maxWrite: 65536, maxPages: 16, maxBackground: 12, congestionThreshold: 9 })
  t.equal(answer({ maxWrite: 1 << 20 }).maxWrite, 1 << 20)
  t.equal(answer({ maxWrite: (1 << 20) + 1 }).maxWrite, 1 << 20)
  t.equal(answer({ maxWrite: 0xffff_ffff }).maxWrite, 1 << 20)
  t.equal(answer({ maxPages: 256 }).maxPages, 256)
  t.equal(answer({ maxPages: 257 }).maxPages, 256)
  t.equal(answer({ maxPages: 65535 }).maxPages, 256)
  t.equal(answer({ maxPages: 0 }).maxPages, 0, 'a device that leaves it out')
  t.match(answer({ maxBackground: 28, congestion: 20 }), { maxBackground: 28, congestionThreshold: 20 })
  t.match(answer({ maxBackground: 29, congestion: 29 }), { maxBackground: 28, congestionThreshold: 21 })
  t.match(answer({ maxBackground: 0, congestion: 0 }), { maxBackground: 28, congestionThreshold: 21 }, '0 means: up to you')
  t.match(answer({ maxBackground: 65535, congestion: 65535 }, { ...POLICY, maxBackground: 2 }), { maxBackground: 2, congestionThreshold: 1 })
})

t.test('a short reply of an old device: bounded as far as it goes', async t => {
  // FUSE_COMPAT_22_INIT_OUT_SIZE, up to max_write: /dev/fuse refuses reads that are smaller than that
  writeReply({ bytes: 24, maxWrite: 4 << 20, maxPages: 999, maxBackground: 500, flags: ['SPLICE_READ', 'ASYNC_READ'] })
  adaptInitReply(view, AT, POLICY)
  t.match(decodeInitAnswer(view, AT + FuseOutHeader.SIZE), { maxWrite: 1 << 20, maxBackground: 28, maxPages: 999, flags: ['ASYNC_READ'] },
    'and what lies behind it is not touched')
  // FUSE_COMPAT_INIT_OUT_SIZE: major and minor; and an error, which has no arguments at all
  for (const bytes of [0, 8]) {
    writeReply({ bytes, maxWrite: 4 << 20, flags: ALL })
    const before = new Uint8Array(view.buffer.slice(0))
    adaptInitReply(view, AT, POLICY)
    t.strictSame(new Uint8Array(view.buffer), before, `${bytes} bytes`)
  }
})

t.test('a refused INIT names the flags that were not offered', async t => {
  const [low, high] = initFlagWords(['POSIX_ACL', 'DONT_MASK', 'SETXATTR_EXT', 'WRITEBACK_CACHE', 'HANDLE_KILLPRIV_V2', 'SECURITY_CTX', 'ALLOW_IDMAP', 'CREATE_SUPP_GROUP', 'NO_OPEN_SUPPORT', 'NO_OPENDIR_SUPPORT'])
  const line = explainInitRefusal(-71, [low, high])
  t.match(line, /refused FUSE_INIT \(EPROTO\).*: SUBMOUNTS$/)
  t.notMatch(line, /POSIX_ACL/)
  t.notMatch(line, '\n')
  t.match(explainInitRefusal(-71, [0, 0]), /POSIX_ACL, .*WRITEBACK_CACHE/)
})

t.test('the INIT that is built without a kernel', async t => {
  new Uint8Array(view.buffer).fill(0xee)
  t.equal(buildInitRequest(view, AT, ['ASYNC_READ', 'SECURITY_CTX']), 104)
  t.equal(view.getUint32(AT + FuseInHeader.len, true), 104)
  t.equal(view.getUint32(AT + FuseInHeader.opcode, true), 26)
  t.not(view.getBigUint64(AT + FuseInHeader.unique, true), 0n)
  const arg = AT + FuseInHeader.SIZE
  t.strictSame([view.getUint32(arg + FuseInitIn.major, true), view.getUint32(arg + FuseInitIn.minor, true)], [7, 45])
  t.strictSame(initFlagNames(view.getUint32(arg + FuseInitIn.flags, true), view.getUint32(arg + FuseInitIn.flags2, true)), ['ASYNC_READ', 'INIT_EXT', 'SECURITY_CTX'])
  t.equal(view.getUint8(AT + 104), 0xee, 'nothing behind it is touched')
  t.equal(view.getUint8(AT - 1), 0xee)
})
