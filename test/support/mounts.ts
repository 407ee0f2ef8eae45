/**
 * Real mounts for tests. The bridge is a process of its own, as its users run it: a mount that
 * hangs then never hangs its own test for good. Whatever the test does, afterwards the mount is
 * gone, the processes have ended and the directory is removed; how the end went is checked too.
 */
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { statfs } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Test } from 'tap'
import { findMount, FS_TYPE } from '../../lib/mount/mountinfo.js'
import { BRIDGE, relaySource, startBackend, type MountPeer } from './peers.js'
import { Program, runToEnd, within } from './program.js'
import { abortConnection, clearMount, kernelStacks } from './stuck.js'

export interface MountSettings {
  peer: MountPeer
  /** For -o of the bridge. */
  options?: readonly string[]
  /** Further arguments of a virtiofsd. */
  backendArgs?: readonly string[]
  /** A directory to share, instead of a new one. */
  source?: string
  /** The bridge's SOURCE, which leads to that directory. */
  remote?: string
  /** Puts files into the shared directory before it is mounted. */
  files?: (source: string) => void
  /** How long the body may take before what is stuck is dumped and the mount aborted. */
  timeoutMs?: number
  /** The test breaks the mount or ends it itself: no remarks about how it ended. */
  rough?: boolean
  env?: NodeJS.ProcessEnv
}

/** A record of -o trace_json: of a request, or of an event in the life of the mount. */
export interface TraceRecord {
  event?: string
  op?: string
  unique?: number
  node?: number
  error?: number
  bytes?: number
  us?: number
  queue?: number | string
  [detail: string]: unknown
}

const START_MS = 20_000
const END_MS = 20_000

export class LiveMount {
  /** The test's own directory. */
  readonly base: string
  /** The mount. */
  readonly dir: string
  /** The directory that is shared. */
  readonly source: string
  readonly traceFile: string
  bridge!: Program
  backend: Program | undefined

  constructor(base: string, source = join(base, 'src')) {
    this.base = base
    this.dir = join(base, 'mnt')
    this.source = source
    this.traceFile = join(base, 'trace.json')
  }

  /** Of the bridge. */
  get pid(): number {
    return this.bridge.pid
  }

  /** Number of the FUSE connection. */
  get connection(): number {
    const entry = findMount(this.dir)
    if (entry?.type !== FS_TYPE) throw new Error(`${this.dir} is not mounted`)
    return entry.minor
  }

  get mounted(): boolean {
    return findMount(this.dir)?.type === FS_TYPE
  }

  /** What trace_json holds; complete once the bridge has ended. A line may be on its way until then. */
  trace(): TraceRecord[] {
    return readFileSync(this.traceFile, 'utf8').split('\n').slice(0, -1).map(line => JSON.parse(line) as TraceRecord)
  }

  /** umount(8), and the end of the bridge. @returns its exit code */
  async unmount(): Promise<number | null> {
    const umount = await runToEnd(['umount', this.dir], { timeoutMs: END_MS })
    if (umount.exit?.code !== 0) throw new Error(umount.stderr.trim())
    const exit = await this.bridge.endsWithin(END_MS)
    if (!exit) throw new Error(`the bridge has not ended ${END_MS / 1000} s after the unmount`)
    return exit.code
  }

  get pids(): number[] {
    return [this.bridge, this.backend].flatMap(program => program?.alive ? [program.pid] : [])
  }
}

