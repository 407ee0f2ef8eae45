/** Processes that the benchmark starts: each is ended by its pid, pass or fail. */
import { spawn, type ChildProcess } from 'node:child_process'
import { closeSync, openSync, readFileSync } from 'node:fs'

export const sleep = (ms: number): Promise<void> => new Promise(resolve => setTimeout(resolve, ms))

/** A server in the background, its output in a log file. */
export class Server {
  readonly #child: ChildProcess
  readonly #log: string
  readonly ended: Promise<void>

  /** @param log file that takes its output */
  constructor(readonly command: string[], log: string) {
    this.#log = log
    const output = openSync(log, 'a')
    // A process group of its own: Ctrl-C is for us, and we end our servers in order.
    this.#child = spawn(command[0]!, command.slice(1), { stdio: ['ignore', output, output], detached: true })
    closeSync(output)
    this.ended = new Promise(resolve => {
      this.#child.once('exit', () => resolve())
      this.#child.once('error', () => resolve())
    })
  }

  get pid(): number {
    return this.#child.pid ?? 0
  }

  get alive(): boolean {
    return this.#child.pid !== undefined && this.#child.exitCode === null && this.#child.signalCode === null
  }

  /** The line of the log that says most. */
  lastWords(): string {
    const lines = readFileSync(this.#log, 'utf8').trim().split('\n')
    return (lines.find(line => /error|cannot|fail/i.test(line)) ?? lines.at(-1)!).slice(0, 300) || 'it said nothing'
  }

  /** SIGTERM, and SIGKILL when it has not ended after a time. */
  async end(timeoutMs: number): Promise<void> {
    if (!this.alive) return
    this.#child.kill('SIGTERM')
    await this.endsWithin(timeoutMs)
    if (!this.alive) return
    this.#child.kill('SIGKILL')
    await this.endsWithin(timeoutMs)
  }

  async endsWithin(timeoutMs: number): Promise<boolean> {
    await Promise.race([this.ended, sleep(timeoutMs)])
    return !this.alive
  }
}

/** Runs a command to its end. @returns its standard output @throws Error with its standard error, or after the time */
export function run(command: string[], timeoutMs: number, onStart?: (child: ChildProcess) => void): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(command[0]!, command.slice(1), { stdio: ['ignore', 'pipe', 'pipe'], detached: true })
    onStart?.(child)
    const output = { stdout: '', stderr: '' }
    for (const name of ['stdout', 'stderr'] as const) {
      child[name].setEncoding('utf8').on('data', (text: string) => { output[name] += text })
    }
    const timer = setTimeout(() => {
      child.kill('SIGKILL')
      reject(new Error(`${command[0]} did not end in ${timeoutMs / 1000} s`))
    }, timeoutMs)
    child.once('error', reject)
    child.once('close', (code, signal) => {
      clearTimeout(timer)
      if (code === 0) resolve(output.stdout)
      else reject(new Error(output.stderr.trim().split('\n').slice(-1)[0] || `ended with ${code ?? signal}`))
    })
  })
}
