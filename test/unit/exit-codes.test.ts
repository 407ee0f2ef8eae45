/** Exit codes of mount(8): 1 usage or permission, 2 system, 4 bug, 32 mount failure. */
import { readFileSync } from 'node:fs'
import { errno } from '../../lib/errors.js'
import t from 'tap'
import { ExitCode, exitCodeOf } from '../../bin/exit-codes.js'
import { PeerGoneError, ProtocolError, SyscallError, UsageError } from '../../lib/errors.js'
import { TagInUseError } from '../../lib/driver/tag-registry.js'

t.test('the numbers are mount(8)\'s', async t => {
  t.strictSame({ ...ExitCode }, { OK: 0, USAGE: 1, SYSTEM: 2, BUG: 4, INTERRUPTED: 8, FAILURE: 32 })
})

t.test('what was thrown', async t => {
  const cases: [string, unknown, number][] = [
    ['a bad option', new UsageError('unknown option'), 1],
    ['not allowed', new UsageError('not root', 'EPERM'), 1],
    ['no access', new UsageError('no access', 'EACCES'), 1],
    ['a mountpoint that is not there', new UsageError('no such directory', 'ENOENT'), 32],
    ['something busy', new UsageError('in use', 'EBUSY'), 32],
    ['mount(2) without permission', new SyscallError('mount', errno.EPERM), 1],
    ['out of memory', new SyscallError('mmap', errno.ENOMEM), 2],
    ['out of descriptors', new SyscallError('eventfd', errno.EMFILE), 2],
    ['the system is out of descriptors', new SyscallError('eventfd', errno.ENFILE), 2],
    ['mount(2) fails', new SyscallError('mount', errno.EINVAL), 32],
    ['the backend is gone', new PeerGoneError('gone'), 32],
    ['the backend is late', new PeerGoneError('late', 'ETIMEDOUT'), 32],
    ['the backend breaks the protocol', new ProtocolError('GET_FEATURES', 'flags', 1, 5), 32],
    ['a tag in use', new TagInUseError('x'), 32],
    ['an exception of ours', new TypeError('x is undefined'), 4],
    ['an assertion', new RangeError('ring size'), 4],
    ['a string', 'oops', 4],
  ]
  for (const [name, error, code] of cases) t.equal(exitCodeOf(error), code, name)
})

t.test('errors of Node\'s own calls', async t => {
  try {
    readFileSync('/nothing/here')
  } catch (error) {
    t.equal(exitCodeOf(error), ExitCode.FAILURE)
  }
  t.equal(exitCodeOf(Object.assign(new Error('x'), { syscall: 'open', code: 'EMFILE' })), ExitCode.SYSTEM)
  t.equal(exitCodeOf(Object.assign(new Error('x'), { syscall: 'open', code: 'EACCES' })), ExitCode.USAGE)
})
