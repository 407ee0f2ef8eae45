/** Offset tables: what a declaration must refuse, and what it decodes. 64-bit integers as two halves, against BigInt. */
import t from 'tap'
import { defineStruct, dumpStruct, structName } from '../../lib/wire/struct.js'
import { copyU64, getI64, getU64, setU64 } from '../../lib/wire/u64.js'
import { SeededRandom } from '../support/seeded-random.js'

t.test('offsets are running sums, SIZE is the whole', async t => {
  const S = defineStruct('s', 32, { a: 'u8', b: 'u8', c: 'u16', d: 'u32', e: 'u64', f: 'bytes:3', g: 'bytes:5', h: 'i64' })
  t.strictSame({ ...S }, { SIZE: 32, a: 0, b: 1, c: 2, d: 4, e: 8, f: 16, g: 19, h: 24 })
  t.equal(structName(S), 's')
  t.ok(Object.isFrozen(S))
})

t.test('a misaligned field throws at load time and is named', async t => {
  t.throws(() => defineStruct('s', 3, { a: 'u8', b: 'u16' }), { name: 'TypeError', message: 's.b: offset 1 is not a multiple of 2' })
  t.throws(() => defineStruct('s', 6, { a: 'u16', b: 'u32' }), { message: 's.b: offset 2 is not a multiple of 4' })
  t.throws(() => defineStruct('s', 6, { a: 'u16', b: 'i32' }), { message: 's.b: offset 2 is not a multiple of 4' })
  t.throws(() => defineStruct('s', 12, { a: 'u32', b: 'u64' }), { message: 's.b: offset 4 is not a multiple of 8' })
  t.throws(() => defineStruct('s', 12, { a: 'u32', b: 'i64' }), { message: 's.b: offset 4 is not a multiple of 8' })
  t.doesNotThrow(() => defineStruct('s', 12, { a: 'u32', b: 'u64' }, { packed: true }), 'but not when it is packed in its source')
  t.doesNotThrow(() => defineStruct('s', 4, { a: 'u8', b: 'bytes:3' }), 'bytes need no alignment')
})

t.test('a wrong size throws at load time', async t => {
  t.throws(() => defineStruct('s', 8, { a: 'u32' }), { name: 'TypeError', message: 's: fields take 4 bytes, declared 8' })
  t.throws(() => defineStruct('s', 4, { a: 'u64' }), { message: 's: fields take 8 bytes, declared 4' })
  t.throws(() => defineStruct('s', 4, { a: 'bytes:x' as 'bytes:4' }), TypeError)
})

t.test('dumpStruct decodes every type in place', async t => {
  const S = defineStruct('s', 40, { a: 'u8', b: 'u8', c: 'u16', d: 'u32', e: 'u64', f: 'i32', g: 'u32', h: 'i64', i: 'bytes:8' })
  const bytes = new Uint8Array(64).fill(0xff, 3, 43)
  const view = new DataView(bytes.buffer, 1)
  t.strictSame(dumpStruct(S, view, 2), {
    a: 0xff, b: 0xff, c: 0xffff, d: 0xffff_ffff, e: 0xffff_ffff_ffff_ffffn, f: -1, g: 0xffff_ffff, h: -1n, i: 'ffffffffffffffff',
  })
  view.setUint32(2 + S.d, 0x01020304, true)
  t.equal(dumpStruct(S, view, 2)['d'], 0x01020304, 'little endian')
  t.throws(() => dumpStruct({}, view), TypeError)
  t.equal(structName({}), '?')
})

const memory = new DataView(new ArrayBuffer(64))
const EDGES = [0, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0001, 0x7fff_ffff_ffff, 2 ** 52, Number.MAX_SAFE_INTEGER]

t.test('what is written is read, and is what BigInt reads', async t => {
  const random = new SeededRandom(64)
  const values = [...EDGES, ...Array.from({ length: 2000 }, () => random.below(2 ** 21) * 2 ** 32 + random.below(2 ** 32))]
  for (const value of values) {
    setU64(memory, 8, value)
    if (getU64(memory, 8) !== value || memory.getBigUint64(8, true) !== BigInt(value)) return t.fail(`${value} came back as ${getU64(memory, 8)}`)
  }
  t.pass(`${values.length} values`)
})

t.test('signed values', async t => {
  for (const value of EDGES.flatMap(edge => [edge, -edge || 0])) {
    memory.setBigInt64(8, BigInt(value), true)
    t.equal(getI64(memory, 8), value)
  }
})

t.test('a value beyond 2^53 never looks small', async t => {
  for (const value of [2n ** 53n, 2n ** 63n, 2n ** 64n - 1n]) {
    memory.setBigUint64(0, value, true)
    t.ok(getU64(memory, 0) >= 2 ** 53, `${value}`)
  }
})

t.test('an opaque value is copied bit by bit', async t => {
  const to = new DataView(new ArrayBuffer(32), 4)
  for (const value of [0n, 0xffff_ffff_ffff_ffffn, 0x8000_0000_0000_0001n, 0x0123_4567_89ab_cdefn]) {
    memory.setBigUint64(24, value, true)
    copyU64(to, 12, memory, 24)
    t.equal(to.getBigUint64(12, true), value)
    t.equal(to.getBigUint64(4, true), 0n, 'nothing before it is touched')
  }
})
