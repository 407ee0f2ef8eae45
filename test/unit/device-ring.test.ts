/** The device's side of a ring: chains it must take, and every way a driver can break them. */
import t, { type Test } from 'tap'
import { DeviceRing, MAX_CHAIN } from '../../lib/virtio/device-ring.js'
import { VIRTQ_DESC_F_INDIRECT as INDIRECT, VIRTQ_DESC_F_NEXT as NEXT, VIRTQ_DESC_F_WRITE as WRITE } from '../../lib/virtio/split-ring.js'
import { RingPair } from '../support/ring-pair.js'
import { SeededRandom } from '../support/seeded-random.js'

const SIZE = 8
const plain = (): RingPair => new RingPair(SIZE, { indirectDesc: false, eventIdx: false }, 64)
const indirect = (): RingPair => new RingPair(SIZE, { indirectDesc: true, eventIdx: false }, 64)

/** The descriptors of an indirect table that starts at a token's table: [address, length, flags, next]. */
function table(pair: RingPair, token: number, descriptors: [number, number, number, number][]): number {
  descriptors.forEach((descriptor, i) => pair.rawDescriptorAt(pair.tableAt(token) + 16 * i, ...descriptor))
  return pair.region.address + pair.tableAt(token)
}

const BROKEN: Record<string, (pair: RingPair) => RegExp> = {
  'a head beyond the table': pair => {
    pair.rawAvail(0, SIZE, 1)
    return /descriptor 8 is beyond the table of 8/
  },
  'next beyond the table': pair => {
    pair.rawDescriptor(0, pair.bufferAddress(0, 0), 8, NEXT, 65535)
    return /descriptor 65535 is beyond/
  },
  'a chain that is its own next': pair => {
    pair.rawDescriptor(0, pair.bufferAddress(0, 0), 8, NEXT, 0)
    return /loops/
  },
  'a loop over several descriptors': pair => {
    for (let i = 0; i < SIZE; i++) pair.rawDescriptor(i, pair.bufferAddress(0, 0), 8, NEXT, (i + 1) % SIZE)
    return /loops/
  },
  'a loop over writable descriptors': pair => {
    pair.rawDescriptor(0, pair.bufferAddress(0, 0), 8, NEXT | WRITE, 0)
    return /loops/
  },
  'a loop over empty descriptors': pair => {
    pair.rawDescriptor(0, pair.bufferAddress(0, 0), 0, NEXT, 0)
    return /loops/
  },
  'an address before the memory': pair => {
    pair.rawDescriptor(0, pair.region.address - 1, 8, 0, 0)
    return /outside the shared memory/
  },
  'an address of zero': pair => {
    pair.rawDescriptor(0, 0, 8, 0, 0)
    return /outside the shared memory/
  },
  'an address behind the memory': pair => {
    pair.rawDescriptor(0, pair.region.address + pair.region.lengthBytes, 1, 0, 0)
    return /outside the shared memory/
  },
  'one byte too many': pair => {
    pair.rawDescriptor(0, pair.region.address + pair.region.lengthBytes - 8, 9, WRITE, 0)
    return /outside the shared memory/
  },
  'a length that wraps the address': pair => {
    pair.rawDescriptor(0, pair.region.address, 0xffff_ffff, 0, 0)
    return /outside the shared memory/
  },
  'an address that wraps at 2^64': pair => {
    pair.rawDescriptor(0, 0, 16, 0, 0)
    pair.region.view.setBigUint64(pair.layout.desc, 2n ** 64n - 8n, true)
    return /outside the shared memory/
  },
  'an address that is good but for its highest bit': pair => {
    pair.rawDescriptor(0, 0, 16, 0, 0)
    pair.region.view.setBigUint64(pair.layout.desc, 2n ** 63n + BigInt(pair.region.address), true)
    return /outside the shared memory/
  },
  'a readable part behind a writable one': pair => {
    pair.rawDescriptor(0, pair.bufferAddress(0, 0), 8, NEXT | WRITE, 1)
    pair.rawDescriptor(1, pair.bufferAddress(0, 1), 8, 0, 0)
    return /readable part behind a writable/
  },
  'a readable part behind an empty writable one': pair => {
    pair.rawDescriptor(0, pair.bufferAddress(0, 0), 0, NEXT | WRITE, 1)
    pair.rawDescriptor(1, pair.bufferAddress(0, 1), 8, 0, 0)
    return /readable part behind a writable/
  },
  'readable, writable, readable': pair => {
    pair.rawDescriptor(0, pair.bufferAddress(0, 0), 8, NEXT, 1)
    pair.rawDescriptor(1, pair.bufferAddress(0, 1), 8, NEXT | WRITE, 2)
    pair.rawDescriptor(2, pair.bufferAddress(0, 2), 8, 0, 0)
    return /readable part behind a writable/
  },
  'avail.idx more than a ring ahead': pair => {
    pair.rawAvail(0, 0, SIZE + 1)
    return /avail.idx is 9, 0 was taken/
  },
  'avail.idx that went back': pair => {
    pair.rawAvail(0, 0, 0xffff)
    return /avail.idx is 65535/
  },
}

