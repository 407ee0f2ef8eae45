/** The test's end of a process that uses mounts (load-child.ts). */
import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { Load } from './load-child.js'
import { within } from './program.js'

export class LoadChild {
  readonly #child: ChildProcess

  /** @param threads that make system calls at the same time */
  constructor(threads = 64) {
    this.#child = fork(fileURLToPath(new URL('./load-child.js', import.meta.url)), { env: { ...process.env, UV_THREADPOOL_SIZE: String(threads) } })
  }

  /** Runs one load. @throws Error with what went wrong */
  async run(load: Load, timeoutMs = 60_000): Promise<void> {
    const answer = once(this.#child, 'message') as Promise<[string]>
    this.#child.send(load)
    const [said] = await within(timeoutMs, answer) ?? [`not done after ${timeoutMs / 1000} s`]
    if (said !== '') throw new Error(said)
  }

  async end(): Promise<void> {
    if (this.#child.exitCode !== null) return
    const exit = once(this.#child, 'exit')
    this.#child.kill('SIGKILL')
    await within(5000, exit)
  }
}
