/**
 * Ten thousand orders in which a mount, its device, its callers and its end can meet, each decided
 * by a seed. SEED=N replays one of them; RUNS=N runs as many.
 */
import { readFileSync } from 'node:fs'
import t from 'tap'
import { rewindScratch, scratchMark } from '../../lib/sys/memory.js'
import { interleave } from '../support/interleaving.js'
import { openFds } from '../support/vhost-user-session.js'

const RUNS = Number(process.env['RUNS'] ?? 10_000)
const LIMIT_MS = process.env['RUNS'] === undefined ? 150_000 : Infinity
const only = process.env['SEED']
const first = only === undefined ? Math.floor(Date.now() / 1000) % 1_000_000 * 1000 : Number(only)
const runs = only === undefined ? RUNS : 1

/** Megabytes of address space in use. V8's own heap is a part that comes and goes. */
function mappedMb(): number {
  return readFileSync('/proc/self/maps', 'latin1').split('\n').reduce((sum, line) => {
    const [from, to] = line.split(' ', 1)[0]!.split('-')
    return to === undefined ? sum : sum + (parseInt(to, 16) - parseInt(from!, 16)) / 2 ** 20
  }, 0)
}

t.setTimeout(Math.min(LIMIT_MS + 60_000, 2 ** 31 - 1))
t.test(`${runs} interleavings from seed ${first}`, async t => {
  // what a thread makes once
  await interleave(first)
  const mark = scratchMark()
  const mapped = mappedMb()
  const fds = openFds()
  const happened = new Map<string, number>()
  let steps = 0
  let answers = 0
  let mounts = 0
  const startMs = performance.now()
  let done = 0
  // a machine that is busy with other things gets a part of them
  for (; done < runs && performance.now() - startMs < LIMIT_MS; done++) {
    const run = await interleave(first + done).catch(error => {
      t.comment((error as Error).message)
      throw new Error((error as Error).message.split('\n')[0])
    })
    rewindScratch(mark)
    steps += run.steps
    answers += run.answers
    mounts += run.mounts
    for (const what of run.happenings) happened.set(what, (happened.get(what) ?? 0) + 1)
  }
  t.comment(`${done} runs, ${steps} steps, ${mounts} mounts, ${answers} answers in ${((performance.now() - startMs) / 1000).toFixed(1)} s; ${[...happened].map(([what, count]) => `${what}: ${count}`).join(', ')}`)
  t.equal(openFds(), fds, 'no descriptor is left')
  // each run has mapped 6 MiB or more
  t.ok(mappedMb() < mapped + 300 + runs / 100, 'no mapping is left')
  t.ok(done >= runs / 10, 'and enough of them')
})
