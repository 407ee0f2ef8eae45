/** A backend replaced under a live mount: open files, also one that has no name any more, node ids and data stay. */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, existsSync, fstatSync, fsyncSync, ftruncateSync, mkdirSync, openSync, readdirSync, readFileSync, readSync, rmSync, statSync, unlinkSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { statfs } from 'node:fs/promises'
import { Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { VhostUserRequest as R } from '../../lib/vhost-user/message.js'
import { withMount, type LiveMount } from '../support/mounts.js'
import { BRIDGE, missing, peerPath, startBackend } from '../support/peers.js'
import { processTree, run, runToEnd } from '../support/program.js'
import { VhostUserListener } from '../support/vhost-user-listener.js'
import { eventually } from '../support/scene.js'

const RUST = peerPath('virtiofsd-rust')
const OWN = ['backend=virtiofsd', `virtiofsd=${RUST}`]
const TIMES = 5
/** The right to open by a handle. */
const HANDLES = '--modcaps=+dac_read_search'
const COMMAND_MS = 60_000

async function replace(live: LiveMount, ...args: string[]): Promise<string> {
  return await run([...BRIDGE, 'replace', live.dir, ...args], { timeoutMs: COMMAND_MS })
}

/** Processes below the bridge: the virtiofsd that serves, and its parent in the sandbox. */
function backendPids(live: LiveMount): number[] {
  return processTree(live.pid).filter(pid => pid !== live.pid)
}

/** Writers and readers in a process of their own; resolves with what they have done, and what was wrong. */
async function load(dir: string): Promise<{ stop: () => Promise<{ records: number, wrong: string[] }> }> {
  const child = fork(fileURLToPath(new URL('../support/replace-load.js', import.meta.url)), [dir], { execArgv: [], env: { ...process.env, NODE_OPTIONS: '' } })
  await once(child, 'message')
  return {
    stop: async () => {
      const result = once(child, 'message')
      child.send('stop')
      const [value] = await result as [{ records: number, wrong: string[] }]
      await once(child, 'exit')
      return value
    },
  }
}

/** Files that are open across the replacement. */
class Held {
  readonly #dir: string
  readonly #named: number
  readonly #unlinked: number | undefined
  readonly #ino: bigint

  constructor(dir: string, unlinked: boolean) {
    this.#dir = dir
    mkdirSync(join(dir, 'held'))
    this.#named = openSync(join(dir, 'held', 'named'), 'w+')
    writeSync(this.#named, 'before')
    this.#ino = statSync(join(dir, 'held', 'named'), { bigint: true }).ino
    if (!unlinked) return
    this.#unlinked = openSync(join(dir, 'held', 'unlinked'), 'w+')
    writeSync(this.#unlinked, 'no name')
    unlinkSync(join(dir, 'held', 'unlinked'))
  }

  check(t: Test, round: number): void {
    const read = (fd: number, bytes: number): string => {
      const buffer = Buffer.alloc(bytes)
      return buffer.toString('utf8', 0, readSync(fd, buffer, 0, bytes, 0))
    }
    t.equal(read(this.#named, 6), 'before', `replacement ${round}: an open file is read`)
    writeSync(this.#named, `round ${round}`, 100 * round)
    fsyncSync(this.#named)
    t.equal(statSync(join(this.#dir, 'held', 'named'), { bigint: true }).ino, this.#ino, 'its inode is the same')
    t.equal(fstatSync(this.#named).size, 100 * round + 7)
    if (this.#unlinked !== undefined) {
      t.equal(read(this.#unlinked, 7), 'no name', 'so is one without a name')
      ftruncateSync(this.#unlinked, 7 + round)
      t.equal(fstatSync(this.#unlinked).size, 7 + round)
    }
  }

  close(): void {
    closeSync(this.#named)
    if (this.#unlinked !== undefined) closeSync(this.#unlinked)
  }
}

t.test('a virtiofsd that the bridge has started, five times under load', { skip: missing('virtiofsd-rust') }, async t => {
  await withMountOfOwn(t, async live => {
    const held = new Held(live.dir, true)
    const working = await load(live.dir)
    let before = backendPids(live)
    for (let round = 1; round <= TIMES; round++) {
      t.match(await replace(live), /^replaced: requests waited \d+ ms\n$/)
      const now = backendPids(live)
      t.ok(now.some(pid => !before.includes(pid)), 'by another process')
      before = now
      held.check(t, round)
      await sleep(150)
    }
    held.close()
    const { records, wrong } = await working.stop()
    t.strictSame(wrong, [], 'nothing was lost, and no operation failed')
    t.ok(records > 20, `${records} records`)
    const inits = live.trace().filter(record => record.op === 'INIT')
    t.equal(inits.length, 1, 'one INIT, at the beginning')
    t.equal(live.trace().filter(record => record.event === 'replace').length, TIMES)
    await untilAlone(live)
    t.ok(backendPids(live).length <= 3, 'the old ones have ended')
  })
})

/** The old backends end by themselves. */
async function untilAlone(live: LiveMount): Promise<void> {
  const endMs = performance.now() + 5000
  while (backendPids(live).length > 3 && performance.now() < endMs) await sleep(20)
}

async function withMountOfOwn(t: Test, body: (live: LiveMount) => Promise<void>): Promise<void> {
  await withMount(t, { peer: 'emulated', options: [...OWN, 'cache=never'] }, body)
}

t.test('a backend behind a socket, by one behind another', { skip: missing('virtiofsd-rust') }, async t => {
  await withMount(t, { peer: 'virtiofsd-rust', options: ['cache=auto'], backendArgs: ['--migration-mode=file-handles', HANDLES] }, async live => {
    const held = new Held(live.dir, false)
    const working = await load(live.dir)
    const socket = join(live.base, 'second.sock')
    const old = live.backend!
    live.backend = startBackend('virtiofsd-rust', live.source, socket, ['--migration-on-error=guest-error', HANDLES])
    await replace(live, '--socket', socket)
    t.ok(await old.endsWithin(5000), 'the old one has ended')
    held.check(t, 1)
    held.close()
    t.strictSame((await working.stop()).wrong, [])
    t.equal(readFileSync(join(live.source, 'held', 'named'), 'utf8').slice(100, 107), 'round 1')
  })
})

t.test('what cannot be done is said, and the old backend goes on', { skip: missing('virtiofsd-rust') }, async t => {
  await withMount(t, { peer: 'virtiofsd-rust', backendArgs: ['--migration-mode=find-paths'], files: source => writeFileSync(join(source, 'a'), 'content') }, async live => {
    const refused = async (code: number, expected: RegExp, ...args: string[]): Promise<void> => {
      const { exit, stderr } = await runToEnd([...BRIDGE, 'replace', live.dir, ...args], { timeoutMs: COMMAND_MS })
      t.equal(exit?.code, code)
      t.match(stderr, expected)
      t.equal(stderr.trim().split('\n').length, 1)
      t.equal(readFileSync(join(live.dir, 'a'), 'utf8'), 'content', 'the mount goes on')
    }
    await refused(32, /^virtiofs-bridge: \S+nobody\.sock: no such socket$/m, '--socket', join(live.base, 'nobody.sock'))
    await refused(1, /^virtiofs-bridge: the backend is not one that was started here/, '--virtiofsd', RUST)
    // the state of a file without a name cannot be handed over by paths
    const fd = openSync(join(live.dir, 'lost'), 'w+')
    writeSync(fd, 'still here')
    unlinkSync(join(live.dir, 'lost'))
    const socket = join(live.base, 'second.sock')
    const second = startBackend('virtiofsd-rust', live.source, socket)
    await refused(32, /DEVICE_STATE|closed the connection|state/, '--socket', socket)
    const buffer = Buffer.alloc(10)
    t.equal(buffer.toString('utf8', 0, readSync(fd, buffer, 0, 10, 0)), 'still here', 'also for what it could not hand over')
    closeSync(fd)
    t.ok(await second.endsWithin(5000), 'the one that was not taken has ended')
  })
})

t.test('a new backend that cannot take the state, and an old one that dies meanwhile', { skip: missing('virtiofsd-rust') }, async t => {
  await withMount(t, { peer: 'virtiofsd-rust', rough: true, files: source => writeFileSync(join(source, 'a'), 'content') }, async live => {
    const offered = { queueNum: 2n, takeStateFd: (fd: number): undefined => { swallow(fd) } }
    const refusing = join(live.base, 'refusing.sock')
    const refuser = new VhostUserListener(refusing, { ...offered, faults: { [R.CHECK_DEVICE_STATE]: answer => ({ ...answer!, payload: Buffer.alloc(8, 1) }) } })
    const refused = await runToEnd([...BRIDGE, 'replace', live.dir, '--socket', refusing], { timeoutMs: COMMAND_MS })
    t.not(refused.exit?.code, 0)
    t.match(refused.stderr, /CHECK_DEVICE_STATE/)
    t.equal(readFileSync(join(live.dir, 'a'), 'utf8'), 'content', 'the old one goes on')
    await refuser.close()

    const slow = join(live.base, 'slow.sock')
    // it never says what became of the state
    const slowly = new VhostUserListener(slow, { ...offered, faults: { [R.CHECK_DEVICE_STATE]: () => 'silence' } })
    const replacing = runToEnd([...BRIDGE, 'replace', live.dir, '--socket', slow], { timeoutMs: COMMAND_MS })
    for (const endMs = performance.now() + 10_000; !slowly.backends[0]?.names.includes('CHECK_DEVICE_STATE') && performance.now() < endMs;) await sleep(10)
    t.ok(slowly.backends[0]?.names.includes('CHECK_DEVICE_STATE'))
    await live.backend!.kill()
    await slowly.backends[0]!.stop()
    const { exit, stderr } = await replacing
    t.not(exit?.code, 0)
    t.equal(stderr.trim().split('\n').length, 1, stderr.trim())
    await t.rejects(statfs(live.dir), { code: 'ENOTCONN' }, 'both are gone, and the mount says so')
    await eventually(() => live.bridge.stderr !== '')
    t.match(live.bridge.stderr, /operations fail until it is unmounted/)
    t.equal(await live.unmount(), 0)
    await slowly.close()
  })
})

/** Takes a stream to its end, and closes it. */
function swallow(fd: number): void {
  new Socket({ fd, readable: true, writable: false }).resume().on('error', () => {})
}

t.test('the emulated device has no backend', { skip: missing('emulated') }, async t => {
  await withMount(t, { peer: 'emulated' }, async live => {
    const { exit, stderr } = await runToEnd([...BRIDGE, 'replace', live.dir])
    t.not(exit?.code, 0)
    t.match(stderr, /only a backend behind a vhost-user socket can be replaced/)
    t.ok(existsSync(live.dir) && readdirSync(live.dir).length === 0)
    rmSync(join(live.dir, 'nothing'), { force: true })
  })
})
