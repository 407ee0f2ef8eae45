/**
 * A mount is made, used and ended while one system call of it fails, once. Whatever fails: a clear
 * error or none, what was acknowledged is there, no caller hangs, and when all is over the process
 * holds what it held before.
 */
import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { errno } from '../../lib/errors.js'
import { findMount } from '../../lib/mount/mountinfo.js'
import { clearMount } from '../support/stuck.js'
import { within } from '../support/program.js'
import type { FaultError, FaultThreads } from '../support/sys-faults.js'
import type { Fault, HostAnswer, HostCommand } from './fault-host.js'
import { lost, runScenario, type Done } from './fault-scenario.js'

const { EAGAIN, EBUSY, EDQUOT, EINTR, EIO, EMFILE, ENOMEM, ENOSPC } = errno

/** What each call can fail with. */
export const CALLS: Record<string, readonly FaultError[]> = {
  accept4: [EMFILE], bind: [ENOMEM], close: [EIO, EINTR], connect: [EAGAIN, ENOMEM], copy_file_range: [EIO, ENOSPC, 'half'], dup2: [EMFILE],
  epoll_create1: [EMFILE, ENOMEM], epoll_ctl: [ENOMEM, ENOSPC], epoll_wait: [EINTR], eventfd: [EMFILE, ENOMEM], fallocate: [ENOSPC], fchmod: [EIO], fchmodat: [EIO],
  fchownat: [EIO], fcntl: [ENOMEM, EINTR], fdatasync: [EIO, ENOSPC], flock: [EINTR], fstatfs: [EIO], fsync: [EIO, EDQUOT], ftruncate: [ENOSPC, EIO, EINTR],
  getdents64: [EIO, ENOMEM, 'half'], getrlimit: [EIO], getxattr: [EIO], ioctl: [EMFILE, ENOMEM], linkat: [ENOSPC], listen: [ENOMEM], listxattr: [EIO], lseek: [EIO],
  madvise: [ENOMEM], memfd_create: [EMFILE, ENOMEM], mkdirat: [ENOSPC, EIO], mknodat: [ENOSPC], mmap: [ENOMEM], mount: [ENOMEM], munmap: [ENOMEM], name_to_handle_at: [ENOMEM],
  open: [EMFILE, ENOMEM], open_by_handle_at: [EMFILE, ENOMEM], openat: [EMFILE, ENOMEM, EIO], pipe2: [EMFILE], poll: [EINTR, ENOMEM], preadv2: [EIO, EINTR, EAGAIN, 'half'],
  pwritev2: [ENOSPC, EDQUOT, EIO, EINTR, 'half'], read: [EINTR, EAGAIN, EIO], readlinkat: [EIO], readv: [EINTR, EAGAIN, ENOMEM], recv: [EINTR, ENOMEM],
  recvmsg: [EINTR, ENOMEM, 'half'], removexattr: [EIO], renameat2: [ENOSPC, EIO], sendmsg: [EINTR, EAGAIN, ENOMEM, 'half'], setrlimit: [EIO], setxattr: [ENOSPC],
  shutdown: [EIO], socket: [EMFILE], socketpair: [EMFILE], statx: [ENOMEM, EIO], symlinkat: [ENOSPC], syncfs: [EIO, ENOSPC], syscall: [ENOMEM, EIO], truncate: [EIO, ENOSPC],
  umount2: [EBUSY, ENOMEM], unlinkat: [EIO], utimensat: [EIO], write: [EINTR, ENOMEM], writev: [EINTR, EAGAIN, ENOMEM],
}

export interface Verdict {
  fault: Fault
  fired: boolean
  uses: number
  /** What the user saw: nothing, an error of an operation, of the mount, of the unmount. */
  seen: string
  /** What must not be. */
  findings: string[]
}

const STEP_MS = 60_000
const SETTLE_MS = 3000
/** So often the same, 50 ms apart, is what it holds. */
const REST_READINGS = 6

/** A process that mounts, and a place for it. */
export class FaultBench {
  readonly #base: string
  readonly #options: string[]
  #host: ChildProcess | undefined
  #said = ''
  #held: string[] = []
  #cycle = 0

  /** @param base an empty directory, in which the process has its runtime directory too */
  constructor(base: string, options: string[]) {
    this.#base = base
    this.#options = options
  }

  async #ask(command: HostCommand): Promise<HostAnswer | undefined> {
    const host = this.#host!
    const over = new AbortController()
    const answer = once(host, 'message', over).then(([value]) => value as HostAnswer)
    const end = once(host, 'exit', over).then(([code, signal]) => ({ error: `the process has ended: ${code ?? signal}`, stack: this.#said }))
    for (const promise of [answer, end]) promise.catch(() => {})
    host.send(command)
    try {
      return await within(STEP_MS, Promise.race([answer, end]))
    } finally {
      over.abort()
    }
  }

  async #start(): Promise<void> {
    this.#said = ''
    const runtime = join(this.#base, 'run')
    rmSync(runtime, { recursive: true, force: true })
    mkdirSync(runtime)
    this.#host = fork(fileURLToPath(new URL('./fault-host.js', import.meta.url)), {
      execArgv: ['--import', new URL('../support/sys-faults.js', import.meta.url).href], stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
      env: { ...process.env, NODE_OPTIONS: '', XDG_RUNTIME_DIR: runtime },
    })
    this.#host.stderr!.setEncoding('utf8').on('data', (text: string) => { this.#said += text })
    // twice: the first mounts start threads of Node that stay
    for (let i = 0; i < 2; i++) await this.#cycleOf({ name: 'none', threads: 'main', n: 1, error: EIO }, true)
    this.#held = await this.#atRest()
  }

