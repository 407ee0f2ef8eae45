/** The command line, as its users type it: in the background and in the foreground, umount, probe, signals. */
import { existsSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs'
import { open, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { ExitCode } from '../../bin/exit-codes.js'
import { findMount, FS_TYPE } from '../../lib/mount/mountinfo.js'
import type { EarlySignal } from '../support/early-signal.js'
import { runLibraryScript } from '../support/library-script.js'
import { untilUsable } from '../support/mounts.js'
import { BACKENDS, BRIDGE, missing, peerPath, PEERS, startBackend, type Peer } from '../support/peers.js'
import { processTree, Program, signal } from '../support/program.js'
import { eventually, inScene, type Scene } from '../support/scene.js'

const OK = { exit: { code: 0 }, stdout: '', stderr: '' }

/** The source for a peer, whose process is started when it has one. */
function sourceOf(scene: Scene, peer: Peer): string {
  if (peer === 'emulated') return scene.source
  startBackend(peer, scene.source, scene.socket)
  return `unix:${scene.socket}`
}

/** A command in the foreground whose mount is usable. */
async function foreground(scene: Scene, ...args: string[]): Promise<Program> {
  const bridge = scene.start(...args, '-f')
  await untilUsable(scene.dir, bridge)
  return bridge
}

function isMounted(scene: Scene): boolean {
  return findMount(scene.dir)?.type === FS_TYPE
}

for (const peer of PEERS) {
  t.test(`${peer}: in the background the command returns when the mount is usable`, { skip: missing(peer) }, async t => {
    await inScene(async scene => {
      writeFileSync(join(scene.source, 'hello'), 'hello\n')
      t.match(await scene.run(sourceOf(scene, peer), scene.dir), OK)
      t.equal(await readFile(join(scene.dir, 'hello'), 'utf8'), 'hello\n', 'usable')
      const { pid, mountpoint } = scene.live()
      t.equal(mountpoint, scene.dir)
      t.strictSame([0, 1, 2].map(fd => readlinkSync(`/proc/${pid}/fd/${fd}`)), ['/dev/null', '/dev/null', '/dev/null'], 'the daemon has let go of the terminal')
      t.equal(readlinkSync(`/proc/${pid}/cwd`), '/', 'and of the directory')
      // pid, command in parentheses, state, parent, process group, session
      t.equal(/\) \S+ \d+ \d+ (\d+)/.exec(readFileSync(`/proc/${pid}/stat`, 'utf8'))![1], String(pid), 'a session of its own')
      t.match(await scene.run('umount', scene.dir), OK)
      t.notOk(isMounted(scene))
      // umount returns when the session has ended; the process itself is a moment behind
      t.ok(await eventually(() => !existsSync(`/proc/${pid}`)), 'and it has ended')
      t.strictSame(scene.files(), [], 'no file is left')
    })
  })

  t.test(`${peer}: umount by tag, in use, lazily, by force`, { skip: missing(peer) }, async t => {
    await inScene(async scene => {
      writeFileSync(join(scene.source, 'hello'), 'hello\n')
      const bridge = await foreground(scene, sourceOf(scene, peer), scene.dir, '-o', 'tag=mine')
      const file = await open(join(scene.dir, 'hello'))
      t.match(await scene.run('umount', 'mine'), { exit: { code: 32 }, stdout: '', stderr: `virtiofs-bridge: ${scene.dir} is in use (--lazy detaches it now, --abort gives errors to those who use it)\n` }, 'in use')
      t.ok(bridge.alive && isMounted(scene), 'so it stays')
      t.match(await scene.run('umount', 'mine', '--lazy'), OK)
      t.notOk(isMounted(scene), 'detached')
      t.equal((await file.read(Buffer.alloc(6), 0, 6, 0)).bytesRead, 6, 'who has it open goes on')
      t.ok(bridge.alive)
      await file.close()
      t.match(await bridge.endsWithin(20_000), { code: 0 }, 'it ends with the last user')
    })
    await inScene(async scene => {
      writeFileSync(join(scene.source, 'hello'), 'hello\n')
      const bridge = await foreground(scene, sourceOf(scene, peer), scene.dir)
      const file = await open(join(scene.dir, 'hello'))
      t.match(await scene.run('umount', scene.dir, '--abort'), OK)
      t.match(await bridge.endsWithin(20_000), { code: 0 }, 'with a user: by force')
      await t.rejects(file.read(Buffer.alloc(6), 0, 6, 0), { code: 'ENOTCONN' })
      await file.close().catch(() => {})
    })
  })

  for (const name of peer === 'emulated' ? ['SIGINT', 'SIGTERM', 'SIGHUP'] as const : ['SIGTERM'] as const) {
    t.test(`${peer}: ${name} unmounts`, { skip: missing(peer) }, async t => {
      await inScene(async scene => {
        const trace = join(scene.base, 'trace.json')
        const bridge = await foreground(scene, sourceOf(scene, peer), scene.dir, '-o', `trace_json=${trace}`)
        await writeFile(join(scene.dir, 'a'), 'b')
        signal(bridge.pid, name)
        t.match(await bridge.endsWithin(20_000), { code: 0, signal: null })
        t.match(bridge, { stdout: '', stderr: '' })
        t.notOk(isMounted(scene))
        t.match(readFileSync(trace, 'utf8'), /"op":"DESTROY"(.|\n)*"event":"freed"/, 'in the order of kill_sb')
      })
    })
  }
}

t.test('a signal to the daemon unmounts, too', { skip: missing('emulated') }, async t => {
  await inScene(async scene => {
    t.match(await scene.run(scene.source, scene.dir), OK)
    const { pid } = scene.live()
    signal(pid, 'SIGTERM')
    t.ok(await eventually(() => !existsSync(`/proc/${pid}`)))
    t.strictSame(scene.leftovers(), [])
  })
})

t.test('a signal to a mount in use detaches it, a second one aborts it', { skip: missing('emulated') }, async t => {
  await inScene(async scene => {
    writeFileSync(join(scene.source, 'hello'), 'hello\n')
    const bridge = await foreground(scene, scene.source, scene.dir)
    const file = await open(join(scene.dir, 'hello'))
    signal(bridge.pid, 'SIGTERM')
    t.ok(await eventually(() => !isMounted(scene)), 'detached')
    t.ok(await eventually(() => bridge.stderr.endsWith('\n')))
    t.match(bridge.stderr, /^virtiofs-bridge: \S+: \S+ is in use; detaching it, and aborting in 10 s or at the next signal\n$/)
    t.equal((await file.read(Buffer.alloc(6), 0, 6, 0)).bytesRead, 6)
    signal(bridge.pid, 'SIGTERM')
    t.match(await bridge.endsWithin(9000), { code: 0 })
    // not a read: its page is cached
    await t.rejects(file.sync(), { code: 'ENOTCONN' })
    await file.close().catch(() => {})
  })
})

t.test('a signal before the mount is usable ends it the same way', { skip: missing('emulated') }, async t => {
  const { code, usable, said } = JSON.parse(await runLibraryScript(t, { script: 'early-signal', peer: 'emulated', timeoutMs: 30_000 })) as EarlySignal
  t.equal(code, ExitCode.INTERRUPTED)
  t.notOk(usable, 'nobody is told that it is mounted')
  t.equal(said.length, 1)
  t.match(said[0], /: \S+ is in use; detaching it, and aborting in 10 s or at the next signal$/)
})

t.test('probe', { skip: missing('emulated') }, async t => {
  await inScene(async scene => {
    const text = await scene.run('probe', scene.source)
    t.match(text, { exit: { code: 0 }, stderr: '' })
    for (const row of [/^tag +src$/m, /^request queues +\d+$/m, /^features +VERSION_1 RING_INDIRECT_DESC RING_EVENT_IDX$/m, /^protocol features +none$/m, /^FUSE version +7\.\d+$/m, /^max_write +1048576 bytes$/m]) {
      t.match(text.stdout, row)
    }
    const json = JSON.parse((await scene.run('probe', scene.source, '--json')).stdout)
    t.match(json, { tag: 'src', requestQueues: Number, features: { indirectDesc: true, eventIdx: true }, init: { major: 7, flags: [String] } })
    t.strictSame(scene.leftovers(), [], 'nothing is left')
  })
})

for (const peer of BACKENDS) {
  t.test(`${peer}: probe`, { skip: missing(peer) }, async t => {
    await inScene(async scene => {
      for (const json of [false, true]) {
        rmSync(scene.socket, { force: true })
        const backend = startBackend(peer, scene.source, scene.socket, peer === 'virtiofsd-rust' ? ['--tag=theirs'] : [])
        const found = await scene.run('probe', `unix:${scene.socket}`, ...json ? ['--json'] : [])
        t.match(found, { exit: { code: 0 }, stderr: '' })
        const tag = peer === 'virtiofsd-rust' ? 'theirs' : 'vhost.sock'
        if (json) t.match(JSON.parse(found.stdout), { tag, requestQueues: 1, protocolFeatureNames: [String], init: { major: 7, maxWrite: Number, flags: [String] } })
        else t.match(found.stdout, new RegExp(`^tag +${tag}\n(.|\n)*protocol features +MQ .*REPLY_ACK`))
        t.match(await backend.endsWithin(5000), { code: 0 }, 'it has been disconnected')
      }
    })
  })
}

/** How often each thread has gone to sleep, and the CPU time of the process. */
function activity(pid: number): Record<string, number> {
  const found: Record<string, number> = {}
  for (const task of readdirSync(`/proc/${pid}/task`)) {
    const status = readFileSync(`/proc/${pid}/task/${task}/status`, 'utf8')
    found[`${/^Name:\s*(.*)$/m.exec(status)![1]} ${task}`] = Number(/^voluntary_ctxt_switches:\s*(\d+)$/m.exec(status)![1])
  }
  const [user, system] = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ').slice(11, 13)
  return { ...found, 'ticks of CPU': Number(user) + Number(system) }
}

const IDLE_MS = 3000
const TRIES = 8

t.test('idle mounts do nothing at all', { skip: missing('emulated') }, async t => {
  // the engine collects its garbage some ten seconds after the last allocation: that is not what is looked for
  const mount = async (scene: Scene, peer: Peer): Promise<Program> => {
    const bridge = new Program([BRIDGE[0]!, '--no-memory-reducer', BRIDGE[1]!, sourceOf(scene, peer), scene.dir, '-f'], { env: scene.env })
    await untilUsable(scene.dir, bridge)
    await writeFile(join(scene.dir, 'a'), 'b')
    return bridge
  }
  await Promise.all(PEERS.map(async peer => {
    if (missing(peer)) return t.comment(`${peer}: ${missing(peer)}`)
    await inScene(async scene => {
      const { pid } = await mount(scene, peer)
      let before = activity(pid)
      let after = before
      // what it does behind its start takes a while on a busy machine
      for (let tries = 0; tries < TRIES; tries++) {
        await sleep(500)
        before = activity(pid)
        await sleep(IDLE_MS)
        after = activity(pid)
        if (JSON.stringify(before) === JSON.stringify(after)) break
      }
      t.strictSame(after, before, `${peer}: no thread woke up in ${IDLE_MS / 1000} s`)
      t.ok(Object.keys(after).length > 5, `${peer}: and there are threads`)
      t.equal(await readFile(join(scene.dir, 'a'), 'utf8'), 'b', `${peer}: it still answers`)
    })
  }))
})

for (const peer of BACKENDS) {
  t.test(`${peer}: no virtiofsd outlives a bridge that is killed`, { skip: missing(peer) }, async t => {
    await inScene(async scene => {
      t.match(await scene.run(scene.source, scene.dir, '-o', `backend=virtiofsd,virtiofsd=${peerPath(peer)}`), OK)
      await writeFile(join(scene.dir, 'a'), 'b')
      const { pid } = scene.live()
      const all = processTree(pid)
      t.ok(all.length > 1, 'one runs')
      signal(pid, 'SIGKILL')
      t.ok(await eventually(() => !all.some(each => existsSync(`/proc/${each}`))), 'all of them have ended')
      t.strictSame(scene.processes(), [])
      await t.rejects(readFile(join(scene.dir, 'a')), { code: 'ENOTCONN' }, 'and nobody waits')
    })
  })
}
