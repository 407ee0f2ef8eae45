/**
 * Running in the background: the command starts a detached child with the parsed request, and exits
 * when the child says that the mount is usable, or with the child's exit code and message.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { PeerGoneError } from '../lib/errors.js'
import { givenFd, takeGivenFd } from '../lib/mount/given-fd.js'
import type { MountRequest } from '../lib/mount/mount.js'
import { ExitCode } from './exit-codes.js'
import { clearProgress } from './progress.js'

const SIGNALS: readonly NodeJS.Signals[] = ['SIGINT', 'SIGTERM', 'SIGHUP']

/** @returns the exit code of the command @throws when there can be no such process, or it dies */
export async function startDaemon(request: MountRequest): Promise<number> {
  const given = givenFd(request.mountpoint)
  // it goes to the child as the first descriptor that is free there, and to nobody else
  if (given !== undefined) takeGivenFd(given)
  const script = fileURLToPath(new URL('./daemon-child.js', import.meta.url))
  const child = spawn(process.execPath, [...process.execArgv, script, request.source, request.mountpoint], {
    detached: true, stdio: ['ignore', 'ignore', 'pipe', 'ipc', ...given === undefined ? [] : [given]],
  })
  // without descriptors or processes there is no channel either
  if (child.pid === undefined) throw (await once(child, 'error'))[0]
  child.send(given === undefined ? request : { ...request, mountpoint: '/dev/fd/4' } satisfies MountRequest)
  // what goes wrong before the mount is usable is the command's to tell
  child.stderr!.on('data', chunk => {
    clearProgress()
    process.stderr.write(chunk)
  })
  const stop = (signal: NodeJS.Signals): void => { child.kill(signal) }
  for (const signal of SIGNALS) process.on(signal, stop)
  const usable = once(child, 'message').then(() => ExitCode.OK)
  const ended = once(child, 'close').then(([code, signal]: (number | string | null)[]) => {
    if (signal === null) return code as number
    if (SIGNALS.includes(signal as NodeJS.Signals)) return ExitCode.INTERRUPTED
    throw new PeerGoneError(`the process that was to serve the mount died of ${signal}`)
  })
  const exitCode = await Promise.race([usable, ended])
  for (const signal of SIGNALS) process.off(signal, stop)
  if (child.connected) child.disconnect()
  child.stderr!.destroy()
  child.unref()
  return exitCode
}
