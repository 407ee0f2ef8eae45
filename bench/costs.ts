/** What a mount costs besides the time of its requests: idle, with few requests, in memory, at the start. */
import { mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { measureCell } from './cell.js'
import { cpuSecondsOf } from './cpu.js'
import type { Fixture } from './fixture.js'
import { unmount } from './mounts.js'
import { startPeer, startVirtiofsd, type Peer, type RunningPeer } from './peers.js'
import { run, sleep, type Server } from './processes.js'
import { median } from './results.js'

/** Of one peer of ours: the bridge's process without its backend, but for the CPU of the trickle. */
export interface Costs {
  /** Context switches of all threads in 10 s without a request. */
  idleSwitches: number
  /** CPU of bridge and backend with 100 requests a second, in per cent of one. */
  tricklePercent: number
  /** After everything else. */
  residentMib: number
  /** Runs of the garbage collector in a million requests, in all threads. */
  collections: number
  /** From the start of the command to its return with a usable mount: median. */
  startMs: number
}

const IDLE_MS = 10_000
const TRICKLE = { perSecond: 100, seconds: 10 }
const REQUESTS = 1_000_000
const STARTS = 7
const START_MS = 10_000

function switches(pid: number): number {
  return readdirSync(`/proc/${pid}/task`).reduce((sum, tid) => {
    const status = readFileSync(`/proc/${pid}/task/${tid}/status`, 'utf8')
    return sum + [...status.matchAll(/ctxt_switches:\s+(\d+)/g)].reduce((all, [, count]) => all + Number(count), 0)
  }, 0)
}

function residentMib(pid: number): number {
  return Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024
}

async function trickle(running: RunningPeer, fixture: Fixture): Promise<number> {
  const cpu = (): number => running.servers.reduce((sum, pid) => sum + cpuSecondsOf(pid), 0)
  const before = cpu()
  await measureCell(running, fixture, { row: 'trickle', seconds: TRICKLE.seconds, parameter: TRICKLE.perSecond })
  return (cpu() - before) / TRICKLE.seconds * 100
}

/** Counts the collections that the engine reports, in a mount of its own that says them. */
async function collections(peer: Peer, fixture: Fixture): Promise<number> {
  const disposers: (() => Promise<void>)[] = []
  try {
    const id = `${peer.id}-gc`
    const traced: Peer = { ...peer, id, command: (...args) => { const [node, ...rest] = peer.command!(...args); return [node!, '--trace-gc', ...rest] } }
    mkdirSync(join(fixture.source, 'w', id), { recursive: true })
    const running = await startPeer(traced, fixture, disposers)
    const counted = (): number => (readFileSync(join(fixture.base, `${id}.log`), 'utf8').match(/Scavenge|Mark-Compact/g) ?? []).length
    // what is made once is made by then, and compiled
    await measureCell(running, fixture, { row: 'calls', seconds: 1, parameter: 100_000 })
    const before = counted()
    await measureCell(running, fixture, { row: 'calls', seconds: 1, parameter: REQUESTS })
    return counted() - before
  } finally {
    for (const undo of disposers.reverse()) await undo()
  }
}

/** The command as its users type it: it returns when the mount is usable. */
async function startMs(peer: Peer, fixture: Fixture): Promise<number> {
  const times: number[] = []
  const mountpoint = join(fixture.base, 'mnt', `${peer.id}-start`)
  const socket = join(fixture.base, `${peer.id}-start.sock`)
  mkdirSync(mountpoint, { recursive: true })
  for (let i = 0; i < STARTS; i++) {
    const servers: Server[] = []
    try {
      if (peer.backend) await startVirtiofsd(fixture, socket, join(fixture.base, `${peer.id}-start.log`), servers)
      const command = peer.command!(fixture.source, mountpoint, socket).filter(word => word !== '-f')
      const beginMs = performance.now()
      // where the variable is set, each start of Node parses all certificates of the machine
      await run(['env', '--unset=NODE_EXTRA_CA_CERTS', ...command], START_MS)
      times.push(performance.now() - beginMs)
    } finally {
      await unmount(mountpoint)
      for (const server of servers) await server.end(START_MS)
      rmSync(socket, { force: true })
    }
  }
  return median(times)
}

/** Runs last: what is resident after all rows is one of the figures. */
export async function measureCosts(running: RunningPeer, fixture: Fixture): Promise<Costs> {
  // the backend is started first
  const pid = running.servers.at(-1)!
  await sleep(1000)
  const before = switches(pid)
  await sleep(IDLE_MS)
  const idleSwitches = switches(pid) - before
  return {
    idleSwitches, tricklePercent: await trickle(running, fixture), residentMib: residentMib(pid),
    collections: await collections(running.peer, fixture), startMs: await startMs(running.peer, fixture),
  }
}
