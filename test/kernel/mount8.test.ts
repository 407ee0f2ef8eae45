/** mount(8) and /etc/fstab by way of the helpers that `install` puts in place. */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { FS_TYPE } from '../../lib/mount/mountinfo.js'
import { MountNamespace } from '../support/mount-namespace.js'
import { BRIDGE, missing, noProgram } from '../support/peers.js'

const skip = missing('emulated') || noProgram('nsenter') || noProgram('unshare')
const HELPERS = ['/sbin/mount.fuse.virtiofs-bridge', '/sbin/mount.virtiofs-bridge']

interface Place {
  namespace: MountNamespace
  base: string
  source: string
  mountpoint: string
}

/** A namespace with an /sbin of its own, and a directory to mount. */
async function withPlace(t: Test, body: (place: Place) => Promise<void>): Promise<void> {
  const base = mkdtempSync(join(tmpdir(), 'vfb-'))
  const [source, mountpoint] = [join(base, 'source'), join(base, 'mount point')]
  mkdirSync(source)
  mkdirSync(mountpoint)
  writeFileSync(join(source, 'a'), 'through mount(8)\n')
  const namespace = await MountNamespace.create()
  try {
    await namespace.privatise('/usr/sbin', base)
    await namespace.run([...BRIDGE, 'install'])
    await body({ namespace, base, source, mountpoint })
    t.strictSame(namespace.mounts().filter(entry => entry.type === FS_TYPE), [], 'everything is unmounted')
  } finally {
    await namespace.try(['umount', '-l', mountpoint])
    await namespace.end()
    rmSync(base, { recursive: true })
  }
}

async function umount({ namespace, mountpoint }: Place): Promise<void> {
  await namespace.run([...BRIDGE, 'umount', mountpoint])
}

t.test('install and uninstall', { skip }, async t => {
  await withPlace(t, async ({ namespace, base }) => {
    for (const helper of HELPERS) t.ok(existsSync(namespace.path(helper)), helper)
    t.match(await namespace.try([...BRIDGE, 'install']), { exit: { code: 0 }, stdout: HELPERS.join('\n') + '\n' }, 'twice does no harm')
    t.match(await namespace.try([...BRIDGE, 'uninstall']), { exit: { code: 0 }, stdout: HELPERS.join('\n') + '\n' })
    for (const helper of HELPERS) t.notOk(existsSync(namespace.path(helper)), `${helper} is gone`)
    t.match(await namespace.try([...BRIDGE, 'uninstall']), { exit: { code: 0 }, stdout: '' }, 'nothing to do')

    const other = join(base, 'other')
    mkdirSync(other)
    const foreign = join(other, 'mount.virtiofs-bridge')
    writeFileSync(foreign, '#!/bin/sh\n')
    t.match(await namespace.try([...BRIDGE, 'install', '--directory', other]), { exit: { code: 32 }, stderr: `virtiofs-bridge: ${foreign} is not of virtiofs-bridge: left as it is\n` })
    t.match(await namespace.try([...BRIDGE, 'uninstall', '--directory', other]), { exit: { code: 0 }, stdout: '' })
    t.equal(readFileSync(foreign, 'utf8'), '#!/bin/sh\n', 'what is not ours stays')
    t.match(await namespace.try([...BRIDGE, 'install', '--directory', join(base, 'nowhere')]), { exit: { code: 32 }, stderr: /does not exist/ })
  })
})

