/** 64-bit integers as two halves, against BigInt. */
import t from 'tap'
import { copyU64, getI64, getU64, setU64 } from '../../lib/wire/u64.js'
import { SeededRandom } from '../support/seeded-random.js'

const view = new DataView(new ArrayBuffer(64))
const EDGES = [0, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0001, 0x7fff_ffff_ffff, 2 ** 52, Number.MAX_SAFE_INTEGER]

t.test('what is written is read, and is what BigInt reads', async t => {
  const random = new SeededRandom(64)
  const values = [...EDGES, ...Array.from({ length: 2000 }, () => random.below(2 ** 21) * 2 ** 32 + random.below(2 ** 32))]
  for (const value of values) {
    setU64(view, 8, value)
    if (getU64(view, 8) !== value || view.getBigUint64(8, true) !== BigInt(value)) return t.fail(`${value} came back as ${getU64(view, 8)}`)
  }
  t.pass(`${values.length} values`)
})

t.test('signed values', async t => {
  for (const value of EDGES.flatMap(edge => [edge, -edge || 0])) {
    view.setBigInt64(8, BigInt(value), true)
    t.equal(getI64(view, 8), value)
  }
})

t.test('a value beyond 2^53 never looks small', async t => {
  for (const value of [2n ** 53n, 2n ** 63n, 2n ** 64n - 1n]) {
    view.setBigUint64(0, value, true)
    t.ok(getU64(view, 0) >= 2 ** 53, `${value}`)
  }
})

t.test('an opaque value is copied bit by bit', async t => {
  const to = new DataView(new ArrayBuffer(32), 4)
  for (const value of [0n, 0xffff_ffff_ffff_ffffn, 0x8000_0000_0000_0001n, 0x0123_4567_89ab_cdefn]) {
    view.setBigUint64(24, value, true)
    copyU64(to, 12, view, 24)
    t.equal(to.getBigUint64(12, true), value)
    t.equal(to.getBigUint64(4, true), 0n, 'nothing before it is touched')
  }
})
