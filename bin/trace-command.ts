/** `virtiofs-bridge trace`. */
import { once } from 'node:events'
import type { TraceLine } from '../lib/control/protocol.js'
import { errno, PeerGoneError, UsageError } from '../lib/errors.js'
import { opcodeRows } from '../lib/fuse/opcodes.js'
import { nearest } from '../lib/mount/nearest.js'
import type { ObservedRequest, RequestFilter } from '../lib/mount/request-observer.js'
import { ExitCode } from './exit-codes.js'
import { connectToMount } from './find-control.js'
import { printable } from './table.js'
import { alarm } from './terminal.js'

export interface TraceOptions {
  op: readonly string[]
  path: string | undefined
  /** Names of errors, or `any`. */
  error: readonly string[]
  slower: string | undefined
  json: boolean
  /** End after so many lines. */
  count: number | undefined
}

/** A mount that cannot be watched says why. */
interface Refusal { error: string }

function isRefusal(line: TraceLine | Refusal): line is Refusal {
  return 'error' in line && typeof line.error === 'string'
}

const UNITS: Record<string, number> = { us: 1, ms: 1000, s: 1_000_000 }

/** @throws UsageError for what is no opcode, no error, no time */
export function parseFilter({ op, path, error, slower }: Pick<TraceOptions, 'op' | 'path' | 'error' | 'slower'>): RequestFilter {
  const filter: RequestFilter = {}
  const words = (lists: readonly string[]): string[] => lists.flatMap(list => list.split(',')).map(word => word.trim().toUpperCase()).filter(word => word !== '')
  if (op.length > 0) filter.opcodes = words(op).map(opcodeOf)
  if (error.length > 0) filter.errors = words(error).filter(name => name !== 'ANY').map(errnoOf)
  if (path !== undefined) filter.path = path
  if (slower !== undefined) {
    const [, number, unit = 'us'] = /^(\d+(?:\.\d+)?)(us|ms|s)?$/.exec(slower) ?? []
    if (number === undefined) throw new UsageError(`--slower ${slower}: expected a time such as 500us, 2ms or 1s`)
    filter.slowerThanUs = Number(number) * UNITS[unit]!
  }
  return filter
}

function suggestion(name: string | undefined): string {
  return name === undefined ? '' : ` (did you mean ${name}?)`
}

function opcodeOf(name: string): number {
  const row = opcodeRows.find(candidate => candidate.name === name)
  if (!row) throw new UsageError(`--op ${name}: no such FUSE opcode${suggestion(nearest(name, opcodeRows.map(candidate => candidate.name)))}`)
  return row.opcode
}

function errnoOf(name: string): number {
  const number = (errno as Record<string, number>)[name]
  if (number === undefined) throw new UsageError(`--error ${name}: no such error${suggestion(nearest(name, Object.keys(errno)))}`)
  return number
}

/** @returns the exit code, when the mount has ended, `count` lines were written, or at SIGINT */
export async function traceCommand(target: string, options: TraceOptions): Promise<number> {
  const filter = parseFilter(options)
  const { client } = await connectToMount(target)
  const stopped = once(process, 'SIGINT').then(() => client.close())
  stopped.catch(() => {})
  // whoever reads us has gone
  process.stdout.on('error', () => client.close())
  client.say({ command: 'trace', filter })
  try {
    for (let lines = 0; options.count === undefined || lines < options.count; lines++) {
      const line = await client.line() as TraceLine | Refusal
      if (isRefusal(line)) throw new UsageError(line.error)
      if (options.json) console.log(JSON.stringify(line))
      else console.log('dropped' in line ? alarm(`… ${line.dropped} left out: too fast for this reader`) : readable(line))
    }
  } catch (error) {
    if (!(error instanceof PeerGoneError)) throw error
  } finally {
    client.close()
  }
  return ExitCode.OK
}

function readable(request: ObservedRequest): string {
  const { fh, flags, mode, offset, size } = request
  const details = [
    ...request.otherPath === undefined ? [] : [`${request.op === 'LINK' ? 'of' : 'to'} ${request.otherPath}`],
    ...flags === undefined ? [] : [`flags 0x${flags.toString(16)}`], ...mode === undefined ? [] : [`mode 0${mode.toString(8)}`],
    ...offset === undefined ? [] : [`at ${offset}`], ...size === undefined ? [] : [`size ${size}`], ...fh === undefined ? [] : [`fh ${fh}`],
  ]
  const result = request.error === 0 ? 'OK' : alarm(request.errorName)
  return `${request.time.slice(11, 23)} ${request.op.padEnd(11)} ${printable([request.path, ...details].join('  '))}  pid ${request.pid}  ${result}  ${request.us} us`
}
