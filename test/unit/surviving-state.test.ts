/** What outlives the process that serves a mount: it may die between any two stores. */
import t from 'tap'
import { HandleTable } from '../../lib/driver/handle-table.js'
import { NodeTable } from '../../lib/driver/node-table.js'
import { Hand, RequestsInHand } from '../../lib/driver/requests-in-hand.js'
import { STATE_PAGE, StateMemory } from '../../lib/driver/state-memory.js'
import { SurvivingState } from '../../lib/driver/surviving-state.js'
import { Op } from '../../lib/fuse/opcodes.js'
import { compare, KernelModel, Killed, Life, MortalMemory, Program } from '../support/mortal-state.js'
import { SeededRandom } from '../support/seeded-random.js'

const RESENT = 0x8000_0000

/** Runs a program until it dies. @returns the memory, and what the kernel knew before and would have known after the last step */
function run(seed: number, steps: number, mostNodes: number, lastStore: number): { memory: MortalMemory, before: KernelModel, after: KernelModel, request: number } {
  const memory = new MortalMemory(new Uint8Array(STATE_PAGE), lastStore)
  let program: Program | undefined
  try {
    program = new Program(new Life(memory), new SeededRandom(seed))
    for (let step = 0; step < steps; step++) program.step(mostNodes)
  } catch (error) {
    if (!(error instanceof Killed)) throw error
  }
  const { kernel: before = new KernelModel(), next: after = before, request = 0 } = program ?? {}
  return { memory, before, after, request }
}

/** Opens what a dead process has left, with deaths on the way. */
function reopen(memory: MortalMemory, deaths: readonly number[]): Life {
  let bytes = memory.bytes
  for (const store of deaths) {
    const dying = new MortalMemory(bytes, store)
    try {
      return new Life(dying)
    } catch (error) {
      if (!(error instanceof Killed)) throw error
      bytes = dying.bytes
    }
  }
  return new Life(new MortalMemory(bytes))
}

for (const [name, seed, steps, mostNodes, stride] of [['at each store of a short program', 1, 70, 12, 1], ['now and then, while tables grow and are written anew', 2, 1500, 700, 1499]] as const) {
  t.test(`dies ${name}: the next process finds what the kernel was told`, async t => {
    const all = run(seed, steps, mostNodes, Infinity)
    const total = all.memory.stores
    t.ok(all.before.nodes.size > mostNodes / 4, `${all.before.nodes.size} nodes, ${all.before.handles.size} open files, ${total} stores`)
    const random = new SeededRandom(seed)
    let tried = 0
    for (let last = 0; last <= total; last += stride) {
      const { memory, before, after, request } = run(seed, steps, mostNodes, last)
      const deaths = last % 3 === 0 ? [random.below(30), random.below(30)] : []
      const wrong = compare(reopen(memory, deaths), before, after, request)
      if (wrong.length > 0) {
        t.fail(`killed at store ${last} of ${total}: ${wrong.join('; ')}`)
        break
      }
      tried++
    }
    t.ok(tried >= total / stride, `${tried} deaths`)
  })
}

t.test('what nobody needs is gone in the next process, and its numbers stay unused', async t => {
  const memory = new MortalMemory(new Uint8Array(STATE_PAGE))
  const first = new Life(memory)
  const directory = first.entry(1, 'd', 10)
  const file = first.entry(directory, 'f', 11)
  const forgotten = first.entry(1, 'gone', 12)
  first.known.forget(forgotten % 2 ** 32, 0, 1)
  const second = new Life(new MortalMemory(memory.bytes))
  t.equal(second.known.table.count, 3)
  t.equal(second.path(second.node(file)), `${directory}/f`)
  t.equal(second.node(forgotten), -1)
  t.equal(second.known.table.nextToLookUp(second.node(file)), second.node(directory), 'no id is good: the directory is looked up first')
  const fresh = second.entry(1, 'new', 13)
  t.not(fresh, forgotten)
})

