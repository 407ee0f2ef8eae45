/** What the command says when the system lacks something, or the device refuses the mount: one line, the exit code of mount(8), and nothing left. */
import { writeFileSync } from 'node:fs'
import { constants } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { FaultControl, mount } from '../../lib/index.js'
import { BRIDGE, missing } from '../support/peers.js'
import { runToEnd, type Program } from '../support/program.js'
import { eventually, inScene, type Scene } from '../support/scene.js'

const skip = missing('emulated')

/** Runs the command after some preparation by a shell, in a mount namespace of its own. */
async function runBehind(scene: Scene, script: string): Promise<Program> {
  return await runToEnd(['unshare', '--mount', '--propagation', 'private', 'sh', '-ec', `${script}\nexec "$@"`, 'sh', ...BRIDGE, scene.source, scene.dir], { env: scene.env })
}

/** A virtiofsd that kills who started it. */
function killsItsParent(scene: Scene): string {
  const path = join(scene.base, 'virtiofsd')
  writeFileSync(path, '#!/bin/sh\nkill -9 $PPID\n', { mode: 0o755 })
  return path
}

/** A /dev with the usual devices, and without FUSE. */
const WITHOUT_FUSE = `
  mkdir "$XDG_RUNTIME_DIR/../dev"
  cd "$XDG_RUNTIME_DIR/../dev"
  for name in null zero full random urandom; do touch $name; mount --bind /dev/$name $name; done
  mount --rbind . /dev
  cd /`

t.test('no /dev/fuse', { skip }, async t => {
  await inScene(async scene => {
    const program = await runBehind(scene, WITHOUT_FUSE)
    t.match(program, { exit: { code: 32 }, stdout: '', stderr: 'virtiofs-bridge: /dev/fuse: ENOENT: the kernel\'s fuse module is not there (modprobe fuse)\n' })
    t.ok(await eventually(() => scene.leftovers().length === 0, 5000), scene.leftovers().join())
  })
})

t.test('a /dev/fuse that is something else', { skip }, async t => {
  await inScene(async scene => {
    const program = await runBehind(scene, 'mount --bind /dev/null /dev/fuse')
    t.match(program, { exit: { code: 32 }, stdout: '', stderr: /^virtiofs-bridge: [^\n]*\n$/ })
    t.ok(await eventually(() => scene.leftovers().length === 0, 5000), scene.leftovers().join())
  })
})

t.test('not root, and no fusermount3', { skip }, async t => {
  await inScene(async scene => {
    // a user namespace without a map: nobody, but one who may read all this
    const asNobody = ['unshare', '--user']
    const possible = await runToEnd([...asNobody, 'true'])
    if (possible.exit?.code !== 0) return t.comment(`no user namespaces here: ${possible.stderr.trim()}`)
    const program = await runToEnd([...asNobody, 'env', `PATH=${scene.base}`, ...BRIDGE, scene.source, scene.dir], { env: scene.env })
    t.match(program, { exit: { code: 1 }, stdout: '' })
    t.match(program.stderr, /^(virtiofs-bridge: [^\n]*\n)*virtiofs-bridge: not root, and fusermount3 is not installed \(package fuse3\)\n$/)
    t.ok(await eventually(() => scene.leftovers().length === 0, 5000), scene.leftovers().join())
  })
})

t.test('no descriptors for the process that serves', { skip }, async t => {
  await inScene(async scene => {
    for (const limit of [23, 24, 25]) {
      const program = await runToEnd(['sh', '-c', `ulimit -n ${limit}; exec "$@"`, 'sh', ...BRIDGE, scene.source, scene.dir], { env: scene.env })
      // with a few less Node cannot load its modules and says so in its own way
      t.notMatch(program.stderr, /child\.send|spawnargs|Emitted 'error' event/, `${limit} descriptors`)
      if (program.exit?.code === 0) t.match(await scene.run('umount', scene.dir), { exit: { code: 0 } })
    }
    t.ok(await eventually(() => scene.leftovers().length === 0, 5000), scene.leftovers().join())
  })
})

t.test('a process that dies before its mount is usable', { skip }, async t => {
  await inScene(async scene => {
    const program = await scene.run(scene.source, scene.dir, '-o', `backend=virtiofsd,virtiofsd=${killsItsParent(scene)}`)
    t.match(program, { exit: { code: 32 }, stdout: '', stderr: /^virtiofs-bridge: the process that was to serve the mount died of SIGKILL\n$/ })
    // its tag is free whatever the file of it says
    t.ok(await eventually(() => scene.processes().length + scene.mounts().length === 0, 5000))
  })
})

t.test('a runtime directory in which nothing can be made', { skip }, async t => {
  await inScene(async scene => {
    for (const path of ['/dev/null', '/proc']) {
      const program = await runToEnd(['env', `XDG_RUNTIME_DIR=${path}`, ...BRIDGE, 'status', '/nowhere'], { timeoutMs: 20_000 })
      t.match(program, { exit: { code: 32 }, stdout: '', stderr: /^virtiofs-bridge: [^\n]*\n$/ }, path)
    }
    t.strictSame(scene.leftovers(), [])
  })
})

t.test('a device that refuses INIT', { skip }, async t => {
  await inScene(async scene => {
    writeFileSync(join(scene.source, 'a'), 'b')
    const faults = new FaultControl()
    const request = { source: scene.source, mountpoint: scene.dir, faults, options: { tag: `refused-${process.pid}` } }
    faults.failNext('INIT', constants.errno.EPERM)
    await t.rejects(mount(request), {
      name: 'PeerGoneError', message: /^the device refused FUSE_INIT \(EPERM\); it may have been started with an option that needs one of the flags not offered here: .*\bSUBMOUNTS\b/,
    }, 'says which flags it was not offered')
    t.strictSame(scene.mounts(), [])
    const mounted = await mount(request)
    t.strictSame(scene.mounts(), [scene.dir], 'the tag and the place are free')
    await mounted.unmount()
  })
})
