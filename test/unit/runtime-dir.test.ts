/** Where the sockets of mounts are: all of root's mounts in one place, however root came in. */
import t from 'tap'
import { runtimePlaces } from '../../lib/mount/runtime-dir.js'

t.test('the places for sockets, the best first', async t => {
  t.strictSame(runtimePlaces(1000, '/run/user/1000'), ['/run/user/1000'])
  t.strictSame(runtimePlaces(1000, undefined), [])
  t.strictSame(runtimePlaces(0, undefined), ['/run'])
  t.strictSame(runtimePlaces(0, ''), ['/run'])
  t.strictSame(runtimePlaces(0, '/run/user/0'), ['/run', '/run/user/0'], 'a login of root')
  t.strictSame(runtimePlaces(0, '/run/user/1000'), ['/run', '/run/user/1000'], 'su, with the variable of somebody else; root of a user namespace')
  t.strictSame(runtimePlaces(0, '/tmp/own'), ['/tmp/own', '/run'], 'chosen')
})
