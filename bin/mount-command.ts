/** `virtiofs-bridge mount`: in the foreground, or as a daemon that was seen to be usable. */
import { errno, errorLine, SyscallError } from '../lib/errors.js'
import { mount, type Mount } from '../lib/mount/mount.js'
import { parseMountOptions } from '../lib/mount/options.js'
import { becomeDaemon, isDaemonChild, startDaemon } from './daemon.js'
import { ExitCode } from './exit-codes.js'

/** How long users of a mount that is being ended have before they get errors, in milliseconds. */
const BUSY_TIMEOUT_MS = 10_000

/** @returns the exit code */
export async function mountCommand(source: string, mountpoint: string, optionTexts: string[], foreground: boolean): Promise<number> {
  const options = parseMountOptions(optionTexts)
  if (!foreground && !isDaemonChild()) return await startDaemon()
  const interrupted = new Promise<NodeJS.Signals>(resolve => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => resolve(signal))
  })
  let early = true
  void interrupted.then(() => { if (early) process.exitCode = ExitCode.INTERRUPTED })
  const mounted = await mount({ source, mountpoint, options })
  early = false
  mounted.on('gone', reason => console.error(`virtiofs-bridge: ${mounted.mountpoint}: ${reason}; operations fail until it is unmounted`))
  if (isDaemonChild()) becomeDaemon()
  await Promise.race([mounted.closed, interrupted.then(() => endMount(mounted))])
  return ExitCode.OK
}

/** Ends a mount on a signal: gently, then lazily, then by force; a second signal forces at once. */
async function endMount(mounted: Mount): Promise<void> {
  try {
    await mounted.unmount()
    return
  } catch (error) {
    if (!(error instanceof SyscallError) || error.errno !== errno.EBUSY) throw error
    console.error(`virtiofs-bridge: ${errorLine(error)}; detaching it, and aborting in ${BUSY_TIMEOUT_MS / 1000} s or at the next signal`)
  }
  const force = (): void => { void mounted.abort() }
  const timer = setTimeout(force, BUSY_TIMEOUT_MS)
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, force)
  await mounted.unmount({ lazy: true })
  clearTimeout(timer)
}
