/**
 * A shared directory whose file system does not answer any more, while a thread of the device waits
 * for it: unmounting ends all the same, and what the thread may use stays until it has ended. The
 * file system is another mount of the bridge, which is told to swallow a request.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { connect, FaultControl, mount, type Mount } from '../../lib/index.js'
import { findMount } from '../../lib/mount/mountinfo.js'
import { held } from '../support/held.js'
import { missing } from '../support/peers.js'
import { Program, run, within } from '../support/program.js'
import { eventually, inScene } from '../support/scene.js'
import { clearMount } from '../support/stuck.js'

const skip = missing('emulated')
/** Each step of the end has so long; there are two, and the wait for the threads. */
const MOUNT_TIMEOUT_S = 1
const END_MS = 30_000

interface Place { dir: string, below: Mount, faults: FaultControl, mountpoint: string }

/** @param body may leave `mountpoint` mounted, and threads that wait for `below` */
async function withPlace(t: Test, body: (place: Place) => Promise<void>): Promise<void> {
  const before = held()
  const base = mkdtempSync(join(tmpdir(), 'vfb-'))
  const [real, dir, mountpoint] = [join(base, 'real'), join(base, 'source'), join(base, 'mount')]
  for (const path of [real, dir, mountpoint]) mkdirSync(path)
  writeFileSync(join(real, 'file'), 'twelve bytes')
  const faults = new FaultControl()
  const below = await mount({ source: real, mountpoint: dir, faults, options: { cache: 'never', mountTimeout: MOUNT_TIMEOUT_S } })
  try {
    await body({ dir, below, faults, mountpoint })
  } finally {
    await clearMount(mountpoint)
    await below.unmount({ abort: true })
    rmSync(base, { recursive: true })
  }
  await eventually(() => held().join() === before.join())
  t.strictSame(held(), before, 'everything is freed once the thread has ended')
}

/** Makes a call that waits for the file system below. @returns once that has swallowed it */
async function hang({ faults, below, mountpoint }: Place, opcode: 'STATFS' | 'FSYNC'): Promise<Program> {
  const count = (): number => below.stats().opcodes[opcode] ?? 0
  const before = count()
  faults.dropNext(opcode)
  const program = new Program(opcode === 'STATFS' ? ['stat', '-f', mountpoint] : ['sync', join(mountpoint, 'file')])
  if (!await eventually(() => count() > before)) throw new Error(`no ${opcode} came: ${program.stderr}`)
  return program
}

async function unmounts(t: Test, mounted: Mount): Promise<void> {
  let trouble = ''
  mounted.on('trouble', message => { trouble = message })
  const fromMs = performance.now()
  t.equal(await within(END_MS, mounted.unmount({ abort: true }).then(() => true)), true, `it ends, after ${Math.round(performance.now() - fromMs)} ms`)
  t.equal(trouble, 'a thread of the device hangs in a system call on the shared directory')
}

// what is made once per process, for its first child too, is there from here on
await run(['true'])
if (!skip) await withPlace(t, async ({ dir, mountpoint }) => await (await mount({ source: dir, mountpoint })).unmount())

for (const [who, opcode, queues] of [['the thread of the only queue', 'STATFS', 1], ['that of one of two queues', 'STATFS', 2], ['one of the pool', 'FSYNC', 1]] as const) {
  t.test(`the thread that hangs is ${who}`, { skip }, async t => {
    await withPlace(t, async place => {
      const mounted = await mount({ source: place.dir, mountpoint: place.mountpoint, faults: new FaultControl(), options: { mountTimeout: MOUNT_TIMEOUT_S, queues } })
      const program = await hang(place, opcode)
      await unmounts(t, mounted)
      t.match(await program.endsWithin(END_MS), { code: 1 }, 'the caller got an error')
    })
  })
}

t.test('a client without a mount', { skip }, async t => {
  await withPlace(t, async ({ dir, faults }) => {
    const fs = await connect(dir, { mountTimeout: MOUNT_TIMEOUT_S })
    faults.dropNext('STATFS')
    const failed = fs.statfs('/').catch((error: NodeJS.ErrnoException) => error.code)
    t.equal(await within(END_MS, fs.close().then(() => true)), true, 'it ends')
    t.equal(await within(END_MS, failed), 'ECONNABORTED')
  })
})

t.test('the process ends without its thread', { skip }, async t => {
  await inScene(scene => withPlace(t, async place => {
    const { dir, mountpoint } = place
    const command = scene.start(dir, mountpoint, '-f', '-o', `mount_timeout=${MOUNT_TIMEOUT_S}`)
    t.ok(await eventually(() => scene.files().length > 0 && findMount(mountpoint) !== undefined), command.stderr)
    const program = await hang(place, 'STATFS')
    command.child.kill('SIGTERM')
    t.ok(await eventually(() => command.stderr.includes('detaching it')), command.stderr)
    command.child.kill('SIGTERM')
    t.match(await command.endsWithin(END_MS), { code: 0 })
    t.match(command.stderr, /a thread of the device hangs in a system call on the shared directory\n/)
    await program.kill()
  }))
})
