/** A full disk, and a quota, below the shared directory: whoever writes is told, at write, fsync or close. */
import { spawnSync } from 'node:child_process'
import { closeSync, fsyncSync, openSync, readFileSync, statfsSync, statSync, unlinkSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { withMount } from '../support/mounts.js'
import { missing, type Peer } from '../support/peers.js'
import { as, alice } from '../support/posix-users.js'
import { smallDisk } from '../support/small-disk.js'

const DISK_BYTES = 4 << 20
const CHUNK = Buffer.alloc(65536, 'x')
/** Node has no name for EDQUOT. */
const EDQUOT = 'Unknown system error -122'

/** A backend may keep what was deleted until the kernel has forgotten it, which it tells when it likes. */
async function untilThereIsRoom(source: string): Promise<void> {
  const endMs = performance.now() + 10_000
  for (let room = 0; room < DISK_BYTES / 2 && performance.now() < endMs; await sleep(20)) {
    const { bavail, bsize } = statfsSync(source)
    room = bavail * bsize
  }
}

/** Writes until it fails. @returns where, with what, and how many bytes were written before */
function fill(path: string): { where: string, code: string, bytes: number } {
  const fd = openSync(path, 'w')
  let bytes = 0
  const attempt = (where: string, work: () => void): { where: string, code: string } | undefined => {
    try {
      work()
    } catch (error) {
      return { where, code: (error as NodeJS.ErrnoException).code! }
    }
    return undefined
  }
  let failed: { where: string, code: string } | undefined
  while (!failed && bytes < 4 * DISK_BYTES) failed = attempt('write', () => { bytes += writeSync(fd, CHUNK) })
  failed ??= attempt('fsync', () => fsyncSync(fd))
  const closed = attempt('close', () => closeSync(fd))
  failed ??= closed
  return { where: failed?.where ?? 'nowhere', code: failed?.code ?? 'no error', bytes }
}

for (const peer of ['emulated', 'virtiofsd-rust'] as Peer[]) {
  for (const writeback of [false, true]) {
    t.test(`${peer}${writeback ? ', writeback' : ''}: a full disk`, { skip: missing(peer) }, async t => {
      const source = smallDisk(t, `size=${DISK_BYTES}`)
      if (source === undefined) return void t.pass('a tmpfs', { skip: 'it cannot be mounted here' })
      const options = peer === 'emulated' && writeback ? ['writeback'] : []
      await withMount(t, { peer, source, options, backendArgs: writeback ? ['--writeback'] : [] }, async live => {
        writeFileSync(join(live.dir, 'kept'), 'written before')
        const { where, code, bytes } = fill(join(live.dir, 'large'))
        t.equal(code, 'ENOSPC', `said at ${where}, after ${bytes} bytes`)
        t.equal(readFileSync(join(source, 'kept'), 'utf8'), 'written before', 'what was there stays')
        if (where === 'write' && !writeback) t.ok(statSync(join(source, 'large')).size >= bytes, 'all that was acknowledged is there')
        unlinkSync(join(live.dir, 'large'))
        await untilThereIsRoom(source)
        writeFileSync(join(live.dir, 'after'), 'there is room again')
        t.equal(readFileSync(join(source, 'after'), 'utf8'), 'there is room again')
      })
    })
  }
}

t.test('a quota', { skip: missing('emulated') }, async t => {
  const source = smallDisk(t, `size=${4 * DISK_BYTES},usrquota,usrquota_block_hardlimit=${DISK_BYTES}`)
  if (source === undefined) return void t.pass('a quota', { skip: 'this kernel has no quotas of tmpfs' })
  spawnSync('chown', [`${alice.uid}:${alice.gid}`, source])
  await withMount(t, { peer: 'emulated', source }, async live => {
    const { where, code, bytes } = as(alice, () => fill(join(live.dir, 'large')))
    t.ok(code === EDQUOT || code === 'EDQUOT', `${code}, said at ${where}, after ${bytes} bytes`)
    writeFileSync(join(live.dir, 'another'), 'root has none')
  })
})
