/**
 * The same operations on a mount and on a plain directory: found bugs, and some seconds of random
 * ones. campaign.ts is the long run.
 */
import t, { type Test } from 'tap'
import { noKernel } from '../support/peers.js'
import { cases } from './cases.js'
import { campaign, formatFinding, minimise } from './findings.js'
import { abilitiesOf, mountKinds, plain, type MountKind } from './mounts.js'
import { Session } from './session.js'

/** Differences hide behind options, so these have every cache mode, both ways to write, and both numbers of queues. */
const KINDS = ['emulated, cache=auto,queues=4', 'emulated, cache=never', 'emulated, cache=always,writeback,queues=4', 'emulated, cache=auto, on disk']
const FIXED_SEED = 7
const OPERATIONS = 3000
const SECONDS = 3

const skip = noKernel()

async function withSession(kind: MountKind, use: (session: Session) => Promise<void>, abilities = abilitiesOf(kind)): Promise<void> {
  const session = await Session.start(kind, abilities)
  try {
    await use(session)
  } finally {
    await session.end()
  }
}

async function random(t: Test, session: Session, seed: number): Promise<void> {
  let differences = 0
  const found = (finding: Parameters<typeof formatFinding>[0]): boolean => {
    differences++
    t.comment(formatFinding(finding, session.kind.name))
    return false
  }
  const made = await campaign(session, { seed, operations: OPERATIONS, steps: 1000, untilMs: performance.now() + SECONDS * 1000, found })
  t.equal(differences, 0, `${made} operations from seed ${seed} on`)
}

for (const name of KINDS) {
  void t.test(name, { skip }, async t => {
    await withSession(mountKinds.find(kind => kind.name === name)!, async session => {
      for (const { name, script } of cases) {
        const { difference } = await session.script(script)
        t.equal(difference, undefined, name)
      }
      await random(t, session, FIXED_SEED)
      await random(t, session, Math.floor(Math.random() * 1_000_000))
    })
  })
}

void t.test('two plain directories', { skip: skip === false || process.getuid!() === 0 ? false : skip }, async t => {
  await withSession(plain, async session => { await random(t, session, Math.floor(Math.random() * 1_000_000)) })
})

void t.test('a difference is found, and made short', { skip }, async t => {
  const without: MountKind = { name: 'without xattr', backing: 'tmpfs', options: 'cache=auto' }
  await withSession(without, async session => {
    for (let seed = 1; ; seed++) {
      const { difference, script } = await session.seed(seed, 2000)
      if (difference === undefined) continue
      const finding = await minimise(session, seed, difference, script!)
      t.ok(finding.replayed, 'it is seen again')
      t.ok(finding.script.length <= 4, formatFinding(finding, 'without xattr'))
      t.match(finding.script.at(-1)![0], /xattr/)
      break
    }
  }, { ...abilitiesOf(without), xattrs: true })
})
