/**
 * Load for long: very many open files and threads on one mount, a checksum in every block, caches
 * dropped at random; the memory of the bridge is to be flat.
 *
 *   node dist/test/campaigns/load.js [--minutes=30] [--files=2000] [--callers=256] [--seed=1] [--peer=emulated|own]
 *
 * Exit code 1 when a block was wrong, an operation failed, or the bridge has grown.
 */
import { fork, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { untilUsable } from '../support/mounts.js'
import { BRIDGE, noKernel, peerPath } from '../support/peers.js'
import { Program, runToEnd } from '../support/program.js'
import { SeededRandom } from '../support/seeded-random.js'
import { clearMount } from '../support/stuck.js'

const LOOK_MS = 5000
/** The memory is measured from here on: pools and caches are filled. */
const WARM = 0.2
/** What it may grow by from then on, in bytes. */
const GROWTH = 48 << 20
/** How long the bridge may take to end, in milliseconds: a session that is drained, and thousands of inodes forgotten, on a busy machine. */
const END_MS = 60_000

interface Answer { operations: number, wrong: string[], done?: boolean }

const { values } = parseArgs({
  options: { minutes: { type: 'string', default: '30' }, files: { type: 'string', default: '2000' }, callers: { type: 'string', default: '256' }, seed: { type: 'string', default: '1' }, peer: { type: 'string', default: 'emulated' } },
})
const reason = noKernel()
if (reason) {
  console.log(`load: ${reason}`)
  process.exit(0)
}

// in a mount namespace of its own: whoever makes one meanwhile would get a copy of the mount, and keep it alive
if (process.env['LOAD_ALONE'] === undefined) {
  const { status } = spawnSync('unshare', ['--mount', '--propagation', 'private', process.execPath, ...process.argv.slice(1)], { stdio: 'inherit', env: { ...process.env, LOAD_ALONE: '1' } })
  process.exit(status ?? 1)
}

function residentBytes(pid: number): number {
  return Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) * 1024
}

const random = new SeededRandom(Number(values.seed))
const base = mkdtempSync(join(tmpdir(), 'vfb-load-'))
const [source, dir] = [join(base, 'src'), join(base, 'mnt')]
for (const path of [source, dir]) mkdirSync(path)
const options = values.peer === 'own' ? ['-o', `backend=virtiofsd,virtiofsd=${peerPath('virtiofsd-rust')}`] : []
const bridge = new Program([...BRIDGE, source, dir, '-f', ...options])
const failures: string[] = []
let drops = 0
let endedMs = 0
let last: Answer = { operations: 0, wrong: [] }
const resident: number[] = []
const descriptors: number[] = []
const start = performance.now()
try {
  await untilUsable(dir, bridge)
  const child = fork(fileURLToPath(new URL('./load-files.js', import.meta.url)), [dir, values.files, values.callers, values.seed], { env: { ...process.env, UV_THREADPOOL_SIZE: values.callers } })
  await once(child, 'message')
  const totalMs = Number(values.minutes) * 60_000
  for (const beganMs = performance.now(); performance.now() - beganMs < totalMs;) {
    await sleep(Math.min(LOOK_MS, totalMs / 20))
    const told = once(child, 'message') as Promise<[Answer]>
    child.send('status')
    const [answer] = await told
    last = answer
    if (answer.done || answer.wrong.length > 0) break
    if (random.below(4) === 0) {
      writeFileSync('/proc/sys/vm/drop_caches', '3')
      drops++
    }
    if (performance.now() - beganMs > WARM * totalMs) {
      resident.push(residentBytes(bridge.pid))
      descriptors.push(readdirSync(`/proc/${bridge.pid}/fd`).length)
    }
  }
  if (!last.done) {
    const told = once(child, 'message') as Promise<[Answer]>
    child.send('stop')
    last = (await told)[0]
  }
  failures.push(...last.wrong)
  const { exit, stderr } = await runToEnd(['umount', dir])
  if (exit?.code !== 0) failures.push(`umount: ${stderr.trim()}`)
  const endBeganMs = performance.now()
  if ((await bridge.endsWithin(END_MS))?.code !== 0 || bridge.stderr !== '') failures.push(`the bridge ended with ${bridge.exit?.code}: ${bridge.stderr}`)
  endedMs = performance.now() - endBeganMs
} finally {
  await clearMount(dir)
  await bridge.kill()
  rmSync(base, { recursive: true, force: true })
}
const mib = (bytes = 0): number => Math.round(bytes / 2 ** 20)
if (Math.max(...resident) - resident[0]! > GROWTH) failures.push(`the bridge has grown from ${mib(resident[0])} to ${mib(Math.max(...resident))} MiB`)
for (const failure of failures) console.log(`FAILED: ${failure}`)
console.log(`load ${values.peer}: seed ${values.seed}, ${values.files} files, ${values.callers} threads, ${last.operations} operations, caches dropped ${drops} times, ended in ${Math.round(endedMs)} ms, ${mib(resident[0])} to ${mib(resident.at(-1))} MiB resident (most ${mib(Math.max(...resident))}), ${Math.min(...descriptors)} to ${Math.max(...descriptors)} descriptors; ${failures.length} failures; ${Math.round((performance.now() - start) / 1000)} s`)
process.exit(failures.length > 0 ? 1 : 0)
