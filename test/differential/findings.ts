/** Plays seeds one after the other; makes what differs short and prints it. */
import { formatOp, type Op } from './operation.js'
import type { Difference } from './play.js'
import type { Session } from './session.js'
import { shrink } from './shrink.js'

export interface Finding {
  seed: number
  difference: Difference
  /** The shortest script found; of what could not be replayed, all of it. */
  script: readonly Op[]
  replayed: boolean
}

const SHRINK_MS = 60_000

/** What kind of difference it is: shrinking must not wander off to another one. */
export function signature(difference: Difference, script: readonly Op[] | undefined): string {
  const { what, path } = difference
  const op = path === undefined && !what.startsWith('stored') ? script?.[difference.steps - 1]?.[0] ?? '' : 'tree'
  return what === 'ret' ? `${op} ${what} ${difference.plain} ${difference.mount}` : `${op} ${what}`
}

/** Makes the script of a difference short, by replaying it in the same session. */
export async function minimise(session: Session, seed: number, difference: Difference, script: readonly Op[]): Promise<Finding> {
  const wanted = signature(difference, script)
  let last = difference
  const fails = async (candidate: readonly Op[]): Promise<boolean> => {
    const played = await session.script(candidate)
    if (!played.difference || signature(played.difference, candidate) !== wanted) return false
    last = played.difference
    return true
  }
  const start = script.slice(0, difference.steps)
  if (!await fails(start)) return { seed, difference, script: start, replayed: false }
  return { seed, script: await shrink(start, fails, performance.now() + SHRINK_MS), difference: last, replayed: true }
}

/** A finding as a case to be pasted into cases.ts. */
export function formatFinding({ seed, difference, script, replayed }: Finding, where: string): string {
  const { what, plain, mount, path, steps } = difference
  const op = path === undefined ? script[steps - 1] : undefined
  return [
    `difference: ${where}: seed ${seed}, step ${steps}: ${what}${path === undefined ? '' : ` of ${JSON.stringify(path)}`}${op ? ` of ${formatOp(op)}` : ''}`,
    `  plain: ${plain}`,
    `  mount: ${mount}`,
    ...replayed ? [] : ['  (not seen again when replayed on fresh directories)'],
    '  {',
    `    name: 'seed ${seed}: ${what}',`,
    '    script: [',
    ...script.slice(replayed ? 0 : -40).map(one => `      ${formatOp(one)},`),
    '    ],',
    '  },',
  ].join('\n')
}

export interface CampaignSettings {
  seed: number
  /** In all. */
  operations: number
  /** Steps per seed. */
  steps: number
  /** By performance.now: no seed is begun later. */
  untilMs: number
  /** @returns whether to go on */
  found: (finding: Finding) => boolean
}

/** Plays seed after seed. @returns how many operations were made */
export async function campaign(session: Session, { seed: first, operations, steps, untilMs, found }: CampaignSettings): Promise<number> {
  let made = 0
  for (let seed = first; made < operations && performance.now() < untilMs; seed++) {
    const played = await session.seed(seed, Math.min(steps, operations - made))
    made += played.steps
    if (!played.difference) continue
    const { difference, script } = played
    const goOn = found(script ? await minimise(session, seed, difference, script) : { seed, difference, script: [], replayed: false })
    if (!goOn || difference.what === 'hang') break
  }
  return made
}
