/** A virtiofsd that is killed, while it works and while nobody asks: nobody waits, the mount can be unmounted, the bridge ends well. */
import { readFileSync, writeFileSync } from 'node:fs'
import { open, readFile, stat, statfs, writeFile, type FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { BACKENDS, missing, peerPath } from '../support/peers.js'
import { withMount, type LiveMount, type MountSettings } from '../support/mounts.js'
import { processTree, signal, within } from '../support/program.js'
import { eventually } from '../support/scene.js'

/** What a caller gets from a device that dies, and from one that is dead. */
const DYING = ['EIO', 'ENOTCONN']
const LATER_MS = 1000

type Outcome = 'ok' | string

async function outcome(call: Promise<unknown>): Promise<Outcome> {
  return await call.then(() => 'ok', (error: NodeJS.ErrnoException) => error.code ?? String(error))
}

/** Works on the mount without a pause until it fails. @returns how often it went well, and the first error */
async function loop(stop: { now: boolean }, call: () => Promise<unknown>): Promise<{ good: number, error: Outcome }> {
  for (let good = 0; ; good++) {
    const how = await outcome(call())
    if (how !== 'ok' || stop.now) return { good, error: how }
  }
}

/** Nothing that a test does with a dead device may take long. @returns ENOTCONN, or what came instead */
async function promptly(call: Promise<unknown>): Promise<Outcome> {
  return await within(LATER_MS, outcome(call)) ?? `nothing within ${LATER_MS / 1000} s`
}

async function isDead(t: Test, { dir }: LiveMount, held: FileHandle): Promise<void> {
  t.equal(await promptly(statfs(dir)), 'ENOTCONN', 'statfs')
  t.equal(await promptly(stat(join(dir, 'not looked up before'))), 'ENOTCONN', 'lookup')
  t.equal(await promptly(open(join(dir, 'file'), 'r')), 'ENOTCONN', 'open')
  t.equal(await promptly(writeFile(join(dir, 'new'), '')), 'ENOTCONN', 'create')
  t.equal(await promptly(held.datasync()), 'ENOTCONN', 'fsync')
  t.equal(await promptly(held.read(Buffer.alloc(10), 0, 10, 5 << 20)), 'ENOTCONN', 'read of what is not cached')
  await held.close().catch(() => {})
}

/** After the death: the bridge has said so, can be unmounted, and ends well. */
async function endsWell(t: Test, live: LiveMount): Promise<void> {
  t.ok(live.bridge.alive && live.mounted, 'the mount stays until it is unmounted')
  await eventually(() => live.bridge.stderr.endsWith('\n'))
  t.match(live.bridge.stderr, /^virtiofs-bridge: \S*mnt: the backend closed its socket; operations fail until it is unmounted\n$/)
  t.equal(await live.unmount(), 0, 'unmounted, and the exit code is 0')
  const events = live.trace().flatMap(record => record.event ?? [])
  t.equal(events.filter(event => event === 'remove').length, 1)
  t.notOk(live.trace().some(record => record.op === 'DESTROY'), 'nobody is there for a DESTROY')
  t.equal(events.at(-1), 'freed')
}

function backendPids(live: LiveMount): number[] {
  return live.backend ? processTree(live.backend.pid) : processTree(live.pid).slice(1)
}

const files = (source: string): void => { writeFileSync(join(source, 'file'), Buffer.alloc(8 << 20, 'x')) }

const SETTINGS: [name: string, peer: typeof BACKENDS[number], settings: MountSettings][] = BACKENDS.flatMap(peer => [
  [`${peer}, on a socket`, peer, { peer }],
  [`${peer}, our own`, peer, { peer: 'emulated', options: ['backend=virtiofsd', `virtiofsd=${peerPath(peer)}`] }],
])

for (const [name, peer, settings] of SETTINGS) {
  t.test(`${name}: killed while it works`, { skip: missing(peer) }, async t => {
    await withMount(t, { ...settings, files, rough: true }, async live => {
      const { dir } = live
      const held = await open(join(dir, 'file'), 'r')
      const stop = { now: false }
      const [direct, chunk] = [0o40000, Buffer.alloc(1 << 20)]
      const file = await open(join(dir, 'file'), direct)
      const loops = [
        loop(stop, () => statfs(dir)),
        loop(stop, () => file.read(chunk, 0, chunk.length, 0)),
        loop(stop, () => writeFile(join(dir, 'written'), chunk)),
      ]
      await sleep(300)
      for (const pid of backendPids(live)) signal(pid, 'SIGKILL')
      const ends = await within(5000, Promise.all(loops))
      stop.now = true
      t.ok(ends, 'who was at work was told')
      for (const [i, { good, error }] of (ends ?? []).entries()) {
        t.ok(good > 0, `${['statfs', 'reads', 'writes'][i]}: ${good} went well`)
        t.ok(DYING.includes(error), `then: ${error}`)
      }
      await file.close().catch(() => {})
      t.ok(await eventually(() => live.bridge.stderr.endsWith('\n')), 'the bridge says so')
      await isDead(t, live, held)
      await endsWell(t, live)
    })
  })

  t.test(`${name}: killed while nobody asks`, { skip: missing(peer) }, async t => {
    await withMount(t, { ...settings, files, rough: true }, async live => {
      const held = await open(join(live.dir, 'file'), 'r')
      t.equal((await readFile(join(live.dir, 'file'))).length, 8 << 20)
      // whatever the caches hold is good until it is asked for again
      await held.read(Buffer.alloc(10), 0, 10, 0)
      for (const pid of backendPids(live)) signal(pid, 'SIGKILL')
      t.ok(await eventually(() => live.bridge.stderr.endsWith('\n')), 'it is noticed at once, not at the next request')
      t.equal(await promptly(statfs(live.dir)), 'ENOTCONN')
      await held.close().catch(() => {})
      await endsWell(t, live)
    })
  })
}

t.test('stopped, not dead: callers wait, can be killed, and an abort ends them', { skip: missing('virtiofsd-rust') }, async t => {
  await withMount(t, { peer: 'virtiofsd-rust', files, rough: true, options: ['mount_timeout=1'] }, async live => {
    const pids = backendPids(live)
    for (const pid of pids) signal(pid, 'SIGSTOP')
    t.ok(await eventually(() => pids.every(pid => /^State:\tT/m.test(readFileSync(`/proc/${pid}/status`, 'latin1')))))
    const waiting = outcome(statfs(live.dir))
    t.equal(await within(500, waiting), undefined, 'it waits')
    live.bridge.child.kill('SIGTERM')
    live.bridge.child.kill('SIGTERM')
    const how = await within(20_000, waiting)
    t.ok(how !== undefined && how !== 'ok', `then: ${how}`)
    t.match(await live.bridge.endsWithin(20_000), { code: 0 })
    t.notOk(live.mounted)
    for (const pid of pids) signal(pid, 'SIGCONT')
  })
})
