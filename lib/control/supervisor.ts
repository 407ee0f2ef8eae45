/**
 * The supervisor of a mount: holds /dev/fuse, the memory with what the kernel knows of the mount and
 * the lock of its tag; starts the process that serves, and another one when that has died. It serves
 * nothing itself. What the dead one had started is dead before another begins: nobody but the new
 * one may work on the shared directory.
 *
 * States: a process serves; none does, and another is started after a while; the mount has ended.
 */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { readSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { StateWord } from '../driver/state-memory.js'
import type { ReplacementTarget } from '../driver/transport.js'
import { errorLine, PeerGoneError } from '../errors.js'
import { KernelMount } from '../mount/dev-fuse.js'
import { LiveTag } from '../mount/live-tags.js'
import { Severity } from '../mount/log.js'
import type { MountRequest } from '../mount/mount.js'
import { prepareMountpoint } from '../mount/mountpoint.js'
import type { MountFacts } from '../mount/supervision.js'
import { adoptOrphans, endChildren } from '../sys/children.js'
import { close } from '../sys/io.js'
import { createGrowingMemfd } from '../sys/memory.js'
import { startEnvironment } from '../sys/node-environment.js'
import { socketpair } from '../sys/socket.js'
import { recvmsg } from '../sys/socket-message.js'
import { removeSockets } from './control-dir.js'
import { RestartPolicy } from './restart-policy.js'
import type { FromServer, ToServer } from './supervisor-protocol.js'

/** How long what a dead process has left may take to end, in milliseconds. */
const ORPHANS_MS = 10_000

export interface SupervisorOptions {
  request: MountRequest
  /** Whether there is no terminal once the mount is usable. */
  background: boolean
  /** The module that serves, in a process of its own. */
  server: string
  usable: () => void
  say: (severity: Severity, message: string) => void
  /** For a mount that nobody could go on with. */
  failureCode: number
}

/** What the supervisor holds of a mount. */
interface Held {
  facts: MountFacts
  fuseFd: number
  tagFd: number
}

export class Supervisor {
  readonly #options: SupervisorOptions
  readonly #policy = new RestartPolicy()
  readonly #stateFd: number
  #held: Held | undefined
  #replaced: ReplacementTarget = {}
  #child: ChildProcess | undefined
  #restarts = 0
  #stopping = false
  readonly #stop = new AbortController()
  /** What the present process has said of its end. */
  #ended = false
  #reason = ''

  /** @throws SyscallError */
  constructor(options: SupervisorOptions) {
    this.#options = options
    adoptOrphans()
    this.#stateFd = createGrowingMemfd('virtiofs-bridge-state')
  }

  /** Passes a signal on: it ends the mount. */
  signal(signal: NodeJS.Signals): void {
    this.#stopping = true
    this.#child?.kill(signal)
    this.#stop.abort()
  }

  /** Serves until the mount has ended. @returns the exit code of the command */
  async run(): Promise<number> {
    try {
      for (;;) {
        const startMs = performance.now()
        const answered = this.#answered()
        const { code, signal } = await this.#life()
        const left = await endChildren(ORPHANS_MS)
        if (this.#ended) return code ?? 0
        if (!this.#held) return await this.#notBegun(code, signal)
        const how = this.#reason !== '' ? this.#reason : signal ?? `exit code ${code}`
        if (left !== undefined) return await this.#giveUp(`the process that serves it ended (${how}), and process ${left}, which it had started, does not end`)
        const waitMs = this.#policy.next(performance.now() - startMs, this.#answered() - answered)
        if (this.#stopping) return await this.#endMount(0)
        if (waitMs === undefined) return await this.#giveUp(`the process that serves it has ended ${this.#policy.deaths} times at once, the last time by ${how}: it is unmounted`)
        this.#options.say(Severity.WARNING, `the process that serves it has ended (${how}); another goes on`)
        this.#restarts++
        await sleep(waitMs, undefined, { signal: this.#stop.signal }).catch(() => {})
        if (this.#stopping) return await this.#endMount(0)
      }
    } finally {
      if (this.#held) for (const fd of [this.#held.fuseFd, this.#held.tagFd]) close(fd)
      close(this.#stateFd)
    }
  }

  /** It has ended before the mount was handed over: it has said why, or it was killed. @returns its exit code */
  async #notBegun(code: number | null, signal: NodeJS.Signals | null): Promise<number> {
    if (code !== null) return code
    // it may have mounted
    await prepareMountpoint(this.#options.request.mountpoint).catch(() => {})
    throw new PeerGoneError(`the process that was to serve it has ended before it was mounted (${signal ?? this.#reason})`)
  }

  #answered(): number {
    const word = Buffer.alloc(4)
    readSync(this.#stateFd, word, 0, 4, 4 * StateWord.ANSWERED)
    return word.readUInt32LE()
  }

  /** One process, from its start to its end. */
  async #life(): Promise<{ code: number | null, signal: NodeJS.Signals | null }> {
    const held = this.#held
    const [ours, theirs] = held ? [-1, -1] : socketpair()
    this.#ended = false
    this.#reason = ''
    const child = this.#child = spawn(process.execPath, [...process.execArgv, this.#options.server], {
      // a session of its own: a signal of the terminal comes by the supervisor, once
      detached: true, env: startEnvironment(), stdio: ['ignore', 'inherit', 'inherit', 'ipc', this.#stateFd, ...held ? [held.fuseFd, held.tagFd] : [theirs]],
    })
    try {
      const exit = new Promise<{ code: number | null, signal: NodeJS.Signals | null }>(resolve => {
        child.once('exit', (code, signal) => resolve({ code, signal }))
        child.on('error', error => {
          // it could not be started; other errors are of messages that it has not read
          if (child.pid !== undefined) return
          this.#reason = errorLine(error)
          resolve({ code: null, signal: null })
        })
      })
      child.on('message', (message: FromServer) => this.#heard(child, message, ours))
      const { request, background } = this.#options
      this.#tell(child, {
        type: 'serve', request, background, supervisor: process.pid, ...held && { inherited: { ...held.facts, restarts: this.#restarts, replaced: this.#replaced } },
      })
      const end = await exit
      // what it has said before its end comes first
      if (child.pid !== undefined && child.connected) await once(child, 'disconnect')
      return end
    } finally {
      this.#child = undefined
      for (const fd of [ours, theirs]) if (fd >= 0) close(fd)
      if (child.pid !== undefined) removeSockets(child.pid)
    }
  }

  #tell(child: ChildProcess, message: ToServer): void {
    child.send(message, () => {})
  }

  #heard(child: ChildProcess, message: FromServer, handover: number): void {
    switch (message.type) {
      case 'mounted': {
        const fds: number[] = []
        recvmsg(handover, new Uint8Array(1), fds)
        const [fuseFd, tagFd] = fds
        if (fuseFd === undefined || tagFd === undefined) return
        this.#held = { facts: message.facts, fuseFd, tagFd }
        this.#tell(child, { type: 'held' })
        break
      }
      case 'usable': this.#options.usable(); break
      case 'replaced': this.#replaced = message.target; break
      case 'failed': this.#reason = message.reason; break
      case 'ended': this.#ended = true; break
    }
  }

  async #giveUp(reason: string): Promise<number> {
    this.#options.say(Severity.ERROR, reason)
    return await this.#endMount(this.#options.failureCode)
  }

  /** Ends the mount while nobody serves it: who uses it gets errors. @returns `code` */
  async #endMount(code: number): Promise<number> {
    const { facts: { live }, fuseFd, tagFd } = this.#held!
    this.#held = undefined
    const kernel = KernelMount.inherit(live.mountpoint, fuseFd, live.connection)
    kernel.abort()
    await kernel.unmount(true)
    kernel.close()
    LiveTag.inherit(live, tagFd).release()
    return code
  }
}
