/** Mounts through fuse-native: what libfuse 2 makes hard, how they end, and what is said when it cannot be. */
import { chmodSync, cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { lstat, mkdir, open, readdir, readFile, rename, rmdir, stat, statfs, unlink, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { mount, serveDevice, type ServedDevice } from '../../lib/index.js'
import { findMount, FS_TYPE } from '../../lib/mount/mountinfo.js'
import { parseMountOptions } from '../../lib/mount/options.js'
import { MountNamespace } from '../support/mount-namespace.js'
import { withMount, type LiveMount, type MountSettings } from '../support/mounts.js'
import { BRIDGE, missing, noProgram, type Peer } from '../support/peers.js'
import { processTree, run, signal, within } from '../support/program.js'
import { eventually, Scene } from '../support/scene.js'
import { packageRoot } from '../support/vhost-user-session.js'

const VIA = 'via=fuse-native'
const SETTINGS: [name: string, peer: Peer, settings: MountSettings][] = [
  ['emulated', 'emulated', { peer: 'emulated', options: [VIA] }],
  ['virtiofsd-rust', 'virtiofsd-rust', { peer: 'virtiofsd-rust', options: [VIA] }],
]

// of tap, for this process and not for those that mounts start
delete process.env['NODE_OPTIONS']

function skipped(peer: Peer): string | false {
  if (process.arch !== 'x64') return 'fuse-native has a binary for x64 only'
  return missing(peer)
}

async function files(t: Test, { dir, source }: LiveMount): Promise<void> {
  await writeFile(join(dir, 'f'), 'hello')
  t.equal(readFileSync(join(source, 'f'), 'utf8'), 'hello')
  await writeFile(join(dir, 'large'), Buffer.alloc(5_000_003, 'abcdefg'))
  t.ok(readFileSync(join(source, 'large')).equals(Buffer.alloc(5_000_003, 'abcdefg')), 'written')
  t.ok((await readFile(join(dir, 'large'))).equals(Buffer.alloc(5_000_003, 'abcdefg')), 'read')
  const [here, there] = [await lstat(join(dir, 'f'), { bigint: true }), statSync(join(source, 'f'), { bigint: true })]
  for (const key of ['ino', 'mode', 'nlink', 'uid', 'gid', 'size', 'blocks', 'mtimeNs', 'ctimeNs'] as const) t.equal(here[key], there[key], key)
  await utimes(join(dir, 'f'), 1000.25, 2000.5)
  t.strictSame([statSync(join(source, 'f')).atimeMs, statSync(join(source, 'f')).mtimeMs], [1000250, 2000500], 'both times arrive')
  const [space, hostSpace] = [await statfs(dir), await statfs(source)]
  t.strictSame([space.blocks, space.bsize, space.files], [hostSpace.blocks, hostSpace.bsize, hostSpace.files], 'statfs')
}

async function names(t: Test, { dir, source }: LiveMount): Promise<void> {
  const raw = Buffer.concat([Buffer.from(join(dir, 'raw-')), Buffer.from([0xff, 0xfe])])
  await writeFile(raw, 'bytes')
  t.equal((await readFile(raw)).toString(), 'bytes')
  const listed = (directory: string): string[] => readdirSync(Buffer.from(directory), { encoding: 'latin1' }).sort()
  t.strictSame(listed(dir), listed(source), 'names that are not UTF-8')
  await rename(raw, join(dir, 'a,b\\c'))
  await mkdir(join(dir, 'many'))
  for (let i = 0; i < 300; i++) writeFileSync(join(source, 'many', `${'n'.repeat(200)}${i}`), '')
  const entries = await readdir(join(dir, 'many'), { withFileTypes: true })
  t.equal(entries.filter(entry => entry.isFile()).length, 300, 'all of a large directory, with types')
}

async function removedWhileOpen(t: Test, { dir, source }: LiveMount): Promise<void> {
  await mkdir(join(dir, 'd'))
  const path = join(dir, 'd', 'f')
  const file = await open(path, 'w+')
  await file.write('still there')
  await unlink(path)
  t.strictSame([readdirSync(join(source, 'd')), await readdir(join(dir, 'd'))], [[], []], 'no .fuse_hidden file anywhere')
  t.equal((await file.stat()).nlink, 0)
  await file.write('!', 11)
  await file.chmod(0o600)
  t.equal((await file.read(Buffer.alloc(20), 0, 20, 0)).buffer.toString('utf8', 0, 12), 'still there!')
  await writeFile(path, 'another')
  t.equal((await file.read(Buffer.alloc(20), 0, 20, 0)).bytesRead, 12, 'one of the same name is another')
  await rename(join(dir, 'd'), join(dir, 'e'))
  t.equal((await file.stat()).size, 12, 'its directory may have another name')
  await file.close()

  const target = await open(join(dir, 'target'), 'w+')
  await target.write('old')
  await writeFile(join(dir, 'new'), 'new')
  await rename(join(dir, 'new'), join(dir, 'target'))
  t.equal((await target.read(Buffer.alloc(9), 0, 9, 0)).bytesRead, 3, 'replaced by a rename')
  t.equal(await readFile(join(dir, 'target'), 'utf8'), 'new')
  await target.close()
  await unlink(join(dir, 'e', 'f'))
  await rmdir(join(dir, 'e'))
  t.notOk(readdirSync(source, { recursive: true }).some(name => String(name).includes('.fuse_hidden')))
}

async function git(t: Test, { base, dir }: LiveMount): Promise<void> {
  const env = { ...process.env, HOME: base, GIT_CONFIG_NOSYSTEM: '1', GIT_AUTHOR_NAME: 'a', GIT_AUTHOR_EMAIL: 'a@example.org', GIT_COMMITTER_NAME: 'a', GIT_COMMITTER_EMAIL: 'a@example.org' }
  const git = (cwd: string, ...args: string[]): Promise<string> => run(['git', ...args], { cwd, env })
  const origin = join(base, 'origin')
  mkdirSync(origin)
  await git(origin, 'init', '-q', '-b', 'main')
  for (let i = 0; i < 50; i++) writeFileSync(join(origin, `file ${i}`), `${i}\n`.repeat(i * 37))
  await git(origin, 'add', '.')
  await git(origin, 'commit', '-q', '-m', 'first')
  const clone = join(dir, 'clone')
  await git(dir, 'clone', '-q', '--no-local', origin, clone)
  await git(clone, 'fsck', '--strict')
  await writeFile(join(clone, 'file 0'), 'changed\n')
  t.equal(await git(clone, 'status', '--porcelain'), ' M "file 0"\n', 'git sees the change')
  await git(clone, 'commit', '-q', '-a', '-m', 'second')
  await git(clone, 'checkout', '-q', 'HEAD~1')
  t.equal(await git(clone, 'status', '--porcelain'), '')
}

/** RELEASEs before DESTROY, and the order of kill_sb. */
function endedWell(t: Test, live: LiveMount): void {
  const trace = live.trace()
  const ops = trace.flatMap(record => record.op ?? [])
  t.equal(ops[0], 'INIT')
  t.equal(ops.at(-1), 'DESTROY', 'DESTROY is the last')
  t.equal(ops.filter(op => op === 'RELEASE').length, trace.filter(({ op, error }) => error === 0 && (op === 'OPEN' || op === 'CREATE')).length, 'every open file was released')
  t.strictSame(trace.flatMap(record => record.event ?? []).filter(event => /^unmounted|^kill_sb|^freed/.test(event)),
    ['unmounted', 'kill_sb.stop_hiprio', 'kill_sb.drained', 'kill_sb.destroy', 'kill_sb.stop_rings', 'freed'])
}

for (const [name, peer, settings] of SETTINGS) {
  t.test(name, { skip: skipped(peer) }, async t => {
    await withMount(t, settings, async live => {
      await t.test('files', t => files(t, live))
      await t.test('names', t => names(t, live))
      await t.test('removed while open', t => removedWhileOpen(t, live))
      await t.test('git', { skip: noProgram('git') }, t => git(t, live))
      t.equal(await live.unmount(), 0)
      endedWell(t, live)
    })
  })
}

t.test('a backend that is killed', { skip: skipped('virtiofsd-rust') }, async t => {
  await withMount(t, { peer: 'virtiofsd-rust', options: [VIA], files: source => writeFileSync(join(source, 'f'), 'x'), rough: true }, async live => {
    const held = await open(join(live.dir, 'f'), 'r')
    const stopped = processTree(live.backend!.pid)
    for (const pid of stopped) signal(pid, 'SIGSTOP')
    const waiting = [stat(join(live.dir, 'none')), statfs(live.dir), held.read(Buffer.alloc(10), 0, 10, 0)].map(call => call.then(() => 'done', (error: NodeJS.ErrnoException) => error.code!))
    await within(200, Promise.all(waiting))
    for (const pid of stopped) signal(pid, 'SIGKILL')
    for (const outcome of await within(5000, Promise.all(waiting)) ?? ['nothing']) t.match(outcome, /^(ECONNABORTED|ENOTCONN)$/, 'what was in flight')
    t.equal(await within(5000, stat(join(live.dir, 'later')).catch((error: NodeJS.ErrnoException) => error.code)), 'ENOTCONN')
    await within(5000, held.close().catch(() => {}))
    t.ok(live.mounted && live.bridge.alive, 'the mount stays until it is unmounted')
    await eventually(() => live.bridge.stderr.endsWith('\n'))
    t.match(live.bridge.stderr, /^virtiofs-bridge: \S*mnt: the backend .*; operations fail until it is unmounted\n$/)
    t.equal(await live.unmount(), 0)
    t.notOk(live.trace().some(record => record.op === 'DESTROY'))
  })
})

t.test('either process is killed', { skip: skipped('emulated') }, async t => {
  await t.test('the one that serves', async t => {
    await withMount(t, { peer: 'emulated', options: [VIA], rough: true }, async live => {
      const [child] = processTree(live.pid).slice(1)
      signal(child!, 'SIGKILL')
      t.match(await live.bridge.endsWithin(10_000), { code: 0 }, 'the command ends')
      t.match(live.bridge.stderr, /the process of the mount has ended with SIGKILL/)
      t.notOk(live.mounted, 'and nothing stays mounted')
    })
  })
  await t.test('the one that started it', async t => {
    await withMount(t, { peer: 'emulated', options: [VIA], rough: true }, async live => {
      const [child] = processTree(live.pid).slice(1)
      const held = await open(live.dir, 'r')
      signal(live.pid, 'SIGKILL')
      t.ok(await eventually(() => !live.mounted, 10_000), 'the mount is taken away')
      t.ok(await eventually(() => !existsSync(`/proc/${child}`), 10_000), 'and its process ends')
      t.equal(live.trace().flatMap(record => record.op ?? []).at(-1), 'DESTROY')
      await held.close().catch(() => {})
    })
  })
})

t.test('the command', { skip: skipped('emulated') }, async t => {
  const scene = new Scene()
  t.teardown(() => scene.clear())
  writeFileSync(join(scene.source, 'f'), 'x')
  t.match(await scene.run(scene.source, scene.dir, '-o', `${VIA},fsname=a\\,b\\\\c,ro,noatime,nosuid`), { exit: { code: 0 }, stdout: '', stderr: '' }, 'in the background')
  t.match(findMount(scene.dir), { type: FS_TYPE, source: 'a,b\\c', superOptions: /default_permissions,allow_other/ })
  t.match(readFileSync('/proc/self/mounts', 'latin1').split('\n').find(line => line.includes(scene.dir)), / ro,nosuid,noatime,/)
  t.equal(await readFile(join(scene.dir, 'f'), 'utf8'), 'x')
  await t.rejects(writeFile(join(scene.dir, 'g'), ''), { code: 'EROFS' })
  const status = JSON.parse((await scene.run('status', scene.dir, '--json')).stdout) as { health: string, requests: number, pid: number, mountpoints: string[] }
  t.match(status, { health: 'ok', mountpoints: [scene.dir], backend: 'emulated', requestQueues: 1 })
  t.ok(status.requests > 2, `${status.requests} requests`)
  t.match(JSON.parse((await scene.run('stats', scene.dir, '--json', '--interval', '0.2')).stdout), { totals: {} })
  t.match(await scene.run('trace', scene.dir, '--count', '1'), { stderr: /cannot be watched/ })
  t.match(await scene.run(scene.source, scene.dir, '-o', VIA), { exit: { code: 32 }, stderr: /already mounted/ })
  const held = await open(join(scene.dir, 'f'))
  t.match(await scene.run('umount', scene.dir), { exit: { code: 32 }, stderr: /in use/ })
  await held.close()
  t.match(await scene.run('umount', scene.dir), { exit: { code: 0 }, stderr: '' })
  t.ok(await eventually(() => !existsSync(`/proc/${status.pid}`)), 'its process has ended')

  const foreground = scene.start(scene.source, scene.dir, '-f', '-o', VIA)
  t.ok(await eventually(() => findMount(scene.dir)?.type === FS_TYPE))
  t.equal(await readFile(join(scene.dir, 'f'), 'utf8'), 'x')
  signal(foreground.pid, 'SIGTERM')
  t.match(await foreground.endsWithin(10_000), { code: 0 }, 'SIGTERM unmounts')
  t.equal(foreground.stderr, '')

  t.match(await scene.run(scene.source, scene.dir, '-o', `${VIA},queues=2`), { exit: { code: 1 }, stderr: /^virtiofs-bridge: option queues is not possible with via=fuse-native\n$/ })
  t.match(await scene.run('/none', scene.dir, '-o', VIA), { exit: { code: 32 }, stderr: /^virtiofs-bridge: source \/none: no such directory.*\n$/ })
  t.match(await scene.run('unix:/none', scene.dir, '-o', VIA), { exit: { code: 32 }, stderr: /^virtiofs-bridge: .*\n$/ })
  t.match(await scene.run(scene.source, scene.dir, '-o', `${VIA},backend=virtiofsd,virtiofsd=/none`), { exit: { code: 32 }, stderr: /^virtiofs-bridge: .*\/none.*\n$/ })
})

t.test('a program that uses its own mount by synchronous calls', { skip: skipped('emulated') }, async t => {
  const base = mkdtempSync(join(tmpdir(), 'vfb-'))
  const [source, dir] = [join(base, 'src'), join(base, 'mnt')]
  for (const path of [source, dir]) mkdirSync(path)
  try {
    const mounted = await mount({ source, mountpoint: dir, options: { via: 'fuse-native', xattr: true } })
    writeFileSync(join(dir, 'f'), 'synchronous')
    t.equal(readFileSync(join(source, 'f'), 'utf8'), 'synchronous')
    chmodSync(join(dir, 'f'), 0o640)
    t.equal(statSync(join(source, 'f')).mode & 0o777, 0o640)
    t.match(mounted.status(), { health: 'ok', requests: Number, mountpoints: [dir] })
    t.ok(mounted.stats().opcodes['CREATE']! > 0)
    await mounted.unmount()
    t.notOk(findMount(dir)?.type === FS_TYPE)
    t.ok(mounted.stats().counters.FORGETS > 0, 'what was held was forgotten')
    for (const options of ['queues=2', 'writeback', 'posix_acl', 'direct', 'audit=/tmp/a', 'timeout=5', 'cache=coherent', 'nosymfollow']) {
      await t.rejects(mount({ source, mountpoint: dir, options: { ...parseMountOptions([options]), via: 'fuse-native' } }), { code: 'EINVAL', message: /^option \S+ is not possible with via=fuse-native/ }, options)
    }
    await t.rejects(mount({ source, mountpoint: dir, options: { via: 'fuse-native', fsname: 'x'.repeat(1000) } }), { code: 'EINVAL' }, 'too long for the addon')
    await t.rejects(mount({ source, mountpoint: join(base, 'none'), options: { via: 'fuse-native' } }), { code: 'ENOENT' })
  } finally {
    rmSync(base, { recursive: true, force: true })
  }
})

t.test('a file system of a program', { skip: skipped('emulated') }, async t => {
  const dir = mkdtempSync(join(tmpdir(), 'vfb-'))
  const source = (data?: unknown): ServedDevice => serveDevice(new URL('../../examples/memfs.js', import.meta.url), { data })
  try {
    const mounted = await mount({ source: source(), mountpoint: dir, options: { via: 'fuse-native' } })
    await mkdir(join(dir, 'd'))
    await writeFile(join(dir, 'd', 'f'), 'in memory')
    t.equal(await readFile(join(dir, 'd', 'f'), 'utf8'), 'in memory')
    t.strictSame(await readdir(dir), ['d'])
    t.match(mounted.status(), { backend: 'served', tag: 'memfs' })
    await mounted.unmount()
    await t.rejects(mount({ source: source(new SharedArrayBuffer(8)), mountpoint: dir, options: { via: 'fuse-native' } }), { message: /SharedArrayBuffer/ }, 'memory is not shared between processes')
  } finally {
    rmSync(dir, { recursive: true })
  }
})

t.test('without the system\'s libfuse', { skip: skipped('emulated') || noProgram('unshare') || noProgram('nsenter') }, async t => {
  const scene = new Scene()
  t.teardown(() => scene.clear())
  const namespace = await MountNamespace.create()
  t.teardown(() => namespace.end())
  const libraries = ['/lib/x86_64-linux-gnu', '/lib64', '/usr/lib64'].map(directory => join(directory, 'libfuse.so.2')).filter(path => existsSync(path))
  for (const path of libraries) await namespace.run(['mount', '--bind', '/dev/null', realpathSync(path)])
  const command = ['env', `XDG_RUNTIME_DIR=${join(scene.base, 'run')}`, ...BRIDGE, scene.source, scene.dir, '-o', VIA]
  t.match(await namespace.try(command), { exit: { code: 0 }, stderr: '' }, 'the package has one')
  t.match(await namespace.try(['sh', '-c', `echo x >${scene.dir}/f && cat ${scene.source}/f && umount ${scene.dir}`]), { exit: { code: 0 }, stdout: 'x\n' })
  await namespace.run(['mount', '--bind', '/dev/null', join(packageRoot(), 'node_modules/fuse-native/prebuilds/linux-x64/libfuse.so')])
  t.match(await namespace.try(command), { exit: { code: 32 }, stderr: /^virtiofs-bridge: option via=fuse-native: libfuse\.so\.2 is not there \(Debian package libfuse2\): .*\n$/ }, 'and when that does not load either')
})

t.test('idle_timeout', { skip: skipped('emulated') }, async t => {
  await withMount(t, { peer: 'emulated', options: [VIA, 'idle_timeout=1'], rough: true }, async live => {
    await writeFile(join(live.dir, 'f'), 'x')
    t.match(await live.bridge.endsWithin(20_000), { code: 0 }, 'unmounted when nobody used it')
    t.notOk(live.mounted)
    t.equal(live.trace().flatMap(record => record.op ?? []).at(-1), 'DESTROY')
  })
})

t.test('aborted while the device does not answer', { skip: skipped('virtiofsd-rust') }, async t => {
  await withMount(t, { peer: 'virtiofsd-rust', options: [VIA, 'mount_timeout=2'], rough: true }, async live => {
    const backend = processTree(live.backend!.pid)
    for (const pid of backend) signal(pid, 'SIGSTOP')
    const waiting = stat(join(live.dir, 'none')).then(() => 'done', (error: NodeJS.ErrnoException) => error.code!)
    await within(200, waiting)
    signal(live.pid, 'SIGTERM')
    t.notOk(await live.bridge.endsWithin(300), 'somebody waits')
    signal(live.pid, 'SIGTERM')
    t.match(await within(2000, waiting), /^ECONNABORTED|ENOTCONN|EIO$/, 'the second signal aborts')
    t.ok(await live.bridge.endsWithin(20_000), 'and the command ends')
    t.notOk(live.mounted)
    for (const pid of backend) signal(pid, 'SIGCONT')
  })
})

t.test('without the package', { skip: process.arch === 'x64' ? false : 'another message' }, async t => {
  const base = mkdtempSync(join(tmpdir(), 'vfb-'))
  t.teardown(() => rmSync(base, { recursive: true }))
  cpSync(join(packageRoot(), 'package.json'), join(base, 'package.json'))
  cpSync(join(packageRoot(), 'dist/lib'), join(base, 'lib'), { recursive: true })
  mkdirSync(join(base, 'node_modules'))
  const script = join(base, 'try.js')
  writeFileSync(script, 'import { loadAddon } from "./lib/fuse-native/addon.js"\ntry { loadAddon(); console.log("loaded") } catch (error) { console.log(error.name, error.message) }\n')
  for (const name of readdirSync(join(packageRoot(), 'node_modules'))) if (name !== 'fuse-native') symlinkSync(join(packageRoot(), 'node_modules', name), join(base, 'node_modules', name))
  t.match(await run([process.execPath, script]), 'UsageError option via=fuse-native: the npm package fuse-native is not installed (npm install fuse-native@2.2.6)')
  const fake = join(base, 'node_modules/fuse-native')
  mkdirSync(fake)
  writeFileSync(join(fake, 'package.json'), '{"name":"fuse-native","version":"3.0.0"}')
  t.match(await run([process.execPath, script]), 'fuse-native 3.0.0 is installed, and 2.2.6 is needed')
})
