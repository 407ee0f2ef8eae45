/** Large files: what gives back their blocks is for threads that may wait, and nobody waits for what was closed. */
import { existsSync, mkdtempSync, readdirSync, readlinkSync, rmSync, statfsSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import t from 'tap'
import { MAY_BLOCK } from '../../lib/device/handlers.js'
import { Freeing } from '../../lib/device/passthrough/freeing.js'
import { closePassthrough } from '../../lib/device/passthrough/shared.js'
import * as abi from '../../lib/fuse/abi.js'
import { Op } from '../../lib/fuse/opcodes.js'
import { O_RDWR, O_TRUNC, O_WRONLY } from '../../lib/sys/file.js'
import { viewRegion } from '../../lib/sys/memory.js'
import type { FreeingLoad } from '../support/freeing-load.js'
import { openDescriptors, serve, type Served, type ServeOptions } from '../support/passthrough-fixture.js'

const LARGE = Buffer.alloc(1 << 20, 'x')
const HALF = LARGE.subarray(0, 1 << 19)
const LSEEK_HOLE = 4
const TMPFS = 0x01021994
const noTmpfs = statfsSync('/dev/shm').type !== TMPFS && '/dev/shm is no tmpfs'

/** Descriptors of files in a directory that have no name any more. */
function nameless(root: string): number {
  let count = 0
  for (const fd of readdirSync('/proc/self/fd')) {
    try {
      const path = readlinkSync(`/proc/self/fd/${fd}`)
      if (path.startsWith(`${root}/`) && path.endsWith(' (deleted)')) count++
    } catch { /* the one of the listing */ }
  }
  return count
}

/** Serves a directory as the thread of a queue does that has a pool. */
function serveQueue(t: Parameters<typeof serve>[0], options: ServeOptions = {}): Served {
  const served = serve(t, options)
  served.device.mayLeave()
  served.client.mayBlock = false
  return served
}

t.test('a large file that is removed and forgotten', async t => {
  const { root, client, device } = serveQueue(t)
  writeFileSync(join(root, 'f'), LARGE)
  const { nodeid } = client.lookup(1n, 'f')
  t.equal(client.unlink(1n, 'f'), 0)
  t.equal(nameless(root), 1)
  t.notOk(device.claimLeft())
  client.forget(nodeid, 1)
  t.equal(nameless(root), 1, 'is not closed by who forgets it')
  t.equal(client.getattr(nodeid).error, -116, 'though it is gone')
  t.equal(client.statfs(1n).error, MAY_BLOCK, 'who asks for the room that there is waits')
  t.ok(device.claimLeft())
  t.notOk(device.claimLeft(), 'one is asked to close it')
  device.finish()
  t.equal(nameless(root), 0)
  t.equal(client.statfs(1n).error, 0)
  t.notOk(device.claimLeft())
})

t.test('one that is replaced', async t => {
  const { root, client, device } = serveQueue(t)
  for (const name of ['f', 'g']) writeFileSync(join(root, name), LARGE)
  const { nodeid } = client.lookup(1n, 'f')
  t.equal(client.rename(1n, 'g', 1n, 'f'), 0)
  client.batchForget([[nodeid, 1]])
  t.equal(nameless(root), 1)
  t.ok(device.claimLeft())
  device.finish()
  t.equal(nameless(root), 0)
})

t.test('what is small, or has a name, is closed at once', async t => {
  const { root, client, device } = serveQueue(t)
  writeFileSync(join(root, 'small'), HALF)
  const small = client.lookup(1n, 'small').nodeid
  client.unlink(1n, 'small')
  client.forget(small, 1)
  writeFileSync(join(root, 'named'), LARGE)
  const named = client.lookup(1n, 'named').nodeid
  t.equal(client.link(named, 1n, 'other').nodeid, named)
  client.unlink(1n, 'named')
  client.forget(named, 2)
  const again = client.lookup(1n, 'other').nodeid
  const { fh } = client.open(again, O_RDWR)
  client.release(again, fh)
  t.equal(nameless(root), 0)
  t.notOk(device.claimLeft())
})

t.test('one that got large without a name', async t => {
  const { root, client, device } = serveQueue(t)
  const { nodeid, fh } = client.create(1n, 'f', O_RDWR)
  client.unlink(1n, 'f')
  client.write(nodeid, fh, 0n, HALF)
  client.write(nodeid, fh, BigInt(HALF.length), HALF)
  client.release(nodeid, fh)
  t.equal(nameless(root), 1, 'the descriptor of the inode is there')
  t.notOk(device.claimLeft())
  client.forget(nodeid, 1)
  t.ok(device.claimLeft())
  device.finish()
  t.equal(nameless(root), 0)
})

t.test('one that never had a name', async t => {
  const { root, client, device } = serveQueue(t)
  const { error, nodeid, fh } = client.tmpfile(1n, O_RDWR)
  if (error === -95) return t.comment('no O_TMPFILE here')
  client.write(nodeid, fh, 0n, LARGE)
  t.equal(client.release(nodeid, fh), 0)
  t.equal(nameless(root), 1, 'is not closed by its RELEASE')
  t.equal(client.release(nodeid, fh), -9, 'though it is released')
  t.ok(device.claimLeft())
  device.finish()
  t.equal(nameless(root), 0)
  client.forget(nodeid, 1)
})

t.test('no more wait to be closed than there may be', async t => {
  const { root, client, device } = serveQueue(t, { limits: { freeing: 2 } })
  const names = ['a', 'b', 'c', 'd']
  for (const name of names) writeFileSync(join(root, name), LARGE)
  const nodes = names.map(name => client.lookup(1n, name).nodeid)
  for (const name of names) client.unlink(1n, name)
  for (const node of nodes) client.forget(node, 1)
  t.equal(nameless(root), 2)
  t.ok(device.claimLeft())
  device.finish()
  t.equal(nameless(root), 0)
})

t.test('threads that leave, close and wait at once', { skip: noTmpfs }, async t => {
  const { shared } = serve(t, { root: mkdtempSync('/dev/shm/vfb-'), limits: { freeing: 3 } })
  const before = openDescriptors()
  const left = await Promise.all([1, 2, 3].map(() => new Promise<number>((resolve, reject) => {
    const load: FreeingLoad = { shared, rounds: 400 }
    const worker = new Worker(new URL('../support/freeing-load.js', import.meta.url), { workerData: load })
    let count = 0
    worker.once('message', (value: number) => { count = value })
    worker.once('error', reject)
    worker.once('exit', () => resolve(count))
  })))
  t.ok(left.every(count => count > 0), `left: ${left.join(', ')}`)
  const freeing = new Freeing(new Int32Array(viewRegion(shared.address, shared.lengthBytes).view.buffer), shared.address, 0)
  t.notOk(freeing.pending, 'all are closed')
  t.equal(nameless(shared.options.root), 0)
  t.ok(openDescriptors() <= before)
})

t.test('where nobody closes what was left, nothing is', async t => {
  const { root, client } = serve(t)
  client.mayBlock = false
  writeFileSync(join(root, 'f'), LARGE)
  const { nodeid } = client.lookup(1n, 'f')
  client.unlink(1n, 'f')
  client.forget(nodeid, 1)
  t.equal(nameless(root), 0)
})

t.test('the end of a session closes everything', async t => {
  const { root, client } = serveQueue(t)
  for (const name of ['f', 'g']) writeFileSync(join(root, name), LARGE)
  const [f, g] = ['f', 'g'].map(name => client.lookup(1n, name).nodeid)
  const { fh } = client.open(g!, O_RDWR)
  for (const name of ['f', 'g']) client.unlink(1n, name)
  client.forget(f!, 1)
  t.equal(client.call(Op.DESTROY, 0n, Buffer.alloc(0)).error, MAY_BLOCK, 'not on the thread of a queue')
  t.equal(client.read(g!, fh, 0n, 1).data.length, 1, 'and nothing was done')
  client.mayBlock = true
  client.destroy()
  t.equal(nameless(root), 0)
})

t.test('the end of a device closes everything', async t => {
  const { root, client, shared } = serveQueue({ teardown: () => {} })
  writeFileSync(join(root, 'f'), LARGE)
  const { nodeid } = client.lookup(1n, 'f')
  client.unlink(1n, 'f')
  client.forget(nodeid, 1)
  t.equal(nameless(root), 1)
  closePassthrough(shared)
  t.equal(nameless(root), 0)
  rmSync(root, { recursive: true })
})

t.test('a size', async t => {
  const { root, client } = serveQueue(t)
  const path = join(root, 'f')
  writeFileSync(path, Buffer.concat([LARGE, HALF]))
  const { nodeid } = client.lookup(1n, 'f')
  const { fh } = client.open(nodeid, O_RDWR)
  const give = (size: number, handle?: bigint): number => client.setattr(nodeid, abi.FATTR_SIZE, { size: BigInt(size), ...handle !== undefined && { fh: handle } }).error
  t.equal(give(4096), MAY_BLOCK, 'that takes much off a file is given elsewhere')
  t.equal(give(4096, fh), MAY_BLOCK)
  t.equal(statSync(path).size, LARGE.length + HALF.length, 'and nothing was done')
  t.equal(give(1 << 30), 0, 'a larger one is given at once')
  t.equal(give(LARGE.length + HALF.length), MAY_BLOCK)
  client.mayBlock = true
  t.equal(give(LARGE.length + HALF.length), 0)
  client.mayBlock = false
  t.equal(give(LARGE.length), 0, 'and one that takes little off')
  client.mayBlock = true
  t.equal(give(0), 0)
  client.mayBlock = false
  client.write(nodeid, fh, 0n, HALF)
  t.equal(give(0), 0, 'and any to a small file')
  client.release(nodeid, fh)
})

t.test('O_TRUNC', async t => {
  const { root, client } = serveQueue(t)
  const path = join(root, 'f')
  writeFileSync(path, LARGE)
  const { nodeid } = client.lookup(1n, 'f')
  t.equal(client.open(nodeid, O_WRONLY | O_TRUNC).error, MAY_BLOCK)
  t.equal(client.create(1n, 'f', O_WRONLY | O_TRUNC).error, MAY_BLOCK, 'also when the kernel did not know it')
  t.equal(statSync(path).size, LARGE.length, 'nothing was done')
  client.mayBlock = true
  const { fh } = client.open(nodeid, O_WRONLY | O_TRUNC)
  client.mayBlock = false
  t.equal(statSync(path).size, 0)
  client.release(nodeid, fh)
  const second = client.open(nodeid, O_WRONLY | O_TRUNC)
  t.equal(second.error, 0, 'a file that was cut is large no more')
  client.write(nodeid, second.fh, BigInt(HALF.length), HALF)
  client.release(nodeid, second.fh)
  t.equal(client.open(nodeid, O_WRONLY | O_TRUNC).error, MAY_BLOCK, 'one that reaches so far is')
  client.forget(nodeid, 1)
})

t.test('a removal that frees a file itself', async t => {
  const { root, client } = serveQueue(t)
  writeFileSync(join(root, 'f'), LARGE)
  writeFileSync(join(root, 'g'), HALF)
  t.equal(client.unlink(1n, 'f'), MAY_BLOCK)
  t.equal(client.rename(1n, 'g', 1n, 'f'), MAY_BLOCK)
  t.ok(existsSync(join(root, 'f')), 'nothing was done')
  client.mayBlock = true
  t.equal(client.rename(1n, 'g', 1n, 'f'), 0)
  client.mayBlock = false
  t.equal(client.unlink(1n, 'f'), 0)
  t.equal(nameless(root), 0)
})

t.test('looking for a hole', { skip: noTmpfs }, async t => {
  const { root, client } = serveQueue(t, { root: mkdtempSync('/dev/shm/vfb-') })
  writeFileSync(join(root, 'f'), LARGE)
  const { nodeid } = client.lookup(1n, 'f')
  const { fh } = client.open(nodeid, O_RDWR)
  t.equal(client.lseek(nodeid, fh, 0n, LSEEK_HOLE).error, MAY_BLOCK)
  t.equal(client.lseek(nodeid, fh, 0n, LSEEK_HOLE - 1).error, 0)
  client.mayBlock = true
  t.equal(client.lseek(nodeid, fh, 0n, LSEEK_HOLE).offset, BigInt(LARGE.length))
  client.release(nodeid, fh)
  client.forget(nodeid, 1)
})
