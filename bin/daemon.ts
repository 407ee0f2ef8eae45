/**
 * Running in the background: the command starts itself again, detached, and exits when that child
 * says that the mount is usable, or with the child's exit code and message.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync } from 'node:fs'
import { dup2 } from '../lib/sys/io.js'
import { ExitCode } from './exit-codes.js'

/** Set for the child; taken out of its environment at once. */
const MARK = 'VIRTIOFS_BRIDGE_DAEMON'
const isChild = process.env[MARK] !== undefined && process.send !== undefined
delete process.env[MARK]

export function isDaemonChild(): boolean {
  return isChild
}

/** @returns the exit code of the parent */
export async function startDaemon(): Promise<number> {
  const child = spawn(process.execPath, [...process.execArgv, ...process.argv.slice(1)], {
    detached: true, stdio: ['ignore', 'ignore', 'pipe', 'ipc'], env: { ...process.env, [MARK]: '1' },
  })
  // what goes wrong before the mount is usable is the command's to tell
  child.stderr!.on('data', chunk => process.stderr.write(chunk))
  const stop = (signal: NodeJS.Signals): void => { child.kill(signal) }
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, stop)
  const usable = once(child, 'message').then(() => ExitCode.OK)
  const ended = once(child, 'close').then(([code]) => (code as number | null) ?? ExitCode.INTERRUPTED)
  const exitCode = await Promise.race([usable, ended])
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.off(signal, stop)
  if (child.connected) child.disconnect()
  child.stderr!.destroy()
  child.unref()
  return exitCode
}

/** In the child: the mount is usable. Lets go of terminal, directory and parent. */
export function becomeDaemon(): void {
  const nowhere = openSync('/dev/null', 'r+')
  for (const fd of [0, 1, 2]) dup2(nowhere, fd)
  closeSync(nowhere)
  process.chdir('/')
  process.send!('usable', () => process.disconnect())
}
