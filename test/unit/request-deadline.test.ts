import t from 'tap'
import { RequestDeadline } from '../../lib/driver/request-deadline.js'
import { SeededRandom } from '../support/seeded-random.js'

t.test('nothing in flight is never late', async t => {
  const deadline = new RequestDeadline(4, 1000)
  t.equal(deadline.leftMs(1e9), -1)
  t.equal(deadline.oldest, -1)
  deadline.remove(2)
  t.equal(deadline.leftMs(0), -1, 'removing what was not added changes nothing')
})

t.test('the oldest decides', async t => {
  const deadline = new RequestDeadline(4, 1000)
  deadline.add(3, 100)
  deadline.add(1, 400)
  t.equal(deadline.leftMs(100), 1000)
  t.equal(deadline.leftMs(1099.5), 1, 'rounded up: a wait must not end before')
  t.equal(deadline.leftMs(1100), 0)
  t.equal(deadline.leftMs(9999), 0)
  t.equal(deadline.oldest, 3)
  deadline.remove(3)
  t.equal(deadline.leftMs(1100), 300)
  deadline.remove(1)
  t.equal(deadline.leftMs(1100), -1)
})

t.test('in any order, compared with a list', async t => {
  const random = new SeededRandom(7)
  const slots = 16
  const deadline = new RequestDeadline(slots, 500)
  const expected: { slot: number, startMs: number }[] = []
  let nowMs = 0
  for (let i = 0; i < 20_000; i++) {
    nowMs += random.below(3)
    const slot = random.below(slots)
    const place = expected.findIndex(one => one.slot === slot)
    deadline.remove(slot)
    if (place >= 0) {
      expected.splice(place, 1)
    } else {
      deadline.add(slot, nowMs)
      expected.push({ slot, startMs: nowMs })
    }
    const left = expected.length === 0 ? -1 : Math.max(0, expected[0]!.startMs + 500 - nowMs)
    if (deadline.leftMs(nowMs) !== left || deadline.oldest !== (expected[0]?.slot ?? -1)) {
      t.fail(`step ${i}: ${deadline.leftMs(nowMs)} of ${deadline.oldest}, expected ${left} of ${expected[0]?.slot}`)
      return
    }
  }
  t.pass('the same all the time')
})
