/**
 * The bridge killed at random moments: while it mounts, serves, unmounts.
 *
 *   node dist/test/campaigns/deaths.js [--kills=200] [--seed=N]
 *
 * Exit code 1 when there were findings; kill number K of a seed is repeated by `--first=K --kills=1`.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { missing, noKernel, peerPath } from '../support/peers.js'
import { SeededRandom } from '../support/seeded-random.js'
import { ensureFusectl } from '../support/stuck.js'
import { dieOnce, MOMENTS } from './death-cycle.js'

const { values } = parseArgs({ options: { kills: { type: 'string', default: '200' }, seed: { type: 'string', default: '1' }, first: { type: 'string', default: '0' } } })
const reason = noKernel()
if (reason) {
  console.log(`deaths: ${reason}`)
  process.exit(0)
}
await ensureFusectl()
const devices = [[], ...missing('virtiofsd-rust') ? [] : [['backend=virtiofsd', `virtiofsd=${peerPath('virtiofsd-rust')}`]], ...missing('virtiofsd-c') ? [] : [['backend=virtiofsd', `virtiofsd=${peerPath('virtiofsd-c')}`]]]
const base = mkdtempSync(join(tmpdir(), 'vfb-deaths-'))
const counts = new Map<string, number>()
const start = performance.now()
const first = Number(values.first)
let failures = 0
for (let kill = first; kill < first + Number(values.kills); kill++) {
  const random = new SeededRandom(Number(values.seed) * 100_000 + kill)
  const moment = MOMENTS[kill % MOMENTS.length]!
  const options = devices[random.below(devices.length)]!
  const death = await dieOnce(random, join(base, `kill-${kill}-`), moment, options)
  const kind = `${moment}: ${death.left}, then ${death.then}`
  counts.set(kind, (counts.get(kind) ?? 0) + 1)
  if (death.findings.length === 0) continue
  failures++
  console.log(`FINDING kill ${kill} (${options.join(',') || 'emulated'}, ${kind}): ${death.findings.join('; ')}`)
}
rmSync(base, { recursive: true, force: true })
console.log(`deaths: seed ${values.seed}, ${values.kills} kills, ${[...counts].map(([kind, count]) => `${count} ${kind}`).join('; ')}; ${failures} findings; ${Math.round((performance.now() - start) / 1000)} s`)
process.exit(failures > 0 ? 1 : 0)
