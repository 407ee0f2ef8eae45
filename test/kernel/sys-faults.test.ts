/** A sample of the campaign of failing system calls (test/campaigns/faults.ts), and what it has found. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { errno, errnoName } from '../../lib/errors.js'
import type { Fault } from '../campaigns/fault-host.js'
import { FaultBench } from '../campaigns/fault-matrix.js'
import { missing, peerPath } from '../support/peers.js'
import { ensureFusectl } from '../support/stuck.js'

const { EAGAIN, EINTR, EIO, EMFILE, ENOMEM, ENOSPC } = errno

async function sample(t: Test, options: string[], faults: Fault[]): Promise<void> {
  await ensureFusectl()
  const base = mkdtempSync(join(tmpdir(), 'vfb-faults-'))
  const bench = new FaultBench(base, ['cache=never', ...options])
  try {
    for (const fault of faults) {
      const { findings, fired, seen } = await bench.run(fault)
      t.strictSame(findings, [], `${fault.name} in ${fault.threads}, use ${fault.n}, ${fault.error === 'half' ? 'half' : errnoName(fault.error)}: ${seen || 'nothing to be seen'}`)
      t.ok(fired, 'it was used')
    }
  } finally {
    await bench.end()
    rmSync(base, { recursive: true, force: true })
  }
}

t.test('the emulated device', { skip: missing('emulated') }, async t => {
  await sample(t, [], [
    { name: 'eventfd', threads: 'main', n: 1, error: EMFILE },
    { name: 'memfd_create', threads: 'main', n: 1, error: EMFILE },
    { name: 'mmap', threads: 'workers', n: 2, error: ENOMEM },
    { name: 'open', threads: 'main', n: 1, error: EMFILE },
    { name: 'mount', threads: 'main', n: 1, error: ENOMEM },
    { name: 'openat', threads: 'workers', n: 2, error: EMFILE },
    { name: 'preadv2', threads: 'workers', n: 1, error: 'half' },
    { name: 'pwritev2', threads: 'workers', n: 2, error: 'half' },
    { name: 'pwritev2', threads: 'workers', n: 3, error: ENOSPC },
    { name: 'fsync', threads: 'workers', n: 1, error: EIO },
    { name: 'readv', threads: 'workers', n: 9, error: EINTR },
    { name: 'epoll_wait', threads: 'workers', n: 2, error: EINTR },
  ])
})

t.test('findings: what was leaked, lost or waited for', { skip: missing('emulated') }, async t => {
  await sample(t, [], [
    // the descriptor of a memfd that could not be given its size
    { name: 'ftruncate', threads: 'main', n: 1, error: ENOSPC },
    // the set of a queue worker that could not be set up
    { name: 'epoll_ctl', threads: 'workers', n: 1, error: ENOMEM },
    // a wake-up that the unmount waited for
    { name: 'write', threads: 'main', n: 1, error: EINTR },
    // a request that the kernel has failed itself was taken for an unmount
    { name: 'readv', threads: 'workers', n: 10, error: ENOMEM },
    // a reply that the kernel could not take, and nobody else would give
    { name: 'write', threads: 'workers', n: 6, error: ENOMEM },
    { name: 'writev', threads: 'workers', n: 1, error: EAGAIN },
    { name: 'flock', threads: 'main', n: 1, error: EINTR },
  ])
})

t.test('a virtiofsd that the bridge starts', { skip: missing('virtiofsd-rust') }, async t => {
  await sample(t, ['backend=virtiofsd', `virtiofsd=${peerPath('virtiofsd-rust')}`], [
    { name: 'socket', threads: 'main', n: 1, error: EMFILE },
    { name: 'sendmsg', threads: 'main', n: 3, error: 'half' },
    { name: 'recvmsg', threads: 'main', n: 4, error: ENOMEM },
  ])
})