const BROKEN_INDIRECT: typeof BROKEN = {
  'INDIRECT with NEXT': pair => {
    pair.rawDescriptor(0, table(pair, 1, [[pair.bufferAddress(0, 0), 8, 0, 0]]), 16, INDIRECT | NEXT, 1)
    return /bad indirect/
  },
  'a nested indirect descriptor': pair => {
    const inner = table(pair, 2, [[pair.bufferAddress(0, 0), 8, 0, 0]])
    pair.rawDescriptor(0, table(pair, 1, [[inner, 16, INDIRECT, 0]]), 16, INDIRECT, 0)
    return /bad indirect/
  },
  'an empty table': pair => {
    pair.rawDescriptor(0, table(pair, 1, []), 0, INDIRECT, 0)
    return /bad indirect/
  },
  'a table of one and a half descriptors': pair => {
    pair.rawDescriptor(0, table(pair, 1, [[pair.bufferAddress(0, 0), 8, 0, 0]]), 24, INDIRECT, 0)
    return /bad indirect/
  },
  'a table outside the memory': pair => {
    pair.rawDescriptor(0, pair.region.address + pair.region.lengthBytes - 8, 16, INDIRECT, 0)
    return /outside the shared memory/
  },
  'next beyond the indirect table': pair => {
    pair.rawDescriptor(0, table(pair, 1, [[pair.bufferAddress(0, 0), 8, NEXT, 1]]), 16, INDIRECT, 0)
    return /descriptor 1 is beyond the table of 1/
  },
  'a loop inside the table': pair => {
    pair.rawDescriptor(0, table(pair, 1, [[pair.bufferAddress(0, 0), 8, NEXT, 1], [pair.bufferAddress(0, 1), 8, NEXT, 0]]), 32, INDIRECT, 0)
    return /loops/
  },
  'a buffer outside the memory': pair => {
    pair.rawDescriptor(0, table(pair, 1, [[pair.region.address - 8, 8, 0, 0]]), 16, INDIRECT, 0)
    return /outside the shared memory/
  },
}

function expectBroken(t: Test, make: () => RingPair, flaws: typeof BROKEN): void {
  for (const [name, flaw] of Object.entries(flaws)) {
    const pair = make()
    pair.rawAvail(0, 0, 1)
    const reason = flaw(pair)
    t.equal(pair.device.pop(), -1, name)
    t.match(pair.device.broken, reason, name)
    // a good chain does not mend it
    pair.rawDescriptor(1, pair.bufferAddress(0, 0), 8, 0, 0)
    pair.rawAvail(1, 1, 2)
    t.equal(pair.device.pop(), -1, 'a broken ring gives nothing any more')
    t.notOk(pair.device.hasAvailable(), 'and who waits for it does not find something again and again')
    t.ok(pair.device.enableKicks())
  }
}

