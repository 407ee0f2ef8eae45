/** The table of nodes against a model of plain objects, at random; and the rules one by one. */
import t from 'tap'
import { NodeTable, ROOT } from '../../lib/driver/node-table.js'
import { SeededRandom } from '../support/seeded-random.js'

const name = (text: string): Uint8Array => Buffer.from(text)

function look(table: NodeTable, parent: number, text: string, id: number): number {
  const bytes = name(text)
  let node = table.findId(id, 0)
  if (node < 0) {
    node = table.add()
    table.setId(node, id, 0)
  }
  table.setPath(node, parent, bytes, 0, bytes.length)
  table.lookups[node]!++
  return node
}

function forget(table: NodeTable, node: number): void {
  table.lookups[node] = 0
  table.releaseIfUnused(node)
}

t.test('the root is there, by its number and by its id, in every session', async t => {
  const table = new NodeTable()
  t.equal(table.known(1, 0), ROOT)
  t.equal(table.findId(1, 0), ROOT)
  t.equal(table.known(2, 0), -1)
  t.equal(table.known(1, 1), -1)
  t.equal(table.known(0, 0), -1)
  t.equal(table.known(0xffff_ffff, 0), -1)
  table.newSession()
  t.equal(table.findId(1, 0), ROOT)
  t.equal(table.nextToLookUp(ROOT), -1)
})

t.test('a directory stays while one of its files is known', async t => {
  const table = new NodeTable()
  const directory = look(table, ROOT, 'd', 10)
  const file = look(table, directory, 'f', 11)
  forget(table, directory)
  t.equal(table.known(directory + 1, 0), directory)
  table.newSession()
  t.equal(table.nextToLookUp(file), directory, 'the highest first')
  table.setId(directory, 20, 0)
  t.equal(table.nextToLookUp(file), file)
  table.setId(file, 21, 0)
  t.equal(table.nextToLookUp(file), -1)
  forget(table, file)
  t.equal(table.count, 1, 'both are gone')
  t.equal(table.findId(20, 0), -1)
})

t.test('a number that was given up means nothing, whatever takes its place', async t => {
  const table = new NodeTable()
  const old = look(table, ROOT, 'a', 10)
  forget(table, old)
  const fresh = look(table, ROOT, 'b', 11)
  t.equal(fresh, old, 'the same place')
  t.equal(table.known(old + 1, 0), -1)
  t.equal(table.known(fresh + 1, table.reuse[fresh]!), fresh)
})

t.test('a file that was removed, and one that another took the place of, cannot be found again', async t => {
  const table = new NodeTable()
  const old = look(table, ROOT, 'name', 10)
  const removed = look(table, ROOT, 'other', 11)
  const fresh = look(table, ROOT, 'name', 12)
  table.clearPath(removed)
  table.newSession()
  t.equal(table.nextToLookUp(old), -2)
  t.equal(table.nextToLookUp(removed), -2)
  t.equal(table.nextToLookUp(fresh), fresh)
  t.equal(table.findName(ROOT, name('name'), 0, 4), fresh)
})

t.test('a device that says a directory is inside itself makes no loop', async t => {
  const table = new NodeTable()
  const a = look(table, ROOT, 'a', 10)
  const b = look(table, a, 'b', 11)
  table.setPath(a, b, name('a'), 0, 1)
  table.setPath(a, a, name('a'), 0, 1)
  table.setPath(ROOT, b, name('r'), 0, 1)
  table.newSession()
  t.equal(table.nextToLookUp(b), a)
})

t.test('at random, compared with a model', async t => {
  const random = new SeededRandom(Number(process.env['SEED'] ?? 42))
  const table = new NodeTable(4)
  interface Model { node: number, id: number, parent: Model | undefined, name: string, lookups: number, session: number }
  const root: Model = { node: ROOT, id: 1, parent: undefined, name: '', lookups: 1, session: 1 }
  const all = new Set<Model>([root])
  let session = 1
  let ids = 2
  const pick = (): Model => [...all][random.below(all.size)]!
  const at = (parent: Model, text: string): Model | undefined => [...all].find(one => one.parent === parent && one.name === text)
  const above = (one: Model, other: Model | undefined): boolean => other !== undefined && (other === one || above(one, other.parent))
  const prune = (one: Model | undefined): void => {
    if (!one || one === root || one.lookups > 0 || [...all].some(other => other.parent === one)) return
    all.delete(one)
    const { parent } = one
    one.parent = undefined
    prune(parent)
  }
  const unpath = (one: Model): void => {
    const { parent } = one
    one.parent = undefined
    one.name = ''
    prune(parent)
  }
  for (let step = 0; step < 12_000; step++) {
    const what = random.below(10)
    if (what < 5) {
      const parent = pick()
      const text = `n${random.below(12)}${'x'.repeat(random.below(20))}`
      const bytes = name(text)
      let one = random.below(4) === 0 ? pick() : undefined
      if (!one || one === root || one.session !== session) {
        one = { node: table.add(), id: ids++, parent: undefined, name: '', lookups: 0, session }
        table.setId(one.node, one.id, 0)
        all.add(one)
      }
      one.lookups++
      table.lookups[one.node]!++
      table.setPath(one.node, parent.node, bytes, 0, bytes.length)
      if (!above(one, parent) && !(one.parent === parent && one.name === text)) {
        const other = at(parent, text)
        const before = one.parent
        one.parent = parent
        one.name = text
        if (other) unpath(other)
        prune(before)
        if (other) prune(other)
      }
    } else if (what < 8) {
      const one = pick()
      if (one === root) continue
      one.lookups = 0
      forget(table, one.node)
      prune(one)
    } else if (what === 8) {
      const one = pick()
      if (one === root) continue
      table.clearPath(one.node)
      unpath(one)
    } else if (random.below(20) === 0) {
      session++
      table.newSession()
    }
    if (step % 50 !== 0) continue
    const wrong = [...all].filter(one => table.known(one.node + 1, table.reuse[one.node]!) !== one.node || table.parent[one.node] !== (one.parent?.node ?? -1)
      || (one !== root && table.isCurrent(one.node) !== (one.session === session))
      || (one.session === session && one !== root && table.findId(one.id, 0) !== one.node)
      || (one.parent !== undefined && table.findName(one.parent.node, name(one.name), 0, one.name.length) !== one.node))
    if (wrong.length > 0 || table.count !== all.size) {
      t.fail(`step ${step}: ${table.count} nodes, expected ${all.size}; wrong: ${wrong.map(one => `${one.node} ${one.name}`).join()}`)
      return
    }
  }
  t.ok(ids > 1000)
})
