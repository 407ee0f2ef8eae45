/**
 * The bridge itself is killed (SIGKILL), at a moment that the seed picks: while it mounts, serves,
 * or unmounts. What is left must be a dead mount at the most, which the next command clears away;
 * and no process, and nothing in the runtime directory that this command would not remove.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { findMount, FS_TYPE } from '../../lib/mount/mountinfo.js'
import { untilUsable } from '../support/mounts.js'
import { BRIDGE } from '../support/peers.js'
import { Program, runToEnd, signal, within } from '../support/program.js'
import { clearMount } from '../support/stuck.js'
import type { SeededRandom } from '../support/seeded-random.js'

export type Moment = 'mounting' | 'serving' | 'unmounting'
export const MOMENTS: readonly Moment[] = ['mounting', 'serving', 'unmounting']

/** How long a mount and an unmount take, roughly, in milliseconds: the range of random moments. */
const MOUNT_MS = 700
const UNMOUNT_MS = 60
const DEAD_MS = 2000
const GONE_MS = 5000
const COMMAND_MS = 30_000

export interface Death {
  moment: Moment
  /** What there was right afterwards. */
  left: 'nothing' | 'a dead mount'
  /** What cleared it away. */
  then: 'mount' | 'umount' | 'nothing'
  findings: string[]
}

/** Processes but this one that have this text in their command line. */
function processesWith(text: string): number[] {
  return readdirSync('/proc').filter(name => /^\d+$/.test(name) && Number(name) !== process.pid).map(Number).filter(pid => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(text)
    } catch {
      return false
    }
  })
}

function files(dir: string): string[] {
  return readdirSync(dir, { recursive: true, withFileTypes: true }).filter(entry => !entry.isDirectory() || entry.name.startsWith('m-')).map(entry => join(entry.parentPath, entry.name).slice(dir.length + 1))
}

/** What statfs(2) says of a directory, in a process that can be left behind: attributes may be cached. */
async function statText(dir: string): Promise<string> {
  const child = spawn('stat', ['-f', dir], { env: { ...process.env, LC_ALL: 'C' } })
  let said = ''
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', text => { said += text })
  if (await within(DEAD_MS, once(child, 'close')) === undefined) {
    child.kill('SIGKILL')
    return `no answer within ${DEAD_MS} ms`
  }
  return said.trim()
}

/**
 * @param base an empty directory, of which the name is in no other command line
 * @param options for -o
 */
export async function dieOnce(random: SeededRandom, base: string, moment: Moment, options: readonly string[]): Promise<Death> {
  const [source, dir, runtime] = [join(base, 'src'), join(base, 'mnt'), join(base, 'run')]
  for (const path of [base, source, dir, runtime]) mkdirSync(path, { recursive: true })
  writeFileSync(join(source, 'a file'), 'content')
  const env = { ...process.env, XDG_RUNTIME_DIR: runtime }
  const death: Death = { moment, left: 'nothing', then: 'nothing', findings: [] }
  const { findings } = death
  const command = (...args: string[]): Promise<Program> => runToEnd([...BRIDGE, ...args], { env, timeoutMs: COMMAND_MS })
  const bridge = new Program([...BRIDGE, source, dir, '-f', ...options.length > 0 ? ['-o', options.join(',')] : []], { env })
  try {
    if (moment === 'mounting') {
      await sleep(random.below(MOUNT_MS))
    } else {
      await untilUsable(dir, bridge)
      const load = new Program(['sh', '-c', `while :; do dd if=/dev/zero of=${dir}/written bs=64k count=20 2>/dev/null || exit; ls -l ${dir} >/dev/null; done`])
      await sleep(random.below(100))
      if (moment === 'unmounting') {
        await load.kill()
        signal(bridge.pid, 'SIGTERM')
        await sleep(random.below(UNMOUNT_MS))
      }
      signal(bridge.pid, 'SIGKILL')
      if (await load.endsWithin(DEAD_MS) === undefined && load.alive) findings.push('who used the mount still waits')
      await load.kill()
    }
    signal(bridge.pid, 'SIGKILL')
    await bridge.endsWithin(GONE_MS)

    if (findMount(dir)?.type === FS_TYPE) {
      death.left = 'a dead mount'
      const said = await statText(dir)
      if (!/not connected|connection abort/i.test(said)) findings.push(`the dead mount answers: ${said}`)
    }
    await noneLeft(base, findings)
    if (death.left === 'a dead mount' && random.below(2) === 0) {
      death.then = 'umount'
      const { exit, stderr } = await command('umount', dir)
      if (exit?.code !== 0) findings.push(`umount: ${stderr.trim()}`)
      await command('status')
    } else {
      death.then = 'mount'
      const again = await command(source, dir, ...options.length > 0 ? ['-o', options.join(',')] : [])
      if (again.exit?.code !== 0) findings.push(`the next mount: ${again.stderr.trim()}`)
      else if (readFileSync(join(dir, 'a file'), 'utf8') !== 'content') findings.push('the next mount has other content')
      const { exit, stderr } = await command('umount', dir)
      if (again.exit?.code === 0 && exit?.code !== 0) findings.push(`umount of the next mount: ${stderr.trim()}`)
      await command('status')
    }
    await noneLeft(base, findings)
    const left = files(runtime)
    if (left.length > 0) findings.push(`in the runtime directory: ${left.join(' ')}`)
  } finally {
    if (await clearMount(dir)) findings.push('a mount was left')
    for (const pid of processesWith(base)) signal(pid, 'SIGKILL')
    rmSync(base, { recursive: true, force: true })
  }
  return death
}

/** Waits for the processes of a mount to end. */
async function noneLeft(base: string, findings: string[]): Promise<void> {
  const endMs = performance.now() + GONE_MS
  while (processesWith(base).length > 0 && performance.now() < endMs) await sleep(20)
  for (const pid of processesWith(base)) findings.push(`process ${pid} is left: ${readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ')}`)
}
