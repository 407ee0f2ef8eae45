/**
 * A place to run the command in, as its users do: source, mount point and runtime directory of its
 * own. What a command leaves behind is found by that runtime directory, which is in the environment
 * of everything that it starts.
 */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { readMounts } from '../../lib/mount/mountinfo.js'
import type { LiveMount } from '../../lib/mount/live-tags.js'
import { BRIDGE } from './peers.js'
import { Program, runToEnd, signal } from './program.js'
import { clearMount } from './stuck.js'

/** Nothing that a test waits for here takes so long, on any machine. */
const DEADLINE_MS = 30_000

/** Waits for something that has no event. @returns whether it came */
export async function eventually(condition: () => boolean, timeoutMs = DEADLINE_MS): Promise<boolean> {
  const endMs = performance.now() + timeoutMs
  while (!condition()) {
    if (performance.now() > endMs) return false
    await sleep(10)
  }
  return true
}

/** The command line of a process; '' when it has ended meanwhile. */
export function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ')
  } catch {
    return ''
  }
}

export class Scene {
  readonly base = mkdtempSync(join(tmpdir(), 'vfb-'))
  readonly source = join(this.base, 'src')
  readonly dir = join(this.base, 'mnt')
  readonly socket = join(this.base, 'vhost.sock')
  readonly #runtime = join(this.base, 'run')
  readonly env: NodeJS.ProcessEnv = { ...process.env, XDG_RUNTIME_DIR: this.#runtime }

  constructor() {
    for (const each of [this.source, this.dir, this.#runtime]) mkdirSync(each)
  }

  /** Starts the command. */
  start(...args: string[]): Program {
    return new Program([...BRIDGE, ...args], { env: this.env })
  }

  /** Runs the command to its end. */
  async run(...args: string[]): Promise<Program> {
    return await runToEnd([...BRIDGE, ...args], { env: this.env, timeoutMs: DEADLINE_MS })
  }

  /** What the one live mount says of itself. @throws Error when there is not exactly one */
  live(): LiveMount {
    const tags = join(this.#runtime, 'virtiofs-bridge', 'tags')
    const [name, ...more] = readdirSync(tags)
    if (name === undefined || more.length > 0) throw new Error(`${more.length + 1} live mounts`)
    return JSON.parse(readFileSync(join(tags, name), 'utf8')) as LiveMount
  }

  /** Processes that the commands of this scene have started, and these themselves. */
  processes(): number[] {
    return readdirSync('/proc').filter(name => /^\d+$/.test(name)).map(Number).filter(pid => {
      try {
        return readFileSync(`/proc/${pid}/environ`, 'latin1').split('\0').includes(`XDG_RUNTIME_DIR=${this.#runtime}`)
      } catch {
        return false
      }
    })
  }

  /** Files and sockets in the runtime directory. */
  files(): string[] {
    return readdirSync(this.#runtime, { recursive: true }).map(String).filter(name => !statSync(join(this.#runtime, name)).isDirectory())
  }

  mounts(): string[] {
    return readMounts().map(entry => entry.mountpoint).filter(path => path.startsWith(`${this.base}/`))
  }

  /** What is left, one line each. */
  leftovers(): string[] {
    return [
      ...this.processes().map(pid => `process ${pid}: ${commandOf(pid)}`),
      ...this.files().map(name => `file ${name}`), ...this.mounts().map(path => `mount ${path}`),
    ]
  }

  /** Ends everything, by force if need be. */
  async clear(): Promise<void> {
    for (const path of this.mounts().reverse()) await clearMount(path)
    for (const pid of this.processes()) signal(pid, 'SIGKILL')
    await eventually(() => this.processes().length === 0, 5000)
    rmSync(this.base, { recursive: true })
  }
}

/** Runs a test body in a scene of its own. */
export async function inScene(body: (scene: Scene) => Promise<void>): Promise<void> {
  const scene = new Scene()
  try {
    await body(scene)
  } finally {
    await scene.clear()
  }
}
