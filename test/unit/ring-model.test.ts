/**
 * Both sides of a ring against each other and against a model, over seeded random schedules:
 * chains of 1 to 4 descriptors, completion out of order, indices that wrap many times.
 */
import t from 'tap'
import { ALL_FEATURES, featureText, RingPair } from '../support/ring-pair.js'
import { SeededRandom } from '../support/seeded-random.js'

interface Chain { token: number, readable: number, writable: number, head: number, written: number }

const SEED = Number(process.env['SEED'] ?? 20)

/** Runs `steps` random steps. @returns what went wrong, or '' */
function run(pair: RingPair, steps: number, random: SeededRandom): string {
  const { driver, device } = pair
  const free = Array.from({ length: pair.tokens }, (_, i) => i)
  /** Made available and not taken, in order. */
  const available: Chain[] = []
  /** Taken by the device. */
  const taken: Chain[] = []
  /** Given back and not seen by the driver, in order. */
  const used: Chain[] = []
  let driverFree = pair.layout.size
  const cost = (chain: Chain): number => driver.cost(chain.readable + chain.writable)

  for (let step = 0; step < steps; step++) {
    switch (random.below(4)) {
      case 0: {
        const length = random.between(1, 4)
        if (driver.freeCount < driver.cost(length)) break
        const readable = random.between(0, length)
        const chain = { token: random.take(free), readable, writable: length - readable, head: -1, written: 0 }
        pair.add(chain.token, chain.readable, chain.writable)
        available.push(chain)
        driverFree -= cost(chain)
        break
      }
      case 1: {
        const head = device.pop()
        const chain = available.shift()
        if (chain === undefined) {
          if (head !== -1) return `step ${step}: the device took ${head}, nothing is available`
          break
        }
        if (head < 0 || !pair.deviceHas(chain.token, chain.readable, chain.writable)) return `step ${step}: chain of token ${chain.token} arrived as head ${head} ${device.broken}`
        if (taken.some(other => other.head === head) || used.some(other => other.head === head)) return `step ${step}: head ${head} is in use twice`
        chain.head = head
        taken.push(chain)
        break
      }
      case 2: {
        if (taken.length === 0) break
        const chain = random.take(taken)
        chain.written = random.below(0x1_0000_0000)
        device.push(chain.head, chain.written)
        used.push(chain)
        break
      }
      case 3: {
        const chain = used.shift()
        if (driver.hasUsed() !== (chain !== undefined)) return `step ${step}: hasUsed is ${driver.hasUsed()}`
        const token = driver.popUsed()
        if (token !== (chain?.token ?? -1)) return `step ${step}: token ${token} came back, expected ${chain?.token} ${driver.broken}`
        if (chain === undefined) break
        if (driver.usedLength !== chain.written) return `step ${step}: used length ${driver.usedLength}, expected ${chain.written}`
        driverFree += cost(chain)
        free.push(chain.token)
        break
      }
    }
    const inFlight = available.length + taken.length + used.length
    if (driver.inFlight !== inFlight || driver.freeCount !== driverFree) return `step ${step}: ${driver.inFlight} in flight and ${driver.freeCount} free, expected ${inFlight} and ${driverFree}`
  }
  const expected = [...available, ...taken, ...used].map(chain => chain.token).sort((a, b) => a - b)
  const outstanding = driver.outstanding().sort((a, b) => a - b)
  if (expected.join() !== outstanding.join()) return `outstanding is ${outstanding}, expected ${expected}`
  return driver.broken + device.broken
}

t.test('random schedules, rings of 4 to 1024', async t => {
  for (const features of ALL_FEATURES) {
    for (const size of [4, 8, 16, 64, 128, 1024]) {
      const random = new SeededRandom(SEED * 1000 + size)
      t.equal(run(new RingPair(size, features), 60_000, random), '', `size ${size}, ${featureText(features)}, seed ${random.seed}`)
    }
  }
})

t.test('a long run on one small ring: all indices wrap', async t => {
  for (const features of ALL_FEATURES) {
    const pair = new RingPair(8, features)
    t.equal(run(pair, 300_000, new SeededRandom(SEED)), '', featureText(features))
  }
})

t.test('avail.idx and used.idx go from 65535 to 0', async t => {
  for (const features of ALL_FEATURES) {
    for (const size of [4, 256, 1024]) {
      const pair = new RingPair(size, features)
      const { driver, device, layout, region } = pair
      let chains = 0
      let wraps = 0
      while (chains < 140_000) {
        const batch = Math.min(size >> 2, 1 + chains % 17)
        for (let i = 0; i < batch; i++) pair.add(i, 2, 2)
        const heads: number[] = []
        for (let i = 0; i < batch; i++) {
          heads.push(device.pop())
          if (!pair.deviceHas(i, 2, 2)) return t.fail(`chain ${chains + i} (size ${size}, ${featureText(features)})`)
        }
        if (device.pop() !== -1) return t.fail('one too many')
        const before = region.view.getUint16(layout.used + 2, true)
        for (let i = 0; i < batch; i++) device.push(heads[i]!, chains + i)
        if (region.view.getUint16(layout.used + 2, true) < before) wraps++
        for (let i = 0; i < batch; i++) {
          if (driver.popUsed() !== i || driver.usedLength !== chains + i) return t.fail(`completion of chain ${chains + i} (size ${size}, ${featureText(features)})`)
        }
        chains += batch
        if (region.view.getUint16(layout.avail + 2, true) !== (chains & 0xffff)) return t.fail('avail.idx counts chains')
      }
      t.equal(wraps, 2, `size ${size}, ${featureText(features)}: ${chains} chains`)
      t.equal(driver.broken + device.broken, '')
      t.equal(driver.freeCount, size)
    }
  }
})

t.test('notifications over random schedules: nobody sleeps on work', async t => {
  // each side: works until there is nothing, enables, looks again, sleeps until notified
  for (const features of ALL_FEATURES) {
    const random = new SeededRandom(SEED)
    const pair = new RingPair(16, features)
    const { driver, device } = pair
    let driverAwake = true
    let deviceAwake = true
    const taken: number[] = []
    let added = 0
    let done = 0
    for (let step = 0; step < 150_000; step++) {
      if (random.below(2) === 0) {
        if (driverAwake) {
          const work = random.below(3)
          if (driver.popUsed() >= 0) done++
          else if (work > 0 && driver.freeCount >= 4) {
            pair.add(added++ % 16, 1, 1)
            if (driver.kickNeeded()) deviceAwake = true
          } else if (driver.enableCallbacks()) driverAwake = false
          if (driverAwake) driver.disableCallbacks()
        }
      } else if (deviceAwake) {
        const head = device.pop()
        if (head >= 0) taken.push(head)
        else if (taken.length > 0) {
          device.push(random.take(taken), 0)
          if (device.callNeeded()) driverAwake = true
        } else if (device.enableKicks()) deviceAwake = false
        if (deviceAwake) device.disableKicks()
      }
      if (!driverAwake && !deviceAwake && (driver.inFlight > 0 || device.hasAvailable())) return t.fail(`step ${step}: both sleep with ${driver.inFlight} in flight (${featureText(features)})`)
      // something from outside: the driver gets a request
      if (!driverAwake && !deviceAwake) driverAwake = true
    }
    t.ok(done > 10_000, `${done} chains, ${featureText(features)}`)
  }
})
