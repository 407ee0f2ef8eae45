/** SYNCFS over two file systems, of which the one without file handles is asked last. */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { errno } from '../../lib/errors.js'
import { FuseSyncfsIn } from '../../lib/fuse/abi.js'
import { Op } from '../../lib/fuse/opcodes.js'
import type { Intermediary } from '../../lib/sys/libc.js'

let fails = 0
const intermediary: Intermediary = {
  bind: (prototype, call, setErrno) => !prototype.includes('syncfs') ? call : (...args) => {
    if (fails-- !== 1) return call(...args)
    setErrno(errno.EIO)
    return -1
  },
  beforeAsync: () => 0,
}
Object.assign(globalThis, { [Symbol.for('virtiofs-bridge.intermediary')]: intermediary })
const { serve } = await import('../support/passthrough-fixture.js')
const { mountFileSystem, unmountFileSystem } = await import('../../lib/sys/mount.js')

t.test('an error is told, whichever file system has it', { skip: process.getuid!() !== 0 && 'needs root' }, async t => {
  const { root, client: c } = serve(t)
  const place = join(root, 'other')
  mkdirSync(place)
  await mountFileSystem('proc', place, 'proc', 0, '')
  try {
    const { nodeid } = c.lookup(1n, 'other')
    const sync = (): number => c.call(Op.SYNCFS, nodeid, Buffer.alloc(FuseSyncfsIn.SIZE)).error
    t.equal(sync(), 0)
    fails = 1
    t.equal(sync(), -errno.EIO)
    t.equal(sync(), 0)
    c.forgetAll()
  } finally {
    t.equal(await unmountFileSystem(place, 2), 0)
  }
})
