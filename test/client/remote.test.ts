/** The client of a device behind a relay: no mount, no root. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { connect } from '../../lib/index.js'
import { relaySource } from '../support/peers.js'
import { processTree, signal } from '../support/program.js'

function makeShared(): string {
  const base = mkdtempSync(join(tmpdir(), 'vfb-far-'))
  t.teardown(() => rmSync(base, { recursive: true }))
  const shared = join(base, 'shared')
  mkdirSync(shared)
  return shared
}

t.test('connect to a directory behind a relay', async t => {
  const shared = makeShared()
  const fs = await connect(relaySource(shared))
  const data = Buffer.alloc(3_333_333, 'some data ')
  await fs.mkdir('/a')
  await fs.writeFile('/a/b', data)
  t.ok(readFileSync(join(shared, 'a/b')).equals(data))
  t.ok((await fs.readFile('/a/b')).equals(data))
  t.strictSame(await fs.readdir('/a'), ['b'])
  await t.rejects(fs.readFile('/c'), { code: 'ENOENT' })
  const before = processTree(process.pid).length
  await fs.close()
  t.ok(processTree(process.pid).length < before, 'the far end has ended')
})

t.test('the far end dies', async t => {
  const shared = makeShared()
  writeFileSync(join(shared, 'a'), 'a')
  const own = new Set(processTree(process.pid))
  const fs = await connect(relaySource(shared))
  t.equal(await fs.readFile('/a', 'utf8'), 'a')
  for (const pid of processTree(process.pid)) if (!own.has(pid)) signal(pid, 'SIGKILL')
  await t.rejects(fs.readFile('/a', 'utf8'), { code: /ECONNABORTED|ENOTCONN/ })
  await t.rejects(fs.readFile('/a', 'utf8'), { code: 'ENOTCONN' })
  await fs.close()
})