t.test('how a driver breaks the avail ring and a direct chain', async t => expectBroken(t, plain, BROKEN))
t.test('the same with INDIRECT_DESC negotiated', async t => expectBroken(t, indirect, BROKEN))
t.test('how a driver breaks an indirect chain', async t => expectBroken(t, indirect, BROKEN_INDIRECT))

t.test('INDIRECT that was not negotiated', async t => {
  const pair = plain()
  pair.rawDescriptor(0, table(pair, 1, [[pair.bufferAddress(0, 0), 8, 0, 0]]), 16, INDIRECT, 0)
  pair.rawAvail(0, 0, 1)
  t.equal(pair.device.pop(), -1)
  t.match(pair.device.broken, /bad indirect/)
})

t.test('an indirect table longer than any chain may be', async t => {
  const pair = new RingPair(SIZE, { indirectDesc: true, eventIdx: false }, 512)
  const count = MAX_CHAIN + 1
  const at = pair.tableAt(0)
  for (let i = 0; i < count; i++) pair.rawDescriptorAt(at + 16 * i, pair.region.address, 1, i < count - 1 ? NEXT : 0, i + 1)
  pair.rawDescriptor(0, pair.region.address + at, 16 * count, INDIRECT, 0)
  pair.rawAvail(0, 0, 1)
  t.equal(pair.device.pop(), -1)
  t.match(pair.device.broken, /too long/)
})

t.test('a chain of the greatest length', async t => {
  const pair = new RingPair(SIZE, { indirectDesc: true, eventIdx: false }, 512)
  const at = pair.tableAt(0)
  for (let i = 0; i < MAX_CHAIN; i++) pair.rawDescriptorAt(at + 16 * i, pair.region.address + i, 1, i < MAX_CHAIN - 1 ? NEXT : 0, i + 1)
  pair.rawDescriptor(0, pair.region.address + at, 16 * MAX_CHAIN, INDIRECT, 0)
  pair.rawAvail(0, 0, 1)
  t.equal(pair.device.pop(), 0, pair.device.broken)
  t.equal(pair.device.count, MAX_CHAIN)
  t.equal(pair.device.readableBytes, MAX_CHAIN)
})

t.test('a direct chain as long as the ring', async t => {
  const pair = plain()
  for (let i = 0; i < SIZE; i++) pair.rawDescriptor(i, pair.bufferAddress(0, i), 8, (i < SIZE - 1 ? NEXT : 0) | (i < 4 ? 0 : WRITE), i + 1)
  pair.rawAvail(0, 0, 1)
  t.equal(pair.device.pop(), 0, pair.device.broken)
  t.match(pair.device, { count: SIZE, readableCount: 4, readableBytes: 32, writableBytes: 32 })
})

t.test('normal descriptors before an indirect one (virtio 1.2 §2.7.5.3.2), whose WRITE flag means nothing', async t => {
  for (const before of [1, 2, 5]) {
    const pair = indirect()
    for (let i = 0; i < before; i++) pair.rawDescriptor(i, pair.bufferAddress(0, i), 8, NEXT, i + 1)
    pair.rawDescriptor(before, table(pair, 1, [[pair.bufferAddress(1, 0), 8, NEXT, 1], [pair.bufferAddress(1, 1), 8, WRITE, 0]]), 32, INDIRECT | WRITE, 0)
    pair.rawAvail(0, 0, 1)
    t.equal(pair.device.pop(), 0, `${before} before it: ${pair.device.broken}`)
    t.match(pair.device, { count: before + 2, readableCount: before + 1, readableBytes: 8 * (before + 1), writableBytes: 8 })
  }
})

