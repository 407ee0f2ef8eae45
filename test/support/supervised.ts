/** A mount with a supervisor, in a runtime directory of its own: the process that serves it at a moment, and what is left when it has ended. */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { type BACKENDS, startBackend } from './peers.js'
import type { LiveMount } from './mounts.js'
import { commandOf } from './scene.js'
import { SeededRandom } from './seeded-random.js'

/** Children of a process, whatever they are. */
function children(pid: number): number[] {
  return readdirSync('/proc').filter(name => /^\d+$/.test(name)).map(Number).filter(child => {
    try {
      return Number(readFileSync(`/proc/${child}/stat`, 'latin1').split(') ').at(-1)!.split(' ')[1]) === pid
    } catch {
      return false
    }
  })
}

export class Supervised {
  readonly runtime: string
  readonly env: NodeJS.ProcessEnv
  #killedMs = 0
  /** How long nobody served, each time. */
  readonly awayMs: number[] = []

  /** @param base a directory of the test's own */
  constructor(base: string) {
    this.runtime = join(base, 'run')
    mkdirSync(this.runtime, { recursive: true })
    this.env = { ...process.env, XDG_RUNTIME_DIR: this.runtime }
  }

  /** The process that serves, or is being started for that; 0 for none. */
  server(live: LiveMount): number {
    return children(live.pid).find(pid => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes('served-child')
      } catch {
        return false
      }
    }) ?? 0
  }

  /** The process that serves, once it does; 0 for none. */
  serving(live: LiveMount): number {
    const pid = this.server(live)
    return pid !== 0 && existsSync(join(this.runtime, 'virtiofs-bridge', 'control', `${pid}-0`)) ? pid : 0
  }

  /**
   * For `underKills`: the process that serves, and now and then one that has not come so far. It has
   * served for up to twice as long as nobody had before, so that something is done in between.
   * How long nobody serves is looked at every few milliseconds.
   */
  victims(live: LiveMount, seed: number): { next: () => number[], end: () => void } {
    const random = new SeededRandom(seed + 1000)
    let early = false
    let notBeforeMs = 0
    const timer = setInterval(() => {
      if (this.#killedMs === 0 || this.serving(live) === 0) return
      const awayMs = performance.now() - this.#killedMs
      this.awayMs.push(Math.round(awayMs))
      notBeforeMs = performance.now() + random.between(0, Math.round(2 * awayMs))
      this.#killedMs = 0
    }, 5)
    return {
      next: () => {
        const pid = early ? this.server(live) : this.serving(live)
        if (pid === 0 || (!early && performance.now() < notBeforeMs)) return []
        early = random.below(5) === 0
        if (this.#killedMs === 0) this.#killedMs = performance.now()
        return [pid]
      },
      end: () => clearInterval(timer),
    }
  }

  /** What is left of the mount, one line each. */
  leftovers(): string[] {
    const processes = readdirSync('/proc').filter(name => /^\d+$/.test(name)).filter(pid => {
      try {
        return readFileSync(`/proc/${pid}/environ`, 'latin1').split('\0').includes(`XDG_RUNTIME_DIR=${this.runtime}`)
      } catch {
        return false
      }
    }).map(pid => `process ${pid}: ${commandOf(Number(pid))}`)
    const files = readdirSync(this.runtime, { recursive: true }).map(String).filter(name => !statSync(join(this.runtime, name)).isDirectory())
    return [...processes, ...files.map(name => `file ${name}`)]
  }
}

/** Somebody starts the backend of a mount again on its socket whenever it has ended, as systemd would. @returns stops that */
export function keepBackend(live: LiveMount, peer: (typeof BACKENDS)[number], source = live.source): () => void {
  const socket = join(live.base, 'vhost.sock')
  let over = false
  const keep = (): void => {
    void live.backend!.exited.then(() => {
      if (over) return
      rmSync(socket, { force: true })
      live.backend = startBackend(peer, source, socket)
      keep()
    })
  }
  keep()
  return () => { over = true }
}
