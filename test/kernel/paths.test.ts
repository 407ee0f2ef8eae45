/** Paths that are relative: by the directory of whoever mounts, however long the mount lives and wherever it is shown. */
import { chmodSync, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { findMount } from '../../lib/mount/mountinfo.js'
import { BRIDGE, missing, peerPath, startBackend } from '../support/peers.js'
import { processTree, runToEnd, signal, type Program } from '../support/program.js'
import { eventually, inScene, type Scene } from '../support/scene.js'

const RUST = 'virtiofsd-rust'

/** Runs the command in the scene's own directory, where its source is `src` and its mount point `mnt`. */
async function runThere(scene: Scene, args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Program> {
  return await runToEnd([...BRIDGE, ...args], { cwd: scene.base, env: { ...scene.env, ...env }, timeoutMs: 30_000 })
}

async function mounts(t: Test, scene: Scene, args: readonly string[], env?: NodeJS.ProcessEnv): Promise<void> {
  t.match(await runThere(scene, args, env), { exit: { code: 0 }, stdout: '', stderr: '' }, args.join(' '))
}

async function sourceOf(scene: Scene): Promise<string> {
  return (JSON.parse((await scene.run('status', scene.dir, '--json')).stdout) as { source: string }).source
}

async function unmounts(t: Test, scene: Scene): Promise<void> {
  t.match(await runThere(scene, ['umount', 'mnt']), { exit: { code: 0 }, stderr: '' })
  t.ok(await eventually(() => scene.leftovers().length === 0), scene.leftovers().join('; '))
}

for (const more of ['', ',supervise', ',via=fuse-native']) {
  t.test(`a directory and files beside it${more}`, { skip: missing('emulated') || (more === ',via=fuse-native' && process.arch !== 'x64' && 'fuse-native has a binary for x64 only') }, async t => {
    await inScene(async scene => {
      writeFileSync(join(scene.source, 'a'), 'a')
      await mounts(t, scene, ['src', 'mnt', '-o', `log=log,trace_json=trace${more === ',via=fuse-native' ? '' : ',audit=audit'}${more}`])
      t.equal(findMount(scene.dir)?.source, scene.source, 'the mount table has it from the root')
      t.equal(await sourceOf(scene), scene.source, 'and status')
      t.equal(scene.live().source, scene.source)
      t.match(await runThere(scene, ['src', 'mnt']), { exit: { code: 32 }, stderr: `virtiofs-bridge: mnt is already mounted (${scene.source})\n` })
      await readFile(join(scene.dir, 'a'))
      await unmounts(t, scene)
      t.match(readFileSync(join(scene.base, 'log'), 'utf8'), new RegExp(`${scene.source} is mounted\n.*: ended\n$`, 's'), 'the log goes on after the process has gone to /')
      t.match(readFileSync(join(scene.base, 'trace'), 'utf8'), '"freed"')
      if (more !== ',via=fuse-native') t.match(readFileSync(join(scene.base, 'audit'), 'utf8'), '"path":"/a"')
      for (const name of ['log', 'trace', 'audit']) t.notOk(existsSync(`/${name}`), `/${name}`)
    })
  })
}

t.test('fsname, and what is no path, is shown as it was given', { skip: missing('emulated') }, async t => {
  await inScene(async scene => {
    await mounts(t, scene, ['./src/../src', 'mnt', '-o', 'fsname=src'])
    t.equal(findMount(scene.dir)?.source, 'src')
    t.equal(await sourceOf(scene), scene.source, 'status says what it is')
    await unmounts(t, scene)
    await mounts(t, scene, [`exec:${BRIDGE.join(' ')} relay src`, 'mnt'])
    t.equal(findMount(scene.dir)?.source, `exec:${BRIDGE.join(' ')} relay src`)
    await unmounts(t, scene)
  })
})

t.test('an empty source or mount point is not the current directory, with supervise neither', { skip: missing('emulated') }, async t => {
  await inScene(async scene => {
    t.match(await runThere(scene, ['', 'mnt', '-o', 'supervise']), { exit: { code: 1 }, stderr: 'virtiofs-bridge: the source is empty\n' })
    t.match(await runThere(scene, ['src', '', '-o', 'supervise']), { exit: { code: 1 }, stderr: 'virtiofs-bridge: the mount point is empty\n' })
    t.strictSame(scene.leftovers(), [])
  })
})

t.test('a socket', { skip: missing(RUST) }, async t => {
  await inScene(async scene => {
    const ways: [args: string[], shown: string][] = [
      [['unix:vhost.sock', 'mnt', '-o', 'on_disconnect=wait'], `unix:${scene.socket}`], [['vhost.sock', 'mnt', '-o', 'on_disconnect=wait'], scene.socket],
      [['atag', 'mnt', '-o', 'socket=vhost.sock,on_disconnect=wait'], 'atag'],
    ]
    for (const [args, shown] of ways) {
      const first = startBackend(RUST, scene.source, scene.socket)
      await mounts(t, scene, args)
      t.equal(findMount(scene.dir)?.source, shown)
      await first.kill()
      rmSync(scene.socket)
      const second = startBackend(RUST, scene.source, scene.socket)
      writeFileSync(join(scene.source, 'b'), shown)
      t.equal(await readFile(join(scene.dir, 'b'), 'utf8'), shown, 'it is found again there')
      await unmounts(t, scene)
      t.ok(await second.endsWithin(10_000))
      rmSync(scene.socket)
    }
  })
})

t.test('programs that are started again later', { skip: missing(RUST) }, async t => {
  await inScene(async scene => {
    const program = (name: string, command: string): void => {
      writeFileSync(join(scene.base, name), `#!/bin/sh\nexec ${command}\n`)
      chmodSync(join(scene.base, name), 0o755)
    }
    program('vfsd', `${peerPath(RUST)} "$@"`)
    program('far', `env -u NODE_OPTIONS ${BRIDGE.join(' ')} relay "$1"`)
    const ways: [args: string[], env?: NodeJS.ProcessEnv][] = [
      [['src', 'mnt', '-o', 'backend=virtiofsd,virtiofsd=vfsd,on_disconnect=wait']],
      [['src', 'mnt', '-o', 'backend=virtiofsd,on_disconnect=wait'], { VIRTIOFSD: './vfsd' }],
      [['exec:./far src', 'mnt', '-o', 'on_disconnect=wait']],
    ]
    for (const [args, env] of ways) {
      await mounts(t, scene, args, env)
      const [, ...below] = processTree(scene.live().pid)
      t.ok(below.length > 0, 'a process of its own')
      for (const pid of below) signal(pid, 'SIGKILL')
      writeFileSync(join(scene.source, 'c'), args[0]!)
      t.equal(await readFile(join(scene.dir, 'c'), 'utf8'), args[0], 'it is found again')
      await unmounts(t, scene)
    }
  })
})
