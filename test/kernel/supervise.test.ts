/** A process that serves a mount and is killed: another goes on, and nobody who uses the mount notices. */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { mkdir, open, opendir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { errno } from '../../lib/errors.js'
import { type LiveMount, type MountSettings, untilUsable, withMount } from '../support/mounts.js'
import { BRIDGE, missing, noKernel, noProgram, peerPath } from '../support/peers.js'
import { processTree, Program, run, runToEnd, signal, within } from '../support/program.js'
import { prepareLoad, underKills } from '../support/reconnect-load.js'
import { eventually, inScene } from '../support/scene.js'
import { clearMount } from '../support/stuck.js'
import { keepBackend, Supervised } from '../support/supervised.js'

const RUST = 'virtiofsd-rust'
const OWN = ['backend=virtiofsd', `virtiofsd=${peerPath(RUST)}`]
const GOES_ON = /^[^\n]*the process that serves it has ended \(SIGKILL\); another goes on$/

/** A mount with a supervisor; afterwards nothing is left of it. */
async function withSupervised(t: Test, settings: MountSettings, body: (live: LiveMount, supervised: Supervised) => Promise<void>): Promise<void> {
  const base = mkdtempSync(join(tmpdir(), 'vfb-sup-'))
  const supervised = new Supervised(base)
  try {
    await withMount(t, { rough: true, env: supervised.env, ...settings, options: ['supervise', ...settings.options ?? []] }, async live => {
      // it takes commands, too, a moment after it is mounted
      t.ok(await eventually(() => supervised.serving(live) !== 0), 'it serves')
      await body(live, supervised)
    })
    t.ok(await eventually(() => supervised.leftovers().length === 0, 10_000), `nothing is left: ${supervised.leftovers().join('; ')}`)
  } finally {
    rmSync(base, { recursive: true, force: true })
  }
}

/** Kills the process that serves, and waits for another. */
async function killServer(live: LiveMount, supervised: Supervised): Promise<void> {
  const pid = supervised.serving(live)
  if (pid === 0) throw new Error('nobody serves')
  signal(pid, 'SIGKILL')
  if (!await eventually(() => ![0, pid].includes(supervised.serving(live)))) throw new Error(`nobody serves again: ${live.bridge.stderr}`)
}

async function code(call: Promise<unknown>): Promise<string> {
  return await within(20_000, call.then(() => 'ok', (error: NodeJS.ErrnoException) => error.errno === -errno.ESTALE ? 'ESTALE' : error.code ?? String(error))) ?? 'nothing within 20 s'
}

const DEVICES: [name: string, settings: MountSettings, skip: string | false][] = [
  ['the emulated device', { peer: 'emulated' }, noKernel()],
  ['a virtiofsd of its own', { peer: 'emulated', options: OWN }, missing(RUST)],
  ['a vhost-user socket', { peer: RUST }, missing(RUST)],
]
for (const [name, settings, skip] of DEVICES) {
  t.test(`${name}: killed five times under readers, writers and git`, { skip: skip || noProgram('git') }, async t => {
    await withSupervised(t, { ...settings, files: prepareLoad, timeoutMs: 180_000 }, async (live, supervised) => {
      const stop = settings.peer === RUST ? keepBackend(live, RUST) : undefined
      const victims = supervised.victims(live, 1)
      const { failures, ...figures } = await underKills(live, 5, 1, victims.next, () => supervised.awayMs)
      victims.end()
      t.comment(JSON.stringify(figures))
      t.strictSame(failures, [])
      for (const [kind, done] of Object.entries(figures.done)) t.ok(done > 2, `${kind}: ${done} rounds`)
      t.ok(figures.clones > 0, 'git clone')
      stop?.()
      t.equal(await live.unmount(), 0, 'unmounted, and the bridge ended well')
      const said = live.bridge.stderr.trim().split('\n').filter(line => !/the backend is back$/.test(line))
      t.equal(said.length, 5, live.bridge.stderr)
      for (const line of said) t.match(line, GOES_ON)
    })
  })
}

t.test('what is open goes on; what has no name any more is ESTALE, never the data of another file', { skip: noKernel() }, async t => {
  const files = (source: string): void => {
    for (const name of ['kept', 'moved', 'removed']) writeFileSync(join(source, name), name.repeat(10_000))
    mkdirSync(join(source, 'd'))
    for (let i = 0; i < 500; i++) writeFileSync(join(source, 'd', `${i}`), '')
  }
  await withSupervised(t, { peer: 'emulated', files }, async (live, supervised) => {
    const direct = 0o40000
    const [kept, moved, removed] = await Promise.all(['kept', 'moved', 'removed'].map(name => open(join(live.dir, name), 2 | direct)))
    const directory = await opendir(join(live.dir, 'd'), { bufferSize: 1 })
    const seen = [(await directory.read())!.name]
    const { ino } = await kept!.stat()
    await rename(join(live.dir, 'moved'), join(live.dir, 'd', 'elsewhere'))
    await rm(join(live.dir, 'removed'))
    await writeFile(join(live.dir, 'removed'), 'another'.repeat(10_000))
    for (let i = 0; i < 2; i++) await killServer(live, supervised)
    t.equal((await kept!.stat()).ino, ino)
    const bytes = Buffer.alloc(8192)
    for (const [handle, name] of [[kept!, 'kept'], [moved!, 'moved']] as const) {
      await handle.read(bytes, 0, 8192, 4096)
      t.equal(bytes.toString('latin1').slice(0, 20), name.repeat(2000).slice(4096, 4116), name)
    }
    t.equal(await code(removed!.read(bytes, 0, 4096, 0)), 'ESTALE')
    t.equal(await readFile(join(live.dir, 'removed'), 'utf8'), 'another'.repeat(10_000), 'by its name it is the one that is there')
    for await (const { name } of directory) seen.push(name)
    t.strictSame(seen.filter(name => name !== 'elsewhere').map(Number).sort((a, b) => a - b), Array.from({ length: 500 }, (_, i) => i), 'a directory that was half read')
    for (const handle of [kept!, moved!, removed!]) await handle.close()
    t.equal(await live.unmount(), 0)
  })
})

t.test('a request in its hands is sent again: its caller waits, in a backend that is stopped, and has its answer from the next', { skip: missing(RUST) }, async t => {
  await withSupervised(t, { peer: 'emulated', options: OWN, files: source => writeFileSync(join(source, 'file'), 'content') }, async (live, supervised) => {
    const server = supervised.serving(live)
    const backend = processTree(server).slice(1)
    for (const pid of backend) signal(pid, 'SIGSTOP')
    const waiting = readFile(join(live.dir, 'file'), 'utf8')
    const making = mkdir(join(live.dir, 'made'))
    t.equal(await within(300, waiting), undefined, 'it waits')
    await killServer(live, supervised)
    t.equal(await within(20_000, waiting), 'content')
    t.equal(await code(making), 'ok')
    t.ok(existsSync(join(live.source, 'made')))
    for (const pid of backend) t.notOk(existsSync(`/proc/${pid}`), 'the stopped backend is dead')
    t.equal(await live.unmount(), 0)
  })
})

t.test('a kernel that does not send again: EIO for what was in its hands, and then it goes on', { skip: missing(RUST) }, async t => {
  const base = mkdtempSync(join(tmpdir(), 'vfb-sup-'))
  const supervised = new Supervised(base)
  const [source, dir] = [join(base, 'src'), join(base, 'mnt')]
  for (const path of [source, dir]) mkdirSync(path)
  writeFileSync(join(source, 'file'), 'content')
  const [node, script] = BRIDGE
  const hook = new URL('../support/no-resend.js', import.meta.url).href
  const bridge = new Program([node!, '--import', hook, script!, source, dir, '-f', '-o', ['supervise', ...OWN].join(',')], { env: supervised.env })
  try {
    await untilUsable(dir, bridge)
    const live = { pid: bridge.pid, bridge } as unknown as LiveMount
    t.ok(await eventually(() => supervised.serving(live) !== 0))
    for (const pid of processTree(supervised.serving(live)).slice(1)) signal(pid, 'SIGSTOP')
    const waiting = [readFile(join(dir, 'file'), 'utf8'), stat(join(dir, 'nothing')), readdir(dir)].map(code)
    t.equal(await within(300, Promise.race(waiting)), undefined, 'they wait')
    await killServer(live, supervised)
    t.strictSame(await Promise.all(waiting), ['EIO', 'EIO', 'EIO'])
    t.equal(await within(20_000, readFile(join(dir, 'file'), 'utf8')), 'content')
    await run(['umount', dir])
    t.equal((await bridge.endsWithin(20_000))?.code, 0, bridge.stderr)
    t.strictSame(supervised.leftovers(), [])
  } finally {
    await clearMount(dir)
    await bridge.kill()
    rmSync(base, { recursive: true, force: true })
  }
})

t.test('status says who serves, how often another had to, and that nobody does', { skip: noKernel() }, async t => {
  await withSupervised(t, { peer: 'emulated' }, async (live, supervised) => {
    const status = async (): Promise<Record<string, unknown>> => JSON.parse((await runToEnd([...BRIDGE, 'status', live.dir, '--json'], { env: supervised.env })).stdout) as Record<string, unknown>
    const first = supervised.serving(live)
    t.match(await status(), { pid: first, supervisor: live.pid, restarts: 0, health: 'ok' })
    signal(live.pid, 'SIGSTOP')
    signal(first, 'SIGKILL')
    t.ok(await eventually(() => readFileSync(`/proc/${first}/stat`, 'latin1').includes(') Z ')))
    t.match(await status(), { health: 'waiting', supervisor: live.pid, mountpoints: [live.dir], reason: 'the process that serves it has ended, and another is started' })
    signal(live.pid, 'SIGCONT')
    t.ok(await eventually(() => supervised.serving(live) !== 0))
    t.match(await status(), { pid: supervised.serving(live), supervisor: live.pid, restarts: 1, health: 'ok' })
    t.equal((await runToEnd([...BRIDGE, 'umount', live.dir], { env: supervised.env })).exit?.code, 0)
    t.equal((await live.bridge.endsWithin(10_000))?.code, 0)
  })
})

t.test('it dies again and again at once: the mount ends, with one line', { skip: noKernel() }, async t => {
  await withSupervised(t, { peer: 'emulated' }, async (live, supervised) => {
    const held = open(live.dir)
    await held
    rmSync(live.source, { recursive: true })
    signal(supervised.serving(live), 'SIGKILL')
    t.match(await live.bridge.endsWithin(60_000), { code: 32 })
    const lines = live.bridge.stderr.trim().split('\n')
    t.match(lines.at(-1), /the process that serves it has ended 9 times at once, the last time by source .*: no such directory or socket .*: it is unmounted$/)
    t.notOk(live.mounted)
    await (await held).close()
  })
})

t.test('the supervisor is killed: the process that serves unmounts and ends', { skip: noKernel() }, async t => {
  await withSupervised(t, { peer: 'emulated' }, async (live, supervised) => {
    const server = supervised.serving(live)
    signal(live.pid, 'SIGKILL')
    t.ok(await eventually(() => !live.mounted), 'unmounted')
    t.ok(await eventually(() => !existsSync(`/proc/${server}`) || readFileSync(`/proc/${server}/stat`, 'latin1').includes(') Z ')), 'and ended')
  })
})

t.test('both are killed: the mount is dead, and the next one clears it away', { skip: noKernel() }, async t => {
  await withSupervised(t, { peer: 'emulated' }, async (live, supervised) => {
    const server = supervised.serving(live)
    signal(server, 'SIGSTOP')
    for (const pid of [live.pid, server]) signal(pid, 'SIGKILL')
    // the one for what is under way while it ends, the other from then on
    t.match(await code(readdir(live.dir)), /^(ECONNABORTED|ENOTCONN)$/)
    t.equal(await code(readdir(live.dir)), 'ENOTCONN')
    t.match((await runToEnd([...BRIDGE, 'status', live.dir], { env: supervised.env })).stdout, /dead/)
    t.equal((await runToEnd([...BRIDGE, live.source, live.dir], { env: supervised.env })).exit?.code, 0)
    t.equal((await runToEnd([...BRIDGE, 'umount', live.dir], { env: supervised.env })).exit?.code, 0)
  })
})

t.test('in the background, from a relative path; SIGTERM to the supervisor, in between and while nobody serves', { skip: noKernel() }, async t => {
  await inScene(async scene => {
    writeFileSync(join(scene.source, 'file'), 'content')
    const mountIt = async (): Promise<Record<string, number>> => {
      const mounted = await runToEnd([...BRIDGE, 'src', 'mnt', '-o', 'supervise'], { env: scene.env, cwd: scene.base })
      t.strictSame([mounted.exit?.code, mounted.stderr], [0, ''])
      return JSON.parse((await scene.run('status', scene.dir, '--json')).stdout) as Record<string, number>
    }
    const { pid, supervisor } = await mountIt()
    signal(pid!, 'SIGKILL')
    t.equal(await within(20_000, readFile(join(scene.dir, 'file'), 'utf8')), 'content')
    signal(supervisor!, 'SIGTERM')
    t.ok(await eventually(() => scene.leftovers().length === 0), `SIGTERM: ${scene.leftovers().join('; ')}`)
    const second = await mountIt()
    signal(second['supervisor']!, 'SIGSTOP')
    signal(second['pid']!, 'SIGKILL')
    signal(second['supervisor']!, 'SIGTERM')
    signal(second['supervisor']!, 'SIGCONT')
    t.ok(await eventually(() => scene.leftovers().length === 0), `SIGTERM while nobody serves: ${scene.leftovers().join('; ')}`)
    const third = await mountIt()
    const held = await open(join(scene.dir, 'file'))
    signal(third['pid']!, 'SIGKILL')
    t.equal((await scene.run('umount', '--abort', scene.dir)).exit?.code, 0)
    await held.close()
    t.ok(await eventually(() => scene.leftovers().length === 0), `umount --abort: ${scene.leftovers().join('; ')}`)
  })
})

t.test('what cannot outlive a process is refused, in one line', { skip: noKernel() }, async t => {
  const cases = [
    ['queues=2', 'goes with one request queue'], ['direct', 'does not go with direct'], ['cache=coherent', 'does not go with cache=coherent'],
    ['via=fuse-native', 'is not possible with via=fuse-native'], ['backend=virtiofsd,on_disconnect=fail', 'does not go with on_disconnect=fail'],
  ] as const
  await inScene(async scene => {
    for (const [option, why] of cases) {
      const { exit, stderr } = await scene.run(scene.source, scene.dir, '-o', `supervise,${option}`)
      t.strictSame([exit?.code, stderr.split('\n').length], [1, 2], stderr)
      t.match(stderr, `option supervise ${why}`)
    }
    const remote = await scene.run(`exec:${process.execPath} ${fileURLToPath(new URL('../../bin/virtiofs-bridge.js', import.meta.url))} relay ${scene.source}`, scene.dir, '-o', 'supervise')
    t.match(remote.stderr, 'option supervise needs a device on this host')
    t.strictSame(scene.leftovers(), [])
  })
})
