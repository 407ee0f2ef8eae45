/** cache=coherent where it gets difficult: lost events, locks, storms, other file systems, sudden ends, and where it cannot be. */
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, closeSync, existsSync, mkdirSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync, statfsSync, statSync, unlinkSync, writeFileSync } from 'node:fs'
import { stat, writeFile } from 'node:fs/promises'
import { constants, tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { FaultControl, mount } from '../../lib/index.js'
import { withMount } from '../support/mounts.js'
import { BRIDGE, missing } from '../support/peers.js'
import { type Program, runToEnd, within } from '../support/program.js'
import { clearMount } from '../support/stuck.js'
import { until } from '../support/until.js'

const skip = missing('emulated')
const settings = { peer: 'emulated', options: ['cache=coherent'] } as const
const SOON_MS = 5000

t.test('events that are lost: everything is looked at again', { skip }, async t => {
  const shared = mkdtempSync('/dev/shm/vfb-')
  t.teardown(() => rmSync(shared, { recursive: true }))
  mkdirSync(join(shared, 'd'))
  for (let i = 0; i < 200; i++) writeFileSync(join(shared, 'd', `f${i}`), 'old')
  await withMount(t, { ...settings, source: shared }, async ({ source, dir, bridge }) => {
    const [from, to] = [join(source, 'd'), join(dir, 'd')]
    const fd = openSync(join(to, 'f0'), 'r')
    for (let i = 0; i < 200; i++) readFileSync(join(to, `f${i}`))
    readdirSync(to)
    t.notOk(existsSync(join(to, 'new')))
    process.kill(bridge.pid, 'SIGSTOP')
    try {
      // more events than a queue of fanotify holds: each name is one
      for (let i = 0; i < 17_000; i++) {
        const path = join(source, `noise${i}`)
        closeSync(openSync(path, 'w'))
        unlinkSync(path)
      }
      for (let i = 0; i < 100; i++) writeFileSync(join(from, `f${i}`), 'newer')
      for (let i = 100; i < 200; i++) unlinkSync(join(from, `f${i}`))
      writeFileSync(join(from, 'new'), '')
      chmodSync(from, 0o700)
    } finally {
      process.kill(bridge.pid, 'SIGCONT')
    }
    const done = (): boolean => existsSync(join(to, 'new')) && (statSync(to).mode & 0o777) === 0o700 && readdirSync(to).length === 101
      && [...Array(100).keys()].every(i => readFileSync(join(to, `f${i}`), 'utf8') === 'newer' && !existsSync(join(to, `f${i + 100}`)))
    await until(done, SOON_MS)
    t.equal(readFileSync(fd, 'utf8'), 'newer', 'an open file, too')
    closeSync(fd)
    chmodSync(join(from, 'f1'), 0o444)
    await until(() => (statSync(join(to, 'f1')).mode & 0o777) === 0o444, SOON_MS)
    t.pass('and what comes later is told as ever')
  })
})

t.test('a notification waits for a request, and requests do not wait for it', { skip }, async t => {
  const base = mkdtempSync(join(tmpdir(), 'vfb-'))
  const [source, dir] = [join(base, 'src'), join(base, 'mnt')]
  for (const sub of ['', 'd', 'other']) mkdirSync(join(source, sub))
  mkdirSync(dir)
  writeFileSync(join(source, 'other/f'), '')
  const faults = new FaultControl()
  const mounted = await mount({ source, mountpoint: dir, faults, options: { cache: 'coherent', traceJson: join(base, 'trace') } })
  try {
    t.notOk(existsSync(join(dir, 'd/host')))
    t.notOk(existsSync(join(dir, 'other/host')))
    faults.delay('MKNOD', 600)
    faults.delay('CREATE', 600)
    const created = writeFile(join(dir, 'd/own'), 'x')
    await sleep(100)
    // the kernel holds the lock of the directory until CREATE is answered, and the notification needs it
    writeFileSync(join(source, 'd/host'), '')
    writeFileSync(join(source, 'other/host'), '')
    await sleep(100)
    const start = performance.now()
    await Promise.all(Array.from({ length: 20 }, (_, i) => stat(join(dir, `other/none${i}`)).catch(() => {})))
    statfsSync(dir)
    const waited = performance.now() - start
    t.ok(waited < 350, `20 LOOKUPs and a STATFS took ${waited.toFixed(1)} ms meanwhile`)
    await created
    faults.delay('CREATE', 0)
    await until(() => existsSync(join(dir, 'd/host')) && existsSync(join(dir, 'other/host')), SOON_MS)

    // the same, and an unmount that does not wait to begin
    faults.delay('CREATE', 600)
    const late = writeFile(join(dir, 'd/late'), 'x').catch(() => {})
    await sleep(100)
    writeFileSync(join(source, 'd/more'), '')
    await sleep(50)
    const end = performance.now()
    const unmounted = await within(10_000, mounted.unmount({ lazy: true }).then(() => true))
    await late
    t.ok(unmounted, `unmounted after ${(performance.now() - end).toFixed(0)} ms`)
  } finally {
    if (await within(10_000, mounted.unmount({ abort: true })) === undefined) await within(5000, mounted.closed)
    t.notOk(await clearMount(dir), 'unmounted')
    rmSync(base, { recursive: true, force: true })
  }
})

/** Makes, renames, replaces and removes files and directories, and reads what others do. @param who part of the names */
function churn(root: string, who: string): Promise<Program> {
  const script = `
    const { mkdirSync, readdirSync, readFileSync, renameSync, rmdirSync, statSync, unlinkSync, writeFileSync } = require('node:fs')
    process.chdir(process.argv[1])
    const who = process.argv[2]
    const maybe = act => { try { act() } catch (error) { if (!['ENOENT', 'EEXIST', 'ENOTEMPTY', 'EISDIR', 'ENOTDIR'].includes(error.code) && error.errno !== -${constants.errno.ESTALE}) throw error } }
    for (let i = 0; i < 300; i++) {
      const name = who + i % 7, directory = 's' + i % 3
      maybe(() => writeFileSync('a/' + name, String(i)))
      maybe(() => renameSync('a/' + name, 'b/' + 'hmn'[i % 3] + i % 5))
      maybe(() => mkdirSync('a/' + directory))
      maybe(() => rmdirSync('b/' + directory))
      maybe(() => renameSync('a/' + directory, 'b/' + directory))
      for (const at of ['a', 'b']) for (const entry of readdirSync(at)) maybe(() => statSync(at + '/' + entry).isFile() && readFileSync(at + '/' + entry))
      maybe(() => unlinkSync('b/' + who + i % 5))
    }`
  return runToEnd([process.execPath, '-e', script, root, who], { timeoutMs: 60_000 })
}

/** What stat(2) says of everything below, but for what a mount has of its own and for access times. */
function tree(root: string): string[] {
  return ['', ...readdirSync(root, { recursive: true, encoding: 'utf8' })].sort().map(name => {
    const { mode, nlink, ino, size, mtimeMs, ctimeMs } = statSync(join(root, name))
    return [name, mode, nlink, ino, size, mtimeMs, ctimeMs].join(' ')
  })
}

t.test('both sides busy in the same directories, and an unmount meanwhile', { skip }, async t => {
  const shared = mkdtempSync('/dev/shm/vfb-')
  t.teardown(() => rmSync(shared, { recursive: true }))
  for (const sub of 'ab') mkdirSync(join(shared, sub))
  await withMount(t, { peer: 'emulated', options: ['cache=coherent', 'queues=2'], source: shared }, async live => {
    const { source, dir } = live
    const ends = await Promise.all([churn(source, 'h'), churn(dir, 'm'), churn(dir, 'n')])
    t.strictSame(ends.map(({ exit, stderr }) => [exit?.code, stderr]), [[0, ''], [0, ''], [0, '']])
    try {
      await until(() => tree(dir).join() === tree(source).join(), SOON_MS)
    } catch {
      t.strictSame(tree(dir), tree(source))
    }
    for (const sub of 'ab') for (const name of readdirSync(join(source, sub))) {
      if (name[0] !== 's') t.equal(readFileSync(join(dir, sub, name), 'utf8'), readFileSync(join(source, sub, name), 'utf8'))
    }
    // told of changes until the last moment
    const noise = runToEnd(['bash', '-c', `for i in $(seq 3000); do echo > ${source}/a/noise$i; done`], { timeoutMs: 20_000 })
    await sleep(200)
    readdirSync(join(dir, 'a'))
    t.equal(await live.unmount(), 0)
    await noise
  })
})

t.test('other file systems in the tree', { skip }, async t => {
  await withMount(t, settings, async ({ source, dir }) => {
    const inside = [['tmpfs', 'tmp'], ['proc', 'proc']] as const
    try {
      for (const [type, name] of inside) {
        mkdirSync(join(source, name))
        execFileSync('mount', ['-t', type, 'none', join(source, name)])
      }
      writeFileSync(join(source, 'tmp/f'), '1')
      t.equal(readFileSync(join(dir, 'tmp/f'), 'utf8'), '1')
      t.notOk(existsSync(join(dir, 'tmp/g')))
      writeFileSync(join(source, 'tmp/f'), 'more')
      writeFileSync(join(source, 'tmp/g'), '')
      await until(() => readFileSync(join(dir, 'tmp/f'), 'utf8') === 'more' && existsSync(join(dir, 'tmp/g')), SOON_MS)
      // nobody tells of changes in /proc: nothing of it is kept
      const child = spawn('sleep', ['60'])
      t.ok(existsSync(join(dir, 'proc', String(child.pid))))
      child.kill()
      await once(child, 'exit')
      t.notOk(existsSync(join(dir, 'proc', String(child.pid))))
    } finally {
      for (const [, name] of inside) execFileSync('umount', ['-l', join(source, name)])
    }
  })
})

t.test('killed in the middle of it', { skip }, async t => {
  await withMount(t, { ...settings, rough: true }, async ({ source, dir, bridge }) => {
    statSync(dir)
    const noise = runToEnd(['bash', '-c', `for i in $(seq 500); do echo > ${source}/noise$i; done`], { timeoutMs: 20_000 })
    await sleep(100)
    process.kill(bridge.pid, 'SIGKILL')
    await bridge.exited
    t.throws(() => statfsSync(dir), { code: 'ENOTCONN' })
    await noise
  })
})

t.test('where it cannot be', { skip }, async t => {
  const base = mkdtempSync(join(tmpdir(), 'vfb-'))
  const [source, dir] = [join(base, 'src'), join(base, 'mnt')]
  for (const sub of [source, dir]) mkdirSync(sub)
  chmodSync(base, 0o755)
  const refused = async (from: string, options: string, ...command: string[]): Promise<string> => {
    const { exit, stderr } = await runToEnd([...command, ...BRIDGE, from, dir, '-o', `cache=coherent${options}`], { timeoutMs: 20_000 })
    return `${exit?.code}: ${stderr.trim()}`
  }
  t.equal(await refused(source, ',writeback'), '1: virtiofs-bridge: writeback does not go with cache=coherent: what the kernel has not written yet would hide changes')
  t.equal(await refused(source, ',backend=virtiofsd'), '1: virtiofs-bridge: cache=coherent needs the emulated device: a virtiofsd tells of no changes')
  t.equal(await refused('unix:/nowhere', ''), '1: virtiofs-bridge: cache=coherent needs the emulated device: a virtiofsd tells of no changes')
  t.match(await refused(source, '', 'setpriv', '--bounding-set=-sys_admin', '--'), '1: virtiofs-bridge: cache=coherent: only root (CAP_SYS_ADMIN) may watch a file system')
  t.equal(await refused('/proc', ''), '32: virtiofs-bridge: cache=coherent: the file system of /proc cannot be watched (no file handles)')
  rmSync(base, { recursive: true })
})
