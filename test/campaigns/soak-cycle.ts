/** One mount of the soak: load on it, an end that the seed picks, and what has to hold afterwards. */
import { existsSync, mkdirSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs'
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { MountOptions } from '../../lib/index.js'
import { findMount, FS_TYPE } from '../../lib/mount/mountinfo.js'
import { peerPath, startBackend, type Peer } from '../support/peers.js'
import { processTree, runToEnd, signal, within, type Program } from '../support/program.js'
import type { SeededRandom } from '../support/seeded-random.js'
import { kernelStacks } from '../support/stuck.js'
import { HANG_MS, Load, type Host } from './soak-driver.js'
import { countRecords } from './soak-records.js'

/** `own`: a virtiofsd that the bridge starts itself. */
export type SoakPeer = Peer | 'own'

export interface Cycle {
  host: Host
  random: SeededRandom
  peer: SoakPeer
  slot: number
  round: number
  /** Directory of its own; removed when all is well. */
  base: string
}

const ANYWHERE = ['unmount', 'umount(8)', 'lazy', 'abort'] as const
const BACKEND = ['kill', 'freeze and thaw', 'freeze and kill', 'freeze, callers killed'] as const
const EMULATED = ['no answers, callers killed', 'no answers, abort'] as const
type Ending = (typeof ANYWHERE | typeof BACKEND | typeof EMULATED)[number]

/** How soon callers have their error when the device dies or the connection is aborted; on a loaded machine. */
const FAIL_MS = 10_000
/** How soon a caller is gone that was killed. */
const KILL_MS = 10_000

/** A program whose mount is detached finds the directory below it: it may miss its files, make others, or be just ending when the signal comes. */
const DETACHED = [0, 1, 3, null] as const

class Running {
  readonly mountpoint: string
  readonly source: string
  backend: Program | undefined
  loads: Load[] = []

  constructor(readonly cycle: Cycle) {
    this.mountpoint = join(cycle.base, 'mnt')
    this.source = join(cycle.base, 'src')
    mkdirSync(this.mountpoint, { recursive: true })
    mkdirSync(this.source)
  }

  get connection(): number {
    return findMount(this.mountpoint)!.minor
  }

  /** Every process of the backend: one that shuts itself in has a parent outside. */
  get backendPids(): number[] {
    if (this.backend) return processTree(this.backend.pid)
    return processTree(this.cycle.host.child.pid!).filter(pid => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes(`--shared-dir=${this.source}`)
      } catch {
        return false
      }
    })
  }

  signalBackend(name: NodeJS.Signals): void {
    for (const pid of this.backendPids) signal(pid, name)
  }

  async start(options: MountOptions, faults: boolean): Promise<void> {
    const { peer, host, slot, base } = this.cycle
    let from = this.source
    if (peer === 'own') {
      options = { ...options, backend: 'virtiofsd', virtiofsd: peerPath('virtiofsd-rust') }
    } else if (peer !== 'emulated') {
      const socket = join(base, 'sock')
      this.backend = startBackend(peer, this.source, socket)
      from = `unix:${socket}`
    }
    await host.mount(slot, from, this.mountpoint, options, faults)
  }

  async load(): Promise<void> {
    const { random } = this.cycle
    const count = random.between(1, 3)
    this.loads = Array.from({ length: count }, (_, i) => new Load(i === 0 ? 'writer' : ['writer', 'churn', 'reader'][random.below(3)]!, this.mountpoint, random.below(1_000_000)))
    for (const load of this.loads) await load.started()
  }

  async endLoads(ms: number, codes: readonly (number | null)[], name?: NodeJS.Signals): Promise<void> {
    if (name) for (const { program } of this.loads) if (program.alive) signal(program.pid, name)
    for (const load of this.loads) await load.ends(ms, codes)
  }

  /** With no program on the mount nothing is in flight: FORGETs and RELEASEs come back at once. */
  async idle(): Promise<void> {
    const path = `/sys/fs/fuse/connections/${this.connection}/waiting`
    for (let tries = 0; readFileSync(path, 'latin1').trim() !== '0'; tries++) {
      if (tries > 100) throw new Error(`${readFileSync(path, 'latin1').trim()} requests are in flight with nobody there`)
      await sleep(50)
    }
  }

  async ended(): Promise<void> {
    for (let tries = 0; !this.cycle.host.closed.has(this.cycle.slot); tries++) {
      if (tries > HANG_MS / 20) throw new Error('the session does not end')
      await sleep(20)
    }
  }

  /** @returns how many acknowledged records are there */
  verify(): number {
    let sum = 0
    for (const load of this.loads.filter(({ kind }) => kind === 'writer')) {
      const { acknowledged } = load
      const found = acknowledged === 0 ? 0 : countRecords(readFileSync(load.file(this.source)))
      if (found < acknowledged) throw new Error(`${load.file(this.source)}: ${acknowledged} records were acknowledged, ${found} are there`)
      sum += acknowledged
    }
    return sum
  }
}

