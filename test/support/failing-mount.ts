/**
 * A mount through the library that must fail, twice:
 *
 *     node dist/test/support/failing-mount.js SOURCE MOUNTPOINT [OPTION...]
 *
 * Prints what was thrown, and what the process held after the first failure and some time after the
 * second, as JSON. A process of its own, with no descriptors but those of the library.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { mount } from '../../lib/index.js'
import { parseMountOptions } from '../../lib/mount/options.js'
import { held } from './held.js'

export interface Failure {
  message: string
  before: string[]
  after: string[]
}

const [source, mountpoint, ...options] = process.argv.slice(2) as [string, string, ...string[]]

async function attempt(): Promise<string> {
  try {
    const mounted = await mount({ source, mountpoint, options: parseMountOptions(options) })
    await mounted.unmount()
  } catch (error) {
    return (error as Error).message
  }
  throw new Error('it did mount')
}

const SETTLE_MS = 100
const DEADLINE_MS = 5000

// the first time starts threads of Node that stay
const message = await attempt()
await sleep(SETTLE_MS)
const before = held()
await attempt()
const endMs = performance.now() + DEADLINE_MS
do await sleep(SETTLE_MS)
while (held().join() !== before.join() && performance.now() < endMs)
console.log(JSON.stringify({ message, before, after: held() } satisfies Failure))
