/** The tables on standard output, in Markdown. */
import type { Costs } from './costs.js'
import { judge, type Figure } from './marks.js'
import { REFERENCE, type Peer } from './peers.js'
import type { Results, RowResult } from './results.js'

function short(value: number): string {
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2)
}

function table(head: string[], lines: string[][]): string {
  const row = (cells: string[]) => `| ${cells.join(' | ')} |`
  return [row(head), row(head.map((_, i) => i === 0 ? '---' : '---:')), ...lines.map(row)].join('\n')
}

const COSTS: [title: string, of: (costs: Costs) => string][] = [
  ['context switches in 10 s without a request', costs => String(costs.idleSwitches)],
  ['CPU with 100 requests a second, % of one', costs => costs.tricklePercent.toFixed(1)],
  ['resident after all rows, MiB', costs => costs.residentMib.toFixed(0)],
  ['garbage collections in a million requests', costs => String(costs.collections)],
  ['start of the command to a usable mount, ms', costs => costs.startMs.toFixed(0)],
]

const judged = (figure: Figure | undefined): string => figure === undefined ? '' : figure.met ? figure.text : `**${figure.text}**`

const better = (row: RowResult) => row.kind === 'time' ? '↓' : '↑'

/** @param columns the peers that ran */
export function markdown(results: Results, columns: Peer[]): string {
  const others = columns.filter(peer => peer.id !== REFERENCE)
  const ratios = table(
    ['', `${REFERENCE}, absolute`, ...others.map(peer => peer.title)],
    results.rows.map(row => [
      `${better(row)} ${row.title}`,
      row.peers[REFERENCE] ? `${short(row.peers[REFERENCE].median)} ${row.unit}` : '–',
      ...others.map(peer => row.peers[peer.id]?.ratio?.toFixed(2) ?? '–'),
    ]))
  const cpu = table(
    ['', ...columns.map(peer => peer.title)],
    results.rows.map(row => [
      `${row.title}, per ${row.op}`,
      ...columns.map(peer => row.peers[peer.id] ? short(row.peers[peer.id]!.cpuSecondsPerMillionOps) : '–'),
    ]))
  const ours = columns.filter(peer => results.costs?.[peer.id])
  const costs = ours.length === 0 ? '' : `
${table(['', ...ours.map(peer => peer.title)], COSTS.map(([title, of]) => [title, ...ours.map(peer => of(results.costs![peer.id]!))]))}
`
  return `${results.machine}; ${results.date}; medians of ${results.reps} interleaved repetitions.

Ratios to passthrough_ll (${REFERENCE}) in the same run. ↓ a time: smaller is better. ↑ a rate: larger is better.

${ratios}

CPU seconds per million operations: the caller, the server and its backend together.

${cpu}
${costs}
Marks, each a ratio of two columns in this run, or a cost. What is missed is bold.

${table(['', 'to be', 'is', 'with no_low_latency'], judge(results).map(({ title, limit, is, noLowLatency }) => [title, limit, judged(is), judged(noLowLatency)]))}
`
}
