/** doctor: what it says on a machine that is well, and of each thing that is not. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { FS_TYPE } from '../../lib/mount/mountinfo.js'
import type { Finding } from '../../bin/doctor-report.js'
import { documentedFields } from '../support/documented.js'
import { MountNamespace } from '../support/mount-namespace.js'
import { BRIDGE, missing, noProgram, peerPath } from '../support/peers.js'
import { processTree, signal, type Program } from '../support/program.js'
import { eventually, inScene, type Scene } from '../support/scene.js'

const skip = missing('emulated') || noProgram('nsenter') || noProgram('unshare')

interface Place {
  scene: Scene
  namespace: MountNamespace
  /** Runs the command inside, with something before it. */
  run: (args: readonly string[], before?: readonly string[]) => Promise<Program>
  /** Runs doctor --json inside. */
  doctor: (args?: readonly string[], before?: readonly string[]) => Promise<{ code: number | null | undefined, findings: Finding[] }>
}

/** A namespace in which no mounts of others are seen. */
async function withPlace(body: (place: Place) => Promise<void>): Promise<void> {
  await inScene(async scene => {
    const namespace = await MountNamespace.create()
    const run: Place['run'] = async (args, before = []) => await namespace.try([...before, ...BRIDGE, ...args], scene.env)
    try {
      await body({
        scene, namespace, run,
        doctor: async (args = [], before = []) => {
          const program = await run(['doctor', '--json', ...args], before)
          return { code: program.exit?.code, findings: JSON.parse(program.stdout || '[]') as Finding[] }
        },
      })
    } finally {
      for (const entry of namespace.mounts().reverse()) if (entry.type === FS_TYPE) await namespace.try(['umount', '-l', entry.mountpoint])
      await namespace.end()
    }
  })
}

/** The one finding of a check. */
function of(t: Test, findings: readonly Finding[], check: string): Finding | undefined {
  const found = findings.filter(finding => finding.check === check)
  t.equal(found.length, 1, `it has looked at ${check}`)
  return found[0]
}

t.test('a machine that is well', { skip }, async t => {
  await withPlace(async ({ scene, run, doctor }) => {
    t.match(await run([scene.source, scene.dir]), { exit: { code: 0 } })
    const { code, findings } = await doctor()
    t.equal(code, 0)
    for (const check of ['node', 'system calls', '/dev/fuse', 'right to mount', 'runtime directory', 'locked memory', 'FUSE over io_uring']) t.equal(of(t, findings, check)?.state, 'ok', check)
    for (const check of ['kernel', 'fusermount3', 'user_allow_other', 'mount(8) helpers', 'open files', 'fusectl', 'fuse-native']) t.match(of(t, findings, check), { state: /^(ok|note|warning)$/ })
    t.match(of(t, findings, 'mounts'), { state: 'ok', found: '1, all well' })
    t.strictSame(Object.keys(findings[0]!).sort(), documentedFields('doctor --json').sort(), 'the documentation has every field')
    for (const { check, state, advice } of findings) t.equal(advice === '', state === 'ok', `advice where it is needed: ${check}`)

    const { stdout, stderr } = await run(['doctor'])
    t.equal(stderr, '')
    t.match(stdout, /^ok +node: v\d+/)
    t.notMatch(stdout, '\x1b', 'no colours but on a terminal')
    t.equal(stdout.split('\n').filter(line => line !== '' && !line.includes('→')).length, findings.length, 'a line each')
    t.match(await run(['umount', scene.dir]), { exit: { code: 0 } })
  })
})

t.test('a mount whose process has died, and --fix', { skip }, async t => {
  await withPlace(async ({ scene, namespace, run, doctor }) => {
    t.match(await run([scene.source, scene.dir]), { exit: { code: 0 } })
    const { pid } = scene.live()
    for (const each of processTree(pid)) signal(each, 'SIGKILL')
    t.ok(await eventually(() => scene.processes().length === 0))
    const sick = await doctor()
    t.equal(sick.code, 32)
    t.match(of(t, sick.findings, `mount ${scene.dir}`), { state: 'problem', found: /^dead: /, advice: `virtiofs-bridge umount ${scene.dir}, or doctor --fix` })
    const fixed = await doctor(['--fix'])
    t.match(of(t, fixed.findings, `mount ${scene.dir}`), { state: 'ok', found: 'was dead: unmounted' })
    t.equal(fixed.code, 0)
    t.strictSame(namespace.mounts().filter(entry => entry.type === FS_TYPE), [])
    t.match(of(t, (await doctor()).findings, 'mounts'), { state: 'ok', found: 'none' })
    t.ok(await stat(namespace.path(scene.dir)), 'the directory is itself again')
  })
})

