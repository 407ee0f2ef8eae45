/** Paths of nodes, learned from requests. */
import t from 'tap'
import type { RequestRecord } from '../../lib/driver/observation.js'
import { Op } from '../../lib/fuse/opcodes.js'
import { NodePaths } from '../../lib/mount/node-paths.js'

function record(opcode: number, node: number, more: Partial<RequestRecord> = {}): RequestRecord {
  return { watches: [], atMs: 0, opcode, unique: 2, node, pid: 1, uid: 0, gid: 0, error: 0, bytes: 0, us: 0, queue: 0, ...more }
}

t.test('what is looked up and made has a path; what is not known has its number', async t => {
  const paths = new NodePaths()
  t.equal(paths.path(1), '/')
  t.equal(paths.path(7), '?7')
  paths.learn(record(Op.LOOKUP, 7, { names: ['x'], child: 8 }))
  t.equal(paths.path(8), '?7/x')
  paths.learn(record(Op.LOOKUP, 1, { names: ['dir'], child: 7 }))
  t.equal(paths.path(8), '/dir/x', 'the rest of the path comes later')
  paths.learn(record(Op.READDIRPLUS, 8, { children: [['y', 9], ['z', 10]] }))
  t.equal(paths.path(10), '/dir/x/z')
  paths.learn(record(Op.LOOKUP, 1, { names: ['absent'], child: 0 }))
  t.equal(paths.size, 4, 'a negative entry is no node')
  t.equal(paths.join(1, 'new'), '/new')
  t.equal(paths.join(8, 'new'), '/dir/x/new')
})

t.test('rename, exchange, link, unlink', async t => {
  const paths = new NodePaths()
  for (const [name, child] of [['a', 2], ['b', 3], ['d', 4]] as const) paths.learn(record(Op.LOOKUP, 1, { names: [name], child }))
  paths.learn(record(Op.LOOKUP, 4, { names: ['below'], child: 5 }))
  paths.learn(record(Op.RENAME2, 1, { names: ['d', 'e'], other: 1, flags: 0 }))
  t.equal(paths.path(5), '/e/below', 'what is below moves with it')
  paths.learn(record(Op.RENAME2, 1, { names: ['a', 'below'], other: 4, flags: 2 }))
  t.strictSame([paths.path(2), paths.path(5)], ['/e/below', '/a'], 'two change places')
  paths.learn(record(Op.LINK, 1, { names: ['again'], other: 3, child: 3 }))
  t.equal(paths.path(3), '/again')
  paths.learn(record(Op.UNLINK, 1, { names: ['again'] }))
  t.equal(paths.path(3), '/again', 'an open file keeps the path that it had')
  paths.learn(record(Op.RENAME, 1, { names: ['again', 'other'], other: 1 }))
  t.equal(paths.path(3), '/again', 'and is not what has that name now')
  paths.learn(record(Op.RENAME, 1, { names: ['nobody', 'knows'], other: 1 }))
})

t.test('what the kernel forgets is forgotten', async t => {
  const paths = new NodePaths()
  for (let i = 0; i < 3; i++) paths.learn(record(Op.LOOKUP, 1, { names: ['a'], child: 2 }))
  paths.learn(record(Op.FORGET, 2, { forgotten: [[2, 2]] }))
  t.equal(paths.path(2), '/a')
  paths.learn(record(Op.BATCH_FORGET, 0, { forgotten: [[2, 1], [99, 1]] }))
  t.equal(paths.path(2), '?2')
  t.equal(paths.size, 0)
  paths.learn(record(Op.LOOKUP, 1, { names: ['a'], child: 2 }))
  paths.learn(record(Op.FORGET, 2, { forgotten: [[2, 5]] }))
  t.equal(paths.size, 0, 'more than was seen')
})
