/** Arguments of a client that node:fs takes otherwise, or only in some versions. */
import t from 'tap'
import { encodeName, flagsOf, pathOf, positionOf, timeOf } from '../../lib/client/arguments.js'
import { Permission, MAY_EXEC, MAY_READ, MAY_WRITE } from '../../lib/client/permission.js'
import { errno } from '../../lib/errors.js'
import type { Attributes } from '../../lib/client/attributes.js'

t.test('times are exact', async t => {
  t.strictSame(timeOf(new Date(1234567890123)), { sec: 1234567890, nsec: 123_000_000 })
  t.strictSame(timeOf(new Date(-1)), { sec: -1, nsec: 999_000_000 })
  t.strictSame(timeOf(-1.5), { sec: -2, nsec: 500_000_000 })
  t.strictSame(timeOf(1_000_000_000_000_000_001n), { sec: 1_000_000_000, nsec: 1 })
  t.strictSame(timeOf(-1n), { sec: -1, nsec: 999_999_999 })
  t.strictSame(timeOf('2.5'), { sec: 2, nsec: 500_000_000 })
  t.throws(() => timeOf('soon'), { code: 'ERR_INVALID_ARG_TYPE' })
})

t.test('positions', async t => {
  t.strictSame([null, undefined, -1, -1n, 0, 5n].map(positionOf), [null, null, null, null, 0, 5])
  for (const position of [-2, 1.5, 2n ** 60n]) t.throws(() => positionOf(position), { code: 'ERR_OUT_OF_RANGE' })
  t.throws(() => positionOf('1' as never), { code: 'ERR_INVALID_ARG_TYPE' })
})

t.test('names keep their bytes', async t => {
  const { text, shown } = pathOf(Buffer.from([0x2f, 0xff, 0x61]))
  t.equal(shown, '/\ufffda')
  t.strictSame(encodeName(text, 'buffer'), Buffer.from([0x2f, 0xff, 0x61]))
  t.equal(encodeName(text, 'utf8'), '/\ufffda')
  t.equal(encodeName(text, 'hex'), '2fff61')
})

t.test('flags', async t => {
  t.equal(flagsOf('sr+'), flagsOf('rs+'))
  t.equal(flagsOf(null), 0)
  t.throws(() => flagsOf('toString'), { code: 'ERR_INVALID_ARG_VALUE' })
})

t.test('permissions', async t => {
  const file = (mode: number, uid: number, gid: number): Attributes => ({ mode, uid, gid }) as Attributes
  const user = new Permission({ uid: 1000, gid: 100, groups: [200] }, true)
  const root = new Permission({ uid: 0, gid: 0, groups: [] }, true)
  const cases: [Permission, Attributes, number, number][] = [
    [user, file(0o100640, 1000, 0), MAY_READ | MAY_WRITE, 0],
    [user, file(0o100640, 1000, 0), MAY_EXEC, -errno.EACCES],
    [user, file(0o100640, 0, 100), MAY_READ, 0],
    [user, file(0o100640, 0, 200), MAY_READ, 0],
    [user, file(0o100640, 0, 200), MAY_WRITE, -errno.EACCES],
    [user, file(0o100640, 0, 0), MAY_READ, -errno.EACCES],
    [user, file(0o100604, 0, 0), MAY_READ, 0],
    [user, file(0o100604, 0, 100), MAY_READ, -errno.EACCES],
    [user, file(0o100066, 1000, 100), MAY_READ, -errno.EACCES],
    [root, file(0o100000, 5, 5), MAY_READ | MAY_WRITE, 0],
    [root, file(0o100666, 5, 5), MAY_EXEC, -errno.EACCES],
    [root, file(0o100001, 5, 5), MAY_EXEC, 0],
    [root, file(0o040000, 5, 5), MAY_EXEC, 0],
  ]
  for (const [who, what, mask, expected] of cases) t.equal(who.check(what, mask), expected, `${who.privileged ? 'root' : 'user'} ${what.mode.toString(8)} ${what.uid}:${what.gid} ${mask}`)
  t.equal(user.checkSticky(file(0o41777, 0, 0), file(0o100644, 0, 0)), -errno.EPERM)
  t.equal(user.checkSticky(file(0o41777, 0, 0), file(0o100644, 1000, 0)), 0)
  t.equal(user.checkSticky(file(0o41777, 1000, 0), file(0o100644, 0, 0)), 0)
  t.equal(user.checkChown(file(0o100644, 1000, 100), -1, 200), 0)
  t.equal(user.checkChown(file(0o100644, 1000, 100), -1, 300), -errno.EPERM)
  t.equal(user.checkChown(file(0o100644, 1000, 100), 1001, -1), -errno.EPERM)
  t.equal(user.checkChown(file(0o100644, 0, 100), -1, 200), -errno.EPERM)
  t.equal(user.chmodMode(file(0o100644, 1000, 300), 0o2755), 0o755)
  t.equal(user.chmodMode(file(0o100644, 1000, 200), 0o2755), 0o2755)
})
