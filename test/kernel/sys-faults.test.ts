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

const { EINTR, EMFILE, ENOMEM, ENOSPC } = errno

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
    { name: 'mmap', threads: 'workers', n: 2, error: ENOMEM },
    { name: 'mount', threads: 'main', n: 1, error: ENOMEM },
    { name: 'preadv2', threads: 'workers', n: 1, error: 'half' },
    { name: 'pwritev2', threads: 'workers', n: 3, error: ENOSPC },
    { name: 'readv', threads: 'workers', n: 9, error: EINTR },
  ])
})

t.test('findings: what was leaked, lost or waited for', { skip: missing('emulated') }, async t => {
  await sample(t, [], [
    // the descriptor of a memfd that could not be given its size
    { name: 'ftruncate', threads: 'main', n: 1, error: ENOSPC },
    // the set of a queue worker that could not be set up
    { name: 'epoll_ctl', threads: 'workers', n: 1, error: ENOMEM },
    // a question whether it is mounted, which got no answer, taken for no: the unmount waited for an end that had not begun
    { name: 'write', threads: 'main', n: 1, error: EINTR },
    // a request that the kernel has failed itself was taken for an unmount
    { name: 'readv', threads: 'workers', n: 10, error: ENOMEM },
    // a reply that the kernel could not take, and nobody else would give
    { name: 'write', threads: 'workers', n: 6, error: ENOMEM },
  ])
})

t.test('a virtiofsd that the bridge starts', { skip: missing('virtiofsd-rust') }, async t => {
  await sample(t, ['backend=virtiofsd', `virtiofsd=${peerPath('virtiofsd-rust')}`], [
    // finding: the first eventfd of a ring when the second could not be made
    { name: 'eventfd', threads: 'main', n: 5, error: EMFILE },
    { name: 'sendmsg', threads: 'main', n: 3, error: 'half' },
    { name: 'recvmsg', threads: 'main', n: 4, error: ENOMEM },
  ])
})