t.test('names are written anew when there is no room for more, and the memory does not grow for ever', async t => {
  const memory = new MortalMemory(new Uint8Array(STATE_PAGE))
  const life = new Life(memory)
  const file = life.entry(1, 'file', 10)
  const node = life.node(file)
  for (let i = 0; i < 20_000; i++) {
    const name = Buffer.from(`${'x'.repeat(i % 200)}${i}`)
    life.known.table.setPath(node, 0, name, 0, name.length)
  }
  t.ok(memory.lengthBytes < 1 << 18, `${memory.lengthBytes} bytes`)
  const next = new Life(new MortalMemory(memory.bytes))
  t.equal(next.path(next.node(file)), `1/${'x'.repeat(19_999 % 200)}19999`)
})

t.test('requests in hand: found when they come again, once, with what was done; settled when others come', async t => {
  const memory = new StateMemory(new ArrayBuffer(2 * STATE_PAGE))
  const first = new RequestsInHand(memory, STATE_PAGE, 16, 8)
  t.equal(first.take(0, 100, 5, 1000), Hand.READ)
  t.equal(first.take(1, 102, 5, 1001), Hand.READ)
  t.equal(first.take(2, 104, 5, 1002), Hand.READ)
  t.equal(first.take(3, 106, 5, 1003), Hand.READ)
  first.mark(1, Hand.SENT)
  first.mark(2, Hand.DONE)
  first.mark(3, Hand.SENT)
  first.over(3)
  const second = new RequestsInHand(memory, STATE_PAGE, 16, 8)
  t.ok(second.waits)
  t.equal(second.take(5, 102, (5 | RESENT) >>> 0, 9000), Hand.SENT)
  t.equal(second.readMs(5), 1001, 'when it was read first')
  t.equal(second.take(6, 106, (5 | RESENT) >>> 0, 9000), Hand.READ, 'one that was answered is not known')
  // it dies, too, before the others have come
  const third = new RequestsInHand(memory, STATE_PAGE, 16, 8)
  t.equal(third.take(0, 102, (5 | RESENT) >>> 0, 9001), Hand.SENT, 'again')
  t.equal(third.readMs(0), 1001)
  t.equal(third.take(1, 104, (5 | RESENT) >>> 0, 9001), Hand.DONE)
  t.equal(third.take(2, 100, (5 | RESENT) >>> 0, 9001), Hand.READ)
  t.ok(third.waits, 'the one that it had noted by its second number')
  third.settle()
  t.notOk(third.waits)
  for (let slot = 0; slot < 3; slot++) third.over(slot)
  const fourth = new RequestsInHand(memory, STATE_PAGE, 16, 8)
  t.notOk(fourth.waits, 'nothing is left')
  for (let i = 0; i < 8; i++) fourth.take(i, 200 + 2 * i, 5, 0)
  const told: [number, number][] = []
  new RequestsInHand(memory, STATE_PAGE, 16, 8).each(2, (low, high) => { told.push([low, high]) })
  t.strictSame(told.sort(([a], [b]) => a - b), [...Array.from({ length: 8 }, (_, i) => [200 + 2 * i, 5]), [216, 5], [218, 5]], 'those that are known, and some behind them')
})

t.test('INIT and what is known of the root', async t => {
  const memory = new MortalMemory(new Uint8Array(STATE_PAGE))
  const first = new SurvivingState(memory, 8, new NodeTable(), new HandleTable())
  t.notOk(first.inherited)
  const init = Uint8Array.from({ length: 104 }, (_, i) => i)
  first.keepInit(init)
  first.keepRoot(Op.STATFS, Uint8Array.from({ length: 90 }, (_, i) => i), 10)
  const second = new SurvivingState(new MortalMemory(memory.bytes), 8, new NodeTable(), new HandleTable())
  t.ok(second.inherited)
  t.strictSame(second.init(), init)
  const known: [number, number][] = []
  second.eachOfRoot((opcode, bytes, at) => { known.push([opcode, bytes[at]!]) })
  t.strictSame(known, [[Op.STATFS, 10]])
})
