/** Backends that die or stop: callers get errors, the mount can be unmounted, nothing is left. */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { readFile, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { mount } from '../../lib/index.js'
import { BACKENDS, missing, noKernel, peerPath } from '../support/peers.js'
import { RogueDevice, type Misdeed } from '../support/rogue-device.js'
import { withMount } from '../support/mounts.js'
import { processTree, Program, signal, within } from '../support/program.js'
import { clearMount } from '../support/stuck.js'

/** Processes whose command line has these words. */
function running(words: string): number[] {
  return readdirSync('/proc').filter(name => /^\d+$/.test(name)).map(Number).filter(pid => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes(words)
    } catch {
      return false
    }
  })
}

for (const peer of BACKENDS) {
  t.test(`${peer} is killed while a program waits for it`, { skip: missing(peer) }, async t => {
    await withMount(t, { peer, rough: true, files: source => writeFileSync(join(source, 'file'), 'x'.repeat(100_000)) }, async live => {
      const { dir, backend, bridge } = live
      const pids = processTree(backend!.pid)
      for (const pid of pids) signal(pid, 'SIGSTOP')
      const cat = new Program(['cat', join(dir, 'file')], { env: { ...process.env, LC_ALL: 'C' } })
      t.equal(await cat.endsWithin(500), undefined, 'it waits')
      const startMs = performance.now()
      for (const pid of pids) signal(pid, 'SIGKILL')
      t.match(await cat.endsWithin(10_000), { code: 1 })
      t.comment(`answered after ${(performance.now() - startMs).toFixed(0)} ms`)
      await cat.closed
      t.match(cat.stderr, /Input\/output error/)
      t.equal(await within(10_000, stat(join(dir, 'other')).catch((error: NodeJS.ErrnoException) => error.code)), 'ENOTCONN', 'later operations fail at once')
      t.equal(await live.unmount(), 0)
      t.match(bridge.stderr, /the backend closed its socket; operations fail until it is unmounted/)
    })
  })
}

const MISDEEDS: [Misdeed, RegExp][] = [
  ['closes its socket', /^the backend closed its socket$/],
  ['breaks its ring', /^the device broke a ring: used descriptor id \d+ is not in flight$/],
  ['stops answering', /^the device did not answer STATFS within 1 s$/],
]

for (const [misdeed, reason] of MISDEEDS) {
  t.test(`a device that ${misdeed}`, { skip: noKernel() }, async t => {
    const base = mkdtempSync(join(tmpdir(), 'vfb-'))
    const [socket, dir] = [join(base, 'sock'), join(base, 'mnt')]
    mkdirSync(dir)
    const device = new RogueDevice(socket, misdeed)
    try {
      const mounted = await mount({ source: `unix:${socket}`, mountpoint: dir, options: { timeout: 1, queues: 1 } })
      const gone = new Promise<number>(resolve => mounted.on('gone', () => resolve(performance.now())))
      const waits = Array.from({ length: 3 }, () => new Program(['stat', '-f', dir], { env: { ...process.env, LC_ALL: 'C' } }))
      for (const one of waits) {
        t.match(await within(20_000, one.closed), { code: 1 }, 'a caller got an error')
        t.match(one.stderr, /Input\/output error|Transport endpoint is not connected/)
      }
      // told after the callers were answered
      const goneMs = await within(5000, gone) ?? NaN
      t.comment(`the device was given up ${(goneMs - device.atMs).toFixed(0)} ms after its misdeed`)
      t.ok(waits.some(({ stderr }) => /Input\/output error/.test(stderr)), 'what was in flight failed with EIO')
      t.match(mounted.gone, reason)
      t.equal(await within(10_000, stat(join(dir, 'x')).catch((error: NodeJS.ErrnoException) => error.code)), 'ENOTCONN', 'later operations fail at once')
      t.equal(await within(10_000, mounted.unmount().then(() => 'unmounted')), 'unmounted')
    } finally {
      t.notOk(await clearMount(dir), 'nothing is mounted')
      await device.end()
      rmSync(base, { recursive: true, force: true })
    }
  })
}

for (const peer of BACKENDS) {
  t.test(`${peer} stops: with timeout it counts as gone`, { skip: missing(peer) }, async t => {
    await withMount(t, { peer, rough: true, options: ['timeout=1'], files: source => writeFileSync(join(source, 'file'), 'x'.repeat(100_000)) }, async live => {
      const { dir, backend, bridge } = live
      t.equal((await readFile(join(dir, 'file'))).length, 100_000)
      await sleep(1500)
      t.equal((await readFile(join(dir, 'file'))).length, 100_000, 'no request, no deadline')
      const pids = processTree(backend!.pid)
      for (const pid of pids) signal(pid, 'SIGSTOP')
      const startMs = performance.now()
      const cat = new Program(['stat', join(dir, 'other')], { env: { ...process.env, LC_ALL: 'C' } })
      t.match(await within(20_000, cat.closed), { code: 1 })
      t.comment(`answered after ${(performance.now() - startMs).toFixed(0)} ms`)
      t.match(cat.stderr, /Input\/output error/)
      t.equal(await within(10_000, stat(join(dir, 'more')).catch((error: NodeJS.ErrnoException) => error.code)), 'ENOTCONN')
      t.equal(await live.unmount(), 0)
      t.match(bridge.stderr, /the device did not answer [A-Z]+ within 1 s; operations fail until it is unmounted/)
      for (const pid of pids) signal(pid, 'SIGKILL')
    })
  })
}

t.test('a virtiofsd of ours that is stopped: an abort ends the mount, and it', { skip: missing('virtiofsd-rust') }, async t => {
  const base = mkdtempSync(join(tmpdir(), 'vfb-'))
  const [source, dir] = [join(base, 'src'), join(base, 'mnt')]
  mkdirSync(source)
  mkdirSync(dir)
  try {
    const mounted = await mount({ source, mountpoint: dir, options: { backend: 'virtiofsd', virtiofsd: peerPath('virtiofsd-rust'), mountTimeout: 1 } })
    const pids = running(`--shared-dir=${source}`)
    t.ok(pids.length > 1, 'the process that serves is a child of the one that was started')
    for (const pid of pids) signal(pid, 'SIGSTOP')
    const waits = readFile(join(dir, 'file')).catch((error: NodeJS.ErrnoException) => error.code)
    t.equal(await within(30_000, mounted.unmount({ abort: true }).then(() => 'unmounted')), 'unmounted')
    t.match(await within(5000, waits), /^(ECONNABORTED|ENOTCONN)$/, 'its caller got an error')
    t.strictSame(running(`--shared-dir=${source}`), [], 'no virtiofsd is left')
  } finally {
    for (const pid of running(`--shared-dir=${source}`)) signal(pid, 'SIGKILL')
    t.notOk(await clearMount(dir), 'unmounted')
    rmSync(base, { recursive: true, force: true })
  }
})