/** @throws Error that says what is wrong */
export async function runCycle(cycle: Cycle): Promise<{ peer: SoakPeer, ending: Ending, acknowledged: number }> {
  const { random, peer, base, host, slot } = cycle
  const endings: readonly Ending[] = peer === 'emulated' ? [...ANYWHERE, ...EMULATED] : [...ANYWHERE, ...BACKEND]
  const ending = endings[random.below(endings.length)]!
  const running = new Running(cycle)
  const options: MountOptions = {
    queues: random.between(1, 3), queueSize: [4, 16, 128][random.below(3)]!, poll: random.below(2) === 0 ? 'off' : 'auto', mountTimeout: 3, traceJson: join(base, 'trace.json'),
    // the Rust virtiofsd opens what it creates write-only, also with writeback; the kernel's READ of a page is then refused with EBADF
    ...peer === 'emulated' || peer === 'own' ? ([{ cache: 'auto' }, { cache: 'always' }, { cache: 'never' }, { cache: 'auto', writeback: true }, { cache: 'always', writeback: true }] as const)[random.below(peer === 'own' ? 3 : 5)]! : {},
  }
  const about = `${ending}, ${JSON.stringify({ ...options, traceJson: undefined })}`
  try {
    await running.start(options, ending.startsWith('no answers'))
    await running.load()
    await sleep(random.between(0, 4000))
    for (const { program, kind } of running.loads) if (!program.alive) throw new Error(`${kind} ended by itself: ${program.stderr.trim()}`)
    await END[ending](running)
    await running.ended()
    const acknowledged = running.verify()
    if (findMount(running.mountpoint)?.type === FS_TYPE) throw new Error('it is still mounted')
    if (running.backend && !await running.backend.endsWithin(10_000)) throw new Error('the backend has not ended with its client')
    const left = running.backend ? [] : running.backendPids
    if (left.length > 0) throw new Error(`virtiofsd ${left.join()} is left`)
    rmSync(base, { recursive: true, force: true })
    return { peer, ending, acknowledged }
  } catch (error) {
    const events = existsSync(options.traceJson!) ? readFileSync(options.traceJson!, 'utf8').split('\n').filter(line => line.startsWith('{"event"')).slice(-3).join(' ') : ''
    throw new Error(`${about}: ${(error as Error).message}; ${findMount(running.mountpoint)?.type === FS_TYPE ? 'mounted' : 'not mounted'}; device ${host.gone.get(slot)?.reason ?? 'there'}; held by ${holders(running.mountpoint).join(', ') || 'nobody else'}; ${events}${running.backend ? `; backend ${JSON.stringify(running.backend.exit ?? 'lives')} ${running.backend.stderr.trim()}` : ''}\n`
      + kernelStacks([...running.loads.filter(({ program }) => program.alive).map(({ program }) => program.pid), ...running.backendPids, host.child.pid!]))
  }
}

/** Programs in mount namespaces of their own that have a copy of this mount: it lives as long as they do. */
function holders(mountpoint: string): string[] {
  const ours = readlinkSync('/proc/self/ns/mnt')
  return readdirSync('/proc').filter(name => /^\d+$/.test(name)).flatMap(pid => {
    try {
      if (readlinkSync(`/proc/${pid}/ns/mnt`) === ours || !readFileSync(`/proc/${pid}/mountinfo`, 'latin1').includes(mountpoint)) return []
      return [`${pid} (${readFileSync(`/proc/${pid}/cmdline`, 'latin1').replaceAll('\0', ' ').slice(0, 80)})`]
    } catch {
      return []
    }
  })
}

