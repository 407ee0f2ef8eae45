/** The driver's side of a ring: a full ring, notifications, and every way a device can break it. */
import t from 'tap'
import { VIRTQ_AVAIL_F_NO_INTERRUPT, VIRTQ_USED_F_NO_NOTIFY } from '../../lib/virtio/split-ring.js'
import { ALL_FEATURES, featureText, RingPair } from '../support/ring-pair.js'

const DIRECT = { indirectDesc: false, eventIdx: false }
const INDIRECT = { indirectDesc: true, eventIdx: false }

t.test('a new ring is zero, whatever the memory held', async t => {
  const { region, layout } = new RingPair(8, DIRECT)
  t.ok(region.bytes.subarray(layout.desc, layout.end).every(byte => byte === 0))
  t.ok(region.bytes.subarray(0, layout.desc).every(byte => byte === 0xa5), 'nothing before it is touched')
  t.ok(region.bytes.subarray(layout.end).every(byte => byte === 0xa5), 'nor behind it')
})

t.test('a full ring: as many chains as fit, and again after all came back', async t => {
  for (const size of [4, 8, 64, 1024]) {
    for (const features of [DIRECT, INDIRECT]) {
      for (const length of [1, 2, 3, 4]) {
        const pair = new RingPair(size, features)
        const { driver, device } = pair
        const fit = features.indirectDesc ? size : Math.floor(size / length)
        for (let round = 0; round < 3; round++) {
          let added = 0
          while (driver.freeCount >= driver.cost(length)) pair.add(added++, 1, length - 1)
          if (added !== fit || driver.inFlight !== fit) return t.fail(`size ${size}, ${featureText(features)}: ${added} chains of ${length} fitted in round ${round}`)
          for (let head = device.pop(); head >= 0; head = device.pop()) device.push(head, 0)
          while (driver.popUsed() >= 0);
          if (driver.freeCount !== size || driver.inFlight !== 0 || driver.broken + device.broken !== '') return t.fail('not all came back')
        }
      }
    }
  }
  t.pass('no descriptor is lost')
})

t.test('descriptors are used again last in, first out', async t => {
  const pair = new RingPair(64, INDIRECT)
  const heads = new Set<number>()
  for (let i = 0; i < 1000; i++) {
    pair.add(0, 1, 1)
    const head = pair.device.pop()
    heads.add(head)
    pair.device.push(head, 0)
    pair.driver.popUsed()
  }
  t.equal(heads.size, 1, 'one request at a time touches one descriptor')
})

t.test('the device scribbles over the descriptor table: the free list is the driver\'s own', async t => {
  const pair = new RingPair(8, DIRECT)
  pair.add(0, 2, 2)
  const head = pair.device.pop()
  pair.region.bytes.fill(0xff, pair.layout.desc, pair.layout.avail)
  pair.device.push(head, 5)
  t.equal(pair.driver.popUsed(), 0)
  t.equal(pair.driver.usedLength, 5)
  t.equal(pair.driver.freeCount, 8)
  pair.add(1, 4, 0)
  pair.add(2, 0, 4)
  t.equal(pair.driver.freeCount, 0)
  t.ok(pair.device.pop() >= 0 && pair.deviceHas(1, 4, 0))
  t.ok(pair.device.pop() >= 0 && pair.deviceHas(2, 0, 4))
})

