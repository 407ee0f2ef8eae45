/**
 * withMount as a test script uses it, in a process of its own:
 *
 *     node dist/test/support/with-mount-session.js SOURCE MOUNTPOINT OPTIONS
 *
 * The mount point is not used. Prints the names of the steps that went well.
 */
import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { mkdir, open, readFile, rmdir, writeFile, type FileHandle } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { withMount } from '../../lib/index.js'
import { findMount } from '../../lib/mount/mountinfo.js'
import { abortConnection } from '../../lib/sys/abort.js'

const source = process.argv[2]!
let place = ''

function assertGone(): void {
  assert.equal(findMount(place), undefined)
  assert.ok(!existsSync(place))
}

const text = await withMount(source, async (dir, mounted) => {
  place = dir
  const status = mounted.status()
  assert.deepEqual([status.mountpoints, status.source, status.health, status.backend], [[dir], source, 'ok', 'emulated'])
  await writeFile(join(dir, 'new'), 'through the mount')
  const { counters, opcodes } = mounted.stats()
  assert.ok(counters.REQUESTS > 1)
  assert.equal(opcodes['CREATE'], 1)
  return await readFile(join(dir, 'hello'), 'utf8')
})
assert.equal(text, 'hello\n')
assert.equal(readFileSync(join(source, 'new'), 'utf8'), 'through the mount')
assertGone()
console.log('what the function returns, and nothing is left')

assert.equal(await withMount(source, { xattr: true, maxSize: 1 << 20 }, dir => readFileSync(join(dir, 'hello'), 'utf8')), 'hello\n')
console.log('options, and synchronous calls')

await withMount(source, async (dir, { faults }) => {
  const made = join(dir, 'made')
  faults.failNext('MKDIR', 'ENOSPC', 2)
  for (let i = 0; i < 2; i++) await assert.rejects(mkdir(made), { code: 'ENOSPC' })
  await mkdir(made)
  faults.delay('RMDIR', 200)
  const start = performance.now()
  await rmdir(made)
  assert.ok(performance.now() - start >= 199)
  faults.failNext('MKDIR', 'EIO')
  faults.clear()
  await mkdir(made)
  assert.throws(() => faults.failNext('GLUB', 'EIO'), TypeError)
  assert.throws(() => faults.failNext('MKDIR', 'EGLUB' as 'EIO'), TypeError)
  assert.throws(() => faults.failNext('MKDIR', 0), TypeError)
})
console.log('faults from a script')

await withMount(source, { mountTimeout: 1 }, async (dir, { faults }) => {
  faults.dropNext('MKDIR')
  const never = mkdir(join(dir, 'never')).catch((error: NodeJS.ErrnoException) => error.code)
  assert.equal(await Promise.race([never, sleep(300, 'no answer')]), 'no answer')
  abortConnection(findMount(dir)!.minor, dir)
  assert.match(String(await never), /^(ECONNABORTED|ENOTCONN|EIO)$/)
})
assertGone()
console.log('a request that is never answered')

await assert.rejects(withMount(source, dir => {
  place = dir
  throw new Error('mine')
}), { message: 'mine' })
assertGone()
console.log('a function that throws')

let file: FileHandle | undefined
await assert.rejects(withMount(source, async dir => {
  place = dir
  file = await open(join(dir, 'hello'))
}), { name: 'UsageError', code: 'EBUSY' })
assertGone()
await assert.rejects(file!.sync())
await file!.close().catch(() => {})
console.log('a file left open')

await assert.rejects(withMount(source, async dir => {
  place = dir
  file = await open(join(dir, 'hello'))
  throw new Error('mine')
}), { message: 'mine' })
assertGone()
await file!.close().catch(() => {})
console.log('both: its own error counts')

const directories = (): string[] => readdirSync(tmpdir()).filter(name => name.startsWith('virtiofs-bridge-'))
const before = directories()
await assert.rejects(withMount(join(source, 'nowhere'), () => {}), { code: 'ENOENT' })
assert.deepEqual(directories(), before)
console.log('what cannot be mounted leaves nothing')
