/**
 * A virtiofsd that we start over a directory, on a socket of its own that nobody else can reach,
 * and end with the mount. Knows the Rust virtiofsd and the C one of QEMU up to 7.2.
 */
import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import createDebug from 'debug'
import { PeerGoneError, UsageError } from '../errors.js'
import { close } from '../sys/io.js'
import { listenUnix } from '../sys/socket.js'
import { VhostUserFrontend } from '../vhost-user/frontend.js'
import { findVirtiofsd } from './find-virtiofsd.js'
import { mountTimeoutMs, type MountOptions } from './options.js'
import { privateDir } from './private-dir.js'

const debug = createDebug('virtiofs:backend')
/** How long it may take to end after its client has gone, before it is killed. */
const END_TIMEOUT_MS = 3000

/**
 * Whether it can hand open files without a name over to its replacement. Other modes look for paths.
 * Only root may open by a handle.
 */
function canMigrateHandles(version: string): boolean {
  const [, major = 0, minor = 0] = /virtiofsd (\d+)\.(\d+)/.exec(version) ?? []
  return process.getuid!() === 0 && (Number(major) > 1 || Number(minor) >= 13)
}

/**
 * By handles; an inode that was deleted, and that only the kernel still knows, has none that can be
 * opened, and answers errors after as before.
 */
const MIGRATION = ['--migration-mode=file-handles', '--migration-on-error=guest-error']

/** Arguments beyond the listening socket, which is descriptor 3. */
function commandLine(version: string, directory: string, tag: string, options: MountOptions): string[] {
  // only the C one mentions the FUSE interface it was built for
  const c = /FUSE kernel interface/.test(version)
  const cache = options.cache ?? 'auto'
  if (c) {
    if (options.translateUid ?? options.translateGid) throw new UsageError('option translate_uid or translate_gid: the C virtiofsd cannot do that')
    const list = [`source=${directory.replace(/[\\,]/g, '\\$&')}`, `cache=${cache === 'never' ? 'none' : cache === 'metadata' ? 'auto' : cache}`]
    if (options.writeback) list.push('writeback')
    if (options.xattr || options.posixAcl) list.push('xattr')
    if (options.posixAcl) list.push('posix_acl')
    if (options.readdirplus === false) list.push('no_readdirplus')
    if (options.xattrmap !== undefined) list.push('xattr', `xattrmap=${options.xattrmap.replace(/[\\,]/g, '\\$&')}`)
    return ['--fd=3', '-o', list.join(','), '-o', `sandbox=${options.sandbox === 'chroot' ? 'chroot' : 'namespace'}`]
  }
  return [
    '--fd=3', `--shared-dir=${directory}`, `--tag=${tag}`, `--cache=${cache}`, `--sandbox=${options.sandbox ?? 'namespace'}`,
    // one descriptor per known inode otherwise, until there are no more
    '--inode-file-handles=prefer', '--log-level=error', ...canMigrateHandles(version) ? MIGRATION : [],
    ...(options.writeback ? ['--writeback'] : []), ...(options.xattr ? ['--xattr'] : []), ...(options.posixAcl ? ['--posix-acl'] : []),
    ...(options.allowDirectIo ? ['--allow-direct-io'] : []), ...(options.readdirplus === false ? ['--no-readdirplus'] : []),
    ...(options.readonly ? ['--readonly'] : []), ...(options.xattrmap === undefined ? [] : [`--xattrmap=${options.xattrmap}`]),
    ...(options.translateUid ?? []).map(rule => `--translate-uid=${rule}`), ...(options.translateGid ?? []).map(rule => `--translate-gid=${rule}`),
  ]
}

/**
 * Kills all of it: in a sandbox the process that serves is a child of the one that was started, and
 * may be stopped. It has a process group of its own, which the terminal's Ctrl-C does not reach either.
 */
function killGroup({ pid }: ChildProcess): void {
  if (pid === undefined) return
  try {
    process.kill(-pid, 'SIGKILL')
  } catch {
    // it has ended meanwhile
  }
}

/**
 * A listening socket, and its one client, which is connected before anybody listens: a backend that
 * starts when this process has died finds a client that has gone, and ends.
 */
function connected(timeoutMs: number): { listenFd: number, frontend: VhostUserFrontend } {
  const dir = privateDir()
  try {
    const path = join(dir.path, 'vhost.sock')
    const listenFd = listenUnix(path)
    try {
      return { listenFd, frontend: VhostUserFrontend.connect(path, { timeoutMs }) }
    } catch (error) {
      close(listenFd)
      throw error
    }
  } finally {
    dir.remove()
  }
}

export class Virtiofsd {
  readonly frontend: VhostUserFrontend
  readonly #child: ChildProcess
  readonly #exited: Promise<void>
  /** The end of what it wrote to its standard error. */
  readonly said: () => string

  private constructor(child: ChildProcess, exited: Promise<void>, frontend: VhostUserFrontend, said: () => string) {
    this.#child = child
    this.#exited = exited
    this.frontend = frontend
    this.said = said
  }

  get pid(): number {
    return this.#child.pid!
  }

  /**
   * Starts one and connects to it.
   *
   * @throws UsageError when there is none; PeerGoneError when it ends at once
   */
  static async start(directory: string, tag: string, options: MountOptions): Promise<Virtiofsd> {
    const binary = findVirtiofsd(options.virtiofsd)
    const deadline = mountTimeoutMs(options.mountTimeout)
    const { stdout } = await promisify(execFile)(binary, ['--version'], { timeout: deadline, killSignal: 'SIGKILL' }).catch(() => ({ stdout: '' }))
    const { listenFd, frontend } = connected(deadline)
    let child: ChildProcess | undefined
    try {
      child = spawn(binary, commandLine(stdout, directory, tag, options), { stdio: ['ignore', 'ignore', 'pipe', listenFd], detached: true, cwd: '/' })
      const started = child
      let said = ''
      started.stderr!.on('data', chunk => {
        said = (said + chunk).slice(-4096)
        debug('%s', String(chunk).trimEnd())
      })
      const exited = new Promise<void>(resolve => started.once('close', () => resolve()))
      await new Promise<void>((resolve, reject) => { started.once('spawn', () => resolve()).once('error', reject) })
      return new Virtiofsd(started, exited, frontend, () => said.trim())
    } catch (error) {
      if (child) killGroup(child)
      frontend.close()
      throw error instanceof UsageError ? error : new PeerGoneError(`virtiofsd ${binary}: ${(error as Error).message}`)
    } finally {
      close(listenFd)
    }
  }

  /** Ends it: it does so itself when its client is gone, and is killed when it does not. */
  async end(): Promise<void> {
    const timer = setTimeout(() => killGroup(this.#child), END_TIMEOUT_MS)
    await this.#exited
    clearTimeout(timer)
  }
}
