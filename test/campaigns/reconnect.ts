/**
 * A backend that is killed many times under programs that read, write, append with fsync, make and
 * remove names, and clone with git: nothing may fail, and all that was acknowledged is there.
 *
 *     node dist/test/campaigns/reconnect.js [--kills 50] [--seed 1] [--peer virtiofsd-rust|virtiofsd-c|relay|ssh] [--writeback]
 *
 * With `relay` it is the far end that is killed, with `ssh` the transport to it. Needs root, /dev/fuse,
 * git, and the peers of the tests.
 */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { LiveMount, untilUsable } from '../support/mounts.js'
import { BRIDGE, peerPath, relaySource } from '../support/peers.js'
import { Program } from '../support/program.js'
import { ownBackend, ownTransport, prepareLoad, underKills } from '../support/reconnect-load.js'
import { Sshd } from '../support/sshd.js'
import { clearMount } from '../support/stuck.js'

const { values } = parseArgs({ options: {
  kills: { type: 'string', default: '50' }, seed: { type: 'string', default: '1' }, peer: { type: 'string', default: 'virtiofsd-rust' }, writeback: { type: 'boolean', default: false },
} })

function percentile(sorted: readonly number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? NaN
}

const live = new LiveMount(mkdtempSync(join(tmpdir(), 'vfb-')))
mkdirSync(live.dir)
mkdirSync(live.source)
prepareLoad(live.source)
let code = 1
let sshd: Sshd | undefined

/** The bridge's SOURCE, and the options that go with it. */
async function place(): Promise<[source: string, options: string[]]> {
  if (values.peer === 'relay') return [relaySource(live.source), []]
  if (values.peer !== 'ssh') return [live.source, ['backend=virtiofsd', `virtiofsd=${peerPath(values.peer)}`]]
  sshd = await Sshd.start(join(live.base, 'ssh'))
  return [sshd.url(live.source), [`rsh=${sshd.ssh.join(' ')}`, `relay_command=${BRIDGE.join(' ')}`]]
}

try {
  const [source, how] = await place()
  const options = [...how, 'on_disconnect=wait', `trace_json=${live.traceFile}`, ...values.writeback ? ['writeback'] : []]
  live.bridge = new Program([...BRIDGE, source, live.dir, '-f', '-o', options.join(',')])
  await untilUsable(live.dir, live.bridge)
  const startMs = performance.now()
  const { failures, awayMs, ...figures } = await underKills(live, Number(values.kills), Number(values.seed), values.peer.startsWith('virtiofsd') ? () => ownBackend(live) : ownTransport(live))
  const seconds = ((performance.now() - startMs) / 1000).toFixed(0)
  const exit = await live.unmount()
  awayMs.sort((a, b) => a - b)
  console.log(JSON.stringify({ peer: values.peer, seconds, ...figures, away: { median: percentile(awayMs, 0.5), p90: percentile(awayMs, 0.9), longest: awayMs.at(-1) }, exit }))
  for (const failure of failures) console.log(failure)
  if (failures.length === 0 && exit === 0) code = 0
} finally {
  await clearMount(live.dir)
  await live.bridge?.kill()
  await sshd?.end()
  rmSync(live.base, { recursive: true, force: true })
}
process.exit(code)
