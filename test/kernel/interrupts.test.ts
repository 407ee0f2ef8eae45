/** Signals for programs that wait in the device, and requests that it never answers. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { open, readFile, stat } from 'node:fs/promises'
import { constants, tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { FaultControl, mount, type Mount, type MountOptions } from '../../lib/index.js'
import { withMount } from '../support/mounts.js'
import { missing, PEERS } from '../support/peers.js'
import { Program, signal, within } from '../support/program.js'
import { clearMount } from '../support/stuck.js'

interface Bench { mounted: Mount, faults: FaultControl, dir: string, trace: () => { op?: string, error?: number }[] }

async function withFaults(t: Test, options: MountOptions, body: (bench: Bench) => Promise<void>): Promise<void> {
  const base = mkdtempSync(join(tmpdir(), 'vfb-'))
  const dir = join(base, 'mnt')
  const traceJson = join(base, 'trace.json')
  for (const sub of ['mnt', 'src']) mkdirSync(join(base, sub))
  writeFileSync(join(base, 'src', 'a'), 'x'.repeat(100_000))
  const faults = new FaultControl()
  const mounted = await mount({ source: join(base, 'src'), mountpoint: dir, faults, options: { ...options, traceJson, mountTimeout: 4 } })
  try {
    await body({ mounted, faults, dir, trace: () => readFileSync(traceJson, 'utf8').trim().split('\n').map(line => JSON.parse(line)) })
  } finally {
    if (await within(10_000, mounted.unmount({ abort: true })) === undefined) await within(5000, mounted.closed)
    t.notOk(await clearMount(dir), 'unmounted')
    rmSync(base, { recursive: true, force: true })
  }
}

async function killed(command: readonly string[], signal: NodeJS.Signals): Promise<number> {
  const child = spawn(command[0]!, command.slice(1), { stdio: 'ignore' })
  await sleep(300)
  const start = performance.now()
  child.kill(signal)
  const [, by] = await once(child, 'exit') as [number | null, NodeJS.Signals | null]
  if (by !== signal) throw new Error(`ended by ${by}`)
  return performance.now() - start
}

const options = { skip: missing('emulated') }

t.test('a read that waits in the device ends with SIGINT and with SIGKILL', options, async t => {
  // without a page cache every read(2) is a READ that the kernel lets signals interrupt
  await withFaults(t, { cache: 'never' }, async ({ faults, dir, trace }) => {
    faults.delay('READ', 20_000)
    for (const signal of ['SIGINT', 'SIGKILL'] as const) {
      const ms = await killed(['dd', `if=${join(dir, 'a')}`, 'of=/dev/null', 'bs=4k', 'count=1'], signal)
      t.ok(ms < 2000, `${signal}: after ${Math.round(ms)} ms`)
    }
    faults.delay('READ', 0)
    t.equal((await readFile(join(dir, 'a'))).length, 100_000, 'and the next one is answered')
    await sleep(50)
    t.ok(trace().filter(record => record.op === 'INTERRUPT').length >= 2, 'INTERRUPT went to the device')
  })
})

t.test('a caller whose request is never answered can be killed, and nothing else is held up', options, async t => {
  await withFaults(t, { cache: 'never' }, async ({ faults, dir }) => {
    for (const opcode of ['STATFS', 'LOOKUP', 'OPEN', 'READ', 'GETATTR']) {
      faults.dropNext(opcode)
      const command = opcode === 'STATFS' ? ['stat', '-f', dir] : ['cat', join(dir, 'a')]
      const ms = await killed(command, 'SIGKILL')
      t.ok(ms < 2000, `${opcode}: after ${Math.round(ms)} ms`)
      t.equal((await stat(join(dir, 'a'))).size, 100_000)
    }
  })
})

t.test('a slow request holds up nobody else', options, async t => {
  await withFaults(t, { cache: 'never' }, async ({ faults, dir }) => {
    faults.delay('READ', 1000)
    const slow = readFile(join(dir, 'a'))
    await sleep(100)
    const start = performance.now()
    for (let i = 0; i < 20; i++) await stat(join(dir, 'a'))
    t.ok(performance.now() - start < 500, `20 stats in ${Math.round(performance.now() - start)} ms`)
    await slow
  })
})

t.test('slow requests hold up no other slow one', options, async t => {
  await withFaults(t, { cache: 'never' }, async ({ faults, dir }) => {
    const file = await open(join(dir, 'a'), 'r+')
    // the first ones have to wait for their threads to start
    faults.delay('READ', 300)
    for (let tries = 0, ms = Infinity; ms > 1000 && tries < 10; tries++) {
      const start = performance.now()
      await Promise.all(Array.from({ length: 4 }, async () => await readFile(join(dir, 'a'))))
      ms = performance.now() - start
    }
    faults.delay('READ', 6000)
    const slow = Array.from({ length: 3 }, () => spawn('cat', [join(dir, 'a')], { stdio: 'ignore' }))
    await sleep(500)
    for (let i = 0; i < 3; i++) {
      const start = performance.now()
      await file.sync()
      t.ok(performance.now() - start < 3000, `fsync in ${Math.round(performance.now() - start)} ms`)
    }
    faults.delay('READ', 0)
    for (const child of slow) child.kill('SIGKILL')
    await file.close()
  })
})

t.test('failNext fails so many requests', options, async t => {
  await withFaults(t, { cache: 'never' }, async ({ faults, dir }) => {
    faults.failNext('OPEN', constants.errno.EIO, 2)
    await t.rejects(readFile(join(dir, 'a')), { code: 'EIO' })
    await t.rejects(readFile(join(dir, 'a')), { code: 'EIO' })
    t.equal((await readFile(join(dir, 'a'))).length, 100_000)
  })
})

for (const peer of PEERS) {
  t.test(`${peer}: a program that gets signals all the time writes on`, { skip: missing(peer) }, async t => {
    await withMount(t, { peer }, async ({ dir, source }) => {
      // dd reports on SIGUSR1 and goes on; every write waits for the disk
      const dd = new Program(['dd', 'if=/dev/zero', `of=${join(dir, 'out')}`, 'bs=4k', 'count=400', 'oflag=sync'], { env: { ...process.env, LC_ALL: 'C' } })
      // before it listens to the signal it would end by it
      while (dd.alive && !/SigCgt:\s*[0-9a-f]*[2367abef][0-9a-f]{2}$/m.test(status(dd.pid))) await sleep(1)
      while (dd.alive) {
        signal(dd.pid, 'SIGUSR1')
        await sleep(1)
      }
      t.strictSame(dd.exit, { code: 0, signal: null }, dd.stderr.slice(-200))
      t.equal((await stat(join(source, 'out'))).size, 400 * 4096)
    })
  })
}

function status(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/status`, 'latin1')
  } catch {
    return ''
  }
}
