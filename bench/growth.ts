/** How cost grows: with requests in flight, with inodes that the server knows, with the size of a request. */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { measureCell } from './cell.js'
import { GROWTH_FILES, growthDirectory } from './fixture-names.js'
import type { Fixture } from './fixture.js'
import type { RunningPeer } from './peers.js'
import { run } from './processes.js'
import { median } from './results.js'
import type { Measure } from './rows.js'

export interface Series {
  id: string
  title: string
  x: string
  y: string
  xs: number[]
  /** By peer: a figure for each x, null where there is none. */
  peers: Record<string, (number | null)[]>
}

interface Question {
  /** Row of load-costs.ts. */
  row: string
  title: string
  x: string
  y: string
  xs: number[]
  value: (measure: Measure, x: number) => number
  env?: string[]
  /** Whether peers with a descriptor per inode can answer it. */
  inodes?: boolean
}

const powers = (base: number, from: number, to: number): number[] => Array.from({ length: to - from + 1 }, (_, i) => base ** (from + i))
const INODES = powers(10, 3, 6)

const questions: Question[] = [
  { row: 'inFlight', title: 'statfs, so many at once', x: 'requests in flight', y: 'thousands a second', xs: powers(2, 0, 10),
    value: m => m.ops / m.seconds / 1000, env: ['UV_THREADPOOL_SIZE=1024'] },
  { row: 'knownInodes', title: 'stat of an uncached path', x: 'inodes known', y: 'microseconds', xs: INODES,
    value: m => m.seconds / m.ops * 1e6, inodes: true },
  { row: 'readSize', title: 'pread, O_DIRECT', x: 'bytes a request', y: 'MiB a second', xs: powers(2, 12, 20),
    value: (m, x) => m.ops * x / m.seconds / 2 ** 20 },
]

function makeInodes({ source }: Fixture): void {
  for (let i = 0; i < INODES.at(-1)! / GROWTH_FILES; i++) {
    const directory = join(source, growthDirectory(i))
    mkdirSync(directory, { recursive: true })
    for (let n = 0; n < GROWTH_FILES; n++) writeFileSync(join(directory, `f${n}`), '')
  }
}

/**
 * Measures all series, interleaved over the peers.
 * @param say takes a line for each point
 */
export async function measureGrowth(peers: RunningPeer[], fixture: Fixture, options: { reps: number, seconds: number }, say: (line: string) => void): Promise<Series[]> {
  makeInodes(fixture)
  const all: Series[] = []
  for (const { row, title, x, y, xs, value, env, inodes } of questions) {
    const series: Series = { id: row, title, x, y, xs, peers: Object.fromEntries(peers.map(({ peer }) => [peer.id, []])) }
    for (const parameter of xs) {
      // pll and virtiofsd hold a descriptor per inode
      const able = peers.filter(({ peer }) => !inodes || parameter <= fixture.treeFiles || peer.id.startsWith('emulated'))
      const values = new Map<string, number[]>(able.map(({ peer }) => [peer.id, []]))
      for (let rep = 0; rep < options.reps; rep++) {
        for (const running of able) {
          values.get(running.peer.id)!.push(value(await measureCell(running, fixture, { row, seconds: options.seconds, parameter }, env), parameter))
        }
      }
      for (const { peer } of peers) series.peers[peer.id]!.push(values.has(peer.id) ? Number(median(values.get(peer.id)!).toPrecision(4)) : null)
      say(`${row} ${parameter}: ${[...values].map(([id, some]) => `${id} ${median(some).toPrecision(3)}`).join(', ')}`)
    }
    all.push(series)
  }
  return all
}

/** Draws the series below each other, by gnuplot. @throws Error when there is none */
export async function plot(all: Series[], titles: Record<string, string>, machine: string, file: string): Promise<void> {
  const script = [
    `set terminal svg size 760,${all.length * 330} font "sans,12" background rgb "white"`, `set output "${file}"`, `set multiplot layout ${all.length},1 title "${machine}"`,
    'set logscale x', 'set key outside right', 'set grid', 'set yrange [0:*]',
  ]
  for (const series of all) {
    const ids = Object.keys(series.peers)
    const powersOf = series.xs[1]! / series.xs[0]!
    script.push(`set title "${series.title}"`, `set xlabel "${series.x}"`, `set ylabel "${series.y}"`, `set logscale x ${powersOf}`,
      `plot ${ids.map(id => `"-" using 1:2 with linespoints linewidth 2 title "${titles[id]}"`).join(', ')}`)
    for (const id of ids) script.push(...series.xs.flatMap((x, i) => series.peers[id]![i] === null ? [] : [`${x} ${series.peers[id]![i]}`]), 'e')
  }
  const scriptFile = `${file}.gnuplot`
  writeFileSync(scriptFile, `${script.join('\n')}\n`)
  try {
    await run(['gnuplot', scriptFile], 30_000)
  } finally {
    rmSync(scriptFile)
  }
}

/** The numbers, a table for each series. */
export function growthTables(all: Series[], titles: Record<string, string>): string {
  return all.map(series => {
    const ids = Object.keys(series.peers)
    const lines = series.xs.map((x, i) => `| ${x.toLocaleString('en')} | ${ids.map(id => series.peers[id]![i]?.toPrecision(3) ?? '–').join(' | ')} |`)
    return [`${series.title}: ${series.y}`, '', `| ${series.x} | ${ids.map(id => titles[id]).join(' | ')} |`, `| ---: |${' ---: |'.repeat(ids.length)}`, ...lines, ''].join('\n')
  }).join('\n')
}
