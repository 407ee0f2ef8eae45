/** The mount itself, in the foreground: serves until it is unmounted, by anyone, or until a signal. */
import { errno, errorLine, SyscallError } from '../lib/errors.js'
import { mount, type Mount, type MountRequest } from '../lib/mount/mount.js'
import { ExitCode } from './exit-codes.js'

/** How long users of a mount that is being ended have before they get errors, in milliseconds. */
const BUSY_TIMEOUT_MS = 10_000
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

/**
 * @param usable called once the mount is
 * @returns the exit code
 * @throws what `mount` throws
 */
export async function mountCommand(request: MountRequest, usable: () => void = () => {}): Promise<number> {
  let interrupted = false
  let end = (): void => { interrupted = true }
  for (const signal of SIGNALS) process.on(signal, () => end())
  const mounted = await mount(request)
  mounted.on('gone', reason => console.error(`virtiofs-bridge: ${mounted.mountpoint}: ${reason}; operations fail until it is unmounted`))
  if (interrupted) {
    await mounted.unmount({ lazy: true })
    return ExitCode.INTERRUPTED
  }
  for (const notice of mounted.notices) console.error(`virtiofs-bridge: ${notice}`)
  const signalled = new Promise<void>(resolve => { end = resolve })
  usable()
  await Promise.race([mounted.closed, signalled.then(async () => {
    const force = (): void => mounted.abort()
    end = force
    await endMount(mounted, force)
  })])
  return ExitCode.OK
}

/** Ends a mount on a signal: gently, then lazily, then by force; a second signal forces at once. */
async function endMount(mounted: Mount, force: () => void): Promise<void> {
  try {
    await mounted.unmount()
    return
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error
    if (error.errno !== errno.EBUSY) {
      console.error(`virtiofs-bridge: ${errorLine(error)}; whoever may has to unmount it`)
      return await mounted.abandon()
    }
    console.error(`virtiofs-bridge: ${errorLine(error)}; detaching it, and aborting in ${BUSY_TIMEOUT_MS / 1000} s or at the next signal`)
  }
  const timer = setTimeout(force, BUSY_TIMEOUT_MS)
  await mounted.unmount({ lazy: true })
  clearTimeout(timer)
}
