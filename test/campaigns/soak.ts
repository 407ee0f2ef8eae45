/**
 * The soak: mixed load on mounts that come, go and break at random, all in one process that mounts.
 *
 *   node dist/test/campaigns/soak.js [--minutes=30] [--slots=3] [--seed=N] [--peers=emulated,…]
 *
 * In rounds of half a minute. Within a round each slot mounts, works and ends again and again; what
 * ends it is picked by the seed (soak-cycle.ts). Between rounds nothing is mounted, and what the
 * process has in use must be what it was after the first round. Exit code 1 when anything failed.
 */
import { fork, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { readMounts } from '../../lib/mount/mountinfo.js'
import { BACKENDS, missing, noKernel } from '../support/peers.js'
import { processTree, within } from '../support/program.js'
import { SeededRandom } from '../support/seeded-random.js'
import { clearMount, ensureFusectl } from '../support/stuck.js'
import { runCycle, type SoakPeer } from './soak-cycle.js'
import { Host } from './soak-driver.js'
import type { Use } from './soak-host.js'

const ROUND_MS = 30_000

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '30' }, slots: { type: 'string', default: '3' }, seed: { type: 'string', default: String(Date.now() % 1_000_000) },
    peers: { type: 'string' },
  },
})
const reason = noKernel()
if (reason) {
  console.log(`soak: ${reason}`)
  process.exit(0)
}
// in a mount namespace of its own: whoever makes one meanwhile would get copies of these mounts, and keep them alive
if (process.env['SOAK_ALONE'] === undefined) {
  const { status } = spawnSync('unshare', ['--mount', '--propagation', 'private', process.execPath, ...process.argv.slice(1)], { stdio: 'inherit', env: { ...process.env, SOAK_ALONE: '1' } })
  process.exit(status ?? 1)
}
await ensureFusectl()
const peers = (values.peers?.split(',') ?? ['emulated', ...BACKENDS.filter(peer => !missing(peer)), ...missing('virtiofsd-rust') ? [] : ['own']]) as SoakPeer[]
const seed = Number(values.seed)
const base = mkdtempSync(join(tmpdir(), 'vfb-soak-'))
const child = fork(fileURLToPath(new URL('./soak-host.js', import.meta.url)), { execArgv: ['--expose-gc'], env: { ...process.env, XDG_RUNTIME_DIR: base } })
const host = new Host(child)
const failures: string[] = []
const counts = new Map<string, number>()
let acknowledged = 0
let cycles = 0
const uses: Use[] = []

function say(text: string): void {
  console.log(`${new Date().toISOString().slice(11, 19)} ${text}`)
}

function fail(text: string): void {
  failures.push(text)
  say(`FAILED: ${text}`)
}

async function slot(index: number, round: number, endMs: number): Promise<void> {
  for (let cycle = 0; performance.now() < endMs && failures.length === 0; cycle++) {
    const random = new SeededRandom(((seed * 31 + index) * 31 + round) * 31 + cycle)
    const peer = peers[random.below(peers.length)]!
    try {
      const done = await runCycle({ host, random, peer, slot: index, base: join(base, `${index}-${round}-${cycle}`), round })
      counts.set(`${done.peer} ${done.ending}`, (counts.get(`${done.peer} ${done.ending}`) ?? 0) + 1)
      acknowledged += done.acknowledged
      cycles++
    } catch (error) {
      const [line, ...stacks] = (error as Error).message.split('\n')
      fail(`slot ${index} round ${round} cycle ${cycle} ${peer}: ${line}`)
      writeFileSync(join(base, `failure-${index}`), stacks.join('\n'))
    }
  }
}

say(`seed ${seed}, ${values.minutes} minutes, peers ${peers.join()}`)
const endMs = performance.now() + Number(values.minutes) * 60_000
for (let round = 0; performance.now() < endMs && failures.length === 0 && host.alive; round++) {
  const roundEndMs = Math.min(endMs, performance.now() + ROUND_MS)
  await Promise.all(Array.from({ length: Number(values.slots) }, (_, i) => slot(i, round, roundEndMs)))
  if (failures.length > 0 || !host.alive) break
  const use = await host.use()
  uses.push(use)
  say(`round ${round}: ${cycles} cycles, ${acknowledged} records safe; ${use.fds} fds, ${use.threads} threads, ${use.mappings} memfds mapped, ${use.rssMb.toFixed(0)} MB`)
  const [first] = uses
  if (use.fds > first!.fds) fail(`${use.fds - first!.fds} descriptors are left`)
  if (use.threads > first!.threads) fail(`${use.threads - first!.threads} threads are left`)
  if (use.mappings > 0) fail(`${use.mappings} memfds are left mapped`)
  const others = processTree(process.pid).filter(pid => pid !== process.pid && pid !== child.pid)
  if (others.length > 0) fail(`${others.length} processes are left`)
}
if (!host.alive) fail(`the process that mounts has ended: ${child.exitCode ?? child.signalCode}`)
child.disconnect()
await within(5000, new Promise(resolve => child.once('exit', resolve)))
say([...counts].sort().map(([what, count]) => `${what}: ${count}`).join(', '))
say(`${cycles} mounts, ${acknowledged} acknowledged records verified, ${failures.length} failures; `
  + (uses.length > 0 ? `memory ${uses[0]!.rssMb.toFixed(0)} MB after the first round, ${uses.at(-1)!.rssMb.toFixed(0)} MB after the last` : 'no round ended'))
for (const { mountpoint } of readMounts()) if (mountpoint.startsWith(base)) await clearMount(mountpoint)
if (failures.length === 0) rmSync(base, { recursive: true, force: true })
else say(`what was there is in ${base}`)
process.exitCode = failures.length === 0 ? 0 : 1
