/** File systems in TypeScript, mounted. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statfsSync, statSync, unlinkSync, writeFileSync } from 'node:fs'
import { readFile, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { FaultControl, mount, serveDevice, type Mount, type ServedDevice } from '../../lib/index.js'
import { untilUsable } from '../support/mounts.js'
import { Mood } from '../support/moody-fs.js'
import { noKernel, noProgram } from '../support/peers.js'
import { runChecks } from '../support/posix-run.js'
import { Program, run, within } from '../support/program.js'
import { clearMount } from '../support/stuck.js'

const MEMFS = new URL('../../examples/memfs.js', import.meta.url)
const ASYNC_MEMFS = new URL('../support/memfs-async.js', import.meta.url)
const MOODY = new URL('../support/moody-fs.js', import.meta.url)
const options = { skip: noKernel() }

/** What these file systems cannot do, by how the name of a check begins, and why. */
const EXCEPTIONS: Record<string, string> = {
  'suid-clearing: sgid without group x goes': 'left to the kernel, which asks for sgid to go only where it means setgid (fs/fuse/dir.c fuse_setattr)',
}

async function withServed(t: Test, source: ServedDevice, body: (dir: string, mounted: Mount, faults: FaultControl) => Promise<void>, timeout = 10): Promise<void> {
  const base = mkdtempSync(join(tmpdir(), 'vfb-'))
  // the posix checks act as other users, too
  chmodSync(base, 0o755)
  const dir = join(base, 'mnt')
  mkdirSync(dir)
  const faults = new FaultControl()
  const mounted = await mount({ source, mountpoint: dir, faults, options: { timeout } })
  try {
    await body(dir, mounted, faults)
  } finally {
    if (await within(15_000, mounted.unmount({ abort: true })) === undefined) await within(5000, mounted.closed)
    t.notOk(await clearMount(dir), 'unmounted')
    rmSync(base, { recursive: true, force: true })
  }
}

/** Waits, but not for ever. */
async function becomes(condition: () => boolean): Promise<void> {
  for (const end = performance.now() + 10_000; !condition() && performance.now() < end;) await sleep(5)
}

async function posix(t: Test, dir: string, mounted: Mount): Promise<void> {
  let count = 0
  await runChecks(dir, { stuck: () => void mounted.unmount({ abort: true }), result: ({ name, cites, ok, skip, error }) => {
    if (skip === undefined) count++
    const exception = Object.entries(EXCEPTIONS).find(([start]) => name.startsWith(start))
    if (ok === (exception !== undefined) && skip === undefined) t.fail(`${name}: ${error ?? 'holds, and is listed as an exception'}`, { cites })
  } })
  t.ok(count > 350, `${count} posix checks were run`)
}

async function git(t: Test, dir: string): Promise<void> {
  const clone = join(dir, 'clone')
  const env = { ...process.env, HOME: dir, GIT_CONFIG_NOSYSTEM: '1', GIT_AUTHOR_NAME: 'a', GIT_AUTHOR_EMAIL: 'a@example.org', GIT_COMMITTER_NAME: 'a', GIT_COMMITTER_EMAIL: 'a@example.org' }
  const git = async (cwd: string, ...args: string[]): Promise<string> => await run(['git', ...args], { cwd, env })
  await git(dir, 'init', '-q', '-b', 'main', 'origin')
  const origin = join(dir, 'origin')
  for (let i = 0; i < 100; i++) {
    mkdirSync(join(origin, `d${i % 7}`), { recursive: true })
    writeFileSync(join(origin, `d${i % 7}`, `file ${i}.txt`), `${i}\n`.repeat(i * 7 % 900))
  }
  await git(origin, 'add', '.')
  await git(origin, 'commit', '-q', '-m', 'first')
  await git(dir, 'clone', '-q', '--no-local', origin, clone)
  t.equal(await git(clone, 'status', '--porcelain'), '', 'a clone is clean')
  writeFileSync(join(clone, 'd0', 'file 0.txt'), 'changed\n')
  t.equal(await git(clone, 'status', '--porcelain'), ' M "d0/file 0.txt"\n')
  await git(clone, 'commit', '-q', '-a', '-m', 'second')
  await git(clone, 'gc', '-q')
  await git(clone, 'fsck', '--strict')
}

for (const [name, source] of [
  ['memory', (): ServedDevice => serveDevice(MEMFS)],
  ['memory, with promises', (): ServedDevice => serveDevice(ASYNC_MEMFS, { async: true })],
] as const) {
  t.test(`${name}: git`, { skip: noKernel() || noProgram('git') }, async t => await withServed(t, source(), async dir => await git(t, dir)))
  t.test(`${name}: posix checks`, options, async t => await withServed(t, source(), async (dir, mounted) => await posix(t, dir, mounted)))
}

t.test('memory that is limited', options, async t => {
  await withServed(t, serveDevice(MEMFS, { data: { bytes: 1 << 20 } }), async dir => {
    const free = (): number => statfsSync(dir).bfree
    t.equal(statfsSync(dir).blocks, 256)
    writeFileSync(join(dir, 'a'), Buffer.alloc(512 * 1024))
    t.equal(free(), 128)
    t.throws(() => writeFileSync(join(dir, 'b'), Buffer.alloc(600 * 1024)), { code: 'ENOSPC' })
    for (const name of ['a', 'b']) unlinkSync(join(dir, name))
    await becomes(() => free() === 256)
    t.equal(free(), 256, 'what is removed is given back')
  })
})

