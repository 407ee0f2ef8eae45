/** `virtiofs-bridge doctor`: what this machine lacks, which mounts are not well, and what to do about it. */
import type { Finding } from './doctor-report.js'
import { lookAtSystem } from './doctor-system.js'
import { ExitCode } from './exit-codes.js'
import { withProgress } from './progress.js'
import { alarm, assent, emphasis } from './terminal.js'

const NEEDED = new Set(['system calls', 'runtime directory'])

/** @param fix unmount what is dead @returns the exit code: SYSTEM when mounting does not work, FAILURE when a mount is not well */
export async function doctorCommand({ json, fix }: { json: boolean, fix: boolean }): Promise<number> {
  const system = await withProgress('looking', lookAtSystem())
  // what looks at mounts needs system calls and a runtime directory
  const possible = !system.some(({ check, state }) => state === 'problem' && NEEDED.has(check))
  const mounts = possible ? await withProgress('asking the mounts', (await import('./doctor-mounts.js')).lookAtMounts(fix)) : []
  const findings = [...system, ...mounts]
  if (json) console.log(JSON.stringify(findings, null, 2))
  else print(findings)
  if (system.some(({ state }) => state === 'problem')) return ExitCode.SYSTEM
  return mounts.some(({ state }) => state === 'problem') ? ExitCode.FAILURE : ExitCode.OK
}

const MARKS: Record<Finding['state'], string> = { ok: 'ok', note: 'note', warning: 'warning', problem: 'PROBLEM' }

function print(findings: Finding[]): void {
  const width = Math.max(...Object.values(MARKS).map(text => text.length))
  for (const { check, state, found, advice } of findings) {
    const mark = MARKS[state].padEnd(width)
    console.log(`${state === 'ok' ? assent(mark) : state === 'note' ? mark : alarm(mark)}  ${emphasis(check)}: ${found}`)
    if (advice !== '') console.log(`${' '.repeat(width)}  → ${advice}`)
  }
}
