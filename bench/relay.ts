/**
 * A mount of another host beside sshfs, over an sshd of this run on this host, without and with a
 * long line between. See bench/README.md.
 *
 *     node dist/bench/relay.js [--reps N] [--seconds N] [--delay MS] [--rate MBIT] [--rows LIST] [--peers LIST] [--json FILE]
 *
 * The peers of a row run one after the other in each repetition; where sshfs has a cache of its own
 * that counts, all are started anew for each.
 */
import { spawn } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { Sshd } from '../test/support/sshd.js'
import { makeFixture, type Fixture } from './fixture.js'
import type { Task } from './load-task.js'
import { startPeer, type Peer, type RunningPeer } from './peers.js'
import { run } from './processes.js'
import { machine, median } from './results.js'
import { rows, type Measure, type Row } from './rows.js'

const CELL_TIMEOUT_MS = 120_000
const PIPE_BYTES = 256 * 2 ** 20
const GIT_FILES = 5000
const SHORT_ROWS = 'statfs,stat,open,create,pread,statfs8,pread8,seqread,seqwrite,mmap,git'
const LONG_ROWS = 'stat,open,seqread,seqwrite,git'
const here = dirname(fileURLToPath(import.meta.url))
const load = join(here, 'load.js')
const bridge = [process.execPath, join(here, '../bin/virtiofs-bridge.js')]
const say = (line: string): void => void process.stderr.write(`bench: ${line}\n`)

const { values } = parseArgs({ options: {
  reps: { type: 'string', default: '3' }, seconds: { type: 'string', default: '1' }, delay: { type: 'string', default: '0' }, rate: { type: 'string', default: '0' },
  rows: { type: 'string' }, peers: { type: 'string' }, json: { type: 'string' },
} })
const delayMs = Number(values.delay)
const rate = Number(values.rate)
const long = delayMs > 0 || rate > 0
const disposers: (() => Promise<void>)[] = []

/** ssh, through the long line. */
function sshCommand(sshd: Sshd): string[] {
  const line = long ? [process.execPath, join(here, '../test/support/delayed-pipe.js'), String(delayMs), String(rate)] : []
  return [...line, ...sshd.ssh, '-oBatchMode=yes']
}

function makePeers(sshd: Sshd): Peer[] {
  const ssh = sshCommand(sshd).join(' ')
  const relay = (...options: string[]) => (source: string, mountpoint: string): string[] =>
    [...bridge, sshd.url(source), mountpoint, '-f', '-o', [`rsh=${ssh}`, `relay_command=${bridge.join(' ')}`, ...options].join(',')]
  const sshfs = (...options: string[]) => (source: string, mountpoint: string): string[] =>
    ['sshfs', '-f', '-p', String(sshd.port), `${sshd.user}@127.0.0.1:${source}`, mountpoint, '-o', [`ssh_command=${ssh}`, ...options].join(',')]
  return [
    { id: 'sshfs', title: 'sshfs', command: sshfs() },
    { id: 'relay', title: 'bridge', command: relay() },
    { id: 'relay-writeback', title: 'bridge, writeback', command: relay('writeback') },
  ]
}

/** Rows that sshfs would answer from a cache of its own, which nothing but its end empties. */
const COLD_ROWS = new Set(['git', 'stat'])

/** One row, peer by peer and again: what the machine does meanwhile hits all alike. */
async function measureRow(row: Row, peers: Peer[], fixture: Fixture, found: Map<string, number[]>): Promise<void> {
  const mine: (() => Promise<void>)[] = []
  const stop = async (): Promise<void> => { for (let undo = mine.pop(); undo; undo = mine.pop()) await undo() }
  disposers.push(stop)
  let running: RunningPeer[] = []
  for (let rep = 0; rep < Number(values.reps); rep++) {
    if (rep === 0 || COLD_ROWS.has(row.id)) {
      await stop()
      running = []
      for (const peer of peers) running.push(await startPeer(peer, fixture, mine))
    }
    for (const { peer, root, work, mount, servers } of running) {
      const task: Task = { row: row.id, root, work, mount, servers, seconds: Number(values.seconds), archive: fixture.archive, treeFiles: fixture.treeFiles }
      try {
        const measure = JSON.parse(await run([process.execPath, load, JSON.stringify(task)], CELL_TIMEOUT_MS)) as Measure
        const key = `${row.id} ${peer.id}`
        found.set(key, [...found.get(key) ?? [], row.value(measure)])
        say(`${row.id}, ${peer.title}: ${row.value(measure).toPrecision(3)} ${row.unit}`)
      } catch (error) {
        say(`${row.id}, ${peer.title}: no figure: ${(error as Error).message}`)
      }
    }
  }
  await disposers.pop()!()
}

