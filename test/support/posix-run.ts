/** Runs the checks on a directory in a child process, and hands its results on as they come. */
import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import type { CheckReport, CheckResult } from '../posix/run-checks.js'
import { ended, inTime, waitsOf } from './posix-mount.js'

const PROGRAM = fileURLToPath(new URL('../posix/run-checks.js', import.meta.url))
/** No check takes so long. */
const STUCK_MS = 20_000

export interface RunOptions {
  /** The directory that holds the files, when it is another one. */
  backing?: string
  /** Called when a check does not end; must end the calls it hangs in. */
  stuck?: () => void
  result: (result: CheckResult) => void
}

/** Resolves once all checks have run, or one did not end: that one is then the last result. */
export async function runChecks(directory: string, { backing, stuck, result }: RunOptions): Promise<void> {
  const child = spawn(process.execPath, [PROGRAM, directory, '--json', ...backing ? ['--backing', backing] : []], { stdio: ['ignore', 'pipe', 'pipe'] })
  const exit = ended(child)
  let said = ''
  let running = 'start'
  let hung = false
  const onStuck = (): void => {
    hung = true
    const waits = waitsOf(child.pid!)
    stuck?.()
    child.kill('SIGKILL')
    result({ name: running, cites: '', ok: false, error: `not ended after ${STUCK_MS / 1000} s\n${waits}`, ms: STUCK_MS })
  }
  let timer = setTimeout(onStuck, STUCK_MS)
  child.stderr.on('data', chunk => { said += chunk })
  createInterface(child.stdout).on('line', line => {
    if (hung) return
    clearTimeout(timer)
    timer = setTimeout(onStuck, STUCK_MS)
    const report = JSON.parse(line) as CheckReport
    if ('running' in report) running = report.running
    else result(report)
  })
  const closed = new Promise<void>(resolve => child.stdout.once('close', () => resolve()))
  const code = await exit
  await inTime(closed, 1000)
  clearTimeout(timer)
  if (!hung && code !== 0 && code !== 1) result({ name: running, cites: '', ok: false, error: `the process of the checks ended with ${code}\n${said}`, ms: 0 })
}
