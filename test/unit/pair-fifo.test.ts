/** The growing queue of FORGETs against an array. */
import t from 'tap'
import { PairFifo } from '../../lib/driver/pair-fifo.js'
import { SeededRandom } from '../support/seeded-random.js'

const view = new DataView(new ArrayBuffer(64))
const half = (n: number, which: number): number => Math.imul(n + 1, 0x9e3779b1 + which) >>> 0

function shift(fifo: PairFifo): number[] {
  fifo.shiftTo(view, 16)
  return [0, 4, 8, 12].map(i => view.getUint32(16 + i, true))
}

t.test('order and content, growing at every position of the head', async t => {
  const random = new SeededRandom(256)
  for (let round = 0; round < 40; round++) {
    const fifo = new PairFifo()
    const model: number[][] = []
    let n = 0
    // the bias moves: phases that fill and phases that empty
    for (let step = 0; step < 3000; step++) {
      const filling = (step >> 9) % 2 === 0 ? 3 : 1
      if (random.below(4) < filling || model.length === 0) {
        const pair = [half(n, 0), half(n, 1), half(n, 2), half(n, 3)] as const
        fifo.push(...pair)
        model.push([...pair])
        n++
      } else {
        const expected = model.shift()!
        const got = shift(fifo)
        if (got.join() !== expected.join()) return t.fail(`round ${round}, step ${step}: ${got}, expected ${expected}`)
      }
      if (fifo.length !== model.length) return t.fail(`length ${fifo.length}, expected ${model.length}`)
    }
    while (model.length > 0) if (shift(fifo).join() !== model.shift()!.join()) return t.fail('the rest')
  }
  t.pass('40 rounds')
})

t.test('a hundred thousand at once', async t => {
  const fifo = new PairFifo()
  for (let n = 0; n < 100_000; n++) fifo.push(n, ~n >>> 0, n * 2, n * 3)
  t.equal(fifo.length, 100_000)
  for (let n = 0; n < 100_000; n++) {
    const [a, b, c, d] = shift(fifo)
    if (a !== n || b !== ~n >>> 0 || c !== n * 2 || d !== n * 3) return t.fail(`pair ${n}`)
  }
  t.equal(fifo.length, 0)
})

t.test('a pair is 16 bytes, and nothing else is touched', async t => {
  const fifo = new PairFifo()
  fifo.push(0xffff_ffff, 1, 2, 0x8000_0000)
  const bytes = new Uint8Array(view.buffer).fill(0xcc)
  fifo.shiftTo(view, 8)
  t.strictSame([...bytes.subarray(8, 24)], [255, 255, 255, 255, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 128])
  t.ok([...bytes.subarray(0, 8), ...bytes.subarray(24)].every(byte => byte === 0xcc))
})

t.test('clear forgets everything, and it works on', async t => {
  const fifo = new PairFifo()
  for (let n = 0; n < 300; n++) fifo.push(n, 0, 0, 0)
  for (let n = 0; n < 7; n++) shift(fifo)
  fifo.clear()
  t.equal(fifo.length, 0)
  fifo.push(42, 43, 44, 45)
  t.strictSame(shift(fifo), [42, 43, 44, 45])
})