t.test('how a device breaks the used ring', async t => {
  const flaws: Record<string, (pair: RingPair, heads: number[]) => void> = {
    'the index runs ahead of what is in flight': (pair, heads) => pair.rawUsed(0, heads[0]!, 0, 4),
    'the index goes back': (pair, heads) => pair.rawUsed(0, heads[0]!, 0, 0xffff),
    'the index jumps by half the range': (pair, heads) => pair.rawUsed(0, heads[0]!, 0, 0x8000),
    'an id beyond the table': pair => pair.rawUsed(0, 8, 0, 1),
    'an id of 32 bits': pair => pair.rawUsed(0, 0xffff_ffff, 0, 1),
    'an id whose low 16 bits are a good one': (pair, heads) => pair.rawUsed(0, 0x10000 + heads[0]!, 0, 1),
    'an id that was never given out': (pair, heads) => pair.rawUsed(0, [0, 1, 2, 3, 4, 5, 6, 7].findLast(id => !heads.includes(id))!, 0, 1),
  }
  for (const features of ALL_FEATURES) {
    for (const [name, flaw] of Object.entries(flaws)) {
      const pair = new RingPair(8, features)
      for (let token = 0; token < 3; token++) pair.add(token, 1, 1)
      const heads = [pair.device.pop(), pair.device.pop(), pair.device.pop()]
      flaw(pair, heads)
      t.equal(pair.driver.popUsed(), -1, `${name} (${featureText(features)})`)
      t.not(pair.driver.broken, '', pair.driver.broken)
      pair.rawUsed(0, heads[0]!, 0, 1)
      t.equal(pair.driver.popUsed(), -1, 'a broken ring stays broken')
      t.strictSame(pair.driver.outstanding(), [0, 1, 2], 'and knows what it still holds')
    }
  }
})

t.test('an id in the middle of a direct chain is not one that was given out', async t => {
  const pair = new RingPair(8, DIRECT)
  pair.add(0, 1, 3)
  const head = pair.device.pop()
  const second = pair.region.view.getUint16(pair.layout.desc + head * 16 + 14, true)
  pair.rawUsed(0, second, 0, 1)
  t.equal(pair.driver.popUsed(), -1)
  t.match(pair.driver.broken, /not in flight/)
})

t.test('the same id twice', async t => {
  for (const features of ALL_FEATURES) {
    const pair = new RingPair(8, features)
    for (let token = 0; token < 3; token++) pair.add(token, 1, 1)
    const head = pair.device.pop()
    pair.rawUsed(0, head, 16, 1)
    pair.rawUsed(1, head, 16, 2)
    t.equal(pair.driver.popUsed(), 0, 'the first one counts')
    t.equal(pair.driver.popUsed(), -1, featureText(features))
    t.match(pair.driver.broken, /not in flight/)
    t.strictSame(pair.driver.outstanding(), [1, 2], 'what is in flight is still known')
    t.equal(pair.driver.inFlight, 2)
  }
})

t.test('something used although nothing is in flight', async t => {
  const pair = new RingPair(8, DIRECT)
  pair.rawUsed(0, 0, 16, 1)
  t.equal(pair.driver.popUsed(), -1)
  t.match(pair.driver.broken, /at most 0 is possible/)
})

t.test('the used length is what the device says, all 32 bits of it', async t => {
  const pair = new RingPair(4, DIRECT)
  pair.add(0, 1, 1)
  pair.device.push(pair.device.pop(), 0xffff_ffff)
  t.equal(pair.driver.popUsed(), 0)
  t.equal(pair.driver.usedLength, 0xffff_ffff)
})

t.test('kicks without the event index follow the device\'s flag', async t => {
  const pair = new RingPair(8, DIRECT)
  t.notOk(pair.driver.kickNeeded(), 'nothing was added')
  pair.add(0, 1, 1)
  t.ok(pair.driver.kickNeeded())
  t.notOk(pair.driver.kickNeeded(), 'once per batch')
  pair.device.disableKicks()
  t.equal(pair.region.view.getUint16(pair.layout.used, true), VIRTQ_USED_F_NO_NOTIFY)
  pair.add(1, 1, 1)
  t.notOk(pair.driver.kickNeeded())
  t.notOk(pair.device.enableKicks(), 'there are chains that no kick will come for')
  while (pair.device.pop() >= 0);
  t.ok(pair.device.enableKicks())
  pair.add(2, 1, 1)
  t.ok(pair.driver.kickNeeded())
})

