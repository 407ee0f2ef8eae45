/** Large files whose blocks are given back: the thread of a queue does not do it, and to callers it is done. */
import { spawnSync } from 'node:child_process'
import { closeSync, existsSync, ftruncateSync, mkdirSync, openSync, readdirSync, readFileSync, renameSync, statfsSync, statSync, truncateSync, unlinkSync, writeFileSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { MAY_BLOCK } from '../../lib/device/handlers.js'
import { O_RDWR } from '../../lib/sys/file.js'
import { Bench, EmulatedTransport, withDevice } from '../support/driver-mount.js'
import { withMount } from '../support/mounts.js'
import { serve } from '../support/passthrough-fixture.js'
import { missing } from '../support/peers.js'
import { smallDisk } from '../support/small-disk.js'

const MIB = 1 << 20
const FILE_MIB = 320
const skip = missing('emulated') || !existsSync('/proc/self/schedstat') && 'this kernel does not say what a thread has used'

/** Processor time of the threads of this process with such a name, in milliseconds. */
function usedMs(name: string): number {
  let ns = 0
  for (const task of readdirSync('/proc/self/task')) {
    if (readFileSync(`/proc/self/task/${task}/comm`, 'latin1').startsWith(name)) ns += Number(readFileSync(`/proc/self/task/${task}/schedstat`, 'latin1').split(' ')[0])
  }
  return ns / 1e6
}

function freeMib(path: string): number {
  const { bfree, bsize } = statfsSync(path)
  return bfree * bsize / MIB
}

/** How the blocks of a file are given back. @returns what does it */
const ways: Record<string, (path: string) => (() => void)> = {
  'it is removed': path => () => unlinkSync(path),
  'it is replaced': path => {
    writeFileSync(`${path}-other`, '')
    return () => renameSync(`${path}-other`, path)
  },
  'it is closed, without a name': path => {
    const fd = openSync(path, 'r')
    unlinkSync(path)
    return () => closeSync(fd)
  },
  'it is cut by its path': path => () => truncateSync(path, 0),
  'it is cut by a descriptor': path => {
    const fd = openSync(path, 'r+')
    return () => {
      ftruncateSync(fd, 0)
      closeSync(fd)
    }
  },
  'it is opened with O_TRUNC': path => () => closeSync(openSync(path, 'w')),
}

for (const { name, queues, direct } of [{ name: 'one queue', queues: 1, direct: false }, { name: 'two queues', queues: 2, direct: false }, { name: 'direct', queues: 1, direct: true }]) {
  t.test(`${name}: a large file is not freed by the thread of a queue`, { skip }, async t => {
    const source = smallDisk(t, 'size=512m,huge=never')
    if (source === undefined) return void t.pass('a tmpfs', { skip: 'it cannot be mounted here' })
    const bench = new Bench(source)
    const transport = new EmulatedTransport(`large-${process.pid}`, queues, bench.serve({ direct }).handlers)
    await withDevice(t, transport, bench.dir, { queues, passthrough: direct }, async () => {
      await transport.poolReady()
      const all = freeMib(source)
      let n = 0
      for (const [way, prepare] of Object.entries(ways)) {
        const file = `f${n++}`
        spawnSync('fallocate', ['-l', `${FILE_MIB}M`, join(source, file)])
        t.equal(statSync(join(bench.dir, file)).size, FILE_MIB * MIB)
        const cut = prepare(join(bench.dir, file))
        t.ok(freeMib(source) < all - FILE_MIB + 1)
        const [queue, pool] = [usedMs('virtiofs-queue'), usedMs('virtiofs-pool')]
        cut()
        for (let i = 0; i < 500 && freeMib(source) < all - 1; i++) await sleep(20)
        t.ok(freeMib(source) >= all - 1, `${way}: there is room again`)
        const [byQueue, byPool] = [usedMs('virtiofs-queue') - queue, usedMs('virtiofs-pool') - pool]
        t.ok(byPool > byQueue, `${way}: the pool took ${byPool.toFixed(1)} ms, the queues ${byQueue.toFixed(1)} ms`)
      }
    })
    bench[Symbol.dispose]()
  })
}

t.test('what was removed makes room', { skip: missing('emulated') }, async t => {
  const source = smallDisk(t, 'size=96m')
  if (source === undefined) return void t.pass('a tmpfs', { skip: 'it cannot be mounted here' })
  await withMount(t, { peer: 'emulated', source, options: ['direct'] }, async ({ dir }) => {
    const path = join(dir, 'f')
    const chunk = Buffer.alloc(MIB, 'x')
    for (let i = 0; i < 8; i++) {
      const fd = openSync(path, 'wx')
      for (let k = 0; k < 80; k++) if (writeSync(fd, chunk) < MIB) t.fail(`no room for MiB ${k}, round ${i}`)
      closeSync(fd)
      unlinkSync(path)
      for (let k = 0; k < 500 && freeMib(dir) < 90; k++) await sleep(20)
      t.ok(freeMib(dir) > 90)
    }
  })
})

t.test('a close that may bring much to another file system', { skip: missing('emulated') }, async t => {
  const base = smallDisk(t, 'size=16m')
  const [merged, upper, work] = ['merged', 'upper', 'work'].map(name => join(base ?? tmpdir(), name)) as [string, string, string]
  if (base !== undefined) for (const path of [merged, upper, work]) mkdirSync(path)
  if (base === undefined || spawnSync('mount', ['-t', 'overlay', 'none', '-o', `lowerdir=${base},upperdir=${upper},workdir=${work}`, merged]).status !== 0) return void t.pass('an overlay', { skip: 'it cannot be mounted here' })
  t.teardown(() => { spawnSync('umount', ['-l', merged]) })
  mkdirSync(join(merged, 'served'))
  const { client } = serve(t, { root: join(merged, 'served') })
  const { nodeid, fh } = client.create(1n, 'f', O_RDWR)
  client.write(nodeid, fh, 0n, Buffer.alloc(MIB / 2))
  client.mayBlock = false
  t.equal(client.flush(nodeid, fh), 0, 'little is, at once')
  client.mayBlock = true
  client.write(nodeid, fh, BigInt(MIB / 2), Buffer.alloc(MIB / 2))
  client.mayBlock = false
  t.equal(client.flush(nodeid, fh), MAY_BLOCK)
  client.mayBlock = true
  t.equal(client.flush(nodeid, fh), 0)
  client.release(nodeid, fh)
  client.forget(nodeid, 1)
})

t.test('who lacks room waits for what is being freed', { skip: missing('emulated') }, async t => {
  const root = smallDisk(t, 'size=4m')
  if (root === undefined) return void t.pass('a tmpfs', { skip: 'it cannot be mounted here' })
  const { client, device } = serve(t, { root })
  device.mayLeave()
  const data = Buffer.alloc(MIB, 'x')
  const old = client.create(1n, 'f', O_RDWR)
  for (let i = 0; i < 3; i++) t.equal(client.write(old.nodeid, old.fh, BigInt(i * MIB), data), MIB)
  client.release(old.nodeid, old.fh)
  client.unlink(1n, 'f')
  client.forget(old.nodeid, 1)
  client.mayBlock = false
  const { nodeid, fh } = client.create(1n, 'g', O_RDWR)
  let end = 0
  let written = 0
  for (; written >= 0 && end < 3 * MIB; end += Math.max(0, written)) written = client.write(nodeid, fh, BigInt(end), data)
  t.equal(written, MAY_BLOCK, 'not on the thread of a queue')
  client.mayBlock = true
  for (; written !== 0 && end < 3 * MIB; end += written) {
    written = client.write(nodeid, fh, BigInt(end), data.subarray(0, Math.min(MIB, 3 * MIB - end)))
    t.ok(written > 0, 'there is room')
  }
  t.notOk(device.claimLeft(), 'nothing is left to be closed')
  client.release(nodeid, fh)
  client.forget(nodeid, 1)
})
