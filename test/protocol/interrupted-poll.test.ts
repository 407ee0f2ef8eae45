/**
 * A signal that comes while something is waited for on the thread pool: nothing has happened. A probe
 * took it for a socket that was closed.
 */
import { armFault, disarmFault } from '../support/sys-faults.js'
import t from 'tap'
import { errno } from '../../lib/errors.js'
import { close, createEventfd, pollAsync, POLLIN, signalEventfd } from '../../lib/sys/io.js'

t.test('the wait goes on for the rest of its time', async t => {
  const fd = createEventfd()
  t.teardown(() => close(fd))
  for (const timeoutMs of [0, 20]) {
    armFault('poll', 'main', 1, errno.EINTR)
    const from = performance.now()
    t.equal(await pollAsync(fd, POLLIN, timeoutMs), 0, `nothing within ${timeoutMs} ms`)
    t.ok(performance.now() - from >= timeoutMs - 1)
    t.match(disarmFault(), { uses: 2, fired: true })
  }
  signalEventfd(fd)
  armFault('poll', 'main', 1, errno.EINTR)
  t.equal(await pollAsync(fd, POLLIN, 1000), POLLIN)
  t.match(disarmFault(), { uses: 2, fired: true })
})
