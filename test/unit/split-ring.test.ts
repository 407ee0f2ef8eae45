/** Layout of a split ring, and the event index, against the formulas of virtio 1.2 §2.7. */
import t from 'tap'
import { layoutRing, needEvent } from '../../lib/virtio/split-ring.js'
import { SeededRandom } from '../support/seeded-random.js'

t.test('layout: sizes, alignment, no overlap', async t => {
  for (let size = 1; size <= 32768; size *= 2) {
    for (const at of [0, 1, 4, 15, 16, 4096, 5001]) {
      const ring = layoutRing(size, at)
      const name = `size ${size} at ${at}`
      t.equal(ring.size, size)
      t.ok(ring.desc >= at && ring.desc - at < 16 && ring.desc % 16 === 0, `${name}: descriptors are 16-byte aligned`)
      t.ok(ring.avail >= ring.desc + 16 * size && ring.avail % 2 === 0, `${name}: avail behind the descriptors, 2-byte aligned`)
      t.equal(ring.usedEvent, ring.avail + 4 + 2 * size, `${name}: used_event behind avail.ring`)
      t.ok(ring.used >= ring.avail + 6 + 2 * size && ring.used % 4 === 0, `${name}: used behind avail, 4-byte aligned`)
      t.equal(ring.availEvent, ring.used + 4 + 8 * size, `${name}: avail_event behind used.ring`)
      t.equal(ring.end, ring.used + 6 + 8 * size, name)
      t.ok(ring.end - ring.desc <= 16 * size + 6 + 2 * size + 6 + 8 * size + 2, `${name}: no more than alignment is lost`)
    }
  }
})

t.test('only powers of two from 1 to 32768', async t => {
  for (const size of [0, -1, 3, 6, 100, 32769, 65536, 1.5, NaN, Infinity]) t.throws(() => layoutRing(size, 0), RangeError, `${size}`)
})

t.test('needEvent: the formula of §2.7.7.1 over random triples', async t => {
  const random = new SeededRandom(7)
  const word = new Uint16Array(3)
  for (let i = 0; i < 200_000; i++) {
    const event = random.below(65536)
    const old = random.below(65536)
    // up to a whole ring of the largest size was added since; 0 means nothing was
    const now = (old + random.below(32769)) & 0xffff
    word[0] = now - event - 1
    word[1] = now - old
    if (needEvent(event, now, old) !== (word[0]! < word[1]!)) return t.fail(`event ${event}, now ${now}, old ${old}`)
  }
  t.pass('200,000 triples')
})

t.test('needEvent means: the index moved over the event', async t => {
  const random = new SeededRandom(8)
  for (let i = 0; i < 20_000; i++) {
    const old = random.below(65536)
    const added = random.below(300)
    const event = (old + random.between(-300, 300)) & 0xffff
    // a notice is due when the entry at index `event` is among those added
    let passed = false
    for (let n = 0; n < added; n++) passed ||= ((old + n) & 0xffff) === event
    if (needEvent(event, (old + added) & 0xffff, old) !== passed) return t.fail(`event ${event}, old ${old}, ${added} added`)
  }
  t.pass('20,000 runs')
})
