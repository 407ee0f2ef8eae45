/**
 * Seeded fuzzing in memory: hostile devices, backends and drivers.
 *
 *   node dist/test/campaigns/fuzz.js device|client|notifications|vhost-user|driver [--count=N] [--seed=N] [--runs=N]
 *
 * Runs until N things were mutated. A finding ends it with exit code 1 and says the seed of its
 * run, which `--seed=THAT --runs=1` repeats. For vhost-user, set UV_THREADPOOL_SIZE=32: each
 * session that waits has a thread.
 */
import { parseArgs } from 'node:util'
import { endHostileBackend, hostileChannel, hostileConfigs, hostileSession, type BackendReport } from './hostile-backend.js'
import { HostileDevice, type HostileReport } from './hostile-device.js'
import { HostileDriver, HostilePlace, type DriverReport } from './hostile-driver.js'
import { hostileEngine } from './hostile-engine.js'
import { hostileNotifications } from './hostile-notifications.js'
import { openFds } from '../support/vhost-user-session.js'

const SESSIONS_AT_ONCE = 16
const CHANNEL_MESSAGES = 300
const CONFIGS = 100

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { count: { type: 'string', default: '1000000' }, seed: { type: 'string', default: '1' }, runs: { type: 'string', default: 'Infinity' } },
})
const [what = ''] = positionals
const count = Number(values.count)
const most = Number(values.runs)
const first = Number(values.seed)
const start = performance.now()

/** Calls `run` with one seed after the other. @returns the last */
async function campaign(report: { mutated: number }, run: (seed: number) => Promise<void> | void): Promise<number> {
  let seed = first
  for (; report.mutated < count && seed - first < most; seed++) {
    try {
      await run(seed)
    } catch (error) {
      console.error(`fuzz ${what}: run ${seed}: ${(error as Error).stack}`)
      process.exit(1)
    }
  }
  return seed - 1
}

const deviceReport: HostileReport = { mutated: 0, requests: 0, runs: 0, broken: 0, refused: 0, good: 0 }
const backendReport: BackendReport = { mutated: 0, messages: 0, sessions: 0, accepted: 0, refused: 0 }
const driverReport: DriverReport = { mutated: 0, chains: 0, runs: 0, broken: 0, good: 0 }
let report: { mutated: number }
let last: number
switch (what) {
  case 'device':
    last = await campaign(report = deviceReport, seed => HostileDevice.run(seed, deviceReport))
    break
  case 'notifications':
    last = await campaign(report = deviceReport, seed => hostileNotifications(seed, deviceReport))
    break
  case 'client':
    last = await campaign(report = deviceReport, seed => hostileEngine(seed, deviceReport))
    break
  case 'vhost-user': {
    const fds = openFds()
    last = await campaign(report = backendReport, async seed => {
      const sessions = most === 1 ? 1 : SESSIONS_AT_ONCE
      await Promise.all(Array.from({ length: sessions }, (_, i) => hostileSession(seed + i * 0x100_0000, backendReport).catch(error => {
        throw new Error(`session ${seed + i * 0x100_0000}: ${(error as Error).stack}`)
      })))
      await hostileChannel(seed, CHANNEL_MESSAGES, backendReport)
      hostileConfigs(seed, CONFIGS)
      if (openFds() > fds + 2) throw new Error(`${openFds()} descriptors are open, ${fds} at the beginning`)
    })
    endHostileBackend()
    break
  }
  case 'driver': {
    const place = new HostilePlace()
    try {
      last = await campaign(report = driverReport, seed => HostileDriver.run(seed, place, driverReport))
    } finally {
      place.close()
    }
    break
  }
  default:
    console.error('fuzz: device, client, notifications, vhost-user or driver?')
    process.exit(1)
}
const seconds = (performance.now() - start) / 1000
console.log(`fuzz ${what}: seeds ${first} to ${last}, ${JSON.stringify(report)}, ${seconds.toFixed(1)} s, ${Math.round(report.mutated / seconds)} a second, ${Math.round(process.memoryUsage.rss() / 2 ** 20)} MiB resident`)