t.test('mount -t, umount, and what is refused', { skip }, async t => {
  await withPlace(t, async place => {
    const { namespace, source, mountpoint } = place
    for (const type of ['fuse.virtiofs-bridge', 'virtiofs-bridge']) {
      const mounted = await namespace.try(['mount', '-v', '-t', type, source, mountpoint, '-o', 'noatime,xattr,nofail,x-systemd.automount,comment=hello'])
      t.match(mounted, { exit: { code: 0 }, stderr: '' }, type)
      t.match(mounted.stdout, `mounting ${source} on ${mountpoint}`, '-v says what is done')
      t.equal(await readFile(namespace.path(join(mountpoint, 'a')), 'utf8'), 'through mount(8)\n', 'usable when mount returns')
      t.match(namespace.mounts().findLast(entry => entry.mountpoint === mountpoint), { type: FS_TYPE, source })
      const remount = await namespace.try(['mount', '-o', 'remount,ro', mountpoint])
      t.match(remount, { exit: { code: 1 }, stderr: 'virtiofs-bridge: a mount cannot be changed by remount: unmount it and mount it again\n' })
      t.match(await namespace.try(['umount', mountpoint]), { exit: { code: 0 }, stderr: '' })
    }
    const wrong = await namespace.try(['mount', '-t', 'fuse.virtiofs-bridge', source, mountpoint, '-o', 'glub'])
    t.match(wrong, { exit: { code: 1 }, stderr: 'virtiofs-bridge: unknown option "glub"\n' })
    t.match(await namespace.try(['mount', '-t', 'fuse.virtiofs-bridge', join(source, 'nothing'), mountpoint]), { exit: { code: 32 }, stderr: /no such directory/ })

    t.match(await namespace.try(['mount', '-s', '-t', 'fuse.virtiofs-bridge', source, mountpoint, '-o', 'glub,ro']), { exit: { code: 0 }, stderr: '' }, '-s: sloppy')
    t.match(await namespace.try(['touch', join(mountpoint, 'b')]), { exit: { code: 1 }, stderr: /Read-only/ })
    await umount(place)

    t.match(await namespace.try(['mount', '-f', '-v', '-t', 'fuse.virtiofs-bridge', source, mountpoint]), { exit: { code: 0 }, stdout: /would mount/ }, '-f: fake')
    t.equal(namespace.mounts().find(entry => entry.mountpoint === mountpoint), undefined)
    t.match(await namespace.try(['mount', '-f', '-t', 'fuse.virtiofs-bridge', source, mountpoint, '-o', 'glub']), { exit: { code: 1 } }, 'which looks at the options')
    t.match(await namespace.try(['mount', '-n', '-t', 'fuse.virtiofs-bridge', source, mountpoint]), { exit: { code: 0 } }, '-n')
    await umount(place)
    t.match(await namespace.try(['/sbin/mount.virtiofs-bridge', source]), { exit: { code: 1 }, stderr: /usage/ })
    t.match(await namespace.try(['/sbin/mount.virtiofs-bridge', source, mountpoint, '-t', 'fuse.sshfs']), { exit: { code: 1 }, stderr: /not fuse\.virtiofs-bridge/ })
  })
})

t.test('mount -N: in another mount namespace', { skip }, async t => {
  await withPlace(t, async place => {
    const { namespace, source, mountpoint } = place
    const other = await MountNamespace.create()
    try {
      t.match(await namespace.try(['mount', '-N', String(other.pid), '-t', 'fuse.virtiofs-bridge', source, mountpoint]), { exit: { code: 0 }, stderr: '' })
      t.equal(namespace.mounts().find(entry => entry.mountpoint === mountpoint), undefined, 'not here')
      t.equal(await readFile(other.path(join(mountpoint, 'a')), 'utf8'), 'through mount(8)\n', 'there')
      t.match(await other.try(['umount', mountpoint]), { exit: { code: 0 } })
    } finally {
      await other.end()
    }
  })
})

t.test('/etc/fstab: mount DIR, mount -a, umount', { skip }, async t => {
  await withPlace(t, async place => {
    const { namespace, base, source, mountpoint } = place
    const fstab = join(base, 'fstab')
    writeFileSync(fstab, [
      `${source}  ${mountpoint.replaceAll(' ', '\\040')}  fuse.virtiofs-bridge  xattr,nofail,noauto,x-systemd.automount  0  0`,
      '',
    ].join('\n'))
    await namespace.run(['mount', '--bind', fstab, '/etc/fstab'])
    t.match(await namespace.try(['mount', '-a']), { exit: { code: 0 }, stderr: '' }, 'noauto')
    t.equal(namespace.mounts().find(entry => entry.mountpoint === mountpoint), undefined)
    t.match(await namespace.try(['mount', mountpoint]), { exit: { code: 0 }, stderr: '' }, 'mount DIR')
    t.match(await namespace.try(['umount', mountpoint]), { exit: { code: 0 }, stderr: '' })
    writeFileSync(fstab, readFileSync(fstab, 'utf8').replace('noauto,', ''))
    for (const time of ['once', 'twice']) t.match(await namespace.try(['mount', '-a']), { exit: { code: 0 }, stderr: '' }, `mount -a ${time}`)
    t.equal(namespace.mounts().filter(entry => entry.mountpoint === mountpoint).length, 1, 'mounted once')
    t.equal(await readFile(namespace.path(join(mountpoint, 'a')), 'utf8'), 'through mount(8)\n')
    t.match(await namespace.try(['umount', mountpoint]), { exit: { code: 0 }, stderr: '' })
  })
})

t.test('mount.fuse3 of fuse3, without our helpers', { skip: skip || noProgram('mount.fuse3') }, async t => {
  await withPlace(t, async place => {
    const { namespace, base, source, mountpoint } = place
    await namespace.run([...BRIDGE, 'uninstall'])
    const command = join(base, 'virtiofs-bridge')
    writeFileSync(command, `#!/bin/sh\nexec ${BRIDGE.join(' ')} "$@"\n`, { mode: 0o755 })
    await namespace.run(['cp', '-p', command, '/usr/sbin'])
    t.match(await namespace.try(['mount', '-t', 'fuse.virtiofs-bridge', source, mountpoint, '-o', 'ro,nosuid']), { exit: { code: 0 }, stderr: '' })
    t.equal(await readFile(namespace.path(join(mountpoint, 'a')), 'utf8'), 'through mount(8)\n')
    await umount(place)
  })
})