/** What the line carries, without any file system: MiB/s. */
async function measureLine(sshd: Sshd, direction: 'read' | 'write'): Promise<number> {
  const [command, ...args] = [...sshCommand(sshd), '-p', String(sshd.port), '127.0.0.1', direction === 'read' ? `head -c ${PIPE_BYTES} /dev/zero` : 'cat >/dev/null']
  const child = spawn(command!, args, { stdio: ['pipe', 'pipe', 'inherit'] })
  const block = Buffer.alloc(1 << 20)
  const startMs = performance.now()
  const ended = new Promise<void>((resolve, reject) => child.once('error', reject).once('close', () => resolve()))
  let left = direction === 'write' ? PIPE_BYTES : 0
  const write = (): void => {
    while (left > 0) {
      left -= block.length
      if (!child.stdin.write(block)) return void child.stdin.once('drain', write)
    }
    child.stdin.end()
  }
  child.stdout.resume()
  if (direction === 'write') write()
  await ended
  // the way there of the command, and of the end
  return 256 / ((performance.now() - startMs) / 1000)
}

async function main(): Promise<void> {
  const wanted = (values.rows ?? (long ? LONG_ROWS : SHORT_ROWS)).split(',').map(id => {
    const row = rows.find(one => one.id === id)
    if (!row) throw new Error(`no row ${id}`)
    return row
  })
  const chosen = values.peers?.split(',')
  const fixture = await makeFixture(['sshfs', 'relay', 'relay-writeback'], wanted.some(row => row.bigTree), disposers, GIT_FILES)
  const sshd = await Sshd.start(join(fixture.base, 'ssh'))
  disposers.push(() => sshd.end())
  const peers = makePeers(sshd).filter(peer => chosen?.includes(peer.id) ?? true)
  const found = new Map<string, number[]>()
  const lines = { read: [] as number[], write: [] as number[] }
  for (let rep = 0; rep < Number(values.reps); rep++) for (const direction of ['read', 'write'] as const) lines[direction].push(await measureLine(sshd, direction))
  for (const row of wanted) await measureRow(row, peers, fixture, found)
  const short = (value: number): string => value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2)
  const cell = (row: Row, peer: Peer): string => {
    const all = found.get(`${row.id} ${peer.id}`)
    return all ? short(median(all)) : '–'
  }
  const table = [
    ['', ...peers.map(peer => peer.title)], ['---', ...peers.map(() => '---:')],
    ...wanted.map(row => [`${row.kind === 'time' ? '↓' : '↑'} ${row.title.replace('{files}', fixture.treeFiles.toLocaleString('en'))}, ${row.unit}`, ...peers.map(peer => cell(row, peer))]),
  ].map(cells => `| ${cells.join(' | ')} |`).join('\n')
  process.stdout.write(`${machine()}; ${new Date().toISOString().slice(0, 10)}; medians of ${values.reps}; ${long ? `${delayMs} ms each way, ${rate || 'no limit of'} Mbit/s` : 'no delay'}.\n\n`
    + `The line alone, through ssh: ${short(median(lines.read))} MiB/s read, ${short(median(lines.write))} MiB/s written.\n\n${table}\n`)
  if (values.json) writeFileSync(values.json, `${JSON.stringify({ machine: machine(), delayMs, rate, lines, cells: Object.fromEntries(found) }, null, 1)}\n`)
}

async function dispose(): Promise<void> {
  for (let undo = disposers.pop(); undo; undo = disposers.pop()) await undo().catch(error => say(`cleaning up: ${(error as Error).message}`))
}

for (const [signal, code] of [['SIGINT', 130], ['SIGTERM', 143], ['SIGHUP', 129]] as const) {
  process.on(signal, () => {
    say(`${signal}: unmounting`)
    void dispose().then(() => process.exit(code))
  })
}

try {
  await main()
} catch (error) {
  say((error as Error).message)
  process.exitCode = 1
} finally {
  await dispose()
}