t.test('kicks with the event index: one when the index passes the event, none before or after', async t => {
  const pair = new RingPair(8, { indirectDesc: true, eventIdx: true })
  for (let i = 0; i < 200_000; i++) {
    // the device has taken all and asks for a kick at the next chain
    if (!pair.device.enableKicks()) return t.fail('nothing is available')
    const added = 1 + i % 3
    for (let n = 0; n < added; n++) {
      pair.add(n, 1, 1)
      if (pair.driver.kickNeeded() !== (n === 0)) return t.fail(`chain ${i}: ${n === 0 ? 'no kick' : 'one kick too many'}`)
    }
    for (let head = pair.device.pop(); head >= 0; head = pair.device.pop()) pair.device.push(head, 0)
    while (pair.driver.popUsed() >= 0);
  }
  t.equal(pair.driver.broken + pair.device.broken, '')
})

t.test('kicks switched off with the event index: none for a ring\'s worth of chains', async t => {
  const pair = new RingPair(8, { indirectDesc: true, eventIdx: true })
  for (let round = 0; round < 20_000; round++) {
    pair.device.disableKicks()
    pair.add(0, 1, 1)
    pair.add(1, 1, 1)
    if (pair.driver.kickNeeded()) return t.fail(`round ${round}`)
    for (let head = pair.device.pop(); head >= 0; head = pair.device.pop()) pair.device.push(head, 0)
    while (pair.driver.popUsed() >= 0);
  }
  t.pass('20,000 rounds')
})

t.test('enableCallbacks: what came before it is reported, what comes after it calls', async t => {
  for (const features of ALL_FEATURES) {
    const pair = new RingPair(8, features)
    const { driver, device, region, layout } = pair
    for (let round = 0; round < 70_000; round++) {
      driver.disableCallbacks()
      pair.add(0, 1, 1)
      pair.add(1, 1, 1)
      const heads = [device.pop(), device.pop()]
      device.push(heads[0]!, 0)
      if (device.callNeeded()) return t.fail(`round ${round}: a call although they are off (${featureText(features)})`)
      if (driver.enableCallbacks()) return t.fail(`round ${round}: the chain used before enabling is overlooked (${featureText(features)})`)
      if (driver.popUsed() !== 0 || !driver.enableCallbacks()) return t.fail(`round ${round}: nothing more is used (${featureText(features)})`)
      device.push(heads[1]!, 0)
      if (!device.callNeeded()) return t.fail(`round ${round}: no call for the chain used after enabling (${featureText(features)})`)
      if (device.callNeeded()) return t.fail(`round ${round}: two calls (${featureText(features)})`)
      if (driver.popUsed() !== 1) return t.fail('the second chain')
    }
    if (!features.eventIdx) {
      driver.disableCallbacks()
      t.equal(region.view.getUint16(layout.avail, true), VIRTQ_AVAIL_F_NO_INTERRUPT)
    }
    t.equal(driver.broken + device.broken, '', featureText(features))
  }
})

t.test('the device asks late: a chain used between the last look and enabling is never lost', async t => {
  // every order of {driver looks, driver enables} against {device pushes, device asks}
  for (const features of ALL_FEATURES) {
    for (const order of ['PAE', 'PEA', 'EPA']) {
      const pair = new RingPair(4, features)
      pair.add(0, 1, 1)
      const head = pair.device.pop()
      pair.driver.disableCallbacks()
      let noticed = false
      for (const step of order) {
        if (step === 'P') pair.device.push(head, 0)
        else if (step === 'A') noticed ||= pair.device.callNeeded()
        else noticed ||= !pair.driver.enableCallbacks()
      }
      t.ok(noticed, `${order} (${featureText(features)})`)
    }
  }
})

t.test('outstanding lists tokens, and token 0 is one', async t => {
  const pair = new RingPair(4, INDIRECT)
  t.strictSame(pair.driver.outstanding(), [])
  pair.add(0, 1, 0)
  pair.add(3, 1, 0)
  t.strictSame(pair.driver.outstanding(), [0, 3])
})
