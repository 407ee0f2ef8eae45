/**
 * Running in the background: the command starts a detached child with what was asked for, and exits
 * when the child says that the mount is usable, or with the child's exit code and message.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { PeerGoneError } from '../lib/errors.js'
import { startEnvironment } from '../lib/sys/node-environment.js'
import { ExitCode } from './exit-codes.js'
import type { MountArguments } from './plain-mount.js'
import { clearProgress, withProgress } from './progress.js'

const SIGNALS: readonly NodeJS.Signals[] = ['SIGINT', 'SIGTERM', 'SIGHUP']

/** @returns the exit code of the command @throws when there can be no such process, or it dies */
export async function startDaemon(asked: MountArguments): Promise<number> {
  return await withProgress(`mounting ${asked.source}`, start(asked))
}

/** The descriptor that the mount point names, for the child alone. */
async function takeGiven(mountpoint: string): Promise<number | undefined> {
  if (!mountpoint.startsWith('/dev/fd/')) return undefined
  const { givenFd, takeGivenFd } = await import('../lib/mount/given-fd.js')
  const given = givenFd(mountpoint)
  if (given !== undefined) takeGivenFd(given)
  return given
}

async function start(asked: MountArguments): Promise<number> {
  const given = await takeGiven(asked.mountpoint)
  const script = fileURLToPath(new URL('./daemon-child.js', import.meta.url))
  const child = spawn(process.execPath, [...process.execArgv, script, asked.source, asked.mountpoint], {
    // what was given goes to the child as the first descriptor that is free there
    detached: true, env: startEnvironment(), stdio: ['ignore', 'ignore', 'pipe', 'ipc', ...given === undefined ? [] : [given]],
  })
  // without descriptors or processes there is no channel either
  if (child.pid === undefined) throw (await once(child, 'error'))[0]
  child.send(given === undefined ? asked : { ...asked, mountpoint: '/dev/fd/4' } satisfies MountArguments)
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
