/** The soak's end of the process that mounts, and of the programs that load a mount. */
import type { ChildProcess } from 'node:child_process'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import type { MountOptions, UnmountOptions } from '../../lib/index.js'
import { Program, within, type Exit } from '../support/program.js'
import type { HostCommand, Use } from './soak-host.js'

type Message = { id: number, value?: unknown, error?: string } | { gone: number, reason: string } | { closed: number }
type Without<T> = T extends unknown ? Omit<T, 'id'> : never

/** A step that takes longer than this is a hang. */
export const HANG_MS = 30_000

export class Host {
  readonly child: ChildProcess
  #id = 0
  readonly #waiting = new Map<number, (message: Message) => void>()
  /** By slot: why the device is gone, and when that was heard. */
  readonly gone = new Map<number, { reason: string, atMs: number }>()
  readonly closed = new Set<number>()

  constructor(child: ChildProcess) {
    this.child = child
    child.on('message', (message: Message) => {
      if ('gone' in message) this.gone.set(message.gone, { reason: message.reason, atMs: performance.now() })
      else if ('closed' in message) this.closed.add(message.closed)
      else this.#waiting.get(message.id)?.(message)
    })
  }

  get alive(): boolean {
    return this.child.exitCode === null && this.child.signalCode === null
  }

  async #ask(command: Without<HostCommand>): Promise<unknown> {
    const id = this.#id++
    const answer = new Promise<Message>(resolve => this.#waiting.set(id, resolve))
    this.child.send({ ...command, id })
    const message = await within(HANG_MS, answer)
    this.#waiting.delete(id)
    if (message === undefined) throw new Error(`${command.do}: no answer from the process that mounts after ${HANG_MS / 1000} s`)
    if ('error' in message && message.error !== undefined) throw new Error(`${command.do}: ${message.error}`)
    return 'value' in message ? message.value : undefined
  }

  async mount(slot: number, source: string, mountpoint: string, options: MountOptions, faults: boolean): Promise<void> {
    this.gone.delete(slot)
    this.closed.delete(slot)
    await this.#ask({ do: 'mount', slot, source, mountpoint, options, faults })
  }

  async unmount(slot: number, options: UnmountOptions): Promise<void> {
    await this.#ask({ do: 'unmount', slot, options })
  }

  /** From now on requests of this kind are not answered. */
  async drop(slot: number, opcode: string): Promise<void> {
    await this.#ask({ do: 'drop', slot, opcode })
  }

  async use(): Promise<Use> {
    return await this.#ask({ do: 'use' }) as Use
  }
}

/** A program that works on the mount. */
export class Load {
  readonly program: Program
  readonly kind: string
  readonly seed: number

  constructor(kind: string, directory: string, seed: number) {
    this.kind = kind
    this.seed = seed
    this.program = new Program([process.execPath, fileURLToPath(new URL('./soak-load.js', import.meta.url)), kind, directory, String(seed)])
  }

  /** The last record that an fsync has made safe. */
  get acknowledged(): number {
    return Number(/ack (\d+)\n[^\n]*$/.exec(this.program.stdout.slice(-200))?.[1] ?? 0)
  }

  /** It listens to SIGTERM. */
  async started(): Promise<void> {
    for (let tries = 0; !this.program.stdout.startsWith('works\n'); tries++) {
      if (!this.program.alive || tries > HANG_MS / 10) throw new Error(`${this.kind} does not start: ${this.program.stderr.trim()}`)
      await sleep(10)
    }
  }

  file(source: string): string {
    return join(source, `writer-${this.seed}`)
  }

  /** @throws Error when it does not end in time, or says that the mount lied */
  async ends(ms: number, codes: readonly (number | null)[]): Promise<Exit> {
    const exit = await this.program.endsWithin(ms)
    if (!exit) throw new Error(`${this.kind} hangs (process ${this.program.pid})`)
    if (!codes.includes(exit.code)) throw new Error(`${this.kind} ended with ${exit.code ?? exit.signal}: ${this.program.stderr.trim()}`)
    return exit
  }
}
