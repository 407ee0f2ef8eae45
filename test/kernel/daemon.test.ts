/** A mount in the background: what it logs and where, and its end when nobody uses it. */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { open, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { liveMounts } from '../../lib/mount/live-tags.js'
import { findMount } from '../../lib/mount/mountinfo.js'
import { DatagramReceiver } from '../support/datagram-receiver.js'
import { MountNamespace } from '../support/mount-namespace.js'
import { type LiveMount, withMount } from '../support/mounts.js'
import { BRIDGE, missing, noProgram } from '../support/peers.js'
import { run, runToEnd } from '../support/program.js'

const skip = missing('emulated')

t.test('log=FILE', { skip }, async t => {
  const base = mkdtempSync(join(tmpdir(), 'daemon-'))
  const [source, mountpoint, log] = [join(base, 'source'), join(base, 'mount'), join(base, 'log')]
  mkdirSync(source)
  mkdirSync(mountpoint)
  try {
    t.match(await runToEnd([...BRIDGE, source, mountpoint, '-o', `log=${log}`]), { exit: { code: 0 }, stdout: '', stderr: '' })
    const pid = liveMounts().find(live => live.mountpoint === mountpoint)!.pid
    const holder = await open(mountpoint, 'r')
    process.kill(pid, 'SIGTERM')
    while (!readFileSync(log, 'utf8').includes('in use')) await sleep(20)
    await holder.close()
    while (!readFileSync(log, 'utf8').includes('ended')) await sleep(20)
    const lines = readFileSync(log, 'utf8').trimEnd().split('\n')
    t.match(lines.map(line => line.replace(/^\d{4}-\d\d-\d\dT[\d:.]+Z /, '')), [
      `virtiofs-bridge[${pid}]: ${mountpoint}: ${source} is mounted`,
      new RegExp(`^virtiofs-bridge\\[${pid}\\]: warning: ${mountpoint}: ${mountpoint} is in use; detaching it`),
      `virtiofs-bridge[${pid}]: ${mountpoint}: ended`,
    ])
    t.match(await runToEnd([...BRIDGE, source, mountpoint, '-o', `log=${base}/no/where`]), { exit: { code: 32 }, stderr: `virtiofs-bridge: option log=${base}/no/where: no such file or directory (ENOENT)\n` }, 'not to be opened: no mount')
    t.equal(findMount(mountpoint), undefined)
  } finally {
    rmSync(base, { recursive: true })
  }
})

t.test('log=syslog, log=journal', { skip: skip || noProgram('unshare') || noProgram('nsenter') }, async t => {
  const base = mkdtempSync(join(tmpdir(), 'daemon-'))
  const [source, mountpoint] = [join(base, 'source'), join(base, 'mount')]
  for (const path of [source, mountpoint]) mkdirSync(path)
  const namespace = await MountNamespace.create()
  const receivers: DatagramReceiver[] = []
  try {
    await namespace.privatise('/dev', base)
    await namespace.privatise('/run', base)
    await namespace.run(['mkdir', '-p', '/run/systemd/journal'])
    await namespace.run(['rm', '-f', '/dev/log', '/run/systemd/journal/socket'])
    for (const where of ['syslog', 'journal']) {
      t.match(await namespace.try([...BRIDGE, source, mountpoint, '-o', `log=${where}`]), { exit: { code: 32 }, stderr: /^virtiofs-bridge: option log=\w+: there is no \// }, `no ${where}`)
    }
    const syslog = new DatagramReceiver(namespace.path('/dev/log'))
    receivers.push(syslog)
    const journal = new DatagramReceiver(namespace.path('/run/systemd/journal/socket'))
    receivers.push(journal)
    const expected = [`${mountpoint}: ${source} is mounted`, `${mountpoint}: ended`]
    for (const [options, receiver, form] of [
      [['-o', 'log=syslog'], syslog, /^<30>virtiofs-bridge\[\d+\]: (.*)$/], [[], syslog, /^<30>virtiofs-bridge\[\d+\]: (.*)$/],
      [['-o', 'log=journal'], journal, /^PRIORITY=6\nSYSLOG_IDENTIFIER=virtiofs-bridge\nSYSLOG_PID=\d+\nMESSAGE=(.*)\n$/],
    ] as const) {
      t.match(await namespace.try([...BRIDGE, source, mountpoint, ...options]), { exit: { code: 0 }, stderr: '' })
      await namespace.run([...BRIDGE, 'umount', mountpoint])
      const received: string[] = []
      for (let tries = 0; received.length < 2 && tries < 200; tries++) {
        received.push(...receiver.received())
        await sleep(20)
      }
      t.strictSame(received.map(text => form.exec(text)?.[1]), expected, options.join(' ') || 'syslog is the default')
    }
  } finally {
    await namespace.try(['umount', '-l', mountpoint])
    await namespace.end()
    for (const receiver of receivers) receiver.close()
    rmSync(base, { recursive: true })
  }
})

/** How often the threads of a process have gone to sleep. */
function sleeps(pid: number): number {
  return readdirSync(`/proc/${pid}/task`).map(task => readFileSync(`/proc/${pid}/task/${task}/status`, 'utf8'))
    .reduce((sum, text) => sum + Number(/^voluntary_ctxt_switches:\s*(\d+)$/m.exec(text)![1]), 0)
}

t.test('idle_timeout', { skip }, async t => {
  await withMount(t, { peer: 'emulated', options: ['idle_timeout=1.2'], files: source => writeFileSync(join(source, 'a'), 'a') }, async live => {
    for (let i = 0; i < 12; i++) {
      await stat(join(live.dir, `nothing${i}`)).catch(() => {})
      await sleep(200)
    }
    t.ok(live.mounted, 'stays while it is used')
    const file = await open(join(live.dir, 'a'), 'r')
    await sleep(2500)
    t.ok(live.mounted, 'and while a file is open')
    const closedMs = performance.now()
    await file.close()
    t.match(await live.bridge.endsWithin(20_000), { code: 0 }, 'then it ends')
    t.ok(performance.now() - closedMs > 1000, 'not at once')
    t.notOk(live.mounted)
  })
  await withMount(t, { peer: 'emulated', options: ['idle_timeout=8'] }, async (live: LiveMount) => {
    await run(['stat', '-f', live.dir])
    await sleep(1500)
    const before = sleeps(live.pid)
    await sleep(2500)
    const woken = sleeps(live.pid) - before
    t.ok(woken < 20, `an idle mount is left alone: ${woken} wake-ups in 2.5 s`)
  })
})
