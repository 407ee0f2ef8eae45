/** The columns of the benchmark: what is compared, and how each is started and ended. */
import { existsSync, mkdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { processTree } from './cpu.js'
import type { Fixture } from './fixture.js'
import { unmount, waitForMount } from './mounts.js'
import { Server, sleep } from './processes.js'

/** dist/bench is two below the root of the repository. */
const repository = join(dirname(fileURLToPath(import.meta.url)), '..', '..')
const bridge = [process.execPath, join(repository, 'dist/command/virtiofs-bridge.js')]
const START_MS = 10_000
const END_MS = 5000

export interface Peer {
  id: string
  title: string
  /** Ours: --check looks at these. */
  ours?: boolean
  /** Runs only when asked for. */
  optional?: boolean
  /** The rows that it is for; all by default. */
  rows?: string[]
  /** Starts a server at the mount point; `backend` is a virtiofsd's socket. None: the directory itself. */
  command?: (source: string, mountpoint: string, backend: string) => string[]
  /** Needs a Rust virtiofsd at the socket. */
  backend?: boolean
}

const passthroughLl = join(repository, '.peers/passthrough_ll')

function emulatedPeer(suffix: string, title: string, options: string[]): Peer {
  return { id: `emulated${suffix}`, title: `bridge, emulated${title}`, ours: true,
    command: (source, mountpoint) => [...bridge, source, mountpoint, ...options, '-f'] }
}

/** The bridge on both devices. */
function bridgePeers(suffix: string, title: string, options: string[]): Peer[] {
  return [
    { id: `virtiofsd${suffix}`, title: `bridge, virtiofsd${title}`, backend: true, ours: true,
      command: (_, mountpoint, socket) => [...bridge, `unix:${socket}`, mountpoint, ...options, '-f'] },
    emulatedPeer(suffix, title, options),
  ]
}

const optional = (peer: Peer): Peer => ({ ...peer, optional: true })

/** The peer whose figures are 1 in the table. */
export const REFERENCE = 'pll'

export const peers: Peer[] = [
  { id: 'plain', title: 'plain directory' },
  { id: 'bindfs', title: 'bindfs', command: (source, mountpoint) => ['bindfs', '--multithreaded', '-f', source, mountpoint] },
  { id: REFERENCE, title: 'passthrough_ll',
    command: (source, mountpoint) => [passthroughLl, '-f', '-o', 'cache=auto', '-o', `source=${source}`, mountpoint] },
  { id: 'pll-s', title: 'passthrough_ll -s',
    command: (source, mountpoint) => [passthroughLl, '-f', '-s', '-o', 'cache=auto', '-o', `source=${source}`, mountpoint] },
  ...bridgePeers('', '', []),
  { ...emulatedPeer('-direct', ', direct', ['-o', 'direct']), rows: ['seqread', 'seqwrite', 'mmap'] },
  { ...emulatedPeer('-queues2', ', queues=2', ['-o', 'queues=2']), rows: ['pread8', 'statfs8'] },
  ...bridgePeers('-no-low-latency', ', no_low_latency', ['-o', 'no_low_latency']),
  ...bridgePeers('-sleeping', ', poll=off', ['-o', 'poll=off']).map(optional),
]

/** A peer that is up. */
export interface RunningPeer {
  peer: Peer
  root: string
  work: string
  mount: string | undefined
  servers: number[]
  alive(): boolean
}

function findVirtiofsd(): string {
  const candidates = [process.env['VIRTIOFSD'], join(repository, '.peers/virtiofsd-rust'), '/usr/libexec/virtiofsd']
  const found = candidates.find(path => path && existsSync(path))
  if (!found) throw new Error('no virtiofsd: set VIRTIOFSD to its path')
  return found
}

/**
 * Starts a peer.
 * @param disposers takes what stops it, before anything is started
 * @throws Error why it cannot start, and nothing of it is left: the column is then absent
 */
export async function startPeer(peer: Peer, fixture: Fixture, disposers: (() => Promise<void>)[]): Promise<RunningPeer> {
  if (!peer.command) {
    const root = fixture.source
    return { peer, root, work: join(root, 'w', peer.id), mount: undefined, servers: [], alive: () => true }
  }
  const mountpoint = join(fixture.base, 'mnt', peer.id)
  const socket = join(fixture.base, `${peer.id}.sock`)
  mkdirSync(mountpoint, { recursive: true })
  const servers: Server[] = []
  let stopped = false
  const stop = async () => {
    stopped = true
    await unmount(mountpoint)
    // the bridge or libfuse first, its backend after it; all end by themselves once unmounted
    for (const server of [...servers].reverse()) {
      if (!await server.endsWithin(END_MS)) await server.end(END_MS)
    }
  }
  disposers.push(stop)
  try {
    if (peer.backend) await startVirtiofsd(fixture, socket, `${fixture.base}/${peer.id}-backend.log`, servers)
    if (stopped) throw new Error('stopped')
    const server = new Server(peer.command(fixture.source, mountpoint, socket), `${fixture.base}/${peer.id}.log`)
    servers.push(server)
    await waitForMount(mountpoint, server, START_MS)
  } catch (error) {
    await stop()
    throw error
  }
  return {
    peer, root: mountpoint, work: join(mountpoint, 'w', peer.id), mount: mountpoint,
    servers: servers.flatMap(server => processTree(server.pid)),
    alive: () => servers.every(server => server.alive),
  }
}

/** Starts a virtiofsd at a socket. @param servers takes it, before anything can fail */
export async function startVirtiofsd(fixture: Fixture, socket: string, log: string, servers: Server[]): Promise<void> {
  const server = new Server([findVirtiofsd(), '--sandbox=none', '--cache=auto', `--socket-path=${socket}`,
    '--shared-dir', fixture.source], log)
  servers.push(server)
  const endMs = performance.now() + START_MS
  while (!existsSync(socket)) {
    if (!server.alive) throw new Error(`virtiofsd ended: ${server.lastWords()}`)
    if (performance.now() > endMs) throw new Error('virtiofsd does not listen')
    await sleep(10)
  }
}
