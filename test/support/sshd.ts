/** An sshd of the test's own: on a port of 127.0.0.1, with its own configuration, host key and user key. */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { userInfo } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { processTree, Program } from './program.js'
import { noProgram } from './peers.js'

const SSHD = '/usr/sbin/sshd'
const START_MS = 10_000

/** Why there can be none here, or false. */
export function noSshd(): string | false {
  if (!existsSync(SSHD)) return `no ${SSHD} (package openssh-server)`
  return noProgram('ssh') || noProgram('ssh-keygen')
}

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as { port: number }
  await new Promise(resolve => server.close(resolve))
  return port
}

export class Sshd {
  /** ssh with what it needs to get in. */
  readonly ssh: readonly string[]
  readonly port: number
  readonly user = userInfo().username
  readonly #server: Program

  private constructor(server: Program, port: number, ssh: readonly string[]) {
    this.#server = server
    this.port = port
    this.ssh = ssh
  }

  /** @param dir of the test's own */
  static async start(dir: string): Promise<Sshd> {
    mkdirSync(dir, { recursive: true, mode: 0o700 })
    for (const key of ['host', 'user']) execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', key, '-f', join(dir, key)])
    const port = await freePort()
    writeFileSync(join(dir, 'authorized'), readFileSync(join(dir, 'user.pub')))
    writeFileSync(join(dir, 'known'), `[127.0.0.1]:${port} ${readFileSync(join(dir, 'host.pub'), 'utf8')}`)
    writeFileSync(join(dir, 'sshd_config'), [
      `ListenAddress 127.0.0.1:${port}`, `HostKey ${join(dir, 'host')}`, `AuthorizedKeysFile ${join(dir, 'authorized')}`, 'PidFile none', 'UsePAM no', 'StrictModes no',
      'PasswordAuthentication no', 'KbdInteractiveAuthentication no', 'PermitRootLogin prohibit-password', 'PrintMotd no', 'LogLevel ERROR', 'Subsystem sftp internal-sftp',
    ].join('\n') + '\n')
    // where it gives up its rights; made by the service's own start otherwise
    if (process.getuid!() === 0) mkdirSync('/run/sshd', { recursive: true, mode: 0o755 })
    const ssh = ['ssh', '-F', 'none', '-i', join(dir, 'user'), '-oIdentitiesOnly=yes', '-oIdentityAgent=none', `-oUserKnownHostsFile=${join(dir, 'known')}`, '-oStrictHostKeyChecking=yes']
    const server = new Program([SSHD, '-D', '-e', '-f', join(dir, 'sshd_config')])
    const sshd = new Sshd(server, port, ssh)
    const endMs = performance.now() + START_MS
    for (;;) {
      try {
        execFileSync('env', ['-u', 'NODE_OPTIONS', ...ssh, '-oBatchMode=yes', '-p', String(port), '127.0.0.1', 'true'], { stdio: 'pipe' })
        return sshd
      } catch (error) {
        if (!server.alive || performance.now() > endMs) {
          await sshd.end()
          throw new Error(`sshd: ${server.stderr}; ssh: ${String((error as { stderr?: Buffer }).stderr)}`)
        }
        await sleep(50)
      }
    }
  }

  /** A source for the bridge. */
  url(path: string): string {
    return `ssh://${this.user}@127.0.0.1:${this.port}${path}`
  }

  get pid(): number {
    return this.#server.pid
  }

  /** Itself, and all that runs below it. */
  processes(): number[] {
    return processTree(this.pid)
  }

  async end(): Promise<void> {
    await this.#server.kill()
  }
}
