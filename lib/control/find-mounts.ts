/**
 * Every mount of this machine that can be seen: what its process says on its control socket; what
 * its tag says, for a mount of a program that uses the library; what the kernel says, for one
 * whose process has died or is somebody else's.
 */
import { rmSync } from 'node:fs'
import { basename } from 'node:path'
import { PeerGoneError } from '../errors.js'
import { askMount } from '../mount/ask-mount.js'
import { findLiveMount, liveMounts } from '../mount/live-tags.js'
import type { MountStatus } from '../mount/mount-status.js'
import { resolveMountpoint } from '../mount/mountpoint.js'
import { FS_TYPE, readMounts, type MountEntry } from '../mount/mountinfo.js'
import { ControlClient } from './client.js'
import { controlSockets } from './control-dir.js'

/** A mount of which only that is known which others can see. */
export interface SeenMount extends Partial<Omit<MountStatus, 'health'>> {
  mountpoints: string[]
  source: string
  connection: number
  /**
   * `dead`: its process has ended; unmount it. `silent`: its process does not answer. `library`:
   * a program serves it that has no control socket. `waiting`: its process has ended, and its supervisor
   * starts another. `foreign`: of another user.
   */
  health: 'dead' | 'silent' | 'waiting' | 'library' | 'foreign'
}

export type FoundMount = (MountStatus | SeenMount) & {
  /** Of its control socket. */
  socket?: string
}

const HEALTH = { dead: 'dead', silent: 'silent', answers: 'foreign' } as const

/** Every mount that can be seen, sorted by its mount point. */
export async function findMounts(): Promise<FoundMount[]> {
  const entries = readMounts().filter(entry => entry.type === FS_TYPE)
  const answers = await Promise.all(controlSockets().map(askSocket))
  const found: FoundMount[] = answers.filter(answer => typeof answer === 'object')
  const silent = answers.filter(answer => typeof answer === 'number')
  const known = (connection: number): boolean => found.some(mount => mount.connection === connection)
  for (const live of liveMounts()) {
    if (live.connection < 0 || known(live.connection)) continue
    const health = silent.includes(live.pid) ? 'silent' : live.supervisor === undefined ? 'library' : 'waiting'
    found.push({
      mountpoints: placesOf(entries, live.connection), source: live.source, connection: live.connection, health, tag: live.tag, pid: live.pid,
      ...health === 'waiting' && { reason: 'the process that serves it has ended, and another is started', supervisor: live.supervisor! },
    })
  }
  for (const connection of new Set(entries.map(entry => entry.minor))) {
    if (known(connection)) continue
    const mountpoints = placesOf(entries, connection)
    const { source } = entries.find(entry => entry.minor === connection)!
    found.push({ mountpoints, source, connection, health: HEALTH[await askMount(mountpoints[0]!)] })
  }
  return found.sort((a, b) => (a.mountpoints[0] ?? '') < (b.mountpoints[0] ?? '') ? -1 : 1)
}

function placesOf(entries: MountEntry[], connection: number): string[] {
  return entries.filter(entry => entry.minor === connection).map(entry => entry.mountpoint).reverse()
}

/** @returns undefined for the socket of a process that has died, which is removed; the pid of one that does not answer */
async function askSocket(socket: string): Promise<FoundMount | number | undefined> {
  let client
  try {
    client = await ControlClient.connect(socket)
    return { ...await client.ask({ command: 'status' }), socket }
  } catch (error) {
    if (!(error instanceof PeerGoneError)) throw error
    if (error.code === 'ETIMEDOUT') return Number(basename(socket).split('-')[0])
    if (error.code === 'ECONNREFUSED') rmSync(socket, { force: true })
    return undefined
  } finally {
    client?.close()
  }
}

/** The mount at a mount point or with a tag, or undefined. */
export async function findMountBy(target: string): Promise<FoundMount | undefined> {
  // no path: resolved, it would be the current directory
  if (target === '') return undefined
  // one that is just being mounted is waited for
  await findLiveMount(target)
  const path = resolveMountpoint(target)
  const all = await findMounts()
  return all.find(mount => mount.mountpoints.includes(path)) ?? all.find(mount => mount.tag === target)
}
