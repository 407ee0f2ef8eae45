/** The far end of a link before: seen to be there or not, and asked to end. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { endPredecessor, FarDoor } from '../../lib/relay/far-door.js'
import { hasEnded, ownIdentity, whyOutOfSight } from '../../lib/relay/far-identity.js'
import { until } from '../support/until.js'

const TOKEN = 'ab'.repeat(16)

t.test('a process and its end', async t => {
  const own = ownIdentity('door')
  t.notOk(hasEnded(own), 'this one is there')
  t.ok(hasEnded({ ...own, start: String(Number(own.start) + 1) }), 'a later one with its number is another')
  const child = spawn('sleep', ['60'])
  const exited = once(child, 'exit')
  await once(child, 'spawn')
  const stat = readFileSync(`/proc/${child.pid}/stat`, 'latin1')
  const identity = { ...own, pid: child.pid!, start: stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]! }
  t.notOk(hasEnded(identity))
  await t.rejects(endPredecessor(identity, TOKEN, 50), { message: `the far end of the link before (process ${child.pid}) still works on what it has received` })
  const ended = endPredecessor(identity, TOKEN, 10_000)
  child.kill('SIGKILL')
  await ended
  t.ok(hasEnded(identity))
  await exited
})

t.test('where nothing can be seen of it', async t => {
  const own = ownIdentity('door')
  t.equal(whyOutOfSight(own, own), '')
  t.match(whyOutOfSight({ ...own, boot: 'other' }, own), /another host, or its host was started anew/)
  t.match(whyOutOfSight({ ...own, pidNamespace: 'pid:[1]' }, own), /other namespaces/)
  t.match(whyOutOfSight({ ...own, timeNamespace: 'time:[1]' }, own), /other namespaces/)
})

t.test('only who has the token is heard', async t => {
  let told = 0
  const door = new FarDoor(TOKEN, () => { told++ })
  t.teardown(() => door.close())
  const self = ownIdentity(door.name)
  for (const token of ['cd'.repeat(16), TOKEN.slice(1), `x${TOKEN}`]) await t.rejects(endPredecessor(self, token, 100))
  t.equal(told, 0)
  const waits = endPredecessor(self, TOKEN, 3000).catch((error: Error) => error)
  await until(() => told === 1, 3000)
  t.match(await Promise.race([waits, sleep(50)]), undefined, 'it is waited for')
  await waits
})
