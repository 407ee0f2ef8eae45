/** The kernel gives the number of a FUSE connection to the next mount of anybody: no mount of ours may mistake that one for its own. */
import { mkdirSync, mkdtempSync, rmSync, statSync } from 'node:fs'
import { statfs } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { KernelMount } from '../../lib/mount/dev-fuse.js'
import { MNT_DETACH } from '../../lib/mount/flags.js'
import { findMount, FS_TYPE } from '../../lib/mount/mountinfo.js'
import { unmountFileSystem } from '../../lib/sys/mount.js'
import { missing } from '../support/peers.js'
import { run, within } from '../support/program.js'
import { abortConnection, clearMount } from '../support/stuck.js'

async function make(directory: string): Promise<KernelMount> {
  return await KernelMount.mount({
    source: 'test', mountpoint: directory, mode: statSync(directory).mode, flags: 0, allowOther: true, defaultPermissions: true,
  }, 1)
}

t.test('a mount whose number somebody else has got', { skip: missing('emulated') }, async t => {
  const base = mkdtempSync(join(tmpdir(), 'vfb-'))
  const [dir, other] = [join(base, 'mnt'), join(base, 'other')]
  mkdirSync(dir)
  mkdirSync(other)
  const theirs: KernelMount[] = []
  const old = await make(dir)
  try {
    t.ok(old.mounted)
    await unmountFileSystem(dir, 0)
    t.notOk(old.mounted, 'unmounted')
    // the kernel takes the lowest number that is free: somebody else's end may have freed a lower one
    for (let tries = 0; tries < 10 && theirs.at(-1)?.connection !== old.connection; tries++) theirs.push(await make(other))
    t.equal(theirs.at(-1)!.connection, old.connection, 'the number is used again')
    t.notOk(old.mounted)
    t.equal(await old.unmount(), 0)
    t.ok(theirs.every(each => each.mounted), 'the other mount stays')
    t.equal(findMount(other)?.minor, old.connection)
    old.abort()
    await t.resolves(unmountFileSystem(other, 0), 'and was not aborted')
  } finally {
    old.close()
    for (const each of theirs) {
      await clearMount(other)
      each.close()
    }
    rmSync(base, { recursive: true })
  }
})

t.test('an aborted mount is still a mount', { skip: missing('emulated') }, async t => {
  const base = mkdtempSync(join(tmpdir(), 'vfb-'))
  const mounted = await make(base)
  try {
    await abortConnection(mounted.connection)
    t.ok(mounted.mounted)
    t.equal(await mounted.unmount(), 0)
    t.notOk(mounted.mounted)
    t.not(findMount(base)?.type, FS_TYPE)
  } finally {
    mounted.close()
    await clearMount(base)
    rmSync(base, { recursive: true })
  }
})

t.test('where fusectl is not mounted, a mount that was detached is aborted all the same', { skip: missing('emulated') }, async t => {
  const base = mkdtempSync(join(tmpdir(), 'vfb-'))
  const mounted = await make(base)
  const connection = mounted.connection
  // nobody serves it: this waits for the abort
  const waiting = statfs(base).then(() => 'ok', (error: NodeJS.ErrnoException) => error.code)
  try {
    await unmountFileSystem(base, MNT_DETACH)
    t.equal(await within(200, waiting), undefined, 'it waits')
    const script = `import { abortConnection } from '${new URL('../../lib/sys/abort.js', import.meta.url)}'; abortConnection(${connection}, '${base}')`
    await run(['unshare', '--mount', 'sh', '-c', 'umount /sys/fs/fuse/connections 2>/dev/null; exec "$0" --input-type=module --eval "$1"', process.execPath, script])
    t.match(await within(5000, waiting), /^(ECONNABORTED|ENOTCONN)$/)
  } finally {
    await abortConnection(connection)
    mounted.close()
    await clearMount(base)
    rmSync(base, { recursive: true })
  }
})
