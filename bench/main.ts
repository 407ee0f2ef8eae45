/**
 * The side-by-side benchmark. All peers are mounted at once over one tree on a tmpfs; every
 * repetition of a row runs all of them one after the other, so that what the machine does
 * meanwhile hits all alike. See bench/README.md.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { measureCell, stopLoad } from './cell.js'
import { measureCosts } from './costs.js'
import { growthTables, measureGrowth, plot } from './growth.js'
import { makeFixture, type Fixture } from './fixture.js'
import { parseOptions, type Options } from './options.js'
import { REFERENCE, startPeer, type RunningPeer } from './peers.js'
import { machine, regressions, rowResult, type Results, type RowResult } from './results.js'
import type { Measure, Row } from './rows.js'
import { markdown } from './table.js'

const say = (line: string) => void process.stderr.write(`bench: ${line}\n`)

/** What has to be undone at the end, last first. */
const disposers: (() => Promise<void>)[] = []
let disposing: Promise<void> | undefined

function dispose(): Promise<void> {
  return disposing ??= (async () => {
    stopLoad()
    for (let undo = disposers.pop(); undo; undo = disposers.pop()) {
      await undo().catch(error => say(`cleaning up: ${(error as Error).message}`))
    }
  })()
}

for (const [signal, code] of [['SIGINT', 130], ['SIGTERM', 143], ['SIGHUP', 129]] as const) {
  process.on(signal, () => {
    say(`${signal}: unmounting`)
    void dispose().then(() => process.exit(code))
  })
}

async function startPeers(options: Options, fixture: Fixture): Promise<RunningPeer[]> {
  const running: RunningPeer[] = []
  for (const peer of options.peers) {
    try {
      running.push(await startPeer(peer, fixture, disposers))
    } catch (error) {
      say(`${peer.title}: absent: ${(error as Error).message}`)
    }
  }
  return running
}

async function measureRow(row: Row, peers: RunningPeer[], options: Options, fixture: Fixture): Promise<RowResult> {
  const asked = peers.filter(({ peer }) => peer.rows?.includes(row.id) ?? true)
  const measures = new Map<string, Measure[]>(asked.map(({ peer }) => [peer.id, []]))
  for (let rep = 0; rep < options.reps; rep++) {
    for (const running of asked) {
      const { id, title } = running.peer
      if (!measures.has(id)) continue
      try {
        measures.get(id)!.push(await measureCell(running, fixture, { row: row.id, seconds: options.seconds }))
      } catch (error) {
        if (disposing) throw error
        say(`${row.id}, ${title}: no figure: ${(error as Error).message}`)
        measures.delete(id)
      }
    }
  }
  const result = rowResult(row, measures, fixture.treeFiles)
  say(`${row.id}: ${Object.entries(result.peers).map(([id, cell]) => `${id} ${cell.median.toPrecision(3)}`).join(', ')} ${row.unit}`)
  return result
}

async function growth(peers: RunningPeer[], fixture: Fixture, options: Options, directory: string): Promise<void> {
  const all = await measureGrowth(peers, fixture, options, say)
  const titles = Object.fromEntries(peers.map(({ peer }) => [peer.id, peer.title]))
  mkdirSync(directory, { recursive: true })
  writeFileSync(join(directory, 'growth.json'), `${JSON.stringify({ date: new Date().toISOString().slice(0, 10), machine: machine(), reps: options.reps, series: all }, null, 1)}\n`)
  process.stdout.write(growthTables(all, titles))
  await plot(all, titles, machine(), join(directory, 'growth.svg'))
}

async function costs(peers: RunningPeer[], fixture: Fixture): Promise<NonNullable<Results['costs']>> {
  const all: NonNullable<Results['costs']> = {}
  for (const running of peers.filter(({ peer }) => peer.ours && !peer.rows && !peer.id.endsWith('-no-low-latency'))) {
    try {
      all[running.peer.id] = await measureCosts(running, fixture)
      say(`costs of ${running.peer.id}: ${JSON.stringify(all[running.peer.id])}`)
    } catch (error) {
      if (disposing) throw error
      say(`costs of ${running.peer.title}: no figures: ${(error as Error).message}`)
    }
  }
  return all
}

async function main(options: Options): Promise<number> {
  const before = options.checkFile ? JSON.parse(readFileSync(options.checkFile, 'utf8')) as Results : undefined
  say('making the tree')
  const fixture = await makeFixture(options.peers.map(peer => peer.id), options.rows.some(row => row.bigTree), disposers)
  const peers = await startPeers(options, fixture)
  const results: Results = {
    date: new Date().toISOString().slice(0, 10), machine: machine(), reps: options.reps,
    secondsPerCell: options.seconds, treeFiles: fixture.treeFiles, reference: REFERENCE, rows: [],
  }
  if (options.growthDirectory !== undefined) {
    await growth(peers, fixture, options, options.growthDirectory)
    return 0
  }
  for (const row of options.rows) results.rows.push(await measureRow(row, peers, options, fixture))
  if (options.costs) results.costs = await costs(peers, fixture)
  process.stdout.write(markdown(results, peers.map(({ peer }) => peer)))
  if (options.jsonFile) {
    mkdirSync(dirname(options.jsonFile), { recursive: true })
    writeFileSync(options.jsonFile, `${JSON.stringify(results, null, 1)}\n`)
  }
  const worse = before ? regressions(results, before, options.peers) : []
  for (const line of worse) say(`worse: ${line}`)
  return worse.length ? 1 : 0
}

try {
  process.exitCode = await main(parseOptions(process.argv.slice(2)))
} catch (error) {
  if (!disposing) {
    say((error as Error).message)
    process.exitCode = 1
  }
} finally {
  await dispose()
}
