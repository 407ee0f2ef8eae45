/**
 * The commands of README and of the manual page, as they stand there: in a namespace that has
 * /srv/shared and /mnt/shared of its own, the command in its PATH, a virtiofsd, and an ssh that
 * stays on this machine.
 */
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { manual } from '../../docs/manual.js'
import { FS_TYPE } from '../../lib/mount/mountinfo.js'
import { MountNamespace } from '../support/mount-namespace.js'
import { BRIDGE, missing, noProgram, peerPath } from '../support/peers.js'
import { Program, type Exit } from '../support/program.js'
import { eventually, inScene } from '../support/scene.js'
import { packageRoot } from '../support/vhost-user-session.js'

const skip = missing('emulated') || noProgram('nsenter') || noProgram('unshare') || noProgram('bash')
const README = readFileSync(join(packageRoot(), 'README.md'), 'utf8')

/** Blocks of lines that are indented as code, outside of fences. */
function blocks(text: string): string[][] {
  const found = text.replace(/^```.*?^```$/gms, '').match(/^(?: {4}\S.*\n)+/gm) ?? []
  return found.map(block => block.trimEnd().split('\n').map(line => line.slice(4)))
}

const COMMAND = /^(?:\$ )?((?:virtiofs-bridge|mount|umount|mkdir|eval|npm) .*?)(?: +#.*)?$/

/** The commands of a block; none when it is output, a record, a line of a file. */
function commandsOf(block: readonly string[]): string[] {
  return block.map(line => COMMAND.exec(line)?.[1]).filter(command => command !== undefined)
}

/** Run by others: `npm test` is what runs this, and the tests of the package and the demo. */
const ELSEWHERE = new Set(['npm run demo', 'npm test', 'npm ci && npm run build && npm install -g .', 'virtiofs-bridge SOURCE MOUNTPOINT [-o OPTION[,OPTION...]] [-f]'])

/** Why a command cannot be run here, or false. */
function lacking(command: string): string | false {
  if (command.includes('unix:/run/vhost.sock') || command.includes('backend=virtiofsd')) return missing('virtiofsd-rust')
  if (command.includes('via=fuse-native') && !existsSync(join(packageRoot(), 'node_modules/fuse-native'))) return 'fuse-native is not installed'
  return false
}

class Place {
  readonly namespace: MountNamespace
  readonly #env: NodeJS.ProcessEnv
  #backend: Program | undefined

  constructor(namespace: MountNamespace, env: NodeJS.ProcessEnv) {
    this.namespace = namespace
    this.#env = env
  }

  async bash(command: string): Promise<Program> {
    return await this.namespace.try(['bash', '-c', command], this.#env)
  }

  start(command: string): Program {
    return new Program([...this.namespace.prefix, 'bash', '-c', `exec ${command}`], { env: this.#env })
  }

  /** As README says it is started. */
  async startBackend(): Promise<void> {
    const command = /`(virtiofsd --socket-path=\/run\/vhost\.sock [^`]*)`/.exec(README)![1]!
    this.#backend = this.start(command)
    while (!existsSync(this.namespace.path('/run/vhost.sock'))) {
      if (!this.#backend.alive) throw new Error(`${command}: ${this.#backend.stderr}`)
      await new Promise(resolve => setTimeout(resolve, 10))
    }
  }

  mounted(): string[] {
    return this.namespace.mounts().filter(({ type }) => type === FS_TYPE).map(({ mountpoint }) => mountpoint)
  }

  async clear(): Promise<void> {
    for (const path of this.mounted().reverse()) await this.bash(`virtiofs-bridge umount ${path}`)
    await this.bash('rm -f /run/vhost.sock')
    const exit: Exit | undefined = await this.#backend?.endsWithin(5000)
    if (this.#backend && !exit) await this.#backend.kill()
    this.#backend = undefined
  }
}

async function withPlace(body: (place: Place) => Promise<void>): Promise<void> {
  await inScene(async scene => {
    const bin = join(scene.base, 'bin')
    mkdirSync(bin)
    const quoted = BRIDGE.map(word => `'${word}'`).join(' ')
    const programs = {
      'virtiofs-bridge': `exec ${quoted} "$@"`,
      virtiofsd: `exec ${peerPath('virtiofsd-rust')} "$@"`,
      // options, the host, and a command for its shell
      ssh: 'while [ "$1" != me@server ] && [ "$1" != server ]; do shift; done; shift; [ "$1" != -- ] || shift; exec sh -c "$*"',
    }
    for (const [name, script] of Object.entries(programs)) {
      writeFileSync(join(bin, name), `#!/bin/sh\n${script}\n`)
      chmodSync(join(bin, name), 0o755)
    }
    const namespace = await MountNamespace.create()
    const env: NodeJS.ProcessEnv = { ...scene.env, PATH: `${bin}:${process.env['PATH']}` }
    delete env['VIRTIOFSD']
    const place = new Place(namespace, env)
    try {
      for (const path of ['/srv', '/mnt', '/var/log', '/run']) await namespace.run(['mount', '-t', 'tmpfs', 'tmpfs', path])
      for (const path of ['/usr/sbin', '/etc']) await namespace.privatise(path, scene.base)
      await namespace.run(['mkdir', '-p', '/srv/shared', '/srv/tree', '/mnt/shared', '/mnt/tree', '/mnt/view'])
      for (const path of ['/srv/shared', '/srv/tree']) writeFileSync(join(namespace.path(path), 'hello'), 'hello\n')
      await body(place)
    } finally {
      await place.clear()
      await namespace.end()
    }
  })
}

/** Runs a command, and checks what it is for. */
async function runCommand(t: Test, place: Place, command: string): Promise<void> {
  if (command.includes('unix:/run/vhost.sock')) {
    await place.clear()
    await place.startBackend()
  }
  if (command.startsWith('virtiofs-bridge trace') || command.startsWith('virtiofs-bridge stats')) return await runUntilStopped(t, place, command)
  // the next of several ways to the same mount
  const mountpoint = /^virtiofs-bridge (?!umount )\S+ (\/mnt\/\w+)/.exec(command)?.[1]
  if (mountpoint !== undefined && place.mounted().includes(mountpoint)) await place.bash(`virtiofs-bridge umount ${mountpoint}`)
  const ran = await place.bash(command)
  t.match(ran, { exit: { code: 0 }, stderr: '' }, command)
  if (mountpoint === undefined) return
  t.match(await place.bash(`cat ${mountpoint}/hello`), { exit: { code: 0 }, stdout: 'hello\n' }, `${command}: usable`)
}

/** What goes on until Ctrl-C, on a mount of which something is asked meanwhile. */
async function runUntilStopped(t: Test, place: Place, command: string): Promise<void> {
  if (!place.mounted().includes('/mnt/shared')) await place.bash('virtiofs-bridge /srv/shared /mnt/shared')
  const running = place.start(command)
  const nope = place.namespace.path('/mnt/shared/nope')
  t.ok(await eventually(() => !existsSync(nope) && /LOOKUP +\/nope .* ENOENT/.test(running.stdout)), command)
  running.child.kill('SIGINT')
  t.ok(await running.endsWithin(10_000), `${command}: ends`)
  await running.kill()
  t.equal(running.stderr, '')
}

t.test('commands of README', { skip }, async t => {
  await withPlace(async place => {
    t.match(await place.bash('virtiofs-bridge install'), { exit: { code: 0 } })
    let count = 0
    for (const block of blocks(README)) {
      for (const command of commandsOf(block)) {
        if (ELSEWHERE.has(command)) continue
        const reason = lacking(command)
        if (reason) {
          t.comment(`${command}: ${reason}`)
          continue
        }
        await runCommand(t, place, command)
        count++
      }
      await place.clear()
    }
    t.ok(count >= 15, `${count} commands`)
    t.strictSame(place.mounted(), [])
  })
})

t.test('the line for /etc/fstab', { skip }, async t => {
  await withPlace(async place => {
    const [line, ...more] = blocks(README).flat().filter(each => / fuse\.virtiofs-bridge .* 0 +0$/.test(each))
    t.strictSame(more, [])
    t.match(await place.bash('virtiofs-bridge install'), { exit: { code: 0 } })
    writeFileSync(place.namespace.path('/etc/fstab'), `${line}\n`)
    t.match(await place.bash('mount -a && cat /mnt/shared/hello && umount /mnt/shared'), { exit: { code: 0 }, stdout: 'hello\n', stderr: '' })
    t.match(await place.bash('mount /mnt/shared && umount /mnt/shared'), { exit: { code: 0 }, stderr: '' })
    t.ok(manual().includes(line!), 'the manual page has the same')
  })
})

t.test('commands of the manual page are those of README, but for the form of their output', async t => {
  const known = new Set(blocks(README).flatMap(commandsOf))
  const ofManual = blocks(manual()).flatMap(commandsOf)
  t.ok(ofManual.length > 4)
  for (const command of ofManual) t.ok(known.has(command), command)
})