t.test('a process that does not answer, and what fix leaves alone', { skip }, async t => {
  await withPlace(async ({ scene, namespace, run, doctor }) => {
    t.match(await run([scene.source, scene.dir]), { exit: { code: 0 } })
    const { pid } = scene.live()
    signal(pid, 'SIGSTOP')
    try {
      const { code, findings } = await doctor(['--fix'])
      t.equal(code, 32)
      t.match(of(t, findings, `mount ${scene.dir}`), { state: 'problem', found: `process ${pid} does not answer`, advice: `virtiofs-bridge umount --abort ${scene.dir}` })
    } finally {
      signal(pid, 'SIGCONT')
    }
    t.ok(namespace.mounts().some(entry => entry.mountpoint === scene.dir), 'it is still mounted')
    t.equal((await doctor()).code, 0, 'and well again')
    t.match(await run(['umount', scene.dir]), { exit: { code: 0 } })
  })
})

t.test('a device that has gone', { skip: skip || missing('virtiofsd-rust') }, async t => {
  await withPlace(async ({ scene, run, doctor }) => {
    t.match(await run([scene.source, scene.dir, '-o', `backend=virtiofsd,virtiofsd=${peerPath('virtiofsd-rust')}`]), { exit: { code: 0 } })
    for (const each of processTree(scene.live().pid).slice(1)) signal(each, 'SIGKILL')
    let seen: Finding[] = []
    for (let tries = 0; tries < 50 && !seen.some(({ state }) => state === 'problem'); tries++) seen = (await doctor()).findings
    t.match(of(t, seen, `mount ${scene.dir}`), { state: 'problem', found: /^the device has gone: /, advice: `virtiofs-bridge umount ${scene.dir}` })
    t.match(await run(['umount', scene.dir]), { exit: { code: 0 } })
  })
})

t.test('what is missing', { skip }, async t => {
  await withPlace(async ({ scene, namespace, doctor }) => {
    t.match(of(t, (await doctor([], ['prlimit', '--nofile=1024:1024'])).findings, 'open files'), { state: 'warning', found: 'at most 1024', advice: /ulimit/ })

    const bin = join(scene.base, 'bin')
    mkdirSync(bin)
    const bare = ['env', '-u', 'VIRTIOFSD', `PATH=${bin}`]
    const without = await doctor([], bare)
    t.match(of(t, without.findings, 'fusermount3'), { state: 'note', found: 'not there', advice: /apt install fuse3/ })
    t.equal(without.code, 0, 'root can do without')
    for (const name of ['fusermount3', 'virtiofsd']) writeFileSync(join(bin, name), '#!/bin/sh\necho virtiofsd 9.9.9\n', { mode: 0o755 })
    const { findings } = await doctor([], bare)
    t.match(of(t, findings, 'fusermount3'), { state: 'note', found: `${bin}/fusermount3 is not setuid root` })
    t.ok(findings.some(({ check, state, found }) => check === 'virtiofsd' && state === 'ok' && found === `${bin}/virtiofsd: 9.9.9`), 'a virtiofsd, and its version')
    t.match((await doctor([], ['env', 'VIRTIOFSD=/no/where', `PATH=${bin}`])).findings.find(({ found }) => found.startsWith('/no/where')), { state: 'warning', advice: /VIRTIOFSD/ })

    const long = join(scene.base, 'a'.repeat(100))
    mkdirSync(long)
    t.match(of(t, (await doctor([], ['env', `XDG_RUNTIME_DIR=${long}`])).findings, 'runtime directory'), { state: 'warning', advice: /XDG_RUNTIME_DIR/ })

    await namespace.run(['mount', '--bind', '/dev/null', '/dev/fuse'])
    const wrong = await doctor()
    t.equal(wrong.code, 2)
    t.match(of(t, wrong.findings, '/dev/fuse'), { state: 'problem', found: 'something else than the FUSE device', advice: 'mknod /dev/fuse c 10 229' })
    await namespace.run(['umount', '/dev/fuse'])

    const unprivileged = await doctor([], ['setpriv', '--bounding-set=-sys_admin', '--inh-caps=-sys_admin'])
    t.equal(unprivileged.code, 2)
    t.match(of(t, unprivileged.findings, 'right to mount'), { state: 'problem', found: 'root without CAP_SYS_ADMIN' })
  })
})

t.test('koffi does not load', { skip }, async t => {
  await withPlace(async ({ scene, namespace }) => {
    const register = join(scene.base, 'register.mjs')
    writeFileSync(register, `import Module from 'node:module'
const load = Module._load
Module._load = function (name, ...more) {
  if (name === 'koffi') throw new Error('no koffi for this machine')
  return load.call(this, name, ...more)
}
`)
    const program = await namespace.try([BRIDGE[0]!, '--import', register, BRIDGE[1]!, 'doctor', '--json'], scene.env)
    t.match(program, { exit: { code: 2 }, stderr: '' })
    t.match(of(t, JSON.parse(program.stdout) as Finding[], 'system calls'), { state: 'problem', found: 'no koffi for this machine', advice: /glibc/ })
  })
})
