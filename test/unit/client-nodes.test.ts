/** The node cache of a client: lookups are counted and given back once, names live as long as the device says, leaves go first. */
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import type { Attributes } from '../../lib/client/attributes.js'
import { NodeTable, type EntryReply, type Node } from '../../lib/client/node.js'

const FOREVER = Infinity

function attributes(mode: number, ino: number): Attributes {
  const time = { sec: 0, nsec: 0 }
  return { ino, size: 0, blocks: 0, mode, nlink: 1, uid: 0, gid: 0, rdev: 0, blksize: 4096, atime: time, mtime: time, ctime: time, birthtime: undefined }
}

function reply(id: number, directory = false, generation = 0n): EntryReply {
  return { nodeidLow: id, nodeidHigh: 0, generation, entryMs: FOREVER, attrMs: FOREVER, attributes: attributes(directory ? 0o40755 : 0o100644, id) }
}

class Table extends NodeTable {
  readonly forgotten: [id: number, lookups: number][]

  constructor(maxNames = 100) {
    const forgotten: [number, number][] = []
    super({ maxNames, forget: (low, _high, lookups) => { forgotten.push([low, lookups]) } }, attributes(0o40755, 1))
    this.forgotten = forgotten
  }

  /** A name that the device has answered. */
  add(directory: Node, name: string, id: number, isDirectory = false): Node {
    const node = this.take(reply(id, isDirectory))
    this.keep(directory, name, node, FOREVER)
    node.drop()
    return node
  }
}

t.test('a node is forgotten with all its lookups when nobody holds it', async t => {
  const table = new Table()
  const node = table.take(reply(2))
  t.equal(table.take(reply(2)), node, 'the same id is the same node')
  node.drop()
  t.strictSame(table.forgotten, [])
  node.drop()
  t.strictSame(table.forgotten, [[2, 2]])
  t.not(table.take(reply(2)), node, 'then it is another one')
})

t.test('a name holds its node', async t => {
  const table = new Table()
  const node = table.add(table.root, 'a', 2)
  t.equal(table.known(table.root, 'a'), node)
  table.add(table.root, 'b', 2)
  table.expire(table.root, 'a')
  t.strictSame(table.forgotten, [], 'the other name still does')
  table.expire(table.root, 'b')
  t.strictSame(table.forgotten, [[2, 2]])
  t.strictSame(table.size, { nodes: 1, names: 0 })
})

t.test('a name that leads elsewhere', async t => {
  const table = new Table()
  table.add(table.root, 'a', 2)
  table.add(table.root, 'a', 3)
  t.strictSame(table.forgotten, [[2, 1]])
  table.add(table.root, 'a', 3)
  t.strictSame(table.forgotten, [[2, 1]], 'the same node again stays')
})

t.test('names and attributes live for their time', async t => {
  const table = new Table()
  const node = table.take(reply(2))
  table.keep(table.root, 'short', node, 20)
  table.keep(table.root, 'none', undefined, 20)
  node.update(attributes(0o100644, 2), 20, table.version)
  t.equal(table.known(table.root, 'short'), node)
  t.equal(table.known(table.root, 'none'), null, 'known not to be there')
  t.equal(table.known(table.root, 'other'), undefined)
  t.ok(node.attributesGood)
  await sleep(30)
  t.equal(table.known(table.root, 'short'), undefined)
  t.equal(table.known(table.root, 'none'), undefined)
  t.notOk(node.attributesGood)
  table.keep(table.root, 'never', node, 0)
  t.equal(table.known(table.root, 'never'), undefined)
  node.drop()
})

t.test('an answer that is older than a change of this client is not kept', async t => {
  const table = new Table()
  const node = table.take(reply(2))
  const { version } = table
  node.changed()
  node.update(attributes(0o100644, 2), FOREVER, version)
  t.notOk(node.attributesGood)
  node.update(attributes(0o100644, 2), FOREVER, table.version)
  t.ok(node.attributesGood)
})

t.test('an id that belongs to another file now', async t => {
  const table = new Table()
  const old = table.take(reply(2, false, 1n))
  const next = table.take(reply(2, false, 2n))
  t.not(next, old)
  const directory = table.take(reply(2, true, 2n))
  t.not(directory, next, 'nor can a file become a directory')
  old.drop()
  t.strictSame(table.forgotten, [[2, 1]], 'each gives its own lookups back')
  next.drop()
  directory.drop()
  t.strictSame(table.forgotten, [[2, 1], [2, 1], [2, 1]])
})

t.test('too many names: those not used for long go, leaves first', async t => {
  const table = new Table(10)
  const directory = table.add(table.root, 'd', 2, true)
  for (let i = 0; i < 50; i++) {
    table.known(table.root, 'd')
    table.add(directory, `f${i}`, 10 + i)
  }
  t.equal(table.size.names, 10)
  t.equal(table.known(table.root, 'd'), directory, 'a directory in use stays')
  t.strictSame(table.forgotten.map(([id]) => id), Array.from({ length: 41 }, (_, i) => 10 + i), 'the oldest went')
})

t.test('a directory that is forgotten forgets what is below it', async t => {
  const table = new Table()
  let directory = table.root
  for (let i = 2; i < 10; i++) directory = table.add(directory, 'd', i, true)
  table.expire(table.root, 'd')
  t.strictSame(table.forgotten.map(([id]) => id).sort(), [2, 3, 4, 5, 6, 7, 8, 9])
  t.strictSame(table.size, { nodes: 1, names: 0 })
})

t.test('the end: everything that nobody holds is given back', async t => {
  const table = new Table()
  const kept = table.add(table.root, 'kept', 2)
  kept.hold()
  const directory = table.add(table.root, 'd', 3, true)
  for (let i = 10; i < 20; i++) table.add(directory, `f${i}`, i)
  table.expireAll()
  t.equal(table.forgotten.length, 11)
  t.strictSame(table.size, { nodes: 2, names: 0 })
  kept.drop()
  t.equal(table.size.nodes, 1, 'the root is never forgotten')
})

t.test('ids of 64 bits', async t => {
  const table = new Table()
  const high = { ...reply(5), nodeidHigh: 0xffff_ffff }
  const node = table.take(high)
  t.equal(table.take(high), node)
  t.not(table.take(reply(5)), node)
})
