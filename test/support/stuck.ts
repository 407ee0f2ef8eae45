/** What to look at, and what to do, when a mount is stuck: kernel stacks, and the abort of its FUSE connection. */
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { MNT_DETACH } from '../../lib/mount/flags.js'
import { findMount, FS_TYPE } from '../../lib/mount/mountinfo.js'
import { unmountFileSystem } from '../../lib/sys/mount.js'
import { processTree, run } from './program.js'

const CONNECTIONS = '/sys/fs/fuse/connections'

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8').trim()
  } catch (error) {
    return `(${(error as NodeJS.ErrnoException).code})`
  }
}

/** Where every thread of these processes and of their descendants is in the kernel. */
export function kernelStacks(pids: readonly number[]): string {
  const lines: string[] = []
  for (const pid of new Set(pids.flatMap(processTree))) {
    let tasks: string[]
    try {
      tasks = readdirSync(`/proc/${pid}/task`)
    } catch {
      lines.push(`process ${pid}: gone`)
      continue
    }
    for (const task of tasks) {
      const at = `/proc/${pid}/task/${task}`
      const state = /^State:\s*(.*)$/m.exec(read(`${at}/status`))?.[1] ?? '?'
      lines.push(`process ${pid} thread ${task} (${read(`${at}/comm`)}): ${state}, wchan ${read(`${at}/wchan`)}`)
      const stack = read(`${at}/stack`)
      if (!stack.startsWith('(')) lines.push(...stack.split('\n').map(line => `    ${line}`))
    }
  }
  return lines.join('\n')
}

/** Mounts the control file system of FUSE when it is not there. */
export async function ensureFusectl(): Promise<void> {
  if (existsSync(CONNECTIONS) && readMountTypes().includes('fusectl')) return
  await run(['mount', '-t', 'fusectl', 'fusectl', CONNECTIONS], { timeoutMs: 5000 }).catch(() => '')
}

function readMountTypes(): string[] {
  return readFileSync('/proc/self/mounts', 'utf8').split('\n').map(line => line.split(' ')[2] ?? '')
}

/** Aborts a FUSE connection: everybody stuck in it gets an error. */
export async function abortConnection(connection: number): Promise<void> {
  await ensureFusectl()
  try {
    writeFileSync(`${CONNECTIONS}/${connection}/abort`, '1')
  } catch {
    // it has ended meanwhile
  }
}

/** Removes a mount of ours by force, if there is one. Never hangs. @returns whether there was one */
export async function clearMount(directory: string): Promise<boolean> {
  let found = false
  for (let tries = 0; tries < 4; tries++) {
    const entry = findMount(directory)
    if (entry?.type !== FS_TYPE) break
    found = true
    await abortConnection(entry.minor)
    await unmountFileSystem(directory, MNT_DETACH)
  }
  return found
}
