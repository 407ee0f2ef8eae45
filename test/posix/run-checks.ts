/**
 * Runs the table of checks on a directory, in a process of its own: whatever a mount does to a
 * system call, its server and the test runner go on.
 *
 *     node dist/test/posix/run-checks.js DIR [--backing DIR] [--only TEXT] [--json] [--list]
 *
 * `--backing` names the directory that holds the files of a mount; features are probed there.
 */
import { chmodSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { probeFeatures } from '../support/posix-features.js'
import { sys } from '../support/posix-sys.js'
import { table } from './table.js'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { backing: { type: 'string' }, only: { type: 'string' }, json: { type: 'boolean' }, list: { type: 'boolean' } },
})

/** A check that ended. */
export interface CheckResult {
  name: string
  cites: string
  ok: boolean
  /** Why it was not run. */
  skip?: string
  /** Why it failed. */
  error?: string
  ms: number
}

/** A line of the output: a check that begins, so that one which never ends has a name, or its result. */
export type CheckReport = CheckResult | { running: string }

function report(result: CheckResult): void {
  if (values.json) {
    process.stdout.write(`${JSON.stringify(result)}\n`)
    return
  }
  const { name, cites, ok, skip, error, ms } = result
  if (!ok) console.log(`not ok ${name} (${cites})\n    ${error!.replaceAll('\n', '\n    ')}`)
  else console.log(`${skip ? 'skip' : 'ok'} ${name}${skip ? ` # ${skip}` : ''}${ms >= 100 ? ` # ${ms.toFixed(0)} ms` : ''}`)
}

function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const frame = error.stack?.split('\n').find(line => line.includes('/test/posix/') && !line.includes('/check.js'))
  return `${error.message}${frame ? `\n${frame.trim()}` : ''}`
}

async function main(): Promise<number> {
  if (values.list) {
    for (const { name, cites } of table) console.log(`${name} (${cites})`)
    return 0
  }
  const directory = positionals[0]
  if (!directory) {
    console.error('usage: run-checks DIR [--backing DIR] [--only TEXT] [--json] [--list]')
    return 2
  }
  process.umask(0o022)
  const features = probeFeatures(values.backing ?? directory)
  const root = mkdtempSync(join(directory, 'posix-'))
  chmodSync(root, 0o755)
  let failed = 0
  let count = 0
  for (const { name, cites, needs, run } of table) {
    if (values.only && !name.includes(values.only)) continue
    const missing = needs?.filter(feature => !features.has(feature)) ?? []
    if (missing.length > 0) {
      report({ name, cites, ok: true, skip: `no ${missing.join(', ')} here`, ms: 0 })
      continue
    }
    if (values.json) process.stdout.write(`${JSON.stringify({ running: name })}\n`)
    const dir = join(root, String(count++))
    mkdirSync(dir)
    chmodSync(dir, 0o777)
    const startMs = performance.now()
    try {
      await run(dir, sys)
      report({ name, cites, ok: true, ms: performance.now() - startMs })
    } catch (error) {
      failed++
      report({ name, cites, ok: false, error: describe(error), ms: performance.now() - startMs })
    }
  }
  try {
    rmSync(root, { recursive: true })
  } catch (error) {
    failed++
    report({ name: 'cleaning up: everything can be removed', cites: 'unlink(2); rmdir(2)', ok: false, error: describe(error), ms: 0 })
  }
  return failed === 0 ? 0 : 1
}

process.exitCode = await main()
