/** The command whose standard input and output are a relay's stream: its process, what it says, its end. */
import { spawn, type ChildProcess } from 'node:child_process'
import { existsSync } from 'node:fs'
import { basename } from 'node:path'
import createDebug from 'debug'
import { systemReason, UsageError } from '../errors.js'
import { close, createPipe, widenPipe } from '../sys/io.js'
import { printable } from './hello.js'

const debug = createDebug('virtiofs:relay')
/** How long it may take to end once its input has ended, then once it was asked to, in milliseconds. */
const END_TIMEOUT_MS = 5000
const GONE_TIMEOUT_MS = 500
const TERM_TIMEOUT_MS = 1000
/** What a pipe is asked to hold: less means more wake-ups for the same data. */
const PIPE_BYTES = 1 << 20

export class RelayCommand {
  /** To be read from, and written to; neither blocks. */
  readonly inFd: number
  readonly outFd: number
  /** Told of each line that it writes to its standard error. */
  onSaid: ((line: string) => void) | undefined
  readonly #argv: readonly string[]
  readonly #child: ChildProcess
  readonly #exited: Promise<void>
  #closed = false
  #last = ''
  #rest = ''

  private constructor(argv: readonly string[], child: ChildProcess, inFd: number, outFd: number) {
    this.#argv = argv
    this.#child = child
    this.inFd = inFd
    this.outFd = outFd
    this.#exited = new Promise(resolve => child.once('close', () => resolve()))
    child.stderr!.setEncoding('utf8').on('data', (text: string) => this.#said(text))
  }

  /**
   * @param directory where; default: where this process is
   * @throws UsageError when it cannot be started; SyscallError
   */
  static async start(argv: readonly string[], directory?: string): Promise<RelayCommand> {
    const [childIn, outFd] = createPipe()
    const [inFd, childOut] = createPipe()
    widenPipe(outFd, PIPE_BYTES)
    widenPipe(inFd, PIPE_BYTES)
    let command
    try {
      // in a process group of its own: Ctrl-C at a terminal is for us, who unmount first. As descriptors
      // 0 and 1 of the child the pipes block, as programs expect it (uv_spawn)
      const child = spawn(argv[0]!, argv.slice(1), { stdio: [childIn, childOut, 'pipe'], detached: true, ...directory !== undefined && existsSync(directory) && { cwd: directory } })
      command = new RelayCommand(argv, child, inFd, outFd)
      await new Promise<void>((resolve, reject) => { child.once('spawn', () => resolve()).once('error', reject) })
      return command
    } catch (error) {
      close(inFd)
      close(outFd)
      const { code } = error as NodeJS.ErrnoException
      throw new UsageError(`command ${argv[0]}: ${code === 'ENOENT' ? 'no such program' : systemReason(error)}`, code ?? 'EIO')
    } finally {
      close(childIn)
      close(childOut)
    }
  }

  /** For messages. */
  get name(): string {
    return basename(this.#argv[0]!)
  }

  #said(text: string): void {
    const lines = (this.#rest + text).split(/[\r\n]+/)
    this.#rest = lines.pop()!.slice(-4096)
    for (const raw of lines) {
      const line = printable(raw)
      if (line === '') continue
      debug('%s: %s', this.name, line)
      this.#last = line
      this.onSaid?.(line)
    }
  }

  /**
   * How it ended, if it does within some time: `ssh ended with exit code 255: its last words`.
   * @param ms milliseconds
   */
  async obituary(ms: number): Promise<string | undefined> {
    if (!await this.#endsWithin(ms)) return undefined
    const { exitCode, signalCode } = this.#child
    const last = printable(this.#rest) || this.#last
    return `${this.name} ended ${signalCode === null ? `with exit code ${exitCode}` : `by ${signalCode}`}${last === '' ? '' : `: ${last}`}`
  }

  async #endsWithin(ms: number): Promise<boolean> {
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<boolean>(resolve => { timer = setTimeout(() => resolve(false), ms) })
    const ended = await Promise.race([this.#exited.then(() => true), late])
    clearTimeout(timer)
    return ended
  }

  /**
   * Ends it: its input ends, and it is killed if that does not help. Nobody may use the descriptors any more.
   * @param gone nothing is to be expected of it
   */
  async end(gone = false): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    this.onSaid = undefined
    close(this.outFd)
    // it may still have something to say that nobody waits for
    close(this.inFd)
    if (await this.#endsWithin(gone ? GONE_TIMEOUT_MS : END_TIMEOUT_MS)) return
    this.#kill('SIGTERM')
    if (await this.#endsWithin(TERM_TIMEOUT_MS)) return
    this.#kill('SIGKILL')
    // what it started itself may hold its standard error open
    if (!await this.#endsWithin(TERM_TIMEOUT_MS)) this.#child.stderr!.destroy()
  }

  #kill(signal: NodeJS.Signals): void {
    try {
      process.kill(-this.#child.pid!, signal)
    } catch {
      // it has ended meanwhile
    }
  }
}
