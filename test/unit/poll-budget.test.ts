/** How long a worker polls, by a clock of the test's own. */
import t from 'tap'
import { PollBudget } from '../../lib/virtio/poll-budget.js'

interface Clock {
  now: () => number
  /** Sets it on by microseconds. */
  pass: (us: number) => void
}

/** @param us where it starts: near its end by default, so that it starts again in each test */
function clock(us = 999_999_990): Clock {
  return { now: () => us, pass: by => { us = (us + by) % 1_000_000_000 } }
}

/** How long the budget lets a worker poll that finds nothing, in steps of a microsecond. */
function length(budget: PollBudget, pass: (us: number) => void): number {
  budget.start()
  let us = 0
  for (; budget.continues() && us < 1_000_000; us++) pass(1)
  return us
}

t.test('0 never polls, whatever happens', async t => {
  const { now, pass } = clock()
  const budget = new PollBudget(0, now)
  t.notOk(budget.worthwhile)
  budget.sleeping()
  budget.woken()
  budget.won()
  t.notOk(budget.worthwhile)
  t.equal(length(budget, pass), 0)
})

t.test('it grows while polling wins, up to the greatest time', async t => {
  const { now, pass } = clock()
  const budget = new PollBudget(200, now)
  const lengths = []
  for (let i = 0; i < 7; i++) {
    lengths.push(Math.round(length(budget, pass)))
    budget.won()
  }
  t.strictSame(lengths.map(us => Math.round(us / 10) * 10), [20, 40, 80, 160, 200, 200, 200])
})

t.test('it never polls longer than it was given', async t => {
  const { now, pass } = clock()
  for (const max of [1, 10, 20, 33]) {
    const budget = new PollBudget(max, now)
    for (let i = 0; i < 5; i++) {
      const us = length(budget, pass)
      if (us > max + 1) return t.fail(`${us} of ${max} microseconds`)
      budget.won()
    }
  }
  t.pass('and so a small one stays small')
})

t.test('a wake-up soon after the last look grows it, a late one ends polling', async t => {
  const { now, pass } = clock()
  const budget = new PollBudget(200, now)
  length(budget, pass)
  budget.sleeping()
  pass(100)
  budget.woken()
  t.equal(Math.round(length(budget, pass) / 10) * 10, 40, 'a longer poll would have caught it')
  budget.sleeping()
  pass(5000)
  budget.woken()
  t.notOk(budget.worthwhile, 'work comes too rarely')
})

t.test('with no budget left, the time of sleeping decides', async t => {
  const { now, pass } = clock()
  const budget = new PollBudget(200, now)
  length(budget, pass)
  budget.sleeping()
  pass(5000)
  budget.woken()
  t.notOk(budget.worthwhile)
  budget.sleeping()
  pass(201)
  budget.woken()
  t.notOk(budget.worthwhile, 'still too rarely')
  budget.sleeping()
  pass(150)
  budget.woken()
  t.ok(budget.worthwhile, 'busy again')
  t.equal(Math.round(length(budget, pass) / 10) * 10, 20)
})
