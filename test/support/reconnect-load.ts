/** Programs that work on a mount while its backend is killed again and again, and what has to be true afterwards. */
import { spawn, type ChildProcess } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import type { LiveMount } from './mounts.js'
import { processTree, run, signal, within } from './program.js'
import { content, record, type ChildReport } from './reconnect-child.js'
import { SeededRandom } from './seeded-random.js'

const CHILD = fileURLToPath(new URL('./reconnect-child.js', import.meta.url))
const KINDS = ['reader', 'appender', 'writer', 'names'] as const
/** How long a program may need to see that it is to stop, with a backend that is away. */
const END_MS = 60_000
/** What git does takes as long as all the times together in which it is away. */
const GIT_MS = 300_000

export interface LoadResult {
  kills: number
  clones: number
  /** How often each program did its work. */
  done: Record<string, number>
  failures: string[]
  /** How long the backend was away each time, in milliseconds. */
  awayMs: number[]
}

class LoadProgram {
  readonly kind: string
  readonly #child: ChildProcess
  readonly #ended: Promise<void>
  #said = ''

  constructor(kind: string, dir: string) {
    this.kind = kind
    const { NODE_OPTIONS: _, ...env } = process.env
    this.#child = spawn(process.execPath, [CHILD, kind, dir], { stdio: ['pipe', 'pipe', 'inherit'], env })
    this.#child.stdout!.setEncoding('utf8').on('data', (text: string) => { this.#said += text })
    this.#ended = new Promise(resolve => this.#child.once('close', () => resolve()))
  }

  /** Lets it end. */
  async report(): Promise<ChildReport> {
    this.#child.stdin!.end()
    if (await within(END_MS, this.#ended.then(() => true)) === undefined) {
      this.#child.kill('SIGKILL')
      return { done: 0, failures: [`it has not ended after ${END_MS / 1000} s`] }
    }
    return this.#said === '' ? { done: 0, failures: ['it has ended early'] } : JSON.parse(this.#said) as ChildReport
  }
}

/** Puts what the programs need into the shared directory. */
export function prepareLoad(source: string): void {
  for (let i = 0; i < 4; i++) writeFileSync(join(source, `read${i}`), content(i))
  mkdirSync(join(source, 'clones'))
}

/** A repository to clone, outside of the mount. */
async function makeOrigin(base: string, env: NodeJS.ProcessEnv): Promise<string> {
  const origin = join(base, 'origin')
  mkdirSync(origin)
  const git = (...args: string[]): Promise<string> => run(['git', ...args], { cwd: origin, env })
  await git('init', '-q', '-b', 'main')
  for (let i = 0; i < 120; i++) {
    mkdirSync(join(origin, `d${i % 10}`), { recursive: true })
    writeFileSync(join(origin, `d${i % 10}`, `file ${i}.txt`), `${i}\n`.repeat(i * 7 % 900))
  }
  await git('add', '.')
  await git('commit', '-q', '-m', 'first')
  return origin
}

async function clones(live: LiveMount, stop: { now: boolean }, failures: string[]): Promise<number> {
  const env = {
    ...process.env, HOME: live.base, GIT_CONFIG_NOSYSTEM: '1', GIT_TERMINAL_PROMPT: '0', GIT_AUTHOR_NAME: 'a', GIT_AUTHOR_EMAIL: 'a@example.org',
    GIT_COMMITTER_NAME: 'a', GIT_COMMITTER_EMAIL: 'a@example.org',
  }
  const origin = await makeOrigin(live.base, env)
  let count = 0
  try {
    for (; !stop.now || count === 0; count++) {
      const clone = join(live.dir, 'clones', String(count))
      await run(['git', 'clone', '-q', '--no-local', origin, clone], { cwd: live.dir, env, timeoutMs: GIT_MS })
      const status = await run(['git', 'status', '--porcelain'], { cwd: clone, env, timeoutMs: GIT_MS })
      if (status !== '') failures.push(`clone ${count} is not clean: ${status}`)
      await run(['git', 'fsck', '--strict'], { cwd: clone, env, timeoutMs: GIT_MS })
    }
  } catch (error) {
    failures.push(`clone ${count}: ${(error as Error).message}`)
  }
  return count
}

/**
 * Lets all programs work, and kills the backend `kills` times meanwhile.
 *
 * @param backend its processes at this moment
 * @param away how long it was away each time; default: as the trace has it
 */
export async function underKills(live: LiveMount, kills: number, seed: number, backend: () => number[], away?: () => number[]): Promise<LoadResult> {
  const random = new SeededRandom(seed)
  const result: LoadResult = { kills: 0, clones: 0, done: {}, failures: [], awayMs: [] }
  const { failures } = result
  const programs = KINDS.map(kind => new LoadProgram(kind, live.dir))
  const stop = { now: false }
  const cloning = clones(live, stop, failures)
  await sleep(700)
  while (result.kills < kills && failures.length === 0) {
    await sleep(random.between(50, 700))
    const pids = backend()
    if (pids.length === 0) continue
    for (const pid of pids) signal(pid, 'SIGKILL')
    result.kills++
  }
  await sleep(500)
  stop.now = true
  for (const program of programs) {
    const { done, failures: wrong } = await program.report()
    result.done[program.kind] = done
    failures.push(...wrong.map(text => `${program.kind}: ${text}`))
  }
  result.clones = await cloning
  checkRecords(live, result.done['appender']!, failures)
  result.awayMs = away ? away() : live.trace().filter(({ event }) => event === 'found').map(({ ms }) => Number(ms))
  return result
}

/** Every record that an fsync acknowledged is in the shared directory, once and in order. */
function checkRecords(live: LiveMount, acknowledged: number, failures: string[]): void {
  const found = readFileSync(join(live.source, 'appended'), 'utf8')
  const expected = Array.from({ length: acknowledged }, (_, i) => record(i)).join('')
  if (found.startsWith(expected)) return
  const lines = found.split('\n')
  const first = lines.findIndex((line, i) => `${line}\n` !== record(i))
  failures.push(`${acknowledged} records were acknowledged; line ${first} is "${lines.slice(first, first + 2).map(line => line.slice(0, 80)).join('", "')}"`)
}

/** The processes of a virtiofsd that the bridge has started. */
export function ownBackend(live: LiveMount): number[] {
  return processTree(live.pid).slice(1)
}

/**
 * The processes of a transport to a far end, which takes longer to start than kills are apart: mostly
 * none while it is away, so that it comes back in between.
 */
export function ownTransport(live: LiveMount): () => number[] {
  const random = new SeededRandom(1)
  return () => {
    const away = live.trace().filter(({ event }) => event === 'lost').length > live.trace().filter(({ event }) => event === 'found').length
    return away && random.below(16) > 0 ? [] : ownBackend(live)
  }
}
