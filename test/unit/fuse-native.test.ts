/** The parts of via=fuse-native that need no mount: options for libfuse, hidden files, errors on their way between processes. */
import t from 'tap'
import { exitCodeOf } from '../../bin/exit-codes.js'
import type { Node } from '../../lib/client/node.js'
import { TagInUseError } from '../../lib/driver/tag-registry.js'
import { PeerGoneError, ProtocolError, SyscallError, UsageError } from '../../lib/errors.js'
import { HiddenFiles } from '../../lib/fuse-native/hidden-files.js'
import { checkOptions, libfuseOptions } from '../../lib/fuse-native/libfuse-options.js'
import { errorOf, failureOf } from '../../lib/fuse-native/protocol.js'
import { parseMountOptions } from '../../lib/mount/options.js'

const optionsOf = (text: string, source = '/srv/shared'): string[] => libfuseOptions(source, parseMountOptions([text])).slice(2).split(/(?<!\\),/)

t.test('options for libfuse', async t => {
  const plain = optionsOf('rw')
  t.equal(plain[0], 'fsname=/srv/shared')
  for (const always of ['subtype=virtiofs-bridge', 'nonempty', 'use_ino', 'big_writes', 'default_permissions', 'entry_timeout=1']) t.ok(plain.includes(always), always)
  t.equal(optionsOf('rw', '/a,ro\\b')[0], 'fsname=/a\\,ro\\\\b', 'a source is no way to give options')
  t.equal(optionsOf('fsname=x\\,ro')[0], 'fsname=x\\,ro')
  for (const flag of ['ro', 'nosuid', 'nodev', 'noexec', 'sync', 'dirsync', 'noatime']) t.ok(optionsOf(flag).includes(flag), flag)
  t.notOk(optionsOf('nosuid').includes('suid'))
  t.notOk(optionsOf('no_default_permissions').includes('default_permissions'))
  t.notOk(optionsOf('no_allow_other').includes('allow_other'))
  t.ok(optionsOf('cache=always').includes('kernel_cache'))
  t.ok(optionsOf('cache=never').includes('direct_io') && optionsOf('cache=never').includes('entry_timeout=0'))
  t.doesNotThrow(() => checkOptions(parseMountOptions(['ro,noatime,relatime,xattr,cache=never'])))
  for (const text of ['queues=2', 'writeback', 'lazytime', 'cache=coherent', 'timeout=1']) t.throws(() => checkOptions(parseMountOptions([text])), { name: 'UsageError', code: 'EINVAL' }, text)
  t.throws(() => libfuseOptions('x'.repeat(2000), {}), { code: 'EINVAL', message: /give a shorter fsname/ })
})

t.test('files that libfuse hides', async t => {
  const hidden = new HiddenFiles()
  const held: string[] = []
  const node = { hold: () => held.push('hold'), drop: () => held.push('drop') } as unknown as Node
  t.ok(hidden.isHiding('/d/f', '/d/.fuse_hidden0000000500000001'))
  t.notOk(hidden.isHiding('/d/f', '/e/.fuse_hidden0000000500000001'), 'libfuse hides in the same directory')
  for (const name of ['/d/.fuse_hidden1', '/d/g', '/d/.fuse_hidden00000005000000011']) t.notOk(hidden.isHiding('/d/f', name), name)
  hidden.hide('/d/.fuse_hidden0000000500000001', node)
  t.equal(hidden.find('/d/.fuse_hidden0000000500000001'), node)
  t.equal(hidden.find('/renamed/.fuse_hidden0000000500000001'), node, 'its directory may be renamed')
  t.equal(hidden.find('/d/f'), undefined)
  t.notOk(hidden.drop('/d/f'))
  t.ok(hidden.drop('/renamed/.fuse_hidden0000000500000001'))
  t.notOk(hidden.drop('/d/.fuse_hidden0000000500000001'), 'once')
  t.strictSame(held, ['hold', 'drop'])
  hidden.hide('/.fuse_hidden0000000600000002', node)
  hidden.dropAll()
  t.strictSame(held, ['hold', 'drop', 'hold', 'drop'])
})

t.test('errors of the other process keep class, message and exit code', async t => {
  for (const error of [
    new UsageError('wrong'), new UsageError('not there', 'ENOENT'), new PeerGoneError('gone', 'ETIMEDOUT'), new SyscallError('mount', 1, 'on /x'), new SyscallError('mmap', 12),
    new ProtocolError('INIT', 'major', 8, 7), new TagInUseError('tag'), Object.assign(new Error('open /x: EACCES'), { code: 'EACCES', syscall: 'open', errno: -13 }), new TypeError('a bug'),
  ]) {
    const again = errorOf(structuredClone(failureOf(error)), '')
    t.equal(again.message, error.message)
    t.equal(exitCodeOf(again), exitCodeOf(error), error.message)
    t.equal((again as NodeJS.ErrnoException).code, (error as NodeJS.ErrnoException).code)
  }
  t.equal(errorOf(failureOf(new UsageError('libfuse cannot mount on /x')), 'fuse: no device').message, 'libfuse cannot mount on /x (fuse: no device)')
  t.equal(errorOf(failureOf('thrown'), '').message, 'thrown')
})
