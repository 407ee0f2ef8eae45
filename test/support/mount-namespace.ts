/**
 * A mount namespace of its own for a test: what is mounted, and put into /sbin and /etc, in it is
 * nobody else's business and goes with its last process.
 */
import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { FS_TYPE, type MountEntry, readMounts } from '../../lib/mount/mountinfo.js'
import { Program, run, runToEnd } from './program.js'

/** Whoever keeps it that long has died without an end. */
const MOST_S = 3600

export class MountNamespace {
  readonly #holder: Program

  private constructor(holder: Program) {
    this.#holder = holder
  }

  static async create(): Promise<MountNamespace> {
    const holder = new Program(['unshare', '--mount', '--propagation', 'private', 'sleep', String(MOST_S)])
    const namespace = new MountNamespace(holder)
    while (readFileSync(`/proc/${holder.pid}/comm`, 'utf8') !== 'sleep\n') await sleep(5)
    // its copies of mounts of others would keep them alive
    for (const { type, mountpoint } of namespace.mounts().reverse()) if (type === FS_TYPE) await namespace.try(['umount', '-l', mountpoint])
    return namespace
  }

  get pid(): number {
    return this.#holder.pid
  }

  /** What to put before a command. */
  get prefix(): string[] {
    return ['nsenter', `--mount=/proc/${this.pid}/ns/mnt`, '--']
  }

  /** Runs a command inside, to its end, good or bad. */
  async try(argv: readonly string[], env?: NodeJS.ProcessEnv): Promise<Program> {
    return await runToEnd([...this.prefix, ...argv], { timeoutMs: 30_000, ...env && { env } })
  }

  /** Runs a command inside. @throws Error when it fails */
  async run(argv: readonly string[]): Promise<string> {
    return await run([...this.prefix, ...argv], { timeoutMs: 30_000 })
  }

  /** Makes a directory writable whose changes nobody else sees. @param scratch for what is changed; not on overlayfs */
  async privatise(directory: string, scratch: string): Promise<void> {
    const place = join(scratch, `overlay${directory.replaceAll('/', '-')}`)
    mkdirSync(place)
    await this.run(['mount', '-t', 'tmpfs', 'tmpfs', place])
    await this.run(['mkdir', join(place, 'upper'), join(place, 'work')])
    await this.run(['mount', '-t', 'overlay', 'overlay', '-o', `lowerdir=${directory},upperdir=${place}/upper,workdir=${place}/work`, directory])
  }

  /** A path as a process outside can open it. */
  path(inside: string): string {
    return `/proc/${this.pid}/root${inside}`
  }

  mounts(): MountEntry[] {
    return readMounts(this.pid)
  }

  async end(): Promise<void> {
    await this.#holder.kill()
  }
}
