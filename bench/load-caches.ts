/** Making the kernel forget the names of a mount, which nothing timed may overlap. */
import { cpuSecondsOf } from './cpu.js'
import { dropNames, sleep } from './load-sys.js'
import type { Task } from './load-task.js'

const QUIET_MS = 50
const SETTLE_MS = 10_000

/**
 * Every name of the mount has to be looked up again afterwards, and its server holds nothing for
 * the old ones: waits until the servers, at work on the FORGETs, use no more CPU.
 */
export function forgetNames({ mount, servers }: Task): void {
  if (mount === undefined) return
  dropNames(mount)
  const cpu = () => servers.reduce((sum, pid) => sum + cpuSecondsOf(pid), 0)
  const endMs = performance.now() + SETTLE_MS
  for (let before = -1, now = cpu(); now > before && performance.now() < endMs; before = now, now = cpu()) {
    sleep(QUIET_MS)
  }
}
