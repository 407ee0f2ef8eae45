/** Offset tables: what a declaration must refuse, and what it decodes. */
import t from 'tap'
import { defineStruct, dumpStruct, structName } from '../../lib/wire/struct.js'

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
