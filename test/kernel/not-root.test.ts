/** Mounts without root: by fusermount3, in a user namespace, on a descriptor that the parent has mounted. */
import { chmodSync, chownSync, closeSync, existsSync, mkdirSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { KernelMount } from '../../lib/mount/dev-fuse.js'
import { liveMounts } from '../../lib/mount/live-tags.js'
import { findMount, FS_TYPE } from '../../lib/mount/mountinfo.js'
import { MountNamespace } from '../support/mount-namespace.js'
import { untilUsable } from '../support/mounts.js'
import { BRIDGE, missing, noProgram } from '../support/peers.js'
import { Program, runToEnd } from '../support/program.js'

/** One that every system has, with a name: fusermount3 asks for it. */
const NOBODY = 65534
const NO_HANDLES = /^virtiofs-bridge: .*(file handles|CAP_DAC_READ_SEARCH)/m

function whyNot(): string | false {
  const reason = missing('emulated') || noProgram('setpriv') || noProgram('fusermount3')
  if (reason) return reason
  // every directory above the command has to let others pass
  for (let path = BRIDGE[1]!; path !== '/'; path = join(path, '..')) {
    if ((statSync(path).mode & (path === BRIDGE[1] ? 4 : 1)) === 0) return `${path} is closed to other users`
  }
  return false
}

const skip = whyNot()

interface Place {
  namespace: MountNamespace
  base: string
  source: string
  mountpoint: string
  /** What to put before a command that nobody runs. */
  nobody: string[]
}

/** Directories of nobody's, in a namespace where everybody may open /dev/fuse, as on most systems. */
async function withPlace(t: Test, body: (place: Place) => Promise<void>): Promise<void> {
  const base = mkdtempSync(join(tmpdir(), 'vfb-'))
  const [source, mountpoint, own, runtime] = ['source', 'mount', 'own', 'run'].map(name => join(base, name)) as [string, string, string, string]
  for (const path of [source, mountpoint, own, runtime]) mkdirSync(path)
  writeFileSync(join(source, 'a'), 'not root\n')
  for (const path of [source, mountpoint, runtime, join(source, 'a')]) chownSync(path, NOBODY, NOBODY)
  chmodSync(base, 0o755)
  const namespace = await MountNamespace.create()
  const nobody = ['setpriv', `--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups', 'env', '-i', `PATH=${process.env['PATH']}`, `XDG_RUNTIME_DIR=${runtime}`, `TMPDIR=${runtime}`]
  try {
    await namespace.run(['mount', '-t', 'tmpfs', 'tmpfs', own])
    await namespace.run(['mknod', '--mode=666', join(own, 'fuse'), 'c', '10', '229'])
    await namespace.run(['mount', '--bind', join(own, 'fuse'), '/dev/fuse'])
    await body({ namespace, base, source, mountpoint, nobody })
    t.strictSame(namespace.mounts().filter(entry => entry.type === FS_TYPE && entry.mountpoint.startsWith(base)), [], 'everything is unmounted')
  } finally {
    await namespace.try(['umount', '-l', mountpoint])
    await namespace.end()
    rmSync(base, { recursive: true })
  }
}

t.test('by fusermount3', { skip }, async t => {
  await withPlace(t, async ({ namespace, source, mountpoint, nobody }) => {
    const mounted = await namespace.try([...nobody, ...BRIDGE, source, mountpoint, '-o', 'noatime'])
    t.match(mounted, { exit: { code: 0 }, stderr: NO_HANDLES })
    t.match(mounted.stderr, /not root: new files belong to the user of the device/, 'what cannot be done is said')
    t.match(namespace.mounts().findLast(entry => entry.mountpoint === mountpoint), { type: FS_TYPE, source, superOptions: /user_id=65534/ })
    const dir = namespace.path(mountpoint)
    t.match(await namespace.try([...nobody, 'cat', join(mountpoint, 'a')]), { exit: { code: 0 }, stdout: 'not root\n' })
    // nobody asks anything else meanwhile
    t.match(await namespace.try([...nobody, 'timeout', '-s', 'KILL', '10', 'fallocate', '-l', '5000', join(mountpoint, 'a')]), { exit: { code: 0 } }, 'what another thread of the device does is answered')
    await t.rejects(readFile(join(dir, 'a')), { code: 'EACCES' }, 'others are not let in, root neither')
    t.match(await namespace.try([...nobody, ...BRIDGE, 'umount', mountpoint]), { exit: { code: 0 }, stderr: '' })

    const other = await namespace.try([...nobody, ...BRIDGE, source, mountpoint, '-o', 'allow_other'])
    if (!/^user_allow_other/m.test(readFileSync('/etc/fuse.conf', 'utf8'))) {
      t.match(other, { exit: { code: 1 }, stderr: /user_allow_other/ }, 'allow_other is the administrator\'s to allow')
    }
    t.match(await namespace.try([...nobody, ...BRIDGE, source, mountpoint]), { exit: { code: 0 } })
    const next = JSON.parse((await namespace.try([...nobody, ...BRIDGE, 'status', mountpoint, '--json'])).stdout) as { pid: number }
    process.kill(next.pid, 'SIGKILL')
    while (existsSync(`/proc/${next.pid}`)) await sleep(10)
    t.match(await namespace.try([...nobody, ...BRIDGE, source, mountpoint]), { exit: { code: 0 } }, 'a dead mount is cleared away')
    t.match(await namespace.try([...nobody, 'cat', join(mountpoint, 'a')]), { stdout: 'not root\n' })
    t.match(await namespace.try([...nobody, ...BRIDGE, 'umount', mountpoint]), { exit: { code: 0 }, stderr: '' })

    t.match(await namespace.try([...nobody, ...BRIDGE, source, mountpoint, '-o', 'low_latency']), { exit: { code: 1 }, stderr: /^virtiofs-bridge: option low_latency: \/dev\/cpu_dma_latency cannot be opened \((EACCES|ENOENT)\)[^\n]*\n$/ })
    t.match(await namespace.try([...nobody, ...BRIDGE, source, mountpoint, '-o', 'readahead=1M']), { exit: { code: 0 }, stderr: /^virtiofs-bridge: option readahead has no effect: permission denied \(EACCES\)$/m })
    t.match(await namespace.try([...nobody, ...BRIDGE, 'umount', mountpoint]), { exit: { code: 0 }, stderr: '' })

    t.match(await namespace.try([...BRIDGE, source, mountpoint]), { exit: { code: 0 } })
    t.match(await namespace.try([...nobody, ...BRIDGE, source, mountpoint]), { exit: { code: 32 }, stderr: /^virtiofs-bridge: \S+ is already mounted/ }, 'what root has mounted')
    t.match(await namespace.try([...nobody, ...BRIDGE, 'umount', mountpoint]), { exit: { code: 1 }, stderr: `virtiofs-bridge: no right to unmount ${mountpoint} (EPERM)\n` }, 'what root has mounted')
    t.match(await namespace.try([...BRIDGE, 'umount', mountpoint]), { exit: { code: 0 }, stderr: '' })
    t.match(await namespace.try([...nobody, ...BRIDGE, source, '/']), { exit: { code: 1 }, stderr: /^virtiofs-bridge: fusermount3: .*write access/ }, 'not on a directory of others')
  })
})

t.test('by libfuse 2 and fusermount', { skip: skip || noProgram('fusermount') || (process.arch !== 'x64' && 'fuse-native has a binary for x64 only') }, async t => {
  await withPlace(t, async ({ namespace, source, mountpoint, nobody }) => {
    t.match(await namespace.try([...nobody, ...BRIDGE, source, mountpoint, '-o', 'via=fuse-native,noatime']), { exit: { code: 0 }, stderr: NO_HANDLES })
    t.match(namespace.mounts().findLast(entry => entry.mountpoint === mountpoint), { type: FS_TYPE, source, superOptions: /user_id=65534/ })
    const script = 'cat a && echo new >b && stat -c %u b && mkdir d && mv b d/c && cat d/c'
    t.match(await namespace.try([...nobody, 'sh', '-c', `cd ${mountpoint} && ${script}`]), { exit: { code: 0 }, stdout: 'not root\n65534\nnew\n' })
    await t.rejects(readFile(join(namespace.path(mountpoint), 'a')), { code: 'EACCES' }, 'others are not let in, root neither')
    t.match(await namespace.try([...nobody, ...BRIDGE, 'umount', mountpoint]), { exit: { code: 0 }, stderr: '' })
    t.match(await namespace.try([...nobody, ...BRIDGE, source, '/', '-o', 'via=fuse-native']), { exit: { code: 1 }, stderr: /^virtiofs-bridge: libfuse cannot mount on \/: .*fusermount.*directory of others/m }, 'not on a directory of others')
  })
})

t.test('by mount(8), with user in /etc/fstab', { skip: skip || ((statSync('/usr/bin/mount').mode & 0o4000) === 0 && 'mount(8) is not setuid') }, async t => {
  await withPlace(t, async ({ namespace, base, source, mountpoint, nobody }) => {
    await namespace.privatise('/usr/sbin', base)
    await namespace.run([...BRIDGE, 'install'])
    writeFileSync(join(base, 'fstab'), `${source} ${mountpoint} fuse.virtiofs-bridge noauto,user 0 0\n`)
    await namespace.run(['mount', '--bind', join(base, 'fstab'), '/etc/fstab'])
    t.match(await namespace.try([...nobody, 'mount', mountpoint]), { exit: { code: 0 } })
    t.match(await namespace.try([...nobody, 'cat', join(mountpoint, 'a')]), { exit: { code: 0 }, stdout: 'not root\n' })
    t.match(await namespace.try([...nobody, 'umount', mountpoint]), { exit: { code: 0 }, stderr: '' })
  })
})

t.test('in a user namespace of its own', { skip: skip || noProgram('unshare') }, async t => {
  await withPlace(t, async ({ namespace, source, mountpoint, nobody }) => {
    const script = `"$@" && cat ${mountpoint}/a && echo new >${mountpoint}/b && stat -c %u ${mountpoint}/b && ${BRIDGE.join(' ')} umount ${mountpoint} && echo unmounted`
    const ran = await namespace.try([...nobody, 'unshare', '--user', '--map-root-user', '--mount', 'sh', '-c', script, 'sh', ...BRIDGE, source, mountpoint])
    t.match(ran, { exit: { code: 0 }, stdout: 'not root\n0\nunmounted\n', stderr: NO_HANDLES })
    t.equal(statSync(join(source, 'b')).uid, NOBODY, 'root of the namespace is the user outside')
  })
})

t.test('in a user namespace, a group that it does not have', { skip: skip || noProgram('unshare') }, async t => {
  await withPlace(t, async ({ namespace, source, mountpoint, nobody }) => {
    const script = `"$@" && { mkdir ${mountpoint}/b; true >${mountpoint}/c; cat ${mountpoint}/a; ${BRIDGE.join(' ')} umount ${mountpoint}; }`
    const mount = [...BRIDGE, source, mountpoint, '-o', 'translate_gid=guest:0:4000:1']
    const ran = await namespace.try([...nobody, 'unshare', '--user', '--map-root-user', '--mount', 'sh', '-c', script, 'sh', ...mount])
    t.match(ran, { exit: { code: 0 }, stdout: 'not root\n', stderr: /b.*: Operation not permitted\n(.|\n)*c: Operation not permitted/ })
    t.strictSame(readdirSync(source), ['a'], 'nothing was made with another group')
  })
})

async function withFd(body: (fd: number, dir: string, source: string) => Promise<void>): Promise<void> {
  const base = mkdtempSync(join(tmpdir(), 'vfb-'))
  const [source, dir] = [join(base, 'source'), join(base, 'mount')]
  mkdirSync(source)
  mkdirSync(dir)
  writeFileSync(join(source, 'a'), 'given\n')
  const kernel = await KernelMount.mount({ source, mountpoint: dir, mode: 0o40755, flags: 0, allowOther: true, defaultPermissions: true }, 1)
  try {
    await body(kernel.fuseFds[0]!, dir, source)
  } finally {
    await kernel.unmount(true)
    kernel.close()
    rmSync(base, { recursive: true })
  }
}

t.test('/dev/fd/N: the parent has mounted it', { skip: missing('emulated') }, async t => {
  await withFd(async (fd, dir, source) => {
    const bridge = new Program([...BRIDGE, source, '/dev/fd/3', '-f', '-o', 'queues=2'], { fds: [fd] })
    await untilUsable(dir, bridge)
    t.equal(await readFile(join(dir, 'a'), 'utf8'), 'given\n')
    await writeFile(join(dir, 'b'), 'b')
    // before that it counts as interrupted
    while (!liveMounts().some(live => live.mountpoint === dir)) await sleep(10)
    bridge.child.kill('SIGTERM')
    t.match(await bridge.endsWithin(20_000), { code: 0 })
    t.equal(findMount(dir), undefined, 'root unmounts it by itself')
    t.equal(bridge.stderr, '')
  })
  await withFd(async (fd, dir, source) => {
    const started = await runToEnd([...BRIDGE, source, '/dev/fd/3'], { fds: [fd], timeoutMs: 30_000 })
    t.match(started, { exit: { code: 0 }, stderr: '' }, 'in the background')
    t.equal(await readFile(join(dir, 'a'), 'utf8'), 'given\n')
    t.match(await runToEnd([...BRIDGE, 'umount', dir], { timeoutMs: 30_000 }), { exit: { code: 0 }, stderr: '' })
  })
})

t.test('/dev/fd/N that is none', { skip: missing('emulated') }, async t => {
  const fd = openSync('/dev/null', 'r')
  try {
    t.match(await runToEnd([...BRIDGE, tmpdir(), '/dev/fd/3', '-f'], { fds: [fd] }), { exit: { code: 32 }, stderr: 'virtiofs-bridge: /dev/fd/3 is not /dev/fuse\n' })
    t.match(await runToEnd([...BRIDGE, tmpdir(), '/dev/fd/77'], {}), { exit: { code: 32 }, stderr: 'virtiofs-bridge: /dev/fd/77: there is no such descriptor\n' })
  } finally {
    closeSync(fd)
  }
})

t.test('mount.fuse3 -o drop_privileges', { skip: skip || noProgram('mount.fuse3') }, async t => {
  await withPlace(t, async ({ namespace, base, source, mountpoint }) => {
    await namespace.privatise('/usr/sbin', base)
    writeFileSync(join(base, 'virtiofs-bridge'), `#!/bin/sh\necho $$ >${base}/pid\nexec ${BRIDGE.join(' ')} "$@" -f\n`, { mode: 0o755 })
    await namespace.run(['cp', '-p', join(base, 'virtiofs-bridge'), '/usr/sbin'])
    chmodSync(join(source, 'a'), 0o644)
    const bridge = new Program([...namespace.prefix, 'mount.fuse3', source, mountpoint, '-t', 'fuse.virtiofs-bridge', '-o', 'drop_privileges,default_permissions'])
    try {
      const cat = async (): Promise<Program> => await namespace.try(['cat', join(mountpoint, 'a')])
      let read = await cat()
      for (let tries = 0; read.exit?.code !== 0 && tries < 100 && bridge.alive; tries++) read = await cat()
      t.match(read, { stdout: 'not root\n' })
      while (!liveMounts().some(live => live.mountpoint === mountpoint)) await sleep(10)
      // a shell stands between
      const pid = Number(readFileSync(join(base, 'pid'), 'utf8'))
      t.match(readFileSync(`/proc/${pid}/status`, 'utf8'), /^CapEff:\t0+$/m, 'with no privileges')
      process.kill(pid, 'SIGTERM')
      t.match(await bridge.endsWithin(20_000), { code: 0 }, 'it ends')
      t.match(bridge.stderr, /\(EPERM\); whoever may has to unmount it/, 'and says that it could not unmount')
      t.match(await cat(), { stderr: /not connected/ })
      t.match(await namespace.try(['umount', mountpoint]), { exit: { code: 0 } })
    } finally {
      await bridge.kill()
    }
  })
})
