/** Options of the benchmark. */
import { parseArgs } from 'node:util'
import { peers, type Peer } from './peers.js'
import { rows, type Row } from './rows.js'

export interface Options {
  rows: Row[]
  peers: Peer[]
  reps: number
  seconds: number
  costs: boolean
  /** Directory for the plot of how cost grows. */
  growthDirectory: string | undefined
  jsonFile: string | undefined
  checkFile: string | undefined
}

const USAGE = `usage: npm run bench -- [OPTION...]
  --rows A,B      only these rows: ${rows.map(row => row.id).join(' ')}
  --peers A,B     only these columns (pll always runs): ${peers.map(peer => peer.id).join(' ')}
  --poll-off      also the columns of the bridge with poll=off
  --reps N        repetitions, interleaved over the peers; the median counts (5)
  --seconds S     length of a cell, for the rows that have no fixed amount of work (1)
  --quick         3 repetitions of 0.3 s, and without the rows over big trees
  --costs         also with --quick or --rows: idle, with few requests, memory, garbage, start
  --growth        instead of the rows: how cost grows with requests in flight, inodes, sizes;
                  tables, and bench/results/growth.json and growth.svg (by gnuplot)
  --json FILE     writes all figures there too
  --check [FILE]  compares with an earlier --json file, bench/results/table.json by default:
                  exit status 1 when a ratio of the bridge is 25 % worse
`

class UsageError extends Error {}

function choose<T extends { id: string }>(what: string, all: T[], list: string | undefined, byDefault: T[]): T[] {
  if (list === undefined) return byDefault
  const ids = list.split(',')
  const unknown = ids.find(id => !all.some(item => item.id === id))
  if (unknown !== undefined) throw new UsageError(`no ${what} ${unknown}; there are ${all.map(item => item.id).join(', ')}`)
  return all.filter(item => ids.includes(item.id))
}

function positive(name: string, text: string): number {
  const value = Number(text)
  if (!(value > 0)) throw new UsageError(`--${name} ${text}: not a positive number`)
  return value
}

/** Parses the command line. Prints and exits on --help and on wrong usage. */
export function parseOptions(args: string[]): Options {
  try {
    // --check alone means the committed table
    const spelled = args.flatMap((arg, i) => arg === '--check' && (args[i + 1] ?? '--').startsWith('--')
      ? ['--check', 'bench/results/table.json'] : [arg])
    const { values } = parseArgs({
      args: spelled,
      options: {
        rows: { type: 'string' }, peers: { type: 'string' }, 'poll-off': { type: 'boolean' },
        reps: { type: 'string' }, seconds: { type: 'string' }, quick: { type: 'boolean' },
        json: { type: 'string' }, check: { type: 'string' }, costs: { type: 'boolean' }, growth: { type: 'boolean' }, help: { type: 'boolean', short: 'h' },
      },
    })
    if (values.help) {
      process.stdout.write(USAGE)
      process.exit(0)
    }
    const { quick } = values
    return {
      rows: values.growth ? [] : choose('row', rows, values.rows, rows.filter(row => !(quick && row.bigTree))),
      peers: choose('peer', peers, values.peers ? `${values.peers},pll` : values.growth ? 'pll,virtiofsd,emulated' : undefined, peers.filter(peer => !peer.optional || values['poll-off'] && peer.id.endsWith('-sleeping'))),
      reps: values.reps ? Math.ceil(positive('reps', values.reps)) : quick ? 3 : 5,
      seconds: values.seconds ? positive('seconds', values.seconds) : quick ? 0.3 : 1,
      growthDirectory: values.growth ? 'bench/results' : undefined,
      costs: values.costs ?? !(quick || values.rows || values.growth),
      jsonFile: values.json,
      checkFile: values.check,
    }
  } catch (error) {
    process.stderr.write(`bench: ${(error as Error).message}\n\n${USAGE}`)
    process.exit(1)
  }
}
