/** A program that a test starts: what it said, how it ended, and its end by pid whatever happens. */
import { spawn, type ChildProcess, type StdioOptions } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'

export interface Exit {
  code: number | null
  signal: NodeJS.Signals | null
}

export interface ProgramOptions {
  cwd?: string
  env?: NodeJS.ProcessEnv
  /** Descriptors for the child, from number 3 on. */
  fds?: number[]
  input?: string
}

/**
 * tap puts its hooks into NODE_OPTIONS of everything that is spawned: they are slow to load, in every
 * Node process and in each of its threads, and no user's mount has them.
 */
const WITHOUT_TAP = ['-u', 'NODE_OPTIONS']

export class Program {
  readonly argv: readonly string[]
  readonly child: ChildProcess
  /** When the process has ended. What still holds its output does not delay it. */
  readonly exited: Promise<Exit>
  /** When its output has ended too. */
  readonly closed: Promise<Exit>
  exit: Exit | undefined
  stdout = ''
  stderr = ''

  constructor(argv: readonly string[], { cwd, env, fds = [], input }: ProgramOptions = {}) {
    this.argv = argv
    const stdio: StdioOptions = [input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe', ...fds]
    const child = spawn('env', [...WITHOUT_TAP, ...argv], { stdio, ...cwd !== undefined && { cwd }, env: env ?? process.env })
    this.child = child
    child.stdout!.setEncoding('utf8').on('data', (text: string) => { this.stdout += text })
    child.stderr!.setEncoding('utf8').on('data', (text: string) => { this.stderr += text })
    child.stdin?.on('error', () => {}).end(input)
    this.exited = new Promise((resolve, reject) => {
      child.once('error', reject).once('exit', (code, signal) => resolve(this.exit = { code, signal }))
    })
    this.closed = new Promise((resolve, reject) => { child.once('error', reject).once('close', (code, signal) => resolve({ code, signal })) })
    this.exited.catch(() => {})
    this.closed.catch(() => {})
  }

  get pid(): number {
    return this.child.pid!
  }

  get alive(): boolean {
    return this.child.pid !== undefined && this.exit === undefined
  }

  /** Its end, or undefined when that does not come in time. */
  async endsWithin(ms: number): Promise<Exit | undefined> {
    return await within(ms, this.exited)
  }

  /** SIGKILL, to it and to what it started. */
  async kill(): Promise<void> {
    if (!this.alive) return
    for (const pid of processTree(this.pid)) signal(pid, 'SIGKILL')
    await this.endsWithin(5000)
  }
}

/** The value of a promise, or undefined when it does not come in time. */
export async function within<T>(ms: number, promise: Promise<T>): Promise<T | undefined> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<undefined>(resolve => { timer = setTimeout(() => resolve(undefined), ms) })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}

/** Sends a signal to a process that may have gone. */
export function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}

/** Stops processes, and waits until they have: until one thread has taken the signal, the others run on. */
export async function stop(pids: readonly number[]): Promise<void> {
  for (const pid of pids) signal(pid, 'SIGSTOP')
  const running = (pid: number): boolean => readdirSync(`/proc/${pid}/task`).some(task => !/^State:\t[TZ]/m.test(readFileSync(`/proc/${pid}/task/${task}/status`, 'latin1')))
  for (const endMs = performance.now() + 10_000; pids.some(running) && performance.now() < endMs;) await sleep(5)
}

/** A process and its descendants. */
export function processTree(pid: number): number[] {
  const found = [pid]
  for (let i = 0; i < found.length; i++) {
    try {
      for (const task of readdirSync(`/proc/${found[i]}/task`)) {
        found.push(...readFileSync(`/proc/${found[i]}/task/${task}/children`, 'utf8').split(' ').filter(text => text !== '').map(Number))
      }
    } catch {
      // it has gone meanwhile
    }
  }
  return found
}

/**
 * Runs a program to its end.
 * @throws Error with what it said, when it fails or takes too long
 */
export async function run(argv: readonly string[], options: ProgramOptions & { timeoutMs?: number } = {}): Promise<string> {
  const program = await runToEnd(argv, options)
  if (program.exit?.code !== 0) throw new Error(`${argv.join(' ')}: exit ${program.exit?.code ?? program.exit?.signal}: ${program.stderr || program.stdout}`)
  return program.stdout
}

/** Runs a program to its end, good or bad. @throws Error when it takes too long, having killed it */
export async function runToEnd(argv: readonly string[], { timeoutMs = 60_000, ...options }: ProgramOptions & { timeoutMs?: number } = {}): Promise<Program> {
  const program = new Program(argv, options)
  if (await within(timeoutMs, program.closed) === undefined) {
    await program.kill()
    throw new Error(`${argv.join(' ')}: not ended after ${timeoutMs / 1000} s: ${program.stderr || program.stdout}`)
  }
  return program
}
