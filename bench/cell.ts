/** One load process: measures a task on a peer, and is ended with it. */
import type { ChildProcess } from 'node:child_process'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Fixture } from './fixture.js'
import type { Task } from './load-task.js'
import type { RunningPeer } from './peers.js'
import { run } from './processes.js'
import type { Measure } from './rows.js'

const TIMEOUT_MS = 180_000
const load = join(dirname(fileURLToPath(import.meta.url)), 'load.js')
let current: ChildProcess | undefined

/**
 * @param what row, length, parameter
 * @throws Error what the load process said, or that it took too long
 */
export async function measureCell(peer: RunningPeer, fixture: Fixture, what: Pick<Task, 'row' | 'seconds' | 'parameter'>, env: string[] = []): Promise<Measure> {
  if (!peer.alive()) throw new Error('its server has ended')
  const task: Task = {
    root: peer.root, work: peer.work, mount: peer.mount, servers: peer.servers, archive: fixture.archive, treeFiles: fixture.treeFiles, ...what,
  }
  const output = await run(['env', ...env, process.execPath, load, JSON.stringify(task)], TIMEOUT_MS, child => { current = child })
  return JSON.parse(output) as Measure
}

/** Ends the load process that runs. */
export function stopLoad(): void {
  current?.kill('SIGKILL')
}
