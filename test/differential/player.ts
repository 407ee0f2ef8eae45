/**
 * The process that touches the mount: reads requests as lines of JSON, plays them, answers with
 * lines of JSON. What hangs or dies here leaves the mount's server and the fuzzer alone.
 *
 *     player.js PLAIN MOUNT [BACKING]
 */
import { writeSync } from 'node:fs'
import { createInterface } from 'node:readline'
import type { Abilities } from './generator.js'
import type { Op } from './operation.js'
import { Pair, playScript, playSeed, type Difference } from './play.js'

export interface Request {
  /** A name for the directories that no other request has. */
  name: string
  abilities: Abilities
  seed?: number
  steps?: number
  script?: readonly Op[]
  /** Announce every step, so that one which never ends is known. */
  announce?: boolean
}

export interface Answer {
  /** A sign of life: steps made so far. */
  at?: number
  done?: { difference: Difference | undefined, script: readonly Op[] | undefined, steps: number }
  error?: string
}

const SIGN_EVERY = 200

const [plain, mount, backing] = process.argv.slice(2) as [string, string, string?]

function answer(message: Answer): void {
  writeSync(1, `${JSON.stringify(message)}\n`)
}

function play({ name, seed, steps, abilities, script, announce }: Request): void {
  const pair = new Pair({ plain, mount, backing }, name, abilities.writeback)
  const watch = { before: (at: number) => { if (announce || at % SIGN_EVERY === 0) answer({ at }) } }
  try {
    if (script) {
      const difference = playScript(pair, script, watch)
      answer({ done: { difference, script: undefined, steps: pair.steps } })
    } else {
      const played = playSeed(pair, seed!, steps!, abilities, watch)
      answer({ done: { difference: played.difference, script: played.difference && played.script, steps: pair.steps } })
    }
  } finally {
    pair.end()
  }
}

for await (const line of createInterface(process.stdin)) {
  try {
    play(JSON.parse(line) as Request)
  } catch (error) {
    answer({ error: (error as Error).stack ?? String(error) })
  }
}