function moody(async: boolean): [ServedDevice, Int32Array] {
  const counters = new SharedArrayBuffer(Mood.WORDS * 4)
  return [serveDevice(MOODY, { data: { counters }, async }), new Int32Array(counters)]
}

t.test('errors', options, async t => {
  for (const async of [false, true]) {
    const [device, counters] = moody(async)
    await withServed(t, device, async (dir, _mounted, faults) => {
      const read = (name: string): string => readFileSync(join(dir, name), 'utf8')
      t.equal(read('fine'), 'fine')
      for (const code of ['EBUSY', 'ELOOP']) t.throws(() => read(code), { code }, `a FuseError ${code}`)
      t.throws(() => read('oops'), { code: 'EIO' }, 'an exception')
      t.throws(() => read('senseless'), { code: 'EIO' }, 'a value that makes no sense')
      t.throws(() => statSync(join(dir, 'nothing')), { code: 'ENOENT' })
      t.throws(() => writeFileSync(join(dir, 'new'), ''), { code: 'ENOSYS' }, 'what is not there')
      t.strictSame(readdirSync(dir), [])
      if (async) t.equal(read('promise'), 'kept')
      else t.throws(() => read('promise'), { code: 'EIO' }, 'a promise that nobody waits for')
      faults.failNext('READ', 5)
      t.throws(() => read('fine'), { code: 'EIO' }, 'faults')
      t.equal(read('fine'), 'fine')
    })
    t.equal(counters[Mood.DESTROYED], 1, 'the session has ended')
    t.ok(counters[Mood.FORGOTTEN]! > 0, 'what the kernel knew is forgotten')
  }
})

t.test('an exception is told', options, async t => {
  const base = mkdtempSync(join(tmpdir(), 'vfb-'))
  const program = new Program([process.execPath, fileURLToPath(new URL('../support/serve-moody.js', import.meta.url)), base], { env: { ...process.env, DEBUG: 'virtiofs:device' } })
  try {
    await untilUsable(base, program)
    await t.rejects(readFile(join(base, 'oops')), { code: 'EIO' })
    await t.rejects(readFile(join(base, 'EBUSY')), { code: 'EBUSY' })
    await run(['umount', base])
    t.ok(await program.endsWithin(10_000))
    t.match(program.stderr, /READ n\d+ fails with EIO: TypeError: Cannot read properties of undefined .*moody-fs/)
    t.notMatch(program.stderr, /EBUSY/, 'an answer is no accident')
  } finally {
    await clearMount(base)
    await program.kill()
    rmSync(base, { recursive: true })
  }
})

t.test('with promises a request that waits holds up nobody, and ends with who asked', options, async t => {
  const [device, counters] = moody(true)
  await withServed(t, device, async dir => {
    const waiting = spawn('cat', [join(dir, 'waits')], { stdio: 'ignore' })
    const alsoWaiting = spawn('cat', [join(dir, 'waits')], { stdio: 'ignore' })
    await becomes(() => counters[Mood.WAITING] === 2)
    t.equal(await readFile(join(dir, 'fine'), 'utf8'), 'fine')
    t.ok((await stat(dir)).isDirectory())
    waiting.kill('SIGINT')
    const [, signal] = await within(10_000, once(waiting, 'exit')) ?? []
    t.equal(signal, 'SIGINT')
    await becomes(() => counters[Mood.ABORTED]! > 0)
    t.equal(counters[Mood.ABORTED], 1, 'its signal was aborted, and no other')
    alsoWaiting.kill('SIGKILL')
    t.ok(await within(10_000, once(alsoWaiting, 'exit')), 'killed')
    await becomes(() => counters[Mood.ABORTED] === 2)
    t.equal(counters[Mood.ABORTED], 2)
  })
})

t.test('with promises an unmount does not wait for who does not listen', options, async t => {
  const [device] = moody(true)
  await withServed(t, device, async dir => {
    const child = spawn('cat', [join(dir, 'deaf')], { stdio: 'ignore' })
    await sleep(200)
    child.kill('SIGKILL')
  }, 3)
})

t.test('with promises an error that nobody catches is the end of the device', options, async t => {
  const [device] = moody(true)
  await withServed(t, device, async (dir, mounted) => {
    const gone = once(mounted, 'gone')
    await t.rejects(readFile(join(dir, 'crash')), { code: 'EIO' })
    t.strictSame(await gone, ['the file system failed: out of mind'])
    await t.rejects(stat(dir), { code: 'ENOTCONN' })
  })
})

t.test('a module that is none', options, async t => {
  const dir = mkdtempSync(join(tmpdir(), 'vfb-'))
  for (const async of [false, true]) {
    await t.rejects(mount({ source: serveDevice(new URL('./nothing.js', import.meta.url), { async }), mountpoint: dir }), /nothing\.js/)
    await t.rejects(mount({ source: serveDevice(new URL('../support/program.js', import.meta.url), { async }), mountpoint: dir }), /has no class as its default export/)
  }
  rmSync(dir, { recursive: true })
})
