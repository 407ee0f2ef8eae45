/** A mount, a plain directory beside it on the same file system, and the process that compares them. */
import { spawn, type ChildProcess } from 'node:child_process'
import { rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { createInterface, type Interface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { ended, inTime, makeDirectory, mountDirectory, waitsOf } from '../support/posix-mount.js'
import type { Abilities, Backing } from './generator.js'
import { abilitiesOf, type MountKind } from './mounts.js'
import type { Op } from './operation.js'
import type { Answer, Request } from './player.js'
import type { Difference } from './play.js'

const PLAYER = fileURLToPath(new URL('player.js', import.meta.url))
/** No step takes so long. */
const STUCK_MS = 20_000

export interface Played {
  difference: Difference | undefined
  /** The steps up to the difference. */
  script: readonly Op[] | undefined
  steps: number
}

interface Mounted {
  backing: string | undefined
  mountpoint: string
  abort: () => void
  end: () => Promise<void>
}

function parentOf(backing: Backing): string {
  return backing === 'tmpfs' ? '/dev/shm' : tmpdir()
}

async function mount({ backing, options }: MountKind): Promise<Mounted> {
  const parent = parentOf(backing)
  if (options !== undefined) return await mountDirectory(parent, options)
  const mountpoint = makeDirectory(parent)
  return { backing: undefined, mountpoint, abort: () => {}, end: async () => { rmSync(mountpoint, { recursive: true }) } }
}

export class Session {
  readonly kind: MountKind
  readonly abilities: Abilities
  readonly #mounted: Mounted
  readonly #plain: string
  #player: ChildProcess | undefined
  #lines: Interface | undefined
  #said = ''
  #count = 0

  private constructor(kind: MountKind, abilities: Abilities, mounted: Mounted, plain: string) {
    this.kind = kind
    this.abilities = abilities
    this.#mounted = mounted
    this.#plain = plain
  }

  /** Mounts. @param abilities what is asked of it @throws Error with what the server said */
  static async start(kind: MountKind, abilities = abilitiesOf(kind)): Promise<Session> {
    const mounted = await mount(kind)
    return new Session(kind, abilities, mounted, makeDirectory(parentOf(kind.backing)))
  }

  #start(): ChildProcess {
    const { backing, mountpoint } = this.#mounted
    const player = spawn(process.execPath, [PLAYER, this.#plain, mountpoint, ...backing ? [backing] : []], { stdio: ['pipe', 'pipe', 'pipe'] })
    this.#said = ''
    player.stderr!.on('data', chunk => { this.#said += chunk })
    player.stdin!.on('error', () => {})
    this.#player = player
    this.#lines = createInterface(player.stdout!)
    return player
  }

  /** Plays the steps of a seed on fresh directories. */
  async seed(seed: number, steps: number): Promise<Played> {
    return await this.#request({ name: this.#name(), abilities: this.abilities, seed, steps })
  }

  async script(script: readonly Op[]): Promise<Played> {
    return await this.#request({ name: this.#name(), abilities: this.abilities, script, announce: true })
  }

  /** As long on every side: what getcwd says is as long too. */
  #name(): string {
    return `case${String(this.#count++).padStart(6, '0')}`
  }

  async #request(request: Request): Promise<Played> {
    const player = this.#player ?? this.#start()
    const lines = this.#lines!
    return await new Promise((resolve, reject) => {
      let at = 0
      let timer: NodeJS.Timeout
      const over = (): void => {
        clearTimeout(timer)
        lines.off('line', onLine)
        player.off('exit', onExit)
      }
      const broken = (what: string, mount: string): void => {
        over()
        this.#player = undefined
        resolve({ difference: { steps: at, what, plain: 'an end', mount }, script: request.script?.slice(0, at), steps: at })
      }
      const onStuck = (): void => {
        const waits = waitsOf(player.pid!)
        player.off('exit', onExit)
        player.kill('SIGKILL')
        this.#mounted.abort()
        broken('hang', `not ended after ${STUCK_MS / 1000} s\n${waits}`)
      }
      const onExit = (code: number | null, signal: string | null): void => broken('death', `the process ended with ${code ?? signal}: ${this.#said}`)
      const onLine = (line: string): void => {
        const answer = JSON.parse(line) as Answer
        clearTimeout(timer)
        timer = setTimeout(onStuck, STUCK_MS)
        if (answer.at !== undefined) {
          at = answer.at
          return
        }
        over()
        if (answer.error !== undefined) reject(new Error(answer.error))
        else resolve(answer.done!)
      }
      timer = setTimeout(onStuck, STUCK_MS)
      lines.on('line', onLine)
      player.on('exit', onExit)
      player.stdin!.write(`${JSON.stringify(request)}\n`)
    })
  }

  /** Ends the process and unmounts. @throws Error when that needed force */
  async end(): Promise<void> {
    if (this.#player) {
      const exit = ended(this.#player)
      this.#player.stdin!.end()
      if (await inTime(exit, 5000) === undefined) this.#player.kill('SIGKILL')
    }
    rmSync(this.#plain, { recursive: true, force: true })
    await this.#mounted.end()
  }
}