/** Mounts, runs the body, and ends everything. */
export async function withMount(t: Test, settings: MountSettings, body: (live: LiveMount) => Promise<void>): Promise<void> {
  const live = new LiveMount(mkdtempSync(join(tmpdir(), 'vfb-')), settings.source)
  const { timeoutMs = 60_000, rough = false } = settings
  try {
    mkdirSync(live.dir)
    if (settings.source === undefined) mkdirSync(live.source)
    settings.files?.(live.source)
    await start(live, settings)
    const watchdog = setTimeout(() => { void rescue(t, live, timeoutMs) }, timeoutMs)
    try {
      await body(live)
    } catch (error) {
      t.comment(`bridge: ${live.bridge.stderr.trim() || 'no word'}; backend: ${live.backend ? `${live.backend.alive ? 'alive' : `ended with ${live.backend.exit?.code ?? live.backend.exit?.signal}`}: ${live.backend.stderr.trim()}` : 'none'}`)
      throw error
    } finally {
      clearTimeout(watchdog)
    }
    if (!rough) await endWell(t, live)
  } finally {
    await endAnyway(t, live, rough)
  }
}

/** @throws Error when it does not get usable, with what was said */
async function start(live: LiveMount, { peer, remote, options = [], backendArgs, env }: MountSettings): Promise<void> {
  let from = remote ?? live.source
  if (peer === 'relay') {
    from = relaySource(live.source)
  } else if (peer !== 'emulated') {
    const socket = join(live.base, 'vhost.sock')
    live.backend = startBackend(peer, live.source, socket, backendArgs)
    from = `unix:${socket}`
  }
  const text = [`trace_json=${live.traceFile}`, ...options].join(',')
  live.bridge = new Program([...BRIDGE, from, live.dir, '-f', '-o', text], env ? { env: { ...process.env, ...env } } : {})
  try {
    await untilUsable(live.dir, live.bridge)
  } catch (error) {
    throw new Error(`${(error as Error).message}${live.backend ? `; ${peer}: ${live.backend.stderr.trim()}` : ''}`)
  }
}

/** Waits until a mount answers. @throws Error when its program ends before, or it takes too long */
export async function untilUsable(dir: string, bridge: Program): Promise<void> {
  const endMs = performance.now() + START_MS
  while (findMount(dir)?.type !== FS_TYPE) {
    if (!bridge.alive) throw new Error(`the bridge ended: ${bridge.exit?.code ?? bridge.exit?.signal}: ${bridge.stderr.trim()}`)
    if (performance.now() > endMs) throw new Error(`not mounted after ${START_MS / 1000} s: ${bridge.stderr.trim()}`)
    await sleep(5)
  }
  if (await within(START_MS, statfs(dir)) === undefined) throw new Error(`mounted, but it does not answer: ${bridge.stderr.trim()}\n${kernelStacks([bridge.pid])}`)
}

/** The body takes too long: says where everybody is, and frees them. */
async function rescue(t: Test, live: LiveMount, timeoutMs: number): Promise<void> {
  t.fail(`not done after ${timeoutMs / 1000} s: the mount is aborted`)
  t.comment(kernelStacks([...live.pids, process.pid]))
  t.comment(`bridge: ${live.bridge.stderr}`)
  if (live.mounted) await abortConnection(live.connection)
}

async function endWell(t: Test, live: LiveMount): Promise<void> {
  if (live.mounted) {
    try {
      t.equal(await live.unmount(), 0, 'unmounted, and the bridge ended well')
    } catch (error) {
      t.fail(`unmount: ${(error as Error).message}`)
      t.comment(kernelStacks([...live.pids, process.pid]))
    }
  }
  t.equal(live.bridge.stderr, '', 'the bridge had nothing to complain about')
  if (live.backend) t.ok(await live.backend.endsWithin(5000), 'the backend has ended with its client')
}

async function endAnyway(t: Test, live: LiveMount, rough: boolean): Promise<void> {
  if (await clearMount(live.dir) && !rough) t.fail('a mount was left, and removed by force')
  if (live.bridge?.alive && !await live.bridge.endsWithin(rough ? 10_000 : 2000)) {
    t.fail('the bridge had to be killed')
    t.comment(kernelStacks([live.pid]))
    await live.bridge.kill()
  }
  if (live.backend && !await live.backend.endsWithin(2000)) await live.backend.kill()
  rmSync(live.base, { recursive: true, force: true })
}
