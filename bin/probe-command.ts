/** `virtiofs-bridge probe`. */
import { probe, type ProbeResult } from '../lib/driver/probe.js'
import { probeDevice } from '../lib/mount/device.js'
import { mountTimeoutMs, type MountOptions } from '../lib/mount/options.js'
import { parseSource } from '../lib/mount/source.js'
import { ExitCode } from './exit-codes.js'
import { withProgress } from './progress.js'

/** @returns the exit code */
export async function probeCommand(source: string, options: MountOptions, json: boolean): Promise<number> {
  const found = await withProgress(`probing ${source}`, probeSource(source, options))
  console.log(json ? JSON.stringify(found, null, 2) : describe(found))
  return ExitCode.OK
}

async function probeSource(source: string, options: MountOptions): Promise<ProbeResult> {
  return await probe(await probeDevice(parseSource(source, options), options), mountTimeoutMs(options.mountTimeout))
}

function describe(found: ProbeResult): string {
  const { init } = found
  const rows: [string, string][] = [
    ['tag', found.tag],
    ['request queues', String(found.requestQueues)],
    ['features offered', found.offeredFeatureNames.join(' ')],
    ['features', found.featureNames.join(' ')],
    ['protocol features offered', found.offeredProtocolFeatureNames.join(' ') || 'none'],
    ['protocol features', found.protocolFeatureNames.join(' ') || 'none'],
    ['FUSE version', `${init.major}.${init.minor}`],
    ['FUSE flags', init.flags.join(' ')],
    ['max_write', `${init.maxWrite} bytes`],
    ['max_pages', String(init.maxPages)],
    ['max_readahead', `${init.maxReadahead} bytes`],
    ['max_background', String(init.maxBackground)],
    ['time_gran', `${init.timeGran} ns`],
  ]
  const width = Math.max(...rows.map(([name]) => name.length))
  return rows.map(([name, value]) => `${name.padEnd(width)}  ${value}`).join('\n')
}
