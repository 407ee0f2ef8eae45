/** A mount from beginning to end: usable, right on both sides, traced, and taken down in the order of kill_sb. */
import { constants, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { link, mkdir, open, readdir, readFile, readlink, rename, rm, stat, symlink, unlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { type LiveMount, withMount } from '../support/mounts.js'
import { missing, PEERS } from '../support/peers.js'

async function everydayUse(t: Test, { dir, source }: LiveMount): Promise<void> {
  t.equal(await readFile(join(dir, 'hello'), 'utf8'), 'hello\n', 'reads what was there')
  await writeFile(join(dir, 'new'), 'written through the mount')
  t.equal(readFileSync(join(source, 'new'), 'utf8'), 'written through the mount', 'what was written is there')
  await mkdir(join(dir, 'd'))
  await rename(join(dir, 'new'), join(dir, 'd', 'moved'))
  await symlink('moved', join(dir, 'd', 'link'))
  await link(join(dir, 'd', 'moved'), join(dir, 'd', 'hard'))
  t.strictSame((await readdir(join(dir, 'd'))).sort(), ['hard', 'link', 'moved'])
  t.equal(await readlink(join(dir, 'd', 'link')), 'moved')
  t.equal((await stat(join(dir, 'd', 'link'))).nlink, 2, 'two names for one file')
  await t.rejects(stat(join(dir, 'nothing')), { code: 'ENOENT' })
  await t.rejects(readdir(join(dir, 'hello')), { code: 'ENOTDIR' })
  await t.rejects(open(join(dir, 'hello'), constants.O_CREAT | constants.O_EXCL | constants.O_WRONLY), { code: 'EEXIST' })
  const file = await open(join(dir, 'd', 'moved'), 'r+')
  await unlink(join(dir, 'd', 'moved'))
  await unlink(join(dir, 'd', 'hard'))
  await file.write('still', 0)
  t.equal((await file.read(Buffer.alloc(5), 0, 5, 0)).buffer.toString(), 'still', 'an unlinked file lives while it is open')
  await file.close()
  await rm(join(dir, 'd'), { recursive: true })
  t.strictSame(await readdir(dir), ['hello'])
}

const KILL_SB = ['unmounted', 'kill_sb.stop_hiprio', 'kill_sb.drained', 'kill_sb.destroy', 'kill_sb.stop_queues', 'kill_sb.drained_again', 'kill_sb.stop_rings', 'freed']

for (const peer of PEERS) {
  t.test(`${peer}: everyday use, and the trace of it`, { skip: missing(peer) }, async t => {
    await withMount(t, { peer, files: source => writeFileSync(join(source, 'hello'), 'hello\n') }, async live => {
      await everydayUse(t, live)
      const threads = readdirSync(`/proc/${live.bridge.pid}/task`).map(tid => readFileSync(`/proc/${live.bridge.pid}/task/${tid}/comm`, 'utf8').trim())
      t.ok(threads.includes('virtiofs-queue0'), 'threads have names')
      t.equal(await live.unmount(), 0)
      const trace = live.trace()
      const events = trace.flatMap(record => record.event ?? [])
      t.strictSame(events.filter(event => event !== 'probe' && event !== 'negotiation' && event !== 'queues' && event !== 'init'), KILL_SB, 'the order of kill_sb')
      t.strictSame(events.slice(0, 4), ['probe', 'negotiation', 'queues', 'init'], 'and of the beginning')

      const requests = trace.filter(record => record.op !== undefined)
      t.equal(requests[0]?.op, 'INIT')
      for (const op of ['LOOKUP', 'CREATE', 'WRITE', 'READ', 'MKDIR', 'SYMLINK', 'LINK', 'READLINK', 'RENAME2', 'UNLINK', 'RMDIR', 'RELEASE', 'OPENDIR', 'RELEASEDIR', 'STATFS', 'DESTROY']) {
        t.ok(requests.some(record => record.op === op || (op === 'RENAME2' && record.op === 'RENAME')), op)
      }
      t.equal(requests.filter(record => record.op === 'DESTROY').length, 1, 'one DESTROY')
      const wrong = requests.filter(record => !Number.isInteger(record.unique) || !Number.isSafeInteger(record.node)
        || !(record.error! <= 0 && record.error! > -512) || !Number.isSafeInteger(record.bytes) || !(record.us! >= 0) || !(record.queue === 0 || record.queue === 'hiprio'))
      t.strictSame(wrong, [], 'every record has its fields')
      const uniques = requests.filter(record => record.op !== 'FORGET' && record.op !== 'BATCH_FORGET' && record.op !== 'INTERRUPT').map(record => record.unique)
      t.equal(new Set(uniques).size, uniques.length, 'one record per request')
      t.ok(requests.some(record => record.op === 'LOOKUP' && record.error === -2), 'errors are in it')
    })
  })
}
