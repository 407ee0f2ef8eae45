/** Medians and ratios, the JSON file, and the comparison of two runs. */
import { arch, cpus, release } from 'node:os'
import type { Costs } from './costs.js'
import { REFERENCE, type Peer } from './peers.js'
import type { Measure, Row } from './rows.js'

/** A ratio of the bridge may be this much worse than the committed one. */
const TOLERATED = 1.25

export interface Cell {
  /** One figure per repetition, in the row's unit. */
  values: number[]
  median: number
  /** median / the reference's median: for a time smaller is better, for a rate larger. */
  ratio: number | null
  cpuSecondsPerMillionOps: number
}

export interface RowResult {
  id: string
  title: string
  unit: string
  kind: 'time' | 'rate'
  op: string
  peers: Record<string, Cell>
}

export interface Results {
  date: string
  machine: string
  reps: number
  secondsPerCell: number
  treeFiles: number
  reference: string
  rows: RowResult[]
  /** By peer. */
  costs?: Record<string, Costs>
}

export function median(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

export function machine(): string {
  return `Linux ${release()} ${arch()}, ${cpus().length} × ${cpus()[0]?.model.trim() ?? 'CPU'}, Node ${process.versions.node}`
}

/** Sums up the measures of a row, by peer. A peer with a failed cell has no entry. */
export function rowResult(row: Row, measures: Map<string, Measure[]>, treeFiles: number): RowResult {
  const cells: Record<string, Cell> = {}
  for (const [peer, all] of measures) {
    const values = all.map(row.value)
    cells[peer] = {
      values: values.map(value => Number(value.toPrecision(5))),
      median: median(values),
      ratio: null,
      cpuSecondsPerMillionOps: median(all.map(m => m.cpuSeconds / m.ops * 1e6)),
    }
  }
  const reference = cells[REFERENCE]
  if (reference) for (const cell of Object.values(cells)) cell.ratio = cell.median / reference.median
  const title = row.title.replace('{files}', treeFiles.toLocaleString('en'))
  return { id: row.id, title, unit: row.unit, kind: row.kind, op: row.op, peers: cells }
}

/**
 * Ratios of the bridge that are worse than before by more than is tolerated, or missing; a line each.
 * @param asked the columns that this run was to have
 */
export function regressions(now: Results, before: Results, asked: Peer[]): string[] {
  const ours = new Set(asked.filter(peer => peer.ours).map(peer => peer.id))
  const lines: string[] = []
  for (const row of now.rows) {
    const old = before.rows.find(other => other.id === row.id)
    for (const [peer, cell] of Object.entries(row.peers)) {
      const oldRatio = old?.peers[peer]?.ratio
      if (!ours.has(peer) || !oldRatio || !cell.ratio) continue
      const worse = row.kind === 'time' ? cell.ratio / oldRatio : oldRatio / cell.ratio
      if (worse > TOLERATED) {
        lines.push(`${row.id} ${peer}: ratio ${cell.ratio.toFixed(2)}, was ${oldRatio.toFixed(2)} (${Math.round(worse * 100 - 100)} % worse)`)
      }
    }
    for (const peer of Object.keys(old?.peers ?? {})) {
      if (ours.has(peer) && !row.peers[peer]) lines.push(`${row.id} ${peer}: no figure, was ${old!.peers[peer]!.ratio?.toFixed(2)}`)
    }
  }
  return lines
}
