/** `virtiofs-bridge status`. */
import { findMountBy, findMounts, type FoundMount } from '../lib/control/find-mounts.js'
import { ExitCode } from './exit-codes.js'
import { noMount } from './no-mount.js'
import { withProgress } from './progress.js'
import { bytes, columns, duration } from './table.js'
import { isTerminal } from './terminal.js'

/**
 * @param target a mount point or a tag: all about this one
 * @returns the exit code: FAILURE when a mount is not well
 */
export async function statusCommand(target: string | undefined, json: boolean): Promise<number> {
  const mounts = await withProgress('asking', target === undefined ? findMounts() : found(target).then(mount => [mount]))
  if (json) console.log(JSON.stringify(target === undefined ? mounts.map(withoutSocket) : withoutSocket(mounts[0]!), null, 2))
  else if (target !== undefined) console.log(columns(details(mounts[0]!)))
  else if (mounts.length > 0) console.log(columns([['MOUNT POINT', 'SOURCE', 'TAG', 'BACKEND', 'PID', 'UP', 'IN FLIGHT', 'HEALTH'], ...mounts.map(row)]))
  else if (isTerminal()) console.log('no mounts')
  return mounts.some(({ health }) => UNWELL.has(health)) ? ExitCode.FAILURE : ExitCode.OK
}

const UNWELL = new Set<FoundMount['health']>(['gone', 'waiting', 'dead', 'silent'])

async function found(target: string): Promise<FoundMount> {
  const mount = await findMountBy(target)
  if (!mount) throw noMount(target)
  return mount
}

function withoutSocket({ socket: _, ...mount }: FoundMount): object {
  return mount
}

const ADVICE: Partial<Record<FoundMount['health'], string>> = {
  dead: 'its process has ended: umount it', silent: 'its process does not answer: umount --abort', foreign: 'of another user',
  library: 'served by a program',
}

function health(mount: FoundMount): string {
  const why = mount.health === 'gone' || mount.health === 'waiting' ? mount.reason : ADVICE[mount.health]
  return why === undefined ? mount.health : `${mount.health} (${why})`
}

function row(mount: FoundMount): string[] {
  const { mountpoints: [place = '(detached)', ...more] } = mount
  return [
    more.length > 0 ? `${place} +${more.length}` : place, mount.source, mount.tag ?? '-', mount.backend ?? '-', String(mount.pid ?? '-'),
    mount.uptimeSeconds === undefined ? '-' : duration(mount.uptimeSeconds), String(mount.inFlight ?? '-'), health(mount),
  ]
}

function details(mount: FoundMount): string[][] {
  const rows: [string, string | number | undefined][] = [
    ['mount points', mount.mountpoints.join(' ') || '(detached)'], ['source', mount.source], ['tag', mount.tag], ['backend', mount.backend],
    ['health', health(mount)], ['pid', mount.pid], ['supervisor', mount.supervisor || undefined], ['restarts', mount.supervisor ? mount.restarts : undefined], ['connection', mount.connection], ['since', mount.since],
    ['uptime', mount.uptimeSeconds === undefined ? undefined : duration(mount.uptimeSeconds)],
    ['request queues', mount.requestQueues], ['queue size', mount.queueSize], ['in flight', mount.inFlight], ['requests', mount.requests], ['errors', mount.errors],
    ['read', mount.bytesRead === undefined ? undefined : bytes(mount.bytesRead)], ['written', mount.bytesWritten === undefined ? undefined : bytes(mount.bytesWritten)],
    ['features', mount.features?.join(' ')], ['protocol features', mount.protocolFeatures?.join(' ')],
    ['FUSE version', mount.fuseVersion], ['FUSE flags', mount.fuseFlags?.join(' ')],
    ...(mount.notices ?? []).map((notice): [string, string] => ['notice', notice]),
  ]
  return rows.filter(([, value]) => value !== undefined && value !== '').map(([name, value]) => [name, String(value)])
}
