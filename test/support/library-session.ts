/**
 * The library as a program uses it that mounts and then reads its own mount by synchronous calls:
 *
 *     node dist/test/support/library-session.js SOURCE MOUNTPOINT OPTIONS
 *
 * OPTIONS are the library's, as JSON. A process of its own: a library that deadlocks would take
 * the test runner with it. Prints the names of the steps that went well.
 */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { closeSync, mkdirSync, openSync, readdirSync, readFileSync, readSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { mount, SyscallError, UsageError, type MountOptions } from '../../lib/index.js'

const [source, mountpoint, optionsText] = process.argv.slice(2) as [string, string, string]
const options = JSON.parse(optionsText) as MountOptions

const first = await mount({ source, mountpoint, options })
assert.equal(readFileSync(join(mountpoint, 'hello'), 'utf8'), 'hello\n')
const megabytes = Buffer.alloc(5 << 20, 'synchronous ')
mkdirSync(join(mountpoint, 'd'))
writeFileSync(join(mountpoint, 'd', 'big'), megabytes)
assert.ok(readFileSync(join(mountpoint, 'd', 'big')).equals(megabytes))
assert.ok(readFileSync(join(source, 'd', 'big')).equals(megabytes))
assert.equal(statSync(join(mountpoint, 'd', 'big')).size, megabytes.length)
assert.deepEqual(readdirSync(mountpoint).sort(), ['d', 'hello'])
rmSync(join(mountpoint, 'd'), { recursive: true })
console.log('synchronous calls on the own mount')

assert.equal(first.mountpoint, mountpoint)
assert.equal(first.source, source)
assert.ok(first.tag.length > 0)
assert.equal(first.init.major, 7)
assert.equal(first.gone, '')
console.log('what a mount tells of itself')

await assert.rejects(mount({ source, mountpoint, options: { ...options, tag: 'another' } }), (error: unknown) => error instanceof UsageError && error.code === 'EBUSY')
console.log('a second mount at the same place is refused')

const fd = openSync(join(mountpoint, 'hello'), 'r')
await assert.rejects(first.unmount(), (error: unknown) => error instanceof SyscallError && error.code === 'EBUSY')
const four = Buffer.alloc(4)
assert.equal(readSync(fd, four, 0, 4, 0), 4)
console.log('a mount in use is not unmounted, and goes on')
let closed = false
void first.closed.then(() => { closed = true })
const detached = first.unmount({ lazy: true })
assert.equal(readSync(fd, four, 0, 4, 0), 4)
assert.equal(closed, false)
closeSync(fd)
await detached
assert.deepEqual(readdirSync(mountpoint), [])
console.log('a lazy unmount ends with the last user')

const second = await mount({ source, mountpoint, options })
const open = openSync(join(mountpoint, 'hello'), 'r')
await second.unmount({ abort: true })
assert.throws(() => readSync(open, four, 0, 4, 0), { code: 'ENOTCONN' })
try {
  closeSync(open)
} catch (error) {
  // a device that has FLUSH is asked, and is not there
  assert.equal((error as NodeJS.ErrnoException).code, 'ENOTCONN')
}
console.log('an abort ends a mount in use')

const third = await mount({ source, mountpoint, options })
execFileSync('umount', [mountpoint])
await third.closed
await third.unmount()
console.log('unmounted by somebody else')

{
  await using fourth = await mount({ source, mountpoint, options })
  assert.equal(readFileSync(join(fourth.mountpoint, 'hello'), 'utf8'), 'hello\n')
}
assert.deepEqual(readdirSync(mountpoint), [])
console.log('await using')
