/** A mount with a supervisor, which this process is. */
import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Log } from '../lib/mount/log.js'
import type { MountRequest } from '../lib/mount/mount.js'
import type { MountOptions } from '../lib/mount/options.js'
import { ExitCode } from './exit-codes.js'

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
/** Options that are paths. */
const PATHS = ['socket', 'traceJson', 'audit'] as const
/** Values of `log` that are no file. */
const LOGS = new Set(['syslog', 'journal', 'none'])

/** The same from any directory: those that serve later are started from another one. */
function anywhere({ source, mountpoint, options = {} }: MountRequest): MountRequest {
  const paths: MountOptions = {}
  for (const key of PATHS) if (options[key] !== undefined) paths[key] = resolve(options[key])
  if (options.log !== undefined && !LOGS.has(options.log)) paths.log = resolve(options.log)
  if (options.virtiofsd?.includes('/')) paths.virtiofsd = resolve(options.virtiofsd)
  const isPath = options.socket === undefined && !/^(exec|ssh):/.test(source)
  const from = source.startsWith('unix:') ? `unix:${resolve(source.slice('unix:'.length))}` : isPath ? resolve(source) : source
  return { source: from, mountpoint: resolve(mountpoint), options: { ...options, ...paths } }
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
