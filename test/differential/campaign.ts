/**
 * The long campaign: the same random operations on every kind of mount and on a plain directory.
 *
 *     node dist/test/differential/campaign.js [--operations=1000000] [--seed=N] [--mounts=REGEXP]
 *         [--steps=2000] [--seconds=S] [--findings=10] [--script=FILE] [--list]
 *
 * The operations are spread over the kinds of mount whose name matches (`--list` names them).
 * Each seed is a fresh directory and `--steps` operations. Without `--seed` it is a random one.
 * What differs is made short by leaving steps out, and printed as a case for cases.ts; `--script`
 * plays the steps between the brackets of such a case, from a file. It ends after `--seconds`, or
 * after so many findings. Exit code 1 when anything differed.
 */
import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { runInNewContext } from 'node:vm'
import { campaign, formatFinding, signature } from './findings.js'
import { mountKinds, plain, type MountKind } from './mounts.js'
import type { Op } from './operation.js'
import { Session } from './session.js'

const { values } = parseArgs({
  options: {
    operations: { type: 'string', default: '1000000' },
    seed: { type: 'string', default: String(Math.floor(Math.random() * 1_000_000)) },
    mounts: { type: 'string', default: '' },
    steps: { type: 'string', default: '2000' },
    seconds: { type: 'string', default: '3600' },
    findings: { type: 'string', default: '10' },
    script: { type: 'string' },
    list: { type: 'boolean' },
  },
})

let findings = 0
/** How often a kind of difference was found. */
const kinds = new Map<string, number>()

async function onKind(kind: MountKind, operations: number, untilMs: number): Promise<number> {
  const session = await Session.start(kind)
  const startMs = performance.now()
  try {
    const made = await campaign(session, {
      seed: Number(values.seed), steps: Number(values.steps), operations, untilMs,
      found: finding => {
        findings++
        const what = signature(finding.difference, finding.script)
        const before = kinds.get(what) ?? 0
        kinds.set(what, before + 1)
        console.log(before < 2 ? formatFinding(finding, kind.name) : `difference again: ${kind.name}: seed ${finding.seed}: ${what}`)
        return findings < Number(values.findings)
      },
    })
    console.log(`${kind.name}: ${made} operations, ${(made / (performance.now() - startMs) * 1000).toFixed(0)} a second`)
    return made
  } finally {
    await session.end()
  }
}

async function playScript(kind: MountKind, file: string): Promise<void> {
  const script = runInNewContext(`[${readFileSync(file, 'utf8')}]`) as Op[]
  const session = await Session.start(kind)
  const { difference } = await session.script(script)
  await session.end()
  if (difference) findings++
  console.log(difference ? formatFinding({ seed: 0, difference, script, replayed: true }, kind.name) : `${kind.name}: no difference`)
}

const chosen = [plain, ...mountKinds].filter(({ name }) => new RegExp(values.mounts).test(name))
if (values.list) {
  for (const { name } of chosen) console.log(name)
} else if (values.script !== undefined) {
  for (const kind of chosen) await playScript(kind, values.script)
} else {
  const startMs = performance.now()
  console.log(`seed ${values.seed}`)
  let made = 0
  for (const kind of chosen) {
    if (findings < Number(values.findings)) made += await onKind(kind, Math.ceil(Number(values.operations) / chosen.length), startMs + Number(values.seconds) * 1000)
  }
  const seconds = (performance.now() - startMs) / 1000
  console.log(`${made} operations on ${chosen.length} kinds of mount, ${seconds.toFixed(0)} s, ${findings} differences`)
  for (const [what, count] of kinds) console.log(`  ${count} × ${what}`)
}
process.exitCode = findings > 0 ? 1 : 0
