/** A mount with a supervisor, which this process is. */
import { fileURLToPath } from 'node:url'
import { absoluteOptions, absolutePath, absoluteSource } from '../lib/mount/absolute.js'
import type { Log } from '../lib/mount/log.js'
import type { MountRequest } from '../lib/mount/mount.js'
import { ExitCode } from './exit-codes.js'

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

/** The same from any directory: those that serve later are started from another one. */
function anywhere({ source, mountpoint, options = {} }: MountRequest): MountRequest {
  return { source: absoluteSource(source, options), mountpoint: absolutePath(mountpoint), options: absoluteOptions(options) }
}

/**
 * @param usable called once the mount is
 * @param background whether that lets go of the terminal
 * @returns the exit code
 */
export async function superviseCommand(request: MountRequest, usable: () => void, log: Log, background: boolean): Promise<number> {
  const { Supervisor } = await import('../lib/control/supervisor.js')
  let said = false
  const supervisor = new Supervisor({
    request: anywhere(request), background,
    server: fileURLToPath(new URL('./served-child.js', import.meta.url)),
    // of each process; the first time it is news
    usable: () => {
      if (!said) usable()
      said = true
    },
    say: (severity, message) => log.write(severity, `${request.mountpoint}: ${message}`),
    failureCode: ExitCode.FAILURE,
  })
  for (const signal of SIGNALS) process.on(signal, () => supervisor.signal(signal))
  return await supervisor.run()
}
