/** `virtiofs-bridge stats`. */
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { between, type Interval } from '../lib/control/interval.js'
import { PeerGoneError } from '../lib/errors.js'
import { ExitCode } from './exit-codes.js'
import { connectToMount } from './find-control.js'
import { bytes, columns } from './table.js'
import { emphasis, isTerminal } from './terminal.js'

export interface StatsOptions {
  /** Go on until it is stopped. */
  watch: boolean
  json: boolean
  /** Length of an interval, in seconds. */
  interval: number
}

/** How long the queues may take to hear that they are watched, in milliseconds. */
const BEGIN_MS = 50

/** @returns the exit code: the mount may end while it is watched */
export async function statsCommand(target: string, { watch, json, interval }: StatsOptions): Promise<number> {
  const { client, mount } = await connectToMount(target)
  const stop = new AbortController()
  const stopped = once(process, 'SIGINT').then(() => stop.abort())
  stopped.catch(() => {})
  const live = watch && !json && isTerminal()
  try {
    // with the first look they begin to count latencies
    await client.ask({ command: 'stats' })
    await sleep(BEGIN_MS, undefined, { signal: stop.signal })
    let before = await client.ask({ command: 'stats' })
    if (live) process.stdout.write('\x1b[H\x1b[2J')
    do {
      await sleep(interval * 1000, undefined, { signal: stop.signal })
      const now = await client.ask({ command: 'stats' })
      const seen = between(before, now)
      before = now
      if (json) console.log(JSON.stringify(seen))
      else console.log((live ? '\x1b[H' : '') + picture(seen, `${mount.mountpoints[0] ?? mount.tag}  ${mount.source}`).map(line => line + (live ? '\x1b[K' : '')).join('\n') + (live ? '\x1b[J' : '\n'))
    } while (watch)
  } catch (error) {
    if (stop.signal.aborted || (watch && error instanceof PeerGoneError && error.code === 'ENOTCONN')) return ExitCode.OK
    throw error
  } finally {
    client.close()
  }
  return ExitCode.OK
}

/** Characters of the longest bar. */
const BAR = 40

function time(us: number | undefined): string {
  if (us === undefined) return '-'
  if (us < 10_000) return `${us} us`
  return us < 10_000_000 ? `${Math.round(us / 1000)} ms` : `${Math.round(us / 1e6)} s`
}

function picture(seen: Interval, title: string): string[] {
  const efficiency = seen.pollEfficiency === null ? 'no polls' : `${Math.round(seen.pollEfficiency * 100)} % of ${seen.pollsWon + seen.pollsLost} polls found work`
  const rows = Object.entries(seen.opcodes).sort(([, a], [, b]) => b.count - a.count)
  const most = Math.max(...seen.histogram.map(([, count]) => count))
  return [
    emphasis(`${title}  ${seen.time.slice(11, 19)}`),
    `requests  ${seen.requestsPerSecond}/s   errors ${seen.errorsPerSecond}/s   in flight ${seen.inFlight} now, ${seen.inFlightMean} on average`,
    `read      ${bytes(seen.bytesReadPerSecond)}/s   written ${bytes(seen.bytesWrittenPerSecond)}/s`,
    `polling   ${efficiency}   sleeps ${seen.sleeps}   kicks ${seen.kicks}   full ${seen.stalls}`,
    '',
    ...columns([
      ['OPCODE', 'PER SECOND', 'P50', 'P90', 'P99', 'MAX', 'SINCE MOUNT'],
      ...rows.map(([name, row]) => [name, String(row.perSecond), time(row.p50Us), time(row.p90Us), time(row.p99Us), time(row.maxUs), String(row.total)]),
    ]).split('\n').map((line, i) => i === 0 ? emphasis(line) : line),
    '',
    ...seen.histogram.map(([from, count]) => `${time(from).padStart(8)}  ${'#'.repeat(Math.max(1, Math.round(count / most * BAR))).padEnd(BAR)}  ${count}`),
  ]
}
