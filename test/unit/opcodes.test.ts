/** The table of opcodes: numbers, request structures, sizes of replies, queues. */
import t from 'tap'
import * as abi from '../../lib/fuse/abi.js'
import {
  hasReply, isHiprio, Op, OPCODE_LIMIT, opcodeName, opcodeRow, opcodeRows, replyFixedBytes, replyPayloadBytes,
} from '../../lib/fuse/opcodes.js'

/**
 * By hand from Linux fs/fuse: [number, argument bytes, names, fixed reply bytes behind the header].
 * −1: no reply.
 */
const EXPECTED: Record<string, [number, number, number, number]> = {
  LOOKUP: [1, 0, 1, 128], FORGET: [2, 8, 0, -1], GETATTR: [3, 16, 0, 104], SETATTR: [4, 88, 0, 104], READLINK: [5, 0, 0, 0],
  SYMLINK: [6, 0, 2, 128], MKNOD: [8, 16, 1, 128], MKDIR: [9, 8, 1, 128], UNLINK: [10, 0, 1, 0], RMDIR: [11, 0, 1, 0],
  RENAME: [12, 8, 2, 0], LINK: [13, 8, 1, 128], OPEN: [14, 8, 0, 16], READ: [15, 40, 0, 0], WRITE: [16, 40, 0, 8],
  STATFS: [17, 0, 0, 80], RELEASE: [18, 24, 0, 0], FSYNC: [20, 16, 0, 0], SETXATTR: [21, 16, 1, 0], GETXATTR: [22, 8, 1, 8],
  LISTXATTR: [23, 8, 0, 8], REMOVEXATTR: [24, 0, 1, 0], FLUSH: [25, 24, 0, 0], INIT: [26, 64, 0, 64], OPENDIR: [27, 8, 0, 16],
  READDIR: [28, 40, 0, 0], RELEASEDIR: [29, 24, 0, 0], FSYNCDIR: [30, 16, 0, 0], GETLK: [31, 48, 0, 24], SETLK: [32, 48, 0, 0],
  SETLKW: [33, 48, 0, 0], ACCESS: [34, 8, 0, 0], CREATE: [35, 16, 1, 144], INTERRUPT: [36, 8, 0, -1], BMAP: [37, 16, 0, 8],
  DESTROY: [38, 0, 0, 0], IOCTL: [39, 32, 0, 16], POLL: [40, 24, 0, 8], NOTIFY_REPLY: [41, 0, 0, -1], BATCH_FORGET: [42, 8, 0, -1],
  FALLOCATE: [43, 32, 0, 0], READDIRPLUS: [44, 40, 0, 0], RENAME2: [45, 16, 2, 0], LSEEK: [46, 24, 0, 8],
  COPY_FILE_RANGE: [47, 56, 0, 8], SETUPMAPPING: [48, 40, 0, 0], REMOVEMAPPING: [49, 4, 0, 0], SYNCFS: [50, 8, 0, 0],
  TMPFILE: [51, 16, 1, 144], STATX: [52, 24, 0, 288], COPY_FILE_RANGE_64: [53, 56, 0, 8],
}

const view = new DataView(new ArrayBuffer(4096))
/** A request of this opcode whose u32 at `at` (from its start) is `value`, at byte 512. */
function payload(opcode: number, at: number, value: number): number {
  new Uint8Array(view.buffer).fill(0xee)
  view.setUint32(512 + at, value, true)
  return replyPayloadBytes(opcode, view, 512)
}

t.test('rows', async t => {
  const rows = Object.fromEntries(opcodeRows.map(row => [row.name, [row.opcode, row.inBytes, row.names, row.outBytes]]))
  t.strictSame(rows, EXPECTED)
  t.strictSame(Object.fromEntries(Object.entries(EXPECTED).map(([name, [opcode]]) => [name, opcode])), { ...Op })
  t.equal(new Set(opcodeRows.map(row => row.opcode)).size, opcodeRows.length)
  for (const row of opcodeRows) {
    t.equal(opcodeRow(row.opcode), row)
    t.equal(opcodeName(row.opcode), row.name)
    if (row.payload !== 'sized') t.equal(row.sizeAt, 0, `${row.name} has no size field`)
    else t.ok(row.sizeAt + 4 <= row.inBytes, `the size field of ${row.name} lies in its arguments`)
  }
})

t.test('which queue, and whether there is a reply', async t => {
  const hiprio = opcodeRows.filter(row => isHiprio(row.opcode)).map(row => row.name)
  t.strictSame(hiprio, ['FORGET', 'INTERRUPT', 'BATCH_FORGET'])
  const silent = opcodeRows.filter(row => !hasReply(row.opcode)).map(row => row.name)
  t.strictSame(silent, ['FORGET', 'INTERRUPT', 'NOTIFY_REPLY', 'BATCH_FORGET'])
  for (const row of opcodeRows) {
    t.equal(row.hiprio, isHiprio(row.opcode))
    if (row.hiprio) t.notOk(hasReply(row.opcode), 'nothing on hiprio is answered')
  }
})

t.test('fixed part of replies, header included', async t => {
  for (const [name, [opcode, , , out]] of Object.entries(EXPECTED)) {
    const either = name === 'GETXATTR' || name === 'LISTXATTR'
    t.equal(replyFixedBytes(opcode), 16 + (either ? 0 : Math.max(0, out)), name)
  }
})

t.test('payload of replies', async t => {
  for (const [name, [opcode]] of Object.entries(EXPECTED)) {
    switch (name) {
      case 'READ': case 'READDIR': case 'READDIRPLUS':
        // READ = 16 + size
        for (const size of [0, 1, 4096, 1 << 20, 0xffff_ffff]) t.equal(payload(opcode, 40 + 16, size), size, `${name} of ${size}`)
        break
      case 'GETXATTR': case 'LISTXATTR':
        // 16 + max(size, 8): size 0 asks for the length
        for (const [size, room] of [[0, 8], [7, 8], [8, 8], [9, 9], [65536, 65536]] as const) t.equal(payload(opcode, 40, size), room, `${name} of ${size}`)
        break
      case 'READLINK': t.equal(payload(opcode, 40, 7), 4096, name); break
      // 16 + 16 + out_size
      case 'IOCTL': for (const size of [0, 5, 4096]) t.equal(payload(opcode, 40 + 28, size), size, `${name} of ${size}`); break
      default: t.equal(payload(opcode, 40, 0xffff_ffff), 0, name)
    }
  }
})

t.test('unknown opcodes: a reply with up to a page, never hiprio', async t => {
  const known = new Set(opcodeRows.map(row => row.opcode))
  for (const opcode of [0, 7, 19, 54, 63, 64, 100, 4096, 65536 + Op.READ, 0x1_0000_0000 - 1].filter(opcode => !known.has(opcode))) {
    t.equal(opcodeRow(opcode), undefined, `${opcode}`)
    t.equal(opcodeName(opcode), `OPCODE_${opcode}`)
    t.ok(hasReply(opcode))
    t.notOk(isHiprio(opcode))
    t.equal(replyFixedBytes(opcode), abi.FuseOutHeader.SIZE)
    t.equal(payload(opcode, 40, 0xffff_ffff), 4096)
  }
  t.equal(opcodeRow(0), undefined)
  t.ok(opcodeRows.every(row => row.opcode < OPCODE_LIMIT))
})
