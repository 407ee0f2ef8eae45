/** The table of open files against a map, at random; and what a lock means for the next session. */
import t from 'tap'
import { HandleTable } from '../../lib/driver/handle-table.js'
import { SeededRandom } from '../support/seeded-random.js'

t.test('at random, compared with a map', async t => {
  const random = new SeededRandom(7)
  const table = new HandleTable(4)
  const model = new Map<number, { node: number, low: number, high: number, session: number, flags: number, directory: boolean }>()
  for (let step = 0; step < 5000; step++) {
    if (model.size === 0 || random.below(5) < 3 - (model.size > 300 ? 2 : 0)) {
      const one = { node: random.below(1000), low: random.below(2 ** 32), high: random.below(2 ** 32), session: random.between(1, 9), flags: random.below(4), directory: random.below(2) === 0 }
      const handle = table.add(one.node, one.low, one.high, one.session, one.flags, one.directory)
      if (handle <= 0 || model.has(handle)) t.fail('a handle was given out twice')
      model.set(handle, one)
    } else {
      const handle = [...model.keys()][random.below(model.size)]!
      table.remove(handle)
      table.remove(handle)
      model.delete(handle)
    }
  }
  t.equal(table.count, model.size)
  for (const [handle, one] of model) {
    t.equal(table.known(handle, 0), handle)
    t.strictSame({
      node: table.node[handle], low: table.low[handle], high: table.high[handle], session: table.session[handle], flags: table.flags[handle], directory: table.directory[handle] === 1,
    }, one)
  }
})

t.test('numbers that were never given out', async t => {
  const table = new HandleTable(4)
  const handle = table.add(1, 2, 3, 1, 0, false)
  for (const [low, high] of [[0, 0], [handle, 1], [handle + 1, 0], [0xffff_ffff, 0], [4, 0]] as const) t.equal(table.known(low, high), -1)
  table.remove(handle)
  t.equal(table.known(handle, 0), -1)
})

t.test('a file with a lock is lost with its session, and its number means another file later', async t => {
  const table = new HandleTable(4)
  const [locked, free] = [table.add(1, 2, 3, 1, 0, false), table.add(1, 2, 3, 1, 0, false)]
  table.locked[locked] = 1
  table.newSession()
  t.equal(table.session[locked], 0)
  t.equal(table.session[free], 1)
  table.remove(locked)
  const next = table.add(1, 2, 3, 2, 0, false)
  t.equal(next, locked)
  t.equal(table.locked[next], 0)
})
