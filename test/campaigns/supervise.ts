/**
 * The process that serves a mount with a supervisor is killed many times, while it serves and while it
 * starts, under programs that read, write, append with fsync, make and remove names, and clone with
 * git: nothing may fail, all that was acknowledged is there, and nothing is left at the end.
 *
 *     node dist/test/campaigns/supervise.js [--kills 50] [--seed 1] [--device emulated|own|socket] [--writeback]
 *
 * Needs root, /dev/fuse, git, and the peers of the tests.
 */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { LiveMount, untilUsable } from '../support/mounts.js'
import { BRIDGE, peerPath, startBackend } from '../support/peers.js'
import { Program } from '../support/program.js'
import { prepareLoad, underKills } from '../support/reconnect-load.js'
import { eventually } from '../support/scene.js'
import { clearMount } from '../support/stuck.js'
import { keepBackend, Supervised } from '../support/supervised.js'

const { values } = parseArgs({ options: {
  kills: { type: 'string', default: '50' }, seed: { type: 'string', default: '1' }, device: { type: 'string', default: 'emulated' }, writeback: { type: 'boolean', default: false },
} })
const PEER = 'virtiofsd-rust'

function percentile(sorted: readonly number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? NaN
}

const live = new LiveMount(mkdtempSync(join(tmpdir(), 'vfb-')))
const supervised = new Supervised(live.base)
mkdirSync(live.dir)
mkdirSync(live.source)
prepareLoad(live.source)
let code = 1
let stop = (): void => {}
try {
  const options = ['supervise', ...values.device === 'own' ? ['backend=virtiofsd', `virtiofsd=${peerPath(PEER)}`] : [], ...values.writeback ? ['writeback'] : []]
  const socket = join(live.base, 'vhost.sock')
  if (values.device === 'socket') {
    live.backend = startBackend(PEER, live.source, socket)
    stop = keepBackend(live, PEER)
  }
  live.bridge = new Program([...BRIDGE, values.device === 'socket' ? `unix:${socket}` : live.source, live.dir, '-f', '-o', options.join(',')], { env: supervised.env })
  await untilUsable(live.dir, live.bridge)
  const startMs = performance.now()
  const victims = supervised.victims(live, Number(values.seed))
  const { failures, awayMs, ...figures } = await underKills(live, Number(values.kills), Number(values.seed), victims.next, () => supervised.awayMs)
  victims.end()
  stop()
  const seconds = ((performance.now() - startMs) / 1000).toFixed(0)
  const exit = await live.unmount()
  await eventually(() => supervised.leftovers().length === 0, 10_000)
  failures.push(...supervised.leftovers().map(left => `left: ${left}`))
  const sorted = [...awayMs].sort((a, b) => a - b)
  console.log(JSON.stringify({ device: values.device, seed: values.seed, seconds, ...figures, away: { median: percentile(sorted, 0.5), p90: percentile(sorted, 0.9), longest: sorted.at(-1) }, exit }))
  for (const failure of failures) console.log(failure)
  if (failures.length > 0 || exit !== 0) console.log(live.bridge.stderr.split('\n').filter(line => !/goes on$|is back$/.test(line)).join('\n'))
  else code = 0
} finally {
  stop()
  await clearMount(live.dir)
  await live.bridge?.kill()
  rmSync(live.base, { recursive: true, force: true })
}
process.exit(code)