t.test('a chain of more than 4 GiB (virtio 1.2 §2.7.5.2)', async t => {
  const features = { indirectDesc: false, eventIdx: false }
  const pair = new RingPair(SIZE, features)
  // the memory is not touched: a region that claims to be large is enough
  const large = { ...pair.region, lengthBytes: 2 ** 33 }
  for (const flag of [0, WRITE]) {
    for (const [lengths, sound] of [[[0xffff_ffff], true], [[0xffff_fff0, 0x10], true], [[0xffff_ffff, 2], false], [[0x8000_0000, 0x8000_0000, 1], false]] as const) {
      lengths.forEach((length, i) => pair.rawDescriptor(i, pair.region.address, length, (i < lengths.length - 1 ? NEXT : 0) | flag, i + 1))
      pair.rawAvail(0, 0, 1)
      const device = new DeviceRing(large, pair.layout, features)
      t.equal(device.pop(), sound ? 0 : -1, `${lengths.join(' + ')} bytes`)
      t.match(device.broken, sound ? '' : /longer than 4 GiB/)
    }
  }
})

t.test('empty descriptors are allowed', async t => {
  const pair = plain()
  pair.rawDescriptor(0, pair.region.address + pair.region.lengthBytes, 0, NEXT, 1)
  pair.rawDescriptor(1, pair.bufferAddress(0, 0), 8, NEXT, 2)
  pair.rawDescriptor(2, pair.bufferAddress(0, 1), 0, WRITE, 0)
  pair.rawAvail(0, 0, 1)
  t.equal(pair.device.pop(), 0, pair.device.broken)
  t.match(pair.device, { count: 3, readableCount: 2, readableBytes: 8, writableBytes: 0 })
})

t.test('what lies behind a bad chain is not taken, what lies before it is', async t => {
  const pair = plain()
  pair.rawDescriptor(0, pair.bufferAddress(0, 0), 8, 0, 0)
  pair.rawAvail(0, 0, 3)
  pair.rawAvail(1, SIZE, 3)
  pair.rawAvail(2, 0, 3)
  t.equal(pair.device.pop(), 0)
  t.equal(pair.device.pop(), -1)
  t.equal(pair.device.pop(), -1)
  t.not(pair.device.broken, '')
})

t.test('descriptors at random: a chain within bounds or a broken ring, never an exception', async t => {
  const random = new SeededRandom(27)
  let sound = 0
  let broken = 0
  const pair = indirect()
  const { region, layout } = pair
  for (let i = 0; i < 30_000; i++) {
    const device = new DeviceRing(region, layout, { indirectDesc: random.below(4) > 0, eventIdx: false })
    const somewhere = (): number => random.below(12) === 0 ? [0, region.address - 1, region.address + region.lengthBytes, 2 ** 52][random.below(4)]! : region.address + random.below(region.lengthBytes)
    for (let n = 0; n < 4; n++) {
      const kind = (random.below(2) * NEXT) | (random.below(4) === 0 ? WRITE : 0) | (random.below(5) === 0 ? INDIRECT : 0)
      const length = [random.below(100), 16 * random.below(6), random.below(2 ** 32)][random.below(8) >> 1] ?? 32
      pair.rawDescriptor(n, (kind & INDIRECT) !== 0 && random.below(2) === 0 ? region.address + layout.desc + 16 * random.below(4) : somewhere(), length, kind, random.below(10) === 0 ? random.below(65536) : random.below(4))
    }
    pair.rawAvail(0, random.below(20) === 0 ? random.below(65536) : random.below(4), random.below(50) === 0 ? random.below(65536) : 1)
    if (device.pop() < 0) {
      if (device.broken === '' && device.hasAvailable()) return t.fail(`chain ${i} vanished`)
      broken++
      continue
    }
    sound++
    let bytes = 0
    for (let n = 0; n < device.count; n++) {
      const at = device.addresses[n]! - region.address
      if (!(at >= 0 && at + device.lengths[n]! <= region.lengthBytes)) return t.fail(`chain ${i}: buffer ${n} is outside`)
      bytes += device.lengths[n]!
    }
    if (device.count > MAX_CHAIN || device.readableCount > device.count || bytes !== device.readableBytes + device.writableBytes) return t.fail(`chain ${i}: sums`)
  }
  t.ok(sound > 1000 && broken > 1000, `${sound} sound, ${broken} broken`)
})
