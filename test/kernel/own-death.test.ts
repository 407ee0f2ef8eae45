/** The bridge itself dies: a short run of test/campaigns/deaths.ts, and what it has found. */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { dieOnce, MOMENTS } from '../campaigns/death-cycle.js'
import { untilUsable } from '../support/mounts.js'
import { BRIDGE, missing, peerPath } from '../support/peers.js'
import { processTree, Program, runToEnd, signal } from '../support/program.js'
import { eventually, inScene } from '../support/scene.js'
import { SeededRandom } from '../support/seeded-random.js'
import { clearMount } from '../support/stuck.js'

const SEED = Number(process.env['SEED'] ?? 77)
const SETTLE_MS = 5000

t.test('killed at random moments', { skip: missing('emulated') }, async t => {
  const base = mkdtempSync(join(tmpdir(), 'vfb-deaths-'))
  t.teardown(() => rmSync(base, { recursive: true, force: true }))
  const devices = [[], ...missing('virtiofsd-rust') ? [] : [['backend=virtiofsd', `virtiofsd=${peerPath('virtiofsd-rust')}`]]]
  for (const [i, moment] of [...MOMENTS, MOMENTS[0]!].entries()) {
    const { findings, left, then } = await dieOnce(new SeededRandom(SEED * 100 + i), join(base, `kill-${i}-`), moment, devices[i % devices.length]!)
    t.strictSame(findings, [], `${moment}: ${left}, then ${then}`)
  }
})

t.test('finding: a dead mount is dead though its attributes are cached', { skip: missing('emulated') }, async t => {
  const base = mkdtempSync(join(tmpdir(), 'vfb-'))
  const [source, dir] = [join(base, 'src'), join(base, 'mnt')]
  for (const path of [source, dir]) mkdirSync(path)
  writeFileSync(join(source, 'a'), 'content')
  const bridge = new Program([...BRIDGE, source, dir, '-f', '-o', 'cache=always'])
  try {
    await untilUsable(dir, bridge)
    statSync(dir)
    await bridge.kill()
    const status = await runToEnd([...BRIDGE, 'status', dir])
    t.match(status.stdout, /dead/, 'status says so')
    const again = await runToEnd([...BRIDGE, source, dir])
    t.equal(again.exit?.code, 0, again.stderr)
    t.equal(readFileSync(join(dir, 'a'), 'utf8'), 'content', 'and it is mounted again at once')
    t.equal((await runToEnd([...BRIDGE, 'umount', dir])).exit?.code, 0)
  } finally {
    await clearMount(dir)
    await bridge.kill()
    rmSync(base, { recursive: true, force: true })
  }
})

t.test('finding: killed right after it has started its virtiofsd', { skip: missing('virtiofsd-rust') }, async t => {
  const base = mkdtempSync(join(tmpdir(), 'vfb-'))
  const [source, dir, runtime, started] = [join(base, 'src'), join(base, 'mnt'), join(base, 'run'), join(base, 'started')]
  for (const path of [source, dir, runtime]) mkdirSync(path)
  // a virtiofsd that takes its time before it looks at its socket
  const slow = join(base, 'slow-virtiofsd')
  writeFileSync(slow, `#!/bin/sh\n[ "$1" = --version ] && exit\necho $$ >${started}.new; mv ${started}.new ${started}\nsleep 0.5\nexec ${peerPath('virtiofsd-rust')} "$@"\n`, { mode: 0o755 })
  const bridge = new Program([...BRIDGE, source, dir, '-f', '-o', `backend=virtiofsd,virtiofsd=${slow}`], { env: { ...process.env, XDG_RUNTIME_DIR: runtime } })
  let pid = 0
  try {
    const endMs = performance.now() + 20_000
    while (!existsSync(started) && performance.now() < endMs) await sleep(5)
    pid = Number(readFileSync(started, 'utf8'))
    signal(bridge.pid, 'SIGKILL')
    await bridge.endsWithin(SETTLE_MS)
    const goneMs = performance.now() + SETTLE_MS
    while (existsSync(`/proc/${pid}`) && performance.now() < goneMs) await sleep(20)
    t.notOk(existsSync(`/proc/${pid}`), 'it finds a client that has gone, and ends')
    t.strictSame(readdirSync(join(runtime, 'virtiofs-bridge')).filter(name => name.startsWith('m-')), [], 'its socket is not left')
  } finally {
    if (pid > 0) for (const each of processTree(pid)) signal(each, 'SIGKILL')
    await clearMount(dir)
    await bridge.kill()
    rmSync(base, { recursive: true, force: true })
  }
})

t.test('auto_unmount: killed, and nothing is mounted any more', { skip: missing('emulated') }, async t => {
  await inScene(async scene => {
    const places = ['a b', 'back\\slash'].map(name => join(scene.base, name))
    for (const path of places) mkdirSync(path)
    t.match(await scene.run(scene.source, places[0]!, '-o', 'auto_unmount,tag=guarded'), { exit: { code: 0 }, stderr: '' })
    t.match(await scene.run('guarded', places[1]!), { exit: { code: 0 }, stderr: '' }, 'at a second place, too')
    t.strictSame(scene.mounts(), places)
    signal(scene.live().pid, 'SIGKILL')
    t.ok(await eventually(() => scene.mounts().length === 0), 'unmounted')
    t.ok(await eventually(() => scene.processes().length === 0), 'and who did it has ended')

    t.match(await scene.run('status'), { exit: { code: 0 }, stdout: '', stderr: '' }, 'nobody misses it')
    t.match(await scene.run(scene.source, scene.dir, '-o', 'auto_unmount'), { exit: { code: 0 }, stderr: '' })
    t.match(await runToEnd(['umount', scene.dir]), { exit: { code: 0 } })
    t.ok(await eventually(() => scene.leftovers().length === 0), `nothing is left after an ordinary end: ${scene.leftovers().join('; ')}`)
    t.match(await scene.run(scene.source, scene.dir, '-o', 'auto_unmount,supervise'), { exit: { code: 1 }, stderr: /^virtiofs-bridge: option supervise does not go with auto_unmount: [^\n]+\n$/ })
  })
})