async function gone(running: Running, sinceMs: number): Promise<void> {
  const { host, slot } = running.cycle
  await running.endLoads(FAIL_MS, [3])
  for (let tries = 0; !host.gone.has(slot) && tries < 300; tries++) await sleep(10)
  const heard = host.gone.get(slot)
  if (!heard) throw new Error('nobody said that the device is gone')
  if (heard.atMs - sinceMs > 3000) throw new Error(`that the device is gone was said after ${(heard.atMs - sinceMs).toFixed(0)} ms`)
  const error = await within(FAIL_MS, stat(join(running.mountpoint, 'anything')).then(() => 'no error', (reason: NodeJS.ErrnoException) => reason.code))
  if (error !== 'ENOTCONN') throw new Error(`a later operation got ${error ?? 'no answer'}`)
  await host.unmount(slot, {})
}

const END: Record<Ending, (running: Running) => Promise<void>> = {
  async unmount(running) {
    await running.endLoads(HANG_MS, [0], 'SIGTERM')
    await running.idle()
    await running.cycle.host.unmount(running.cycle.slot, {})
  },
  async 'umount(8)'(running) {
    await running.endLoads(HANG_MS, [0], 'SIGTERM')
    const umount = await runToEnd(['umount', running.mountpoint], { timeoutMs: HANG_MS })
    if (umount.exit?.code !== 0) throw new Error(`umount: ${umount.stderr.trim()}`)
  },
  async lazy(running) {
    const done = running.cycle.host.unmount(running.cycle.slot, { lazy: true })
    await sleep(300)
    await running.endLoads(HANG_MS, DETACHED, 'SIGTERM')
    await done
  },
  async abort(running) {
    await running.cycle.host.unmount(running.cycle.slot, { abort: true })
    await running.endLoads(FAIL_MS, DETACHED, 'SIGTERM')
  },
  async kill(running) {
    const sinceMs = performance.now()
    running.signalBackend('SIGKILL')
    await gone(running, sinceMs)
  },
  async 'freeze and thaw'(running) {
    running.signalBackend('SIGSTOP')
    await sleep(running.cycle.random.between(100, 1500))
    running.signalBackend('SIGCONT')
    await END.unmount(running)
  },
  async 'freeze and kill'(running) {
    running.signalBackend('SIGSTOP')
    await sleep(running.cycle.random.between(100, 1500))
    const sinceMs = performance.now()
    running.signalBackend('SIGKILL')
    await gone(running, sinceMs)
  },
  async 'freeze, callers killed'(running) {
    running.signalBackend('SIGSTOP')
    await sleep(running.cycle.random.between(100, 800))
    await killAndAbort(running)
    running.signalBackend('SIGKILL')
  },
  async 'no answers, callers killed'(running) {
    await dropAll(running)
    await killAndAbort(running)
  },
  async 'no answers, abort'(running) {
    await dropAll(running)
    await running.cycle.host.unmount(running.cycle.slot, { abort: true })
    await running.endLoads(FAIL_MS, DETACHED, 'SIGTERM')
  },
}

/**
 * A program that is killed closes its files as it ends, and waits for the FLUSH of each: no signal
 * reaches it any more, so it may be there until the connection is aborted.
 */
async function killAndAbort(running: Running): Promise<void> {
  for (const { program } of running.loads) signal(program.pid, 'SIGKILL')
  await sleep(500)
  await running.cycle.host.unmount(running.cycle.slot, { abort: true })
  await running.endLoads(KILL_MS, [null])
}

async function dropAll(running: Running): Promise<void> {
  for (const opcode of ['WRITE', 'FSYNC', 'READ', 'LOOKUP', 'GETATTR', 'OPEN', 'CREATE']) await running.cycle.host.drop(running.cycle.slot, opcode)
  await sleep(running.cycle.random.between(100, 800))
}
