/** What waits for a disk is for threads that may wait, unless there is none. */
import { mkdtempSync, statfsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { MAY_BLOCK } from '../../lib/device/handlers.js'
import { FuseFsyncIn, FuseSyncfsIn } from '../../lib/fuse/abi.js'
import { Op } from '../../lib/fuse/opcodes.js'
import { O_RDWR } from '../../lib/sys/file.js'
import { serve } from '../support/passthrough-fixture.js'

const TMPFS = 0x01021994

for (const { place, memory } of [{ place: '/dev/shm', memory: true }, { place: tmpdir(), memory: false }]) {
  const skip = (statfsSync(place).type === TMPFS) !== memory && `${place} is ${memory ? 'no' : 'a'} tmpfs`
  t.test(`FSYNC, FSYNCDIR and SYNCFS where data is ${memory ? 'in memory' : 'on a disk'}`, { skip }, async t => {
    const { client } = serve(t, { root: mkdtempSync(join(place, 'vfb-')) })
    const { nodeid, fh } = client.create(1n, 'f', O_RDWR)
    const directory = client.opendir(1n).fh
    const syncs: [string, () => number][] = [
      ['FSYNC', () => client.fsync(nodeid, fh)],
      ['FSYNCDIR', () => {
        const args = Buffer.alloc(FuseFsyncIn.SIZE)
        args.writeBigUInt64LE(directory, FuseFsyncIn.fh)
        return client.call(Op.FSYNCDIR, 1n, args).error
      }],
      ['SYNCFS', () => client.call(Op.SYNCFS, 1n, Buffer.alloc(FuseSyncfsIn.SIZE)).error],
    ]
    for (const [name, sync] of syncs) {
      client.mayBlock = false
      t.equal(sync(), memory ? 0 : MAY_BLOCK, name)
      client.mayBlock = true
      t.equal(sync(), 0, `${name}, where it may wait`)
    }
    client.release(nodeid, fh)
    client.releasedir(1n, directory)
    client.forget(nodeid, 1)
  })
}
