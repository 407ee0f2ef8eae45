/** The mount itself: serves until it is unmounted, by anyone, or until a signal. */
import { errno, errorLine, SyscallError } from '../lib/errors.js'
import { type Log, Severity } from '../lib/mount/log.js'
import { mount, type Mount, type MountRequest, mountUnder } from '../lib/mount/mount.js'
import type { Supervision } from '../lib/mount/supervision.js'
import { ExitCode } from './exit-codes.js'

/** How long users of a mount that is being ended have before they get errors, in milliseconds. */
const BUSY_TIMEOUT_MS = 10_000
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

/** Standard error, which tells only what somebody has to know. */
export const terminal: Log = {
  write: (severity, message) => { if (severity !== Severity.INFO) console.error(`virtiofs-bridge: ${message}`) },
}

/**
 * @param usable called once the mount is
 * @param log where things are said from then on
 * @param supervision of a process that is replaced when it dies
 * @returns the exit code
 * @throws what `mount` throws
 */
export async function mountCommand(request: MountRequest, usable: () => void, log: Log, supervision?: Supervision): Promise<number> {
  let interrupted = false
  let end = (): void => { interrupted = true }
  for (const signal of SIGNALS) process.on(signal, () => end())
  const mounted = await (supervision ? mountUnder(request, supervision) : mount(request))
  // from here to the listeners nothing may be awaited: the device may go at any time
  const say = (severity: Severity, message: string): void => log.write(severity, `${mounted.mountpoint}: ${message}`)
  mounted.on('gone', reason => say(Severity.ERROR, `${reason}; operations fail until it is unmounted`))
  mounted.on('lost', reason => say(Severity.WARNING, `${reason}; operations wait until it is back`))
  mounted.on('found', () => say(Severity.WARNING, 'the backend is back'))
  mounted.on('trouble', message => say(Severity.ERROR, message))
  mounted.on('idle', () => say(Severity.INFO, 'unmounted, for nobody used it'))
  const endBySignal = async (): Promise<void> => {
    const force = (): void => mounted.abort()
    end = force
    await endMount(mounted, say, force)
  }
  if (interrupted) {
    await endBySignal()
    return ExitCode.INTERRUPTED
  }
  if (!supervision?.inherited) for (const notice of mounted.notices) terminal.write(Severity.WARNING, notice)
  const signalled = new Promise<void>(resolve => { end = resolve })
  const { ControlServer } = await import('../lib/control/server.js')
  await ControlServer.start(mounted).catch(error => say(Severity.WARNING, `no status, stats and trace: ${errorLine(error)}`))
  usable()
  process.on('uncaughtExceptionMonitor', error => say(Severity.ERROR, `a bug: ${error.stack ?? errorLine(error)}`))
  say(Severity.INFO, supervision?.inherited ? 'it is served again' : `${mounted.source} is mounted`)
  await Promise.race([mounted.closed, signalled.then(endBySignal)])
  say(Severity.INFO, 'ended')
  return ExitCode.OK
}

/** Ends a mount on a signal: gently, then lazily, then by force; a second signal forces at once. */
async function endMount(mounted: Mount, say: (severity: Severity, message: string) => void, force: () => void): Promise<void> {
  try {
    await mounted.unmount()
    return
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error
    if (error.errno !== errno.EBUSY) {
      say(Severity.WARNING, `${errorLine(error)}; whoever may has to unmount it`)
      return await mounted.abandon()
    }
    say(Severity.WARNING, `${errorLine(error)}; detaching it, and aborting in ${BUSY_TIMEOUT_MS / 1000} s or at the next signal`)
  }
  const timer = setTimeout(force, BUSY_TIMEOUT_MS)
  await mounted.unmount({ lazy: true })
  clearTimeout(timer)
}