  async #heldNow(): Promise<string[]> {
    return (await this.#ask({ type: 'held' }))?.held ?? ['no answer']
  }

  /** What it holds when nothing is mounted any more, and threads that end have ended. */
  async #atRest(): Promise<string[]> {
    const endMs = performance.now() + SETTLE_MS
    let held = await this.#heldNow()
    for (let same = 0; same < REST_READINGS && performance.now() < endMs;) {
      await sleep(50)
      const now = await this.#heldNow()
      same = now.includes('0 memfds') && now.join() === held.join() ? same + 1 : 0
      held = now
    }
    return held
  }

  /** What it holds once that is what is expected, or after all the time there is. */
  async #settled(expected: string[]): Promise<string[]> {
    const endMs = performance.now() + SETTLE_MS
    let held = await this.#heldNow()
    while (held.join() !== expected.join() && performance.now() < endMs) {
      await sleep(50)
      held = await this.#heldNow()
    }
    return held
  }

  async end(): Promise<void> {
    const host = this.#host
    this.#host = undefined
    if (!host) return
    host.kill('SIGKILL')
    if (host.exitCode === null && host.signalCode === null) await once(host, 'exit')
  }

  /** One mount with one fault. */
  async run(fault: Fault): Promise<Verdict> {
    if (!this.#host) await this.#start()
    const verdict = await this.#cycleOf(fault, false)
    if (verdict.findings.length > 0) await this.end()
    return verdict
  }

  async #cycleOf(fault: Fault, warmUp: boolean): Promise<Verdict> {
    const place = join(this.#base, String(this.#cycle++))
    const [source, dir] = [join(place, 'src'), join(place, 'mnt')]
    for (const path of [place, source, dir]) mkdirSync(path)
    const verdict: Verdict = { fault, fired: false, uses: 0, seen: '', findings: [] }
    try {
      await this.#use(verdict, source, dir)
      if (!warmUp && verdict.findings.length === 0) await this.#checkHeld(verdict)
    } finally {
      if (await clearMount(dir)) verdict.findings.push('a mount was left')
      rmSync(place, { recursive: true, force: true })
    }
    return verdict
  }

  /** Mounts, works, unmounts. */
  async #use(verdict: Verdict, source: string, dir: string): Promise<void> {
    const { findings } = verdict
    const judge = (what: string, answer: HostAnswer | undefined): boolean => {
      if (answer === undefined) {
        findings.push(`${what} hangs: ${this.#said}`)
        return false
      }
      if (answer.stack !== undefined || answer.error?.includes('\n')) findings.push(`${what} fails with what is no clear error: ${answer.error}\n${answer.stack ?? ''}`)
      if (answer.error !== undefined) verdict.seen += `${what}: ${answer.error}; `
      if (answer.uses !== undefined) Object.assign(verdict, { uses: answer.uses, fired: answer.fired })
      return answer.error === undefined
    }
    const mounted = judge('mount', await this.#ask({ type: 'mount', source, mountpoint: dir, options: this.#options, fault: verdict.fault }))
    if (!mounted) {
      if (findMount(dir)) findings.push('the mount failed, and something is mounted')
      return
    }
    const done = await within(STEP_MS, runScenario(dir))
    if (!done) {
      findings.push('operations hang')
      await clearMount(dir)
    }
    let ended = judge('unmount', await this.#ask({ type: 'unmount', abort: false }))
    if (!ended && findings.length === 0) ended = judge('second unmount', await this.#ask({ type: 'unmount', abort: true }))
    if (!done) return
    verdict.seen += done.errors.map(([operation, code]) => `${operation} ${code}`).join(', ')
    findings.push(...done.wrong, ...await lost(source, done), ...this.#unclear(done, verdict))
  }

  /** One failing call may fail an operation, and those that build on it; nothing may answer what says nothing. */
  #unclear({ errors }: Done, { fired }: Verdict): string[] {
    if (!fired && errors.length > 0) return [`errors without a fault: ${errors.join('; ')}`]
    return errors.filter(([, code]) => code === 'EINVAL' || code === 'ENOSYS' || !/^E[A-Z0-9]+$|system error -122$/.test(code)).map(([operation, code]) => `${operation} fails with ${code}`)
  }

  async #checkHeld(verdict: Verdict): Promise<void> {
    const held = await this.#settled(this.#held)
    if (held.join() !== this.#held.join()) {
      const more = held.filter(one => !this.#held.includes(one) || held.filter(x => x === one).length !== this.#held.filter(x => x === one).length)
      verdict.findings.push(`held afterwards: ${[...new Set(more)].join(' ')}, instead of ${this.#held.filter(one => !held.includes(one)).join(' ') || 'less'}`)
    }
    const left = readdirSync(join(this.#base, 'run'), { recursive: true, withFileTypes: true }).filter(entry => !entry.isDirectory())
    if (left.length > 0) verdict.findings.push(`in the runtime directory: ${left.map(entry => entry.name).join(' ')}`)
  }
}

/** Uses of a call that are worth a fault: the first ones, and some of the many that follow. */
export function places(uses: number, first: number, spread: number): number[] {
  const all = new Set<number>()
  for (let n = 1; n <= Math.min(uses, first); n++) all.add(n)
  for (let i = 1; i <= spread; i++) all.add(Math.max(1, Math.round(uses * i / spread)))
  return [...all].filter(n => n <= uses).sort((a, b) => a - b)
}

export const THREADS: readonly FaultThreads[] = ['main', 'workers']
