/** on_disconnect=wait over a relay: links that break, in every way, under load; far ends that are late, other ones, or never come. */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, statSync, symlinkSync, truncateSync, unlinkSync, writeFileSync } from 'node:fs'
import { open, readFile, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { errno } from '../../lib/errors.js'
import { BRIDGE, missing, noProgram, relaySource, startBackend } from '../support/peers.js'
import { withMount, type LiveMount } from '../support/mounts.js'
import { processTree, Program, runToEnd, signal, stop, within } from '../support/program.js'
import { ownBackend, ownTransport, prepareLoad, underKills } from '../support/reconnect-load.js'
import { eventually } from '../support/scene.js'
import { noSshd, Sshd } from '../support/sshd.js'

const skip = missing('relay')
const WAIT = ['on_disconnect=wait']
const LINK = fileURLToPath(new URL('../support/breakable-link.js', import.meta.url))
const MIB = 1 << 20

async function code(call: Promise<unknown>): Promise<string> {
  return await within(20_000, call.then(() => 'ok', (error: NodeJS.ErrnoException) => error.errno === -errno.ESTALE ? 'ESTALE' : error.code ?? String(error))) ?? 'nothing within 20 s'
}

/** Where there is no init, a process that nobody waits for stays as a zombie. */
function lives(pid: number): boolean {
  return existsSync(`/proc/${pid}`) && !/^State:\tZ/m.test(readFileSync(`/proc/${pid}/status`, 'latin1'))
}

interface Link {
  /** Directory of the test's own. */
  place: string
  shared: string
  /** For the next links, see breakable-link.ts. */
  order(...lines: string[]): void
  /** Number of the process that serves the present link, or served the last one. */
  far(): number
  source(far?: string): string
}

/** A place with a shared directory, and a source that reaches it over a breakable link. */
function breakable(t: Test): Link {
  const place = mkdtempSync(join(tmpdir(), 'vfb-link-'))
  t.teardown(() => rmSync(place, { recursive: true }))
  const shared = join(place, 'src')
  const orders = join(place, 'orders')
  mkdirSync(shared)
  writeFileSync(orders, '')
  const far = (): number => Number(readFileSync(`${orders}.pid`, 'latin1'))
  t.teardown(() => { for (const pid of processTree(far())) signal(pid, 'SIGKILL') })
  return {
    place, shared, far,
    order: (...lines) => writeFileSync(orders, `${lines.join('\n')}\n`),
    source: (served = shared) => relaySource(served).replace('exec:env -u NODE_OPTIONS', `exec:env -u NODE_OPTIONS '${process.execPath}' '${LINK}' '${orders}'`),
  }
}

/** Ends the transport: what is below the bridge, but not the far end. */
function cut(live: LiveMount): void {
  for (const pid of ownBackend(live).slice(0, 1)) signal(pid, 'SIGKILL')
}

const lost = (live: LiveMount): number => live.trace().filter(({ event }) => event === 'lost').length
const found = (live: LiveMount): number => live.trace().filter(({ event }) => event === 'found').length

async function underLoad(t: Test, live: LiveMount, kills: number): Promise<void> {
  const { failures, ...figures } = await underKills(live, kills, 1, ownTransport(live))
  t.comment(JSON.stringify(figures))
  t.strictSame(failures, [])
  for (const [kind, done] of Object.entries(figures.done)) t.ok(done > 2, `${kind}: ${done} rounds`)
  t.ok(figures.clones > 0, 'git clone')
  t.equal(await live.unmount(), 0, 'unmounted, and the bridge ended well')
  t.match(live.bridge.stderr, /operations wait until it is back\n.*the backend is back\n/)
}

/** An sshd of this test's own, and a directory for it to show. Both go with the test. */
async function withSshd(t: Test): Promise<{ sshd: Sshd, shared: string }> {
  const place = mkdtempSync(join(tmpdir(), 'vfb-ssh-'))
  t.teardown(() => rmSync(place, { recursive: true }))
  const sshd = await Sshd.start(join(place, 'ssh'))
  t.teardown(() => sshd.end())
  const shared = join(place, 'src')
  mkdirSync(shared)
  return { sshd, shared }
}

t.test('the far end is killed five times under readers, writers and git', { skip: skip || noProgram('git') }, async t => {
  await withMount(t, { peer: 'relay', options: WAIT, files: prepareLoad, rough: true, timeoutMs: 180_000 }, async live => {
    await underLoad(t, live, 5)
  })
})

t.test('the same over ssh, where the far end lives on', { skip: skip || noSshd() || noProgram('git') }, async t => {
  const { sshd, shared } = await withSshd(t)
  const options = [...WAIT, `rsh=${sshd.ssh.join(' ')}`, `relay_command=env -u NODE_OPTIONS ${BRIDGE.join(' ')}`]
  await withMount(t, { peer: 'emulated', source: shared, remote: sshd.url(shared), options, files: prepareLoad, rough: true, timeoutMs: 180_000 }, async live => {
    await underLoad(t, live, 4)
  })
})

t.test('cut in the middle of a message', { skip }, async t => {
  const link = breakable(t)
  const data = Buffer.alloc(3 * MIB, 'abcdefg')
  for (const [direction, bytes] of [['up', 600_000], ['down', 600_000]] as const) {
    link.order(`${direction} ${bytes}`)
    await withMount(t, { peer: 'emulated', source: link.shared, remote: link.source(), options: WAIT, rough: true }, async live => {
      const file = join(live.dir, direction)
      if (direction === 'down') writeFileSync(join(link.shared, direction), data)
      else t.equal(await code(writeFile(file, data)), 'ok', 'it is written')
      t.ok((await within(20_000, readFile(file)))?.equals(data), 'and read')
      t.ok(readFileSync(join(link.shared, direction)).equals(data))
      t.equal(await live.unmount(), 0)
      t.match(live.bridge.stderr, /operations wait until it is back/, direction)
      t.equal(found(live), lost(live))
    })
  }
})

t.test('a far end that still has requests: nothing goes on before it has ended', { skip }, async t => {
  const link = breakable(t)
  await withMount(t, { peer: 'emulated', source: link.shared, remote: link.source(), options: [...WAIT, 'mount_timeout=4', 'cache=never'], rough: true }, async live => {
    const file = join(live.dir, 'file')
    await writeFile(file, 'old')
    const late = link.far()
    const handle = await open(file, 'r+')
    // what is sent now stays in its pipe
    await stop(processTree(late))
    const first = new Program(['sh', '-c', `printf late >'${file}'`])
    t.equal(await within(500, first.exited), undefined)
    cut(live)
    t.ok(await eventually(() => live.bridge.stderr.includes('operations wait')))
    signal(first.pid, 'SIGKILL')
    t.match(await first.endsWithin(5000), { signal: 'SIGKILL' }, 'who waited has gone')
    const second = handle.write('new', 0)
    t.equal(await within(6000, second), undefined, 'no other far end serves it')
    t.equal(found(live), 0)
    for (const pid of processTree(late)) signal(pid, 'SIGCONT')
    t.ok(await within(20_000, second), 'it goes on once that one has ended')
    t.notOk(lives(late))
    await handle.sync()
    t.match(readFileSync(join(link.shared, 'file'), 'utf8'), /^new/, 'and nothing that was late came later')
    await handle.close()
    t.equal(await live.unmount(), 0)
  })
})

t.test('a link that dies silently: the far end behind it is ended by the next one', { skip: skip || noSshd() }, async t => {
  const { sshd, shared } = await withSshd(t)
  const options = [...WAIT, 'timeout=1', `rsh=${sshd.ssh.join(' ')}`, `relay_command=env -u NODE_OPTIONS ${BRIDGE.join(' ')}`]
  await withMount(t, { peer: 'emulated', source: shared, remote: sshd.url(shared), options, rough: true }, async live => {
    await writeFile(join(live.dir, 'file'), 'before')
    const relay = sshd.processes().find(pid => readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes(`\0relay\0${shared}`))!
    const between = sshd.processes().slice(1).filter(pid => /^sshd/.test(readFileSync(`/proc/${pid}/cmdline`, 'latin1'))).filter(pid => processTree(pid).includes(relay))
    t.ok(relay > 0 && between.length > 0)
    // it neither passes anything on nor notices anything
    await stop(between)
    try {
      t.equal(await code(writeFile(join(live.dir, 'file'), 'after')), 'ok')
      t.equal(readFileSync(join(shared, 'file'), 'utf8'), 'after')
      t.notOk(lives(relay), 'the first far end has ended')
    } finally {
      for (const pid of between) signal(pid, 'SIGKILL')
    }
    t.equal(await live.unmount(), 0)
    t.match(live.bridge.stderr, /the device did not answer [A-Z]+ within 1 s; operations wait/)
  })
})

t.test('a far end that comes back with another tree: ESTALE, never the data of another file', { skip }, async t => {
  const link = breakable(t)
  const name = join(link.place, 'link')
  const other = join(link.place, 'other')
  for (const [tree, text] of [[link.shared, 'old'], [other, 'new']] as const) {
    mkdirSync(join(tree, 'd'), { recursive: true })
    writeFileSync(join(tree, 'd', 'file'), text.repeat(100_000))
  }
  symlinkSync(link.shared, name)
  await withMount(t, { peer: 'emulated', source: link.shared, remote: link.source(name), options: WAIT, rough: true }, async live => {
    const held = await open(join(live.dir, 'd', 'file'), 0o40000)
    const chunk = Buffer.alloc(4096)
    await held.read(chunk, 0, 4096, 0)
    symlinkSync(other, `${name}2`)
    renameSync(`${name}2`, name)
    cut(live)
    t.equal(await code(held.read(chunk, 0, 4096, 8192)), 'ESTALE')
    t.equal(await code(held.stat()), 'ESTALE')
    t.match(await readFile(join(live.dir, 'd', 'file'), 'utf8'), /^(new)*$/, 'by its path it is the file that is there now')
    t.equal(await code(held.read(chunk, 0, 4096, 8192)), 'ESTALE', 'for good')
    await held.close()
    t.equal(await live.unmount(), 0)
  })
})

t.test('a file that was replaced while it was away, with the same inode number', { skip }, async t => {
  const link = breakable(t)
  await withMount(t, { peer: 'emulated', source: link.shared, remote: link.source(), options: WAIT, rough: true }, async live => {
    const there = join(link.shared, 'file')
    const inode = (): number => statSync(there).ino
    writeFileSync(there, 'old')
    const held = await open(join(live.dir, 'file'), 0o40000)
    const before = inode()
    link.order('refuse')
    cut(live)
    t.ok(await eventually(() => live.bridge.stderr.includes('operations wait')))
    unlinkSync(there)
    // a file system that gives the number away again
    for (let i = 0; i < 2000 && !same(); i++) truncateSync(there, 0)
    function same(): boolean {
      writeFileSync(there, 'new')
      if (inode() === before) return true
      renameSync(there, join(link.place, `kept${inode()}`))
      writeFileSync(there, '')
      return false
    }
    writeFileSync(there, 'new')
    t.comment(inode() === before ? 'it has the same number' : 'this file system did not use the number again')
    link.order()
    t.equal(await code(held.read(Buffer.alloc(3), 0, 3, 0)), 'ESTALE')
    t.equal(await readFile(join(live.dir, 'file'), 'utf8'), 'new')
    await held.close()
    t.equal(await live.unmount(), 0)
  })
})

t.test('it never comes back: callers can be killed, the mount can be unmounted', { skip }, async t => {
  const link = breakable(t)
  await withMount(t, { peer: 'emulated', source: link.shared, remote: link.source(), options: WAIT, rough: true }, async live => {
    writeFileSync(join(link.shared, 'file'), 'x')
    const held = await open(join(live.dir, 'file'), 'r')
    link.order('refuse')
    cut(live)
    t.ok(await eventually(() => live.bridge.stderr.includes('operations wait')))
    const callers = [['cat', join(live.dir, 'file')], ['touch', join(live.dir, 'new')], ['ls', live.dir]].map(argv => new Program(argv))
    t.equal(await within(2000, Promise.race(callers.map(one => one.exited))), undefined, 'they wait')
    t.match(JSON.parse((await runToEnd([...BRIDGE, 'status', live.dir, '--json'])).stdout), { health: 'waiting' })
    for (const one of callers) {
      signal(one.pid, 'SIGKILL')
      t.match(await one.endsWithin(5000), { signal: 'SIGKILL' }, `${one.argv.join(' ')} is killed`)
    }
    await held.close()
    t.equal(await live.unmount(), 0)
    t.notMatch(live.bridge.stderr, /refused.*refused/s, 'what each try says is not told')
  })
})

t.test('unmounted while a link hangs that is being made', { skip }, async t => {
  const link = breakable(t)
  const hangs = join(link.place, 'hangs')
  const source = link.source().replace('exec:', `exec:sh -c '[ ! -e "$0" ] || exec sleep 60; exec "$@"' ${hangs} `)
  await withMount(t, { peer: 'emulated', source: link.shared, remote: source, options: [...WAIT, 'mount_timeout=30'], rough: true }, async live => {
    writeFileSync(hangs, '')
    for (const pid of ownBackend(live)) signal(pid, 'SIGKILL')
    t.ok(await eventually(() => live.bridge.stderr.includes('operations wait') && ownBackend(live).length > 0))
    const startMs = performance.now()
    t.equal(await live.unmount(), 0)
    t.ok(performance.now() - startMs < 10_000, 'not after its deadline')
  })
})

t.test('the backend of the far end dies, and somebody starts it again', { skip: missing('virtiofsd-rust') }, async t => {
  const link = breakable(t)
  const socket = join(link.place, 'sock')
  let backend = startBackend('virtiofsd-rust', link.shared, socket)
  t.teardown(() => backend.kill())
  await withMount(t, { peer: 'emulated', source: link.shared, remote: link.source(`unix:${socket}`), options: WAIT, rough: true }, async live => {
    const held = await open(join(live.dir, 'file'), 'w')
    // in flight when it dies
    await stop(processTree(backend.pid))
    const waiting = held.write('hello', 0)
    t.equal(await within(500, waiting), undefined)
    for (const pid of processTree(backend.pid)) signal(pid, 'SIGKILL')
    rmSync(socket)
    t.equal(await within(1000, waiting), undefined, 'it waits')
    backend = startBackend('virtiofsd-rust', link.shared, socket)
    t.ok(await within(20_000, waiting), 'and goes on')
    await held.sync()
    t.equal(readFileSync(join(link.shared, 'file'), 'utf8'), 'hello')
    await held.close()
    t.equal(await live.unmount(), 0)
  })
})

t.test('where the far end before cannot be seen, the session does not go on', { skip: skip || noProgram('unshare') }, async t => {
  const link = breakable(t)
  const source = link.source().replace('exec:', 'exec:unshare --pid --fork --mount-proc ')
  await withMount(t, { peer: 'emulated', source: link.shared, remote: source, options: WAIT, rough: true }, async live => {
    writeFileSync(join(link.shared, 'file'), 'x')
    for (const pid of ownBackend(live)) signal(pid, 'SIGKILL')
    t.match(await code(stat(join(live.dir, 'file'))), /^(EIO|ENOTCONN)$/)
    t.ok(await eventually(() => live.bridge.stderr.includes('operations fail')))
    t.match(live.bridge.stderr, /the far end cannot go on with the session: it is in other namespaces .*; operations fail until it is unmounted/)
    t.equal(await live.unmount(), 0)
  })
})
