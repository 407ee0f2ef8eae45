/** The marks that the bridge is to reach: ratios of two columns of one run, and costs. What is missed is printed like what is met. */
import type { Costs } from './costs.js'
import { peers } from './peers.js'
import type { Results, RowResult } from './results.js'
import { rows } from './rows.js'

/** Of every row: the mark of the bridge on virtiofsd and on the emulated device, to passthrough_ll. */
const TO_REFERENCE: Record<string, [virtiofsd: number, emulated: number]> = {
  statfs: [0.9, 0.6],
  stat: [1, 0.7],
  open: [1, 0.7],
  create: [1.2, 0.8],
  pread: [1.2, 0.8],
  pread8: [0.9, 1.2],
  statfs8: [0.9, 1.2],
  pread8p99: [1, 1],
  statfs8p99: [1, 1],
  seqread: [1.5, 2],
  seqwrite: [1.3, 2],
  mmap: [1.2, 1.5],
  git: [1, 0.7],
  untar: [1.1, 0.8],
  readdir: [1, 0.7],
}

/** A peer against another one: a factor that a time may not exceed, and a rate must reach the inverse of. */
const TO_OTHERS: [peer: string, against: string, factor: number, rows?: string[]][] = [
  ['virtiofsd', 'bindfs', 1],
  ['emulated', 'bindfs', 1],
  ['virtiofsd-sleeping', 'pll-s', 1.4],
  ['emulated-sleeping', 'pll-s', 1.4],
  ['emulated-direct', 'plain', 1 / 0.9],
  ['emulated-queues2', 'emulated', 1 / 1.5, ['pread8']],
]

const COSTS: [of: keyof Costs, title: string, most: number, unit: string][] = [
  ['idleSwitches', 'context switches in 10 s without a request', 0, ''],
  ['tricklePercent', 'CPU with 100 requests a second', 3, ' %'],
  ['residentMib', 'resident after all rows', 150, ' MiB'],
  ['collections', 'garbage collections in a million requests', 0, ''],
  ['startMs', 'start to a usable mount', 250, ' ms'],
]

/** A figure and whether it is what it is to be. */
export interface Figure {
  text: string
  met: boolean
}

export interface Verdict {
  title: string
  limit: string
  is: Figure
  /** The same peer with no_low_latency. */
  noLowLatency?: Figure | undefined
}

const title = (id: string): string => peers.find(peer => peer.id === id)!.title

function figure(row: RowResult, peer: string, against: string, limit: number): Figure | undefined {
  const [ours, theirs] = [row.peers[peer], row.peers[against]]
  if (!ours || !theirs) return undefined
  const ratio = ours.median / theirs.median
  return { text: ratio.toFixed(2), met: row.kind === 'time' ? ratio <= limit : ratio >= limit }
}

function verdict(row: RowResult, peer: string, against: string, limit: number): Verdict | undefined {
  const is = figure(row, peer, against, limit)
  return is && {
    title: `${row.title}: ${title(peer)} / ${title(against)}`, limit: `${row.kind === 'time' ? '≤' : '≥'} ${Number(limit.toFixed(2))}`,
    is, noLowLatency: figure(row, `${peer}-no-low-latency`, against, limit),
  }
}

/** All verdicts that the figures of a run allow. */
export function judge(results: Results): Verdict[] {
  const found: (Verdict | undefined)[] = []
  for (const [i, peer] of (['virtiofsd', 'emulated'] as const).entries()) {
    for (const row of results.rows) found.push(verdict(row, peer, results.reference, TO_REFERENCE[row.id]![i]!))
  }
  for (const [peer, against, factor, only = rows.map(row => row.id)] of TO_OTHERS) {
    for (const row of results.rows) {
      if (only.includes(row.id)) found.push(verdict(row, peer, against, row.kind === 'time' ? factor : 1 / factor))
    }
  }
  for (const [peer, costs] of Object.entries(results.costs ?? {})) {
    for (const [of, text, most, unit] of COSTS) {
      found.push({ title: `${text}: ${title(peer)}`, limit: `≤ ${most}${unit}`, is: { text: `${Number(costs[of].toFixed(1))}${unit}`, met: costs[of] <= most } })
    }
  }
  return found.filter(each => each !== undefined)
}
