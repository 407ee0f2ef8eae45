/**
 * Each system call of lib/sys made to fail, once, at its first uses and at some of the others.
 *
 *   node dist/test/campaigns/faults.js [--peer=emulated|own] [--first=6] [--spread=4] [--only=CALL,…]
 *
 * `own`: over a virtiofsd that the bridge starts. Exit code 1 when there were findings.
 */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { errno, errnoName } from '../../lib/errors.js'
import { missing, noKernel, peerPath } from '../support/peers.js'
import { ensureFusectl } from '../support/stuck.js'
import { CALLS, FaultBench, places, THREADS, type Verdict } from './fault-matrix.js'

const { values } = parseArgs({
  options: { peer: { type: 'string', default: 'emulated' }, first: { type: 'string', default: '6' }, spread: { type: 'string', default: '4' }, only: { type: 'string' } },
})
const reason = values.peer === 'own' ? missing('virtiofsd-rust') : noKernel()
if (reason) {
  console.log(`faults: ${reason}`)
  process.exit(0)
}
if (process.env['FAULTS_ALONE'] === undefined) {
  const { status } = spawnSync('unshare', ['--mount', '--propagation', 'private', process.execPath, ...process.argv.slice(1)], { stdio: 'inherit', env: { ...process.env, FAULTS_ALONE: '1' } })
  process.exit(status ?? 1)
}
await ensureFusectl()
const base = mkdtempSync(join(tmpdir(), 'vfb-faults-'))
const bench = new FaultBench(base, values.peer === 'own' ? ['backend=virtiofsd', `virtiofsd=${peerPath('virtiofsd-rust')}`, 'cache=never'] : ['cache=never'])
const start = performance.now()
const seen = new Map<string, number>()
let cases = 0
let fired = 0
let failures = 0

function tell({ fault, findings, seen: what }: Verdict): void {
  const name = `${fault.name} in ${fault.threads}, use ${fault.n}, ${fault.error === 'half' ? 'half' : errnoName(fault.error)}`
  if (findings.length === 0) return
  failures++
  console.log(`FINDING ${name}: ${findings.join('; ')}${what === '' ? '' : ` [seen: ${what}]`}`)
}

for (const [name, errors] of Object.entries(CALLS)) {
  if (values.only !== undefined && !values.only.split(',').includes(name)) continue
  for (const threads of THREADS) {
    const counting = await bench.run({ name, threads, n: 2 ** 30, error: errno.EIO })
    tell(counting)
    for (const error of errors) {
      for (const n of places(counting.uses, Number(values.first), Number(values.spread))) {
        const verdict = await bench.run({ name, threads, n, error })
        cases++
        if (verdict.fired) fired++
        const kind = verdict.seen === '' ? 'nothing seen' : verdict.seen.startsWith('mount') ? 'the mount fails' : verdict.seen.includes('unmount') ? 'an unmount fails' : 'an operation fails'
        seen.set(kind, (seen.get(kind) ?? 0) + 1)
        tell(verdict)
      }
    }
  }
}
await bench.end()
rmSync(base, { recursive: true, force: true })
console.log(`faults ${values.peer}: ${cases} cases, ${fired} fired, ${[...seen].map(([kind, count]) => `${count} ${kind}`).join(', ')}; ${failures} findings; ${Math.round((performance.now() - start) / 1000)} s`)
process.exit(failures > 0 ? 1 : 0)
