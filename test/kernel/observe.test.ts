/** stats, trace and the audit log of real mounts, as their users call them. */
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { appendFile, link, mkdir, open, readdir, readFile, rename, rm, stat, unlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { ControlClient } from '../../lib/control/client.js'
import { controlSockets } from '../../lib/control/control-dir.js'
import type { Interval } from '../../lib/control/interval.js'
import type { TraceLine } from '../../lib/control/protocol.js'
import { Op } from '../../lib/fuse/opcodes.js'
import type { ObservedRequest } from '../../lib/mount/request-observer.js'
import { documentedFields } from '../support/documented.js'
import { type LiveMount, withMount } from '../support/mounts.js'
import { BRIDGE, missing, noProgram } from '../support/peers.js'
import { Program, runToEnd, within } from '../support/program.js'

const files = (source: string): void => {
  writeFileSync(join(source, 'a'), 'hello\n')
  mkdirSync(join(source, 'dir'))
  writeFileSync(join(source, 'dir', 'b'), 'b\n')
}

async function control(live: LiveMount): Promise<ControlClient> {
  for (;;) {
    const path = controlSockets().find(path => path.includes(`/${live.pid}-`))
    if (path !== undefined) return await ControlClient.connect(path)
    await sleep(10)
  }
}

/** What is told of the requests that a body makes. */
async function traced(live: LiveMount, filter: Parameters<ControlClient['say']>[0] & { command: 'trace' }, body: () => Promise<void>): Promise<ObservedRequest[]> {
  const client = await control(live)
  client.say(filter)
  // a second command is answered after the first: from then on it is watched
  client.say({ command: 'status' })
  await client.line(10_000)
  await body()
  const lines: TraceLine[] = []
  for (;;) {
    const line = await within(700, client.line())
    if (line === undefined) break
    lines.push(line as TraceLine)
  }
  client.close()
  return lines as ObservedRequest[]
}

for (const peer of ['emulated', 'virtiofsd-rust'] as const) {
  t.test(`${peer}: stats`, { skip: missing(peer) }, async t => {
    await withMount(t, { peer, files }, async live => {
      await (await control(live)).close()
      const stats = new Program([...BRIDGE, 'stats', live.dir, '--json', '--interval', '2'])
      while (stats.alive) {
        await readFile(join(live.dir, 'a'))
        await stat(join(live.dir, 'nothing')).catch(() => {})
      }
      await stats.closed
      t.match(stats, { exit: { code: 0 }, stderr: '' })
      const seen = JSON.parse(stats.stdout) as Interval
      t.strictSame(Object.keys(seen).sort(), documentedFields('stats --json').sort(), 'the documentation has every field')
      t.ok(seen.requestsPerSecond > 1 && seen.errorsPerSecond > 0.5 && seen.bytesReadPerSecond > 3, 'rates')
      const open = seen.opcodes['OPEN']!
      t.ok(open.count > 1 && open.total >= open.count && Math.abs(open.perSecond / (open.count / seen.seconds) - 1) < 0.1)
      t.ok(open.p50Us! > 0 && open.p50Us! <= open.p90Us! && open.p90Us! <= open.p99Us! && open.p99Us! <= open.maxUs!, 'percentiles')
      const all = Object.values(seen.opcodes).reduce((sum, { count }) => sum + count, 0)
      t.ok(Math.abs(seen.histogram.reduce((sum, [, count]) => sum + count, 0) - all) <= 2 + all / 50, 'the histogram has all of them, but for what came while they were being read')

      const text = await runToEnd([...BRIDGE, 'stats', live.dir, '--interval', '0.2'])
      t.match(text.stdout, /^\/.*\nrequests .*\/s.*\nread .*\npolling /)
      t.notMatch(text.stdout, '\x1b', 'no colours but on a terminal')
    })
  })
}

t.test('stats --watch on a terminal, until the mount ends', { skip: missing('emulated') || noProgram('script') }, async t => {
  await withMount(t, { peer: 'emulated', files }, async live => {
    const watch = (env: NodeJS.ProcessEnv): Program => new Program(
      ['script', '-qefc', `${BRIDGE.join(' ')} stats ${live.dir} --watch --interval 0.3`, '/dev/null'], { env: { ...process.env, TERM: 'xterm-256color', NO_COLOR: undefined, FORCE_COLOR: undefined, NODE_DISABLE_COLORS: undefined, CI: undefined, ...env } })
    const coloured = watch({})
    const plain = watch({ NO_COLOR: '1' })
    const twice = (program: Program): boolean => program.stdout.split('OPCODE').length > 2
    for (let tries = 0; tries < 200 && !(twice(coloured) && twice(plain)); tries++) {
      await readFile(join(live.dir, 'a'))
      await sleep(100)
    }
    t.ok(twice(coloured) && twice(plain), 'drawn again and again')
    t.match(coloured.stdout, '\x1b[H\x1b[1m', 'in its place, the title in bold')
    t.notMatch(plain.stdout, '\x1b[1m', 'NO_COLOR')
    t.equal(await live.unmount(), 0)
    t.match(await coloured.endsWithin(20_000), { code: 0 }, 'it ends with the mount')
    t.match(await plain.endsWithin(20_000), { code: 0 })
  })
})

t.test('stats counts latencies only while somebody looks', { skip: missing('emulated') }, async t => {
  await withMount(t, { peer: 'emulated', files }, async live => {
    const first = await control(live)
    const before = await first.ask({ command: 'stats' })
    await readFile(join(live.dir, 'a'))
    t.ok((await first.ask({ command: 'stats' })).latencies['OPEN']!.count > (before.latencies['OPEN']?.count ?? 0))
    first.close()
    const counted = async (): Promise<number> => {
      const client = await control(live)
      const { latencies } = await client.ask({ command: 'stats' })
      client.close()
      return latencies['OPEN']!.count
    }
    await sleep(200)
    const last = await counted()
    await sleep(200)
    for (let i = 0; i < 20; i++) await readFile(join(live.dir, 'a'))
    t.equal(await counted(), last)
  })
})

/** A record of one queue can come before that of another by which it would have its path. */
function unnamed(line: string): RegExp {
  return new RegExp(`^${line.replace(/\/\S+/g, path => `(?:${path}|\\?\\d+(?:/\\w+)?)`)}$`)
}

for (const options of [['queues=1'], ['queues=4']]) {
  t.test(`trace, ${options.join()}`, { skip: missing('emulated') }, async t => {
    await withMount(t, { peer: 'emulated', options, files }, async live => {
      const at = (name: string): string => join(live.dir, name)
      const all = await traced(live, { command: 'trace', filter: {} }, async () => {
        await writeFile(at('new'), 'hello')
        await mkdir(at('d'))
        await rename(at('new'), at('d/x'))
        await link(at('d/x'), at('d/y'))
        await readdir(at('dir'))
        await readFile(at('dir/b'))
        await stat(at('nothing')).catch(() => {})
        await unlink(at('d/y'))
        await rm(at('d'), { recursive: true })
      })
      const said = all.map(({ op, path, otherPath, errorName }) => [op, path, ...otherPath === undefined ? [] : [otherPath], errorName].join(' '))
      for (const line of [
        'CREATE /new OK', 'WRITE /new OK', 'RELEASE /new OK', 'MKDIR /d OK', 'RENAME /new /d/x OK', 'LINK /d/y /d/x OK', 'OPENDIR /dir OK', 'OPEN /dir/b OK',
        'READ /dir/b OK', 'LOOKUP /nothing ENOENT', 'UNLINK /d/y OK', 'RMDIR /d OK',
      ]) t.ok(said.some(each => each === line || (options[0] !== 'queues=1' && unnamed(line).test(each))), line)
      t.match(all.find(({ op }) => op === 'WRITE'), { size: 5, offset: 0, fh: Number, pid: Number, error: 0, us: Number, time: /^\d{4}-.*Z$/ })
      t.ok(all.every(({ us, bytes }) => us >= 0 && bytes >= 0))
      const undocumented = all.flatMap(Object.keys).filter(name => !documentedFields('trace --json').includes(name))
      t.strictSame(undocumented, [], 'the documentation has every field')

      const some = await traced(live, { command: 'trace', filter: { opcodes: [Op.LOOKUP], errors: [] } }, async () => {
        await stat(at('nothing2')).catch(() => {})
        await readFile(at('dir/b'))
      })
      t.strictSame(some.map(({ op, path }) => `${op} ${path}`), ['LOOKUP /nothing2'], 'by opcode and error')
      const below = await traced(live, { command: 'trace', filter: { path: 'dir' } }, async () => {
        // until the kernel asks for names again
        await sleep(1200)
        await readFile(at('a'))
        await readFile(at('dir/b'))
        await stat(at('directory')).catch(() => {})
      })
      t.ok(below.length > 0 && below.every(({ path }) => path === '/dir' || path.startsWith('/dir/')), 'by path')
      t.strictSame(await traced(live, { command: 'trace', filter: { slowerThanUs: 60e6 } }, async () => { await readFile(at('a')) }), [], 'by time')
    })
  })
}

t.test('the trace command', { skip: missing('emulated') }, async t => {
  await withMount(t, { peer: 'emulated', files }, async live => {
    await (await control(live)).close()
    const lines = new Program([...BRIDGE, 'trace', live.dir, '--op', 'lookup', '--error', 'ENOENT', '--path', '/gone', '--slower', '0us', '--count', '3'])
    const json = new Program([...BRIDGE, 'trace', live.dir, '--json', '--op', 'LOOKUP,OPEN'])
    while (lines.alive) {
      await stat(join(live.dir, 'gone')).catch(() => {})
      await stat(join(live.dir, 'other')).catch(() => {})
    }
    t.match(await lines.closed, { code: 0 }, 'ends after --count')
    t.match(lines.stdout, /^(\d\d:\d\d:\d\d\.\d{3} LOOKUP +\/gone  pid \d+  ENOENT  \d+ us\n){3}$/)
    for (let tries = 0; tries < 200 && json.stdout === ''; tries++) {
      await stat(join(live.dir, 'gone')).catch(() => {})
      await sleep(50)
    }
    t.equal(await live.unmount(), 0)
    t.match(await json.endsWithin(10_000), { code: 0 }, 'ends with the mount')
    t.match(JSON.parse(json.stdout.split('\n')[0]!), { op: 'LOOKUP', queue: 0 })
  })
  const wrong = async (...args: string[]): Promise<string> => (await runToEnd([...BRIDGE, 'trace', '/nowhere', ...args])).stderr
  t.match(await wrong('--op', 'EXPLODE'), 'virtiofs-bridge: --op EXPLODE: no such FUSE opcode\n')
  t.match(await wrong('--op', 'readir'), '--op READIR: no such FUSE opcode (did you mean READDIR?)')
  t.match(await wrong('--error', 'EWHAT'), '--error EWHAT: no such error')
  t.match(await wrong('--slower', 'soon'), '--slower soon: expected a time')
  t.match(await wrong('--count', '0'), 'a number above 0')
  t.match(await wrong(), '/nowhere is not a mount of virtiofs-bridge')
})

t.test('a filter that makes no sense does not reach the queues', { skip: missing('emulated') }, async t => {
  await withMount(t, { peer: 'emulated', files }, async live => {
    for (const filter of [{ opcodes: 5 }, { opcodes: ['x'] }, { errors: {} }, { slowerThanUs: 'x' }, { path: 7 }] as unknown[]) {
      const client = await control(live)
      client.say({ command: 'trace', filter } as never)
      t.match(await client.line(10_000), { error: String })
      client.close()
    }
    t.equal(await readFile(join(live.dir, 'a'), 'utf8'), 'hello\n')
  })
})

for (const [peer, queues] of [['emulated', 1], ['emulated', 3], ['virtiofsd-rust', 1]] as const) {
  t.test(`${peer}, ${queues} queues: audit`, { skip: missing(peer) }, async t => {
    const log = join(mkdtempSync(join(tmpdir(), 'audit-')), 'log')
    t.teardown(() => rmSync(dirname(log), { recursive: true }))
    await withMount(t, { peer, files, options: [`queues=${queues}`, `audit=${log}`] }, async live => {
      const at = (name: string): string => join(live.dir, name)
      await readFile(at('a'))
      await writeFile(at('new'), 'x'.repeat(100_000))
      await appendFile(at('new'), 'more')
      await rename(at('new'), at('dir/moved'))
      await unlink(at('dir/b'))
      closeSync(openSync(at('a'), 'r'))
      const file = await open(at('a'), 'r')
      await file.read(Buffer.alloc(3), 0, 3, 0)
      await file.close()
      t.equal(await live.unmount(), 0)
      const records = readFileSync(log, 'utf8').trimEnd().split('\n').map(line => JSON.parse(line) as Record<string, unknown>)
      const said = records.map(({ event, path, otherPath, access, written }) => [event, path, otherPath, access, written].filter(part => part !== undefined).join(' '))
      for (const line of ['open /a read', 'create /new write', 'close /new 100000', 'open /new write', 'close /new 4', 'rename /new /dir/moved', 'unlink /dir/b']) t.ok(said.includes(line), line)
      t.match(records.find(({ event }) => event === 'close'), { path: '/a', read: 6, written: 0 })
      t.match(records.find(({ event }) => event === 'create'), { pid: Number, uid: 0, gid: 0, command: String, truncate: true, time: String })
      t.ok(said.indexOf('open /a read') < said.indexOf('create /new write') && said.indexOf('create /new write') < said.indexOf('rename /new /dir/moved'), 'in order')
    })
  })
}
